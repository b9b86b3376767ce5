"""From a `Sample` to a node, its site and the ways to evaluate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nncc.ir.graph import Node
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.types import TensorType, dtype_of
from nncc.ops.reference import onnx_attr, single_node_model
from nncc.ops.table import TABLE, Op, Sample, Site, bind


def node_of(op: Op, sample: Sample) -> Node:
    inputs = tuple("" if x is None else f"in{k}" for k, x in enumerate(sample.inputs))
    outputs = tuple(f"out{k}" for k in range(sample.outputs))
    return Node(op.name, inputs, outputs, dict(sample.attrs))


def site_of(op: Op, sample: Sample, constants: Sequence[np.ndarray | None] | None = None) -> Site:
    """The site with all inputs known, or only `constants`; outputs inferred with all known."""
    node = node_of(op, sample)
    types = tuple(
        None if x is None else TensorType(dtype_of(x.dtype), x.shape) for x in sample.inputs
    )
    outputs = tuple(op.infer(Site(node, types, sample.inputs)))
    return Site(node, types, sample.inputs if constants is None else tuple(constants), outputs)


def run_nest(
    site: Site, inputs: Sequence[np.ndarray | None], sizes: Mapping[str, int] | None = None
) -> tuple[np.ndarray, ...]:
    op = TABLE[site.node.op]
    assert op.nest is not None
    nest = op.nest(site)
    names = bind(site.node)
    arrays = {f"in{k}": x for k, x in enumerate(inputs) if x is not None}
    feeds = {p.name: arrays[names[p.name]] for p in nest.inputs}
    results = interpret_nest(nest, feeds, sizes or {})
    by_value = {names[k]: v for k, v in results.items()}
    return tuple(by_value[o] for o in site.node.outputs)


def run_onnxruntime(op: Op, sample: Sample) -> tuple[np.ndarray, ...] | None:
    """What onnxruntime computes; None if it has no kernel for this instance."""
    import onnxruntime as ort

    types = [None if x is None else (x.dtype.name, x.shape) for x in sample.inputs]
    model = single_node_model(op.name, op.since, types, sample.attrs, sample.outputs)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options)
        feeds = {f"x{k}": x for k, x in enumerate(sample.inputs) if x is not None}
        return tuple(session.run(None, feeds))
    except Exception as e:
        message = str(e)
        absent = ("NOT_IMPLEMENTED", "INVALID_GRAPH", "under development", "does not support")
        if any(word in message for word in absent):
            return None
        raise


def assert_close(actual: np.ndarray, expected: np.ndarray, what: str, rtol: float = 2e-5) -> None:
    """Equal dtype and shape; integers equal, floats within rtol of the tensor's range.

    Samples are of order 1: a range that is far smaller comes from cancellation.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} for {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: {actual.shape} for {expected.shape}"
    if expected.dtype.kind == "f":
        finite = np.abs(expected[np.isfinite(expected)])
        scale = float(finite.max()) if finite.size else 1.0
        np.testing.assert_allclose(actual, expected, rtol, rtol * max(scale, 0.1), err_msg=what)
    else:
        np.testing.assert_array_equal(actual, expected, err_msg=what)


__all__ = [
    "assert_close", "node_of", "onnx_attr", "run_nest", "run_onnxruntime", "site_of",
]  # fmt: skip
