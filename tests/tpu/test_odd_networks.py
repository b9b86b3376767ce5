"""Random networks of odd parts: windows far outside, joins and slices along any axis."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nncc.driver import build, lower
from nncc.ir.graph import Module
from nncc.ir.types import i8
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.ops import reference
from tests.nests.random_networks import Network
from tests.tpu.networks import arrays
from tests.tpu.test_row_layouts import conv, module_of

QUIET = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
PARTS = st.sampled_from(["product", "product", "joined", "joined", "slice", "largest"])


@st.composite
def odd_networks(draw: st.DrawFn) -> Module:
    """A chain of products, Concats, Slices and MaxPools, each of which may leave little."""

    def choice(*values: int) -> int:
        return draw(st.sampled_from(values))

    net = Network(draw(st.integers(0, 99)))
    x = net.input("x", choice(1, 2, 3), choice(1, 3, 5, 9), choice(1, 2, 5, 8), choice(1, 4, 6, 7),
                  dtype=i8)  # fmt: skip
    for part in draw(st.lists(PARTS, min_size=1, max_size=5)):
        shape = net.builder.type(x).static_shape
        if part == "joined":
            axis = choice(0, 1, 2, 3)
            if shape[axis] < 12:
                x = net.add("Concat", *[x] * choice(2, 3), axis=axis)
        elif part == "slice":
            axis = choice(0, 1, 2, 3)
            first = draw(st.integers(0, shape[axis] - 1))
            numbers = (first, draw(st.integers(first + 1, shape[axis])), axis, choice(1, 1, 2))
            if choice(0, 0, 1):
                numbers = (-1, first - shape[axis] - 1, axis, -1)
            x = net.add("Slice", x, *(net.constant(np.array([n], np.int64)) for n in numbers))
        elif part == "largest":
            sides = tuple(min(choice(1, 2, 3), n) for n in shape[2:])
            pads = tuple(choice(0, n - 1) for n in sides) * 2
            x = net.add("MaxPool", x, kernel_shape=sides, pads=pads, strides=(choice(1, 2), 1))
        else:
            kernel, dilation = choice(1, 1, 2, 3), choice(1, 1, 2)
            pads = tuple(choice(0, 1, 2) for _ in range(4))
            reach = dilation * (kernel - 1) + 1
            if min(n + pads[k] + pads[k + 2] for k, n in enumerate(shape[2:])) < reach:
                continue
            group = choice(1, 1, shape[1])
            x = conv(
                net, x, group * choice(1, 2) if group > 1 else choice(1, 4, 9), kernel, pads=pads,
                strides=(choice(1, 2, 3), choice(1, 2)), dilations=(dilation, dilation),
                group=group, pad_value=choice(3, -128),
            )  # fmt: skip
    return module_of(net, net.add("Lookup", x, net.constant(np.arange(256).astype(np.int8))))


def check(module: Module, array: dict[str, int], counted: Counter[str]) -> None:
    compilation = lower(module, resized(load("tpu"), **array))
    shape = module.graph.types["x"].static_shape
    feeds = {"x": np.random.default_rng(0).integers(-128, 128, shape, np.int8)}
    outputs = build(compilation).run(feeds)
    for name, y in reference.interpret(compilation.module, feeds).outputs.items():
        assert np.array_equal(outputs[name], y), name
    counted["networks"] += 1
    counted["all on the array"] += not compilation.host_nodes


@settings(QUIET, derandomize=True, max_examples=50)
@given(module=odd_networks(), array=arrays())
def test_odd_networks(module: Module, array: dict[str, int], counted: Counter[str]) -> None:
    check(module, array, counted)


@pytest.mark.slow
@settings(QUIET, max_examples=1000)
@given(module=odd_networks(), array=arrays())
def test_many_odd_networks(module: Module, array: dict[str, int], counted: Counter[str]) -> None:
    check(module, array, counted)
