"""What `pack` looks for: a convolution in one nest, and a pooling that reads it."""

from __future__ import annotations

from dataclasses import dataclass

from nncc.ir.expr import Const, Expr, Load, Value, loads, walk
from nncc.ir.graph import Module, Node
from nncc.ir.index import Size, affine, variables
from nncc.ir.nests import ASSIGN, BUILTIN_COMBINES, Dim, Nest, Statement
from nncc.machines.machine import Machine, Operation
from nncc.passes.emission.operation import match
from nncc.passes.nest_parts import full_axes, plain


@dataclass(frozen=True)
class Convolution:
    """A call of a nest of three statements: x and w in a sum of products, and what follows.

    Args:
        filters: the dimension of the filters; `pixels`: that of x's and the result's last axis;
            `taps`: what x's last axis has besides.
    """

    node: Node
    nest: Nest
    operation: Operation
    filters: Dim
    pixels: Dim
    taps: Dim

    @property
    def first(self) -> Statement:
        return self.nest.statements[0]

    @property
    def sum(self) -> Statement:
        return self.nest.statements[1]

    @property
    def last(self) -> Statement:
        return self.nest.statements[2]

    @property
    def x(self) -> Load:
        return self.factors[0]

    @property
    def w(self) -> Load:
        return self.factors[1]

    @property
    def factors(self) -> tuple[Load, Load]:
        a, b = loads(self.sum.values[0])
        return (b, a) if plain(a.indices[0]) == self.filters.name else (a, b)

    @property
    def rows(self) -> tuple[Dim, ...]:
        """The other dimensions of the result."""
        return tuple(d for d in self.last.dims if d not in (self.filters, self.pixels))

    @property
    def depth(self) -> tuple[Dim, ...]:
        """The other reduced dimensions."""
        reduced = self.sum.reduction_dims
        return tuple(d for d in self.sum.dims if d.name in reduced and d != self.taps)

    def value(self, param: str) -> str:
        """What the call gives a parameter."""
        ends = [p.name for p in (*self.nest.inputs, *self.nest.outputs)]
        return (*self.node.inputs, *self.node.outputs)[ends.index(param)]


def convolution(module: Module, node: Node, machine: Machine) -> Convolution | None:
    """The call as a convolution that one of the machine's operations can compute, if it is one."""
    nest = _nest_of_three(module, node)
    if nest is None or len(nest.locals) != 1:
        return None
    first, total, last = nest.statements
    t, y = total.targets[0], last.targets[0]
    ok = first.combine == last.combine == ASSIGN and total.combine == "sum"
    if not ok or first.targets != total.targets or nest.param(y.tensor).role != "out":
        return None
    if any(_depends_on_place(s) for s in (first, last)) or any(d.lo != 0 for d in total.dims):
        return None
    reduced = set(total.reduction_dims)
    outer = {d for d in total.dims if d.name not in reduced}
    if not set(first.dims) == set(last.dims) == outer or full_axes(nest, last) is None:
        return None
    found = loads(total.values[0])
    if len(found) != 2 or not t.indices:
        return None
    by_name = {d.name: d for d in total.dims}
    for x, w in (found, found[::-1]):
        names = [plain(i) for i in w.indices]
        f, form = plain(y.indices[-1]), affine(x.indices[-1], variables(x.indices[-1]))
        if f is None or names[0] is None or form is None:
            continue
        s = next((n for n in form[0] if n != f), None)
        # padding moves the first tap to before the first pixel, nothing moves it behind
        if s not in reduced or form[0] != {f: 1, s: 1} or not _is_at_most(form[1], 0):
            continue
        if any(s in variables(i) for i in x.indices[:-1]):
            continue
        if not all(n is not None or i == 0 for n, i in zip(names, w.indices, strict=True)):
            continue
        m = names[0]
        if sorted(n for n in names if n is not None) != sorted({m, *reduced}) or m in reduced:
            continue
        operation = _operation(total, m, s, machine)
        if operation is None or any(m in variables(i) for i in x.indices):
            continue
        return Convolution(node, nest, operation, by_name[m], by_name[f], by_name[s])
    return None


def _nest_of_three(module: Module, node: Node) -> Nest | None:
    """What a call computes, if that is three statements, of which each gives one value."""
    nest = module.nests.get(str(node.attrs.get("callee", "")))
    if nest is None or nest.schedule is not None or nest.sizes or len(nest.outputs) != 1:
        return None
    if len(nest.statements) != 3 or len(nest.body) != 3:
        return None
    plain_ones = all(len(s.targets) == len(s.values) == 1 and not s.where for s in nest.statements)
    return nest if plain_ones else None


def _depends_on_place(s: Statement) -> bool:
    """Whether a statement computes with the numbers of its elements."""
    return any(isinstance(x, Value) and variables(x.size) for v in s.values for x in walk(v))


def _is_at_most(size: Size, limit: int) -> bool:
    return isinstance(size, int) and size <= limit


def _operation(s: Statement, vector: str, taps: str, machine: Machine) -> Operation | None:
    """An operation that computes the sum with lanes over `vector` and neighbours of `taps`."""
    for operation in machine.operations.values():
        semantic = operation.semantics.statements[-1]
        inner = semantic.reduction_dims
        outer = [d.name for d in semantic.dims if d.name not in inner]
        if len(outer) != 1 or len(inner) != 1 or operation.kind != "compute":
            continue
        if match(operation, s, {outer[0]: vector, inner[0]: taps}) is not None:
            return operation
    return None


@dataclass(frozen=True)
class Window:
    """A pooling whose windows tile its input: a call, how much of each row axis it takes."""

    node: Node
    nest: Nest
    combine: str
    start: Expr
    sizes: dict[int, int]  # by axis of its input


def window(module: Module, c: Convolution) -> Window | None:
    """The one reader of a convolution's result, if it is a pooling."""
    value = c.node.outputs[0]
    readers = [n for n in module.graph.nodes if value in n.inputs]
    if len(readers) != 1 or is_pinned(module, value):
        return None
    nest = _nest_of_three(module, readers[0])
    if nest is None or [p.type for p in nest.inputs] != [p.type for p in c.nest.outputs]:
        return None
    first, fold, last = nest.statements
    x, t, place = fold.values[0], fold.targets[0], last.targets[0].indices
    if not isinstance(x, Load) or x.other is not None or fold.combine not in BUILTIN_COMBINES:
        return None
    if not isinstance(first.values[0], Const) or first.targets != fold.targets:
        return None
    if any(s.combine != ASSIGN for s in (first, last)) or t.indices != place:
        return None
    if last.values != (Load(t.tensor, place, x.dtype),) or len(x.indices) != len(place):
        return None
    sizes: dict[int, int] = {}
    extents = {d.name: d.extent for d in fold.dims if d.lo == 0}
    for k, (index, at) in enumerate(zip(x.indices, place, strict=True)):
        if index == at:
            continue
        form, name = affine(index, variables(index)), plain(at)
        if form is None or form[1] != 0 or name not in form[0] or len(form[0]) != 2:
            return None
        step = form[0].pop(name)
        ((inner, one),) = form[0].items()
        if one != 1 or extents.get(inner) != step or inner not in fold.reduction_dims:
            return None
        sizes[k] = step
    if len(sizes) != len(fold.reduction_dims):
        return None
    return Window(readers[0], nest, fold.combine, first.values[0], sizes)


def is_pinned(module: Module, value: str) -> bool:
    """Whether a value leaves the graph, so that its layout is that of its type."""
    return value in module.graph.outputs or any(v == value for _, v in module.graph.updates)
