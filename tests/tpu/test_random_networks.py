"""Random quantized networks on random arrays: graph == Loops == simulator, bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.levels.float_networks import Case, networks
from tests.levels.integer_networks import integer_networks
from tests.tpu.networks import arrays, check

QUIET = list(HealthCheck)
FAST = settings(deadline=None, database=None, derandomize=True, suppress_health_check=QUIET)
SLOW = settings(deadline=None, database=None, suppress_health_check=QUIET, max_examples=500)


@pytest.fixture(scope="module")
def counted() -> Iterator[Counter[str]]:
    counter: Counter[str] = Counter()
    yield counter
    print(dict(counter))


@settings(FAST, max_examples=25)
@given(case=integer_networks(), array=arrays())
def test_networks_of_integer_ops(case: Case, array: dict[str, int], counted: Counter[str]) -> None:
    check(case, array, counted)


@settings(FAST, max_examples=12)
@given(case=networks(), array=arrays())
def test_networks_that_the_pass_quantizes(
    case: Case, array: dict[str, int], counted: Counter[str]
) -> None:
    check(case, array, counted)


@pytest.mark.slow
@settings(SLOW)
@given(case=integer_networks(), array=arrays())
def test_many_networks(case: Case, array: dict[str, int], counted: Counter[str]) -> None:
    check(case, array, counted)
