"""Legalization: every node becomes something that the target can compute, or is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from nncc.diagnostics import Diagnostic, Location, UnsupportedError
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.types import TensorType
from nncc.machines.machine import HOST, Machine
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE, Site, shape_value
from nncc.passes.base import Pass
from nncc.passes.dce import remove_dead

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """What is done with a node, and why (empty where the target simply computes it)."""

    node: str
    action: Literal["keep", "decompose", "host", "refuse"]
    reason: str = ""
    op: str = field(default="", compare=False)


@dataclass(frozen=True)
class Legalize(Pass):
    """Decides for each node by the target's table of ops and dtypes (`Machine.supports`).

        y = Softmax(x)    →    y = Softmax(x)                         the target computes it: keep
                               nodes of the op's decomposition        decompose
                               y = Group(x) {device="cpu"} { … }      the host computes it
                               UnsupportedError                       refuse, all nodes at once

    Args:
        host: whether nodes may be placed on the host.
        on_report: is given the decisions, also when nodes are refused.
    """

    name: ClassVar[str] = "legalize"
    host: bool = True
    on_report: Callable[[tuple[Decision, ...]], None] | None = field(
        default=None, compare=False, repr=False
    )

    def run(self, module: Module, target: Machine) -> Module:
        legalizer = _legalized(module, target, self.host)
        decisions = tuple(legalizer.decisions)
        for d in decisions:
            log.debug("%s: %s %s", d.node, d.action, d.reason)
        if self.on_report is not None:
            self.on_report(decisions)
        if legalizer.refused:
            count = len(legalizer.refused)
            raise UnsupportedError(
                f"{count} node{'s' if count > 1 else ''} cannot be compiled for {target.name}",
                Location(),
                diagnostics=tuple(legalizer.refused),
            )
        if all(d.action == "keep" for d in decisions):
            return module
        return legalizer.result()


def _legalized(module: Module, target: Machine, host: bool) -> _Legalizer:
    """Every node placed. Operations on memory are tried: what they refuse is placed anew."""
    refused: dict[str, str] = {}
    tried: dict[object, str] = {}
    while True:
        legalizer = _Legalizer(module, target, host, refused)
        for node in module.graph.nodes:
            legalizer.place(node)
        if target.array is None or legalizer.refused:
            return legalizer
        found = trial(legalizer.result(), target, tried)
        if not found.keys() - refused.keys():
            return legalizer
        refused |= found


def trial(module: Module, target: Machine, tried: dict[object, str]) -> Mapping[str, str]:
    """What the operations of a machine with an array refuse, and why.

    Args:
        tried: the results of nests that have been tried, to which others are added.
    """
    from nncc.passes.systolic.trial import refused

    return refused(module, target, tried)


class _Legalizer:
    def __init__(
        self, module: Module, target: Machine, host: bool, known: Mapping[str, str]
    ) -> None:
        self.module, self.target = module, target
        self.known = known  # values that the target has refused, with the reason
        self.host = host and not target.is_host
        self.builder = GraphBuilder(module.symbols, module.nests)
        self.builder.reserve(*module.graph.types)
        for name in module.graph.inputs:
            self.builder.input(name, module.graph.types[name])
        self.decisions: list[Decision] = []
        self.refused: list[Diagnostic] = []

    def place(self, node: Node) -> None:
        """Adds what becomes of a node, and notes the decision."""
        reason = self._obstacle(node)
        declared = TABLE.get(node.op)
        if not reason:
            self._keep(node)
            return
        if declared is not None and declared.decompose is not None:
            site = replace(self.builder.site(node), outputs=self._types(node))
            self.decisions.append(Decision(node.name, "decompose", reason, node.op))
            for inner in _named(declared.decompose(site), node, self.builder):
                self.place(inner)
            return
        if self.host and (declared is None or declared.nest is not None):
            self.decisions.append(Decision(node.name, "host", reason, node.op))
            self.builder.add(_on_host(node, self.builder, self._types(node)))
            return
        if self.host is False and not self.target.is_host:
            reason += "; the host may not be used"
        self.decisions.append(Decision(node.name, "refuse", reason, node.op))
        dtypes = dict.fromkeys(str(self.builder.type(i).dtype) for i in node.inputs if i)
        self.refused.append(Diagnostic(f"{node.op} ({', '.join(dtypes)}): {reason}", _at(node)))
        self.builder.types.update(zip(node.outputs, self._types(node), strict=False))

    def result(self) -> Module:
        graph = self.module.graph
        built = self.builder.graph(graph.name, graph.outputs)
        built = replace(built, updates=graph.updates, layouts=graph.layouts)
        return remove_dead(replace(self.module, graph=built, symbols=self.builder.symbols))

    def _keep(self, node: Node) -> None:
        self.decisions.append(Decision(node.name, "keep", op=node.op))
        self.builder.add(node, self._types(node) if node.op in self.module.definitions else None)

    def _types(self, node: Node) -> tuple[TensorType, ...]:
        """The node's output types: those of the graph, or inferred for a decomposition's."""
        known = self.module.graph.types
        if all(o in known for o in node.outputs if o):
            return tuple(known[o] for o in node.outputs if o)
        inferred = TABLE[node.op].infer(self.builder.site(node))
        return tuple(t for o, t in zip(node.outputs, inferred, strict=False) if o)

    def _obstacle(self, node: Node) -> str:
        """Why the target does not compute the node; empty if it does."""
        declared = TABLE.get(node.op)
        if node.regions or "callee" in node.attrs:
            return ""  # a group or a call: loop nests that exist already
        if declared is not None and declared.nest is None:
            return declared.no_nest or "the op is no loop nest"
        if reason := next((self.known[o] for o in node.outputs if o in self.known), ""):
            return reason
        site, types = self.builder.site(node), self._types(node)
        if shape_value(site, types) is not None:
            return ""  # known at compile time, up to named sizes
        return _not_computed(self.target.supports, node, site, types)


def _not_computed(
    supports: Mapping[str, tuple[str, ...]],
    node: Node,
    site: Site,
    outputs: tuple[TensorType, ...],
) -> str:
    if not supports:
        return ""
    allowed = supports.get(node.op, supports.get("*"))
    if not allowed:
        return "the target does not compute this op"
    # Operands whose value is known are part of the op, not data that it computes with.
    data = [t for t, v in zip(site.inputs, site.constants, strict=True) if t and v is None]
    wrong = {t.dtype.name for t in (*data, *outputs)} - set(allowed)
    if not wrong:
        return ""
    return f"the target computes it with {', '.join(allowed)}, not {sorted(wrong)[0]}"


def _named(body: Graph, node: Node, builder: GraphBuilder) -> list[Node]:
    """The nodes of a decomposition with the node's operands and results put in."""
    given = [i for i in node.inputs if i]
    names = dict(zip(body.inputs, given, strict=True))
    names.update(zip(body.outputs, (o for o in node.outputs if o), strict=True))

    def rename(name: str) -> str:
        if name and name not in names:
            names[name] = builder.fresh(f"{node.name}.{name}")
        return names.get(name, "")

    return [
        replace(
            n,
            inputs=tuple(rename(i) for i in n.inputs),
            outputs=tuple(rename(o) for o in n.outputs),
            location=node.location,
        )
        for n in body.nodes
    ]


def _on_host(node: Node, builder: GraphBuilder, results: tuple[TensorType, ...]) -> Node:
    """The node alone in a group of the host."""
    given = tuple(dict.fromkeys(i for i in node.inputs if i))
    outputs = tuple(o for o in node.outputs if o)
    types = {i: builder.type(i) for i in given} | dict(zip(outputs, results, strict=False))
    body = Graph(node.name, given, outputs, (node,), types)
    return Node("Group", given, outputs, {"device": HOST}, (body,), node.location)


def _at(node: Node) -> Location:
    return node.location if node.location.node else replace(node.location, node=node.name)
