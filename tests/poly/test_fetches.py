"""What holds one tile at a time, and sums over loops, against counting everything one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.ir.expr import Const, Value, apply
from nncc.ir.index import evaluate, maximum, minimum, var
from nncc.ir.types import i32
from nncc.passes.reuse import fetched, operands
from nncc.passes.reuse.fetches import unit
from nncc.passes.reuse.rounds import Around, summed
from nncc.passes.reuse.traffic import dim_ranges
from tests.poly.nest_builder import conv


def pieces(ranges, loops):
    """The ranges of every tile, in order."""
    if not loops:
        yield ranges
        return
    (dim, step), *rest = loops
    lo, hi = ranges[dim]
    for at in range(lo, hi, step):
        yield from pieces({**ranges, dim: (at, min(at + step, hi))}, rest)


def touched(nest, tensor, ranges, shape):
    """The elements of x or w of a convolution in a tile, by its definition."""
    (s,) = nest.statements
    load = next(x for x in s.values[0].args if x.tensor == tensor)
    points = [{}]
    for d in s.dims:
        points = [{**p, d.name: k} for p in points for k in range(*ranges[d.name])]
    found = {tuple(evaluate(i, p) for i in load.indices) for p in points}
    return {a for a in found if all(0 <= k < n for k, n in zip(a, shape, strict=True))}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_tiles_of_convolutions(data):
    whole = st.integers
    nest = conv(
        m=data.draw(whole(1, 2)), c=data.draw(whole(1, 3)), e=data.draw(whole(1, 4)),
        f=data.draw(whole(1, 3)), r=data.draw(whole(1, 3)), s=data.draw(whole(1, 2)),
        stride=data.draw(whole(1, 2)), pad=data.draw(whole(0, 1)),
    )  # fmt: skip
    (s,) = nest.statements
    ranges = dim_ranges(nest, s, {})
    order = data.draw(st.permutations([d.name for d in s.dims]))
    loops = tuple((d, data.draw(whole(1, 3))) for d in order[: data.draw(whole(0, len(order)))])
    for operand in operands(s, nest):
        if operand.role != "read":
            continue
        shape = nest.param(operand.tensor).type.static_shape
        total, last = 0, None
        for tile in pieces(ranges, loops):
            # it stays while only loops go round that do not select it
            at = {d: tile[d] for d in operand.dims}
            if at != last:
                total += len(touched(nest, operand.tensor, tile, shape))
            last = at
        assert fetched(operand, loops, ranges).loads == total


def test_units():
    ranges = {"o": (0, 3), "tile": (0, 4), "tap": (0, 9), "p": (0, 20)}
    loops = (("o", 1), ("tile", 1), ("tap", 1))
    assert fetched(unit("w", "read", 64, o=3, tap=9), loops, ranges).load_bytes == 3 * 4 * 9 * 64
    alone = {**ranges, "tap": (0, 1)}
    assert fetched(unit("w", "read", 64, o=3, tap=1), loops, alone).load_bytes == 3 * 64
    sums = fetched(unit("t", "update", 4, o=3), (("o", 1), ("tap", 1)), ranges)
    assert (sums.loads, sums.stores) == (0, 3)  # they stay until all taps are in them
    sums = fetched(unit("t", "update", 4, o=3), (("tap", 1), ("o", 1)), ranges)
    assert (sums.loads, sums.stores) == (3 * 8, 3 * 9)


@settings(deadline=None)
@given(
    st.integers(0, 6), st.integers(1, 3), st.integers(-2, 2), st.integers(1, 5), st.integers(0, 9)
)
def test_sums_over_loops(extent, step, shift, window, limit):
    e, r = var("e"), var("r")
    loops = [
        Around("e", 0, extent, step),
        Around("r", maximum(shift - e, 0), minimum(extent - e, window)),
        Around("c", 0, 7),
    ]
    factor = minimum(e + r, 3) + 1
    condition = apply("lt", Value(e + 2 * r, i32), Const(limit, i32))
    total = 0
    for a in range(0, extent, step):
        for b in range(max(shift - a, 0), min(extent - a, window)):
            total += 7 * (min(a + b, 3) + 1) * (a + 2 * b < limit)
    assert summed(loops, (factor,), (condition,)) == total
