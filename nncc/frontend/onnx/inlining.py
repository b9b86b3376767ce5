"""Groups opened again: fusion invents no ops, so that what it has grouped can be written out.

g = Group(x) { (a) -> (c) b = Relu(a); c = Neg(b) }   →   b = Relu(x); g = Neg(b)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nncc.ir.graph import Graph, Node


def inline_groups(graph: Graph) -> Graph:
    """The graph with every node that is only a region replaced by the region's nodes.

    The same object if there is none. Names inside are kept where they are free.
    """
    if not any(n.op == "Group" for n in graph.nodes):
        return graph
    types = dict(graph.types)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op != "Group":
            nodes.append(node)
            continue
        (region,) = node.regions
        body = inline_groups(region)
        names = _names(body, node, types)
        for inner in body.nodes:
            nodes.append(
                replace(inner, inputs=_renamed(inner.inputs, names),
                        outputs=_renamed(inner.outputs, names))
            )  # fmt: skip
        types.update((names[o], t) for o, t in body.types.items() if o in body.producer)
        nodes += _copies(body, node, names)
    return replace(graph, nodes=tuple(nodes), types=types)


def _renamed(names: tuple[str, ...], new: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(new.get(n, n) for n in names)


def _names(body: Graph, node: Node, taken: Mapping[str, object]) -> dict[str, str]:
    """What each value of the region is called outside."""
    names = dict(zip(body.inputs, node.inputs, strict=True))
    for inner, outer in zip(body.outputs, node.outputs, strict=True):
        if outer and inner not in names:
            names[inner] = outer
    used = {*taken, *names.values()}
    for value in body.producer:
        if value in names:
            continue
        name, count = value, 1
        while name in used:
            count += 1
            name = f"{value}_{count}"
        names[value] = name
        used.add(name)
    return names


def _copies(body: Graph, node: Node, names: Mapping[str, str]) -> list[Node]:
    """Identities for outputs that are an input of the region, or another output too."""
    return [
        Node("Identity", (names[inner],), (outer,), location=node.location)
        for inner, outer in zip(body.outputs, node.outputs, strict=True)
        if outer and names[inner] != outer
    ]
