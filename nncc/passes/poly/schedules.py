"""When each instance runs, as a tuple of integers compared lexicographically.

The tree

    parallel n { for m by 32 { init  for c { acc } } }

gives `init[n,m]` the time `(0, n, 0, m//32, 0, n, m)` and `acc[n,m,c]` the time
`(0, n, 0, m//32, 1, c, 0, n, m, c)`: positions among siblings and band counters in turn, then the
statement's own dimensions, whose order holds for what the bands leave. Shorter tuples are
filled with zeros. Pieces of a dimension are counted from the smallest lower bound that the
statements below its outermost band have. A `vector` band runs the leaves in it one after the
other, each for all lanes at once: its counter stands behind their positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

from nncc.diagnostics import PassError
from nncc.ir.index import Size, minimum, var
from nncc.ir.nests import (
    Band,
    Dim,
    Item,
    Leaf,
    Local,
    Nest,
    Scan,
    Schedule,
    walk_schedule,
    walk_statements,
)
from nncc.passes.poly.door import call, isl
from nncc.passes.poly.relations import Relations

Time = tuple[Size, ...]


@dataclass(frozen=True)
class Order:
    """A schedule as times.

    Args:
        times: of each statement's instances, all of one length.
        parallel: the place of each parallel band's counter in the times, and its dimension.
        vectors: for each statement in a vector band the place of the lane's counter.
        pieces: for each tensor placed by a `Local` how many leading places of the time say
            which piece of it an instance uses.
    """

    times: Mapping[str, Time]
    parallel: tuple[tuple[int, str], ...] = ()
    vectors: Mapping[str, int] = ()  # type: ignore[assignment]
    pieces: Mapping[str, int] = ()  # type: ignore[assignment]


def original(nest: Nest) -> Order:
    """The order that a nest has without a schedule."""
    times: dict[str, Time] = {}

    def visit(items: tuple[Item, ...], prefix: Time) -> None:
        for position, item in enumerate(items):
            if isinstance(item, Scan):
                visit(item.body, (*prefix, position, var(item.dim.name)))
            else:
                times[item.name] = (*prefix, position, *(var(d.name) for d in item.dims))

    visit(nest.body, ())
    return Order(_filled(times), (), {}, {})


def scheduled(nest: Nest, tree: tuple[Schedule, ...]) -> Order:
    """The order that `tree` states.

    Raises PassError if the tree does not hold every statement once, or holds a band over a
    dimension that a statement below it lacks.
    """
    walk = _Walk(nest)
    walk.visit(tree, (), {})
    for name in walk.dims:
        if name not in walk.times:
            raise PassError(f"the schedule of nest {nest.name} leaves out statement {name}")
    return Order(_filled(walk.times), tuple(walk.parallel), walk.vectors, walk.pieces)


class _Walk:
    """Times of leaves, gathered from the root of a schedule tree down."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.dims: dict[str, tuple[Dim, ...]] = {
            s.name: (*scans, *s.dims) for s, scans in walk_statements(nest.body)
        }
        self.times: dict[str, Time] = {}
        self.parallel: list[tuple[int, str]] = []
        self.vectors: dict[str, int] = {}
        self.pieces: dict[str, int] = {}

    def error(self, message: str, help: str = "") -> PassError:
        return PassError(f"schedule of nest {self.nest.name}: {message}", help=help)

    def visit(
        self, body: tuple[Schedule, ...], prefix: Time, rest: Mapping[str, Size], lanes: Time = ()
    ) -> None:
        """`rest` is what the bands around leave of a dimension, counted from its piece's start."""
        for position, node in enumerate(body):
            here = (*prefix, position)
            if isinstance(node, Leaf):
                self._leaf(node, here, lanes)
            elif isinstance(node, Local):
                self._local(node, here)
                self.visit(node.body, here, rest, lanes)
            else:
                self._band(node, here, rest, lanes)

    def _leaf(self, leaf: Leaf, here: Time, lanes: Time) -> None:
        name = leaf.statement
        if name not in self.dims:
            raise self.error(f"there is no statement {name}")
        if name in self.times:
            raise self.error(f"statement {name} occurs twice")
        if lanes:
            self.vectors[name] = len(here)
        self.times[name] = (*here, *lanes, *(var(d.name) for d in self.dims[name]))

    def _local(self, node: Local, here: Time) -> None:
        for tensor in node.tensors:
            if tensor not in {p.name for p in self.nest.locals}:
                raise self.error(f"local {tensor}: the nest has no local tensor of that name")
            if tensor in self.pieces:
                raise self.error(f"local tensor {tensor} is placed twice")
            self.pieces[tensor] = len(here)

    def _band(self, band: Band, here: Time, rest: Mapping[str, Size], lanes: Time) -> None:
        if not isinstance(band.step, int) or band.step < 1:
            raise self.error(
                f"band {band.dim} by {band.step}: the step must be a positive number",
                "leave the dimension whole, or choose a literal step",
            )
        if lanes:
            raise self.error(f"band {band.dim} stands inside a vector band")
        remaining = rest.get(band.dim)
        if remaining is None:
            remaining = var(band.dim) - self._origin(band)
        else:
            self._origin(band)
        counter, left = remaining // band.step, remaining % band.step
        if band.kind == "vector":
            if any(not isinstance(node, Leaf) for node in band.body):
                raise self.error(f"the vector band over {band.dim} encloses more than statements")
            self.visit(band.body, here, {**rest, band.dim: left}, (counter,))
            return
        if band.kind == "parallel":
            self.parallel.append((len(here), band.dim))
        self.visit(band.body, (*here, counter), {**rest, band.dim: left})

    def _origin(self, band: Band) -> Size:
        """Where pieces of the band's dimension are counted from; every statement must have it."""
        lows: list[Size] = []
        for leaf in _leaves(band.body):
            if leaf.statement not in self.dims:
                raise self.error(f"there is no statement {leaf.statement}")
            dim = next((d for d in self.dims[leaf.statement] if d.name == band.dim), None)
            if dim is None:
                raise self.error(f"statement {leaf.statement} has no dimension {band.dim}")
            lows.append(dim.lo)
        return reduce(minimum, lows) if lows else 0


def _leaves(tree: tuple[Schedule, ...]) -> Iterator[Leaf]:
    return (node for node in walk_schedule(tree) if isinstance(node, Leaf))


def _filled(times: Mapping[str, Time]) -> dict[str, Time]:
    length = max((len(t) for t in times.values()), default=0)
    return {name: time + (0,) * (length - len(time)) for name, time in times.items()}


def schedule_map(nest: Nest, tree: tuple[Schedule, ...] | None = None) -> isl.UnionMap:
    """From instances to times; `tree` None is the order without a schedule."""
    order = original(nest) if tree is None else scheduled(nest, tree)
    relations = Relations.of(nest)
    bodies = [relations.time(s, order.times[s.name]) for s in nest.statements]
    result = call(isl.UnionMap, "{ }")
    for body in bodies:
        result = call(result.union, isl.UnionMap(relations.complete(body)))
    return result
