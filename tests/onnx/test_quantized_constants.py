"""Weights of quantized models that an integer program cannot take as they are: what is told."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.onnx.onnx_models import floats, model, node
from tests.onnx.onnx_running import run, run_onnx
from tests.onnx.test_quantized_models import integerized


def around(*middle: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    """x as int8 numbers d, then `middle`, which makes c of d, and c as int8 numbers y."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        *middle,
        node("QuantizeLinear", "c s z", "cq"),
        node("DequantizeLinear", "cq s z", "y"),
    ]
    common = {"s": np.float32(0.02), "z": np.int8(-3)}
    return model(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 3, 4, 4]}, {**common, **weights})


def convolution(
    w: list[list[int]], scale: list[float] | float, zero: int, dtype: type = np.int8
) -> onnx.ModelProto:
    scales = np.asarray(scale, np.float32)
    return around(
        node("DequantizeLinear", "wq ws wz", "w", axis=0),
        node("Conv", "d w", "c", "conv"),
        wq=np.array(w, dtype).reshape(3, 2, 1, 1), ws=scales, wz=np.full(scales.shape, zero, dtype),
    )  # fmt: skip


ROWS = [[100, -3], [2, 9], [1, -127]]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (convolution(ROWS, 0.01, 0), ""),
        (convolution(ROWS, [0.01, 0.02, 0.03], 0), ""),
        (convolution(ROWS, [0.01, 1e-12, 0.03], 0), "1 of 3 rows in other scales"),
        (convolution([[-128, 2], [3, -128], [0, 0]], 0.01, 0), "-128 is -127 in 2 places"),
        (convolution([[8, 200], [134, 7], [7, 135]], 0.01, 7, np.uint8),
         "2 of 3 rows in other scales"),
        (around(node("Conv", "d w", "c", "conv"), w=floats(3, 2, 1, 1)),
         "'w' has no scales for its rows"),
        (around(node("Conv", "d w", "e", "conv"), node("QuantizeLinear", "e s z", "eq"),
                node("DequantizeLinear", "eq s z", "ed"), node("Add", "ed k", "c", "add"),
                w=np.zeros((3, 2, 1, 1), np.float32), k=floats(1, 3, 4, 4)),
         "'k' has no scale"),
    ],
)  # fmt: skip
def test_constants_that_change_are_told(given: onnx.ModelProto, told: str) -> None:
    module, report = integerized(given)
    assert not report.floats
    assert [reason for _, reason in report.weights if told in reason] == [told] * bool(told)
    assert bool(told) == ("  new weights: " in str(report)) and told in str(report)
    x = floats(1, 2, 4, 4, seed=5)
    (ours,), (theirs,) = run(module, {"x": x}), run_onnx(given, {"x": x})
    assert np.abs(ours - theirs).max() <= 1.01 * 0.02


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**10])
def test_far_scales(scale: float) -> None:
    """Factors of a rescaling far from 1, down to where no multiplier and shift express them."""
    given = around(node("Conv", "d w", "c", "conv"), w=floats(3, 2, 1, 1), s=np.float32(scale))
    module, report = integerized(given)
    assert not report.floats
    x = scale * 50 * floats(1, 2, 4, 4, seed=5)
    (ours,), (theirs,) = run(module, {"x": x}), run_onnx(given, {"x": x})
    assert np.abs(ours - theirs).max() <= 1.01 * scale and np.abs(theirs).max() > 20 * scale
