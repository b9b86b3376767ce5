"""What the verifier refuses, and that its sentences name the node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nncc.diagnostics import Location, VerifyError
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import var
from nncc.ir.nests import Layout
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, f32, i8, i32, i64
from nncc.ops.verify import verify

N = var("N")
X = TensorType(f32, (N, 4))
Y = TensorType(f32, (N, 3))


def module(**changes) -> Module:
    """x -> Gemm with weights w -> Relu, one state."""
    nodes = (
        Node("Gemm", ("x", "w"), ("h",), location=Location("m.onnx", node="fc1")),
        Node("Relu", ("h",), ("y",)),
    )
    graph = Graph("main", ("x",), ("y",), nodes, {"x": X, "h": Y, "y": Y}, (("v", "h"),))
    symbols = {
        "w": Symbol("param", Tensor(np.ones((4, 3), np.float32))),
        "v": Symbol("state", Tensor(np.zeros((), np.float32)), Y),
    }
    return Module(replace(graph, **changes), ("N",), symbols)


def with_node(index: int, **changes) -> Module:
    nodes = list(module().graph.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return module(nodes=tuple(nodes))


def test_right_module():
    verify(module())


LAYOUT = Layout((var("d0"), var("d7")), (N, 4))

WRONG = {
    "order": (module(nodes=module().graph.nodes[::-1]), "'h' is made by a later node"),
    "unknown input": (with_node(1, inputs=("q",)), "'q' does not exist"),
    "two makers": (with_node(1, outputs=("h",)), "'h' is made twice"),
    "no type": (module(types={"x": X, "h": Y}), "'y' has no type"),
    "spare type": (module(types={**module().graph.types, "z": X}), "'z' has a type"),
    "wrong type": (
        module(types={**module().graph.types, "y": X}),
        r"node 'y' \(Relu\): the outputs are f32\[N,4\]; by inference they are f32\[N,3\]",
    ),
    "unknown size": (
        module(types={**module().graph.types, "x": TensorType(f32, (var("M"), 4))}),
        "M, which is no size",
    ),
    "no such op": (with_node(1, op="Rely"), "did you mean 'Relu'"),
    "attribute": (with_node(0, attrs={"alpa": 1.0}), "did you mean 'alpha'"),
    "attribute kind": (with_node(0, attrs={"transB": 1}), "transB is 1, not of kind bool"),
    "missing attribute": (with_node(1, op="Concat"), "attribute axis is missing"),
    "missing input": (with_node(0, inputs=("x",)), "input b is missing"),
    "too many inputs": (with_node(1, inputs=("h", "h")), "2 inputs, it takes 1"),
    "absent last": (with_node(1, inputs=("h", "")), "the last input is absent"),
    "inference": (with_node(0, attrs={"transB": True}), "inner sizes differ: 4 and 3"),
    "output": (module(outputs=("q",)), "output 'q' does not exist"),
    "update type": (module(updates=(("v", "x"),)), "state 'v' is"),
    "update of no state": (module(updates=(("w", "h"),)), "'w', which is no state"),
    "layout": (module(layouts={"x": LAYOUT}), "d7, which is no size"),
    "extent": (
        module(types={**module().graph.types, "x": TensorType(f32, (0, 4))}),
        "an extent must be at least 1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(case):
    wrong, message = WRONG[case]
    with pytest.raises(VerifyError, match=message):
        verify(wrong)


def test_error_names_the_users_node():
    with pytest.raises(VerifyError) as caught:
        verify(with_node(0, attrs={"transB": True}))
    assert str(caught.value).startswith("m.onnx: node 'fc1': Gemm: ")


def test_regions_see_only_their_inputs():
    body = Graph("group", ("h",), ("y",), (Node("Relu", ("h",), ("y",)),), {"h": Y, "y": Y})
    group = Node("Group", ("h",), ("y",), {"device": "cpu"}, regions=(body,))
    nodes = (module().graph.nodes[0], group)
    verify(module(nodes=nodes))
    stolen = replace(body, nodes=(Node("Gemm", ("h", "w"), ("y",)),))
    with pytest.raises(VerifyError, match="'w' does not exist"):
        verify(module(nodes=(nodes[0], replace(group, regions=(stolen,)))))
    other = replace(body, types={"h": X, "y": X})
    with pytest.raises(VerifyError, match="input 'h' of the region"):
        verify(module(nodes=(nodes[0], replace(group, regions=(other,)))))
    two = replace(body, outputs=("y", "h"))
    with pytest.raises(VerifyError, match="1 outputs of a region of 2"):
        verify(module(nodes=(nodes[0], replace(group, regions=(two,)))))


def test_shapes_are_known_up_to_sizes_and_inside_regions():
    """Reshape to [N, -1], computed from Shape, with the constants handed into a group."""
    symbols = {
        "zero": Symbol("const", Tensor(np.array([0]))),
        "rest": Symbol("const", Tensor(np.array([-1]))),
    }
    i1, flat = TensorType(i64, (1,)), TensorType(f32, (N, 12))
    x = TensorType(f32, (N, 3, 4))
    body = Graph(
        "group", ("x", "target"), ("y",), (Node("Reshape", ("x", "target"), ("y",)),),
        {"x": x, "target": TensorType(i64, (2,)), "y": flat},
    )  # fmt: skip
    nodes = (
        Node("Shape", ("x",), ("s",)),
        Node("Gather", ("s", "zero"), ("n",)),
        Node("Concat", ("n", "rest"), ("target",), {"axis": 0}),
        Node("Group", ("x", "target"), ("y",), {"device": "cpu"}, regions=(body,)),
    )
    types = {"x": x, "s": TensorType(i64, (3,)), "n": i1, "target": TensorType(i64, (2,)),
             "y": flat}  # fmt: skip
    verify(Module(Graph("main", ("x",), ("y",), nodes, types), ("N",), symbols))


def conv_module(channels: int, bias: int, weight: int) -> Module:
    x, y = TensorType(i8, (N, channels, 1, 1)), TensorType(i32, (N, 1, 1, 1))
    symbols = {
        "w": Symbol("param", Tensor(np.full((1, channels, 1, 1), weight, np.int8))),
        "b": Symbol("param", Tensor(np.array([bias], np.int32))),
    }
    body = Graph(
        "g", ("x", "w", "b"), ("y",), (Node("IntConv", ("x", "w", "b"), ("y",)),),
        {"x": x, "w": symbols["w"].type, "b": symbols["b"].type, "y": y},
    )  # fmt: skip
    node = Node("Group", ("x", "w", "b"), ("y",), {"device": "cpu"}, regions=(body,))
    return Module(Graph("main", ("x",), ("y",), (node,), {"x": x, "y": y}), ("N",), symbols)


def test_sums_stay_within_int32():
    verify(conv_module(1000, 0, 127))
    verify(conv_module(1000, 2**31 - 1 - 1000 * 128 * 127, 127))
    verify(conv_module(200_000, 0, 3))  # too many terms for any weights, but not for these
    for wrong in (
        conv_module(1000, 2**31 - 1000 * 128 * 127, 127),
        conv_module(200_000, 0, 127),
    ):
        with pytest.raises(VerifyError, match="which int32 does not hold"):
            verify(wrong)


def test_integer_ops_check_their_numbers():
    types = {"x": TensorType(i8, (N, 4)), "y": TensorType(i8, (N, 4))}
    attrs = {"ma": 20000, "mb": 1 << 15, "s": 15}
    node = Node("IntAdd", ("x", "x"), ("y",), attrs)
    wrong = Module(Graph("main", ("x",), ("y",), (node,), types), ("N",))
    with pytest.raises(VerifyError, match="mb=32768 is not in"):
        verify(wrong)
