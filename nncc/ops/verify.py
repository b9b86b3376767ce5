"""The verifier of a module, all levels: call it after every pass.

    verify(module)        # VerifyError, with the node's name, if anything is wrong

Of every node, in the main graph and in regions
  - its op is in the table, or is a definition of the module
  - operands are as many as the op declares; those that are not optional are there,
    and every one of a variadic operand
  - attributes are declared, of the declared kind, not NaN, and required ones are there
  - it has as many regions as the op takes
  - outputs have the types that inference gives
The structure of graphs is checked by `nncc.ir.verify_graph`, nests by `nncc.ir.verify_nests`,
Loops by `nncc.ir.verify_loops`; each states its invariants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from nncc.diagnostics import nearest
from nncc.ir.graph import AttrValue, Graph, Module, Node
from nncc.ir.nests import Nest
from nncc.ir.tensor import Tensor
from nncc.ir.types import DType, TensorType
from nncc.ir.verify_graph import verify_graph
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE, Op, Operand, Site, node_error


def verify(module: Module) -> None:
    """Checks every level that the module has. Raises VerifyError at the first breach."""
    verify_graph(module)
    _verify_nodes(module, module.graph, GraphBuilder(module.symbols, module.nests))
    if module.nests:
        from nncc.ir.verify_nests import verify_nest

        for nest in module.nests.values():
            verify_nest(nest)
    if module.functions:
        from nncc.ir.verify_loops import verify_functions

        verify_functions(module.functions)


def _verify_nodes(module: Module, graph: Graph, builder: GraphBuilder) -> None:
    for name in graph.inputs:
        if name not in builder.types:
            builder.input(name, graph.types[name])
    for node in graph.nodes:
        types = tuple(graph.types[o] for o in node.outputs if o)
        if node.op in module.definitions:
            verify_operands(node, *_signature(module, node))
        else:
            verify_node(node)
            _verify_types(node, builder.site(node), types)
            for region in node.regions:
                _verify_nodes(module, region, _inner(region, node, builder, module.nests))
        builder.add(node, tuple(graph.types[o] if o else types[0] for o in node.outputs))


def _inner(
    region: Graph, node: Node, builder: GraphBuilder, nests: Mapping[str, Nest]
) -> GraphBuilder:
    """A builder for a region that knows what is known of the node's inputs."""
    inner = GraphBuilder(nests=nests)
    for formal, actual in zip(region.inputs, node.inputs, strict=True):
        inner.input(formal, region.types[formal], builder.value(actual) if actual else None)
    return inner


def _signature(module: Module, node: Node) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    params = module.definitions[node.op].params
    inputs = tuple(Operand(p.name) for p in params if p.role == "in")
    return inputs, tuple(Operand(p.name) for p in params if p.role == "out")


def _verify_types(node: Node, site: Site, types: tuple[TensorType, ...]) -> None:
    inferred = tuple(TABLE[node.op].infer(replace(site, outputs=types)))
    present = [t for o, t in zip(node.outputs, inferred, strict=False) if o]
    if tuple(present) != types:
        stated, found = (", ".join(map(str, t)) for t in (types, present))
        raise node_error(node, f"the outputs are {stated}; by inference they are {found}")


def verify_node(node: Node) -> None:
    """Checks operands, attributes and regions of one node against its declaration."""
    declared = TABLE.get(node.op)
    if declared is None:
        raise node_error(node, "there is no such op", nearest(node.op, TABLE, "ops"))
    verify_operands(node, declared.inputs, declared.outputs)
    _verify_attrs(node, declared)
    if len(node.regions) != declared.regions:
        raise node_error(node, f"it has {len(node.regions)} regions, not {declared.regions}")


def verify_operands(node: Node, inputs: tuple[Operand, ...], outputs: tuple[Operand, ...]) -> None:
    """Checks the numbers of inputs and outputs and that none is absent that must be there."""
    for what, formals, actuals in (
        ("input", inputs, node.inputs),
        ("output", outputs, node.outputs),
    ):
        variadic = bool(formals) and formals[-1].variadic
        if len(actuals) > len(formals) and not variadic:
            raise node_error(node, f"{len(actuals)} {what}s, it takes {len(formals)}")
        for k, formal in enumerate(formals):
            present = k < len(actuals) and bool(actuals[k])
            if not present and not formal.optional and not formal.variadic:
                raise node_error(node, f"{what} {formal.name} is missing")
        if variadic and what == "input" and not all(actuals[len(formals) - 1 :]):
            raise node_error(node, f"an {what} among {formals[-1].name}… is absent")


def _verify_attrs(node: Node, declared: Op) -> None:
    for name, value in node.attrs.items():
        if name not in declared.attrs:
            help = nearest(name, declared.attrs, "attributes")
            raise node_error(node, f"there is no attribute '{name}'", help)
        kind = declared.attrs[name].kind
        if not KINDS[kind](value):
            raise node_error(node, f"attribute {name} is {value!r}, not of kind {kind}")
    for name, attr in declared.attrs.items():
        if attr.required and name not in node.attrs:
            raise node_error(node, f"attribute {name} is missing")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: object) -> bool:
    return isinstance(value, float) and not math.isnan(value)


def _all(check: Callable[[object], bool]) -> Callable[[AttrValue], bool]:
    return lambda value: isinstance(value, tuple) and all(check(v) for v in value)


KINDS: Mapping[str, Callable[[AttrValue], bool]] = {
    "int": _is_int,
    "float": _is_float,
    "bool": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "ints": _all(_is_int),
    "floats": _all(_is_float),
    "strings": _all(lambda v: isinstance(v, str)),
    "dtype": lambda value: isinstance(value, DType),
    "tensor": lambda value: isinstance(value, Tensor),
}
