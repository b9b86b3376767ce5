"""Random user-defined ops in index notation take the path of Conv: all levels agree."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.frontend.dsl import read_nn
from tests.levels.definitions import Program, programs
from tests.levels.harness import OPTIONS, compare, machines
from tests.levels.test_random_networks import FAST, SLOW


def checked(
    program: Program, counted: Counter[str], machine: str = "cpu", options: str = "preset"
) -> None:
    compare(read_nn(program.text), program.inputs, machine=machine, options=options)
    counted["definitions"] += 1


@settings(FAST, max_examples=150)
@given(program=programs())
def test_definitions(program: Program, counted: Counter[str]) -> None:
    checked(program, counted)


@pytest.mark.parametrize("machine", machines()[1:])
@settings(FAST, max_examples=25)
@given(program=programs())
def test_variants_of_the_machine(machine: str, program: Program, counted: Counter[str]) -> None:
    checked(program, counted, machine)


@pytest.mark.parametrize("options", [o for o in OPTIONS if o != "preset"])
@settings(FAST, max_examples=25)
@given(program=programs())
def test_without_a_pass(options: str, program: Program, counted: Counter[str]) -> None:
    checked(program, counted, options=options)


@pytest.mark.slow
@pytest.mark.parametrize("machine", machines())
@settings(SLOW, max_examples=1000)
@given(program=programs(), options=st.sampled_from(list(OPTIONS)))
def test_many_definitions(
    machine: str, program: Program, options: str, counted: Counter[str]
) -> None:
    checked(program, counted, machine, options)
