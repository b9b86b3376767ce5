"""Random float networks of what quantization does in integers, with data that saturate.

One op that it leaves in floats, Softmax, stands between the others: an int8 value that is made of
a float sum may be rounded differently at a level, since the order of float sums is free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from nncc.ir.graph import Module
from nncc.ir.index import variables
from nncc.ir.text import print_module
from tests.nests.random_networks import N, Network

MOST_ELEMENTS = 1500  # of an activation: interpreters are slow


@dataclass
class Case:
    """A module, data to calibrate it by, and inputs to run it on."""

    module: Module
    calib: dict[str, np.ndarray] | None
    inputs: dict[str, np.ndarray]

    @staticmethod
    def of(module: Module, seed: int, batch: int, scale: float) -> Case:
        """Normal data for every input; inputs are `scale` times as large as what calibrates."""
        rng = np.random.default_rng(seed)
        calib, inputs = {}, {}
        for name in module.graph.inputs:
            n, *rest = module.graph.types[name].shape
            samples = n if isinstance(n, int) else batch
            count = 2 * n if isinstance(n, int) else 5
            calib[name] = rng.standard_normal((count, *rest)).astype(np.float32)
            inputs[name] = (rng.standard_normal((samples, *rest)) * scale).astype(np.float32)
        return Case(with_used_sizes(module), calib, inputs)

    @staticmethod
    def given(module: Module, inputs: dict[str, np.ndarray]) -> Case:
        """A module that needs no calibration."""
        return Case(with_used_sizes(module), None, inputs)

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """What hypothesis prints of a failing case."""
        shapes = {name: x.shape for name, x in self.inputs.items()}
        printer.text(f"{print_module(self.module)}\n# inputs {shapes}")


def with_used_sizes(module: Module) -> Module:
    """The module with the named sizes that its inputs have."""
    types = [module.graph.types[name] for name in module.graph.inputs]
    used = {v for t in types for extent in t.shape for v in variables(extent)}
    return replace(module, sizes=tuple(sorted(used)))


class Builder:
    """Adds random layers to a network."""

    def __init__(self, draw: st.DrawFn, net: Network) -> None:
        self.draw, self.net = draw, net

    def whole(self, lo: int, hi: int) -> int:
        return self.draw(st.integers(lo, hi))

    def choice(self, *options):
        return self.draw(st.sampled_from(options))

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def shape(self, x: str) -> tuple:
        return self.net.builder.type(x).shape

    def scale(self) -> float:
        return self.choice(0.3, 0.3, 0.05, 1e-4, 30.0)

    # -- layers: from a value's name to that of the next one -------------------------------------
    def geometry(self, x: str, dilated: bool = True) -> tuple[tuple[int, ...], dict]:
        """Kernel and attributes of a window op that fits the spatial axes of `x`."""
        kernel, strides, dilations, before, after = [], [], [], [], []
        for extent in self.shape(x)[2:]:
            k = self.whole(1, min(4, extent))
            d = self.whole(1, 2) if dilated and 2 * (k - 1) < extent else 1
            kernel.append(k)
            dilations.append(d)
            strides.append(self.choice(1, 1, 2, 3))
            before.append(self.whole(0, min(k - 1, 2)))
            after.append(self.whole(0, min(k - 1, 2)))
        attrs = {"strides": tuple(strides), "pads": (*before, *after)}
        if max(dilations) > 1:
            attrs["dilations"] = tuple(dilations)
        return tuple(kernel), attrs

    def bias(self, channels: int) -> tuple[str, ...]:
        if self.flag():
            return ()
        return (self.net.weight(channels, scale=self.choice(0.1, 3.0, 1e3, 1e6)),)

    def conv(self, x: str) -> str:
        c = self.shape(x)[1]
        kernel, attrs = self.geometry(x)
        group = self.choice(*(g for g in (1, 1, c, 2, 3) if c % g == 0))
        filters = group * self.whole(1, 3) if group > 1 else self.choice(1, 3, 8, 16, 20, 33)
        w = self.net.weight(filters, c // group, *kernel, scale=self.scale())
        if group > 1:
            attrs["group"] = group
        return self.activated(self.net.add("Conv", x, w, *self.bias(filters), **attrs))

    def same_conv(self, x: str, filters: int = 0) -> str:
        """A convolution that keeps the spatial axes (and the channels)."""
        shape = self.shape(x)
        kernel = [self.choice(1, 3) if extent > 1 else 1 for extent in shape[2:]]
        pads = tuple(k // 2 for k in kernel)
        w = self.net.weight(filters or shape[1], shape[1], *kernel, scale=self.scale())
        return self.net.add("Conv", x, w, *self.bias(filters or shape[1]), pads=pads * 2)

    def activated(self, x: str) -> str:
        kind = self.choice("", "", "Relu", "Clip", "Sigmoid", "Tanh", "swish", "LeakyRelu")
        if not kind:
            return x
        if kind == "Clip":
            bounds = (self.net.constant(np.float32(v)) for v in (self.choice(0, -1.5), 6))
            return self.net.add("Clip", x, *bounds)
        if kind == "swish":
            return self.net.add("Mul", x, self.net.add("Sigmoid", x))
        return self.net.add(kind, x)

    def residual(self, x: str) -> str:
        other = self.same_conv(x) if self.flag() else x
        return self.activated(self.net.add("Add", self.same_conv(x), other))

    def shift(self, x: str) -> str:
        return self.net.add("Add", x, self.net.weight(self.shape(x)[1], 1, 1, scale=self.scale()))

    def concat(self, x: str) -> str:
        parts = [x, self.same_conv(x, self.choice(1, 4, 16))]
        return self.net.add("Concat", *self.draw(st.permutations(parts)), axis=1)

    def average(self, x: str) -> str:
        kernel, attrs = self.geometry(x, dilated=False)
        more = {"ceil_mode": True} if self.flag() and not any(attrs["pads"]) else {}
        if self.flag():
            more["count_include_pad"] = True
        return self.net.add("AveragePool", x, kernel_shape=kernel, **attrs, **more)

    def maximum(self, x: str) -> str:
        kernel, attrs = self.geometry(x)
        return self.net.add("MaxPool", x, kernel_shape=kernel, **attrs)

    def transpose(self, x: str) -> str:
        perm = (0, *self.draw(st.permutations(range(1, len(self.shape(x))))))
        return self.net.add("Transpose", x, perm=perm)

    def products(self, x: str) -> str:
        """Every row of an image with every other: a product of two activations."""
        turned = self.net.add("Transpose", x, perm=(0, 1, 3, 2))
        return self.net.add("MatMul", x, turned)

    def table(self, x: str) -> str:
        return self.net.add(self.choice("Sigmoid", "Tanh", "HardSigmoid", "Abs", "Neg"), x)

    def softmax(self, x: str) -> str:
        return self.net.add("Softmax", x, axis=self.choice(1, -1))

    def linear(self, x: str) -> str:
        inner, outer = self.shape(x)[-1], self.choice(1, 5, 10, 16, 35)
        scale = self.scale()
        if self.flag():
            w = self.net.weight(outer, inner, scale=scale)
            y = self.net.add("Gemm", x, w, *self.bias(outer), transB=True)
        else:
            y = self.net.add("MatMul", x, self.net.weight(inner, outer, scale=scale))
        return self.activated(y)


IMAGE_LAYERS = (
    "conv", "conv", "residual", "concat", "average", "maximum", "shift", "table", "transpose",
    "products", "softmax",
)  # fmt: skip


@st.composite
def networks(draw: st.DrawFn, layers: tuple[str, ...] = IMAGE_LAYERS) -> Case:
    """Images (sometimes rows) through two to five layers, perhaps to a classifier."""
    net = Network(draw(st.integers(0, 999)))
    b = Builder(draw, net)
    n = b.choice(N, N, 1, 2)
    if b.choice("image", "image", "image", "rows") == "rows":
        x = net.input("x", n, b.choice(1, 7, 16, 40))
        for _ in range(b.whole(1, 4)):
            x = b.linear(x)
    else:
        x = net.input("x", n, b.choice(1, 2, 3, 6, 16, 18), b.whole(1, 9), b.whole(1, 9))
        x = b.conv(x)
        for _ in range(b.whole(1, 4)):
            if len(b.shape(x)) == 4 and np.prod(b.shape(x)[1:]) < MOST_ELEMENTS:
                x = getattr(b, b.choice(*layers))(x)
        end = b.choice("image", "global", "flat")
        if end == "global":
            x = b.linear(net.add("Flatten", net.add("GlobalAveragePool", x)))
        elif end == "flat":
            x = b.linear(net.add("Flatten", x))
    return Case.of(
        net.module(x), b.whole(0, 999), b.choice(1, 2, 3, 7), b.choice(1.0, 1.0, 20.0, 1e-3)
    )
