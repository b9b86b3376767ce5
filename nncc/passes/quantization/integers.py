"""The integer graph under construction: for each value of the float graph, its forms so far.

A value may exist as int8 with a `Scale`, as float, or (not yet computed) as a function of one
int8 value: a list of 256 numbers, which becomes a `Lookup` when it is needed. Rules ask for the
form they want, and conversions are put in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.graph import Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType
from nncc.ops.builder import GraphBuilder
from nncc.ops.integer import quantize_multipliers
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE
from nncc.passes.quantization.calibration import Ranges
from nncc.passes.quantization.scales import HIGHEST, LOWEST, Scale, weight_scales

# Larger than any activation: what a function does to this, it does to everything beyond.
_FAR = 1e30


class NoIntegerForm(Exception):
    """A node cannot be done in integers; the argument is the reason."""


@dataclass(frozen=True)
class Function:
    """A float value as f(root), elementwise; `values` are f at the root's 256 real values."""

    root: str
    values: np.ndarray


@dataclass(frozen=True)
class Epilogue:
    """What follows a contraction and can be part of its rescaling.

    `output` is the last value, `lo` and `hi` its clamp in real numbers; `nodes` are merged.
    """

    output: str
    lo: float = -np.inf
    hi: float = np.inf
    nodes: tuple[Node, ...] = ()


class IntegerGraph:
    """See the module's docstring."""

    def __init__(self, module: Module, ranges: Ranges, excluded: frozenset[str]) -> None:
        self.module = module
        self.ranges = ranges
        self.excluded = excluded  # names of nodes that have to stay in floats
        self.builder = GraphBuilder(module.symbols, module.nests)
        self.builder.reserve(*module.graph.types)
        self.done: set[int] = set()  # ids of nodes that a rule has merged into another
        self._integers: dict[str, tuple[str, Scale]] = {}
        self._functions: dict[str, Function] = {}
        self._node = Node("", (), ())
        self._pinned = {*module.graph.outputs, *(v for _, v in module.graph.updates)}
        for name in module.graph.inputs:
            self.builder.input(name, module.graph.types[name])

    # -- questions ---------------------------------------------------------------------------
    def type(self, name: str) -> TensorType:
        """The type of a value of the float graph, or of a symbol."""
        return self.module.type_of(name)

    def is_integer(self, name: str) -> bool:
        """Whether a float value exists in integers already, or as a function of such a one."""
        return name in self._integers or name in self._functions

    def is_varying(self, name: str) -> bool:
        """Whether a value is computed, and not a constant or absent."""
        return bool(name) and name not in self.module.symbols

    def weight(self, name: str) -> np.ndarray | None:
        """A constant or parameter; None for other values."""
        symbol = self.module.symbols.get(name)
        return None if symbol is None or symbol.kind == "state" else symbol.data.array

    def scale(self, name: str) -> Scale:
        """The scale of a float value: by its range, or that of the value it is joined into.

        A value that only a Concat reads takes the Concat's scale, so that nothing is rescaled.
        """
        if name in self._integers:
            return self._integers[name][1]
        if name not in self.ranges:
            raise NoIntegerForm(f"value '{name}' has no range")
        users = self.module.graph.users.get(name, ())
        if len(users) == 1 and users[0].op == "Concat" and name not in self._pinned:
            return self.scale(users[0].outputs[0])
        return Scale.of_range(*self.ranges[name])

    def weight_scales(
        self, name: str, axis: int, rows: np.ndarray, bias: np.ndarray, x: float, y: float
    ) -> np.ndarray:
        """A scale for each row of weights; `axis`: that of the rows in the symbol `name`."""
        return weight_scales(rows, bias, x, y)

    # -- forms of values ---------------------------------------------------------------------
    def integer(self, name: str) -> tuple[str, Scale]:
        """The int8 form of a float value or constant, and its scale."""
        if name in self._integers:
            return self._integers[name]
        if name in self._functions:
            return self._lookup(name, self._functions[name], self.scale(name))
        array = self.weight(name)
        if array is not None:
            scale = Scale.of_range(float(array.min(initial=0)), float(array.max(initial=0)))
            made = self.symbol(scale.quantize(array), f"{name}.q", name)
            self._integers[name] = made, scale
            return made, scale
        scale = self.scale(name)
        made = self.builder.fresh(f"{name}.q")
        operands = (name, *self._scale_symbols(name, scale))
        self.add(Node("QuantizeLinear", operands, (made,)))
        self._integers[name] = made, scale
        return made, scale

    def integer_as(self, name: str, scale: Scale) -> str:
        """The int8 form of a value in a given scale; a Lookup rescales if it is another."""
        if name in self._functions and name not in self._integers:
            return self._lookup(name, self._functions[name], scale)[0]
        made, own = self.integer(name)
        if own == scale:
            return made
        table = self.symbol(scale.quantize(own.values), f"{name}.rescale")
        result = self.builder.fresh(f"{name}.rescaled")
        self.add(Node("Lookup", (made, table), (result,)))
        return result

    def floats(self, name: str) -> str:
        """The float form of a value, under its own name."""
        if not name or name in self.builder.types or name in self.builder.symbols:
            return name
        made, scale = self.integer(name)
        self.add(Node("DequantizeLinear", (made, *self._scale_symbols(name, scale)), (name,)))
        return name

    def function_of(self, name: str) -> Function:
        """An int8 value as a function of itself, or what it is a function of."""
        if name in self._functions:
            return self._functions[name]
        return Function(name, self.integer(name)[1].values)

    def set_integer(self, name: str, made: str, scale: Scale) -> None:
        """The float value `name` exists as int8 value `made`."""
        self._integers[name] = made, scale

    def set_function(self, name: str, function: Function) -> None:
        """The float value `name` is a function of an int8 value."""
        if not np.isfinite(function.values).all():
            raise NoIntegerForm("it is not finite on the whole range of its operand")
        self._functions[name] = function

    def _lookup(self, name: str, function: Function, scale: Scale) -> tuple[str, Scale]:
        made = self.builder.fresh(f"{name}.q")
        table = self.symbol(scale.quantize(function.values), f"{name}.table")
        self.add(Node("Lookup", (self.integer(function.root)[0], table), (made,)))
        self._integers[name] = made, scale
        return made, scale

    def _scale_symbols(self, name: str, scale: Scale) -> tuple[str, str]:
        """Constants for scale and zero point, shared by the conversions of one value."""
        return (
            self.builder.constant(np.array(scale.scale, np.float32), f"{name}.scale"),
            self.builder.constant(np.array(scale.zero, np.int8), f"{name}.zero"),
        )

    # -- building ----------------------------------------------------------------------------
    def at(self, node: Node) -> None:
        """What is added from now on comes from `node`."""
        self._node = node

    def add(self, node: Node) -> str:
        """Adds a node at the current one's location; returns its first output."""
        made = Node(node.op, node.inputs, node.outputs, node.attrs, (), self._node.location)
        self.builder.add(made)
        return made.outputs[0]

    def symbol(self, array: np.ndarray, hint: str, made_of: str = "") -> str:
        """A new symbol; a `param` if it is made of one."""
        old = self.module.symbols.get(made_of)
        kind = "param" if old is not None and old.kind == "param" else "const"
        name = self.builder.fresh(hint)
        self.builder.symbols[name] = Symbol(kind, Tensor(array))  # type: ignore[arg-type]
        return name

    def epilogue(self, value: str) -> Epilogue:
        """The clamps (Relu, Clip, …) that alone read `value`, one after the other.

        They are found by what they compute, not by name: an elementwise function of one operand
        that equals clamp(x, lo, hi) everywhere.
        """
        found = Epilogue(value)
        while True:
            users = self.module.graph.users.get(found.output, ())
            if len(users) != 1 or found.output in self._pinned:
                return found
            if users[0].name in self.excluded:
                return found
            lo, hi = self._clamp(users[0], found.output) or (1.0, -1.0)
            if not lo <= 0 <= hi:  # rescaling has a clamp that holds the zero point
                return found
            found = Epilogue(
                users[0].outputs[0],
                min(max(found.lo, lo), hi), max(min(found.hi, hi), lo),
                (*found.nodes, users[0]),
            )  # fmt: skip

    def merge(self, epilogue: Epilogue) -> None:
        """The epilogue's nodes are done with."""
        self.done.update(id(n) for n in epilogue.nodes)

    def _clamp(self, node: Node, value: str) -> tuple[float, float] | None:
        """lo and hi if the node is clamp(value, lo, hi)."""
        steps = np.geomspace(1e-6, 1e6, 200)
        probe = np.concatenate([[-_FAR], -steps[::-1], [0.0], steps, [_FAR]]).astype(np.float32)
        result = self.unary(node, value, probe)
        if result is None:
            return None
        lo, hi = float(result.min()), float(result.max())
        if not np.array_equal(result, np.clip(probe, np.float32(lo), np.float32(hi))):
            return None
        return (-np.inf if lo <= -_FAR else lo), (np.inf if hi >= _FAR else hi)

    def unary(self, node: Node, value: str, probe: np.ndarray) -> np.ndarray | None:
        """The node's result where `value` is `probe` (rank 1).

        None unless the node is elementwise with `value` as its only operand besides constants
        of one element, and gives its operand's shape.
        """
        declared = TABLE.get(node.op)
        if declared is None or "elementwise" not in declared.traits or len(node.outputs) != 1:
            return None
        if self.type(node.outputs[0]) != self.type(value):
            return None
        operands: list[np.ndarray | None] = []
        for name in node.inputs:
            if name == value:
                operands.append(probe)
                continue
            constant = self.weight(name) if name else None
            if name and (constant is None or constant.size != 1):
                return None
            operands.append(None if constant is None else constant.reshape(()))
        with np.errstate(all="ignore"):
            return np.asarray(evaluate(node, operands)[0])

    def rescale(
        self, accumulator: str, factors: np.ndarray, epilogue: Epilogue, axis: int = 1
    ) -> None:
        """Requantizes an int32 value to the epilogue's output, by one factor or one per channel.

        Factor: scale of the accumulator over that of the result. Raises NoIntegerForm if a factor
        is out of range.
        """
        scale = self.scale(epilogue.output)
        try:
            m, s = quantize_multipliers(factors)
        except ValueError as e:
            raise NoIntegerForm(str(e)) from e
        made = self.builder.fresh(f"{epilogue.output}.q")
        operands = (
            accumulator,
            self.symbol(m, f"{epilogue.output}.m"),
            self.symbol(s, f"{epilogue.output}.s"),
        )
        attrs = {**result_attrs(scale, epilogue), **({"axis": axis} if axis != 1 else {})}
        self.add(Node("Requantize", operands, (made,), attrs))
        self.set_integer(epilogue.output, made, scale)
        self.merge(epilogue)

    def check_accumulator(self, bound: int) -> None:
        """Raises PassError unless sums up to `bound` fit into int32."""
        if bound >= 1 << 31:
            raise PassError(
                f"its accumulator may reach {bound}, more than int32 holds",
                self._node.location,
                "the sum is too long for 8-bit operands",
            )


def result_attrs(scale: Scale, epilogue: Epilogue) -> Mapping[str, int]:
    """z, lo and hi of an op that rescales, without those at their default."""
    lo, hi = scale.clamp(epilogue.lo, epilogue.hi)
    attrs = {"z": scale.zero, "lo": lo, "hi": hi}
    default = {"z": 0, "lo": LOWEST, "hi": HIGHEST}
    return {k: v for k, v in attrs.items() if v != default[k]}
