"""Folding keeps what a graph computes and removes what the rules say."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.ops.reference import evaluate
from nncc.ops.verify import verify
from nncc.passes.fold import Fold

WEIGHTS = """nncc 1
size N
param w: f32[4,3,3,3] = random(seed=1, mean=0.0, std=0.5)
param b: f32[4] = random(seed=2, mean=0.0, std=0.5)
param m: f32[4] = random(seed=3, mean=0.0, std=0.5)
param v: f32[4] = random(seed=4, mean=3.0, std=0.5)
param row: f32[6] = random(seed=5, mean=0.0, std=1.0)
param k: f32[8,6] = random(seed=6, mean=0.0, std=1.0)
const channel: f32[4,1,1] = [1.0, 2.0, -1.0, 0.5]
param single: f32[1,3,3,3] = random(seed=7, mean=0.0, std=0.5)
param column: f32[8,1] = random(seed=8, mean=0.0, std=1.0)
const pair: i64[2] = [1, 2]
const minus: i64[2] = [-1, -2]
const zero: f32[] = 0.0
const one: f32[] = 1.0
const two: f32[] = 2.0
const tall: i64[2] = [-1, 8]
const same: i64[4] = [0, 4, 2, 2]
const far: i64[3] = [100, 100, 100]
"""


def folded(body: str, image: str = "f32[N,3,6,6]") -> Module:
    """The folded module; asserts that it computes the same, verifies and folds no further."""
    module = read_nn(f"{WEIGHTS}graph main(x: {image}) -> (y) {{ {body} }}")
    result = Fold()(module)
    verify(result)
    assert Fold()(result) is result
    extents = module.graph.types["x"].shape
    shape = tuple(s if isinstance(s, int) else 2 for s in extents)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected, given = (interpret(m, {"x": x}, evaluate).outputs["y"] for m in (module, result))
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)
    return result


def ops(module: Module) -> list[str]:
    return [n.op for n in module.graph.nodes]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("c = Conv(x, w, b) y = BatchNormalization(c, b, m, b, v)", ["Conv"]),
        ("c = Conv(x, w) y = BatchNormalization(c, b, m, b, v) {epsilon=0.1}", ["Conv"]),
        ("c = Conv(x, w, b) y = Add(c, channel)", ["Conv"]),
        ("c = Conv(x, w) y = Add(channel, c)", ["Conv"]),
        ("c = Conv(x, w, b) y = Mul(c, channel)", ["Conv"]),
        ("c = Conv(x, w, b) s = Mul(c, two) t = Add(s, channel) y = Relu(t)", ["Conv", "Relu"]),
        # one channel that is broadcast to four stays one
        ("c = Conv(x, single) y = Add(c, channel)", ["Conv", "Add"]),
        ("c = Conv(x, single) y = Mul(channel, c)", ["Conv", "Mul"]),
        # one that something else reads stays
        ("c = Conv(x, w, b) s = Add(c, channel) y = Mul(c, s)", ["Conv", "Add", "Mul"]),
        ("n = Add(zero, x) i = Identity(n) d = Dropout(i) y = Relu(d)", ["Relu"]),
        ("n = Mul(x, one) m2 = Div(n, one) s = Sub(m2, zero) y = Pow(s, one)", ["Identity"]),
        ("t = Transpose(x) {perm=[0,2,3,1]} y = Transpose(t) {perm=[0,3,1,2]}", ["Identity"]),
        ("t = Transpose(x) {perm=[0,2,3,1]} y = Transpose(t) {perm=[0,2,1,3]}", ["Transpose"]),
        ("a = Neg(one) e = Exp(a) y = Mul(x, e)", ["Mul"]),
        ("y = Cast(x) {to=f32}", ["Identity"]),
    ],
)
def test_images(body: str, left: list[str]) -> None:
    assert ops(folded(body)) == left


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("p = MatMul(x, k) y = Add(p, row)", ["Gemm"]),
        ("p = MatMul(x, k) y = Add(row, p)", ["Gemm"]),
        ("t = Transpose(k) {perm=[1,0]} s = Transpose(t) {perm=[1,0]} y = MatMul(x, s)",
         ["MatMul"]),
        ("y = Flatten(x)", ["Identity"]),
        ("p = MatMul(x, column) y = Add(p, row)", ["MatMul", "Add"]),
        ("p = Pow(pair, minus) q = Cast(p) {to=f32} s = ReduceSum(q) y = Mul(x, s)", ["Identity"]),
    ],
)  # fmt: skip
def test_matrices(body: str, left: list[str]) -> None:
    assert ops(folded(body, "f32[N,8]")) == left


def test_views_of_views() -> None:
    module = folded("a = Reshape(x, same) c = Flatten(a) y = Reshape(c, tall)", "f32[N,4,2,2]")
    assert ops(module) == ["Reshape"]


def test_shapes_are_computed() -> None:
    module = folded("s = Shape(x) {start=1} e = ConstantOfShape(s) y = Add(x, e)", "f32[N,4,2,2]")
    assert ops(module) == ["Identity"]
    assert "e" not in module.symbols


def test_what_would_blow_up_is_left() -> None:
    assert ops(folded("e = Expand(two, far) r = ReduceMax(e) y = Mul(x, r)")) == [
        "Expand", "ReduceMax", "Mul",
    ]  # fmt: skip


def test_what_is_made_of_parameters_is_a_parameter() -> None:
    module = folded("n = Neg(row) e = Exp(two) s = Mul(n, e) p = MatMul(x, k) y = Mul(p, s)",
                    "f32[N,8]")  # fmt: skip
    assert {n: s.kind for n, s in module.symbols.items()} == {"k": "param", "s": "param"}


def test_names_of_outputs_stay() -> None:
    module = folded("c = Relu(x) y = Identity(c)")
    assert ops(module) == ["Relu"]
    assert module.graph.outputs == ("y",)


def test_rules_leave_traces(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "nncc.passes.rewriting"):
        folded("c = Conv(x, w, b) y = BatchNormalization(c, b, m, b, v)")
    assert "batch-norm-conv: y (BatchNormalization)" in caplog.messages


def test_unchanged_means_the_same_object() -> None:
    module = read_nn("nncc 1\ngraph main(x: f32[2]) -> (y) { y = Relu(x) }")
    assert Fold()(module) is module
