"""Layouts: pack and unpack, and which ones are row-major after all."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.diagnostics import FrontendError
from nncc.driver import lower
from nncc.frontend.dsl import read_nn
from nncc.ir.bounds import simplify
from nncc.ir.index import evaluate, var
from nncc.ir.layout import blocked, is_row_major, padded, physical_index
from nncc.ir.nests import Layout
from nncc.ir.packing import pack, unpack
from nncc.ir.text import print_module

D = [var(f"d{k}") for k in range(4)]


def weights(shape, lanes, group):
    """[m // lanes, c // group, r, s, m % lanes, c % group]"""
    m, c, r, s = shape
    return Layout(
        (D[0] // lanes, D[1] // group, D[2], D[3], D[0] % lanes, D[1] % group),
        (-(-m // lanes), -(-c // group), r, s, lanes, group),
        0,
    )


@st.composite
def cases(draw):
    shape = tuple(draw(st.integers(1, 9)) for _ in range(4))
    kind = draw(st.sampled_from(["blocked", "padded", "weights", "skewed"]))
    block = draw(st.sampled_from([1, 2, 4]))
    if kind == "blocked":
        return shape, blocked(shape, draw(st.integers(0, 3)), block)
    if kind == "padded":
        return shape, padded(shape, block, 0)
    if kind == "weights":
        return shape, weights(shape, draw(st.sampled_from([2, 4])), draw(st.sampled_from([2, 4])))
    return shape, Layout(
        (D[1], D[0] + D[3], D[2], D[3]), (shape[1], shape[0] + shape[3], shape[2], shape[3])
    )


@settings(max_examples=200, deadline=None)
@given(cases())
def test_pack_puts_every_element_where_the_layout_says(case):
    shape, layout = case
    array = np.arange(1, np.prod(shape) + 1, dtype=np.int32).reshape(shape)
    physical = pack(array, layout)
    assert physical.shape == layout.extents
    for index in np.ndindex(*shape):
        assert physical[physical_index(layout, index)] == array[index]
    assert np.count_nonzero(physical) == array.size
    np.testing.assert_array_equal(unpack(physical, layout, shape), array)
    is_same = physical.size == array.size and (physical.reshape(-1) == array.reshape(-1)).all()
    if is_row_major(layout, shape):
        assert is_same


def test_row_major_in_disguise():
    n = var("N")
    assert is_row_major(blocked((n, 64, 1, 1), 1, 16), (n, 64, 1, 1))
    assert is_row_major(blocked((n, 16, 1, 1), 1, 16), (n, 16, 1, 1))
    assert is_row_major(padded((n, 64), 16), (n, 64))
    assert not is_row_major(blocked((n, 60, 1, 1), 1, 16), (n, 60, 1, 1))
    assert not is_row_major(blocked((n, 64, 2, 1), 1, 16), (n, 64, 2, 1))
    assert not is_row_major(padded((n, 60), 16), (n, 60))


@pytest.mark.parametrize("extent", [64, 60])
def test_symbolic_sizes(extent):
    n = var("N")
    layout = blocked((n, extent, 3), 1, 16)
    array = np.random.default_rng(0).random((2, extent, 3))
    physical = pack(array, layout, {"N": 2})
    assert physical.shape == (2, 4, 3, 16)
    np.testing.assert_array_equal(unpack(physical, layout, array.shape), array)


def test_divisions_cancel():
    layout = blocked((var("N"), 64, 7), 1, 16)
    m, v, e = var("m"), var("v"), var("e")
    assert physical_index(layout, (0, 16 * m + v, e), {"v": (0, 15)}) == (0, m, e, v)


def test_divisions_cancel_inside_of_a_group():
    """Four channels of group g are neighbours in a block of sixteen."""
    layout = blocked((var("N"), 64, 7), 1, 16)
    g, v = var("g"), var("v")
    assert physical_index(layout, (0, 4 * g + v, 0), {"v": (0, 3)}) == (
        0, (4 * g) // 16, 0, (4 * g) % 16 + v,
    )  # fmt: skip
    crossing = physical_index(layout, (0, 4 * g + v, 0), {"v": (0, 4)})
    assert crossing == (0, (4 * g + v) // 16, 0, (4 * g + v) % 16)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_simplified_divisions_have_the_same_value(data):
    names = ["a", "b", "c"]
    ranges = {}
    index = data.draw(st.integers(-9, 9))
    for name in names:
        lo = data.draw(st.integers(-4, 4))
        ranges[name] = (lo, lo + data.draw(st.integers(0, 9)))
        index = index + data.draw(st.sampled_from([-8, -1, 1, 2, 3, 4, 6, 8, 16])) * var(name)
    divisor = data.draw(st.sampled_from([2, 3, 4, 8, 16]))
    known = {n: r for n, r in ranges.items() if data.draw(st.booleans())}
    for size in (index // divisor, index % divisor):
        simple = simplify(size, known)
        for _ in range(8):
            env = {n: data.draw(st.integers(*r)) for n, r in ranges.items()}
            assert evaluate(simple, env) == evaluate(size, env)


CALLED = """nncc 1
size N
param w: f32[32,16,3,3] = random(seed=1, mean=0.0, std=0.1)
graph g(x: f32[N,16,6,6]) -> (y) {
  c = Conv(x, w) {pads=[1,1,1,1]} at "conv"
  y = Relu(c) at "relu"
}"""
BLOCKS = "@ (d0, d1 // 16, d2, d3, d1 % 16 : N, 2, 6, 6, 16)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"out y: f32[N,32,6,6] {BLOCKS}", "out y: f32[N,32,6,6]",
         f"'y' of nest 'conv' is row-major, but what is given for it, 'y.blocked', is in {BLOCKS}"),
        (f"out y: f32[N,32,6,6] {BLOCKS}",
         "out y: f32[N,32,6,6] @ (d0, d1 // 16, d3, d2, d1 % 16 : N, 2, 6, 6, 16)",
         "d3, d2, d1 % 16 : N, 2, 6, 6, 16), but what is given for it, 'y.blocked'"),
        ("in x: f32[N,32,36] @ (d0, d1 // 16, d2, d1 % 16 : N, 2, 36, 16)", "in x: f32[N,32,36]",
         "'x' of nest 'conv_1' is row-major, but what is given for it, 'y.blocked'"),
        ("1, 16, 3, 3, 32 fill 0)\n  y.", "1, 16, 3, 3, 32)\n  y.",
         "32 fill 0), but what is given for it, 'w', is in @ (d0 // 32"),
    ],
)  # fmt: skip
def test_a_nest_has_the_layouts_of_what_is_given(old: str, new: str, message: str) -> None:
    """Lowered text that was changed by hand; dimensions may be merged, which changes no place."""
    steps = "fold, cse, dce, legalize, fuse, layout, lower"
    text = print_module(lower(read_nn(CALLED), "cpu-avx512", pipeline=steps).module)
    text = re.sub(r'sha256\("\w+"\)', "random(seed=1, mean=0.0, std=0.1)", text)
    read_nn(text)
    assert text.count(old) == 1
    with pytest.raises(FrontendError) as error:
        read_nn(text.replace(old, new))
    assert message in str(error.value)
