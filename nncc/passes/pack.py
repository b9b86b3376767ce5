"""Put neighbouring pixels beside the channels of a convolution that has few of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.graph import Module, Node
from nncc.ir.nests import Nest
from nncc.ir.tensor import Tensor
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.lower import fresh_name
from nncc.passes.nest_parts import fresh
from nncc.passes.packing.layers import convolution, is_pinned
from nncc.passes.packing.nest import constant, packed_nest, view
from nncc.passes.packing.packing import Packing, packing
from nncc.passes.tensorize import find_contraction


@dataclass(frozen=True)
class Pack(Pass):
    """Compute several pixels of all channels in the lanes of one operation.

    With 8 filters and 32 lanes, of an operation that sums four neighbours:

    t[m,e,f] sum= x[0, e + r, f + s - 2] * w[m,0,r,s]       s in 0..5
    →
    t[e,F,l] sum= p[0, e + r, 4*F + 4*j + k] * W[r,j,l,k]   l in 0..32, j in 0..2, k in 0..4

    Lane l is filter l % 8 of pixel 4*F + l // 8; W holds w[l % 8, 0, r, 4*j + k - l // 8], and 0
    beside the filter; p is x with its border. Where a pooling follows whose windows do not
    overlap, it is computed at once: the lanes are pixels of its result, one accumulator stands
    for each place in the window. The channels of the result lie innermost in memory.

    Only where every reader of the result can take it so, fewer operations are needed, and the
    machine has registers for the accumulators.
    Runs after `lower`.
    """

    name: ClassVar[str] = "pack"

    def run(self, module: Module, target: Machine) -> Module:
        for made in [n.outputs[0] for n in module.graph.nodes]:
            node = module.graph.producer.get(made)  # as it reads now; None where it was pooled
            found = None if node is None else convolution(module, node, target)
            room = target.vector_registers
            chosen = packing(module, found, room) if found is not None else None
            if chosen is not None and _readers_take(module, chosen, target):
                module = _packed(module, chosen)
        return module


def _readers_take(module: Module, p: Packing, machine: Machine) -> bool:
    """Whether all calls that read the result can compute with it in its layout."""
    if is_pinned(module, p.result):
        return False
    for node in module.graph.nodes:
        if p.result in node.inputs:
            moved = _relaid(module, node, p)
            found = None if moved is None else find_contraction(moved, machine)
            if found is None or found.operation is None:
                return False
    return True


def _relaid(module: Module, node: Node, p: Packing) -> Nest | None:
    """The nest of a reader with another layout of the result; None if it has a view of it."""
    nest = module.nests.get(str(node.attrs.get("callee", "")))
    if nest is None or nest.schedule is not None:
        return None
    params = list(nest.params)
    for param, given in zip(nest.inputs, node.inputs, strict=True):
        if given == p.result:
            if param.type != p.y.type:
                return None
            params[params.index(param)] = replace(param, layout=p.layout)
    return replace(nest, params=tuple(params))


def _packed(module: Module, p: Packing) -> Module:
    """The module with the convolution packed: a padded copy, one nest, and a view of what it gives.

    The nests of its readers read the other layout.
    """
    change = _Change(module)
    c, graph = p.c, module.graph
    pad = change.nest(p.border.copy(f"{c.nest.name}.pad"))
    packed = change.nest(packed_nest(p, f"{c.nest.name}.packed"))
    seen = change.nest(view(p, f"{c.nest.name}.view"))
    padded = change.value(f"{c.value(c.x.tensor)}.padded")
    dense = change.value(f"{p.result}.packed")
    inputs = []
    for param in c.nest.inputs:
        if param.name == c.x.tensor:
            inputs.append(padded)
            continue
        old = c.value(param.name)
        symbol = module.symbols[old]
        data = Tensor(constant(p, param, symbol.data.array))
        inputs.append(change.value(f"{old}.packed"))
        change.symbols[inputs[-1]] = replace(symbol, data=data)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node is c.node:
            nodes.append(replace(_call(pad, c.value(c.x.tensor), padded), location=node.location))
            attrs = {**node.attrs, "callee": packed}
            nodes.append(replace(node, inputs=tuple(inputs), outputs=(dense,), attrs=attrs))
            nodes.append(replace(_call(seen, dense, p.result), location=node.location))
        elif p.result in node.inputs:
            moved = _relaid(module, node, p)
            assert moved is not None, "it was asked before"
            nodes.append(replace(node, attrs={**node.attrs, "callee": change.nest(moved)}))
        elif p.window is None or node is not p.window.node:
            nodes.append(node)
    types = {**graph.types, padded: p.border.padded.type, dense: p.dense}
    layouts = {**graph.layouts, p.result: p.layout}
    if (gone := c.node.outputs[0]) != p.result:
        types.pop(gone)
        layouts.pop(gone, None)
    used = {n.attrs.get("callee") for n in nodes}
    nests = {n: x for n, x in change.nests.items() if n in used or n not in module.nests}
    made = replace(graph, nodes=tuple(nodes), types=types, layouts=layouts)
    return replace(module, graph=made, nests=nests, symbols=change.symbols)


def _call(nest: str, x: str, y: str) -> Node:
    return Node("Call", (x,), (y,), {"callee": nest})


class _Change:
    """Nests and symbols to which new ones are added, under names that nothing has."""

    def __init__(self, module: Module) -> None:
        self.nests, self.symbols = dict(module.nests), dict(module.symbols)
        self._values = {*module.graph.types, *module.symbols}

    def nest(self, nest: Nest) -> str:
        """The name of a nest that is added, like the one that it has."""
        name = fresh_name(nest.name, self.nests)
        self.nests[name] = replace(nest, name=name)
        return name

    def value(self, hint: str) -> str:
        """A name like `hint`."""
        name = fresh(hint, self._values)
        self._values.add(name)
        return name
