"""Small ONNX models made by hand, for the tests of the front end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F = TensorProto.FLOAT
I64 = TensorProto.INT64


def node(op: str, inputs: str, outputs: str, name: str = "", **attrs: Any) -> onnx.NodeProto:
    """A node; operands are separated by spaces, `_` stands for an absent one."""
    names = [["" if n == "_" else n for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, name=name, **attrs)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[Any]],
    outputs: dict[str, Sequence[Any] | None],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    ir: int = 8,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
    dtypes: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model; values are float unless `dtypes` says otherwise."""
    dtypes = dtypes or {}
    infos = [
        [helper.make_tensor_value_info(n, dtypes.get(n, F), s) for n, s in values.items()]
        for values in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", *infos, tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=list(functions))


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 data."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
