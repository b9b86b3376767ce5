"""The interpreter of graphs: sizes, state, regions, calls, and its refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nncc.diagnostics import CheckError, VerifyError
from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import var
from nncc.ir.interpreter.arguments import bind_sizes
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, f32
from nncc.ops.reference import interpret
from nncc.ops.table import TABLE, Site
from nncc.ops.verify import verify

N, T = var("N"), var("T")
X = TensorType(f32, (N, 4))


def filter_module() -> Module:
    """y = 0.5*state + x; the state becomes y."""
    nodes = (Node("Mul", ("v", "half"), ("h",)), Node("Add", ("h", "x"), ("y",)))
    graph = Graph("main", ("x",), ("y",), nodes, {"x": X, "h": X, "y": X}, (("v", "y"),))
    symbols = {
        "half": Symbol("const", Tensor(np.array(0.5, np.float32))),
        "v": Symbol("state", Tensor(np.array(0.0, np.float32)), X),
    }
    return Module(graph, ("N",), symbols)


def test_state_goes_from_call_to_call():
    module = filter_module()
    verify(module)
    x = np.ones((3, 4), np.float32)
    state = None
    for step in range(1, 5):
        run = interpret(module, {"x": x}, state=state)
        state = run.state
        np.testing.assert_array_equal(run.outputs["y"], np.full((3, 4), 2 - 0.5 ** (step - 1)))
    assert run.sizes == {"N": 3}
    with pytest.raises(CheckError, match="'v' is"):
        interpret(module, {"x": np.ones((2, 4), np.float32)}, state=state)


def grouped(module: Module) -> Module:
    """The nodes of the filter as one group."""
    body = Graph("body", ("v", "half", "x"), ("y",), module.graph.nodes,
                 {"v": X, "half": TensorType(f32, ()), **module.graph.types})  # fmt: skip
    node = Node("Group", ("v", "half", "x"), ("y",), {"device": "cpu"}, regions=(body,))
    types = {"x": X, "y": X}
    return module.with_graph(replace(module.graph, nodes=(node,), types=types))


def test_groups_and_calls_give_the_same():
    module = filter_module()
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    first = interpret(module, {"x": x}, keep=True)
    assert set(first.values) == {"h", "y"}
    in_group = grouped(module)
    verify(in_group)
    second = interpret(in_group, {"x": x}, keep=True)
    assert set(second.values) == {"y", "y/h", "y/y"}
    np.testing.assert_array_equal(first.outputs["y"], second.outputs["y"])

    add = Node("Add", ("h", "x"), ("y",))
    nest = TABLE["Add"].nest(Site(add, (X, X), (None, None), (X,)))
    called = replace(add, op="Call", attrs={"callee": "add"})
    graph = replace(module.graph, nodes=(module.graph.nodes[0], called))
    lowered = replace(module, graph=graph, nests={"add": replace(nest, name="add")})
    verify(lowered)
    third = interpret(lowered, {"x": x})
    np.testing.assert_array_equal(first.outputs["y"], third.outputs["y"])


def test_refused_inputs():
    module = filter_module()
    good = np.ones((3, 4), np.float32)
    with pytest.raises(CheckError, match="input 'x' is missing"):
        interpret(module, {})
    with pytest.raises(CheckError, match=r"did you mean 'x'|inputs: x"):
        interpret(module, {"x": good, "xx": good})
    with pytest.raises(CheckError, match=r"'x' is float32\[3, 5\], not f32\[N,4\]") as caught:
        interpret(module, {"x": np.ones((3, 5), np.float32)})
    assert caught.value.exit_status == 2
    with pytest.raises(CheckError, match="float64"):
        interpret(module, {"x": good.astype(np.float64)})


def test_sizes_follow_from_affine_extents():
    def array(*shape):
        return np.zeros(shape, np.float32)

    def type(*shape):
        return TensorType(f32, shape)

    assert bind_sizes([("x", type(2 * N + 1, 3), array(9, 3))]) == {"N": 4}
    both = [("x", type(N * T), array(6)), ("y", type(T), array(2))]
    with pytest.raises(CheckError, match="does not follow"):
        bind_sizes(both[:1])
    assert bind_sizes([*both, ("z", type(N), array(3))]) == {"N": 3, "T": 2}
    with pytest.raises(CheckError, match="with N=3"):
        bind_sizes([("x", type(N), array(3)), ("y", type(N, 1), array(4, 1))])
    with pytest.raises(CheckError, match="at least 1"):
        bind_sizes([("x", type(N), array(0))])


def test_definitions():
    text = """nncc 1
    size N
    def blend(a: f32[R,C], b: f32[C]; weight: float = 0.5) -> (y: f32[R]) {
      y[r] = sum(c)(weight * a[r,c] + b[c])
    }
    graph main(x: f32[N,4], b: f32[4]) -> (y: f32[N]) {
      y = blend(x, b) {weight=2.0}
    }
    """
    module = read_nn(text)
    verify(module)
    x, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.ones(4, np.float32)
    np.testing.assert_array_equal(interpret(module, {"x": x, "b": b}).outputs["y"], [16, 48])
    wrong = replace(module.graph, types={**module.graph.types, "y": X})
    with pytest.raises(VerifyError, match=r"by inference they are f32\[N\]"):
        verify(module.with_graph(wrong))
