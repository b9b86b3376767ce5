"""Rows that hold several pixels: which are chosen, and programs for any of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from nncc.backends.tpu.compiler import compile_program
from nncc.diagnostics import PassError, VerifyError
from nncc.driver import build, lower
from nncc.ir.graph import Module
from nncc.ir.index import var
from nncc.ir.layout import blocked
from nncc.ir.nests import Layout
from nncc.ir.types import TensorType, i8
from nncc.ir.verify_layout import verify_layout
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.ops import reference
from nncc.passes.fuse import Fuse
from nncc.passes.lower import Lower
from nncc.passes.perform import Perform
from nncc.passes.plan import Plan, program
from nncc.passes.systolic.blocks import blocks_in, in_blocks
from nncc.passes.systolic.row_layouts import row_layouts
from tests.nests.random_networks import Network


def conv(net: Network, x: str, filters: int, kernel: int, **attrs: object) -> str:
    """A convolution with random weights, rescaled."""
    group = attrs.get("group", 1)
    assert isinstance(group, int)
    channels = net.builder.type(x).shape[1]
    shape = (filters, channels // group, kernel, kernel)
    weights = net.random.integers(-127, 128, shape).astype(np.int8)
    m, s = (net.constant(np.full(filters, k, np.int32)) for k in (1 << 30, 42))
    y = net.add("IntConv", x, net.constant(weights), zx=3, **attrs)
    return net.add("Requantize", y, m, s)


def module_of(net: Network, *outputs: str) -> Module:
    return Module(net.builder.graph("main", outputs), (), net.builder.symbols)


def divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


@settings(
    deadline=None, database=None, derandomize=True, max_examples=120, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=st.data())
def test_products_of_any_blocks(data: st.DataObject) -> None:
    """Layouts that no cost would choose, too: the program is right, or there is none."""

    def choice(*values: int) -> int:
        return data.draw(st.sampled_from(values))

    net = Network(choice(1, 2, 3))
    stride, kernel, channels = choice(1, 1, 2), choice(1, 3, 3, 5), choice(1, 2, 3, 4)
    size = choice(4, 8, 12), choice(4, 6, 8)
    x = net.input("x", choice(1, 2), channels, *size, dtype=i8)
    pad = kernel // 2
    group = choice(1, 1, channels)
    pads = (pad, pad, pad, pad) if choice(0, 1, 1) else (0, pad, pad, 0)
    y = conv(
        net, x, group * choice(1, 2, 5), kernel, pads=pads, strides=(stride, stride), group=group,
        pad_value=choice(3, -128),
    )  # fmt: skip
    module = module_of(net, y)
    machine = resized(
        load("tpu"), rows=choice(24, 64, 100), columns=choice(5, 16, 64, 100),
        accumulator_rows=choice(4, 9, 600), unified_bytes=1 << 22,
    )  # fmt: skip
    assert machine.array is not None
    rows = machine.array.rows
    module = Fuse().run(module, machine)
    layouts = {}
    for name in ("x", module.graph.outputs[0]):
        shape = module.graph.types[name].static_shape
        blocks = {k: choice(*divisors(shape[k])) for k in (2, 3)}
        blocks = {k: n for k, n in blocks.items() if n > 1}
        fits = blocks and shape[1] * np.prod(list(blocks.values())) <= rows
        layouts[name] = in_blocks(shape, blocks, rows, 0) if fits else blocked(shape, 1, rows, 0)
    assume(any(blocks_in(layout) for layout in layouts.values()))
    module = replace(module, graph=replace(module.graph, layouts=layouts))
    given_x = np.random.default_rng(5).integers(
        -128, 128, module.graph.types["x"].static_shape, np.int8
    )
    expected = reference.interpret(module, {"x": given_x}).outputs
    try:
        for step in (Lower(), Perform()):
            module = step.run(module, machine)
    except PassError as error:
        assert "not in blocks" in str(error)
        assume(False)
    module = Plan().run(module, machine)
    outputs = compile_program(program(module), machine).run({"x": given_x})
    for name, values in expected.items():
        assert np.array_equal(outputs[name], values)


def test_a_network_whose_tensors_are_all_in_blocks() -> None:
    """Products, a sum, a table and pooling between them."""
    net = Network(4)
    x = net.input("x", 2, 2, 16, 16, dtype=i8)
    x = conv(net, x, 8, 3, pads=(1, 1, 1, 1))
    x = net.add("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2))
    y = conv(net, x, 8, 3, pads=(1, 1, 1, 1))
    attrs = {"za": 1, "zb": 2, "ma": 9000, "mb": 20000, "s": 15, "z": 0, "lo": -128, "hi": 127}
    y = net.add("IntAdd", y, x, **attrs, to=i8)
    table = net.random.integers(-128, 128, 256).astype(np.int8)
    y = net.add("Lookup", y, net.constant(table))
    y = conv(net, y, 12, 3, pads=(1, 1, 1, 1), strides=(2, 2))
    machine = resized(load("tpu"), rows=128, columns=128)
    compilation = lower(module_of(net, y), machine)
    (segment,) = compilation.segments
    layouts = segment.module.graph.layouts
    assert sum(bool(blocks_in(layout)) for layout in layouts.values()) >= 4
    data = np.random.default_rng(0).integers(-128, 128, (2, 2, 16, 16), np.int8)
    outputs = build(compilation).run({"x": data})
    expected = reference.interpret(compilation.module, {"x": data}).outputs
    assert all(np.array_equal(outputs[name], expected[name]) for name in expected)


def cycles_of(module: Module, x: np.ndarray) -> tuple[int, int]:
    """Cycles in which the array works, and bytes of weights."""
    net = build(lower(module, "tpu"))
    outputs = net.run({"x": x})
    assert all(
        np.array_equal(outputs[name], y)
        for name, y in reference.interpret(module, {"x": x}).outputs.items()
    )
    assert net.statistics is not None
    active = sum(layer.active for layer in net.statistics.layers)
    return active, net.statistics.memories["weight_memory"].read_bytes


def test_one_channel_does_not_waste_the_array() -> None:
    """5x5 on 28x28: 25 * 784 cycles with one pixel a row; now 28 rows of 28 pixels, 5 tiles."""
    net = Network(0)
    x = net.input("x", 1, 1, 28, 28, dtype=i8)
    module = module_of(net, conv(net, x, 8, 5, pads=(2, 2, 2, 2)))
    data = np.random.default_rng(0).integers(-128, 128, (1, 1, 28, 28), np.int8)
    active, weights = cycles_of(module, data)
    assert active <= 5 * 28
    assert weights <= 5 * 256 * 256


def test_more_columns_than_rows_are_used() -> None:
    """Two blocks of channels of the result share the tiles: half as many."""
    net = Network(0)
    x = net.input("x", 1, 8, 6, 6, dtype=i8)
    module = module_of(net, conv(net, x, 16, 3, pads=(1, 1, 1, 1)))
    data = np.random.default_rng(0).integers(-128, 128, (1, 8, 6, 6), np.int8)
    found = {}
    for columns in (8, 16):
        machine = resized(load("tpu"), rows=8, columns=columns)
        net_ = build(lower(module, machine))
        outputs = net_.run({"x": data})
        expected = reference.interpret(module, {"x": data}).outputs
        assert all(np.array_equal(outputs[name], expected[name]) for name in expected)
        assert net_.statistics is not None
        found[columns] = sum(layer.active for layer in net_.statistics.layers)
    assert 2 * found[16] == found[8]


def test_matrices_have_their_last_axis_in_the_lanes() -> None:
    """Tokens are rows: a layer of 40 -> 24 features takes 3 x 2 tiles of 16 x 16."""
    net = Network(0)
    x = net.input("x", 1, 10, 40, dtype=i8)
    w = net.random.integers(-127, 128, (40, 24)).astype(np.int8)
    m, s = (net.constant(np.full(24, k, np.int32)) for k in (1 << 30, 42))
    y = net.add("Requantize", net.add("IntMatMul", x, net.constant(w)), m, s, axis=2)
    machine = resized(load("tpu"), rows=16, columns=16)
    compilation = lower(module_of(net, y), machine)
    data = np.random.default_rng(0).integers(-128, 128, (1, 10, 40), np.int8)
    executable = build(compilation)
    outputs = executable.run({"x": data})
    expected = reference.interpret(compilation.module, {"x": data}).outputs
    assert all(np.array_equal(outputs[name], expected[name]) for name in expected)
    assert executable.statistics is not None
    assert executable.statistics.memories["weight_memory"].read_bytes == 6 * 256


def test_outputs_have_one_pixel_a_row() -> None:
    net = Network(0)
    x = net.input("x", 1, 2, 8, 8, dtype=i8)
    module = module_of(net, conv(net, x, 4, 3, pads=(1, 1, 1, 1)))
    machine = resized(load("tpu"), rows=64, columns=64)
    layouts = row_layouts(Fuse().run(module, machine), machine)
    assert blocks_in(layouts["x"]) and not blocks_in(layouts[module.graph.outputs[0]])
    assert not any(
        blocks_in(layout) for layout in row_layouts(module, machine, pixels=False).values()
    )


D = [var(f"d{k}") for k in range(4)]


@pytest.mark.parametrize(
    "lane, lanes, message",
    [
        (6 * (D[2] % 4) + 3 * (D[3] % 2) + D[1], 24, ""),
        (6 * (D[2] % 4) + 3 * (D[3] % 2) + D[1], 23, "is not surely in 0..23"),
        (6 * (D[2] % 4) + 2 * (D[3] % 2) + D[1], 24, "is not surely in 0..24"),
        (5 * (D[2] % 4) + 3 * (D[3] % 2) + D[1], 24, "is not surely in 0..24"),
        (6 * (D[2] % 4) + 3 * (D[3] % 2), 24, "elements that differ in d1 only"),
        (6 * (D[2] % 4) - D[1], 24, "keeps elements apart"),
        (6 * (D[2] % 4) + D[2] * D[3], 24, "keeps elements apart"),
    ],
)
def test_lanes_of_several_digits(lane: object, lanes: int, message: str) -> None:
    layout = Layout((D[0], D[2] // 4, D[3] // 2, lane), (1, 2, 4, lanes))  # type: ignore[arg-type]
    t = TensorType(i8, (1, 3, 8, 8))
    if not message:
        verify_layout(layout, t, "x")
        return
    with pytest.raises(VerifyError, match=message):
        verify_layout(layout, t, "x")


def test_weights_that_do_not_fit_are_the_hosts() -> None:
    net = Network(0)
    x = net.input("x", 1, 8, 6, 6, dtype=i8)
    module = module_of(net, conv(net, x, 16, 3, pads=(1, 1, 1, 1)))
    machine = resized(load("tpu"), rows=8, columns=8, weight_bytes=64 * 17)
    compilation = lower(module, machine)
    assert {n.op for n in compilation.host_nodes} == {"IntConv", "Requantize"}
    assert "its weights are 18 tiles; the weight memory has 17" in compilation.host_nodes[0].reason
    assert not lower(module, resized(machine, weight_bytes=64 * 18)).host_nodes
