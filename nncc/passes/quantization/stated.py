"""The integer graph of a model that comes quantized: scales are those that it states.

q = QuantizeLinear(c, 0.1, 130)     c's scale is 0.1, its zero point 2 (u8 is kept as i8)
w = DequantizeLinear(wq, sw)        w's rows have the scales sw
m = MaxPool(q)                      of integers: as if they were real numbers of step 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nncc.ir.graph import Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.types import DType, i8, u8
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE, attr
from nncc.passes.quantization.integers import IntegerGraph, NoIntegerForm
from nncc.passes.quantization.scales import (
    HIGHEST,
    LOWEST,
    WEIGHT_LIMIT,
    Scale,
    weight_scales,
)

OFFSET = {i8: 0, u8: 128}  # what is taken off an 8-bit value to make it int8
ROUNDING = 1e-2  # how far from an integer a weight in units of its scale may be, by float32


@dataclass(frozen=True)
class StatedScales:
    """Scales of a constant tensor: one, or one for each index of an axis.

    `whole`: scale and zero point of a tensor that was int8 or uint8 with one of each.
    """

    scales: np.ndarray
    axis: int | None
    whole: Scale | None = None


def with_constants(module: Module) -> tuple[Module, dict[str, StatedScales]]:
    """The module with constant nodes computed, and what is known of their scales."""
    symbols = dict(module.symbols)
    stated: dict[str, StatedScales] = {}
    pinned = {*module.graph.outputs, *(v for _, v in module.graph.updates)}
    kept: list[Node] = []
    for node in module.graph.nodes:
        constant = node.op in TABLE and not node.regions and not pinned & set(node.outputs)
        if not constant or not all(_is_constant(i, symbols) for i in node.inputs if i):
            kept.append(node)
            continue
        operands = [symbols[i].data.array if i else None for i in node.inputs]
        kinds = {symbols[i].kind for i in node.inputs if i}
        made = zip(node.outputs, evaluate(node, operands), strict=True)
        kind = "param" if "param" in kinds else "const"
        symbols |= {o: Symbol(kind, Tensor(np.ascontiguousarray(y))) for o, y in made if o}  # type: ignore[arg-type]
        if (found := _stated(node, operands, stated)) is not None:
            stated[node.outputs[0]] = found
    types = {n: t for n, t in module.graph.types.items() if n not in symbols}
    graph = replace(module.graph, nodes=tuple(kept), types=types)
    return replace(module, graph=graph, symbols=symbols), stated


def _is_constant(name: str, symbols: Mapping[str, Symbol]) -> bool:
    return name in symbols and symbols[name].kind != "state"


def _stated(
    node: Node, operands: list[np.ndarray | None], stated: Mapping[str, StatedScales]
) -> StatedScales | None:
    """The scales of a constant node's result: stated by the node, or by its operand's."""
    x = operands[0] if operands else None
    if x is None:
        return None
    if node.op == "DequantizeLinear":
        scale = operands[1]
        assert scale is not None, "the op has a scale"
        if scale.size > 1:
            return StatedScales(scale.reshape(-1), attr(node, "axis") % x.ndim)
        zero = operands[2] if len(operands) > 2 else None
        return StatedScales(scale.reshape(-1), None, _scale(scale, zero, x.dtype.name))
    known = stated.get(node.inputs[0])
    if known is None:
        return None
    if node.op == "Transpose" and known.axis is not None:
        order = attr(node, "perm") or tuple(range(x.ndim))[::-1]
        return replace(known, axis=list(order).index(known.axis))
    view = "view" in TABLE[node.op].traits or node.op == "Identity"
    return known if view and known.axis is None else None


class StatedGraph(IntegerGraph):
    """See the module's docstring. Values of 8 bits have an integer form too, in steps of 1.

    Attributes:
        new_weights: by node, how its constants differ from the integers that the model has.
    """

    def __init__(self, module: Module, stated: Mapping[str, StatedScales]) -> None:
        super().__init__(module, {}, frozenset())
        self.stated = stated
        self.new_weights: dict[str, str] = {}

    def scale(self, name: str) -> Scale:
        if not self.type(name).dtype.is_float:
            return _own(self.type(name).dtype)
        if name in self._integers:
            return self._integers[name][1]
        users = self.module.graph.users.get(name, ())
        if len(users) == 1 and users[0].op == "Concat" and name not in self._pinned:
            return self.scale(users[0].outputs[0])
        scales = [self.stated_by(u) for u in users if u.op == "QuantizeLinear"]
        if not scales or len(scales) < len(users) or name in self._pinned:
            raise NoIntegerForm(f"the model does not quantize its result '{name}'")
        found = [s for s in scales if s is not None]
        if len(found) < len(scales):
            raise NoIntegerForm(f"the scale of its result '{name}' is not one number")
        return found[0]

    def integer(self, name: str) -> tuple[str, Scale]:
        array, known = self.weight(name), self.stated.get(name)
        if array is not None and known is not None and known.whole is not None:
            made = self.symbol(known.whole.quantize(array), f"{name}.q", name)
            self.set_integer(name, made, known.whole)
        if array is not None and not self.is_integer(name):
            self.new_weights[self._node.name] = f"'{name}' has no scale"
        if self.is_integer(name) or array is not None:
            return super().integer(name)
        raise NoIntegerForm(f"its operand '{name}' is in floats")

    def floats(self, name: str) -> str:
        if name not in self._integers or self.type(name).dtype.is_float:
            return super().floats(name)
        if name not in self.builder.types:
            made, dtype = self._integers[name][0], self.type(name).dtype
            if dtype is i8:
                self.add(Node("Identity", (made,), (name,)))
            else:
                values = np.arange(-128, 128) + OFFSET[dtype]
                table = self.symbol(values.astype(dtype.numpy), f"{name}.table")
                self.add(Node("Lookup", (made, table), (name,)))
        return name

    def weight_scales(
        self, name: str, axis: int, rows: np.ndarray, bias: np.ndarray, x: float, y: float
    ) -> np.ndarray:
        """The scales that the model states, where its weights are int8 in them and sums fit."""
        default = weight_scales(rows, bias, x, y)
        found = self.stated.get(name)
        if found is None or found.axis not in (None, axis):
            self.new_weights[self._node.name] = f"'{name}' has no scales for its rows"
            return default
        scales = np.broadcast_to(found.scales.astype(np.float64), len(rows))
        steps = np.divide(rows, scales[:, None])
        near = np.rint(steps)
        whole = np.abs(steps - near).max(axis=1, initial=0.0) < ROUNDING
        fits = (near >= LOWEST).all(axis=1) & (near <= HIGHEST).all(axis=1)
        least = weight_scales(np.zeros_like(rows), bias, x, y)
        kept = whole & fits & (least <= scales)
        lowest = np.count_nonzero(near[kept] < -WEIGHT_LIMIT)
        notes = {
            f"{np.count_nonzero(~kept)} of {len(kept)} rows in other scales": not kept.all(),
            f"-128 is -127 in {lowest} places": lowest > 0,
        }
        if any(notes.values()):
            self.new_weights[self._node.name] = ", ".join(n for n, holds in notes.items() if holds)
        return np.asarray(np.where(kept, scales, default), np.float32)

    # -- conversions that the model states -------------------------------------------------------
    def stated_by(self, node: Node) -> Scale | None:
        """The scale of a QuantizeLinear or DequantizeLinear of 8 bits; None if it has no single
        one that is known."""
        quantized = node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]
        scale = self.weight(node.inputs[1])
        zero = self.weight(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1)
        if scale is None or zero is None:
            return None
        return _scale(scale, zero, self.type(quantized).dtype.numpy_name)

    def quantize(self, node: Node) -> None:
        """A QuantizeLinear: the int8 form of its operand in its scale. Raises NoIntegerForm."""
        scale = self.stated_by(node)
        x, y = node.inputs[0], node.outputs[0]
        if scale is None:
            raise NoIntegerForm("its scale or zero point is not one number")
        if self.is_integer(x):
            made = self.integer_as(x, scale)
        else:
            made = self.builder.fresh(f"{x}.q")
            self.add(Node("QuantizeLinear", (x, *self._scale_symbols(made, scale)), (made,)))
        self.set_integer(y, made, _own(self.type(y).dtype))

    def dequantize(self, node: Node) -> None:
        """A DequantizeLinear: its result exists as int8. Raises NoIntegerForm."""
        scale = self.stated_by(node)
        if scale is None:
            raise NoIntegerForm("its scale or zero point is not one number")
        self.set_integer(node.outputs[0], self.code(node.inputs[0]), scale)

    def code(self, name: str) -> str:
        """The int8 form of a value of 8 bits."""
        if name not in self._integers:
            dtype = self.type(name).dtype
            made = name
            if dtype is not i8:
                table = self.symbol(np.arange(-128, 128).astype(np.int8), f"{name}.table")
                made = self.builder.fresh(f"{name}.q")
                self.add(Node("Lookup", (name, table), (made,)))
            self.set_integer(name, made, _own(dtype))
        return self._integers[name][0]

    def look_up(self, node: Node) -> bool:
        """A Gather from 256 bytes by a byte is a Lookup, which has no other form in ONNX.

        y = Gather(table, Cast(q))    y = Gather(table, Add(Cast(q), 128))  where q is signed
        """
        table = self.weight(node.inputs[0])
        dtype = self.type(node.outputs[0]).dtype
        q = self._byte(node.inputs[1])
        if table is None or table.shape != (256,) or dtype not in OFFSET or not q:
            return False
        shifted = (table.astype(np.int16) - OFFSET[dtype]).astype(np.int8)
        made = self.builder.fresh(f"{node.outputs[0]}.q")
        stored = self.symbol(shifted, f"{node.outputs[0]}.table", node.inputs[0])
        self.add(Node("Lookup", (self.code(q), stored), (made,)))
        self.set_integer(node.outputs[0], made, _own(dtype))
        return True

    def _byte(self, position: str) -> str:
        """The byte of which a position in a table of 256 is made; "" if it is not."""
        producer = self.module.graph.producer
        node, offset = producer.get(position), 0
        if node is not None and node.op == "Add":
            shift = self.weight(node.inputs[1])
            if shift is None or shift.size != 1:
                return ""
            node, offset = producer.get(node.inputs[0]), int(shift.item())
        if node is None or node.op != "Cast":
            return ""
        dtype = self.type(node.inputs[0]).dtype
        return node.inputs[0] if OFFSET.get(dtype) == 128 - offset else ""


def _scale(scale: np.ndarray, zero: np.ndarray | None, dtype: str) -> Scale | None:
    """Of a tensor of this dtype, as int8; None unless it is one number."""
    offset = {t.numpy_name: n for t, n in OFFSET.items()}.get(dtype)
    if offset is None or scale.size != 1 or not scale.item() > 0:
        return None
    if zero is not None and zero.size != 1:
        return None
    return Scale(
        float(np.float32(scale.item())), (0 if zero is None else int(zero.item())) - offset
    )


def _own(dtype: DType) -> Scale:
    """An 8-bit integer as a real number."""
    return Scale(1.0, -OFFSET[dtype])
