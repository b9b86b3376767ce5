"""The benchmarks measure what they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.kernels import in_onnxruntime, kernel
from benchmarks.layers import LAYERS, Layer
from benchmarks.measure import Peak, median_seconds
from benchmarks.networks import deviation
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


def test_deviation_is_relative_to_the_range() -> None:
    expected = {"y": np.array([1.0, -4.0])}
    assert deviation({"y": np.array([1.0, -4.0])}, expected) == 0
    assert deviation({"y": np.array([2.0, -4.0])}, expected) == 0.25
