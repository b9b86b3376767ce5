"""Contractions with blocked layouts under their register tiles, in floats and in integers."""

from __future__ import annotations

import re
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
from nncc.ir.text import parse_nest, print_function
from nncc.ir.types import TensorType, f32, i8
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.ops.table import Site, get
from nncc.passes.fuse import Fuse
from nncc.passes.layout import Layout
from nncc.passes.lower import Lower
from nncc.passes.offset import Offset
from nncc.passes.tensorize import Tensorize, find_contraction
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
    kind = draw(st.sampled_from(["dense", "dense", "depthwise", "grouped", "grouped"]))
    if kind == "grouped":
        group = draw(st.integers(2, 5))
        channels = group * draw(st.sampled_from([1, 3, 4, 6, 8, 16, 24]))
        filters = group * draw(st.sampled_from([1, 4, 6, 8, 16, 20, 24, 32]))
    else:
        channels = draw(st.sampled_from([1, 3, 4, 16, 18, 32]))
        filters = draw(st.sampled_from([1, 5, 16, 24, 40])) if kind == "dense" else channels
        group = 1 if kind == "dense" else channels
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 4)]))
    stride = draw(st.integers(1, 3))
    attrs = {"strides": (stride, stride), "group": group}
    if kernel != (1, 1):
        attrs["pads"] = tuple(draw(st.integers(0, 2)) for _ in range(4))
    if integer:
        attrs["pad_value"] = draw(st.integers(-128, 127))
    image = draw(st.integers(5, 12)), draw(st.integers(5, 20))
    module = convolution((channels, *image), (filters, *kernel), integer, **attrs)
    return module, {"N": draw(st.integers(1, 3))}


def convolution(
    image: tuple[int, ...], filters: tuple[int, ...], integer: bool, **attrs: object
) -> Module:
    """A module of one convolution of images [channels, height, width]."""
    rng = np.random.default_rng(0)
    count, *kernel = filters
    shape = (count, image[0] // attrs["group"], *kernel)
    if integer:
        w = rng.integers(-127, 128, shape, dtype=np.int8)
        b = rng.integers(-5000, 5000, count, dtype=np.int32)
    else:
        w = rng.standard_normal(shape, dtype=np.float32)
        b = rng.standard_normal(count, dtype=np.float32)
    x = TensorType(i8 if integer else f32, (var("N"), *image))
    node = Node("IntConv" if integer else "Conv", ("x", "w", "b"), ("y",), attrs)
    site = Site(node, (x, Tensor(w).type, Tensor(b).type), (None,) * 3)
    (y,) = get(node).infer(site)
    graph = Graph("main", ("x",), ("y",), (node,), {"x": x, "y": y})
    symbols = {"w": Symbol("param", Tensor(w)), "b": Symbol("param", Tensor(b))}
    return Module(graph, ("N",), symbols)


def run(module: Module, sizes: dict[str, int], machine: Machine) -> tuple[set[str], str]:
    """Checks every nest of the lowered module; gives its code and the operations in it."""
    for step in (Offset(), Fuse(), Layout(), Lower(), Tensorize(), Vectorize()):
        module = step.run(module, machine)
    rng = np.random.default_rng(0)
    used: set[str] = set()
    code = ""
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
        code += print_function(function)
        for s in walk_statements(function.body):
            if isinstance(s, Assign) and isinstance(s.value, Apply):
                used.add(s.value.fn)
    return used & set(machine.operations), code


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


@pytest.mark.parametrize(
    "channels, filters, in_floats, in_integers",
    [
        (4, 4, "fma4", "dot4x4"),
        (8, 8, "fma8", "dot4x8"),
        (4, 24, "fma8", "dot4x8"),  # whole vectors of 16 would cross the border of a group
        (16, 16, "fma16", "dot4x16"),
        (24, 32, "fma16", "dot4x16"),
        (6, 10, "fma2", ""),
        (6, 20, "fma4", ""),  # no four channels of a group are neighbours
    ],
)
@pytest.mark.parametrize("integer", [False, True])
def test_vectors_lie_inside_of_a_group(
    channels: int, filters: int, in_floats: str, in_integers: str, integer: bool
) -> None:
    """Of so many channels and filters in each of three groups."""
    operation = in_integers if integer else in_floats
    if operation and operation not in MACHINE.operations:
        pytest.skip("this computer has no such operation")
    attrs = {"group": 3, "pads": (1, 1, 1, 1)} | ({"pad_value": 7} if integer else {})
    module = convolution((3 * channels, 6, 9), (3 * filters, 3, 3), integer, **attrs)
    lanes = re.search(r"\d+$", in_floats).group()
    used, code = run(module, {"N": 2}, MACHINE)
    assert used == {operation} - {""}
    assert f"declare t_0_0_0_0: {'i32' if integer else 'f32'}x{lanes} =" in code


def test_an_operation_of_one_lane_needs_no_columns() -> None:
    """Of a scalar machine that has one."""
    semantics = parse_nest("""nest one(out y: i32[1], in a: i8[1], in b: i8[1]) {
      acc: for m in 0..1 { y[m] sum= cast(i32, a[m]) * cast(i32, b[m]) }
    }""")
    nest = parse_nest("""nest n(in x: i8[3,4], in w: i8[3,4], out y: i32[4], local t: i32[4]) {
      init: for m in 0..4 { t[m] = 0 }
      acc: for m in 0..4, k in 0..3 { t[m] sum= cast(i32, x[k,m]) * cast(i32, w[k,m]) }
      out: for m in 0..4 { y[m] = t[m] }
    }""")
    machine = load("tta_minimal")
    known = next(iter(machine.operations.values()))
    one = replace(known, name="one", kind="compute", semantics=semantics)
    machine = replace(machine, operations={"one": one})
    found = find_contraction(nest, machine)
    assert found is not None and found.operation is one and found.column is None
