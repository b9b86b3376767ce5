"""Programs that were changed at random: each is a fault, or means what it says."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from enum import Enum

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nncc.diagnostics import SimError
from nncc.isa.tpu.instructions import (
    Halt,
    Instruction,
    Register,
    SetConfiguration,
    Unit,
    fields_of,
)
from nncc.isa.tpu.program import Origin, Program
from nncc.runtime.tpu import simulate
from tests.tpu.naive import Naive, Order
from tests.tpu.random_programs import program_of_seed

QUIET = [HealthCheck.function_scoped_fixture]


def mutated(rng: random.Random, program: Program) -> Program:
    """A few fields changed, instructions left out, exchanged, repeated, configuration changed."""
    code = list(program.instructions)
    for _ in range(rng.randint(1, 4)):
        k, j = rng.randrange(len(code)), rng.randrange(len(code))
        kind = rng.choice(["field", "field", "drop", "swap", "repeat", "configure"])
        if kind == "field":
            code[k] = other_field(rng, code[k])
        elif kind == "drop" and len(code) > 1:
            del code[k]
        elif kind == "swap":
            code[k], code[j] = code[j], code[k]
        elif kind == "repeat":
            code.insert(k, code[j])
        else:
            value = rng.choice([0, 1, 2, 3, 5, (1 << 24) - 1])
            code.insert(k, SetConfiguration(rng.choice(list(Register)), value))
    return replace(program, instructions=tuple(code), origins=(Origin("n"),) * len(code))


def other_field(rng: random.Random, i: Instruction) -> Instruction:
    if not (fields := fields_of(type(i))):
        return i
    f = rng.choice(fields)
    old = getattr(i, f.name)
    if isinstance(old, Enum):
        return replace(i, **{f.name: rng.choice(list(type(old)))})
    if not f.metadata:
        return replace(i, **{f.name: not old})
    low, high = f.metadata["low"], f.metadata["high"]
    value = rng.choice([low, high, rng.randint(low, min(high, low + 300)), old - 1, old + 1])
    return replace(i, **{f.name: value})


def meaning(program: Program, machine, inputs) -> dict[str, np.ndarray]:
    """The outputs of a legal program. Raises AssertionError for one that is not."""
    state, order = Naive(program, machine, inputs), Order()
    for i in program.instructions:
        if isinstance(i, Halt):
            break
        if i.unit is not None:
            assert i.unit is Unit.WEIGHTS or state.allowed(i), i
            read, written = state.uses(i)
            assert not order.unordered(i.unit, read, written), i
            order.add(i.unit, read, written)
        order.sync(i)
        state.step(i)
    outputs = (b for b in program.buffers if b.role == "out")
    return {
        b.name: np.array([state.host[b.address + k] for k in range(b.bytes)], np.int8)
        for b in outputs
    }


def compare(seed: int, counted: Counter[str]) -> None:
    rng = random.Random(seed)
    program, machine, inputs, _ = program_of_seed(seed, length=rng.randint(3, 40))
    program = mutated(rng, program)
    try:
        outcome = simulate(program, machine, inputs)
    except SimError as error:
        counted["changed programs that are faults"] += 1
        assert "cycle " in str(error) and ", instruction " in str(error)
        return
    counted["changed programs that ran"] += 1
    wanted = meaning(program, machine, inputs)
    for name, y in outcome.outputs.items():
        assert np.array_equal(y.reshape(-1), wanted[name])


@settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
@given(seed=st.integers(0, 1 << 40))
def test_changed_programs(seed: int, counted: Counter[str]) -> None:
    compare(seed, counted)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=QUIET)
@given(seed=st.integers(0, 1 << 40))
def test_many_changed_programs(seed: int, counted: Counter[str]) -> None:
    compare(seed, counted)
