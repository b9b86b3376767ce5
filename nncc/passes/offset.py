"""Fit the zero points of integer contractions to the machine's dot product."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nncc.ir.expr import Apply, Const, walk
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.machines.machine import Machine
from nncc.ops.integer import absorb_zero_point
from nncc.passes.base import Pass


@dataclass(frozen=True)
class Offset(Pass):
    """Move zero points into biases, so that operands have the offset that the machine adds.

    A dot product of unsigned by signed bytes computes sum (x + 128)*w; what it adds is taken
    from the bias, exactly. Padding keeps its value.

    IntConv(x, w, b) {zx=0, pad_value=3}  →  IntConv(x, w, b - 128*sum(w)) {zx=-128, pad_value=3}

    Contractions whose weights or bias are not constant, or whose bias would leave int32, stay.

    Args:
        zero_point: what is subtracted from operands; None: what the first of the machine's dot
            products does.
    """

    name: ClassVar[str] = "offset"
    zero_point: int | None = None

    def run(self, module: Module, target: Machine) -> Module:
        wanted = machine_zero_point(target) if self.zero_point is None else self.zero_point
        if wanted is None:
            return module
        symbols = dict(module.symbols)
        graph = _rewrite(module.graph, wanted, symbols)
        if graph is module.graph:
            return module
        return replace(module, graph=graph, symbols=symbols)


# The two ops whose semantics have a zero point of the activation beside constant weights: the
# attribute that holds it, the one that holds what padding is, and the operand order x, w, bias.
_FORMS = {"IntConv": ("zx", "pad_value"), "IntMatMul": ("za", "")}


def machine_zero_point(machine: Machine) -> int | None:
    """What the machine's preferred integer dot product subtracts from its first operand."""
    for operation in machine.operations.values():
        semantic = operation.semantics.statements[-1]
        if not operation.semantics.params[0].type.dtype.is_integer or not semantic.reduction_dims:
            continue
        for e in walk(semantic.values[0]):
            if isinstance(e, Apply) and e.fn in ("add", "sub") and isinstance(e.args[1], Const):
                return int(e.args[1].value) * (-1 if e.fn == "add" else 1)
        return 0
    return None


def _rewrite(graph: Graph, wanted: int, symbols: dict[str, Symbol]) -> Graph:
    nodes: list[Node] = []
    for node in graph.nodes:
        regions = tuple(_rewrite(r, wanted, symbols) for r in node.regions)
        if any(a is not b for a, b in zip(regions, node.regions, strict=True)):
            node = replace(node, regions=regions)
        nodes.append(_moved(node, wanted, symbols) if node.op in _FORMS else node)
    if all(a is b for a, b in zip(nodes, graph.nodes, strict=True)):
        return graph
    return replace(graph, nodes=tuple(nodes))


def _moved(node: Node, wanted: int, symbols: dict[str, Symbol]) -> Node:
    zero_attr, pad_attr = _FORMS[node.op]
    present = int(node.attrs.get(zero_attr, 0))  # type: ignore[arg-type]
    x, w, bias = (*node.inputs, "")[:3]
    if present == wanted or w not in symbols or (bias and bias not in symbols):
        return node
    if node.attrs.get("zb", 0):
        return node
    weights = symbols[w].data.array
    if pad_attr == "" and not node.attrs.get("transB", False):
        weights = np.swapaxes(weights, -1, -2)
    if pad_attr == "" and weights.ndim != 2:
        return node  # a batch of matrices: the bias would need one row for each
    start = symbols[bias].data.array if bias else None
    try:
        # sum (x - present)*w == sum (x - wanted)*w - (present - wanted) * sum w
        moved = absorb_zero_point(weights, start, present - wanted)
    except ValueError:
        return node
    name = f"{bias or node.outputs[0]}.offset"
    while name in symbols and symbols[name].data != Tensor(moved):
        name += "_"
    symbols[name] = Symbol("const", Tensor(moved))
    attrs = {**node.attrs, zero_attr: wanted}
    if pad_attr:
        attrs.setdefault(pad_attr, present)
    attrs = {k: v for k, v in attrs.items() if (k, v) != (zero_attr, 0)}
    return replace(node, inputs=(x, w, name), attrs=attrs)
