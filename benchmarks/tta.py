"""Layers on the BrainTTA-like machine: how busy its multiply-accumulate unit is, and why not more.

For each layer: cycles of the contraction alone, the share of cycles in which the unit starts an
operation, the share of its peak in multiply-accumulates as they are usually counted (with those on
padding, which the code leaves out; without those on channels that fill a vector), and what
else took cycles: instructions that start no such operation, and bank conflicts.
"""

from __future__ import annotations

import numpy as np

import nncc
from nncc.ir.graph import Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, i8
from nncc.ops.builder import GraphBuilder
from nncc.ops.integer import quantize_multiplier

# (name, channels, filters, kernel, size)
LAYERS = (
    ("1x1", 32, 32, 1, 16),
    ("1x1", 64, 64, 1, 16),
    ("1x1", 128, 128, 1, 8),
    ("3x3", 32, 32, 3, 16),
    ("3x3", 64, 64, 3, 16),
    ("3x3", 64, 128, 3, 8),
    ("5x5", 32, 32, 5, 12),
    ("3x3", 24, 32, 3, 14),
)


def layer(channels: int, filters: int, kernel: int, size: int) -> Module:
    """One convolution with its rescaling on a square image, with borders."""
    rng = np.random.default_rng(0)
    builder = GraphBuilder()

    def constant(name: str, data: np.ndarray) -> str:
        builder.symbols[name] = Symbol("const", Tensor(data))
        return name

    builder.input("x", TensorType(i8, (1, channels, size, size)))
    shape = (filters, channels, kernel, kernel)
    w = constant("w", rng.integers(-127, 127, shape, np.int8, endpoint=True))
    b = constant("b", rng.integers(-1000, 1000, filters, np.int32))
    builder.add(Node("IntConv", ("x", w, b), ("sum",), {"pads": (kernel // 2,) * 4, "zx": 0}))
    m, s = quantize_multiplier(40 / (75 * 75 * np.sqrt(channels * kernel * kernel)))
    rows = [constant(n, np.full(filters, v, np.int32)) for n, v in (("m", m), ("s", s))]
    builder.add(Node("Requantize", ("sum", *rows), ("y",), {"z": 3}))
    return Module(builder.graph("layer", ("y",)), symbols=builder.symbols)


def run(target: str = "tta") -> int:
    """Prints the table."""
    print(f"{'layer':24} {'cycles':>9} {'busy':>7} {'of peak':>8} {'other':>8} {'stalls':>7}")
    for name, channels, filters, kernel, size in LAYERS:
        net = nncc.compile(layer(channels, filters, kernel, size), target)
        net.run({"x": np.ones((1, channels, size, size), np.int8)})
        counts = net.statistics
        assert counts is not None
        found = max(counts.layers, key=lambda x: x.active)
        macs = channels * filters * kernel**2 * size**2
        stalls = sum(found.stalls.values())
        label = f"{name} {channels}->{filters} {size}x{size}"
        print(
            f"{label:24} {found.cycles:9} {found.active / found.cycles:7.1%} "
            f"{macs / (found.cycles * counts.peak_macs):8.1%} "
            f"{found.cycles - found.active - stalls:8} {stalls:7}"
        )
    return 0
