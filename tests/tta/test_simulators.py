"""Both simulators do the same, cycle by cycle, on random machines and programs."""

import random
import resource
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.diagnostics import SimError
from nncc.isa.tta import assemble
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.runtime.tta.interpreter import Interpreter
from nncc.runtime.tta.translated import Translated
from tests.tta.random_machines import random_machine
from tests.tta.random_runs import long_program

SEEDS = st.integers(0, 2**32 - 1)
CYCLES = 120

seen: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """Thousands of random programs do not belong into the user's cache."""
    monkeypatch.setenv("NNCC_CACHE", "0")


def outcome(action) -> str:
    try:
        action()
    except SimError as error:
        return error.render()
    return ""


def cycles_of(snapshot) -> int:
    return snapshot.time + snapshot.stalls


def lasting(s):
    return s.position, s.time, s.stalls, s.loops, s.memory


def check_equal(seed: int, machine: Machine | None = None) -> str:
    """Runs a random program on both; the fault with which it ended, or "" if it did not."""
    r = random.Random(seed)
    machine = machine or random_machine(r)
    program = long_program(r, machine)
    plain, fast = Interpreter(program, machine), Translated(program, machine)
    snapshots = [plain.snapshot()]
    fault = ""
    while len(snapshots) <= CYCLES and not plain.finished and not fault:
        fault = outcome(plain.step)
        if not fault:
            snapshots.append(plain.snapshot())
    reached = cycles_of(snapshots[-1])
    # in one go, in strides, and cycle by cycle
    strides = sorted({r.randint(0, reached) for _ in range(r.randint(1, 4))})
    for stops in ([], strides, [cycles_of(s) for s in snapshots]):
        fast.reset()
        assert fast.snapshot() == snapshots[0]
        for stop in stops:
            fast.advance(stop)
            assert fast.snapshot() == next(s for s in snapshots if cycles_of(s) >= stop)
        assert outcome(lambda: fast.advance(reached + bool(fault))) == fault
        assert fast.counters() == plain.counters()
        if fault:  # of registers, those may have changed that the faulty instruction writes
            assert lasting(fast.snapshot()) == lasting(plain.snapshot())
        else:
            assert fast.snapshot() == snapshots[-1]
        seen["in blocks"] += int(fast.blocks.executed().sum())
    seen.update({o: n for (_, o), n in plain.counters().triggers.items()})
    seen["cycles"] += plain.time
    seen["stalls"] += plain.stalls
    seen["programs"] += 1
    seen["faults"] += bool(fault)
    return fault


def snapshot_of_both(text: str, machine: Machine):
    """The state at the end of a program, which both simulators reach."""
    program = assemble(text, machine)
    plain, fast = Interpreter(program, machine), Translated(program, machine)
    assert plain.run(1000) == fast.run(1000)
    assert plain.snapshot() == fast.snapshot()
    return plain.snapshot()


@pytest.mark.parametrize("bit", [0, 1])
@pytest.mark.parametrize("operation", ["jump", "call", "halt"])
def test_one_of_two_operations_of_the_control_unit(bit, operation):
    """Two moves to the port that triggers, with guards that exclude each other."""
    text = f"""CODE ; {bit} -> b.0, 0 -> r.0 ;
      ?b.0 8 -> cu.pc.{operation}, !b.0 6 -> cu.pc.jump ; ... ; ... ; 3 -> r.0 ; 0 -> cu.pc.halt ;
      1 -> r.0 ; 0 -> cu.pc.halt ; 2 -> r.0 ; 0 -> cu.pc.halt ;"""
    happened = {"halt": 0}.get(operation, 2) if bit else 1
    assert snapshot_of_both(text, load("tta")).values["r", 0] == happened


@pytest.mark.parametrize("width, left", [(2, 2), (3, 6), (32, 6), (128, 6)])
@pytest.mark.parametrize("guard", ["", "?b.0 "])  # in a block, and in plain code
def test_return_addresses_are_cut_to_their_port(guard, width, left):
    machine = load("tta")
    a = machine.architecture
    ports = tuple(
        replace(p, width=width) if p.name == a.control.return_port else p for p in a.control.ports
    )
    machine = replace(machine, architecture=replace(a, control=replace(a.control, ports=ports)))
    text = f"""CODE ; 1 -> b.0 ; ... ; ... ; {guard}7 -> cu.pc.call ; ... ; ... ; 0 -> cu.pc.halt ;
      cu.ra -> r.1 ; 0 -> cu.pc.halt ;"""
    found = snapshot_of_both(text, machine).values
    assert found["cu", "ra"] == found["r", 1] == left


def test_memories_take_what_is_written_of_them():
    minimal = load("tta_minimal")
    a = minimal.architecture
    spaces = tuple(replace(s, max_address=2**32 - 1) if s in a.memories else s for s in a.spaces)
    machine = replace(minimal, architecture=replace(a, spaces=spaces))
    text = "CODE ; 7 -> lsu.in2 ; 4294967292 -> lsu.in1t.st32 ; 0 -> gcu.pc.halt ;"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    simulator = Translated(assemble(text, machine), machine)
    simulator.run(1000)
    assert simulator.read("data", 2**32 - 4, 4) == b"\7\0\0\0"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_loops_of_very_many_rounds():
    machine = load("tta")
    text = "CODE ; 1 -> cu.in2 ; -1 -> cu.pc.hwloop ; ... ; ... ; ... ; ... ;"
    program = assemble(text, machine)
    plain, fast = Interpreter(program, machine), Translated(program, machine)
    for cycle in range(1, 9):
        plain.step()
        assert not fast.advance(cycle)
        assert plain.snapshot() == fast.snapshot()
    assert plain.snapshot().loops == ((4, 4, 2**32 - 1 - 4),)


@settings(max_examples=250, deadline=None)
@given(SEEDS)
def test_state_is_equal_cycle_by_cycle(seed):
    check_equal(seed)


@pytest.mark.slow
@settings(max_examples=4000, deadline=None)
@given(SEEDS)
def test_state_is_equal_cycle_by_cycle_many(seed):
    check_equal(seed)
