"""Random quantized networks on random arrays: graph == Loops == simulator, bit for bit."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.levels.float_networks import Case, networks
from tests.levels.integer_networks import integer_networks
from tests.tpu.networks import arrays, check

QUIET = list(HealthCheck)
FAST = settings(deadline=None, database=None, derandomize=True, suppress_health_check=QUIET)
SLOW = settings(deadline=None, database=None, suppress_health_check=QUIET)


PARTS = st.sampled_from([1, 0, 3, 4, 0, 2, 3, 0, 2, 3])  # of the unified buffer: see check


@settings(FAST, max_examples=90)
@given(case=integer_networks(), array=arrays(), part=PARTS)
def test_networks_of_integer_ops(
    case: Case, array: dict[str, int], part: int, counted: Counter[str]
) -> None:
    check(case, array, part, counted)


@settings(FAST, max_examples=20)
@given(case=networks(), array=arrays(), part=PARTS)
def test_networks_that_the_pass_quantizes(
    case: Case, array: dict[str, int], part: int, counted: Counter[str]
) -> None:
    check(case, array, part, counted)


@pytest.mark.slow
@settings(SLOW, max_examples=2000)
@given(case=integer_networks(), array=arrays(), part=PARTS)
def test_many_networks(case: Case, array: dict[str, int], part: int, counted: Counter[str]) -> None:
    check(case, array, part, counted)


@pytest.mark.slow
@settings(SLOW, max_examples=300)
@given(case=networks(), array=arrays(), part=PARTS)
def test_many_networks_that_the_pass_quantizes(
    case: Case, array: dict[str, int], part: int, counted: Counter[str]
) -> None:
    check(case, array, part, counted)
