"""The verifier of a module, all levels: call it after every pass.

    verify(module)        # VerifyError, with the node's name, if anything is wrong

Of every node, in the main graph and in regions
  - its op is in the table, or is a definition of the module
  - operands are as many as the op declares; those that are not optional are there,
    and every one of a variadic operand
  - attributes are declared, of the declared kind, not NaN, and required ones are there
  - it has as many regions as the op takes
  - outputs have the types that inference gives
  - sums of integers stay within int32, by the weights and the limits of the dtypes
  - the parameters of a nest that is called have the layouts of what is given for them
The structure of graphs is checked by `nncc.ir.verify_graph`, nests by `nncc.ir.verify_nests`,
Loops by `nncc.ir.verify_loops`; each states its invariants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from nncc.diagnostics import nearest
from nncc.ir.definition import output_types
from nncc.ir.graph import AttrValue, Graph, Module, Node
from nncc.ir.index import evaluate
from nncc.ir.nests import Definition, Layout, Nest
from nncc.ir.packing import pack
from nncc.ir.tensor import Tensor
from nncc.ir.text.print_expr import print_layout
from nncc.ir.types import DType, TensorType
from nncc.ir.verify_graph import verify_graph
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE, Op, Operand, Site, node_error, operand_position


def verify(module: Module) -> None:
    """Checks every level that the module has. Raises VerifyError at the first breach."""
    verify_graph(module)
    _verify_nodes(module, module.graph, GraphBuilder(module.symbols, module.nests))
    if module.nests:
        from nncc.ir.verify_nests import verify_nest

        for nest in module.nests.values():
            verify_nest(nest)
        verify_layouts(module)
    if module.functions:
        from nncc.ir.verify_loops import verify_functions

        verify_functions(module.functions)


def verify_layouts(module: Module) -> None:
    """The parameters of called nests have the layouts of what is given. Raises VerifyError."""
    layouts = module.graph.layouts
    for node in module.graph.nodes:
        if node.op != "Call":
            continue
        nest = module.nests[str(node.attrs["callee"])]
        given = (*node.inputs, *node.outputs)
        for p, value in zip((*nest.inputs, *nest.outputs), given, strict=True):
            if value and not _same_places(
                p.type, p.layout, module.type_of(value), layouts.get(value), module.sizes
            ):
                raise node_error(
                    node,
                    f"parameter '{p.name}' of nest '{nest.name}' is {_in(p.layout)}, but what is "
                    f"given for it, '{value}', is {_in(layouts.get(value))}",
                )


def _same_places(
    a: TensorType, own: Layout | None, b: TensorType, given: Layout | None, sizes: Sequence[str]
) -> bool:
    """Whether elements that follow one another have the same places in two layouts.

    The dimensions may be merged or split: all places are compared, with some numbers as sizes.
    """
    if own == given and a == b:
        return True
    if own is not None and own.fill is not None and (given is None or own.fill != given.fill):
        return False
    found: list[bool] = []
    for first in (2, 3, 17, 40, 300):  # a model may ask for sizes from some number on
        numbers = {name: first + k for k, name in enumerate(sizes)}
        shapes = [[int(evaluate(e, numbers)) for e in t.shape] for t in (a, b)]
        if len(found) < 2 and min((1, *shapes[0], *shapes[1])) > 0:
            places = [
                pack(np.arange(1, math.prod(s) + 1, dtype=np.int32).reshape(s), layout, numbers)
                for s, layout in zip(shapes, (own, given), strict=True)
            ]
            found.append(np.array_equal(places[0].reshape(-1), places[1].reshape(-1)))
    return bool(found) and all(found)


def _in(layout: Layout | None) -> str:
    return "row-major" if layout is None else f"in {print_layout(layout).strip()}"


def _verify_nodes(module: Module, graph: Graph, builder: GraphBuilder) -> None:
    for name in graph.inputs:
        if name not in builder.types:
            builder.input(name, graph.types[name])
    for node in graph.nodes:
        types = tuple(graph.types[o] for o in node.outputs if o)
        if node.op in module.definitions:
            _verify_definition(module.definitions[node.op], node, builder, types)
        else:
            verify_node(node)
            _verify_types(node, builder.site(node), types)
            _verify_accumulator(node, builder)
            for region in node.regions:
                _verify_nodes(module, region, _inner(region, node, builder, module.nests))
        builder.add(node, tuple(graph.types[o] if o else types[0] for o in node.outputs))


def _inner(
    region: Graph, node: Node, builder: GraphBuilder, nests: Mapping[str, Nest]
) -> GraphBuilder:
    """A builder for a region that knows what is known of the node's inputs."""
    pairs = list(zip(region.inputs, node.inputs, strict=True))
    inner = GraphBuilder({f: builder.symbols[a] for f, a in pairs if a in builder.symbols}, nests)
    for formal, actual in pairs:
        inner.input(formal, region.types[formal], builder.value(actual) if actual else None)
    return inner


def _verify_definition(
    definition: Definition, node: Node, builder: GraphBuilder, types: tuple[TensorType, ...]
) -> None:
    formals = [
        tuple(Operand(p.name) for p in definition.params if p.role == role)
        for role in ("in", "out")
    ]
    verify_operands(node, *formals)
    inputs = tuple(builder.type(i) for i in node.inputs)
    _compare_types(node, output_types(definition, inputs, node.attrs), types)


def _verify_types(node: Node, site: Site, types: tuple[TensorType, ...]) -> None:
    _compare_types(node, TABLE[node.op].infer(replace(site, outputs=types)), types)


def _compare_types(
    node: Node, inferred: Sequence[TensorType], types: tuple[TensorType, ...]
) -> None:
    present = [t for o, t in zip(node.outputs, inferred, strict=False) if o]
    if tuple(present) != types:
        stated, found = (", ".join(map(str, t)) for t in (types, present))
        raise node_error(node, f"the outputs are {stated}; by inference they are {found}")


def _verify_accumulator(node: Node, builder: GraphBuilder) -> None:
    """The int32 sums of the node stay within int32 whatever its inputs are."""
    declared = TABLE[node.op]
    if declared.accumulator is None:
        return

    def array(name: str) -> np.ndarray | None:
        position = operand_position(declared, name)
        value = node.inputs[position] if position < len(node.inputs) else ""
        symbol = builder.symbols.get(value)
        return symbol.data.array if symbol and symbol.declared is None else builder.value(value)

    bound = declared.accumulator(builder.site(node), array)
    if bound >= 1 << 31:
        raise node_error(node, f"its sums may reach {bound}, which int32 does not hold")


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
