"""The integer arithmetic against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.ops.integer import (
    absorb_zero_point,
    accumulator_bound,
    add_multipliers,
    quantize_multiplier,
    quantize_multipliers,
    requantize,
)
from nncc.ops.table import TABLE

scales = st.floats(1e-7, 1e6, allow_nan=False)


@settings(max_examples=300, deadline=None)
@given(scales)
def test_multiplier_is_the_nearest(scale):
    m, s = quantize_multiplier(scale)
    assert 2**30 <= m < 2**31
    assert 2 <= s <= 62
    error = abs(Fraction(m, 2**s) - Fraction(scale))
    assert error <= Fraction(1, 2 ** (s + 1))


def test_multiplier_at_the_edges():
    assert quantize_multiplier(0.75) == (1610612736, 31)
    assert quantize_multiplier(1.0) == (2**30, 30)
    just_below_one = 1 - 2**-40  # rounds up to the next power of two
    assert quantize_multiplier(just_below_one) == (2**30, 30)
    # 2^30 + 1/2 and 2^30 + 3/2 are ties
    assert quantize_multiplier((2**30 + 0.5) / 2**31) == (2**30, 31)
    assert quantize_multiplier((2**30 + 1.5) / 2**31) == (2**30 + 2, 31)
    for scale in (0.0, -1.0, float("inf"), float("nan"), 2.0**40, 2.0**-40):
        with pytest.raises(ValueError, match="scale"):
            quantize_multiplier(scale)
    m, s = quantize_multipliers(np.array([0.5, 0.3]))
    assert m.dtype == s.dtype == np.int32
    assert (m[0], s[0]) == quantize_multiplier(0.5)


@settings(max_examples=300, deadline=None)
@given(st.integers(-(2**31), 2**31 - 1), scales, st.integers(-128, 127))
def test_requantize_rounds_half_up(a, scale, z):
    m, s = quantize_multiplier(scale)
    exact = floor(Fraction(a * m, 2**s) + Fraction(1, 2))
    expected = min(max(z + exact, -128), 127)
    assert requantize(np.array(a, np.int32), m, s, z, -128, 127) == expected


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-3, 100), st.floats(1e-3, 100))
def test_add_multipliers(a, b):
    ma, mb, s = add_multipliers(a, b)
    assert 2**14 <= max(ma, mb) < 2**15
    assert abs(ma / 2**s - a) <= 2.0 ** -(s + 1)
    assert abs(mb / 2**s - b) <= 2.0 ** -(s + 1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**16), st.integers(-100, 100))
def test_absorbed_zero_point(seed, zero):
    """sum (x-z)*w + b with padding z equals sum x*w + b' with padding z, borders included."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (1, 3, 5, 5)).astype(np.int8)
    w = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    b = rng.integers(-1000, 1000, 4).astype(np.int32)
    conv = TABLE["IntConv"].reference
    plain = conv(x, w, b, zx=zero, pads=(1, 1, 1, 1))[0]
    folded = conv(x, w, absorb_zero_point(w, b, zero), pad_value=zero, pads=(1, 1, 1, 1))[0]
    np.testing.assert_array_equal(plain, folded)
    assert np.abs(plain.astype(np.int64)).max() <= accumulator_bound(w, b, zero)


def test_absorbing_can_overflow():
    w = np.full((1, 200000), 127, np.int8)
    with pytest.raises(ValueError, match="int32"):
        absorb_zero_point(w, None, -128)
