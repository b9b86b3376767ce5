"""Traces of runs, and the counts by source node that go with them."""

import json

from nncc.isa.tta import assemble
from nncc.machines import load
from nncc.runtime.tta.interpreter import Interpreter
from nncc.runtime.tta.trace import Trace

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


def test_events_of_units_buses_layers_and_locks():
    machine = load("tta")
    program = assemble(TEXT, machine)
    trace = Trace(program, machine)
    counts = Interpreter(program, machine, trace.observe).run()
    events = json.loads(trace.json())["traceEvents"]
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found = [(rows[e["tid"]], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert ("layers", "first", 0, 4) in found and ("layers", "second", 4, 3) in found
    assert ("locked", "bank conflict", 3, 1) in found
    assert ("mul", "mul", 5, 2) in found
    assert ("s0", "3 -> mul.in1t", 5, 1) in found
    assert not [f for f in found if f[1] == "1 -> r.0"]
    assert {k: (v.cycles, v.stalls) for k, v in counts.sources.items()} == {
        "first": (4, 1),
        "second": (3, 0),
    }
    assert counts.squashed == 1
    assert counts.moves["s1"] == 3 and counts.writes == {"b": 1, "r": 0}


def test_long_traces_are_cut():
    machine = load("tta")
    program = assemble(TEXT, machine)
    trace = Trace(program, machine, limit=5)
    Interpreter(program, machine, trace.observe).run()
    assert len(trace.events) == 5 and trace.dropped > 5
