"""What passes that read or rewrite nests share: walking, renaming and small questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from nncc.ir.expr import Expr, Load, loads, map_indices, transform
from nncc.ir.index import (
    COMBINE,
    Element,
    Index,
    Size,
    Term,
    atom,
    elements,
    substitute,
    var,
)
from nncc.ir.nests import Access, Dim, Item, Nest, Param, Scan, Statement, sizes_of


def map_statements(nest: Nest, rule: Callable[[Statement], Statement | None]) -> Nest:
    """`nest` with every statement replaced by what `rule` gives; None removes it."""

    def items(body: tuple[Item, ...]) -> Iterator[Item]:
        for item in body:
            if isinstance(item, Scan):
                yield replace(item, body=tuple(items(item.body)))
            elif (result := rule(item)) is not None:
                yield result

    return replace(nest, body=tuple(items(nest.body)))


def map_sizes(s: Statement, rule: Callable[[Size], Size]) -> Statement:
    """`s` with every integer expression replaced by `rule` of it."""
    return replace(
        s,
        dims=tuple(Dim(d.name, rule(d.lo), rule(d.hi)) for d in s.dims),
        targets=tuple(Access(t.tensor, tuple(rule(i) for i in t.indices)) for t in s.targets),
        values=tuple(map_indices(v, rule) for v in s.values),
        where=tuple(rule(w) for w in s.where),
    )


def accesses(s: Statement) -> Iterator[Access | Load]:
    """What a statement writes and loads (subscript tensors aside)."""
    yield from s.targets
    for v in s.values:
        yield from loads(v)


def tensors_of(s: Statement) -> frozenset[str]:
    """Every tensor that a statement reads or writes, also in subscripts and bounds."""
    used = {a.tensor for a in accesses(s)}
    return frozenset(used | {e.tensor for size in sizes_of(s) for e in elements(size)})


def plain(index: Size) -> str | None:
    """The variable that an index just is; None if it is anything else."""
    name = str(index)
    return name if isinstance(index, Index) and index == var(name) else None


def full_axes(nest: Nest, s: Statement) -> dict[str, int] | None:
    """The axis of the target that each dim runs over, if the statement covers all of it once."""
    shape = nest.param(s.targets[0].tensor).type.shape
    ranges = {d.name: (d.lo, d.hi) for d in s.dims}
    found: dict[str, int] = {}
    for k, (index, extent) in enumerate(zip(s.targets[0].indices, shape, strict=True)):
        name = plain(index)
        if name is None or name in found or ranges.get(name) != (0, extent):
            if index != 0 or extent != 1:
                return None
            continue
        found[name] = k
    reduced = set(s.reduction_dims)
    return found if set(found) == {d for d in ranges if d not in reduced} else None


def renamed(nest: Nest, names: Mapping[str, str]) -> Nest:
    """`nest` with tensors renamed; two parameters that get one name become one."""

    def one(s: Statement) -> Statement:
        s = map_sizes(s, lambda size: _rename_elements(size, names))
        return replace(
            s,
            targets=tuple(replace(t, tensor=names.get(t.tensor, t.tensor)) for t in s.targets),
            values=tuple(transform(v, expression) for v in s.values),
        )

    def expression(e: Expr) -> Expr:
        if isinstance(e, Load):
            return replace(e, tensor=names.get(e.tensor, e.tensor))
        return e

    params: dict[str, Param] = {}
    for p in nest.params:
        name = names.get(p.name, p.name)
        params.setdefault(name, replace(p, name=name))
    return map_statements(replace(nest, params=tuple(params.values())), one)


def _rename_elements(size: Size, names: Mapping[str, str]) -> Size:
    if not elements(size):
        return size
    assert isinstance(size, Index)
    total: Size = 0
    for monomial, c in size.terms:
        term: Size = c
        for a in monomial:
            if isinstance(a, Element):
                indices = tuple(_rename_elements(i, names) for i in a.indices)
                term = term * atom(Element(names.get(a.tensor, a.tensor), indices, a.lo, a.hi))
            elif isinstance(a, Term):
                x, y = (_rename_elements(o, names) for o in (a.a, a.b))
                term = term * COMBINE[a.fn](x, y)
            else:
                term = term * var(a)
        total = total + term
    return total


def with_dim_names(s: Statement, names: Mapping[str, str]) -> Statement:
    """`s` with dims renamed (all at once, so that names may be exchanged)."""
    values: dict[str, Size] = {old: var(new) for old, new in names.items()}
    renamed_dims = tuple(
        Dim(names.get(d.name, d.name), substitute(d.lo, values), substitute(d.hi, values))
        for d in s.dims
    )
    return replace(map_sizes(s, lambda size: substitute(size, values)), dims=renamed_dims)


def fresh(hint: str, taken: set[str] | frozenset[str]) -> str:
    """`hint`, or `hint1`, `hint2`, … if it is taken."""
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}{count}"
    return name
