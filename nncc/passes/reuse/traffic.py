"""Traffic between a level of memory and the one around it, in closed form.

An order of loops `((m, 32), (c, 16), (e, 1))` walks tiles like an odometer: when loop `p` advances,
the loops inside it go back from their last to their first iteration, those outside stay. As
a tile's elements are a product over axes, and each loop belongs to at most one axis of an
operand, the sum over all tiles of

    new elements = |touched now| - |touched now and before|

is for each advancing loop a difference of two products of sums over single axes. The sums are
kept by axis and loops, so that a search over tile sizes computes each one once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from nncc.diagnostics import PassError
from nncc.ir.index import substitute
from nncc.ir.nests import Band, Leaf, Nest, Schedule, Statement
from nncc.passes.reuse.operands import Operand, operands
from nncc.passes.reuse.points import Axis, Range

Loops = tuple[tuple[str, int], ...]
Ranges = Mapping[str, Range]


@dataclass(frozen=True)
class Traffic:
    """What moves between a level and the one around it for one operand.

    `loads` and `stores` count elements; `exact` is False where accesses are over-approximated.
    """

    tensor: str
    loads: int
    stores: int
    bits: int
    exact: bool = True

    @property
    def load_bytes(self) -> int:
        return -(-self.loads * self.bits // 8)

    @property
    def store_bytes(self) -> int:
        return -(-self.stores * self.bits // 8)

    @property
    def bytes(self) -> int:
        return self.load_bytes + self.store_bytes


def predict(
    nest: Nest,
    loops: Loops,
    cut: int | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    statement: str | None = None,
) -> tuple[Traffic, ...]:
    """Loads and stores of a level below the first `cut` of `loops`, for every operand.

    Each tensor is counted for one statement: `statement` (default: the one with the most
    dimensions), and for what that does not touch the next one that does, under the loops over
    the dimensions that it has. Statements that share a tensor are taken to run in the same
    tile of it, as after fusion: a local tensor is born and dies there, and what is written by
    an assignment before a reduction folds into it is not counted twice.

    Args:
        loops: dimensions and steps, outermost first; a dimension may occur again with a
            smaller step. `cut` None: all of them are outside of the level.
        sizes: numbers for the named sizes.

    Raises PassError for a loop over an unknown dimension, a step below 1 or a size without
    a number.
    """
    _check(nest, loops)
    outside = loops if cut is None else loops[:cut]
    return tuple(
        traffic(operand, outside, ranges)
        for operand, ranges in counted_operands(nest, sizes, statement)
    )


def counted_operands(
    nest: Nest, sizes: Mapping[str, int] | None = None, statement: str | None = None
) -> list[tuple[Operand, dict[str, Range]]]:
    """Each operand of a nest once, with the ranges of the statement that it is counted for."""
    seen: dict[str, tuple[Operand, dict[str, Range]]] = {}
    for s in ordered_statements(nest, statement):
        ranges = dim_ranges(nest, s, sizes)
        try:
            found = operands(s, nest, sizes)
        except ValueError as error:
            raise PassError(f"nest {nest.name}: {error}") from error
        for operand in found:
            seen.setdefault(operand.tensor, (operand, ranges))
    return list(seen.values())


def ordered_statements(nest: Nest, first: str | None = None) -> list[Statement]:
    """Statements by falling number of dimensions, `first` before all others."""
    return sorted(nest.statements, key=lambda s: (s.name != first, -len(s.dims)))


def dim_ranges(nest: Nest, s: Statement, sizes: Mapping[str, int] | None) -> dict[str, Range]:
    """The range of each dimension as numbers. Raises PassError where there is none."""
    ranges: dict[str, Range] = {}
    for d in s.dims:
        lo, hi = substitute(d.lo, sizes or {}), substitute(d.hi, sizes or {})
        if not isinstance(lo, int) or not isinstance(hi, int):
            raise PassError(f"nest {nest.name}: dimension {d.name} in {lo}..{hi} is not a number")
        ranges[d.name] = lo, max(lo, hi)
    return ranges


def _check(nest: Nest, loops: Loops) -> None:
    known = {d.name for s in nest.statements for d in s.dims}
    for dim, step in loops:
        if dim not in known or step < 1:
            raise PassError(f"nest {nest.name} cannot loop over {dim} by {step}")


def traffic(operand: Operand, loops: Loops, ranges: Ranges) -> Traffic:
    """Loads and stores of one operand of a level below all `loops` over dimensions in `ranges`."""
    arriving = arrivals(operand, tuple(x for x in loops if x[0] in ranges), ranges)
    if operand.role == "read":
        return Traffic(operand.tensor, arriving, 0, operand.bits, operand.exact)
    distinct = touched(operand, ranges)
    back = 0 if operand.role == "write" else arriving - distinct
    leaving = arriving - distinct if operand.local else arriving
    return Traffic(operand.tensor, back, leaving, operand.bits, operand.exact)


def touched(operand: Operand, ranges: Ranges) -> int:
    """The number of elements touched when each dimension runs over its range."""
    if any(lo == hi for lo, hi in ranges.values()):
        return 0
    return math.prod(axis.mask(_of(axis, ranges)).bit_count() for axis in operand.axes)


def arrivals(operand: Operand, loops: Loops, ranges: Ranges) -> int:
    """How often an element comes to be in the level, over the whole walk."""
    if any(lo == hi for lo, hi in ranges.values()):
        return 0
    sums = [_sums(axis, loops, ranges) for axis in operand.axes]
    rest = tuple(loop for loop in loops if loop[0] not in operand.dims)
    sums.append(_counts(rest, tuple(sorted((d, ranges[d]) for d in dict(rest)))))
    members = [set(axis.dims) for axis in operand.axes] + [set(dict(rest))]
    depth = [0] * len(sums)
    total = math.prod(s.first[0] for s in sums)
    for dim, _ in loops:
        now = both = 1
        for k, s in enumerate(sums):
            if dim in members[k]:
                depth[k] += 1
                now *= s.advanced[depth[k]]
                both *= s.kept[depth[k]]
            else:
                now *= s.first[depth[k]]
                both *= s.wrapped[depth[k]]
        total += now - both
    return total


@dataclass(frozen=True)
class Sums:
    """Sums over the iterations of an axis' first `j` loops, `j` being the place in each tuple.

    first:    positions touched with the inner loops at their first iteration
    wrapped:  those of them also touched with the inner loops at their last
    advanced: positions touched when loop `j` has just advanced, inner loops at their first
    kept:     those of them touched just before, inner loops at their last
    """

    first: tuple[int, ...]
    wrapped: tuple[int, ...]
    advanced: tuple[int, ...]
    kept: tuple[int, ...]


def _of(axis: Axis, ranges: Ranges) -> tuple[Range, ...]:
    return tuple(ranges[d] for d in axis.dims)


def _sums(axis: Axis, loops: Loops, ranges: Ranges) -> Sums:
    own = tuple(loop for loop in loops if loop[0] in axis.dims)
    key = own, _of(axis, ranges)
    found = axis.sums.get(key)
    if found is None:
        found = axis.sums[key] = _axis_sums(axis, own, _of(axis, ranges))
    return found


def _axis_sums(axis: Axis, loops: Loops, ranges: tuple[Range, ...]) -> Sums:
    mask = axis.mask
    states = [ranges]
    places = [axis.dims.index(dim) for dim, _ in loops]
    steps = [step for _, step in loops]
    first, wrapped, advanced, kept = [], [], [0], [0]
    for j in range(len(loops) + 1):
        inner = list(zip(places[j:], steps[j:], strict=True))
        at_first = [mask(_descend(state, inner, last=False)) for state in states]
        at_last = [mask(_descend(state, inner, last=True)) for state in states]
        first.append(sum(m.bit_count() for m in at_first))
        wrapped.append(sum((a & b).bit_count() for a, b in zip(at_first, at_last, strict=True)))
        if j == len(loops):
            break
        inner = inner[1:]
        children_of = [pieces(state, places[j], steps[j]) for state in states]
        now = both = 0
        for children in children_of:
            for before, after in pairwise(children):
                new = mask(_descend(after, inner, last=False))
                now += new.bit_count()
                both += (new & mask(_descend(before, inner, last=True))).bit_count()
        advanced.append(now)
        kept.append(both)
        states = [child for children in children_of for child in children]
    return Sums(tuple(first), tuple(wrapped), tuple(advanced), tuple(kept))


@lru_cache(maxsize=65536)
def _counts(loops: Loops, ranges: tuple[tuple[str, Range], ...]) -> Sums:
    """The same for loops that select nothing: numbers of iterations."""
    position = {d: k for k, (d, _) in enumerate(ranges)}
    states = {tuple(r for _, r in ranges): 1}
    counts, advances = [1], [0]
    for dim, step in loops:
        following: dict[tuple[Range, ...], int] = {}
        for state, number in states.items():
            for child in pieces(state, position[dim], step):
                # only lengths matter, so that equal pieces are counted together
                lo, hi = child[position[dim]]
                child = (*child[: position[dim]], (0, hi - lo), *child[position[dim] + 1 :])
                following[child] = following.get(child, 0) + number
        counts.append(sum(following.values()))
        advances.append(counts[-1] - counts[-2])
        states = following
    return Sums(tuple(counts), tuple(counts), tuple(advances), tuple(advances))


def pieces(state: tuple[Range, ...], place: int, step: int) -> list[tuple[Range, ...]]:
    """The pieces that a loop makes of one dimension's range."""
    lo, hi = state[place]
    before, after = state[:place], state[place + 1 :]
    return [(*before, (at, min(at + step, hi)), *after) for at in range(lo, hi, step)]


def _descend(
    state: tuple[Range, ...], loops: list[tuple[int, int]], *, last: bool
) -> tuple[Range, ...]:
    """The tile when all of `loops` are at their first or last iteration."""
    if not loops:
        return state
    ranges = list(state)
    for place, step in loops:
        lo, hi = ranges[place]
        at = lo + (hi - lo - 1) // step * step if last else lo
        ranges[place] = at, min(at + step, hi)
    return tuple(ranges)


def level_bytes(nest: Nest, tile: Mapping[str, int], sizes: Mapping[str, int] | None = None) -> int:
    """Bytes that a level needs to hold the largest tile of sizes `tile`, all operands.

    Dimensions that `tile` does not name are whole. Tiles at borders may need less.
    """
    return sum(
        -(-largest_tile(operand, tile, ranges) * operand.bits // 8)
        for operand, ranges in counted_operands(nest, sizes)
    )


def largest_tile(operand: Operand, tile: Mapping[str, int], ranges: Ranges) -> int:
    """The most elements that one of the tiles of an operand touches."""
    return math.prod(_largest(axis, tile, ranges) for axis in operand.axes)


def _largest(axis: Axis, tile: Mapping[str, int], ranges: Ranges) -> int:
    key = tuple(tile.get(d) for d in axis.dims), _of(axis, ranges)
    found = axis.largest.get(key)
    if found is None:
        states = [_of(axis, ranges)]
        for place, dim in enumerate(axis.dims):
            if dim in tile:
                states = [c for state in states for c in pieces(state, place, tile[dim])]
        found = axis.largest[key] = max(axis.mask(state).bit_count() for state in states)
    return found


def schedule_loops(nest: Nest, statement: str) -> Loops:
    """The bands around a statement in the nest's schedule, as loops.

    Raises PassError if the schedule lacks the statement or a step is not a number.
    """

    def find(tree: tuple[Schedule, ...], above: Loops) -> Loops | None:
        for node in tree:
            if isinstance(node, Leaf):
                if node.statement == statement:
                    return above
                continue
            here = above
            if isinstance(node, Band):
                if not isinstance(node.step, int):
                    raise PassError(f"nest {nest.name}: band {node.dim} by {node.step} is symbolic")
                here = (*above, (node.dim, node.step))
            if (found := find(node.body, here)) is not None:
                return found
        return None

    loops = find(nest.schedule or (), ())
    if loops is None:
        raise PassError(f"nest {nest.name}: the schedule has no statement {statement}")
    return loops
