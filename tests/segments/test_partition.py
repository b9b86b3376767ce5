"""A legalized graph is cut into few segments, in an order in which each can run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.ops.reference import evaluate
from nncc.passes.legalize import Legalize
from nncc.passes.partition import Segment, partition
from nncc.passes.quantize import Quantize
from nncc.passes.specialize import Specialize
from tests.levels.float_networks import Case, networks
from tests.levels.integer_networks import integer_networks
from tests.segments.devices import FLOATS, INTEGERS, device, ops_of

FAST = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def cut(text: str, **options) -> tuple[Segment, ...]:
    return partition(legal(read_nn(f"nncc 1\nsize N\n{text}"), **options))


def legal(module: Module, lacks=(), dtypes=(*INTEGERS, *FLOATS)) -> Module:
    return Legalize()(module, device(dtypes, lacks=lacks))


def shapes(segments: tuple[Segment, ...]) -> list[tuple[str, str]]:
    """The device of each segment, and its ops."""
    return [(s.device, " ".join(n.op for n in s.module.graph.nodes)) for s in segments]


def test_as_few_as_possible() -> None:
    """Two branches whose host ops come one after the other meet in one segment of the host."""
    found = cut(
        """graph g(x: f32[N,4], z: f32[N,4]) -> (y) {
          a = Relu(x)
          b = Softmax(a)
          c = Relu(z)
          d = Softmax(c)
          e = Add(b, d)
          y = Softmax(e)
        }""",
        lacks=["Softmax"],
    )
    assert shapes(found) == [
        ("target", "Relu Relu"), ("host", "Softmax Softmax"), ("target", "Add"), ("host", "Softmax")
    ]  # fmt: skip
    assert found[1].module.graph.inputs == ("a", "c")
    assert found[1].module.graph.outputs == ("b", "d")


def test_a_start_on_the_host_may_save_a_segment() -> None:
    found = cut(
        "graph g(x: f32[N,4], z: f32[N,4]) -> (y) {a = Softmax(x) b = Relu(z) y = Add(a, b)}",
        lacks=["Softmax"],
    )
    assert shapes(found) == [("host", "Softmax"), ("target", "Relu Add")]


def test_a_value_that_skips_a_segment() -> None:
    found = cut(
        "graph g(x: f32[N,4]) -> (y, a) {a = Relu(x) b = Softmax(a) y = Add(a, b)}",
        lacks=["Softmax"],
    )
    assert [s.module.graph.outputs for s in found] == [("a",), ("b",), ("y",)]
    assert found[2].module.graph.inputs == ("a", "b")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = Softmax(x) y = Flatten(a)", [("host", "Softmax Flatten")]),
        ("a = Flatten(x) y = Softmax(a)", [("host", "Flatten Softmax")]),
        ("a = Flatten(x) y = Relu(a)", [("target", "Flatten Relu")]),
        ("a = Relu(x) y = Flatten(a)", [("target", "Relu Flatten")]),
        ("a = Relu(x) b = Flatten(a) y = Softmax(b)",
         [("target", "Relu"), ("host", "Flatten Softmax")]),
        ("a = Softmax(x) b = Flatten(a) y = Relu(b)",
         [("host", "Softmax Flatten"), ("target", "Relu")]),
        ("y = Flatten(x)", [("host", "Flatten")]),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_views_go_where_they_cost_nothing(body: str, expected: list[tuple[str, str]]) -> None:
    found = cut(f"graph g(x: f32[N,4]) -> (y) {{ {body} }}", lacks=["Softmax"])
    assert shapes(found) == expected


def test_shapes_are_computed_where_they_are_needed() -> None:
    """The shape of a value of the target is an operand of a node of the host."""
    text = """const four: i64[1] = [4]
    graph g(x: f32[N,2,2]) -> (y) {
      a = Relu(x)
      s = Shape(a) {end=1}
      t = Concat(s, four) {axis=0}
      b = Reshape(a, t)
      c = Softmax(b)
      d = Reshape(c, t)
      y = Relu(d)
    }"""
    module = legal(read_nn(f"nncc 1\nsize N\n{text}"), lacks=["Softmax", "Shape", "Concat"])
    found = partition(module)
    assert [s.device for s in found] == ["target", "host", "target"]
    run_one_by_one(module, {"x": np.random.default_rng(0).random((3, 2, 2), np.float32)})


def test_outputs_that_no_node_makes() -> None:
    """An input, a constant, a state."""
    text = """const k: f32[2] = [1.0, 2.0]
    state s: f32[2] = 0.0
    graph g(x: f32[2]) -> (x, k, s, y) { y = Relu(x) update s = x }"""
    found = cut(text)
    assert shapes(found) == [("target", "Relu"), ("host", "")]
    assert found[1].module.graph.outputs == ("k",)
    assert shapes(cut("state s: f32[2] = 0.0\ngraph g(x: f32[2]) -> (s) { update s = x }")) == []


def test_named_sizes_follow_from_the_inputs_of_each_segment() -> None:
    """Where no extent is just `N`, an input of the whole graph is passed on."""
    found = cut(
        """graph g(x: f32[N,1,9]) -> (y) {
          a = MaxPool(x) {kernel_shape=[2], strides=[2]}
          b = Transpose(a) {perm=[1,0,2]}
          c = Reshape(b, k)
          d = Softmax(c)
          y = Relu(d)
        } const k: i64[1] = [-1]""",
        lacks=["Softmax"],
    )
    assert [s.module.graph.inputs for s in found] == [("x",), ("b",), ("d", "x")]


def run_one_by_one(module: Module, inputs: dict[str, np.ndarray]) -> None:
    """The segments give what the whole graph gives, each on what those before gave."""
    expected = interpret(module, inputs, evaluate, keep=True)
    known = dict(inputs)
    for s in partition(module):
        given = {n: known[n] for n in s.module.graph.inputs}
        known |= interpret(s.module, given, evaluate).outputs
    for name, value in expected.outputs.items():
        np.testing.assert_array_equal(known[name], value, err_msg=name)


@settings(FAST, max_examples=60)
@given(case=st.one_of(networks(), integer_networks()), data=st.data())
def test_random_networks(case: Case, data: st.DataObject) -> None:
    """Segments alternate, and one after the other they are the whole graph."""
    module = case.module
    if case.calib is not None:
        module = Quantize(calib=case.calib)(module, device())
    lacks = data.draw(st.lists(st.sampled_from(ops_of(module)), unique=True))
    dtypes = data.draw(st.sampled_from([INTEGERS, FLOATS, (*INTEGERS, *FLOATS)]))
    module = legal(module, lacks, dtypes)
    devices = [s.device for s in partition(module)]
    assert all(a != b for a, b in pairwise(devices))
    run_one_by_one(module, case.inputs)


def test_specialize() -> None:
    text = """size M
    state s: f32[N,M] = 1.0
    graph g(x: f32[N,M]) -> (y) { a = Add(x, s) y = Concat(a, a) {axis=0} update s = a }"""
    module = Specialize(sizes={"N": 3})(read_nn(f"nncc 1\nsize N\n{text}"))
    assert module.sizes == ("M",)
    assert str(module.graph.types["y"]) == "f32[6,M]"
    both = Specialize(sizes={"M": 2})(module)
    assert both.symbols["s"].type.is_static
    out = interpret(both, {"x": np.zeros((3, 2), np.float32)}, evaluate).outputs["y"]
    np.testing.assert_array_equal(out, np.ones((6, 2), np.float32))
