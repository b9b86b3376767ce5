"""The benchmarks measure what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import nncc
from benchmarks import kernels
from benchmarks.kernels import in_onnxruntime, kernel
from benchmarks.layers import LAYERS, Layer
from benchmarks.measure import Peak, median_seconds
from benchmarks.networks import CALIBRATION, deviation, feeds_of, prepare
from benchmarks.unsigned import write_unsigned
from nncc.driver import lower
from nncc.frontend.dsl import read_nn
from nncc.machines import load
from nncc.ops.cost import macs


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.label)
def test_work_is_that_of_the_layer_without_its_padding(layer: Layer) -> None:
    nominal = macs(read_nn(layer.text))["layer"]
    assert isinstance(nominal, int)
    assert 0.8 * nominal < layer.macs <= nominal
    padded = "pads=" in layer.text and "pads=[0," not in layer.text
    assert (layer.macs < nominal) == padded


def test_no_kernel_is_faster_than_the_peak() -> None:
    machine = load("cpu")
    peak = Peak(machine).gflops()
    layer = next(x for x in LAYERS if x.label == "1x1 1024-256 @14")
    module = read_nn(layer.text)
    ours = median_seconds(kernel(module, machine), 0.05)
    assert 2e-9 * layer.macs / ours < 1.5 * peak  # other processes disturb either
    assert in_onnxruntime(module) > 0


def quantized(text: str, folder: Path) -> Path:
    module = read_nn(f"nncc 1 {text}")
    module = lower(module, pipeline=CALIBRATION, precision="int8").module
    nncc.save(module, folder / "signed.onnx")
    return folder / "signed.onnx"


@pytest.mark.filterwarnings("ignore:quantize has no calibration data")
def test_unsigned_activations_mean_the_same(tmp_path: Path) -> None:
    text = """
        param w: f32[8,3,3,3] = random(seed=1, std=0.3)
        param v: f32[8,8,1,1] = random(seed=2, std=0.3)
        graph g(x: f32[2,3,9,9]) -> (y: f32[2,8,4,4]) {
          c = Conv(x, w) {pads=[1,1,1,1]}
          p = MaxPool(c) {kernel_shape=[2,2], strides=[2,2]}
          y = Conv(p, v)
        }"""
    signed, unsigned = quantized(text, tmp_path), tmp_path / "unsigned.onnx"
    assert write_unsigned(signed, unsigned)
    feeds = feeds_of(signed)
    (_, expected), (_, found) = (prepare("ort", path, feeds) for path in (signed, unsigned))
    assert deviation(found, expected) < 0.02  # a rounding of onnxruntime's float layers
    model = onnx.shape_inference.infer_shapes(onnx.load(unsigned))
    kinds = {v.type.tensor_type.elem_type for v in model.graph.value_info}
    assert kinds == {onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8}


@pytest.mark.filterwarnings("ignore:quantize has no calibration data")
def test_tables_have_no_unsigned_form(tmp_path: Path) -> None:
    text = """
        param w: f32[8,3,1,1] = random(seed=1, std=0.3)
        graph g(x: f32[2,3,4,4]) -> (y: f32[2,8,4,4]) { c = Conv(x, w) y = Sigmoid(c) }"""
    assert not write_unsigned(quantized(text, tmp_path), tmp_path / "unsigned.onnx")
    assert not (tmp_path / "unsigned.onnx").exists()


def test_other_targets_are_measured_without_onnxruntime(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert kernels.run("dw 3x3 512", 0.01, "cpu-baseline") == 0
    title, head, row = capsys.readouterr().out.splitlines()
    assert "baseline" in title and "ort" not in head and len(row.split()) == 4 + 4


def test_deviation_is_relative_to_the_range() -> None:
    expected = {"y": np.array([1.0, -4.0])}
    assert deviation({"y": np.array([1.0, -4.0])}, expected) == 0
    assert deviation({"y": np.array([2.0, -4.0])}, expected) == 0.25
