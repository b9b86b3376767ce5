"""fuse, layout and lower: networks compute the same before and after each of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from nncc.ir.expr import Const, Load, apply
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import evaluate, var
from nncc.ir.layout import is_row_major
from nncc.ir.nests import Access, Definition, Dim, Param, Scan, Statement
from nncc.ir.text import parse_nest, print_nest
from nncc.ir.types import TensorType, f32, i8
from nncc.ir.verify_nests import verify_nest
from nncc.machines import load
from nncc.passes.fuse import Fuse
from nncc.passes.layout import Layout, count_relayouts
from nncc.passes.lower import Lower
from tests.nests.random_networks import N, Network, attention, conv_networks, integer_networks, run

SIZES = {"N": 2}
FEATURES = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx2", "fma"}
AVX512 = load("cpu-avx512", features=FEATURES)


def feeds(module, seed=1):
    random = np.random.default_rng(seed)
    shapes = {i: [evaluate(s, SIZES) for s in module.graph.types[i].shape]
              for i in module.graph.inputs}  # fmt: skip
    return {i: random.standard_normal(s).astype(np.float32) for i, s in shapes.items()}


def lowered(module, *, fuse=True, layout=True):
    for step in (Fuse(enable=fuse), Layout(enable=layout), Lower()):
        module = step.run(module, AVX512)
    for nest in module.nests.values():
        verify_nest(nest)
    return module


def same(module, changed):
    inputs = feeds(module)
    expected, got = run(module, inputs, SIZES), run(changed, inputs, SIZES)
    for name, e, g in zip(module.graph.outputs, expected, got, strict=True):
        scale = max(float(np.abs(e).max()), 1e-3)
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(integer_networks())
def test_integer_networks_are_equal_to_the_bit(module):
    (name,) = module.graph.inputs
    shape = [evaluate(s, SIZES) for s in module.graph.types[name].shape]
    inputs = {name: np.random.default_rng(5).integers(-128, 127, shape, np.int8, endpoint=True)}
    (expected,) = run(module, inputs, SIZES)
    for changed in (lowered(module), lowered(module, fuse=False, layout=False)):
        (got,) = run(changed, inputs, SIZES)
        np.testing.assert_array_equal(got, expected)


def test_integer_weights_stand_as_the_dot_operation_reads_them():
    """[m // 16, r, s, c // 4, m % 16, c % 4], zeros behind the ends."""
    net = Network()
    x = net.input("x", N, 6, 8, 8, dtype=i8)
    w = net.constant(np.ones((40, 6, 3, 3), np.int8))
    y = net.add("IntConv", x, w, zx=-128, pad_value=-128)
    module = Layout().run(Fuse().run(net.module(y), AVX512), AVX512)
    assert module.graph.layouts[w].extents == (3, 3, 3, 2, 16, 4)
    assert module.graph.layouts[w].fill == 0
    assert module.graph.layouts["x.relaid"].extents == (N, 2, 8, 8, 4)


def ops(module):
    return [[n.op for n in node.regions[0].nodes] if node.regions else node.op
            for node in module.graph.nodes]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(conv_networks())
def test_networks_compute_the_same(module):
    fused = Fuse().run(module, AVX512)
    same(module, fused)
    same(module, lowered(module))


@settings(max_examples=15, deadline=None)
@given(conv_networks())
def test_without_fusion_and_layouts_too(module):
    same(module, lowered(module, fuse=False))
    same(module, lowered(module, layout=False))


@settings(max_examples=40, deadline=None)
@given(conv_networks())
def test_the_signature_stays_dense(module):
    graph = Layout().run(Fuse().run(module, AVX512), AVX512).graph
    assert graph.inputs == module.graph.inputs
    assert graph.outputs == module.graph.outputs
    for name in (*graph.inputs, *graph.outputs):
        assert is_row_major(graph.layouts.get(name), graph.types[name].shape)
    for name, layout in graph.layouts.items():
        type = graph.types[name] if name in graph.types else module.symbols[name].type
        assert len(layout.dims) == len(layout.extents) <= type.rank + 2


def residual():
    net = Network()
    x = net.input("x", N, 32, 8, 8)
    x = net.add("Relu", net.conv(x, 32, 3))
    y = net.add("Relu", net.conv(x, 64, 3, 2))
    y = net.conv(y, 64, 3)
    x = net.add("Relu", net.add("Add", y, net.conv(x, 64, 1, 2)))
    return net.module(net.add("Flatten", net.add("GlobalAveragePool", x)))


def test_epilogues_and_residuals_are_fused():
    module = Fuse().run(residual(), AVX512)
    assert ops(module) == [
        ["Conv", "Relu"],
        ["Conv", "Relu"],
        ["Conv"],
        ["Conv", "Add", "Relu"],
        ["GlobalAveragePool"],
        "Flatten",
    ]


def test_residual_networks_need_no_relayout_inside():
    module = Layout().run(Fuse().run(residual(), AVX512), AVX512)
    assert count_relayouts(module.graph) == 0


def test_a_group_is_three_statements():
    module = lowered(residual())
    (last,) = [n for n in module.nests.values() if len(n.inputs) == 4]
    assert [s.name for s in last.statements] == ["init", "acc", "out"]
    init, acc, out = last.statements
    assert init.dims == out.dims == acc.dims[: len(out.dims)]
    assert [p.name for p in last.params] == ["x", "w", "b", "b1", "y", "t"]


@pytest.mark.parametrize("batch", [N, 1, 3])
def test_swish_is_fused(batch):
    net = Network()
    y = net.conv(net.input("x", batch, 16, 4, 4), 16, 1)
    module = net.module(net.add("Mul", y, net.add("Sigmoid", y)))
    assert ops(Fuse().run(module, AVX512)) == [["Conv", "Sigmoid", "Mul"]]


def test_a_value_used_twice_is_computed_once():
    net = Network()
    y = net.conv(net.input("x", N, 16, 4, 4), 16, 1)
    a, b = net.add("Relu", y), net.add("Neg", y)
    module = Fuse().run(net.module(a, b), AVX512)
    assert ops(module) == [["Conv"], ["Relu"], ["Neg"]]


def test_a_broadcast_value_is_not_computed_again():
    net = Network()
    x = net.input("x", N, 16, 4, 4)
    s = net.add("Sigmoid", net.input("s", N, 16, 1, 1))
    module = Fuse().run(net.module(net.add("Mul", x, s)), AVX512)
    assert ops(module) == [["Sigmoid"], ["Mul"]]


def test_an_output_in_the_middle_ends_its_group():
    net = Network()
    y = net.conv(net.input("x", N, 16, 4, 4), 16, 1)
    module = Fuse().run(net.module(net.add("Relu", y), y), AVX512)
    assert ops(module) == [["Conv"], ["Relu"]]


def test_equal_groups_share_a_nest():
    net = Network()
    x = net.input("x", N, 16, 8, 8)
    for _ in range(3):
        x = net.add("Relu", net.conv(x, 16, 3))
    module = lowered(net.module(x))
    callees = [n.attrs["callee"] for n in module.graph.nodes if n.op == "Call"]
    # the first reads the dense input, the others blocked ones; the last is the relayout
    assert len(callees) == 4
    assert callees[1] == callees[2] != callees[0]
    assert set(callees) == set(module.nests)


def test_pixels_of_a_1x1_convolution_are_one_dim():
    net = Network()
    x = net.add("Relu", net.conv(net.input("x", N, 16, 8, 6), 32, 3))
    module = lowered(net.module(net.add("GlobalMaxPool", net.conv(x, 32, 1))))
    nest = module.nests["conv3"]
    assert [(d.name, d.hi) for d in nest.statements[1].dims] == [
        ("n", N), ("m", 32), ("ef", 48), ("c", 32),
    ]  # fmt: skip
    assert nest.param("x").type.shape == (N, 32, 48)
    assert nest.param("x").layout.extents == (N, 2, 48, 16)


def test_rows_of_a_matrix_product_are_one_dim():
    net = Network()
    y = net.add("MatMul", net.input("x", N, 5, 8), net.weight(8, 40))
    module = lowered(net.module(net.add("Add", y, net.weight(40))))
    (nest,) = module.nests.values()
    assert (nest.statements[1].dims[0].name, nest.statements[1].dims[0].hi) == ("gn", 5 * N)
    assert nest.param("b").layout.extents == (2, 8, 32)


def test_attention():
    module = attention()
    same(module, lowered(module))
    fused = ops(Fuse().run(module, AVX512))
    assert ["MatMul", "Mul", "Erf", "Add", "Mul", "Mul"] in [g[:1] + g[2:] for g in fused]


def test_scalars_stand_in_the_nest():
    net = Network()
    x = net.input("x", N, 4)
    module = lowered(net.module(net.add("Mul", x, net.constant(np.float32(3)))))
    (nest,) = module.nests.values()
    assert [p.name for p in nest.params] == ["a", "y"]


@pytest.mark.parametrize("lanes", ["cpu-avx2", "cpu-avx512"])
def test_channels_are_blocked_by_the_lanes(lanes):
    machine = load(lanes, features=FEATURES)
    module = Layout().run(Fuse().run(residual(), machine), machine)
    types = module.graph.types
    blocks = {
        v.extents[-1]
        for k, v in module.graph.layouts.items()
        if k in types and len(v.dims) > types[k].rank
    }
    assert blocks == {machine.vector_bytes // 4}


def test_definitions_go_the_same_way():
    """scale * (x - running mean) with a scan that carries the mean along the rows."""
    t, c = var("t"), var("c")
    before = Load("m", (t - 1, c), f32, Const(0.0, f32))
    mixed = apply(
        "add", apply("mul", before, Const(0.5, f32)),
        apply("mul", Load("x", (t, c), f32), Const(0.5, f32)),
    )  # fmt: skip
    rows, columns = var("T"), var("C")
    type = TensorType(f32, (rows, columns))
    definition = Definition(
        "smooth",
        (Param("x", type), Param("y", type, "out"), Param("m", type, "local")),
        (),
        (
            Scan(Dim("t", 0, rows), (
                Statement("s", (), (Access("m", (t, c)),), "=", (mixed,)),
            )),
            Statement("o", (), (Access("y", (t, c)),), "=",
                      (apply("sub", Load("x", (t, c), f32), Load("m", (t, c), f32)),)),
        ),
    )  # fmt: skip
    x = TensorType(f32, (N, 3))
    node = Node("smooth", ("x",), ("s",))
    after = Node("Relu", ("s",), ("y",))
    graph = Graph("main", ("x",), ("y",), (node, after), {"x": x, "s": x, "y": x})
    module = Module(graph, ("N",), definitions={"smooth": definition})
    changed = lowered(module)
    assert len(changed.nests) == 1
    data = feeds(module)["x"]
    mean, expected = np.zeros(3, np.float32), []
    for row in data:
        mean = mean * np.float32(0.5) + row * np.float32(0.5)
        expected.append(np.maximum(row - mean, 0))
    (got,) = run(changed, {"x": data}, SIZES)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(conv_networks())
def test_nests_read_back_as_printed(module):
    for nest in lowered(module).nests.values():
        assert parse_nest(print_nest(nest)) == nest
