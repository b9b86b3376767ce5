"""Rules that compute at compile time what depends on constants only."""

from __future__ import annotations

import numpy as np

from nncc.ir.graph import Node
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE, shape_value
from nncc.passes.rewriting import Result, Rewriter, Rule

# A result may not be larger than what it is made of, unless it is at most this large: a
# weight that is broadcast or repeated costs less when it is made while the program runs.
GROWTH_ELEMENTS = 4096


def _constant(node: Node, graph: Rewriter) -> Result:
    if node.op not in TABLE or node.regions or len(node.outputs) != 1:
        return None
    if not all(graph.is_constant(i) for i in node.inputs if i):
        return None
    given = [i for i in node.inputs if i]
    types = TABLE[node.op].infer(graph.builder.site(node))
    if not types[0].is_static:
        return None
    size = np.prod(types[0].static_shape, dtype=object)
    held = sum(np.prod(graph.type(i).static_shape, dtype=object) for i in given)
    if size > max(held, GROWTH_ELEMENTS):
        return None
    with np.errstate(all="ignore"):  # what overflows when it runs, overflows here
        (value,) = evaluate(node, [graph.weight(i) if i else None for i in node.inputs])
    return graph.define(node.outputs[0], value.astype(types[0].dtype.numpy, copy=False), *given)


def _shape(node: Node, graph: Rewriter) -> Result:
    if node.op not in TABLE or TABLE[node.op].shape_rule is None:
        return None
    site = graph.builder.site(node)
    (type,) = TABLE[node.op].infer(site)
    value = shape_value(site, (type,))
    if value is None or not all(isinstance(v, (int, np.integer)) for v in value.flat):
        return None
    return graph.define(node.outputs[0], np.array(value, type.dtype.numpy))


RULES = (
    # f(constants) == its value
    Rule("constant", (), _constant),
    # a computation on shapes that are fully known == its value
    Rule("shape", (), _shape),
)
