"""The Loops and the listing of a convolution, read by eye."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nncc.backends.tpu.compiler import instructions, levels
from nncc.driver import build, lower
from nncc.ir.graph import Module
from nncc.ir.text import print_function
from nncc.ir.types import i8, u8
from nncc.isa.tpu.instructions import MatrixMultiply
from nncc.listing import select
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.ops import reference
from nncc.passes.plan import program
from tests.nests.random_networks import Network

MACHINE = resized(load("tpu"), rows=4, columns=8, accumulator_rows=64)


def conv() -> Module:
    net = Network(1)
    x = net.input("x", 1, 6, 5, 5, dtype=i8)
    w = np.arange(8 * 6 * 9, dtype=np.int32).reshape(8, 6, 3, 3) % 200 - 100
    y = net.add("IntConv", x, net.constant(w.astype(np.int8)), pads=(1, 1, 1, 1), pad_value=-3)
    m, s = (net.constant(np.full(8, k, np.int32)) for k in (1 << 30, 44))
    return Module(
        net.builder.graph("main", (net.add("Requantize", y, m, s),)), (), net.builder.symbols
    )


def test_loops(golden: Callable[[str], None]) -> None:
    (segment,) = lower(conv(), MACHINE).segments
    functions = segment.module.functions
    golden("\n\n".join(print_function(f) for n, f in functions.items() if n != "reset"))


def test_listing(golden: Callable[[str], None]) -> None:
    (segment,) = lower(conv(), MACHINE).segments
    golden(levels(program(segment.module), MACHINE)["listing"]())


def test_every_layer_has_one_heading_with_its_totals() -> None:
    machine = resized(load("tpu"), rows=4, columns=8, accumulator_rows=64)
    net = Network(1)
    x = net.input("x", 1, 6, 5, 5, dtype=i8)
    m, s = (net.constant(np.full(6, k, np.int32)) for k in (1 << 30, 44))
    for _ in range(3):
        w = net.constant(np.full((6, 6, 3, 3), 2, np.int8))
        x = net.add("Requantize", net.add("IntConv", x, w, pads=(1, 1, 1, 1)), m, s)
    module = Module(net.builder.graph("main", (x,)), (), net.builder.symbols)
    compilation = lower(module, machine)
    (segment,) = compilation.segments
    text = levels(program(segment.module), machine)["listing"]()
    lines = text.splitlines()
    headings = [line for line in lines if line.startswith("-- ")]
    executable = build(compilation)
    executable.run({"x": np.zeros((1, 6, 5, 5), np.int8)})
    statistics = executable.statistics
    assert statistics is not None
    layers = [layer for layer in statistics.layers if layer.name]
    assert len(headings) == len(layers) == 3
    for layer in layers:
        told = lines[lines.index(f"-- {layer.name}") + 1]
        assert told.startswith(f"# {layer.cycles} cycles, {layer.macs} MACs")
        assert f"weight_memory {layer.memories['weight_memory'].read_bytes}/0" in told
        assert told in select(text, layer.name, {})


def test_unsigned_activations_are_multiplied_as_such() -> None:
    net = Network(1)
    x = net.input("x", 1, 6, 5, 5, dtype=u8)
    m, s = (net.constant(np.full(6, k, np.int32)) for k in (1 << 30, 44))
    w = net.constant(np.full((6, 6, 3, 3), 2, np.int8))
    y = net.add("IntConv", x, w, zx=100, pads=(1, 1, 1, 1), pad_value=200)
    y = net.add("Requantize", y, m, s)
    compilation = lower(Module(net.builder.graph("main", (y,)), (), net.builder.symbols), MACHINE)
    (segment,) = compilation.segments
    code = instructions(program(segment.module), MACHINE)
    products = [i for i in code.instructions if isinstance(i, MatrixMultiply)]
    assert products and all(i.unsigned for i in products)
    data = np.random.default_rng(0).integers(0, 256, (1, 6, 5, 5)).astype(np.uint8)
    outputs = build(compilation).run({"x": data})
    expected = reference.interpret(compilation.module, {"x": data}).outputs
    assert all(np.array_equal(outputs[name], expected[name]) for name in expected)
