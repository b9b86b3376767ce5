"""Definitions that fold into a tensor, against a loop in Python that follows the rules by the word.

A tensor that is first written by a combine starts as the combine's identity, all of it; a
condition cuts only what is folded.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.ir.definition import instantiate
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.text import parse_definition
from nncc.ir.types import TensorType, dtype_of
from nncc.ir.verify_nests import verify_nest

LIMITS = np.iinfo(np.int64)
COMBINES = {
    "sum": (0, lambda a, b: a + b), "prod": (1, lambda a, b: a * b),
    "max": (LIMITS.min, max), "min": (LIMITS.max, min),
}  # fmt: skip
# Subscripts of y: i64[5,5] over i in 0..4 and j in 0..3, each with what it means in Python.
TARGETS = {
    "i, j": "(i, j)", "j, i": "(j, i)", "i, 1": "(i, 1)", "i + 1, j": "(i + 1, j)",
    "i // 2, j": "(i // 2, j)", "4 - i, 2*j": "(4 - i, 2 * j)", "i % 2, 0": "(i % 2, 0)",
    "ids[i] in 0..5, j": "(ids[i], j)", "max(i - j, 0), ids[j] in 0..5": "(max(i - j, 0), ids[j])",
}  # fmt: skip
VALUES = ("x[i,j]", "x[i,j] * x[i,0] + 3", "2 - x[0,j]")
CONDITIONS = ("j <= i", "i >= 2", "i + j >= 3", "j >= 9")


def run(text: str, *arrays: np.ndarray) -> dict[str, np.ndarray]:
    definition = parse_definition(text)
    types = tuple(TensorType(dtype_of(a.dtype), a.shape) for a in arrays)
    nest = instantiate(definition, types, {})
    verify_nest(nest)
    names = [p.name for p in nest.inputs]
    return interpret_nest(nest, dict(zip(names, arrays, strict=True)), {})


@st.composite
def folds(draw: st.DrawFn) -> tuple[str, str, list[str], str]:
    target = draw(st.sampled_from(sorted(TARGETS)))
    conditions = draw(st.lists(st.sampled_from(CONDITIONS), max_size=2))
    return target, draw(st.sampled_from(VALUES)), conditions, draw(st.sampled_from(["ij", "ji"]))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(COMBINES)), st.lists(folds(), min_size=1, max_size=2), st.booleans(),
    st.integers(0, 999),
)  # fmt: skip
def test_folding(combine, statements, scan, seed):
    rng = np.random.default_rng(seed)
    x, ids = rng.integers(-9, 9, (4, 3)), rng.integers(0, 5, 4)
    identity, fold = COMBINES[combine]
    expected = np.full((5, 5), identity)
    lines = []
    for target, value, conditions, order in statements:
        dims = {"i": "i in 0..4", "j": "j in 0..3"}
        where = f" where {', '.join(conditions)}" if conditions else ""
        if scan:
            inner = f"for j in 0..3{where} {{ y[{target}] {combine}= {value} }}"
            lines.append(f"scan i in 0..4 {{ {inner} }}")
        else:
            named = ", ".join(dims[d] for d in order)
            lines.append(f"for {named}{where} {{ y[{target}] {combine}= {value} }}")
        for i in range(4):
            for j in range(3):
                names = {"i": i, "j": j, "ids": ids, "x": x}
                if all(eval(c, names) for c in conditions):
                    at = eval(TARGETS[target], names)
                    expected[at] = fold(expected[at], eval(value.replace("[i,j]", "[i][j]"), names))
    body = "\n  ".join(lines)
    text = f"def f(x: i64[4,3], ids: i64[4]) -> (y: i64[5,5]) {{\n  {body}\n}}"
    np.testing.assert_array_equal(run(text, x, ids)["y"], expected)


X = np.arange(1.0, 13.0, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # what is summed reads the target: it reads what stood there before
        ("y[i] = x[i,0]\n y[i] = sum(k)(y[k])", [22.0] * 4),
        ("y[i] = x[i,0]\n y[i] = sum(k in 0..i + 1)(y[k])", [1.0, 5.0, 12.0, 22.0]),
        # several sums are assigned to one element: the last one stays
        ("y[i] = 0.0\n for i in 0..4 { y[i // 2] = sum(k)(x[i,k]) }", [15.0, 33.0, 0.0, 0.0]),
        # an assignment of a sum changes nothing but its elements
        ("y[i] = 9.0\n for i in 0..4 where i >= 2 { y[i] = sum(k)(x[i,k]) }", [9, 9, 24, 33]),
        ("y[i] = 9.0\n for i in 1..3 { y[i] = sum(k)(x[i,k]) }", [9, 15, 24, 9]),
        # a scan starts once
        ("scan t in 0..3 { y[i] sum= x[i,t] }", [6.0, 15.0, 24.0, 33.0]),
    ],
)
def test_where_a_reduction_starts(body, expected):
    text = f"def f(x: f32[4,3]) -> (y: f32[4]) {{\n {body}\n}}"
    np.testing.assert_array_equal(run(text, X)["y"], np.array(expected, np.float32))


def test_components_of_a_tuple_start_each_on_its_own():
    text = """
    def f(x: f32[N,C]) -> (v: f32[N], at: i64[N]) {
      combine first(f32, i64) = (max(a0, b0), select(b0 > a0, b1, a1)) identity (-inf, 7)
      at[n] = 5
      for n in 0..N, c in 0..C where n + c >= 1 { v[n], at[n] first= x[n,c], value(i64, c) }
    }
    """
    found = run(text, np.array([[3], [1]], np.float32))
    np.testing.assert_array_equal(found["v"], [-np.inf, 1.0])
    np.testing.assert_array_equal(found["at"], [5, 0])
