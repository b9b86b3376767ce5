"""The value of a node on arrays: what every level and back end is compared with.

    evaluate(Node("Relu", ("x",), ("y",)), [np.array([-1.0, 2.0], np.float32)])   ->  ([0, 2],)

An op with a numpy `reference` is computed by it; any other by `onnx.reference`. Nodes with
regions or callees need a module: `interpret` runs those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nncc.ir.graph import AttrValue, Module, Node
from nncc.ir.tensor import Tensor
from nncc.ir.types import DType
from nncc.ops.table import Op, get

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

    from nncc.ir.interpreter.graph import Run

Arrays = tuple[np.ndarray, ...]


def evaluate(node: Node, inputs: Sequence[np.ndarray | None]) -> Arrays:
    """The outputs of a node of the op table, in the order of its outputs."""
    declared = get(node)
    if declared.reference is not None:
        values = declared.reference(*inputs, **node.attrs)
        return tuple(np.asarray(v) for v in values)
    return by_onnx(node, declared, inputs)


def by_onnx(node: Node, declared: Op, inputs: Sequence[np.ndarray | None]) -> Arrays:
    """The outputs of an ONNX node by onnx.reference."""
    types = tuple(None if x is None else (x.dtype.name, (None,) * x.ndim) for x in inputs)
    key = tuple(sorted(node.attrs.items(), key=lambda item: item[0]))
    session = _session(node.op, declared.since, types, key, len(node.outputs))
    feeds = {f"x{k}": x for k, x in enumerate(inputs) if x is not None}
    with np.errstate(all="ignore"):  # both sides of a `where` are computed
        results = session.run(None, feeds)
    return tuple(np.asarray(y) for y in results)  # a numpy scalar is a tensor of rank 0


@lru_cache(maxsize=512)
def _session(
    op: str,
    since: int,
    types: tuple[tuple[str, tuple[None, ...]] | None, ...],
    attrs: tuple[tuple[str, AttrValue], ...],
    outputs: int,
) -> ReferenceEvaluator:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(single_node_model(op, since, types, dict(attrs), outputs))


def single_node_model(
    op: str,
    since: int,
    types: Sequence[tuple[str, Sequence[int | None]] | None],
    attrs: Mapping[str, AttrValue],
    outputs: int = 1,
) -> Any:
    """An ONNX model of one node with inputs x0, x1, … and outputs y0, y1, …

    Args:
        since: opset version of the model.
        types: (numpy dtype name, shape) of each input, None where one is absent.
    """
    from onnx import helper

    while types and types[-1] is None:  # onnxruntime crashes on some absent last inputs
        types = types[:-1]
    names = [f"x{k}" if t else "" for k, t in enumerate(types)]
    results = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op, names, results, **{k: onnx_attr(v) for k, v in attrs.items()})
    values = [
        helper.make_tensor_value_info(n, onnx_dtype(t[0]), t[1])
        for n, t in zip(names, types, strict=True)
        if t
    ]
    graph = helper.make_graph(
        [node], "node", values, [helper.make_empty_tensor_value_info(r) for r in results]
    )
    opset = helper.make_opsetid("", since)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def onnx_dtype(numpy_name: str) -> int:
    """ONNX's number for a numpy dtype."""
    from onnx import TensorProto, helper

    if numpy_name == "bfloat16":
        return int(TensorProto.BFLOAT16)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(numpy_name)))


def onnx_attr(value: AttrValue) -> Any:
    """An attribute as `onnx.helper.make_node` takes it."""
    if isinstance(value, DType):
        return onnx_dtype(value.numpy_name)
    if isinstance(value, Tensor):
        from onnx import numpy_helper

        return numpy_helper.from_array(value.array)
    return int(value) if isinstance(value, bool) else value


def interpret(module: Module, inputs: Mapping[str, np.ndarray], **options: Any) -> Run:
    """One call of a module's graph by the references: `nncc.ir.interpreter.graph.interpret`."""
    from nncc.ir.interpreter import graph

    return graph.interpret(module, inputs, evaluate, **options)
