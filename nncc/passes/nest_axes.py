"""Merging dimensions of a nest that are only walked together.

    y[n,m,e,f] sum= x[n,c,e,f] * w[m,c]     with e in 0..14, f in 0..14
    →
    y[n,m,ef] sum= x[n,c,ef] * w[m,c]       with ef in 0..196

The tensors' axes are merged with them: a parameter keeps its bytes and has one axis less than
the graph's value (its shape is the value's, reshaped in row-major order).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from nncc.ir.expr import Expr, Load, Value, transform, walk
from nncc.ir.index import Size, elements, substitute, var, variables
from nncc.ir.nests import Access, Dim, Layout, Nest, Param, Scan, Statement, sizes_of
from nncc.ir.types import TensorType
from nncc.passes.nest_parts import accesses, fresh, map_statements, plain


def with_merged_dims(nest: Nest) -> Nest:
    """`nest` with every pair of dims merged that all accesses and layouts allow."""
    if any(isinstance(item, Scan) for item in nest.body):
        return nest
    while (pair := next(_candidates(nest), None)) is not None:
        nest = _merged(nest, *pair)
    return nest


def _candidates(nest: Nest) -> Iterator[tuple[str, str]]:
    """Pairs (outer, inner) of dims that can be merged."""
    seen: set[tuple[str, str]] = set()
    for s in nest.statements:
        for a in accesses(s):
            for i, j in pairwise(a.indices):
                outer, inner = plain(i), plain(j)
                if outer is None or inner is None or (outer, inner) in seen:
                    continue
                seen.add((outer, inner))
                if outer != inner and _can_merge(nest, outer, inner):
                    yield outer, inner


def _can_merge(nest: Nest, outer: str, inner: str) -> bool:
    pair = {outer, inner}
    ranges: set[tuple[Dim, ...]] = set()
    axes: dict[str, int | None] = {}
    for s in nest.statements:
        own = tuple(d for d in s.dims if d.name in pair)
        if own:
            ranges.add(tuple(sorted(own, key=lambda d: d.name != outer)))
        if _others_use(s, pair):
            return False
        for a in accesses(s):
            axis = _axis(a, outer, inner)
            if axis is None and any(variables(i) & pair for i in a.indices):
                return False
            if axes.setdefault(a.tensor, axis) != axis:
                return False
    if len(ranges) != 1 or len(extents := next(iter(ranges))) != 2:
        return False
    if any(d.lo != 0 for d in extents):
        return False
    subscripts = {e.tensor for s in nest.statements for size in sizes_of(s) for e in elements(size)}
    return all(
        t not in subscripts and _mergeable(nest.param(t), axis, extents[0].hi, extents[1].hi)
        for t, axis in axes.items()
        if axis is not None
    )


def _others_use(s: Statement, pair: set[str]) -> bool:
    """Whether the dims are used as numbers: in a value, a constraint or another dim's bounds."""
    numbers = [x.size for v in s.values for x in walk(v) if isinstance(x, Value)]
    numbers += [bound for d in s.dims for bound in (d.lo, d.hi)] + list(s.where)
    return any(variables(size) & pair for size in numbers)


def _axis(a: Access | Load, outer: str, inner: str) -> int | None:
    """Where the two dims stand side by side, and nowhere else, in the subscripts."""
    names = [plain(i) for i in a.indices]
    for k, (x, y) in enumerate(pairwise(names)):
        if (x, y) == (outer, inner):
            rest = (*a.indices[:k], *a.indices[k + 2 :])
            used = frozenset[str]().union(*(variables(i) for i in rest)) if rest else frozenset()
            return None if used & {outer, inner} else k
    return None


def _mergeable(p: Param, axis: int, outer: Size, inner: Size) -> bool:
    """Whether the parameter's axes at `axis` have these extents and stand together in memory."""
    if p.type.shape[axis : axis + 2] != (outer, inner):
        return False
    return p.layout is None or _merged_layout(p.layout, axis, p.type.rank) is not None


def _merged_layout(layout: Layout, axis: int, rank: int) -> Layout | None:
    """The layout with logical axes `axis` and `axis + 1` as one; None if they are apart."""
    names = [f"d{axis}", f"d{axis + 1}"]
    places = [k for k, d in enumerate(layout.dims) if variables(d) & set(names)]
    if len(places) != 2 or [plain(layout.dims[k]) for k in places] != names:
        return None
    first = places[0]
    if places[1] != first + 1:
        return None
    later: dict[str, Size] = {f"d{k}": var(f"d{k - 1}") for k in range(axis + 2, rank)}
    dims = [substitute(d, later) for d in layout.dims]
    extents = layout.extents
    return Layout(
        (*dims[:first], var(names[0]), *dims[first + 2 :]),
        (*extents[:first], extents[first] * extents[first + 1], *extents[first + 2 :]),
        layout.fill,
    )


def _merged(nest: Nest, outer: str, inner: str) -> Nest:
    taken = {d.name for s in nest.statements for d in s.dims} | set(nest.sizes)
    name = fresh(outer + inner, taken)
    axes = {a.tensor: k for s in nest.statements for a in accesses(s)
            if (k := _axis(a, outer, inner)) is not None}  # fmt: skip

    def subscripts(tensor: str, indices: tuple[Size, ...]) -> tuple[Size, ...]:
        if tensor not in axes:
            return indices
        k = axes[tensor]
        return (*indices[:k], var(name), *indices[k + 2 :])

    def expression(e: Expr) -> Expr:
        return replace(e, indices=subscripts(e.tensor, e.indices)) if isinstance(e, Load) else e

    def rule(s: Statement) -> Statement:
        ranges = {d.name: d for d in s.dims}
        dims = tuple(
            Dim(name, 0, ranges[outer].hi * ranges[inner].hi) if d.name == outer else d
            for d in s.dims
            if d.name != inner
        )
        targets = tuple(Access(t.tensor, subscripts(t.tensor, t.indices)) for t in s.targets)
        return replace(
            s, dims=dims, targets=targets, values=tuple(transform(v, expression) for v in s.values)
        )

    def param(p: Param) -> Param:
        if p.name not in axes:
            return p
        k, shape = axes[p.name], p.type.shape
        merged = (*shape[:k], shape[k] * shape[k + 1], *shape[k + 2 :])
        layout = None if p.layout is None else _merged_layout(p.layout, k, p.type.rank)
        return replace(p, type=TensorType(p.type.dtype, merged), layout=layout)

    return map_statements(replace(nest, params=tuple(param(p) for p in nest.params)), rule)
