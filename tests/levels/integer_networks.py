"""Random networks made of integer ops, with parameters that no quantization would choose.

Zero points at the ends of their range, multipliers and shifts from all that is allowed, biases near
what an accumulator holds, clamps of a few values, unsigned results.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from nncc.ir.graph import Node
from nncc.ir.types import i8, u8
from nncc.ops.integer import accumulator_bound, quantize_multiplier
from nncc.ops.integer_pooling import distinct_counts
from nncc.ops.table import Site
from tests.levels.float_networks import MOST_ELEMENTS, Builder, Case
from tests.nests.random_networks import N, Network


class IntegerBuilder(Builder):
    """Adds random integer layers; every layer gives 8-bit values."""

    def __init__(self, draw: st.DrawFn, net: Network) -> None:
        super().__init__(draw, net)
        self.rng = np.random.default_rng(self.whole(0, 9999))

    def integers(self, shape: tuple[int, ...], lo: int, hi: int, dtype: type) -> str:
        data = self.rng.integers(lo, hi, shape, np.int64, endpoint=True)
        return self.net.constant(data.astype(dtype))

    def zero_point(self, x: str) -> int:
        lo, hi = self.net.builder.type(x).dtype.limits
        return self.choice(0, lo, hi, self.whole(lo, hi)) if lo <= 0 else self.whole(lo, hi)

    def result(self) -> dict:
        """Attributes of a rescaled result."""
        to = self.choice(i8, i8, i8, u8)
        least, most = to.limits
        lo, z, hi = sorted(self.whole(least, most) for _ in range(3))
        return {
            "z": z,
            "lo": self.choice(least, least, lo),
            "hi": self.choice(most, most, hi),
            "to": to,
        }

    def multiplier(self, reach: float) -> tuple[int, int]:
        """(m, s) that take sums of about `reach` to 8 bits, or any (m, s) at all."""
        if self.choice(True, True, True, False):
            return quantize_multiplier(self.draw(st.floats(0.2, 4.0)) * 127 / max(reach, 1.0))
        return self.whole(1 << 30, (1 << 31) - 1), self.whole(2, 62)

    def requantize(self, x: str, reach: float, axis: int) -> str:
        channels = self.shape(x)[axis]
        count = channels if self.flag() else 1
        pairs = [self.multiplier(reach) for _ in range(min(count, 4))]
        pairs = [pairs[k % len(pairs)] for k in range(count)]
        shape = (count,) if count > 1 else ()
        m, s = (
            self.net.constant(np.array(column, np.int32).reshape(shape))
            for column in zip(*pairs, strict=True)
        )
        along = {"axis": axis} if axis != 1 else {}
        return self.net.add("Requantize", x, m, s, **along, **self.result())

    def accumulator_bias(self, w: np.ndarray, zero: int, limits: tuple[int, int]) -> str | None:
        """A bias for each output channel (axis 0 of w), perhaps as large as int32 allows."""
        room = (1 << 31) - 1 - accumulator_bound(w, None, zero, limits)
        size = self.choice(None, 1000, 1000, room)
        if size is None:
            return None
        return self.integers((len(w),), -size, size, np.int32)

    def contraction(
        self, op: str, x: str, w: np.ndarray, stored: np.ndarray, axis: int, **attrs
    ) -> str:
        dtype = self.net.builder.type(x).dtype
        zero = self.zero_point(x)
        bias = self.accumulator_bias(w, zero, dtype.limits)
        operands = (x, self.net.constant(stored), *([bias] if bias else []))
        y = self.net.add(op, *operands, **attrs, **{"zx" if op == "IntConv" else "za": zero})
        terms = np.prod(w.shape[1:])
        return self.requantize(y, 75 * 75 * terms**0.5, axis)

    def weights(self, shape: tuple[int, ...]) -> np.ndarray:
        limit = self.choice(127, 127, 2)
        if self.choice(True, True, True, False):
            return self.rng.integers(-limit, limit, shape, np.int8, endpoint=True)
        return np.full(shape, self.choice(-127, 127), np.int8)

    def conv(self, x: str) -> str:
        c = self.shape(x)[1]
        kernel, attrs = self.geometry(x)
        group = self.choice(*(g for g in (1, 1, 1, c, 2, 3) if c % g == 0))
        filters = group * self.whole(1, 3) if group > 1 else self.choice(1, 3, 8, 16, 20, 33)
        w = self.weights((filters, c // group, *kernel))
        if group > 1:
            attrs["group"] = group
        if self.flag():
            attrs["pad_value"] = self.zero_point(x)
        return self.contraction("IntConv", x, w, w, 1, **attrs)

    def linear(self, x: str) -> str:
        w = self.weights((self.choice(1, 5, 16, 35), self.shape(x)[-1]))
        rank = len(self.shape(x))
        if self.flag():
            return self.contraction("IntMatMul", x, w, w, rank - 1, transB=True)
        return self.contraction("IntMatMul", x, w, np.ascontiguousarray(w.T), rank - 1)

    def products(self, x: str) -> str:
        turned = self.net.add("Transpose", x, perm=(0, 1, 3, 2))
        zeros = {"za": self.zero_point(x), "zb": self.zero_point(x)}
        y = self.net.add("IntMatMul", x, turned, **zeros)
        return self.requantize(y, 75 * 75 * self.shape(x)[-1] ** 0.5, 1)

    def same_conv(self, x: str, filters: int = 0) -> str:
        c = self.shape(x)[1]
        kernel = [self.choice(1, 3) if extent > 1 else 1 for extent in self.shape(x)[2:]]
        w = self.weights((filters or c, c, *kernel))
        return self.contraction("IntConv", x, w, w, 1, pads=tuple(k // 2 for k in kernel) * 2)

    def sum(self, a: str, b: str) -> str:
        attrs = {
            "za": self.zero_point(a), "zb": self.zero_point(b),
            "ma": self.whole(0, (1 << 15) - 1), "mb": self.whole(1 << 14, (1 << 15) - 1),
            "s": self.choice(14, 15, 16, 1, 30), **self.result(),
        }  # fmt: skip
        return self.net.add("IntAdd", a, b, **attrs)

    def residual(self, x: str) -> str:
        other = self.same_conv(x) if self.flag() else x
        return self.sum(self.same_conv(x), other)

    def shift(self, x: str) -> str:
        return self.sum(x, self.integers((self.shape(x)[1], 1, 1), -128, 127, np.int8))

    def concat(self, x: str) -> str:
        other = self.table(self.same_conv(x, self.choice(1, 4, 16)), self.net.builder.type(x).dtype)
        return self.net.add("Concat", *self.draw(st.permutations([x, other])), axis=1)

    def table(self, x: str, dtype=None) -> str:
        dtype = dtype or self.choice(i8, i8, u8)
        lo, hi = dtype.limits
        if self.flag():
            values = np.linspace(lo, hi, 256)
            curve = np.rint(lo + (hi - lo) / (1 + np.exp(-values / 30))).astype(dtype.numpy)
            return self.net.add("Lookup", x, self.net.constant(curve))
        return self.net.add("Lookup", x, self.integers((256,), lo, hi, dtype.numpy))

    def average(self, x: str) -> str:
        kernel, attrs = self.geometry(x, dilated=False)
        if self.flag() and not any(attrs["pads"]):
            attrs["ceil_mode"] = True
        if self.flag():
            attrs["count_include_pad"] = True
        attrs |= {"kernel_shape": kernel, "zx": self.zero_point(x)}
        node = Node("AveragePool", (x,), ("y",), {k: v for k, v in attrs.items() if k != "zx"})
        counts = distinct_counts(Site(node, (self.net.builder.type(x),)))
        pairs = [self.multiplier(75.0 * c) for c in counts]
        m, s = zip(*pairs, strict=True)
        return self.net.add("IntAveragePool", x, counts=counts, m=m, s=s, **attrs, **self.result())

    def global_average(self, x: str) -> str:
        m, s = self.multiplier(75.0 * float(np.prod(self.shape(x)[2:])))
        zero = self.zero_point(x)
        return self.net.add("IntGlobalAveragePool", x, m=m, s=s, zx=zero, **self.result())


LAYERS = (
    "conv", "conv", "residual", "concat", "average", "maximum", "shift", "table", "transpose",
    "products",
)  # fmt: skip


@st.composite
def integer_networks(draw: st.DrawFn) -> Case:
    """8-bit images (sometimes rows) through one to five layers; the batch is often symbolic."""
    net = Network(draw(st.integers(0, 999)))
    b = IntegerBuilder(draw, net)
    n, dtype = b.choice(N, N, 1, 2), b.choice(i8, i8, u8)
    if b.choice("image", "image", "image", "rows") == "rows":
        x = net.input("x", n, b.choice(1, 7, 16, 40), dtype=dtype)
        for _ in range(b.whole(1, 4)):
            x = b.linear(x)
    else:
        c, h, w = b.choice(1, 2, 3, 6, 16, 18), b.whole(1, 9), b.whole(1, 9)
        x = net.input("x", n, c, h, w, dtype=dtype)
        for _ in range(b.whole(1, 5)):
            if np.prod(b.shape(x)[1:]) < MOST_ELEMENTS:
                x = getattr(b, b.choice(*LAYERS))(x)
        if b.flag():
            x = b.linear(net.add("Flatten", b.global_average(x) if b.flag() else x))
    samples = n if isinstance(n, int) else b.choice(1, 2, 3, 7)
    lo, hi = dtype.limits
    shape = (samples, *net.builder.type("x").shape[1:])
    data = b.choice(
        b.rng.integers(lo, hi, shape, dtype.numpy, endpoint=True),
        np.full(shape, lo, dtype.numpy), np.full(shape, hi, dtype.numpy),
    )  # fmt: skip
    return Case.given(net.module(x), {"x": data})
