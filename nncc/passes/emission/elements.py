"""Subscripts that are elements of tensors, where these lie in memory.

    y[n,c] = table[x[n,c] in 0..256]   with x stored as (n, c // 16, c % 16)   →
    y[n,c] = table[x[n, c // 16, c % 16] in 0..256]

Loads are placed in memory when they are written; an element inside of a subscript is a part of
an integer expression by then, so that it is placed beforehand.
"""

from __future__ import annotations

from dataclasses import replace

from nncc.ir.expr import map_indices
from nncc.ir.index import Element, Size, replace_elements, substitute
from nncc.ir.nests import Access, Dim, Item, Nest, Scan, Statement


def with_physical_elements(nest: Nest) -> Nest:
    """`nest` with physical subscripts in the elements of tensors that have a layout.

    Other accesses keep their logical ones: the result is for emission only.
    """
    layouts = {p.name: p.layout for p in nest.params if p.layout is not None}
    if not layouts:
        return nest

    def physical(e: Element) -> Element:
        layout = layouts.get(e.tensor)
        if layout is None:
            return e
        values = {f"d{k}": i for k, i in enumerate(e.indices)}
        return replace(e, indices=tuple(substitute(d, values) for d in layout.dims))

    def size(s: Size) -> Size:
        return replace_elements(s, physical)

    def dim(d: Dim) -> Dim:
        return Dim(d.name, size(d.lo), size(d.hi))

    def item(i: Item) -> Item:
        if isinstance(i, Scan):
            return Scan(dim(i.dim), tuple(map(item, i.body)))
        return Statement(
            i.name,
            tuple(map(dim, i.dims)),
            tuple(Access(t.tensor, tuple(map(size, t.indices))) for t in i.targets),
            i.combine,
            tuple(map_indices(v, size) for v in i.values),
            tuple(map(size, i.where)),
            i.location,
        )

    return replace(nest, body=tuple(map(item, nest.body)))
