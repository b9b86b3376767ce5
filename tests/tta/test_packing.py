"""Convolutions of few filters: pixels beside channels in lanes; tensors with their border."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nncc.driver import lower
from nncc.ir.types import i8
from nncc.machines import load
from nncc.ops.integer import quantize_multiplier
from nncc.ops.verify import verify
from nncc.passes import Pack
from tests.levels.float_networks import Case
from tests.nests.random_networks import Network
from tests.tta.test_codegen import check


def convolution(
    net: Network, x: str, channels: int, filters: int, kernel: int, pads: int,
    stride: int = 1, pad_value: int = 5,
) -> str:  # fmt: skip
    """A convolution with random weights, rescaled to int8."""
    rng = np.random.default_rng(len(net.builder.symbols))
    w = rng.integers(-127, 127, (filters, channels, kernel, kernel), np.int8, endpoint=True)
    b = net.constant(rng.integers(-1000, 1000, filters, np.int32))
    geometry = {"pads": (pads,) * 4, "strides": (stride, stride)}
    y = net.add("IntConv", x, net.constant(w), b, zx=0, pad_value=pad_value, **geometry)
    pairs = [quantize_multiplier((30 + k) / (75 * 75 * kernel)) for k in range(filters)]
    m, s = (net.constant(np.array(c, np.int32)) for c in zip(*pairs, strict=True))
    return net.add("Requantize", y, m, s, z=3)


def given(net: Network, output: str, *shape: int) -> Case:
    """A network of one input x: i8[shape], on random data."""
    data = np.random.default_rng(7).integers(-128, 127, shape, np.int8, endpoint=True)
    return Case.given(net.module(output), {"x": data})


def layers(
    channels: int, filters: int, kernel: int, size: tuple[int, int], pool: int, pads: int,
    more: int = 24, stride: int = 1, pad_value: int = 5,
) -> Case:  # fmt: skip
    """conv → max pool (0: none) → 3x3 conv (`more` filters; 0: none)."""
    net = Network(0)
    x = net.input("x", 1, channels, *size, dtype=i8)
    y = convolution(net, x, channels, filters, kernel, pads, stride, pad_value)
    if pool:
        y = net.add("MaxPool", y, kernel_shape=(pool, pool), strides=(pool, pool))
    if more:
        y = convolution(net, y, filters, more, 3, 1)
    return given(net, y, 1, channels, *size)


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "size", "pool", "pads"),
    [
        (1, 8, 5, (28, 28), 2, 2),
        (1, 8, 5, (11, 13), 2, 2),  # the last window, and the last vector, are not full
        (1, 8, 3, (9, 9), 3, 0),
        (1, 8, 3, (12, 15), 0, 1),
        (1, 16, 3, (8, 10), 2, 1),
        (1, 8, 3, (7, 17), 0, 0),
    ],
)
def test_pixels_and_channels_share_the_lanes(channels, filters, kernel, size, pool, pads):
    case = layers(channels, filters, kernel, size, pool, pads)
    machine = load("tta")
    module = lower(case.module, machine, whole=True).module
    verify(module)
    nests = module.nests
    assert any(name.endswith(".packed") for name in nests)
    check(case, machine)


@pytest.mark.parametrize(
    "case",
    [
        layers(1, 12, 5, (12, 12), 2, 2),  # 12 filters do not divide the lanes
        layers(32, 32, 3, (6, 6), 0, 1),  # the lanes are full
        layers(1, 8, 3, (8, 8), 2, 1, more=0),  # a caller reads the result
        layers(1, 8, 3, (12, 12), 0, 1, stride=2),
        layers(1, 16, 3, (8, 8), 0, 1),  # two pixels are no word of four
        layers(3, 8, 3, (8, 10), 0, 1),  # channels fill the words
        layers(1, 8, 3, (10, 10), 5, 1),  # 25 places in a window are more than registers
    ],
)
def test_others_stay(case):
    machine = load("tta")
    nests = lower(case.module, machine, whole=True).module.nests
    assert not any(name.endswith(".packed") for name in nests)
    check(case, machine)


def test_a_padded_copy_has_no_borders():
    case = layers(6, 8, 3, (7, 6), 2, 1, more=10)
    machine = load("tta_minimal")
    module = lower(case.module, machine, whole=True).module
    verify(module)
    assert sum(name.endswith(".pad") for name in module.nests) == 2
    assert "else" not in "\n".join(map(str, module.nests.values()))
    check(case, machine)


def test_calls_of_one_nest_read_padded_copies():
    """Layers of one shape share a nest: all of its calls get a copy."""
    net = Network(0)
    x = net.input("x", 1, 4, 6, 6, dtype=i8)
    y = convolution(net, x, 4, 4, 3, 1)
    z = convolution(net, convolution(net, y, 4, 4, 3, 1), 4, 4, 3, 1)
    case = given(net, z, 1, 4, 6, 6)
    machine = load("tta_minimal")
    module = lower(case.module, machine, whole=True).module
    verify(module)
    calls = [n.attrs["callee"] for n in module.graph.nodes]
    assert len(calls) == 6 and len(set(calls)) == 2
    check(case, machine)


@pytest.mark.parametrize("keepdims", [True, False])
def test_a_maximum_over_rows_is_no_pooling(keepdims):
    net = Network(0)
    y = convolution(net, net.input("x", 1, 1, 8, 8, dtype=i8), 1, 8, 3, 1)
    axes = net.constant(np.array([3], np.int64))
    y = net.add("ReduceMax", y, axes, keepdims=keepdims)
    check(given(net, y, 1, 1, 8, 8), load("tta"))


def test_a_state_keeps_its_layout():
    """The new value of a state leaves the graph too."""
    case = layers(1, 8, 3, (12, 15), 0, 1)
    steps = "fold, cse, dce, legalize, fuse, layout, lower"
    lowered = lower(case.module, load("tta"), pipeline=steps, whole=True).module
    (first, *_) = (n.outputs[0] for n in lowered.graph.nodes if n.op == "Call")
    assert Pack()(lowered, load("tta")) is not lowered
    kept = replace(lowered, graph=replace(lowered.graph, updates=(("s", first),)))
    assert Pack()(kept, load("tta")) is kept
