"""Offsets of buffers in one block, so that those alive at the same time do not overlap.

Sizes may be symbolic: an offset is an expression over the named sizes, and a place is taken only
if it is free for every value (each size at least 1) that the sizes can have.

    place([Interval("a", 4096*N, 0, 1), Interval("b", 4096*N, 1, 2), Interval("c", 64*N, 2, 3)])
    ->  {"a": 0, "b": 4096*N, "c": 0}, 8192*N
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nncc.ir.bounds import nonnegative
from nncc.ir.index import Size, atom, ceildiv, evaluate, maximum, variables
from nncc.ir.program import ALIGNMENT

# Values of named sizes by which candidates are ordered; any would be right.
_TYPICAL_SIZE = 8


@dataclass(frozen=True, slots=True)
class Interval:
    """A buffer: its bytes, and the first and last step at which it is alive."""

    name: str
    bytes: Size
    first: int
    last: int


def place(intervals: Sequence[Interval]) -> tuple[dict[str, Size], Size]:
    """The offset of each interval by name, and the size of the block, in bytes.

    Large buffers first, each at the lowest place that is certainly free.
    """
    order = sorted(intervals, key=lambda i: (-_typical(i.bytes), i.first, i.name))
    placed: list[tuple[Interval, Size, Size]] = []  # with start and end
    total: Size = 0
    for interval in order:
        neighbours = [
            (start, end)
            for other, start, end in placed
            if other.first <= interval.last and interval.first <= other.last
        ]
        length = aligned(interval.bytes)
        start = _lowest(length, neighbours, total)
        placed.append((interval, start, start + length))
        total = _larger(total, start + length)
    return {interval.name: start for interval, start, _ in placed}, total


def _lowest(length: Size, neighbours: list[tuple[Size, Size]], total: Size) -> Size:
    """The lowest start that overlaps no neighbour; behind everything is always one."""
    candidates = sorted({0, *(end for _, end in neighbours)}, key=_typical)
    for start in candidates:
        if all(
            nonnegative(start - other_end) or nonnegative(other_start - start - length)
            for other_start, other_end in neighbours
        ):
            return start
    return total


def aligned(size: Size) -> Size:
    """`size` rounded up to the alignment of blocks.

    Each coefficient is rounded where that costs little: such sums compare with each other, and
    a rounded-up quotient compares with nothing but itself.
    """
    if isinstance(size, int):
        return ceildiv(size, ALIGNMENT) * ALIGNMENT
    if all(
        c % ALIGNMENT == 0 or (c >= 4 * ALIGNMENT and all(isinstance(a, str) for a in m))
        for m, c in size.terms
        if m
    ):
        rounded: Size = 0
        for m, c in size.terms:
            term: Size = ceildiv(c, ALIGNMENT) * ALIGNMENT
            for a in m:
                term = term * atom(a)
            rounded = rounded + term
        return rounded
    # written so that `nonnegative` can compare it: (a // b) * b <= a
    return (size + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT


def _larger(a: Size, b: Size) -> Size:
    if nonnegative(b - a):
        return b
    return a if nonnegative(a - b) else maximum(a, b)


def _typical(size: Size) -> int:
    return int(evaluate(size, dict.fromkeys(variables(size), _TYPICAL_SIZE)))
