"""Writes programs of the nncc language: parameters by rule, then one node a line.

p = Program("tiny", "x: f32[1,3,8,8]")
y = p.conv("conv1", Value("x", 3), 16, kernel=3, gain=2.0)
p.op("y", "Relu", y)
print(p.text("y: f32[1,16,8,8]"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SEED = 1  # of all weights: the rule of random(…) takes the parameter's name too


@dataclass(frozen=True)
class Value:
    """A value of the program and the extent of its features: channels, or the last axis."""

    name: str
    features: int


class Program:
    """A program under construction.

    Weights are drawn with std = sqrt(gain / fan_in). A gain of 2 keeps the variance through a
    Relu, 1 through a layer without activation.

    Args:
        comment: what stands at the top of the text; lines.
        inputs: the graph's inputs as text.
    """

    def __init__(self, name: str, inputs: str, comment: str = "") -> None:
        self.name, self.inputs, self.comment = name, inputs, comment
        self._symbols: list[str] = []
        self._nodes: list[str] = []

    def const(self, name: str, type: str, value: str) -> str:
        """A constant; returns its name."""
        self._symbols.append(f"const {name}: {type} = {value}")
        return name

    def param(self, name: str, shape: Sequence[int], std: float, mean: float = 0.0) -> str:
        """A parameter of normally distributed elements; returns its name."""
        extents = ",".join(map(str, shape))
        rule = f"random(seed={SEED}, mean={mean}, std={std:.4g})"
        self._symbols.append(f"param {name}: f32[{extents}] = {rule}")
        return name

    def op(
        self, name: str, op: str, *inputs: Value | str, attrs: str = "", features: int = 0
    ) -> Value:
        """A node; its features are those of the first input unless stated."""
        operands = ", ".join(i.name if isinstance(i, Value) else i for i in inputs)
        braces = f" {{{attrs}}}" if attrs else ""
        self._nodes.append(f"  {name} = {op}({operands}){braces}")
        first = inputs[0]
        return Value(name, features or (first.features if isinstance(first, Value) else 0))

    def heading(self, text: str) -> None:
        """A comment before the next node."""
        self._nodes.append(f"  # {text}")

    def conv(
        self,
        name: str,
        x: Value,
        channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        pad: int | None = None,
        groups: int = 1,
        gain: float = 1.0,
    ) -> Value:
        """A convolution with bias; `pad` is by default what keeps the extent at stride 1."""
        pad = kernel // 2 if pad is None else pad
        shape = (channels, x.features // groups, kernel, kernel)
        weight = self.param(f"{name}.weight", shape, (gain / (shape[1] * kernel**2)) ** 0.5)
        bias = self.param(f"{name}.bias", (channels,), 0.05)
        attrs = [f"pads=[{pad},{pad},{pad},{pad}]"] if pad else []
        attrs += [f"strides=[{stride},{stride}]"] if stride > 1 else []
        attrs += [f"group={groups}"] if groups > 1 else []
        return self.op(name, "Conv", x, weight, bias, attrs=", ".join(attrs), features=channels)

    def linear(
        self, name: str, x: Value, features: int, *, gain: float = 1.0, result: str = ""
    ) -> Value:
        """A fully connected layer for a matrix x; its value is called `result`, or as the layer."""
        std = (gain / x.features) ** 0.5
        weight = self.param(f"{name}.weight", (features, x.features), std)
        bias = self.param(f"{name}.bias", (features,), 0.05)
        return self.op(result or name, "Gemm", x, weight, bias, attrs="transB=1", features=features)

    def text(self, outputs: str) -> str:
        """The whole program; `outputs` are values with their types, as text."""
        lines = [f"# {line}".rstrip() for line in self.comment.splitlines()]
        lines += ["nncc 1", "", *self._symbols, ""]
        lines += [f"graph {self.name}({self.inputs}) -> ({outputs}) {{", *self._nodes, "}"]
        return "\n".join(lines) + "\n"
