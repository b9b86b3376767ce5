"""Traffic of what holds one tile at a time: registers, weights in an array, rows on their way.

Such a place is filled anew for each tile. What neighbouring tiles share is not kept, as a memory
would keep it (see `traffic`); an operand stays only while loops go round that do not select it and
stand inside of all that do:

    for m { for e { for c { t[m,e] sum= x[c,e] * w[m,c] } } }     x and w are fetched M*E*C times,
    for e { for c { for m { … } } }                               x is fetched E*C times
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nncc.ir.index import var
from nncc.passes.reuse.operands import Operand
from nncc.passes.reuse.points import Axis, Range
from nncc.passes.reuse.traffic import Loops, Ranges, Traffic, pieces, touched


def fetched(operand: Operand, loops: Loops, ranges: Ranges, domain: Sequence[Axis] = ()) -> Traffic:
    """Loads and stores of one operand that is held for one tile below all `loops`.

    Args:
        loops: dimensions and steps, outermost first, as of `predict`.
        ranges: of each dimension.
        domain: iterations in which one of these axes has no position at all are left out: with
            the subscripts of a load that may be outside of its tensor, those in which it is.
    """
    own = tuple(loop for loop in loops if loop[0] in ranges)
    moved = _touched_by_tiles(operand, kept(operand, own, ranges, domain), ranges, domain)
    if operand.role == "read":
        return Traffic(operand.tensor, moved, 0, operand.bits, operand.exact)
    back = 0 if operand.role == "write" else moved - touched(operand, ranges)
    leaving = moved - touched(operand, ranges) if operand.local else moved
    return Traffic(operand.tensor, back, leaving, operand.bits, operand.exact)


def kept(operand: Operand, loops: Loops, ranges: Ranges, domain: Sequence[Axis] = ()) -> Loops:
    """`loops` without the innermost ones in which the operand stays in its place.

    Loops of one round move nothing. A loop that decides whether there is anything to do at all
    counts as one that moves the operand: nothing is fetched in vain.
    """
    moving = operand.dims.union(*(axis.dims for axis in domain))
    last = 0
    sides = {d: hi - lo for d, (lo, hi) in ranges.items()}
    for k, (dim, step) in enumerate(loops):
        if dim in moving and step < sides[dim]:
            last = k + 1
        sides[dim] = min(step, sides[dim])
    return loops[:last]


def unit(tensor: str, role: str, size: int, **dims: int) -> Operand:
    """An operand of `size` bytes at once, one for each combination of the dims' values."""
    axes = tuple(Axis((d,), ((var(d),),), (extent,)) for d, extent in dims.items())
    return Operand(tensor, role, False, 8 * size, axes, True)


def _touched_by_tiles(
    operand: Operand, loops: Loops, ranges: Ranges, domain: Sequence[Axis]
) -> int:
    """Elements that each tile touches, summed up over all tiles.

    Axes that share no dimension are independent: the sum is a product of sums over groups.
    """
    if any(lo == hi for lo, hi in ranges.values()):
        return 0
    total = 1
    for dims in _groups([*operand.axes, *domain], [d for d, _ in loops]):
        axes = [a for a in operand.axes if dims.issuperset(a.dims)]
        limits = [a for a in domain if dims.issuperset(a.dims)]
        total *= _sum(dims, axes, limits, loops, ranges)
    for axis in operand.axes:
        if not axis.dims:
            total *= axis.mask(()).bit_count()
    return total


def _groups(axes: Sequence[Axis], dims: Sequence[str]) -> list[frozenset[str]]:
    """All dimensions of loops and axes in groups; those that share an axis share a group."""
    groups = [frozenset((d,)) for d in dict.fromkeys(dims)]
    for axis in axes:
        if axis.dims:
            touching = [g for g in groups if not g.isdisjoint(axis.dims)]
            joined = frozenset(axis.dims).union(*touching)
            groups = [*(g for g in groups if g not in touching), joined]
    return groups


def _sum(
    dims: frozenset[str],
    axes: Sequence[Axis],
    limits: Sequence[Axis],
    loops: Loops,
    ranges: Mapping[str, Range],
) -> int:
    """Positions in all axes together that tiles touch, over the loops over `dims`."""
    names = sorted(dims)
    states = [tuple(ranges[d] for d in names)]
    for dim, step in loops:
        if dim in dims:
            place = names.index(dim)
            states = [child for state in states for child in pieces(state, place, step)]
    total = 0
    for state in states:
        known = dict(zip(names, state, strict=True))
        if all(axis.mask(tuple(known[d] for d in axis.dims)) for axis in limits):
            count = 1
            for axis in axes:
                count *= axis.mask(tuple(known[d] for d in axis.dims)).bit_count()
            total += count
    return total
