"""Closed-form footprints against isl's count."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nncc.ir.index import var
from nncc.ir.nests import Nest
from nncc.passes.poly import calls, footprint, reset_calls
from nncc.passes.poly.footprints import counted_footprint
from nncc.passes.reuse import operands
from tests.poly.nest_builder import conv, dims, fused, load, param, statement
from tests.poly.test_traffic import random_nests

i, j = var("i"), var("j")


def test_boxes_with_halos_and_borders():
    nest = conv(m=8, c=4, e=14, f=14, r=3, s=3, pad=1)
    tile = {"e": (0, 4), "f": (4, 8)}
    assert footprint(nest, "acc", "y", tile) == 8 * 4 * 4
    assert footprint(nest, "acc", "w", tile) == 8 * 4 * 3 * 3
    assert footprint(nest, "acc", "x", tile) == 4 * 5 * 6  # a row less at the border
    assert footprint(nest, "acc", "x") == 4 * 14 * 14
    assert footprint(fused(), "acc", "x", {"n": (2, 5)}, sizes={"N": 9}) == 9


def test_strides_and_dilations_leave_gaps():
    nest = conv(m=1, c=1, e=4, f=1, r=2, s=1, stride=5, dilation=2, pad=0)
    assert footprint(nest, "acc", "x") == 8


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_closed_forms_equal_isl(data):
    nest, _, _ = data.draw(random_nests())
    tile = {}
    for d in nest.statements[0].dims:
        lo = data.draw(st.integers(d.lo, d.hi))
        tile[d.name] = (lo, data.draw(st.integers(lo, d.hi)))
    for operand in operands(nest.statements[0], nest):
        assume(operand.exact)
        tensor = operand.tensor
        counted = counted_footprint(nest, "acc", tensor, tile)
        assert footprint(nest, "acc", tensor, tile) == counted


def test_triangles_are_counted_by_isl():
    nest = Nest(
        "triangle", (), (param("x", (9, 9)), param("y", (9,), "out")),
        (statement("acc", dims(i=9, j=9), ("y", i), "sum", load("x", i, j), where=(i - j,)),),
    )  # fmt: skip
    reset_calls()
    assert footprint(nest, "acc", "x") == 45
    assert footprint(nest, "acc", "x", {"i": (0, 3)}) == 6
    assert calls() > 0
    with pytest.raises(KeyError):
        footprint(nest, "acc", "z")
