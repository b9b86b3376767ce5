"""Scales and zero points: how real numbers stand in eight bits.

    Scale.of_range(-1.0, 3.0)   ->  scale 4/255, zero point -64: 0.0 is -64, 3.0 is 127

Zero is always a value of its own, so that padding and clamps at zero are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nncc.diagnostics import PassError

LOWEST, HIGHEST = -128, 127
WEIGHT_LIMIT = 127  # weights are symmetric: -127..127


@dataclass(frozen=True)
class Scale:
    """real = (q - zero) * scale, with q in -128..127; `scale` is a float32 value."""

    scale: float
    zero: int

    @staticmethod
    def of_range(lo: float, hi: float) -> Scale:
        """The scale by which lo..hi, widened to hold 0, fill -128..127."""
        lo, hi = min(lo, 0.0), max(hi, 0.0)
        scale = float(np.float32((hi - lo) / (HIGHEST - LOWEST)))
        if scale < np.finfo(np.float32).tiny:
            return Scale(1.0, 0)  # always zero
        return Scale(scale, max(LOWEST, min(HIGHEST, round(LOWEST - lo / scale))))

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """x as int8, by the rule of QuantizeLinear (float32, half to even, saturating)."""
        steps = np.rint(x.astype(np.float32) / np.float32(self.scale)) + np.float32(self.zero)
        return np.asarray(np.clip(steps, LOWEST, HIGHEST), np.int8)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """q as float32, by the rule of DequantizeLinear."""
        return np.asarray((q.astype(np.int32) - self.zero).astype(np.float32)) * np.float32(
            self.scale
        )

    @property
    def values(self) -> np.ndarray:
        """The 256 real values, from that of -128 to that of 127."""
        return self.dequantize(np.arange(LOWEST, HIGHEST + 1))

    def clamp(self, lo: float, hi: float) -> tuple[int, int]:
        """The integers that lo and hi stand for, within -128..127."""
        low, high = self.quantize(np.array([lo, hi]))
        return int(low), int(high)


def check_finite(name: str, array: np.ndarray) -> None:
    """Raises PassError with the place of the first element that is NaN or infinite."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    raise PassError(
        f"'{name}' has {array[where]} at {list(where)}: it cannot be quantized",
        help="weights must be finite; without quantize the model compiles in floats",
    )


def weight_scales(rows: np.ndarray, bias: np.ndarray, x_scale: float, y_scale: float) -> np.ndarray:
    """A scale for each row (output channel) of a weight matrix, as float32 values.

    The largest weight of a row becomes 127, unless the bias at scale x_scale*w_scale would then
    leave 30 bits or the rescaling factor be too small for a 31-bit multiplier: a row that is
    (nearly) zero beside its bias or its result.
    """
    largest = np.abs(rows).max(axis=1, initial=0.0) / WEIGHT_LIMIT
    for_bias = np.abs(bias) / (x_scale * 2.0**29)
    for_factor = y_scale / x_scale * 2.0**-28
    return np.asarray(np.maximum(np.maximum(largest, for_bias), for_factor), np.float32)


def quantize_weight(rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rows of weights as int8 in -127..127."""
    steps = np.rint(rows / scales.astype(np.float64)[:, None])
    return np.asarray(np.clip(steps, -WEIGHT_LIMIT, WEIGHT_LIMIT), np.int8)
