"""Contractions with blocked layouts under their register tiles, in floats and in integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nncc.ops  # noqa: F401  (fills the table)
from nncc.ir.expr import Apply
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import var
from nncc.ir.loops import Assign, walk_statements
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, f32, i8
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.ops.table import Site, get
from nncc.passes.fuse import Fuse
from nncc.passes.layout import Layout
from nncc.passes.lower import Lower
from nncc.passes.offset import Offset
from nncc.passes.tensorize import Tensorize
from nncc.passes.vectorize import Vectorize
from tests.emission.scheduled import check

MACHINE = load("cpu")
SETTINGS = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def without(*prefixes: str) -> Machine:
    """The host's machine without the operations whose names start so."""
    kept = {k: o for k, o in MACHINE.operations.items() if not k.startswith(prefixes)}
    return replace(MACHINE, operations=kept)


@st.composite
def convolutions(draw: st.DrawFn, integer: bool) -> tuple[Module, dict[str, int]]:
    """A module of one convolution with a symbolic batch."""
    group = draw(st.sampled_from([1, 1, 1, 2, 0]))  # 0: depthwise
    channels = draw(st.sampled_from([1, 3, 4, 16, 18, 32]))
    filters = draw(st.sampled_from([1, 5, 16, 24, 40]))
    if group == 0:
        group = filters = channels
    elif group == 2:
        channels, filters = 2 * channels, 2 * filters
    r, s = draw(st.sampled_from([(1, 1), (3, 3), (2, 4)]))
    stride = draw(st.integers(1, 3))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4)) if (r, s) != (1, 1) else (0,) * 4
    height, width = draw(st.integers(5, 12)), draw(st.integers(5, 20))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    n = var("N")
    shape = (filters, channels // group, r, s)
    if integer:
        w = rng.integers(-127, 128, shape, dtype=np.int8)
        b = rng.integers(-5000, 5000, filters, dtype=np.int32)
        x = TensorType(i8, (n, channels, height, width))
        attrs = {"pad_value": draw(st.integers(-128, 127))}
    else:
        w = rng.standard_normal(shape, dtype=np.float32)
        b = rng.standard_normal(filters, dtype=np.float32)
        x = TensorType(f32, (n, channels, height, width))
        attrs = {}
    attrs |= {"pads": pads, "strides": (stride, stride)}
    if group > 1:
        attrs["group"] = group
    node = Node("IntConv" if integer else "Conv", ("x", "w", "b"), ("y",), attrs)
    site = Site(node, (x, TensorType(i8 if integer else f32, shape), Tensor(b).type), (None,) * 3)
    (y,) = get(node).infer(site)
    graph = Graph("main", ("x",), ("y",), (node,), {"x": x, "y": y})
    symbols = {"w": Symbol("param", Tensor(w)), "b": Symbol("param", Tensor(b))}
    return Module(graph, ("N",), symbols), {"N": draw(st.integers(1, 3))}


def run(module: Module, sizes: dict[str, int], machine: Machine) -> set[str]:
    """Checks every nest of the lowered module; gives the operations that its code uses."""
    for step in (Offset(), Fuse(), Layout(), Lower(), Tensorize(), Vectorize()):
        module = step.run(module, machine)
    rng = np.random.default_rng(0)
    used: set[str] = set()
    for nest in module.nests.values():
        inputs = {}
        for p in nest.inputs:
            shape = tuple(sizes.get(str(e), e) for e in p.type.shape)
            dtype = p.type.dtype.numpy
            if p.type.dtype.is_float:
                inputs[p.name] = rng.standard_normal(shape).astype(dtype)
            else:
                inputs[p.name] = rng.integers(-128, 128, shape).astype(dtype)
        function = check(nest, inputs, sizes, machine)
        for s in walk_statements(function.body):
            if isinstance(s, Assign) and isinstance(s.value, Apply):
                used.add(s.value.fn)
    return used & set(machine.operations)


@SETTINGS
@given(data=st.data())
def test_float_convolution(data: st.DataObject) -> None:
    run(*data.draw(convolutions(integer=False)), machine=MACHINE)


MACHINES = {"dot4": MACHINE, "dot2": without("dot4"), "none": without("dot")}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@SETTINGS
@given(data=st.data())
def test_integer_convolution(machine: Machine, data: st.DataObject) -> None:
    run(*data.draw(convolutions(integer=True)), machine=machine)
