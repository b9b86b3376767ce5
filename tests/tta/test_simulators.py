"""Both simulators do the same, cycle by cycle, on random machines and programs."""

import random
from collections import Counter

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


def outcome(simulator, action) -> str:
    try:
        action()
    except SimError as error:
        return error.render()
    return ""


def check_equal(seed: int, machine: Machine | None = None) -> str:
    """Runs a random program on both; the fault with which it ended, or "" if it did not."""
    r = random.Random(seed)
    machine = machine or random_machine(r)
    program = long_program(r, machine)
    plain, fast = Interpreter(program, machine), Translated(program, machine)
    assert plain.snapshot() == fast.snapshot()
    fault = ""
    for _ in range(CYCLES):
        if plain.finished or fault:
            break
        fault = outcome(plain, plain.step)
        total = fast.layout.time, fast.layout.stalls
        now = sum(fast._get(offset, 8) for offset in total)
        assert outcome(fast, lambda now=now: fast.advance(now + 1)) == fault
        if not fault:
            assert plain.snapshot() == fast.snapshot()
    counts = plain.counters()
    if not fault:
        assert counts == fast.counters()
    seen.update({o: n for (_, o), n in counts.triggers.items()})
    # and in one go
    again = Translated(program, machine, optimized=True)
    reached = plain.time + plain.stalls
    text = outcome(again, lambda: again.advance(reached + bool(fault)))
    assert text == fault
    if not fault:
        assert again.snapshot() == plain.snapshot()
    seen["cycles"] += plain.time
    seen["stalls"] += plain.stalls
    return fault


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


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_state_is_equal_cycle_by_cycle(seed):
    check_equal(seed)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(SEEDS)
def test_state_is_equal_cycle_by_cycle_many(seed):
    check_equal(seed)
