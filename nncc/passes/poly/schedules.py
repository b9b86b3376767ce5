"""When each instance runs, as a tuple of integers compared lexicographically.

The tree

    parallel n { for m by 32 { init  for c { acc } } }

gives `init[n,m]` the time `(n, m//32, 0, m, 0)` and `acc[n,m,c]` the time `(n, m//32, 1, c, m)`:
positions among siblings and band counters in turn, then the dimensions that the bands leave open,
in the statement's order. Shorter tuples are filled with zeros, and places that are the same for
all are left out. Pieces of a dimension are counted from the smallest lower bound that the
statements below its outermost band have. A `vector` band runs the leaves in it one after the
other, each for all lanes at once: the lane stands behind their positions, and behind the counters
of bands inside of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
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
class Parallel:
    """A parallel band: the place of its counter in the times of the statements below it."""

    place: int
    dim: str
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """A schedule as times.

    Args:
        times: of each statement's instances, all of one length.
        parallel: the parallel bands.
        vectors: for each statement in a vector band the place of the lane.
        pieces: for each tensor placed by a `Local` how many leading places of the time say
            which piece of it an instance uses.
    """

    times: Mapping[str, Time]
    parallel: tuple[Parallel, ...] = ()
    vectors: Mapping[str, int] = field(default_factory=dict)
    pieces: Mapping[str, int] = field(default_factory=dict)


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
    return Order(_filled(times))


def scheduled(nest: Nest, tree: tuple[Schedule, ...]) -> Order:
    """The order that `tree`, a verified schedule of the nest, states.

    Raises PassError if a step is symbolic.
    """
    walk = _Walk(nest)
    walk.visit(tree, (), {})
    times = _filled(walk.times)
    columns = list(zip(*times.values(), strict=True))
    kept = [k for k, c in enumerate(columns) if not isinstance(c[0], int) or set(c) != {c[0]}]

    def place(old: int) -> int:
        return sum(k < old for k in kept)

    return Order(
        {name: tuple(time[k] for k in kept) for name, time in times.items()},
        tuple(replace(p, place=place(p.place)) for p in walk.parallel),
        {statement: place(p) for statement, p in walk.vectors.items()},
        {tensor: place(p) for tensor, p in walk.pieces.items()},
    )


class _Walk:
    """Times of leaves, gathered from the root of a schedule tree down."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.dims: dict[str, tuple[Dim, ...]] = {
            s.name: (*scans, *s.dims) for s, scans in walk_statements(nest.body)
        }
        self.times: dict[str, Time] = {}
        self.parallel: list[Parallel] = []
        self.vectors: dict[str, int] = {}
        self.pieces: dict[str, int] = {}

    def visit(
        self, body: tuple[Schedule, ...], prefix: Time, rest: Mapping[str, Size], lane: Time = ()
    ) -> None:
        """`rest` is what the bands around leave of a dimension, counted from its piece's start."""
        for position, node in enumerate(body):
            here = (*prefix, position)
            if isinstance(node, Leaf):
                if lane:
                    self.vectors[node.statement] = len(here)
                open_ = (d.name for d in self.dims[node.statement] if rest.get(d.name) != 0)
                self.times[node.statement] = (*here, *lane, *(var(d) for d in open_))
            elif isinstance(node, Local):
                self.pieces |= {tensor: len(here) for tensor in node.tensors}
                self.visit(node.body, here, rest, lane)
            else:
                self._band(node, here, rest, lane)

    def _band(self, band: Band, here: Time, rest: Mapping[str, Size], lane: Time) -> None:
        if not any(_leaves(band.body)):
            return
        if not isinstance(band.step, int):
            raise PassError(
                f"schedule of nest {self.nest.name}: the step of band {band.dim} by {band.step} "
                "is not a number",
                self.nest.location,
                "leave the dimension whole, or choose a literal step",
            )
        remaining = rest.get(band.dim)
        if remaining is None:
            remaining = var(band.dim) - self._origin(band)
        counter, left = remaining // band.step, remaining % band.step
        if band.kind == "vector" and band.step == 1:
            self.visit(band.body, here, {**rest, band.dim: 0}, (remaining,))
        elif band.kind == "vector":
            self.visit(band.body, (*here, counter), {**rest, band.dim: 0}, (left,))
        else:
            if band.kind == "parallel":
                below = tuple(leaf.statement for leaf in _leaves(band.body))
                self.parallel.append(Parallel(len(here), band.dim, below))
            self.visit(band.body, (*here, counter), {**rest, band.dim: left}, lane)

    def _origin(self, band: Band) -> Size:
        """Where the pieces of the band's dimension are counted from."""
        lows = [
            dim.lo
            for leaf in _leaves(band.body)
            for dim in self.dims[leaf.statement]
            if dim.name == band.dim
        ]
        return reduce(minimum, lows)


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
