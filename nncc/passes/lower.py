"""Groups become nests, and the graph becomes calls of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.graph import Graph, Module, Node
from nncc.ir.nests import Nest, Param
from nncc.ir.verify_nests import verify_nest
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.group_nest import GroupNest, group_nest, has_nest
from nncc.passes.nest_axes import with_merged_dims
from nncc.passes.nest_parts import fresh


@dataclass(frozen=True)
class Lower(Pass):
    """Replace each group by a call of a loop nest; groups that compute the same share one.

    y = Group(x, w, b) { t = Conv(x, w, b); y = Relu(t) }  →  y = Call(x, w, b) {callee="conv1"}

    The parameters of a nest have the layouts of the values. Views that keep the row-major order
    stay as they are. A parameter may have fewer axes than its value (merged ones, see
    `nncc.passes.nest_axes`), never other bytes.
    """

    name: ClassVar[str] = "lower"

    def run(self, module: Module, target: Machine) -> Module:
        nests: dict[str, Nest] = dict(module.nests)
        known: dict[Nest, str] = {replace(n, name=""): name for name, n in nests.items()}
        nodes: list[Node] = []
        for node in module.graph.nodes:
            if not has_nest(module, node):
                nodes.append(node)
                continue
            found = with_layouts(group_nest(module, module.graph, node), module.graph)
            key = replace(found.nest, name="")
            if key not in known:
                name = fresh_name(found.nest.name, nests)
                verify_nest(found.nest)
                nests[name] = replace(found.nest, name=name)
                known[key] = name
            nodes.append(
                Node("Call", found.inputs, found.outputs, {"callee": known[key]},
                     location=node.location)
            )  # fmt: skip
        if nests == module.nests:
            return module
        graph = replace(module.graph, nodes=tuple(nodes))
        return replace(module, graph=graph, nests=nests)


def fresh_name(hint: str, nests: Mapping[str, Nest]) -> str:
    """A name for a nest like `hint` that no nest has yet."""
    return hint if hint not in nests else fresh(f"{hint}_", set(nests) | {f"{hint}_"})


def with_layouts(found: GroupNest, graph: Graph) -> GroupNest:
    """The nest with the layouts of its values, and dims merged as far as those allow."""
    values = found.values

    def param(p: Param) -> Param:
        return p if p.role == "local" else replace(p, layout=graph.layouts.get(values[p.name]))

    nest = replace(found.nest, params=tuple(param(p) for p in found.nest.params))
    return replace(found, nest=with_merged_dims(nest))
