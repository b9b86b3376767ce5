"""How much of a model's work its supported nodes do, where the model as a whole cannot be imported.

    coverage("model.onnx", {"nms_1"})   ->  (supported, total) multiply-accumulates

Counted are the contractions of ONNX, with shapes as onnx infers them; symbolic sizes count as 1,
and a node whose shapes are not known counts as 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import onnx

from nncc.frontend.onnx.importer import node_name
from nncc.frontend.onnx.source import read

Shape = Sequence[int]


def coverage(source: str | Path, unsupported: Collection[str]) -> tuple[int, int]:
    """The multiply-accumulates of the nodes that are not `unsupported`, and of all nodes."""
    model = read(source).model
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError):
        graph = model.graph
    shapes = _shapes(graph)
    counts = {node_name(n): 0 for n in graph.node}
    for node in graph.node:
        if all(name in shapes for name in (*node.input[:2], node.output[0])):
            counts[node_name(node)] += _macs(node, shapes)
    supported = sum(count for name, count in counts.items() if name not in unsupported)
    return supported, sum(counts.values())


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    found: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found.setdefault(value.name, tuple(max(d.dim_value, 1) for d in dims))
    return found


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Outputs times the terms that each sums."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    x, w, y = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        return math.prod(y) * math.prod(w[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(x) * math.prod(w[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(y) * (x[0] if transposed else x[-1])
