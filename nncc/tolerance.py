"""When two results are the same: the one place that says how much floats may differ.

    compare(actual, expected, reduction=576)     None, or the first Difference

Integers must be equal. A float y equals its reference r if |y - r| <= tol * (|r| + range(r)), where
the range is the largest finite |r| of the tensor and

    tol = eps * (16 + 4 * sqrt(reduction))

with eps half the distance of 1 to the next number of the dtype, and `reduction` the number of
terms that were summed, one reduction after the other, on the way from the inputs: rounding errors
of sums in another order grow like its root. NaN equals NaN, infinities equal themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nncc.ir.types import DType, dtype_of

_MANTISSA_BITS = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}


@dataclass(frozen=True)
class Difference:
    """The first element (in row-major order) that differs, and how many do."""

    index: tuple[int, ...]
    actual: object
    expected: object
    count: int
    elements: int

    def __str__(self) -> str:
        where = ",".join(map(str, self.index))
        more = f"{self.count} of {self.elements} elements differ"
        return f"at [{where}] is {self.actual}, should be {self.expected} ({more})"


def tolerance(dtype: DType, reduction: int = 1) -> float:
    """The relative tolerance of a float dtype after sums of `reduction` terms; 0 for integers."""
    if not dtype.is_float:
        return 0.0
    return float(2.0 ** -_MANTISSA_BITS[dtype.name] * (16 + 4 * math.sqrt(max(reduction, 1))))


def allowance(expected: np.ndarray, reduction: int = 1) -> np.ndarray:
    """How far each element may be from what is expected, as f64."""
    r = expected.astype(np.float64)
    finite = np.isfinite(r)
    scale = float(np.max(np.abs(r), initial=0.0, where=finite))
    tol = tolerance(dtype_of(expected.dtype), reduction)
    return np.where(finite, tol * (np.abs(r) + scale), 0.0)


def compare(actual: np.ndarray, expected: np.ndarray, reduction: int = 1) -> Difference | None:
    """The first difference, or None. Both have the same shape and dtype."""
    wrong = _wrong(actual, expected, reduction)
    if not wrong.any():
        return None
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    count = int(np.count_nonzero(wrong))
    return Difference(index, actual[index], expected[index], count, wrong.size)


def _wrong(actual: np.ndarray, expected: np.ndarray, reduction: int) -> np.ndarray:
    if not dtype_of(expected.dtype).is_float:
        return np.asarray(actual != expected)
    y, r = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        close = np.abs(y - r) <= allowance(expected, reduction)
    same = (y == r) | (np.isnan(y) & np.isnan(r))
    return np.asarray(~(same | (np.isfinite(r) & close)))
