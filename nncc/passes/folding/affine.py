"""Rules that merge per-channel scales and shifts into the contraction before them.

They name Conv, Gemm and MatMul because the algebra is theirs: a contraction is linear in its
weights, so s*(w·x + b) + t == (s*w)·x + (s*b + t) for each output channel.
Weights change in float64 and are rounded once.
"""

from __future__ import annotations

import numpy as np

from nncc.ir.graph import Node
from nncc.ops.table import attr
from nncc.passes.rewriting import Result, Rewriter, Rule


def _normalization(node: Node, graph: Rewriter) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift for each channel of a BatchNormalization with stored statistics."""
    stored = [graph.weight(i) for i in node.inputs[1:5]]
    if any(s is None for s in stored):
        return None
    scale, shift, mean, variance = (np.asarray(s, np.float64) for s in stored)
    factor = scale / np.sqrt(variance + attr(node, "epsilon"))
    return factor, shift - factor * mean


def _per_channel(array: np.ndarray, rank: int, axis: int, channels: int) -> np.ndarray | None:
    """A constant operand as one number for each channel.

    None if it varies along other axes, or has more channels than what it is applied to.
    """
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(e != 1 and (k != axis or e != channels) for k, e in enumerate(shape)):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float64)


def _operand(node: Node, graph: Rewriter, op: str) -> tuple[Node, np.ndarray, str] | None:
    """For `op(…) ∘ constant` in either order: the contraction, the constant and its name."""
    for value, constant in (node.inputs, node.inputs[::-1]):
        contraction = graph.producer(value, op)
        array = graph.weight(constant) if graph.is_constant(constant) else None
        if contraction is not None and array is not None:
            return contraction, array, constant
    return None


def _scaled_conv(
    conv: Node, graph: Rewriter, scale: np.ndarray, shift: np.ndarray, after: Node, *made_of: str
) -> Result:
    """The convolution with its weights and bias scaled and shifted, giving `after`'s output."""
    weight = graph.weight(conv.inputs[1])
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] != ""
    bias = graph.weight(conv.inputs[2]) if has_bias else np.zeros(len(scale), np.float32)
    if weight is None or bias is None:
        return None
    made = (*made_of, conv.inputs[1], *([conv.inputs[2]] if has_bias else []))
    inputs = list(conv.inputs[:2])
    if not np.all(scale == 1):
        rows = scale.reshape(-1, *[1] * (weight.ndim - 1))
        folded = (weight.astype(np.float64) * rows).astype(weight.dtype)
        inputs[1] = graph.symbol(folded, f"{conv.inputs[1]}.folded", *made)
    total = (bias.astype(np.float64) * scale + shift).astype(weight.dtype)
    hint = f"{conv.inputs[2]}.folded" if has_bias else f"{conv.inputs[1]}.bias"
    bias_name = graph.symbol(total, hint, *made)
    return [Node("Conv", (*inputs, bias_name), after.outputs, conv.attrs, location=conv.location)]


def _batch_norm_conv(node: Node, graph: Rewriter) -> Result:
    conv = graph.producer(node.inputs[0], "Conv")
    factors = _normalization(node, graph)
    if conv is None or factors is None:
        return None
    return _scaled_conv(conv, graph, *factors, node, *node.inputs[1:5])


def _add_conv(node: Node, graph: Rewriter) -> Result:
    found = _operand(node, graph, "Conv")
    if found is None:
        return None
    conv, array, name = found
    type = graph.type(conv.outputs[0])
    channels = graph.type(conv.inputs[1]).shape[0]
    shift = _per_channel(array, type.rank, 1, channels)  # type: ignore[arg-type]
    return (
        None if shift is None else _scaled_conv(conv, graph, np.ones(len(shift)), shift, node, name)
    )


def _mul_conv(node: Node, graph: Rewriter) -> Result:
    found = _operand(node, graph, "Conv")
    if found is None:
        return None
    conv, array, name = found
    type = graph.type(conv.outputs[0])
    channels = graph.type(conv.inputs[1]).shape[0]
    scale = _per_channel(array, type.rank, 1, channels)  # type: ignore[arg-type]
    return (
        None
        if scale is None
        else _scaled_conv(conv, graph, scale, np.zeros(len(scale)), node, name)
    )


def _matrix_bias(node: Node, graph: Rewriter) -> Result:
    found = _operand(node, graph, "MatMul")
    if found is None:
        return None
    product, array, name = found
    a, b = product.inputs
    type = graph.type(product.outputs[0])
    if graph.type(a).rank != 2 or graph.type(b).rank != 2:
        return None
    shift = _per_channel(array, 2, 1, type.shape[1]) if array.ndim <= 2 else None  # type: ignore[arg-type]
    if shift is None:
        return None
    return [Node("Gemm", (a, b, name), node.outputs)]


def _batch_norm_gemm(node: Node, graph: Rewriter) -> Result:
    gemm = graph.producer(node.inputs[0], "Gemm")
    factors = _normalization(node, graph)
    if gemm is None or factors is None:
        return None
    scale, shift = factors
    weight = graph.weight(gemm.inputs[1])
    has_bias = len(gemm.inputs) > 2
    bias = graph.weight(gemm.inputs[2]) if has_bias else np.zeros(len(scale), np.float32)
    if weight is None or bias is None or bias.ndim > 1:
        return None
    made = (*node.inputs[1:5], *gemm.inputs[1:])
    columns = scale[:, None] if attr(gemm, "transB") else scale[None, :]
    folded = (weight.astype(np.float64) * columns).astype(weight.dtype)
    total = attr(gemm, "beta") * np.broadcast_to(bias, scale.shape).astype(np.float64)
    new_bias = (total * scale + shift).astype(weight.dtype)
    attrs = {k: v for k, v in gemm.attrs.items() if k != "beta"}
    inputs = (
        gemm.inputs[0],
        graph.symbol(folded, f"{gemm.inputs[1]}.folded", *made),
        graph.symbol(new_bias, f"{gemm.inputs[1]}.bias", *made),
    )
    return [Node("Gemm", inputs, node.outputs, attrs)]


RULES = (
    # scale*(conv(x) - mean)/sqrt(var + eps) + shift == conv with other weights and bias
    Rule("batch-norm-conv", ("BatchNormalization",), _batch_norm_conv),
    Rule("batch-norm-gemm", ("BatchNormalization",), _batch_norm_gemm),
    # conv(x, w, b) + c == conv(x, w, b + c), c constant for each channel
    Rule("add-conv", ("Add",), _add_conv),
    # conv(x, w, b) * c == conv(x, c*w, c*b), c constant for each channel
    Rule("mul-conv", ("Mul",), _mul_conv),
    # matmul(a, b) + c == gemm(a, b, c), a and b matrices, c a row
    Rule("matmul-bias", ("Add",), _matrix_bias),
)
