"""Random quantized networks: graph == nests == Loops == native code, bit for bit.

Two kinds: float networks that the quantization pass converts, and networks made of integer ops
with parameters that no quantization would choose.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.levels.float_networks import Case, networks
from tests.levels.harness import OPTIONS, compare, machines
from tests.levels.integer_networks import integer_networks

QUIET = list(HealthCheck)
FAST = settings(deadline=None, database=None, derandomize=True, suppress_health_check=QUIET)
SLOW = settings(deadline=None, database=None, suppress_health_check=QUIET, max_examples=250)

ALL = st.one_of(networks(), integer_networks())


def checked(
    case: Case, counted: Counter[str], machine: str = "cpu", options: str = "preset"
) -> None:
    compare(case.module, case.inputs, calib=case.calib, machine=machine, options=options)
    counted["networks"] += 1


@settings(FAST, max_examples=60)
@given(case=networks())
def test_networks_that_the_pass_quantizes(case: Case, counted: Counter[str]) -> None:
    checked(case, counted)


@settings(FAST, max_examples=60)
@given(case=integer_networks())
def test_networks_of_integer_ops(case: Case, counted: Counter[str]) -> None:
    checked(case, counted)


@pytest.mark.parametrize("machine", machines()[1:])
@settings(FAST, max_examples=10)
@given(case=ALL)
def test_variants_of_the_machine(machine: str, case: Case, counted: Counter[str]) -> None:
    checked(case, counted, machine)


@pytest.mark.parametrize("options", [o for o in OPTIONS if o != "preset"])
@settings(FAST, max_examples=10)
@given(case=ALL)
def test_without_a_pass(options: str, case: Case, counted: Counter[str]) -> None:
    checked(case, counted, options=options)


@pytest.mark.slow
@pytest.mark.parametrize("machine", machines())
@settings(SLOW)
@given(case=ALL, options=st.sampled_from(list(OPTIONS)))
def test_many_networks(machine: str, case: Case, options: str, counted: Counter[str]) -> None:
    checked(case, counted, machine, options)
