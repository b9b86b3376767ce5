"""Integer ops in ONNX: each becomes floats between DequantizeLinear and QuantizeLinear.

    acc = IntConv(x, w, b) {pad_value=z0}       xf = DequantizeLinear(x, 1, z0)
    y = Requantize(acc, m, s) {z, lo, hi}   →   wf = DequantizeLinear(w, m/2^s)
                                                yf = Conv(xf, wf, bf), clipped to lo-z..hi-z
                                                y = QuantizeLinear(yf, 1, z)

The integer values between the pairs are those of the integer program up to rounding: floats
round half to even, the program half up. All scales of one op are relative to its result's, whose
step is 1: an integer program no longer knows what its steps were in reals. `deviation` measures
how far the two are apart. Lookup is exact: it becomes a Gather.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nncc.frontend.onnx import attributes
from nncc.frontend.onnx.versions import Draft, NotExpressible, Scope
from nncc.ir.graph import Module, Node
from nncc.ops.table import TABLE, attr


def lower(node: Node, module: Module, scope: Scope) -> list[Draft]:
    """The ONNX nodes for an op of nncc's own. Raises NotExpressible."""
    if node.op in _CONTRACTIONS:
        _rescaling(node, module)
        return []  # written together with the Requantize that reads it
    if node.op not in _RULES:
        raise NotExpressible("it has no form in ONNX")
    return _RULES[node.op](node, module, _Writer(scope, node.outputs[0]))


class _Writer:
    """Makes drafts whose values are named after the node's output."""

    def __init__(self, scope: Scope, output: str) -> None:
        self.scope, self.output = scope, output
        self.drafts: list[Draft] = []

    def draft(self, op: str, inputs: tuple[str, ...], hint: str = "", **attrs: object) -> str:
        """Adds a node and returns its output: the node's own, or a fresh one for `hint`."""
        output = self.scope.fresh(f"{self.output}.{hint}") if hint else self.output
        version = TABLE[op].since
        self.drafts.append(Draft(op, inputs, (output,), dict(attrs), version))
        return output

    def constant(self, value: object, dtype: str, hint: str) -> str:
        return self.scope.add_constant(np.array(value, dtype), f"{self.output}.{hint}")

    def dequantize(self, x: str, scale: object, zero: int, dtype: str, hint: str) -> str:
        """x as float: (x - zero) * scale, for the whole tensor."""
        inputs: tuple[str, ...] = (x, self.constant(scale, "float32", f"{hint}.scale"))
        if zero:
            inputs = (*inputs, self.constant(zero, dtype, f"{hint}.zero"))
        return self.draft("DequantizeLinear", inputs, hint)

    def quantize(self, y: str, node: Node) -> list[Draft]:
        """The node's output from a float whose step is 1, clamped to lo..hi."""
        z, lo, hi, to = (attr(node, name) for name in ("z", "lo", "hi", "to"))
        least, most = to.limits
        if lo == z and hi == most:
            y = self.draft("Relu", (y,), "relu")
        elif (lo, hi) != (least, most):
            low = self.constant(lo - z, "float32", "lo")
            y = self.draft("Clip", (y, low, self.constant(hi - z, "float32", "hi")), "clip")
        scale = self.constant(1.0, "float32", "step")
        zero = self.constant(z, to.numpy_name, "zero")
        self.draft("QuantizeLinear", (y, scale, zero))
        return self.drafts


def _rescaling(node: Node, module: Module) -> Node:
    """The Requantize that alone reads a contraction's accumulator."""
    users = module.graph.users.get(node.outputs[0], ())
    pinned = {*module.graph.outputs, *(v for _, v in module.graph.updates)}
    if len(users) != 1 or users[0].op != "Requantize" or node.outputs[0] in pinned:
        raise NotExpressible("its int32 sums are read by something else than one Requantize")
    return users[0]


def _data(module: Module, name: str) -> np.ndarray:
    if name not in module.symbols:
        raise NotExpressible(f"operand '{name}' is not constant")
    return module.symbols[name].data.array


def zero_point(name: str, module: Module) -> int:
    """The integer that stands for 0.0 in an int8 value: what its producer was told."""
    node = module.graph.producer.get(name)
    if node is None:
        return 0
    if node.op == "QuantizeLinear":
        return int(_data(module, node.inputs[2])) if len(node.inputs) > 2 else 0
    if "z" in TABLE[node.op].attrs:
        return int(attr(node, "z"))
    return zero_point(node.inputs[0], module) if node.op != "Lookup" else 0


def _requantize(node: Node, module: Module, writer: _Writer) -> list[Draft]:
    contraction = module.graph.producer.get(node.inputs[0])
    if contraction is None or contraction.op not in _CONTRACTIONS:
        raise NotExpressible("it rescales something else than a contraction")
    m, s = (_data(module, i).astype(np.float64) for i in node.inputs[1:3])
    factors = np.asarray((m / 2.0**s).astype(np.float32))
    y = _CONTRACTIONS[contraction.op](contraction, module, writer, factors)
    return writer.quantize(y, node)


def _biased(
    writer: _Writer, module: Module, bias: str, shift: np.ndarray, factors: np.ndarray
) -> str:
    """The bias as floats at the accumulator's scale, with what the zero point adds."""
    b = _data(module, bias).astype(np.int64) if bias else np.zeros(len(shift), np.int64)
    return writer.constant((b + shift) * factors.astype(np.float64), "float32", "bias")


def _conv(node: Node, module: Module, writer: _Writer, factors: np.ndarray) -> str:
    x, w = node.inputs[:2]
    weights = _data(module, w).astype(np.int64)
    zx = attr(node, "zx")
    pad = attr(node, "pad_value")
    zero = zx if pad is None else pad  # what padding holds must become 0.0
    sums = weights.sum(axis=tuple(range(1, weights.ndim)))
    # sum (x - zx)*w == sum (x - zero)*w + (zero - zx) * sum w
    bias = _biased(writer, module, (*node.inputs, "")[2], (zero - zx) * sums, factors)
    xf = writer.dequantize(x, 1.0, zero, writer.scope.type(x).dtype.numpy_name, "x")
    wf = _dequantized_weight(writer, w, factors, 0)
    attrs = {k: attributes.untyped(v) for k, v in node.attrs.items()}
    attrs = {k: v for k, v in attrs.items() if k not in ("zx", "pad_value")}
    return writer.draft("Conv", (xf, wf, bias), "y", **attrs)


def _dequantized_weight(writer: _Writer, w: str, factors: np.ndarray, axis: int) -> str:
    scale = writer.constant(factors, "float32", "w.scale")
    return writer.draft("DequantizeLinear", (w, scale), "w", axis=axis)


def _matmul(node: Node, module: Module, writer: _Writer, factors: np.ndarray) -> str:
    a, b = node.inputs[:2]
    za, transposed = attr(node, "za"), attr(node, "transB")
    a_dtype = writer.scope.type(a).dtype.numpy_name
    if b not in module.symbols:
        if transposed or len(node.inputs) > 2 or factors.size > 1:
            raise NotExpressible("a product of two activations has neither bias nor channels")
        af = writer.dequantize(a, 1.0, za, a_dtype, "a")
        b_dtype = writer.scope.type(b).dtype.numpy_name
        bf = writer.dequantize(b, factors.reshape(()), attr(node, "zb"), b_dtype, "b")
        return writer.draft("MatMul", (af, bf), "y")
    weights = _data(module, b).astype(np.int64)
    if weights.ndim != 2 or attr(node, "zb"):
        raise NotExpressible("its constant operand is no symmetric matrix")
    channel = 0 if transposed else 1
    factors = np.broadcast_to(factors, weights.shape[channel])
    zero = zero_point(a, module)
    shift = (zero - za) * weights.sum(axis=1 - channel)
    bias = _biased(writer, module, (*node.inputs, "")[2], shift, factors)
    af = writer.dequantize(a, 1.0, zero, a_dtype, "a")
    bf = _dequantized_weight(writer, b, factors, channel)
    if writer.scope.type(a).rank == 2:
        return writer.draft("Gemm", (af, bf, bias), "y", transB=int(transposed))
    if transposed:
        bf = writer.draft("Transpose", (bf,), "w.transposed", perm=(1, 0))
    product = writer.draft("MatMul", (af, bf), "product")
    return writer.draft("Add", (product, bias), "y")


def _add(node: Node, module: Module, writer: _Writer) -> list[Draft]:
    step = 2.0 ** -attr(node, "s")
    operands = []
    for k, name in enumerate("ab"):
        value = node.inputs[k]
        dtype = writer.scope.type(value).dtype.numpy_name
        scale = attr(node, f"m{name}") * step
        operands.append(writer.dequantize(value, scale, attr(node, f"z{name}"), dtype, name))
    return writer.quantize(writer.draft("Add", tuple(operands), "y"), node)


def _lookup(node: Node, module: Module, writer: _Writer) -> list[Draft]:
    x, table = node.inputs
    least = writer.scope.type(x).dtype.limits[0]
    position = writer.draft("Cast", (x,), "wide", to=6)  # 6: TensorProto.INT32
    if least:
        offset = writer.constant(-least, "int32", "offset")
        position = writer.draft("Add", (position, offset), "position")
    writer.draft("Gather", (table, position), axis=0)
    return writer.drafts


def _average_pool(node: Node, module: Module, writer: _Writer) -> list[Draft]:
    count, m, s = (attr(node, name)[0] for name in ("counts", "m", "s"))
    x = _scaled_input(node, writer, m / 2.0**s * count)
    own = TABLE["AveragePool"].attrs
    attrs = {k: attributes.untyped(v) for k, v in node.attrs.items() if k in own}
    return writer.quantize(writer.draft("AveragePool", (x,), "y", **attrs), node)


def _global_average(node: Node, module: Module, writer: _Writer) -> list[Draft]:
    extents = writer.scope.type(node.inputs[0]).shape[2:]
    if not all(isinstance(e, int) for e in extents):
        raise NotExpressible("its spatial sizes are symbolic")
    count = float(np.prod(np.array(extents, np.int64)))
    x = _scaled_input(node, writer, attr(node, "m") / 2.0 ** attr(node, "s") * count)
    return writer.quantize(writer.draft("GlobalAveragePool", (x,), "y"), node)


def _scaled_input(node: Node, writer: _Writer, scale: float) -> str:
    x = node.inputs[0]
    return writer.dequantize(x, scale, attr(node, "zx"), writer.scope.type(x).dtype.numpy_name, "x")


def _relayout(node: Node, module: Module, writer: _Writer) -> list[Draft]:
    writer.draft("Identity", node.inputs)
    return writer.drafts


_CONTRACTIONS: Mapping[str, Callable[[Node, Module, _Writer, np.ndarray], str]] = {
    "IntConv": _conv,
    "IntMatMul": _matmul,
}
_RULES: Mapping[str, Callable[[Node, Module, _Writer], list[Draft]]] = {
    "IntAdd": _add,
    "IntAveragePool": _average_pool,
    "IntGlobalAveragePool": _global_average,
    "Lookup": _lookup,
    "Relayout": _relayout,
    "Requantize": _requantize,
}
