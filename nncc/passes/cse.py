"""Common subexpression elimination: what is computed twice is computed once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.graph import AttrValue, Graph, Module, Node, Symbol
from nncc.machines.machine import Machine
from nncc.passes.base import Pass

# Constants up to this size are compared by content: shapes, axes, bounds. Comparing large ones
# means hashing them, and equal weights are rare.
COMPARED_ELEMENTS = 4096


@dataclass(frozen=True)
class Cse(Pass):
    """Merges nodes that apply the same op with the same attributes to the same values, and
    small constants that hold the same.

        a = Relu(x)                   a = Relu(x)
        b = Relu(x)            →      c = Add(a, a)
        c = Add(a, b)

    All ops are pure. A value that is an output of the graph keeps its own node: its name is part
    of the signature. Parameters are never merged: training may make them differ.
    """

    name: ClassVar[str] = "cse"

    def run(self, module: Module, target: Machine | None = None) -> Module:
        symbols, merged = _merge_constants(module)
        graph = _merge_nodes(module.graph, merged)
        if graph is module.graph:
            return module
        return replace(module, graph=graph, symbols=symbols)


def _merge_constants(module: Module) -> tuple[dict[str, Symbol], dict[str, str]]:
    """The symbols that are kept, and for each of the others the one that stands for it."""
    pinned = {*module.graph.outputs, *(v for _, v in module.graph.updates)}
    first: dict[Symbol, str] = {}
    merged: dict[str, str] = {}
    for name, symbol in module.symbols.items():
        if symbol.kind != "const" or symbol.type.elements > COMPARED_ELEMENTS:  # type: ignore[operator]
            continue
        other = first.setdefault(symbol, name)
        if other != name and name not in pinned:
            merged[name] = other
    return {n: s for n, s in module.symbols.items() if n not in merged}, merged


def _merge_nodes(graph: Graph, merged: dict[str, str]) -> Graph:
    pinned = {*graph.outputs, *(v for _, v in graph.updates)}
    first: dict[Hashable, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(merged.get(i, i) for i in node.inputs)
        if inputs != node.inputs:
            node = replace(node, inputs=inputs)
        other = first.setdefault(_key(node, graph), node)
        if other is node or not pinned.isdisjoint(node.outputs) or not _covers(other, node):
            nodes.append(node)
            continue
        merged.update((b, a) for a, b in zip(other.outputs, node.outputs, strict=True) if b)
    if not merged:
        return graph
    made = {*graph.inputs, *(o for n in nodes for o in n.outputs)}
    return replace(
        graph,
        nodes=tuple(nodes),
        types={k: t for k, t in graph.types.items() if k in made},
        layouts={k: v for k, v in graph.layouts.items() if k in made or k not in graph.types},
    )


def _covers(a: Node, b: Node) -> bool:
    """Whether `a` gives every output that `b` gives."""
    return len(a.outputs) == len(b.outputs) and all(
        x or not y for x, y in zip(a.outputs, b.outputs, strict=True)
    )


def _key(node: Node, graph: Graph) -> Hashable:
    """Equal for nodes that compute the same, in the same layouts. Regions are compared by
    identity."""
    attrs = tuple(sorted((name, _attribute_key(v)) for name, v in node.attrs.items()))
    layouts = tuple(graph.layouts.get(o) for o in node.outputs)
    return node.op, node.inputs, attrs, tuple(id(r) for r in node.regions), layouts


def _attribute_key(value: AttrValue) -> str:
    """Text that tells -0.0 from 0.0; tensors by their content."""
    from nncc.ir.tensor import Tensor

    return f"{value.type} {value.digest}" if isinstance(value, Tensor) else repr(value)
