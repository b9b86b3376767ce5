"""Bytes per memory as predicted for a layer equal those that the simulator counts."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nncc.backends.tpu.compiler import compile_program
from nncc.ir.graph import Module
from nncc.ir.index import ceildiv
from nncc.ir.nests import Dim
from nncc.ir.types import i8
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.passes.fuse import Fuse
from nncc.passes.group_nest import group_nest
from nncc.passes.lower import Lower, with_layouts
from nncc.passes.perform import Perform
from nncc.passes.plan import Plan, program
from nncc.passes.rows import Rows
from nncc.passes.systolic.kinds import code_of
from nncc.passes.systolic.tiling import tiled
from tests.nests.random_networks import Network
from tests.tpu.networks import arrays


@st.composite
def layers(draw: st.DrawFn) -> Module:
    """One convolution of any kind, rescaled."""
    net = Network(draw(st.integers(0, 99)))
    n, c, h, w = (draw(st.integers(1, k)) for k in (4, 20, 9, 9))
    x = net.input("x", n, c, h, w, dtype=i8)
    group = draw(st.sampled_from([1, 1, c]))
    filters = group * draw(st.integers(1, 3)) if group > 1 else draw(st.integers(1, 40))
    k = draw(st.sampled_from([1, 3]))
    weights = net.random.integers(-127, 128, (filters, c // group, k, k)).astype(np.int8)
    pad, stride = k // 2, draw(st.integers(1, 2))
    attrs = {"pads": (pad,) * 4, "strides": (stride, stride), "group": group, "pad_value": 5}
    y = net.add("IntConv", x, net.constant(weights), **attrs)
    m, s = (net.constant(np.full(filters, v, np.int32)) for v in (1 << 30, 42))
    y = net.add("Requantize", y, m, s)
    return Module(net.builder.graph("main", (y,)), (), net.builder.symbols)


@settings(
    deadline=None, database=None, derandomize=True, max_examples=60, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(module=layers(), array=arrays())
def test_random_layers(module: Module, array: dict[str, int]) -> None:
    machine = resized(load("tpu"), **array)
    module = Rows().run(Fuse().run(module, machine), machine)
    (node,) = module.graph.nodes
    found = with_layouts(group_nest(module, module.graph, node), module.graph)
    constants = {
        p.name: module.symbols[v].data.array.reshape(p.type.static_shape)
        for p, v in zip(found.nest.inputs, found.inputs, strict=True)
        if v in module.symbols
    }
    predicted = code_of(found.nest, constants, machine).traffic
    for step in (Lower(), Perform(), Plan()):
        module = step.run(module, machine)
    net = compile_program(program(module), machine)
    shape = net.signature.inputs[0][1].static_shape
    net.run({"x": np.zeros(shape, np.int8)})
    assert net.statistics is not None
    (layer,) = (x for x in net.statistics.layers if x.name)
    counted = {m: (u.read_bytes, u.written_bytes) for m, u in layer.memories.items()}
    assert predicted == {m: counted[m] for m in counted if m != "host"}


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 500))
def test_tiles_fit(extents: list[int], limit: int) -> None:
    tiling = tiled([Dim(f"d{k}", 0, n) for k, n in enumerate(extents)], limit)
    assert np.prod(tiling.local_shape) <= limit
    assert tiling.count >= ceildiv(int(np.prod(extents)), limit)
