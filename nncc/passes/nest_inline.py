"""Inlining: a local tensor that one pointwise assignment makes goes into what reads it.

t[n,m] = x[n,m] + b[m]
y[n,m] = max(t[n,m], 0)        →        y[n,m] = max(x[n,m] + b[m], 0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nncc.ir.expr import Const, Expr, Load, loads, map_indices, transform
from nncc.ir.index import Index, Size, elements, substitute, variables
from nncc.ir.nests import ASSIGN, Nest, Scan, Statement, sizes_of
from nncc.passes.nest_parts import full_axes, map_statements, plain, tensors_of


def inlined(nest: Nest) -> Nest:
    """Local tensors that one pointwise assignment makes, put into the statements that read them.

    A value that costs something is put only where every element is used once, so that nothing
    is computed twice; a copy (a view, a literal) is put everywhere, but into a reduction only
    if the subscripts stay affine there.
    """
    changed = True
    while changed:
        changed = False
        for position, item in enumerate(nest.body):
            if not isinstance(item, Statement):
                continue
            result = _inlined_statement(nest, position, item)
            if result is not None:
                nest, changed = result, True
                break
    return nest


def _inlined_statement(nest: Nest, position: int, s: Statement) -> Nest | None:
    """`nest` without the statement, if it can be inlined."""
    tensor = s.targets[0].tensor
    if s.combine != ASSIGN or s.where or nest.param(tensor).role != "local":
        return None
    dims = full_axes(nest, s)
    if dims is None:
        return None
    sources = tensors_of(s) - {tensor}
    readers: list[Statement] = []
    for other in nest.body:
        if other is s:
            continue
        if isinstance(other, Scan):
            if any(tensor in tensors_of(x) for x in replace(nest, body=(other,)).statements):
                return None
            continue
        if any(t.tensor == tensor for t in other.targets):
            return None
        if any(e.tensor == tensor for size in sizes_of(other) for e in elements(size)):
            return None
        if any(x.tensor == tensor for v in other.values for x in loads(v)):
            readers.append(other)
    count = sum(x.tensor == tensor for r in readers for v in r.values for x in loads(v))
    if not all(_can_take(nest, r, s, dims, count) for r in readers):
        return None
    last = max((nest.body.index(r) for r in readers), default=position)
    for between in nest.body[position + 1 : last]:
        inner = replace(nest, body=(between,)).statements
        if any(t.tensor in sources for x in inner for t in x.targets):
            return None

    def rule(other: Statement) -> Statement | None:
        if other is s:
            return None
        return replace(other, values=tuple(transform(v, expression) for v in other.values))

    def expression(e: Expr) -> Expr:
        if not isinstance(e, Load) or e.tensor != tensor:
            return e
        values = {d: e.indices[k] for d, k in dims.items()}
        value = map_indices(s.values[0], lambda size: substitute(size, values))
        if e.other is not None and isinstance(value, Load):
            return replace(value, other=e.other)
        return value

    params = tuple(p for p in nest.params if p.name != tensor)
    return map_statements(replace(nest, params=params), rule)


def _can_take(
    nest: Nest, reader: Statement, s: Statement, dims: Mapping[str, int], count: int
) -> bool:
    """Whether the loads in `reader` of what `s` assigns may become the value itself."""
    value = s.values[0]
    copies = isinstance(value, Load | Const)
    for load in (x for v in reader.values for x in loads(v) if x.tensor == s.targets[0].tensor):
        if load.other is not None and not _is_permutation(nest, s, dims):
            return False
        used = frozenset[str]().union(*(variables(i) for i in load.indices))
        once = count == 1 and all(d.name in used or d.extent == 1 for d in reader.dims)
        if not copies and not once:
            return False
        if reader.combine != ASSIGN and isinstance(value, Load):
            values = {d: load.indices[k] for d, k in dims.items()}
            if any(_is_composite(substitute(i, values)) for i in value.indices):
                return False
    return True


def _is_permutation(nest: Nest, s: Statement, dims: Mapping[str, int]) -> bool:
    """Whether `s` copies a tensor with its axes in another order and nothing else."""
    value = s.values[0]
    if not isinstance(value, Load) or value.other is not None:
        return False
    names = [plain(i) for i in value.indices]
    extents = {d.name: d.hi for d in s.dims}
    shape = nest.param(value.tensor).type.shape
    return sorted(map(str, names)) == sorted(dims) and all(
        n is not None and extents[n] == e for n, e in zip(names, shape, strict=True)
    )


def _is_composite(size: Size) -> bool:
    return isinstance(size, Index) and any(
        not isinstance(a, str) for monomial, _ in size.terms for a in monomial
    )
