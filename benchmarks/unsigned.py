"""A QDQ model with activations in uint8, for which onnxruntime has fast code on x86-64.

nncc writes activations as int8, and onnxruntime then leaves many layers in float. Here every
activation and its zero point are 128 higher; what the model computes stays the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def write_unsigned(path: Path, result: Path) -> bool:
    """Writes the model of `path` in that form; False if a node (a table's lookup, for example)
    reads integers in a way that has no such form.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    signed = {
        v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.INT8
    } - constants.keys()
    points: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            value = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
            if value in signed:
                zero = _zero_point(node, constants) + 128
                name = f"zero_point_{zero}"
                points[name] = numpy_helper.from_array(np.array(zero, np.uint8), name)
                node.input[:] = [*node.input[:2], name]
        elif signed & set(node.input) and node.op_type not in _ORDERED:
            return False
    graph.initializer.extend(points.values())
    del graph.value_info[:]
    onnx.save(model, result)
    return True


# Ops that move integers or compare them, and so mean the same 128 higher.
_ORDERED = ("MaxPool", "Concat", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice")


def _zero_point(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> int:
    if len(node.input) < 3:
        return 0
    return int(numpy_helper.to_array(constants[node.input[2]]))
