"""Traces of runs, and the counts by source node that go with them."""

import json

import numpy as np
import pytest

import nncc
from nncc.isa.tta import assemble
from nncc.machines import load
from nncc.runtime.trace import Trace
from nncc.runtime.tta.interpreter import Interpreter
from nncc.runtime.tta.model import Places, SimulatedModel
from nncc.runtime.tta.trace import Watch
from tests.trace_format import FormatError, check_trace

TEXT = """CODE ;
  :source "first" ;
  7 -> lsu.in2, 3 -> vbc.at.broadcast32 ;
  ..., ..., ..., ..., ..., ..., vbc.out1 -> vlsu.in2 ;
  0 -> lsu.in1t.st32, 128 -> vlsu.in1t.st8x32 ;
  :source "second" ;
  2 -> mul.in2, 1 -> b.0 ;
  3 -> mul.in1t.mul, !b.0 1 -> r.0 ;
  0 -> cu.pc.halt ;
"""


def watched(**limits):
    """A run of TEXT: its trace as text, and its counts."""
    machine = load("tta")
    program = assemble(TEXT, machine)
    trace = Trace()
    watch = Watch(trace.machine("tta", 1e9), program, **limits)  # a cycle is a nanosecond
    simulator = Interpreter(program, machine, watch.observe)
    counts = simulator.run()
    watch.finish(counts.cycles)
    return json.dumps(trace.as_json()), counts


def test_spans_of_units_buses_memories_layers_and_locks():
    text, counts = watched()
    tracks = check_trace(text)
    found = {(t, s.name, s.start, s.end) for (_, t), slices in tracks.items() for s in slices}
    assert ("layers", "first", 0, 4) in found and ("layers", "second", 4, 7) in found
    assert ("locked", "bank conflict", 3, 4) in found
    assert ("mul", "mul", 5, 6) in found
    assert ("s0", "3 -> mul.in1t", 5, 6) in found
    assert ("dmem", "st32 + st8x32", 2, 4) in found
    assert not [f for f in found if f[1] == "1 -> r.0"]
    assert "trace" not in {track for _, track in tracks}
    assert {k: (v.cycles, v.stalls) for k, v in counts.sources.items()} == {
        "first": (4, 1),
        "second": (3, 0),
    }
    assert counts.squashed == 1
    assert counts.moves["s1"] == 3 and counts.writes == {"b": 1}


@pytest.mark.parametrize("limits", [{"cycles": 2}, {"spans": 4}])
def test_long_traces_are_cut_and_say_so(limits):
    text, counts = watched(**limits)
    tracks = check_trace(text)
    (rest,) = tracks["tta", "trace"]
    assert 0 < rest.start < rest.end == counts.cycles
    assert (
        rest.name == f"cut: {rest.end - rest.start} of {counts.cycles} cycles are not in this trace"
    )
    others = [s for (_, t), slices in tracks.items() if t != "trace" for s in slices]
    assert max(s.end for s in others) == rest.start


def test_a_traced_run_gives_what_a_plain_run_gives():
    machine = load("tta")
    program = assemble(TEXT, machine)
    model = SimulatedModel(program, machine, Places("dmem", (), (0,), 256))
    plain, traced = np.zeros(1, np.int32), np.zeros(1, np.int32)
    trace = Trace()
    first, second = model({}, [], [plain]), model({}, [], [traced], trace)
    assert plain == traced == [7] and first == second
    text = json.dumps(trace.as_json())
    assert {t for _, t in check_trace(text)} > {"layers", "s0", "vlsu", "dmem", "locked"}


@pytest.mark.parametrize("target, tracks", [
    ("tta", {"layers", "s0", "v0", "vmac", "lsu", "dmem", "pmem"}),
    ("tta_minimal", {"layers", "B1", "alu", "lsu", "data"}),
    ("tpu", {"matrix", "activation", "weights", "host_read", "layer y.q"}),
])  # fmt: skip
def test_traces_of_models_are_as_perfetto_wants_them(tmp_path, target, tracks):
    """A model of which the host does a part; two calls."""
    path = tmp_path / "net.nn"
    path.write_text(
        """nncc 1
        size N
        param w: f32[32,4,1,1] = random(seed=1, std=0.2)
        graph main(x: f32[N,4,6,6]) -> (y: f32[N,32,6,6]) {
          c = Conv(x, w)
          y = Relu(c)
        }
        """
    )
    net = nncc.compile(path, target)
    net.trace = trace = Trace()
    rng = np.random.default_rng(0)
    for _ in range(2):
        net.run({"x": rng.standard_normal((1, 4, 6, 6)).astype(np.float32)})
    trace.write(tmp_path / "t.json")
    found = check_trace((tmp_path / "t.json").read_text())
    assert {t for p, t in found if p == target} >= tracks
    layers = [s for (_, t), slices in found.items() if t.startswith("layer") for s in slices]
    assert sum(s.name == "y.q" for s in layers) >= 2  # both calls


def event(**fields):
    return {"ph": "X", "name": "a", "pid": 1, "tid": 1, "ts": 0.0, "dur": 1.0} | fields


NAMES = [
    {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "p"}},
    {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "t"}},
]


@pytest.mark.parametrize(
    "events, message",
    [
        ([event(ts=float("nan"))], "NaN is not JSON"),
        ([event(ts="0")], "ts is no number"),
        ([event(dur=-1)], "dur is negative"),
        ([event(ph="Q")], "unknown phase"),
        ([event(name="")], "a name is missing"),
        ([event(tid=2)], "a thread without a name"),
        ([event(pid="1")], "pid is an integer"),
        ([event(), event(ts=0.5)], "slices overlap"),
        ([{"ph": "C", "name": "c", "pid": 1, "ts": 0, "args": {"c": "1"}}], "c is no number"),
        ([{"ph": "C", "name": "c", "pid": 1, "ts": 0, "args": {}}], "without a value"),
        ([NAMES[1]], "named twice"),
    ],
)
def test_the_checker_refuses(events, message):
    with pytest.raises(FormatError, match=message):
        check_trace(json.dumps({"traceEvents": [*NAMES, *events]}))
