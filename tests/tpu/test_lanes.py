"""Lanes that hold no element: who reads whole rows finds something there."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.diagnostics import TargetError
from nncc.driver import build, lower
from nncc.ir.graph import Module
from nncc.ir.types import i8
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.ops import reference
from tests.nests.random_networks import Network
from tests.tpu.test_row_layouts import conv, module_of

MACHINE = resized(load("tpu"), rows=4, columns=4)


def check(module: Module) -> None:
    """All of it runs on the array, as the interpreter does it."""
    compilation = lower(module, MACHINE)
    assert not compilation.host_nodes
    rng = np.random.default_rng(0)
    types = module.graph.types
    feeds = {
        name: rng.integers(-128, 128, types[name].static_shape, np.int8)
        for name in module.graph.inputs
    }
    outputs = build(compilation).run(feeds)
    for name, y in reference.interpret(compilation.module, feeds).outputs.items():
        assert np.array_equal(outputs[name], y), name


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("sides", [(4, 2), (2, 4), (1, 3, 2)])
def test_parts_of_any_length_are_joined(axis: int, sides: tuple[int, ...]) -> None:
    """A product reads all lanes of what a Concat along any axis has written."""
    net = Network(0)
    found = []
    for k, side in enumerate(sides):
        shape = [2, 3, 5, 4]
        shape[axis] = side
        x = net.input(f"x{k}", *shape, dtype=i8)
        found.append(conv(net, x, shape[1], 1))
    check(module_of(net, conv(net, net.add("Concat", *found, axis=axis), 3, 1)))


def maximum(net: Network, x: str) -> str:
    return net.add("MaxPool", x, kernel_shape=(2, 2), strides=(1, 1))


def table(net: Network, x: str) -> str:
    values = net.random.integers(-128, 128, 256).astype(np.int8)
    return net.add("Lookup", x, net.constant(values))


def addition(net: Network, x: str) -> str:
    attrs = {"za": 1, "zb": 2, "ma": 9000, "mb": 20000, "s": 15, "z": 0, "lo": -128, "hi": 127}
    return net.add("IntAdd", x, x, **attrs, to=i8)


def joined(net: Network, x: str) -> str:
    return net.add("Concat", x, x, axis=1)


@pytest.mark.parametrize("channels", [3, 4, 6, 9])
@pytest.mark.parametrize("last", [maximum, table, addition, joined, None])
def test_outputs_whose_last_block_of_channels_is_not_full(last: object, channels: int) -> None:
    """The host takes as many lanes of every row, also of the last block of channels."""
    net = Network(0)
    y = conv(net, net.input("x", 1, 3, 5, 5, dtype=i8), channels, 3, pads=(1, 1, 1, 1))
    check(module_of(net, last(net, y) if callable(last) else y))


def test_two_outputs_in_the_same_rows_are_refused() -> None:
    net = Network(0)
    y = conv(net, net.input("x", 1, 3, 5, 5, dtype=i8), 3, 1)
    compilation = lower(module_of(net, net.add("Flatten", y), y), MACHINE)
    with pytest.raises(TargetError, match="the same bytes as another output"):
        build(compilation)
