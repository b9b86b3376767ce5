"""A legalized module cut into segments, each for one device: the target, or the host.

    partition(module)    →    (Segment("host", …), Segment("target", …), Segment("host", …))

        q = Group(x) {device="cpu"} { q = QuantizeLinear(x, …) }    first segment: x → q
        a = IntConv(q, w); r = Requantize(a, …)                     second: q → r
        y = Group(r) {device="cpu"} { y = DequantizeLinear(r, …) }  third: r → y

A segment is a module of its own. What goes from device to device has its name in the whole graph,
as an output of one segment and an input of later ones; inputs, outputs and updates of the whole
graph keep their names, too. States are kept by whoever runs the segments one after the other: they
are inputs of the segments that read them, and new values are outputs like any others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import variables
from nncc.ir.types import TensorType
from nncc.machines.machine import HOST
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE
from nncc.ops.verify import verify

Device = Literal["host", "target"]
DEVICES: tuple[Device, Device] = ("host", "target")


@dataclass(frozen=True)
class Segment:
    """A part of a model that one device computes without a break."""

    device: Device
    module: Module


def on_host(node: Node) -> bool:
    """Whether `legalize` has placed a node on the host."""
    return node.op == "Group" and node.attrs.get("device") == HOST


def partition(module: Module) -> tuple[Segment, ...]:
    """The fewest segments in which every value is made before it is read, in order.

    Nodes that `legalize` placed on the host are the host's; all others are the target's. Views that
    keep the row-major order go where they cost nothing and make no segment of their own; what
    follows from shapes alone is computed wherever it is needed.
    """
    parts = _Parts(module)
    runs = min((parts.runs(first) for first in DEVICES), key=len)
    return parts.segments(runs)


def without_groups(module: Module) -> Module:
    """A legalized module with the nodes of the host's groups in the graph itself."""
    parts = _Parts(module)
    made = {*module.graph.inputs, *parts.made}
    types = {n: t for n, t in parts.types.items() if n in made}
    return module.with_graph(replace(module.graph, nodes=tuple(parts.nodes), types=types))


Run = tuple[Device, list[int]]  # a device and the numbers of its nodes


class _Parts:
    """The nodes of the whole graph, numbered in order, with those of the host's groups opened."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.nodes: list[Node] = []
        hosts: list[bool] = []
        for node in module.graph.nodes:
            opened = _opened(node) if on_host(node) else [node]
            self.nodes += opened
            hosts += [on_host(node)] * len(opened)
        self.made = {o: k for k, n in enumerate(self.nodes) for o in n.outputs if o}
        self.users: dict[str, list[int]] = {}
        for k, node in enumerate(self.nodes):
            for i in node.inputs:
                self.users.setdefault(i, []).append(k)
        self.types = dict(module.graph.types)
        self.shapes = self._shape_nodes()
        self.devices = self._devices(hosts)
        self.needs = self._needs()

    # -- devices ---------------------------------------------------------------------------
    def _shape_nodes(self) -> set[int]:
        """The nodes whose value follows from shapes: known up to named sizes."""
        builder = GraphBuilder(self.module.symbols, self.module.nests)
        for name in self.module.graph.inputs:
            builder.input(name, self.module.graph.types[name])
        found = set()
        for k, node in enumerate(self.nodes):
            known = all(o in self.types for o in node.outputs if o)
            builder.add(node, self._output_types(node) if known else None)
            self.types.update((o, builder.types[o]) for o in node.outputs if o)
            if all(builder.value(o) is not None for o in node.outputs if o):
                found.add(k)
        return found

    def _output_types(self, node: Node) -> tuple[TensorType, ...]:
        first = next(self.types[o] for o in node.outputs if o)
        return tuple(self.types[o] if o else first for o in node.outputs)

    def _devices(self, hosts: Sequence[bool]) -> list[Device | None]:
        """The device of each node; None: whichever needs it, each for itself."""
        given_out = {self.made.get(n) for n in self._given_out()}
        devices: list[Device | None] = [
            None if k in self.shapes and k not in given_out
            else "host" if host or k in self.shapes else "target"
            for k, host in enumerate(hosts)
        ]  # fmt: skip
        for k, node in enumerate(self.nodes):
            if devices[k] == "target" and is_alias(node):
                devices[k] = self._device_of_view(k, devices)
        return devices

    def _device_of_view(self, k: int, devices: Sequence[Device | None]) -> Device:
        """A view belongs to the host where it touches it, for nothing is copied there."""
        source = self.made.get(self.nodes[k].inputs[0])
        if source is not None and devices[source] != "target":
            return "host"
        readers = [devices[u] for u in self._readers_behind_views(k)]
        if source is None:  # of what the caller gives
            return "target" if "target" in readers else "host"
        return "host" if readers and "target" not in readers else "target"

    def _readers_behind_views(self, k: int) -> list[int]:
        found: list[int] = []
        for o in self.nodes[k].outputs:
            for user in self.users.get(o, ()):
                if is_alias(self.nodes[user]) and self.nodes[user].inputs[0] == o:
                    found += self._readers_behind_views(user)
                else:
                    found.append(user)
        return found

    # -- runs ------------------------------------------------------------------------------
    def runs(self, first: Device) -> list[Run]:
        """The nodes in runs of one device each, as long as possible, beginning with `first`."""
        left = [k for k, device in enumerate(self.devices) if device is not None]
        done: set[int] = set()
        runs: list[Run] = []
        device = first
        while left:
            taken = []
            for k in left:  # nodes stand in order: one pass finds all that can follow
                if self.devices[k] == device and self.needs[k] <= done:
                    taken.append(k)
                    done.add(k)
            left = [k for k in left if k not in done]
            if taken:
                runs.append((device, taken))
            device = "target" if device == "host" else "host"
        return runs

    def _needs(self) -> list[frozenset[int]]:
        """The nodes of some device that each node waits for."""
        needs: list[frozenset[int]] = []
        for node in self.nodes:
            found: set[int] = set()
            for k in (self.made[i] for i in node.inputs if i in self.made):
                found |= {k} if self.devices[k] is not None else needs[k]
            needs.append(frozenset(found))
        return needs

    # -- modules ---------------------------------------------------------------------------
    def segments(self, runs: Sequence[Run]) -> tuple[Segment, ...]:
        """A module for each run; one for the host if it must be there to hand out constants."""
        constants = self._constants_handed_out()
        if constants and all(device != "host" for device, _ in runs):
            runs = [*runs, ("host", [])]
        members = [self._with_shapes(taken) for _, taken in runs]
        found: list[Segment] = []
        for position, (device, taken) in enumerate(runs):
            outputs = self._outputs(taken, members[:position] + members[position + 1 :])
            if device == "host":
                outputs += constants
                constants = []
            if outputs:
                name = f"{self.module.graph.name}_{len(found)}"
                module = self._module(name, members[position], outputs)
                verify(module)
                found.append(Segment(device, module))
        return tuple(found)

    def _given_out(self) -> list[str]:
        """What callers get, and what states become."""
        graph = self.module.graph
        return list(dict.fromkeys((*graph.outputs, *(v for _, v in graph.updates))))

    def _constants_handed_out(self) -> list[str]:
        symbols = self.module.symbols
        return [n for n in self._given_out() if n in symbols and symbols[n].kind != "state"]

    def _with_shapes(self, taken: Iterable[int]) -> list[int]:
        """The nodes, and those that compute shapes for them, in order."""
        found = set(taken)
        waiting = list(found)
        while waiting:
            for i in self.nodes[waiting.pop()].inputs:
                k = self.made.get(i)
                if k in self.shapes and k not in found:
                    found.add(k)
                    waiting.append(k)
        return sorted(found)

    def _outputs(self, taken: Iterable[int], others: Sequence[Sequence[int]]) -> list[str]:
        """What the nodes of a run make that others read."""
        read = set(self._given_out())
        for members in others:
            own = set(members)
            read |= {
                i for k in members for i in self.nodes[k].inputs if self.made.get(i) not in own
            }
        return [o for k in sorted(taken) for o in self.nodes[k].outputs if o and o in read]

    def _module(self, name: str, members: Sequence[int], outputs: list[str]) -> Module:
        whole = self.module
        nodes = tuple(self.nodes[k] for k in members)
        made = {o for n in nodes for o in n.outputs if o}
        read = dict.fromkeys(i for n in nodes for i in n.inputs if i and i not in made)
        symbols = {
            n: whole.symbols[n]
            for n in (*read, *outputs)
            if n in whole.symbols and whole.symbols[n].kind != "state"
        }
        inputs = [n for n in read if n not in symbols]
        types = {n: self._type(n) for n in (*inputs, *made)}
        definitions = {n: d for n, d in whole.definitions.items() if any(n == k.op for k in nodes)}
        graph = Graph(name, tuple(inputs), tuple(outputs), nodes, types)
        return self._with_told_sizes(Module(graph, whole.sizes, symbols, definitions))

    def _type(self, name: str) -> TensorType:
        return self.types[name] if name in self.types else self.module.symbols[name].type

    def _with_told_sizes(self, module: Module) -> Module:
        """With only the named sizes that occur, each of which follows from some input.

        Where no extent of an input is just the size, inputs of the whole graph are passed on.
        """
        graph, whole = module.graph, self.module.graph
        used = _sizes(graph.types.values())
        told = {str(e) for i in graph.inputs for e in graph.types[i].shape}
        if not used <= told:
            added = [i for i in whole.inputs if _sizes([whole.types[i]]) and i not in graph.inputs]
            types = {**graph.types, **{i: whole.types[i] for i in added}}
            used = _sizes(types.values())
            graph = replace(graph, inputs=(*graph.inputs, *added), types=types)
        sizes = tuple(s for s in module.sizes if s in used)
        return replace(module, graph=graph, sizes=sizes)


def _sizes(types: Iterable[TensorType]) -> frozenset[str]:
    return frozenset[str]().union(*(variables(e) for t in types for e in t.shape))


def is_alias(node: Node) -> bool:
    """Whether a node's output is its input's buffer, renumbered."""
    declared = TABLE.get(node.op)
    return declared is not None and "alias" in declared.traits


def _opened(group: Node) -> list[Node]:
    """The nodes inside of a group, on the values outside."""
    (body,) = group.regions
    names = dict(zip(body.inputs, group.inputs, strict=True))
    names.update(zip(body.outputs, group.outputs, strict=True))

    def renamed(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(names.get(v, v) for v in values)

    return [replace(n, inputs=renamed(n.inputs), outputs=renamed(n.outputs)) for n in body.nodes]
