"""Integer programs as QDQ models: near the program, and run by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from nncc.diagnostics import UnsupportedError
from nncc.frontend.dsl import read_nn
from nncc.frontend.onnx import load, to_model
from nncc.frontend.onnx.deviation import deviation
from nncc.ir.graph import Module
from nncc.passes.fold import Fold
from nncc.passes.quantize import Quantize
from tests.onnx.onnx_models import floats
from tests.onnx.onnx_running import run, run_onnx

DIGITS = Path(__file__).parents[2] / "examples/digits"
HEAD = """nncc 1
size N
param w: f32[6,4,3,3] = random(seed=1, mean=0.0, std=0.3)
param b: f32[6] = random(seed=2, mean=0.0, std=0.3)
param p: f32[4,4,1,1] = random(seed=4, mean=0.0, std=0.3)
param k: f32[4,5] = random(seed=5, mean=0.0, std=0.5)
param k8: f32[8,5] = random(seed=7, mean=0.0, std=0.5)
const six: f32[] = 6.0
const zero: f32[] = 0.0
const axes: i64[2] = [2, 3]
graph main(x: f32[N,4,8,8]) -> (y) {
"""
BODIES = {
    "padding": "y = Conv(x, w, b) {pads=[1,1,1,1]}",
    "clamps": "c = Conv(x, w, b) r = Relu(c) d = Conv(x, w) e = Clip(d, zero, six) y = Add(r, e)",
    "tables": "c = Conv(x, p) s = Sigmoid(c) y = Mul(c, s)",
    "pools": "c = Conv(x, p) a = AveragePool(c) {kernel_shape=[2,2], strides=[2,2]} "
    "y = MaxPool(a) {kernel_shape=[2,2]}",
    "means": "c = Conv(x, p) r = ReduceMean(c, axes) {keepdims=false} y = MatMul(r, k)",
    "matrices": "c = Conv(x, p) y = MatMul(c, k8)",
    "activations": "c = Conv(x, p) t = Transpose(c) {perm=[0,1,3,2]} y = MatMul(c, t)",
    "joins": "a = Conv(x, p) c = Relu(a) y = Concat(a, c) {axis=1}",
}


def integer(module: Module, **calib: np.ndarray) -> Module:
    return Quantize(calib=calib)(Fold()(module))


@pytest.mark.parametrize("name", BODIES)
def test_each_integer_op(name: str) -> None:
    x = floats(6, 4, 8, 8)
    program = integer(read_nn(f"{HEAD}{BODIES[name]} }}"), x=x)
    model = to_model(program)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 17
    step = float(program.symbols[f"{program.graph.outputs[0]}.scale"].data.array)
    (ours,), (theirs,), (again,) = (
        run(program, {"x": x}), run_onnx(model, {"x": x}), run(load(model), {"x": x})
    )  # fmt: skip
    for given in (theirs, again):
        assert np.abs(given - ours).max() <= 2.01 * step  # ties, met at two roundings in a row
        assert (given != ours).mean() < 0.02


def test_digits_keep_their_labels() -> None:
    with np.load(DIGITS / "digits.npz") as arrays:
        images = arrays["test_images"][:300, None] / np.float32(255)
        calib = arrays["calib_images"][:, None] / np.float32(255)
    program = integer(load(DIGITS / "digits.onnx"), image=calib)
    (theirs,) = run_onnx(to_model(program), {"image": images})
    (ours,) = run(program, {"image": images})
    assert (theirs.argmax(1) == ours.argmax(1)).mean() > 0.99
    assert (theirs != ours).mean() < 0.01
    found = deviation(program, {"image": images})
    largest, differ, count = found.outputs["logits"]
    assert count == 3000 and 0 <= differ < 30
    assert str(found) == (
        f"logits: largest deviation {largest:.6g}, {differ} of 3000 elements differ"
    )


def test_sums_that_nothing_rescales_are_refused() -> None:
    module = read_nn("""nncc 1
    param w: i8[2,2] = [1, -2, 3, 4]
    graph main(x: i8[3,2]) -> (y) { y = IntMatMul(x, w) }""")
    with pytest.raises(UnsupportedError, match="int32 sums are read by something else"):
        to_model(module)
