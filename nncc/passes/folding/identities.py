"""Rules that remove what does nothing: identities, views of views, neutral operands."""

from __future__ import annotations

import numpy as np

from nncc.ir.graph import Node
from nncc.ops.table import TABLE, attr
from nncc.passes.rewriting import Result, Rewriter, Rule


def _same_view(node: Node, graph: Rewriter) -> Result:
    declared = TABLE.get(node.op)
    if declared is None or "alias" not in declared.traits:
        return None
    (type,) = declared.infer(graph.builder.site(node))
    return node.inputs[0] if type == graph.type(node.inputs[0]) else None


def _permutation(node: Node, graph: Rewriter) -> tuple[int, ...]:
    """The axes of a Transpose; without the attribute they are reversed."""
    rank = graph.type(node.inputs[0]).rank
    return tuple(attr(node, "perm") or reversed(range(rank)))


def _no_transpose(node: Node, graph: Rewriter) -> Result:
    permutation = _permutation(node, graph)
    return node.inputs[0] if permutation == tuple(range(len(permutation))) else None


def _two_transposes(node: Node, graph: Rewriter) -> Result:
    inner = graph.producer(node.inputs[0])
    if inner is None or inner.op != "Transpose":
        return None
    first, second = _permutation(inner, graph), _permutation(node, graph)
    both = tuple(first[k] for k in second)
    return [Node("Transpose", inner.inputs, node.outputs, {"perm": both})]


def _two_reshapes(node: Node, graph: Rewriter) -> Result:
    inner = graph.producer(node.inputs[0])
    if inner is None or "alias" not in TABLE[inner.op].traits:
        return None
    target = graph.builder.value(node.inputs[1])
    # An entry 0 copies an extent of the inner reshape's result.
    if target is None or (0 in target.tolist() and not attr(node, "allowzero")):
        return None
    return [Node("Reshape", (inner.inputs[0], node.inputs[1]), node.outputs, node.attrs)]


def _same_cast(node: Node, graph: Rewriter) -> Result:
    same = graph.type(node.inputs[0]).dtype is attr(node, "to")
    return node.inputs[0] if same else None


def _neutral(position: int, neutral: float, node: Node, graph: Rewriter) -> Result:
    """The other operand, if the one at `position` is `neutral` everywhere and small enough."""
    constant, other = node.inputs[position], node.inputs[1 - position]
    value = graph.builder.value(constant) if graph.is_constant(constant) else None
    if value is None or not np.all(value == neutral):
        return None
    (type,) = TABLE[node.op].infer(graph.builder.site(node))
    return other if graph.type(other) == type else None


def _neutral_second(neutral: float, name: str, *ops: str) -> Rule:
    return Rule(name, ops, lambda node, graph: _neutral(1, neutral, node, graph))


def _neutral_first(neutral: float, name: str, *ops: str) -> Rule:
    return Rule(name, ops, lambda node, graph: _neutral(0, neutral, node, graph))


RULES = (
    # a view in row-major order with the same shape is the tensor itself (Identity, Dropout,
    # Reshape to the same shape, Flatten of a matrix, …)
    Rule("same-view", (), _same_view),
    # Transpose by the identity permutation == x
    Rule("no-transpose", ("Transpose",), _no_transpose),
    # Transpose(Transpose(x, p), q) == Transpose(x, p∘q)
    Rule("two-transposes", ("Transpose",), _two_transposes),
    # Reshape(view of x in row-major order) == Reshape(x)
    Rule("two-reshapes", ("Reshape",), _two_reshapes),
    # Cast to the same dtype == x
    Rule("same-cast", ("Cast",), _same_cast),
    # x + 0 == x, x - 0 == x
    _neutral_second(0, "add-zero", "Add", "Sub"),
    # 0 + x == x
    _neutral_first(0, "zero-add", "Add"),
    # x * 1 == x, x / 1 == x, x ** 1 == x
    _neutral_second(1, "mul-one", "Mul", "Div", "Pow"),
    # 1 * x == x
    _neutral_first(1, "one-mul", "Mul"),
)
