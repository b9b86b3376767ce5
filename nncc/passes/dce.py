"""Dead code elimination: what no output and no state update needs goes away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.graph import Graph, Module, Node
from nncc.machines.machine import Machine
from nncc.passes.base import Pass


@dataclass(frozen=True)
class Dce(Pass):
    """Removes nodes and symbols that nothing reads.

        a = Relu(x)                  b = Neg(x)
        b = Neg(x)            →      return b
        return b

    All ops are pure. Values that update a state are live, and so is every state: callers set and
    read it. Constants and parameters that are not read any more are dropped from the module.
    """

    name: ClassVar[str] = "dce"

    def run(self, module: Module, target: Machine | None = None) -> Module:
        return remove_dead(module)


def remove_dead(module: Module) -> Module:
    """The module without dead nodes and symbols; the same object if there are none."""
    graph = _live_graph(module.graph)
    read = {i for n in graph.nodes for i in n.inputs}
    read.update(graph.outputs, *graph.updates)
    symbols = {name: s for name, s in module.symbols.items() if name in read or s.kind == "state"}
    if graph is module.graph and len(symbols) == len(module.symbols):
        return module
    return replace(module, graph=graph, symbols=symbols)


def _live_graph(graph: Graph) -> Graph:
    live = {*graph.outputs, *(value for _, value in graph.updates)}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if live.isdisjoint(node.outputs):
            continue
        regions = tuple(_live_graph(r) for r in node.regions)
        same = all(a is b for a, b in zip(regions, node.regions, strict=True))
        kept.append(node if same else replace(node, regions=regions))
        live.update(node.inputs)
    kept.reverse()
    if len(kept) == len(graph.nodes) and all(
        a is b for a, b in zip(kept, graph.nodes, strict=True)
    ):
        return graph
    made = {*graph.inputs, *(o for n in kept for o in n.outputs)}
    return replace(
        graph,
        nodes=tuple(kept),
        types={name: t for name, t in graph.types.items() if name in made},
        layouts={
            name: layout
            for name, layout in graph.layouts.items()
            if name in made or name not in graph.types
        },
    )
