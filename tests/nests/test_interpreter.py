"""The interpreter of nests against one that runs instance by instance, and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.diagnostics import CheckError
from nncc.ir.expr import Apply, Const, Load, Name, Value, apply
from nncc.ir.index import Element, atom, var
from nncc.ir.interpreter import nests as interpreter
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.nests import Access, Combine, Nest, Statement
from nncc.ir.text import parse_nest
from nncc.ir.types import boolean, f32, i8, i32, i64
from tests.nests.naive_nests import naive, random_inputs
from tests.nests.random_nests import N, conv, convs, dims, recurrences, reductions, tensor

SIZES = {"N": 2}


def same(nest, inputs, sizes=SIZES):
    got, expected = interpret_nest(nest, inputs, sizes), naive(nest, inputs, sizes)
    for name in expected:
        assert got[name].dtype == expected[name].dtype
        if got[name].dtype.kind == "f":
            np.testing.assert_allclose(got[name], expected[name], rtol=2e-5, atol=2e-5)
        else:
            np.testing.assert_array_equal(got[name], expected[name])


@settings(max_examples=150, deadline=None)
@given(convs(), st.integers(0, 99))
def test_convolutions(nest, seed):
    same(nest, random_inputs(nest, SIZES, seed))


@settings(max_examples=300, deadline=None)
@given(reductions(), st.integers(0, 99))
def test_reductions(nest, seed):
    inputs = random_inputs(nest, SIZES, seed)
    bound = nest.param("x").type.shape[2]
    inputs["p"] = np.abs(inputs["p"]) % (bound + 1)
    same(nest, inputs)


@settings(max_examples=50, deadline=None)
@given(recurrences(), st.integers(0, 99))
def test_recurrences(nest, seed):
    inputs = random_inputs(nest, SIZES, seed)
    inputs["idx"] = np.abs(inputs["idx"]) % nest.param("x").type.shape[0]
    same(nest, inputs)


@settings(max_examples=60, deadline=None)
@given(st.one_of(convs(), reductions()), st.integers(1, 40))
def test_pieces_change_nothing(nest, elements):
    inputs = random_inputs(nest, SIZES)
    if "p" in inputs:
        inputs["p"] = np.abs(inputs["p"]) % (nest.param("x").type.shape[2] + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "PIECE_ELEMENTS", elements)
        same(nest, inputs)


def argmax():
    """y, at = the largest element of each row and the first place where it stands."""
    a0, b0 = Name("a0", f32), Name("b0", f32)
    a1, b1 = Name("a1", i64), Name("b1", i64)
    later = apply("gt", b0, a0)
    combine = Combine(
        "argmax",
        (Const(float("-inf"), f32), Const(0, i64)),
        (Apply("select", (later, b0, a0), f32), Apply("select", (later, b1, a1), i64)),
    )
    i, k = var("i"), var("k")
    row = dims(i=3)
    return Nest(
        "argmax", (),
        (tensor("x", f32, (3, 7)), tensor("y", f32, (3,), "out"), tensor("at", i64, (3,), "out")),
        (
            Statement("i0", row, (Access("y", (i,)),), "=", (Const(float("-inf"), f32),)),
            Statement("i1", row, (Access("at", (i,)),), "=", (Const(0, i64),)),
            Statement("acc", row + dims(k=7), (Access("y", (i,)), Access("at", (i,))), "argmax",
                      (Load("x", (i, k), f32), Value(k, i64))),
        ),
        (combine,),
    )  # fmt: skip


def test_tuple_combine_takes_the_first_of_equals():
    x = np.array([[1, 3, 3, 0, 3, 3, 2], [0] * 7, [5, 4, 3, 2, 1, 0, 6]], np.float32)
    for elements in (1 << 22, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interpreter, "PIECE_ELEMENTS", elements)
            got = interpret_nest(argmax(), {"x": x}, {})
        np.testing.assert_array_equal(got["at"], x.argmax(1))
        np.testing.assert_array_equal(got["y"], x.max(1))


def test_convolution_equals_numpy():
    nest = conv(N, 3, 4, 6, 5, 3, 3, 1, 1)
    inputs = random_inputs(nest, SIZES)
    padded = np.pad(inputs["x"], ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.einsum("ncefrs,mcrs->nmef", windows, inputs["w"]) + inputs["b"][:, None, None]
    got = interpret_nest(nest, inputs, SIZES)["y"]
    np.testing.assert_allclose(got, np.maximum(expected, 0), rtol=1e-5, atol=1e-5)


def test_integer_sums_wrap_around():
    i = var("i")
    product = apply("mul", Load("x", (i,), i32), Load("x", (i,), i32))
    nest = Nest(
        "square", (), (tensor("x", i32, (4,)), tensor("y", i32, (), "out")),
        (
            Statement("init", (), (Access("y", ()),), "=", (Const(0, i32),)),
            Statement("acc", dims(i=4), (Access("y", ()),), "sum", (product,)),
        ),
    )  # fmt: skip
    x = np.array([2**31 - 1, -(2**31), 123456789, -7], np.int32)
    exact = sum(int(v) ** 2 for v in x)
    got = interpret_nest(nest, {"x": x}, {})["y"]
    assert int(got) == (exact + 2**31) % 2**32 - 2**31


def gather(other=None):
    i = var("i")
    where = (atom(Element("idx", (i,), 0, 3)),)
    value = Load("x", where, f32, other)
    return Nest(
        "gather", ("N",),
        (tensor("x", f32, (3,)), tensor("idx", i8, (var("N"),)),
         tensor("y", f32, (var("N"),), "out")),
        (Statement("s", dims(i=var("N")), (Access("y", (i,)),), "=", (value,)),),
    )  # fmt: skip


def test_subscripts_outside_are_an_error_or_the_border():
    inputs = {"x": np.arange(3, dtype=np.float32), "idx": np.array([2, 3], np.int8)}
    with pytest.raises(CheckError, match="outside the tensor"):
        interpret_nest(gather(), inputs, SIZES)
    got = interpret_nest(gather(Const(9.0, f32)), inputs, SIZES)["y"]
    np.testing.assert_array_equal(got, [2, 9])


@pytest.mark.parametrize("offset", [1, -1])
def test_subscripts_of_subscripts_outside_are_an_error(offset):
    """They are not taken from the other end, nor clipped; but where there is no instance."""
    text = """nest f(in x: f32[9], in idx: i64[4], out y: f32[4]) {
      out: for i in 0..4 WHERE { y[i] = x[idx[i + OFFSET] in 0..9] }
    }"""
    inputs = {"x": np.arange(9, dtype=np.float32), "idx": np.array([3, 1, 4, 1])}
    nest = parse_nest(text.replace("WHERE", "").replace("OFFSET", str(offset)))
    outside = r"a subscript of idx goes over .*outside the tensor \[4\]"
    with pytest.raises(CheckError, match=outside):
        interpret_nest(nest, inputs, {})
    where = "where 2 - i >= 0" if offset > 0 else "where i - 1 >= 0"
    nest = parse_nest(text.replace("WHERE", where).replace("OFFSET", str(offset)))
    y = interpret_nest(nest, inputs, {})["y"]
    assert y[1] == (4 if offset > 0 else 3)


def test_inputs_must_fit_their_types():
    inputs = {"x": np.zeros(4, np.float32), "idx": np.zeros(2, np.int8)}
    with pytest.raises(CheckError, match=r"x is float32\[4\], not f32\[3\]"):
        interpret_nest(gather(), inputs, SIZES)


def test_no_instances():
    i = var("i")
    keep = Load("x", (i,), boolean)
    nest = Nest(
        "none", ("N",), (tensor("x", boolean, (3,)), tensor("y", boolean, (3,), "out")),
        (
            Statement("a", dims(i=3), (Access("y", (i,)),), "=", (Const(True, boolean),)),
            Statement("b", dims(i=(0, var("N") - 2)), (Access("y", (i,)),), "=", (keep,)),
        ),
    )  # fmt: skip
    got = interpret_nest(nest, {"x": np.zeros(3, bool)}, {"N": 1})["y"]
    assert got.tolist() == [True] * 3


def test_unwritten_elements_show():
    nest = Nest("hole", (), (tensor("y", f32, (2,), "out"),), (
        Statement("a", (), (Access("y", (0,)),), "=", (Const(1.0, f32),)),
    ))  # fmt: skip
    got = interpret_nest(nest, {}, {})["y"]
    assert got[0] == 1.0
    assert np.isnan(got[1])
