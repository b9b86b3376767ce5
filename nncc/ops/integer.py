"""The arithmetic of integer programs: multipliers, shifts and the folding of zero points.

A float scale becomes an integer multiplier and a shift:

    >>> quantize_multiplier(0.75)
    (1610612736, 31)

so that `requantize(a, m, s)` is round(a * 0.75) in integers alone, with one rounding, half up.
These functions are the definition that every back end is compared with, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MULTIPLIER_BITS = 31  # m in [2^30, 2^31)
SHIFTS = (2, 62)
ADD_BITS = 15  # multipliers of an addition are below 2^15
ADD_SHIFTS = (1, 30)


def quantize_multiplier(scale: float) -> tuple[int, int]:
    """(m, s) with scale ≈ m / 2^s, m in [2^30, 2^31), rounded half to even.

    Raises ValueError if no shift in 2..62 expresses the scale (about 2^-31 to 2^29).
    """
    return _multiplier(scale, MULTIPLIER_BITS, SHIFTS)


def add_multipliers(a: float, b: float) -> tuple[int, int, int]:
    """(ma, mb, s) with a ≈ ma / 2^s and b ≈ mb / 2^s, the larger one in [2^14, 2^15).

    Args:
        a, b: scale of each operand of an addition, divided by the scale of the result.

    Raises ValueError if no shift in 1..30 expresses them.
    """
    larger, shift = _multiplier(max(a, b), ADD_BITS, ADD_SHIFTS)
    smaller = _half_to_even(math.ldexp(min(a, b), shift))
    return (larger, smaller, shift) if a >= b else (smaller, larger, shift)


def _multiplier(scale: float, bits: int, shifts: tuple[int, int]) -> tuple[int, int]:
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"a scale must be positive and finite, not {scale}")
    mantissa, exponent = math.frexp(scale)  # mantissa in [0.5, 1)
    multiplier, shift = _half_to_even(math.ldexp(mantissa, bits)), bits - exponent
    if multiplier == 1 << bits:  # rounded up to the next power of two
        multiplier, shift = multiplier >> 1, shift - 1
    if not shifts[0] <= shift <= shifts[1]:
        raise ValueError(f"the scale {scale} needs a shift of {shift}, not in {shifts}")
    return multiplier, shift


def _half_to_even(x: float) -> int:
    return round(x)


def quantize_multipliers(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`quantize_multiplier` of each scale, as the int32 operands m and s of Requantize."""
    pairs = [quantize_multiplier(float(s)) for s in scales.reshape(-1)]
    m, s = (np.array(column, np.int32).reshape(scales.shape) for column in zip(*pairs, strict=True))
    return m, s


def rounding_shift(a: np.ndarray, s: np.ndarray | int) -> np.ndarray:
    """a / 2^s, one rounding, half up, by an arithmetic shift."""
    wide = a.astype(np.int64)
    shift = np.asarray(s, np.int64)
    return np.asarray((wide + (np.int64(1) << (shift - 1))) >> shift)


def requantize(
    a: np.ndarray, m: np.ndarray | int, s: np.ndarray | int, z: int, lo: int, hi: int
) -> np.ndarray:
    """clamp(z + ((a*m + 2^(s-1)) >> s), lo, hi) in int64; m and s broadcast against a."""
    scaled = rounding_shift(a.astype(np.int64) * np.asarray(m, np.int64), s)
    return np.asarray(np.clip(z + scaled, lo, hi))


def absorb_zero_point(w: np.ndarray, bias: np.ndarray | None, zero_point: int) -> np.ndarray:
    """The int32 bias with which sum x*w + bias == b + sum (x - zero_point)*w.

    Args:
        w: weights with the output channel first, int8[M,…].
        bias: int32[M], or None for 0.

    Raises ValueError if the bias leaves int32.
    """
    total = w.astype(np.int64).sum(axis=tuple(range(1, w.ndim)))
    new = (0 if bias is None else bias.astype(np.int64)) - zero_point * total
    limits = np.iinfo(np.int32)
    if new.size and (new.min() < limits.min or new.max() > limits.max):
        raise ValueError("the bias leaves int32 when the zero point is folded into it")
    return np.asarray(new, np.int32)


def accumulator_bound(
    w: np.ndarray, bias: np.ndarray | None, zero_point: int, limits: Sequence[int] = (-128, 127)
) -> int:
    """The largest |b + sum (x - zero_point)*w| for any x within `limits`.

    It bounds every partial sum too, in any order. `w` has the output channel first.
    """
    per_channel = np.abs(w.astype(np.int64)).sum(axis=tuple(range(1, w.ndim)))
    total = per_channel * largest_distance(limits, zero_point)
    if bias is not None:
        total = total + np.abs(bias.astype(np.int64))
    return int(total.max()) if total.size else 0


def largest_distance(limits: Sequence[int], zero_point: int) -> int:
    """The largest |x - zero_point| for x within `limits`, both included."""
    return max(abs(limits[0] - zero_point), abs(limits[1] - zero_point))


def coarse_bound(terms: int, a: int, b: int, bias: np.ndarray | None) -> int:
    """The largest magnitude of a bias plus `terms` products of factors up to a and b."""
    added = 0 if bias is None else int(np.abs(bias.astype(np.int64)).max())
    return terms * a * b + added
