"""Windows of which parts, or all, lie outside of the tensor; rows in any order."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.driver import build, lower
from nncc.ir.graph import Module
from nncc.ir.types import i8
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.ops import reference
from tests.nests.random_networks import Network
from tests.tpu.test_row_layouts import conv, module_of


def check(module: Module, rows: int, hosts: frozenset[str] = frozenset()) -> None:
    """An array of so many rows, with these ops on the host, does it as the interpreter."""
    compilation = lower(module, resized(load("tpu"), rows=rows, columns=8))
    assert {n.op for n in compilation.host_nodes} == hosts
    shape = module.graph.types["x"].static_shape
    feeds = {"x": np.random.default_rng(0).integers(-128, 128, shape, np.int8)}
    outputs = build(compilation).run(feeds)
    for name, y in reference.interpret(compilation.module, feeds).outputs.items():
        assert np.array_equal(outputs[name], y), name


@pytest.mark.parametrize("rows", [4, 16, 64])
@pytest.mark.parametrize(
    "size, pads, strides",
    [
        ((1, 2), (1, 0, 0, 0), (2, 2)),  # no pixel reads x at all
        ((2, 6), (2, 2, 2, 1), (3, 1)),  # a row of pixels does not
        ((2, 1), (0, 2, 1, 0), (1, 2)),
        ((2, 2), (2, 1, 0, 1), (3, 2)),
    ],
)
@pytest.mark.parametrize("group", [1, 3])
def test_products_of_padding_alone(
    rows: int, size: tuple[int, int], pads: tuple[int, ...], strides: tuple[int, ...], group: int
) -> None:
    net = Network(1)
    x = net.input("x", 2, 3, *size, dtype=i8)
    check(module_of(net, conv(net, x, 6, 1, pads=pads, strides=strides, group=group, pad_value=5)),
          rows)  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_slices_that_walk_backwards(axis: int) -> None:
    """Rows are read in one direction only, lanes in any."""
    net = Network(2)
    x = conv(net, net.input("x", 3, 5, 4, 6, dtype=i8), 5, 1)
    numbers = (net.constant(np.array([n], np.int64)) for n in (-1, -99, axis, -1))
    y = conv(net, net.add("Slice", x, *numbers), 4, 1)
    check(module_of(net, y), 8, frozenset() if axis == 1 else frozenset({"Slice"}))
