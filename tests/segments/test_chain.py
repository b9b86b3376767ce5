"""Models in several segments run as the graph says."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nncc
from nncc.check import check
from nncc.compilation import Compilation
from nncc.diagnostics import CheckError, NnccError
from nncc.driver import build, load_module, lower
from nncc.frontend.dsl import read_nn
from nncc.ir.interpreter.graph import interpret
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.ops.reference import evaluate
from nncc.runtime.chain import Chain
from nncc.tolerance import compare
from tests.levels.float_networks import Case, networks
from tests.levels.harness import pipeline
from tests.levels.integer_networks import integer_networks
from tests.segments.devices import FLOATS, INTEGERS, device, ops_of

EXAMPLES = Path(__file__).parents[2] / "examples"
QUIET = list(HealthCheck)
FAST = settings(deadline=None, database=None, derandomize=True, suppress_health_check=QUIET)
SLOW = settings(deadline=None, database=None, suppress_health_check=QUIET, max_examples=150)

SOFTMAX = """nncc 1
size N
param w: f32[4,4] = random(seed=1, mean=0.0, std=0.5)
graph g(x: f32[N,4]) -> (y: f32[N,4]) {
  a = MatMul(x, w) at "fc"
  b = Softmax(a) at "soft"
  y = Relu(b) at "relu"
}"""


def compiled(case: Case, machine: Machine) -> tuple[Compilation, Chain]:
    steps = pipeline(machine, quantize=case.calib is not None)
    compilation = lower(case.module, machine, pipeline=steps, calib=case.calib)
    executable = build(compilation)
    assert isinstance(executable, Chain)
    return compilation, executable


def runs_in_segments(case: Case, data: st.DataObject, counted: Counter[str]) -> None:
    lacks = data.draw(st.lists(st.sampled_from(ops_of(case.module)), unique=True))
    machine = device(data.draw(st.sampled_from([INTEGERS, (*INTEGERS, *FLOATS)])), lacks=lacks)
    compilation, executable = compiled(case, machine)
    check(compilation, executable, case.inputs)
    counted["networks"] += 1
    counted["segments"] += len(compilation.segments)


@settings(FAST, max_examples=30)
@given(case=st.one_of(networks(), integer_networks()), data=st.data())
def test_random_networks(case: Case, data: st.DataObject, counted: Counter[str]) -> None:
    runs_in_segments(case, data, counted)


@pytest.mark.slow
@settings(SLOW)
@given(case=st.one_of(networks(), integer_networks()), data=st.data())
def test_many_networks(case: Case, data: st.DataObject, counted: Counter[str]) -> None:
    runs_in_segments(case, data, counted)


@pytest.mark.parametrize("name", ["iir", "lif"])
def test_state_is_kept_between_calls(name: str) -> None:
    module = load_module(EXAMPLES / f"{name}.nn")
    lacks = [n.op for n in module.graph.nodes][1:2]
    executable = nncc.compile(module, device((*INTEGERS, *FLOATS), lacks=lacks), check=True)
    rng = np.random.default_rng(5)
    shape = {"iir": (32,), "lif": (3, 16)}[name]
    blocks = [rng.standard_normal(shape).astype(np.float32) for _ in range(5)]
    for _ in range(2):
        state: dict[str, np.ndarray] = {}
        for x in blocks:
            expected = interpret(module, {"x": x}, evaluate, state=state)
            state = expected.state
            for key, value in executable.run({"x": x}).items():
                assert compare(value, expected.outputs[key], reduction=100) is None
        executable.reset()


def test_states_set_to_inputs_and_to_each_other() -> None:
    text = """nncc 1
    size N
    state s: f32[N,2] = 0.0
    state t: f32[N,2] = 1.0
    graph g(x: f32[N,2]) -> (y, t) { y = Sub(t, s) update s = x update t = s }"""
    net = nncc.compile(read_nn(text), device((*INTEGERS, *FLOATS)), check=True)
    x = np.float32([[1, 2]])
    np.testing.assert_array_equal(net.run({"x": x})["y"], [[1, 1]])
    x[:] = 9  # the state has what was given, not what the caller makes of it later
    out = net.run({"x": np.float32([[5, 6]])})
    np.testing.assert_array_equal(out["y"], [[-1, -2]])
    np.testing.assert_array_equal(out["t"], [[0, 0]])
    with pytest.raises(NnccError, match="state is that of calls with N = 1"):
        net.run({"x": np.zeros((2, 2), np.float32)})
    net.reset()
    np.testing.assert_array_equal(
        net.run({"x": np.zeros((2, 2), np.float32)})["y"], np.ones((2, 2))
    )


def test_arguments_are_checked_as_always() -> None:
    net = nncc.compile(read_nn(SOFTMAX), device(FLOATS, lacks=["Softmax"]))
    with pytest.raises(NnccError, match="input 'x' is missing"):
        net.run({})
    with pytest.raises(NnccError, match="dtype float64"):
        net.run({"x": np.zeros((1, 4))})
    out = np.zeros((2, 4), np.float32)
    net.run_into({"x": np.ones((2, 4), np.float32)}, {"y": out})
    np.testing.assert_allclose(out.sum(1), 1, rtol=1e-6)
    assert net.statistics is None


def test_a_wrong_segment_is_named() -> None:
    compilation = lower(read_nn(SOFTMAX), device(FLOATS, lacks=["Softmax"]))
    executable = build(compilation)
    assert isinstance(executable, Chain)
    part = executable.parts[1]

    def wrong(call, inputs, outputs) -> None:
        outputs[0][...] = 7

    part._execute = wrong
    with pytest.raises(CheckError, match=r"segment 1 \(cpu\): native differs.*'b'"):
        check(compilation, executable)


def test_the_report_names_what_the_host_does() -> None:
    net = nncc.compile(read_nn(SOFTMAX), device(FLOATS, lacks=["MatMul"]))
    (found,) = net.report["host"]
    assert (found["node"], found["op"], found["macs"]) == ("fc", "MatMul", 16)
    assert found["macs_share"] == 1.0 and 0 < found["bytes_share"] < 1
    assert found["reason"] == "the target does not compute this op"
    assert [s["target"] for s in net.report["segments"]] == ["cpu", "npu"]
    assert [s["inputs"] for s in net.report["segments"]] == [{"x": "f32[N,4]"}, {"a": "f32[N,4]"}]
    assert net.report["notes"]["host"].startswith("on the host: 1 node (MatMul 1), 100.0% of")


def test_a_cpu_is_one_function_as_ever() -> None:
    compilation = lower(read_nn(SOFTMAX), "cpu")
    assert not compilation.segments
    assert not isinstance(build(compilation), Chain)
    assert load("cpu").is_host


# -- back ends without named sizes ------------------------------------------------------------
def test_samples_are_run_in_pieces(toy: Machine) -> None:
    module = read_nn(SOFTMAX)
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    expected = interpret(module, {"x": x}, evaluate).outputs["y"]
    for size in (None, 3, 7, 10):
        net = nncc.compile(module, toy, sizes=size and {"N": size}, check=True)
        assert compare(net.run({"x": x})["y"], expected, reduction=8) is None
        calls = -(-7 // (size or 1))
        assert net.statistics is not None
        assert net.statistics.cycles == 100 * 2 * calls  # two segments of one layer
        assert [layer.cycles for layer in net.statistics.layers] == [100 * calls] * 2
        assert net.statistics.memories["buffer"].read_bytes == 8 * 2 * calls
        assert net.statistics.calls == 2 * calls
        assert net.statistics.fillers == 2 * {None: 0, 3: 2, 7: 0, 10: 3}[size]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = LogSoftmax(x) {axis=0}", "LogSoftmax.*folds all samples"),
        ("r = ReduceMean(x, axis) y = Sub(x, r)", r"ReduceMean.*folds all samples into one"),
        ("r = Reshape(x, flat) y = Relu(r)", "no axis that is N alone"),
        ("y = Slice(x, flat, far, axis, flat)", "Slice.*mixes samples"),
        ("y = ReduceMax(x, axis)", "'y' is the same for all samples"),
    ],
)
def test_samples_that_depend_on_each_other_stay_together(
    body: str, reason: str, toy: Machine
) -> None:
    text = f"""nncc 1
    size N
    const far: i64[1] = [-9999999999]
    const axis: i64[1] = [0]
    const flat: i64[1] = [-1]
    graph g(x: f32[N,4]) -> (y) {{ {body} }}"""
    module = read_nn(text)
    net = nncc.compile(module, toy, sizes={"N": 3})
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    np.testing.assert_allclose(
        net.run({"x": x[:3]})["y"],
        interpret(module, {"x": x[:3]}, evaluate).outputs["y"],
        rtol=1e-5,
    )
    with pytest.raises(NnccError, match=f"N is 4, and the model was compiled for N = 3.*{reason}"):
        net.run({"x": x})


def test_a_trace_of_several_segments(toy: Machine) -> None:
    from nncc.runtime.trace import Trace

    net = nncc.compile(read_nn(SOFTMAX), toy)
    net.trace = Trace()
    net.run({"x": np.zeros((2, 4), np.float32)})
    spans = [e for e in net.trace.as_json()["traceEvents"] if e["ph"] == "X"]
    assert [e["name"] for e in spans] == ["fc", "fc", "relu", "relu"]
    assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-9 for a, b in pairwise(spans))


@settings(FAST, max_examples=15)
@given(case=integer_networks(), data=st.data())
def test_random_networks_in_pieces(toy: Machine, case: Case, data: st.DataObject) -> None:
    """Compiled for a few samples, run with others: equal to the graph, bit for bit."""
    lacks = data.draw(st.lists(st.sampled_from(ops_of(case.module)), unique=True))
    machine = device(INTEGERS, lacks=lacks, backend=toy.backend)
    steps = pipeline(machine)
    batch = data.draw(st.integers(1, 3))
    sizes = dict.fromkeys(case.module.sizes, batch)
    compilation = lower(case.module, machine, pipeline=steps, sizes=sizes)
    executable = build(compilation)
    for segment in compilation.segments:
        if segment.fixed is not None:
            assert segment.fixed.split == "N", segment.fixed.reason
    expected = interpret(case.module, case.inputs, evaluate).outputs
    for name, value in executable.run(case.inputs).items():
        np.testing.assert_array_equal(value, expected[name])
    check(compilation, executable, case.inputs)
