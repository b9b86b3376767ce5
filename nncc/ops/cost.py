"""How large a module is: multiply-accumulates, from the nests of its ops; parameters.

    macs(module)       ->  {"conv1": 784*N*200, …}          by node, named sizes stay symbolic
    total_macs(module, {"N": 1})                            their sum, as an int
    parameters(module)                                      elements of all weights

A multiply-accumulate is an instance of a statement that sums products of elements of two tensors;
so sums, pools and elementwise ops have none. Ops that the user defined are counted once `lower`
has made nests of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from nncc.ir.expr import Apply, loads, walk
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import Size, evaluate, product
from nncc.ir.nests import Nest, Statement
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE


def macs(module: Module) -> dict[str, Size]:
    """The multiply-accumulates of each node of the main graph that has any, by the node's name."""
    found: dict[str, Size] = {}
    for node, count in zip(module.graph.nodes, node_macs(module), strict=True):
        found[node.name] = found.get(node.name, 0) + count
    return {name: count for name, count in found.items() if count != 0}


def node_macs(module: Module) -> list[Size]:
    """The multiply-accumulates of the nodes of the main graph, in order."""
    return _graph_macs(module, module.graph, GraphBuilder(module.symbols, module.nests))


def total_macs(module: Module, sizes: Mapping[str, int]) -> int:
    """The multiply-accumulates of one run with these named sizes."""
    return sum(int(evaluate(count, sizes)) for count in macs(module).values())


def parameters(module: Module) -> int:
    """How many elements the module's `param` symbols have."""
    params = [s.data.type for s in module.symbols.values() if s.kind == "param"]
    return sum(math.prod(t.static_shape) for t in params)


def nest_macs(nest: Nest) -> Size:
    """The multiply-accumulates of one execution of a nest; `where` constraints are not counted
    off."""
    total: Size = 0
    for statement in nest.statements:
        if _multiplies(statement):
            total = total + product(d.extent for d in statement.dims)
    return total


def _multiplies(statement: Statement) -> bool:
    if statement.combine != "sum" or not statement.reduction_dims:
        return False
    value = statement.values[0]
    has_product = any(isinstance(e, Apply) and e.fn == "mul" for e in walk(value))
    return has_product and len({load.tensor for load in loads(value)}) > 1


def _graph_macs(module: Module, graph: Graph, builder: GraphBuilder) -> list[Size]:
    counts: list[Size] = []
    for name in graph.inputs:
        if name not in builder.types:
            builder.input(name, graph.types[name])
    for node in graph.nodes:
        types = tuple(graph.types[o] for o in node.outputs if o)
        counts.append(_node_macs(module, graph, node, builder))
        builder.add(node, types)
    return counts


def _node_macs(module: Module, graph: Graph, node: Node, builder: GraphBuilder) -> Size:
    if callee := node.attrs.get("callee"):
        return nest_macs(module.nests[str(callee)])
    if node.regions:
        inner = GraphBuilder(nests=module.nests)
        region = node.regions[0]
        for formal, actual in zip(region.inputs, node.inputs, strict=True):
            inner.input(formal, region.types[formal], builder.value(actual) if actual else None)
        total: Size = 0
        for count in _graph_macs(module, region, inner):
            total = total + count
        return total
    declared = TABLE.get(node.op)
    if declared is None or declared.nest is None or "contraction" not in declared.traits:
        return 0
    site = builder.site(node)
    types = tuple(graph.types[o] for o in node.outputs if o)
    return nest_macs(declared.nest(replace(site, outputs=types)))
