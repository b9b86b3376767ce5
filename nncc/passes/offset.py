"""Fit the zero points of integer contractions to the machine's dot product."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.expr import Apply, Const, walk
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.types import DType
from nncc.machines.machine import Machine, Operation
from nncc.ops.integer import absorb_zero_point
from nncc.passes.base import Pass


@dataclass(frozen=True)
class Offset(Pass):
    """Move zero points into biases, so that operands have the offset that the machine adds.

    A dot product of unsigned by signed bytes computes sum (x + 128)*w; what it adds is taken
    from the bias, exactly. Padding keeps its value.

    IntConv(x, w, b) {zx=0, pad_value=3}  →  IntConv(x, w, b - 128*sum(w)) {zx=-128, pad_value=3}

    Contractions whose weights or bias are not constant (a state is not), whose activation is not
    of the machine's dtype, or whose bias would leave int32, stay.

    Args:
        zero_point: what is subtracted from operands; None: what the first of the machine's dot
            products does.
    """

    name: ClassVar[str] = "offset"
    zero_point: int | None = None

    def run(self, module: Module, target: Machine) -> Module:
        dot = dot_product(target)
        if dot is None:
            return module
        wanted = _subtracted(dot) if self.zero_point is None else self.zero_point
        symbols = dict(module.symbols)
        graph = _rewrite(module.graph, wanted, dot.semantics.params[1].type.dtype, symbols)
        if graph is module.graph:
            return module
        return replace(module, graph=graph, symbols=symbols)


# The two ops whose semantics have a zero point of the activation beside constant weights: the
# attribute that holds it, the one that holds what padding is, and the operand order x, w, bias.
_FORMS = {"IntConv": ("zx", "pad_value"), "IntMatMul": ("za", "")}


def dot_product(machine: Machine) -> Operation | None:
    """The machine's preferred integer operation that sums products."""
    for operation in machine.operations.values():
        semantic = operation.semantics.statements[-1]
        if operation.semantics.params[0].type.dtype.is_integer and semantic.reduction_dims:
            return operation
    return None


def _subtracted(dot: Operation) -> int:
    """What a dot product subtracts from its first operand."""
    for e in walk(dot.semantics.statements[-1].values[0]):
        if isinstance(e, Apply) and e.fn in ("add", "sub") and isinstance(e.args[1], Const):
            return int(e.args[1].value) * (-1 if e.fn == "add" else 1)
    return 0


def _rewrite(graph: Graph, wanted: int, dtype: DType, symbols: dict[str, Symbol]) -> Graph:
    nodes: list[Node] = []
    for node in graph.nodes:
        regions = tuple(_rewrite(r, wanted, dtype, symbols) for r in node.regions)
        if any(a is not b for a, b in zip(regions, node.regions, strict=True)):
            node = replace(node, regions=regions)
        known = node.op in _FORMS and node.inputs[0] in graph.types
        if known and graph.types[node.inputs[0]].dtype is dtype:
            node = _moved(graph, node, wanted, symbols)
        nodes.append(node)
    if all(a is b for a, b in zip(nodes, graph.nodes, strict=True)):
        return graph
    return replace(graph, nodes=tuple(nodes))


def _moved(graph: Graph, node: Node, wanted: int, symbols: dict[str, Symbol]) -> Node:
    zero_attr, pad_attr = _FORMS[node.op]
    present = int(node.attrs.get(zero_attr, 0))  # type: ignore[arg-type]
    x, w, bias = (*node.inputs, "")[:3]
    if present == wanted or node.attrs.get("zb", 0):
        return node
    if any(v not in symbols or symbols[v].kind == "state" for v in (w, bias) if v):
        return node
    weights = symbols[w].data.array
    if pad_attr == "" and weights.ndim != 2:
        return node  # a batch of matrices: the bias would need one row for each
    if pad_attr == "" and not node.attrs.get("transB", False):
        weights = weights.T
    start = symbols[bias].data.array if bias else None
    try:
        # sum (x - present)*w == sum (x - wanted)*w - (present - wanted) * sum w
        moved = absorb_zero_point(weights, start, present - wanted)
    except ValueError:
        return node
    made = Symbol("const", Tensor(moved))
    name = f"{bias or node.outputs[0]}.offset"
    while name in graph.types or symbols.get(name, made) != made:
        name += "_"
    symbols[name] = made
    attrs = {**node.attrs, zero_attr: wanted}
    if pad_attr:
        attrs.setdefault(pad_attr, present)
    attrs = {k: v for k, v in attrs.items() if (k, v) != (zero_attr, 0)}
    return replace(node, inputs=(x, w, name), attrs=attrs)
