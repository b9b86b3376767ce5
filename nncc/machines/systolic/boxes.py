"""Which rows one instruction reaches: boxes of at most two loops of equal steps.

    dims = [(4, (100, 50)), (8, (1, 1))]     4 lines of 8 rows: 100 rows apart in the first operand
    fits(dims, dense=False)                  True

A dimension is a number of rounds and, for each operand, by how many rows a round is further on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

LONGEST = 0xFFFF  # rounds of a dimension

Dims = list[tuple[int, tuple[int, ...]]]  # outermost first


def simple(dims: Dims) -> Dims:
    """Loops, outermost first, without those of one round; neighbours that can be are merged."""
    found: Dims = []
    for count, strides in dims:
        if count == 1:
            continue
        if found and all(p == count * q for p, q in zip(found[-1][1], strides, strict=True)):
            found[-1] = (found[-1][0] * count, strides)
        else:
            found.append((count, strides))
    return found


def fits(dims: Dims, dense: bool) -> bool:
    """Whether one instruction can do it.

    Args:
        dense: the rows of the last operand must follow one another within a line of the box.
    """
    if any(d < 0 for _, strides in dims for d in strides):
        return False
    if dense and len(dims) == 1 and dims[0][1][-1] == 1:
        return True  # the 1-D form is as long as one likes
    if len(dims) > 2 or any(count > LONGEST for count, _ in dims):
        return False
    return not dense or len(dims) < 2 or dims[-1][1][-1] == 1


def instructions(loops: Dims) -> int:
    """How many boxes cover nested loops, the innermost two of which are one box.

    Boxes that follow each other at equal distances are one as long as they fit.
    """
    outer, box = loops[:-2], simple(loops[-2:])
    total, count = 0, 0
    start: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    for base in _bases(outer):
        if count == 1:
            step = tuple(y - x for x, y in zip(start, base, strict=True))
        expected = tuple(x + count * d for x, d in zip(start, step, strict=True))
        if count and base == expected and fits(simple([(count + 1, step), *box]), False):
            count += 1
            continue
        total, start, step, count = total + 1, base, (0,) * len(base), 1
    return total


def _bases(loops: Sequence[tuple[int, tuple[int, ...]]]) -> Iterator[tuple[int, ...]]:
    """The first row of each operand in every round."""
    for rounds in product(*(range(count) for count, _ in loops)):
        strides = (s for _, s in loops)
        parts = [[k * d for d in s] for k, s in zip(rounds, strides, strict=True)]
        yield tuple(map(sum, zip(*parts, strict=True)))
