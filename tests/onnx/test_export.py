"""Export: what is written is valid, runs in onnxruntime, and reads back equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nncc.diagnostics import UnsupportedError
from nncc.frontend.onnx import load, save, to_model
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import var
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, f32
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE, canonical_attrs
from tests.onnx.onnx_models import floats, model, node
from tests.onnx.onnx_random import random_model
from tests.onnx.onnx_running import run, run_onnx

DIGITS = Path(__file__).parents[2] / "examples/digits/digits.onnx"


def written(module: Module, opset: int | None = None) -> onnx.ModelProto:
    """The module's model, checked, after a test that it reads back equal."""
    m = to_model(module, opset)
    onnx.checker.check_model(m, full_check=True)
    assert load(m) == module
    assert load(m.SerializeToString()) == module
    return m


def small(node: Node, *inputs: TensorType, **symbols: np.ndarray) -> Module:
    """A module of one node that reads inputs a, b, … and symbols."""
    b = GraphBuilder({n: Symbol("const", Tensor(a)) for n, a in symbols.items()})
    for name, type in zip("abc", inputs, strict=False):
        b.input(name, type)
    b.add(node)
    sizes = tuple(dict.fromkeys(str(s) for t in inputs for s in t.shape if not isinstance(s, int)))
    return Module(b.graph("main", node.outputs), sizes, b.symbols)


def test_digits() -> None:
    module = load(DIGITS)
    m = written(module)
    assert m.opset_import[0].version == 17
    x = floats(3, 1, 28, 28)
    np.testing.assert_allclose(
        run(module, {"image": x})[0], run_onnx(m, {"image": x})[0], rtol=1e-3, atol=1e-3
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    m, inputs = random_model(data)
    module = load(m)
    again = written(module)
    ours, theirs = run(module, inputs), run_onnx(again, inputs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("opset", [17, 18, 19, 21, 23])
def test_opsets_that_are_asked_for(opset: int) -> None:
    mean = Node("ReduceMean", ("a", "axes"), ("y",), {"keepdims": False})
    module = small(mean, TensorType(f32, (2, 3, 4)), axes=np.array([1]))
    m = written(module, opset)
    assert m.opset_import[0].version == opset
    (got,) = run_onnx(m, {"a": floats(2, 3, 4)})
    np.testing.assert_allclose(got, floats(2, 3, 4).mean(1), rtol=1e-5)


def test_the_oldest_opset_that_expresses_the_graph() -> None:
    gelu = small(Node("Gelu", ("a",), ("y",)), TensorType(f32, (2,)))
    assert written(gelu).opset_import[0].version == 20
    with pytest.raises(UnsupportedError, match="Gelu: opset 17 has no Gelu"):
        to_model(gelu, 17)


def test_odd_names_and_outputs() -> None:
    """Outputs that are inputs, symbols, or named twice; names of any spelling."""
    type = TensorType(f32, (2,))
    b = GraphBuilder({"w é": Symbol("param", Tensor(floats(2)))})
    b.input("0", type)
    b.add(Node("Add", ("0", "w é"), ("a b/c:0",)))
    graph = b.graph("main", ("a b/c:0", "a b/c:0", "0", "w é"))
    module = Module(graph, (), b.symbols)
    x = floats(2, seed=3)
    for ours, theirs in zip(
        [x + floats(2), x + floats(2), x, floats(2)], run_onnx(written(module), {"0": x}),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(ours, theirs)


def test_kinds_of_symbols() -> None:
    symbols = {
        "p": Symbol("param", Tensor(np.array([1, 2]))),
        "c": Symbol("const", Tensor(floats(2))),
        "unused": Symbol("param", Tensor(floats(3))),
    }
    b = GraphBuilder(symbols)
    b.input("x", TensorType(f32, (2,)))
    b.add(Node("Add", ("x", "c"), ("y",)))
    written(Module(b.graph("main", ("y",)), (), symbols))


def stateful(declared: TensorType | None) -> Module:
    """v = 0.5*v + x, y = v"""
    n = var("N")
    type = declared or TensorType(f32, (3,))
    data = np.array(0.0, np.float32) if declared else np.zeros(3, np.float32)
    b = GraphBuilder(
        {
            "v": Symbol("state", Tensor(data), declared),
            "half": Symbol("const", Tensor(np.array(0.5, np.float32))),
        }
    )
    b.input("x", type)
    b.add(Node("Mul", ("v", "half"), ("d",)))
    b.add(Node("Add", ("d", "x"), ("next",)))
    graph = replace(b.graph("main", ("next",)), updates=(("v", "next"),))
    return Module(graph, (str(n),) if declared else (), b.symbols)


@pytest.mark.parametrize("declared", [None, TensorType(f32, (var("N"), 2))])
def test_state_is_an_input_and_an_output(declared: TensorType | None) -> None:
    m = written(stateful(declared))
    assert [i.name for i in m.graph.input] == ["x", "v"]
    shape = (4, 2) if declared else (3,)
    v = np.zeros(shape, np.float32)
    for k in range(3):
        x = floats(*shape, seed=k)
        y, v_next = run_onnx(m, {"x": x, "v": v})
        np.testing.assert_allclose(y, 0.5 * v + x, rtol=1e-6)
        v = v_next
    if not declared:  # the first value is the input's default
        assert np.array_equal(run_onnx(m, {"x": x})[0], x)


def test_groups_are_inlined() -> None:
    type = TensorType(f32, (2,))
    plain = small(Node("Relu", ("a",), ("y",)), type)
    body = Graph("g", ("p",), ("t", "p"),
                 (Node("Relu", ("p",), ("s",)), Node("Neg", ("s",), ("t",))),
                 {"p": type, "s": type, "t": type})  # fmt: skip
    group = Node("Group", ("a",), ("y", "z"), {}, (body,))
    graph = replace(plain.graph, nodes=(group,), outputs=("y", "z"),
                    types={"a": type, "y": type, "z": type})  # fmt: skip
    m = to_model(replace(plain, graph=graph))
    onnx.checker.check_model(m, full_check=True)
    assert [n.op_type for n in m.graph.node] == ["Relu", "Neg", "Identity"]
    x = floats(2)
    y, z = run_onnx(m, {"a": x})
    assert np.array_equal(y, -np.maximum(x, 0)) and np.array_equal(z, x)


def test_all_that_cannot_be_written_is_reported_at_once() -> None:
    b = GraphBuilder()
    b.input("x", TensorType(f32, (2,)))
    type = (TensorType(f32, (2,)),)
    b.add(Node("mine", ("x",), ("a",)), type)
    b.add(Node("Relu", ("a",), ("b",)))
    b.add(Node("mine", ("b",), ("y",)), type)
    module = Module(b.graph("main", ("y",)), definitions={"mine": None})  # type: ignore[dict-item]
    with pytest.raises(UnsupportedError) as caught:
        to_model(module)
    text = str(caught.value)
    assert text.startswith("2 nodes cannot be written in ONNX")
    assert "node 'a'" in text and "node 'y'" in text and "index notation" in text


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    m = model([node("Relu", "x", "y")], {"x": ["N"]}, {"y": ["N"]})
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    save(load(m), path)
    assert load(path) == load(m)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert path.stat().st_mode & 0o777 == (tmp_path / "m.onnx").stat().st_mode & 0o777


ROUND_TRIPS = sorted(n for n, op in TABLE.items() if op.domain == "ai.onnx" and n != "Constant")


@pytest.mark.parametrize("name", ROUND_TRIPS)  # a Constant is read as a symbol
def test_every_op_round_trips(name: str) -> None:
    """Random instances of each op in the table, written in the oldest opset and run."""
    op = TABLE[name]
    assert op.sample is not None

    @settings(max_examples=8, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(op.sample())
    def check(sample) -> None:  # type: ignore[no-untyped-def]
        b = GraphBuilder()
        names = []
        feeds = {}
        for k, x in enumerate(sample.inputs):
            names.append("" if x is None else f"in{k}")
            if x is None:
                continue
            tensor = Tensor(np.ascontiguousarray(x).reshape(x.shape))
            if k == 0 and op.inputs[0].name not in ("start", "shape"):
                b.input("in0", tensor.type)
                feeds["in0"] = x
            else:
                b.symbols[f"in{k}"] = Symbol("param", tensor)
        outputs = tuple(f"out{k}" for k in range(sample.outputs))
        while names and not names[-1]:
            names.pop()
        b.add(Node(name, tuple(names), outputs, canonical_attrs(name, sample.attrs)))
        module = Module(b.graph("main", outputs), (), b.symbols)
        model = written(module)
        try:
            given = run_onnx(model, feeds)
        except Exception as error:  # it has no kernel for every op, version and dtype
            if not any(word in str(error) for word in NO_KERNEL):
                raise
            return
        expected = run(module, feeds)
        for ours, theirs in zip(expected, given, strict=True):
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            if ours.dtype.kind == "f":
                scale = float(np.abs(ours[np.isfinite(ours)]).max(initial=1.0))
                np.testing.assert_allclose(theirs, ours, 1e-4, 1e-5 * scale)
            else:
                np.testing.assert_array_equal(theirs, ours)

    check()


# What onnxruntime says of models that are right but that it does not implement.
NO_KERNEL = ("NOT_IMPLEMENTED", "under development", "does not support", "INVALID_GRAPH")
