"""Partition the graph into groups, each of which becomes one loop nest.

What may go together is read off the loop nests of the ops and their index maps, not off names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.expr import Load, loads
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import elements, variables
from nncc.ir.nests import ASSIGN, Nest, Statement, sizes_of
from nncc.ir.types import DType, i8, u8
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.group_nest import as_region, has_nest, node_nests
from nncc.passes.nest_parts import full_axes, plain

log = logging.getLogger(__name__)

LARGEST_GROUP = 32  # nodes; keeps nests readable and registers few
LARGEST_DIAMOND = 12  # nodes between a value that is used several times and where its uses meet


@dataclass(frozen=True)
class Fuse(Pass):
    """Put ops that one loop nest can compute into groups.

    t = Conv(x, w, b); s = Add(t, r); y = Relu(s)  →  y = Group(x, w, b, r) { t = …; s = …; y = … }

    A group has one op that folds (a contraction, a pooling, a reduction) or none, pointwise ops
    that read its result element by element, and pointwise ops before a reduction by rows. A
    value that is used outside the group, or by several ops that do not meet again, ends it: no
    value is computed twice. On a machine whose operations work on memory, a value that its
    memory holds ends a group. Views that keep the row-major order stay outside: they cost nothing.

    Args:
        enable: with False every op is a group of its own.
    """

    name: ClassVar[str] = "fuse"
    enable: bool = True

    def run(self, module: Module, target: Machine) -> Module:
        graph = module.graph
        if not any(has_nest(module, n) for n in graph.nodes):
            return module
        stored = frozenset({i8, u8}) if target.array is not None else frozenset[DType]()
        grouper = _Grouper(module, target.device, stored)
        groups = grouper.groups(self.enable)
        nodes: list[Node] = []
        last = {max(members): members for members in groups}
        grouped = {k for members in groups for k in members}
        for k, node in enumerate(graph.nodes):
            if k in last:
                nodes.append(grouper.group_node(last[k]))
            elif k not in grouped:
                nodes.append(node)
        kept = {o for n in nodes for o in n.outputs} | set(graph.inputs)
        types = {name: t for name, t in graph.types.items() if name in kept}
        return module.with_graph(replace(graph, nodes=tuple(nodes), types=types))


@dataclass(frozen=True)
class _Part:
    """A node as fusion sees it.

    Args:
        pointwise: the statement if the node is a single assignment of every output element.
        by_rows: it folds, but reads every element of its operands at plain subscripts, so that
            a pointwise op before it can run in the same loops.
    """

    nest: Nest
    pointwise: Statement | None
    by_rows: bool

    def loads_of(self, value: str) -> list[Load]:
        return [x for s in self.nest.statements for v in s.values for x in loads(v)
                if x.tensor == value]  # fmt: skip

    def is_subscript(self, value: str) -> bool:
        """Whether `value` says where to read another tensor; it must be in memory then."""
        return any(
            e.tensor == value
            for s in self.nest.statements
            for size in sizes_of(s)
            for e in elements(size)
        )

    def reads_in_place(self, value: str) -> bool:
        """Whether output element i uses element i of `value` and no other of it."""
        if self.pointwise is None or self.is_subscript(value) or not self.loads_of(value):
            return False  # an operand that is not loaded is a shape: known before anything runs
        target = self.pointwise.targets[0]
        shape = self.nest.param(value).type.shape
        if shape != self.nest.param(target.tensor).type.shape:
            return False
        return all(
            x.other is None
            and all(
                i == j or extent == 1
                for i, j, extent in zip(x.indices, target.indices, shape, strict=True)
            )
            for x in self.loads_of(value)
        )

    def reads_once(self, value: str) -> bool:
        """Whether the only output is pointwise and uses each element of `value` at most once."""
        if self.pointwise is None or self.is_subscript(value):
            return False
        found = self.loads_of(value)
        if len(found) != 1 or found[0].other is not None:
            return self.reads_in_place(value)
        used = frozenset[str]().union(*(variables(i) for i in found[0].indices))
        return all(d.name in used or d.extent == 1 for d in self.pointwise.dims)

    def reads_by_rows(self, value: str) -> bool:
        """Whether the node folds and reads `value` only at plain, distinct subscripts."""
        if not self.by_rows or self.is_subscript(value):
            return False
        for x in self.loads_of(value):
            names = [plain(i) for i in x.indices if i != 0]
            if x.other is not None or None in names or len(set(names)) != len(names):
                return False
        return True


def _part(nest: Nest) -> _Part:
    statements = nest.statements
    single = statements[0] if len(statements) == 1 and len(nest.outputs) == 1 else None
    if single is not None and (
        single.combine != ASSIGN or single.where or full_axes(nest, single) is None
    ):
        single = None
    folds = [s for s in statements if s.combine != ASSIGN]
    contracts = any(len({x.tensor for x in loads(v)}) > 1 for s in folds for v in s.values)
    return _Part(nest, single, bool(folds) and not contracts)


class _Grouper:
    def __init__(self, module: Module, device: str, stored: frozenset[DType]) -> None:
        self.module, self.device, self.stored = module, device, stored
        self.graph = module.graph
        self.parts: dict[int, _Part] = {}
        self.position = {id(n): k for k, n in enumerate(self.graph.nodes)}
        for k, n in enumerate(self.graph.nodes):
            if has_nest(module, n):
                region = as_region(self.graph, n, module)
                same = {i: i for i in region.inputs}
                self.parts[k] = _part(node_nests(module, region, same)[0])
        self.users: Mapping[str, tuple[int, ...]] = {
            value: tuple(self.position[id(n)] for n in found)
            for value, found in self.graph.users.items()
        }
        self.pinned = {*self.graph.outputs, *(value for _, value in self.graph.updates)}

    def groups(self, enable: bool) -> list[list[int]]:
        """Positions of the nodes of each group."""
        taken: set[int] = set()
        found: list[list[int]] = []
        for k in self.parts:
            if k in taken:
                continue
            members = [k]
            while enable and (more := self.extension(members, taken)):
                members += more
            taken |= set(members)
            found.append(sorted(members))
        return found

    def extension(self, members: list[int], taken: set[int]) -> list[int]:
        """The nodes by which a group grows: all that use its result, if they fit."""
        value = self.result(members)
        if value is None or value in self.pinned or len(members) >= LARGEST_GROUP:
            return []
        if self.graph.types[value].dtype in self.stored:
            return []
        users = self.users.get(value, ())
        if not users or any(u in taken or u not in self.parts for u in users):
            return []
        folds = any(self.parts[k].pointwise is None for k in members)
        if len(users) > 1:
            return self.diamond(value, taken)
        part = self.parts[users[0]]
        name = self.graph.nodes[users[0]].name
        if part.reads_in_place(value):
            return [users[0]]
        if not folds and (part.reads_once(value) or part.reads_by_rows(value)):
            return [users[0]]
        log.debug("%s: not fused with what makes %s: elements are not used one by one", name, value)
        return []

    def result(self, members: list[int]) -> str | None:
        """The only value of a group that is used outside of it."""
        made = {o for k in members for o in self.graph.nodes[k].outputs if o}
        outside = [
            v
            for v in made
            if v in self.pinned or any(u not in members for u in self.users.get(v, ()))
        ]
        return outside[0] if len(outside) == 1 else None

    def diamond(self, value: str, taken: set[int]) -> list[int]:
        """Pointwise nodes through which all uses of `value` meet in one result again."""
        made = {value}
        nodes: list[int] = []
        for k in range(min(self.users[value]), len(self.graph.nodes)):
            node = self.graph.nodes[k]
            read = [v for v in dict.fromkeys(node.inputs) if v in made]
            if not read:
                continue
            if k in taken or k not in self.parts or len(nodes) == LARGEST_DIAMOND:
                return []
            if not all(self.parts[k].reads_in_place(v) for v in read):
                return []
            nodes.append(k)
            made |= {o for o in node.outputs if o}
            open_values = [v for v in made if any(u not in nodes for u in self.users.get(v, ()))]
            result = node.outputs[0]
            if made & self.pinned - {result}:
                return []
            if all(v == result for v in open_values):
                return nodes
        return []

    def group_node(self, members: list[int]) -> Node:
        """The members as one node of op Group."""
        nodes = tuple(self.graph.nodes[k] for k in members)
        made = {o for n in nodes for o in n.outputs if o}
        inputs = tuple(dict.fromkeys(i for n in nodes for i in n.inputs if i and i not in made))
        outputs = tuple(
            o
            for n in nodes
            for o in n.outputs
            if o and (o in self.pinned or any(u not in members for u in self.users.get(o, ())))
        ) or tuple(o for o in nodes[-1].outputs if o)
        types = {i: self.module.type_of(i) for i in inputs}
        types |= {o: self.graph.types[o] for n in nodes for o in n.outputs if o}
        region = Graph(outputs[0], inputs, outputs, nodes, types)
        location = nodes[0].location
        return Node("Group", inputs, outputs, {"device": self.device}, (region,), location)
