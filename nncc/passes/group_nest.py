"""The nest of a group: its ops' nests one after the other, then simplified to as few as possible.

    Group { t = Conv(x, w, b); y = Relu(t) }
    →
    init: t[n,m,e,f] = b[m]
    acc:  t[n,m,e,f] sum= x[n,c,e+r,f+s] * w[m,c,r,s]
    out:  y[n,m,e,f] = max(t[n,m,e,f], 0)

Names are canonical, so that groups which compute the same have equal nests: tensors are named
after the operands of the op that does most of the work, statements after what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nncc.diagnostics import PassError
from nncc.ir.definition import instantiate
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import variables
from nncc.ir.nests import ASSIGN, Combine, Item, Nest, Param, Scan, Statement, sizes_of
from nncc.ir.types import TensorType
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE, Site, bind, get
from nncc.passes.nest_inline import inlined
from nncc.passes.nest_parts import fresh, map_statements, renamed, tensors_of
from nncc.passes.nest_rewrite import (
    with_accumulators,
    with_aligned_dims,
    without_unit_dims,
)
from nncc.passes.nest_split import with_split_dims


@dataclass(frozen=True)
class GroupNest:
    """A nest and the values of the graph that its `in` and `out` parameters stand for."""

    nest: Nest
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def values(self) -> Mapping[str, str]:
        """The value of each parameter."""
        names = [p.name for p in (*self.nest.inputs, *self.nest.outputs)]
        return dict(zip(names, (*self.inputs, *self.outputs), strict=True))


def has_nest(module: Module, node: Node) -> bool:
    """Whether a node becomes a nest: a group, a user's definition, an op that computes something.

    Views that keep the row-major order do not: their output is their input's buffer.
    """
    if node.op == "Group" or node.op in module.definitions:  # a group is what its region is
        return True
    declared = TABLE.get(node.op)
    return declared is not None and declared.nest is not None and "alias" not in declared.traits


def as_region(graph: Graph, node: Node, module: Module) -> Graph:
    """The body of a group; any other node as a body of its own."""
    if node.regions and node.op == "Group":  # the one op whose meaning is just its region
        return node.regions[0]
    inputs = tuple(dict.fromkeys(i for i in node.inputs if i))
    outputs = tuple(o for o in node.outputs if o)
    types = {i: _type(graph, module, i) for i in inputs} | {o: graph.types[o] for o in outputs}
    return Graph(node.name, inputs, outputs, (node,), types)


def _type(graph: Graph, module: Module, name: str) -> TensorType:
    return graph.types[name] if name in graph.types else module.symbols[name].type


def op_nest(module: Module, site: Site) -> Nest:
    """The nest of one op or of a user's definition. Raises PassError if it has none."""
    node = site.node
    if node.op in module.definitions:
        types = tuple(t for t in site.inputs if t is not None)
        return instantiate(module.definitions[node.op], types, node.attrs)
    nest = get(node).nest
    if nest is None:
        raise PassError(f"{node.op} is no loop nest", node.location, "legalize decomposes such ops")
    return nest(site)


def formal_names(module: Module, node: Node) -> Mapping[str, str]:
    """The node's values by the names of the parameters of its nest."""
    if node.op not in module.definitions:
        return bind(node)
    params = [p for p in module.definitions[node.op].params if p.role != "local"]
    formals = [p.name for role in ("in", "out") for p in params if p.role == role]
    pairs = zip(formals, (*node.inputs, *node.outputs), strict=True)
    return {formal: value for formal, value in pairs if value}


def node_nests(module: Module, region: Graph, outer: Mapping[str, str]) -> tuple[Nest, ...]:
    """The nest of each node, with tensors named by the values of the region.

    Args:
        outer: the value or symbol of the enclosing graph for each input of the region.
    """
    symbols = {i: module.symbols[o] for i, o in outer.items() if o in module.symbols}
    builder = GraphBuilder(symbols, module.nests)
    for name in region.inputs:
        if name not in symbols:
            builder.input(name, region.types[name])
    found = []
    for node in region.nodes:
        outputs = tuple(region.types[o] for o in node.outputs if o)
        nest = op_nest(module, replace(builder.site(node), outputs=outputs))
        formal = formal_names(module, node)
        names = {p.name: formal[p.name] for p in nest.params if p.role != "local"}
        prefix = next(o for o in node.outputs if o)
        local = {p.name: f"{prefix}.{p.name}" for p in nest.locals}
        found.append(renamed(nest, names | local))
        builder.add(node, tuple(region.types[o] if o else region.types[prefix]
                                for o in node.outputs))  # fmt: skip
    return tuple(found)


def group_nest(module: Module, graph: Graph, node: Node) -> GroupNest:
    """The simplified nest of a group, or of a single op, of `graph`.

    Raises PassError if an op has no nest.
    """
    region = as_region(graph, node, module)
    given = node.inputs if node.op == "Group" else region.inputs
    outer = dict(zip(region.inputs, given, strict=True))
    nests = node_nests(module, region, outer)
    nest = concatenated(region, nests)
    nest = with_accumulators(inlined(nest))
    nest = with_split_dims(with_aligned_dims(without_unit_dims(nest)))
    lead = leading(nests)
    names = _canonical_names(nest, region, lead, module)
    read = frozenset[str]().union(*(tensors_of(s) for s in nest.statements))
    inputs = tuple(i for i in region.inputs if i in read)
    order = {name: k for k, name in enumerate((*inputs, *region.outputs))}
    params = [p for p in nest.params if p.role == "local" or p.name in order]
    params.sort(key=lambda p: order.get(p.name, len(order)))
    inner = dict(zip(region.outputs, (o for o in node.outputs if o), strict=True))
    nest = renamed(replace(nest, params=tuple(params)), names)
    nest = with_canonical_statements(replace(nest, sizes=_used_sizes(nest, module)))
    return GroupNest(
        replace(nest, name=_nest_name(region.nodes[lead]), location=region.nodes[lead].location),
        tuple(outer[i] for i in inputs),
        tuple(inner[o] for o in region.outputs),
    )


def leading(nests: tuple[Nest, ...]) -> int:
    """The position of the nest that does most of the work; the first if all are pointwise."""
    work = [
        max((len(s.dims) for s in nest.statements if s.combine != ASSIGN), default=0)
        for nest in nests
    ]
    return work.index(max(work))


def concatenated(region: Graph, nests: tuple[Nest, ...]) -> Nest:
    """The ops' nests as one: values between them are locals."""
    params: dict[str, Param] = {}
    body: list[Item] = []
    combines: dict[str, Combine] = {}
    taken: set[str] = set()
    for nest in nests:
        nest = _with_combines(nest, combines)
        for p in nest.params:
            if p.name in region.inputs:
                params.setdefault(p.name, replace(p, role="in"))
            else:
                params[p.name] = replace(p, role="out" if p.name in region.outputs else "local")

        def unique(s: Statement) -> Statement:
            name = fresh(s.name, taken)
            taken.add(name)
            return replace(s, name=name)

        body += map_statements(nest, unique).body
    sizes = tuple(dict.fromkeys(s for nest in nests for s in nest.sizes))
    return Nest(region.name, sizes, tuple(params.values()), tuple(body), tuple(combines.values()))


def _with_combines(nest: Nest, known: dict[str, Combine]) -> Nest:
    """`nest` with its combines under names that no other combine of the group has."""
    names: dict[str, str] = {}
    for c in nest.combines:
        same = (k for k, other in known.items() if replace(other, name=c.name) == c)
        name = next(same, None) or fresh(c.name, set(known))
        known[name] = replace(c, name=name)
        names[c.name] = name
    return map_statements(nest, lambda s: replace(s, combine=names.get(s.combine, s.combine)))


def _canonical_names(nest: Nest, region: Graph, lead: int, module: Module) -> dict[str, str]:
    """New names of the tensors: the leading op's operands keep their formal names."""
    taken = {d.name for s in nest.statements for d in s.dims} | set(nest.sizes)
    taken |= {i.dim.name for i in nest.body if isinstance(i, Scan)}
    names: dict[str, str] = {}

    def give(value: str, hint: str) -> None:
        if value in known and value not in names:
            names[value] = fresh(hint, taken)
            taken.add(names[value])

    known = {p.name for p in nest.params}
    for output in region.outputs:
        give(output, "y")
    order = [region.nodes[lead], *region.nodes[:lead], *region.nodes[lead + 1 :]]
    for n in order:
        for formal, value in formal_names(module, n).items():
            if value in region.inputs:
                give(value, formal)
    for p in nest.locals:
        give(p.name, "t")
    return names


def _used_sizes(nest: Nest, module: Module) -> tuple[str, ...]:
    """The named sizes that the nest needs, in the order of the module's signature."""
    used = {v for p in nest.params for extent in p.type.shape for v in variables(extent)}
    for s in nest.statements:
        used |= frozenset[str]().union(*(variables(size) for size in sizes_of(s)))
    declared = (*module.sizes, *(s for s in nest.sizes if s not in module.sizes))
    return tuple(s for s in declared if s in used)


def with_canonical_statements(nest: Nest) -> Nest:
    """`init` prepares what `acc` folds into, `out` assigns outputs, `set` any other tensor."""
    outputs = {p.name for p in nest.outputs}
    taken: set[str] = set()

    def rule(s: Statement) -> Statement:
        tensor = s.targets[0].tensor
        if s.combine != ASSIGN:
            hint = "acc"
        elif tensor in folded:
            hint = "init"
        else:
            hint = "out" if tensor in outputs else "set"
        name = fresh(hint, taken)
        taken.add(name)
        return replace(s, name=name)

    folded = {t.tensor for s in nest.statements if s.combine != ASSIGN for t in s.targets}
    return map_statements(nest, rule)


def _nest_name(node: Node) -> str:
    """The node's name as an identifier."""
    letters = (c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in node.name)
    name = "".join(letters).strip("_.") or "nest"
    return name if not name[0].isdigit() else f"n{name}"
