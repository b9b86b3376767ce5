"""Specialization: numbers in place of named sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from nncc.diagnostics import PassError, nearest
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import evaluate, substitute, variables
from nncc.ir.types import TensorType
from nncc.machines.machine import Machine
from nncc.passes.base import Pass


@dataclass(frozen=True)
class Specialize(Pass):
    """Put numbers in the place of named sizes, so that the model is for these sizes only.

    specialize{N=4}:    graph main(x: f32[N,8]) …  →  graph main(x: f32[4,8]) …

    Args:
        sizes: the number for each size; sizes that are not named stay.
    """

    name: ClassVar[str] = "specialize"
    sizes: Mapping[str, int] = field(default_factory=dict)

    def run(self, module: Module, target: Machine | None = None) -> Module:
        """Raises PassError for an unknown size, a number that does not fit, or past the graph."""
        if not self.sizes:
            return module
        for name, value in self.sizes.items():
            if name not in module.sizes:
                raise PassError(
                    f"the model has no size '{name}'", help=nearest(name, module.sizes, "sizes")
                )
            if value < 1:
                raise PassError(f"{name} = {value} is no size: it is at least 1")
        if module.nests or module.functions or module.graph.layouts:
            raise PassError("the model is no plain graph any more", help="specialize before layout")
        symbols = {
            n: s if s.declared is None else replace(s, declared=self._type(s.declared))
            for n, s in module.symbols.items()
        }
        sizes = tuple(s for s in module.sizes if s not in self.sizes)
        return replace(module, graph=self._graph(module.graph), symbols=symbols, sizes=sizes)

    def _graph(self, graph: Graph) -> Graph:
        types = {name: self._type(t) for name, t in graph.types.items()}
        for name, t in types.items():
            if any(isinstance(e, int) and e < 1 for e in t.shape):
                given = ", ".join(f"{n} = {v}" for n, v in self.sizes.items())
                raise PassError(f"with {given}, '{name}' would be empty: {t}")
        return replace(graph, nodes=tuple(map(self._node, graph.nodes)), types=types)

    def _node(self, node: Node) -> Node:
        if not node.regions:
            return node
        return replace(node, regions=tuple(map(self._graph, node.regions)))

    def _type(self, t: TensorType) -> TensorType:
        if t.is_static:
            return t
        return TensorType(
            t.dtype,
            tuple(
                evaluate(e, self.sizes)
                if variables(e) <= self.sizes.keys()
                else substitute(e, self.sizes)
                for e in t.shape
            ),
        )
