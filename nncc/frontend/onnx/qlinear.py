"""Ops on quantized tensors, as what they stand for: floats between DequantizeLinear and
QuantizeLinear. Those that give int32 sums are integer contractions.

    y = QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b)
    →  xf = DequantizeLinear(x, sx, zx)     wf = DequantizeLinear(w, sw, zw) {axis=0}
       bf = DequantizeLinear(b, sx * sw)    y = QuantizeLinear(Conv(xf, wf, bf), sy, zy)

    y = MatMulInteger(a, b, za, zb)  →  y = IntMatMul(a, b) {za, zb}

The ops are those of ONNX, and those of onnxruntime's domain `com.microsoft` that its quantizer
writes (as its file ContribOperators.md describes them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper

from nncc.frontend.onnx.versions import Draft, NotExpressible, Scope

OPSET = 13  # of the nodes that replace an op of quantized tensors
MICROSOFT = "com.microsoft"
INT32 = 6  # TensorProto.INT32
FLOAT64 = 11  # TensorProto.DOUBLE

Fresh = Callable[[str], str]


def expansion(node: NodeProto, fresh: Fresh) -> list[NodeProto] | None:
    """The nodes of opset OPSET for an op of quantized tensors; None if it is none of them.

    Args:
        fresh: makes a name that the model does not use yet from a wish.

    Raises NotExpressible.
    """
    entry = _OPS.get((_domain(node), node.op_type))
    if entry is None:
        return None
    required, write = entry
    missing = [k for k in required if k >= len(node.input) or not node.input[k]]
    if missing or len(node.output) != 1:
        what = f"it lacks operand {missing[0] + 1}" if missing else "it must have one output"
        raise NotExpressible(what)
    writer = _Writer(node, fresh)
    write(writer)
    return writer.nodes


def _domain(node: NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


class _Writer:
    """Makes the nodes that stand for one, named like it."""

    def __init__(self, node: NodeProto, fresh: Fresh) -> None:
        self.node, self.fresh = node, fresh
        self.nodes: list[NodeProto] = []

    def input(self, position: int) -> str:
        """An operand's name, "" if absent."""
        return self.node.input[position] if position < len(self.node.input) else ""

    def attribute(self, name: str, default: Any) -> Any:
        found = [a for a in self.node.attribute if a.name == name]
        return helper.get_attribute_value(found[0]) if found else default

    def add(
        self, op: str, *inputs: str, hint: str = "", attributes: tuple[AttributeProto, ...] = (),
        **attrs: Any,
    ) -> str:  # fmt: skip
        """Adds a node; gives its output, which without a hint is the op's own."""
        own = self.node.output[0]
        output = self.fresh(f"{own}.{hint}") if hint else own
        made = helper.make_node(op, inputs, [output], name=self.node.name or own, **attrs)
        made.attribute.extend(attributes)
        self.nodes.append(made)
        return output

    def floats(self, first: int, axis: int | None = None, hint: str = "") -> str:
        """The operand at `first`, followed by its scale and zero point, as floats."""
        names = [self.input(first + k) for k in range(3)]
        attrs: dict[str, Any] = {} if axis is None else {"axis": axis}
        return self.add("DequantizeLinear", *_trimmed(names), hint=hint or f"in{first}", **attrs)

    def bias(self, bias: str, scales: tuple[str, str], axis: int) -> str:
        """int32 at the product of two scales, as floats."""
        scale = self.add("Mul", *scales, hint="bias.scale")
        return self.add("DequantizeLinear", bias, scale, hint="bias", axis=axis)

    def quantize(self, y: str, first: int) -> None:
        """The op's output from floats, by scale and zero point at `first`."""
        names = [y, self.input(first), self.input(first + 1)]
        self.add("QuantizeLinear", *_trimmed(names))

    def kept(self, *dropped: str) -> tuple[AttributeProto, ...]:
        """The op's attributes without some."""
        return tuple(a for a in self.node.attribute if a.name not in dropped)


def _trimmed(names: list[str]) -> tuple[str, ...]:
    return tuple(names if names[-1] else names[:-1])


# -- the ops ---------------------------------------------------------------------------------
def _conv(w: _Writer) -> None:
    operands = [w.floats(0), w.floats(3, axis=0)]
    if w.input(8):
        operands.append(w.bias(w.input(8), (w.input(1), w.input(4)), 0))
    w.quantize(w.add("Conv", *operands, hint="y", attributes=w.kept()), 6)


def _matmul(w: _Writer) -> None:
    # scales of a are by row, those of b by column
    w.quantize(w.add("MatMul", w.floats(0, axis=-2), w.floats(3, axis=-1), hint="y"), 6)


def _gemm(w: _Writer) -> None:
    if w.attribute("alpha", 1.0) != 1.0:
        raise NotExpressible(f"alpha={w.attribute('alpha', 1.0)} is not supported")
    operands = [w.floats(0), w.floats(3, axis=0 if w.attribute("transB", 0) else 1)]
    if w.input(6):
        operands.append(w.bias(w.input(6), (w.input(1), w.input(4)), -1))
    if not w.input(7):
        w.add("Gemm", *operands, attributes=w.kept())
        return
    w.quantize(w.add("Gemm", *operands, hint="y", attributes=w.kept()), 7)


def _binary(op: str) -> Callable[[_Writer], None]:
    def write(w: _Writer) -> None:
        w.quantize(w.add(op, w.floats(0), w.floats(3), hint="y"), 6)

    return write


def _unary(op: str) -> Callable[[_Writer], None]:
    """One operand, with the attributes of the float op."""

    def write(w: _Writer) -> None:
        if w.attribute("channels_last", 0):
            raise NotExpressible("channels_last=1 is not supported")
        if w.attribute("opset", OPSET) < OPSET:
            raise NotExpressible(f"opset={w.attribute('opset', OPSET)} is not supported")
        kept = w.kept("channels_last", "opset")
        w.quantize(w.add(op, w.floats(0), hint="y", attributes=kept), 3)

    return write


def _concat(w: _Writer) -> None:
    parts = [w.floats(k) for k in range(2, len(w.node.input), 3)]
    y = w.add("Concat", *parts, hint="y", attributes=w.kept())
    w.quantize(y, 0)


# Operands that must be there: tensor and scale, where zero points may be left out.
_UNARY = (0, 1, 3, 4)
_BINARY = (0, 1, 3, 4, 6, 7)

_OPS: Mapping[tuple[str, str], tuple[tuple[int, ...], Callable[[_Writer], None]]] = {
    ("", "QLinearConv"): (tuple(range(8)), _conv),
    ("", "QLinearMatMul"): (tuple(range(8)), _matmul),
    (MICROSOFT, "QGemm"): (tuple(range(6)), _gemm),
    (MICROSOFT, "QLinearAdd"): (_BINARY, _binary("Add")),
    (MICROSOFT, "QLinearAveragePool"): (_UNARY, _unary("AveragePool")),
    (MICROSOFT, "QLinearConcat"): ((0, 1, 2, 3), _concat),
    (MICROSOFT, "QLinearGlobalAveragePool"): (_UNARY, _unary("GlobalAveragePool")),
    (MICROSOFT, "QLinearLeakyRelu"): (_UNARY, _unary("LeakyRelu")),
    (MICROSOFT, "QLinearMul"): (_BINARY, _binary("Mul")),
    (MICROSOFT, "QLinearReduceMean"): (_UNARY, _unary("ReduceMean")),
    (MICROSOFT, "QLinearSigmoid"): (_UNARY, _unary("Sigmoid")),
    (MICROSOFT, "QLinearSoftmax"): (_UNARY, _unary("Softmax")),
}


# -- int32 sums ------------------------------------------------------------------------------
def integer_sums(draft: Draft, scope: Scope) -> list[Draft]:
    """The nodes, in the versions of the op table, for one of SUMS. Raises NotExpressible."""
    return SUMS[draft.op](draft, scope)


def _zero(draft: Draft, scope: Scope, position: int) -> int | None:
    """An operand's zero point; None if there are several, or it is not known now."""
    name = draft.input(position)
    value = scope.constant(name) if name else np.zeros(1)
    return None if value is None or value.size != 1 else int(value.item())


def _conv_integer(draft: Draft, scope: Scope) -> list[Draft]:
    zx, zw = _zero(draft, scope, 2), _zero(draft, scope, 3)
    x, w = draft.inputs[:2]
    if zx is not None and zw == 0 and scope.type(w).dtype.numpy_name == "int8":
        attrs = {**draft.attrs, **({"zx": zx} if zx else {})}
        return [Draft("IntConv", (x, w), draft.outputs, attrs)]
    # in float64 the sums are exact
    made: list[Draft] = []
    operands = tuple(_centered(draft, scope, k, FLOAT64, made) for k in range(2))
    sums = scope.fresh(f"{draft.output(0)}.sums")
    made.append(Draft("Conv", operands, (sums,), draft.attrs))
    made.append(Draft("Cast", (sums,), draft.outputs, {"to": INT32}))
    return made


def _matmul_integer(draft: Draft, scope: Scope) -> list[Draft]:
    za, zb = _zero(draft, scope, 2), _zero(draft, scope, 3)
    if za is not None and zb is not None:
        attrs = {k: z for k, z in (("za", za), ("zb", zb)) if z}
        return [Draft("IntMatMul", draft.inputs[:2], draft.outputs, attrs)]
    made: list[Draft] = []
    operands = tuple(_centered(draft, scope, k, INT32, made) for k in range(2))
    made.append(Draft("MatMul", operands, draft.outputs))
    return made


def _centered(draft: Draft, scope: Scope, position: int, dtype: int, made: list[Draft]) -> str:
    """An operand less its zero point, as another dtype."""

    def add(op: str, *inputs: str, **attrs: object) -> str:
        name = scope.fresh(f"{draft.output(0)}.in{position}")
        made.append(Draft(op, inputs, (name,), attrs))
        return name

    x = add("Cast", draft.input(position), to=dtype)
    if not (zero := draft.input(position + 2)):
        return x
    kind, by_column = scope.type(zero), (position, draft.op) == (1, "MatMulInteger")
    if kind.rank == 1 and kind.shape != (1,) and not by_column:
        # one for each row, or each output channel: of axis 0, or of the last but one
        rank = scope.type(draft.input(position)).rank
        behind = 1 if draft.op == "MatMulInteger" else rank - 1
        shape = scope.add_constant(np.array([-1] + [1] * behind, np.int64), f"{zero}.shape")
        zero = add("Reshape", zero, shape)
    return add("Sub", x, add("Cast", zero, to=dtype))


SUMS: Mapping[str, Callable[[Draft, Scope], list[Draft]]] = {
    "ConvInteger": _conv_integer,
    "MatMulInteger": _matmul_integer,
}
