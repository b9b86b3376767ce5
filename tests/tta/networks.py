"""Layers for measuring."""

import numpy as np

from nncc.ops.integer import quantize_multiplier
from tests.levels.float_networks import Case
from tests.nests.random_networks import Network


def convolution(channels: int, filters: int, kernel: int, size: int, group: int = 1) -> Case:
    """One convolution with its rescaling on a square image, same padding."""
    rng = np.random.default_rng(0)
    net = Network(0)
    from nncc.ir.types import i8

    x = net.input("x", 1, channels, size, size, dtype=i8)
    shape = (filters, channels // group, kernel, kernel)
    w = net.constant(rng.integers(-127, 127, shape, np.int8, endpoint=True))
    b = net.constant(rng.integers(-1000, 1000, filters, np.int32))
    pad = kernel // 2
    extra = {"group": group} if group > 1 else {}
    y = net.add("IntConv", x, w, b, pads=(pad,) * 4, zx=0, **extra)
    m, s = quantize_multiplier(40 / (75 * 75 * np.sqrt(np.prod(shape[1:]))))
    rows = [np.full(filters, v, np.int32) for v in (m, s)]
    y = net.add("Requantize", y, *(net.constant(r) for r in rows), z=3)
    data = rng.integers(-128, 127, (1, channels, size, size), np.int8, endpoint=True)
    return Case.given(net.module(y), {"x": data})
