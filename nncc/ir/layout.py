"""Layouts applied: between a logical array and the physical one that a buffer holds.

layout = blocked((N, 64, 56, 56), axis=1, block=16)
layout                        (d0, d1 // 16, d2, d3, d1 % 16) with extents (N, 4, 56, 56, 16)
pack(array, layout)           the physical array, shape (N, 4, 56, 56, 16)
unpack(physical, layout, shape)           the logical one again
physical_index(layout, (n, 16*m + v, e, f), {"v": (0, 15)})       (n, m, e, f, v)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nncc.ir.bounds import Range, simplify
from nncc.ir.index import Index, Size, Term, ceildiv, substitute, var
from nncc.ir.nests import Layout


def blocked(
    shape: Sequence[Size], axis: int, block: int, fill: int | float | None = None
) -> Layout:
    """The layout that keeps `block` neighbours of one axis innermost."""
    d = [var(f"d{k}") for k in range(len(shape))]
    outer: list[Size] = [*d[:axis], d[axis] // block, *d[axis + 1 :], d[axis] % block]
    extents = [*shape[:axis], ceildiv(shape[axis], block), *shape[axis + 1 :], block]
    return Layout(tuple(outer), tuple(extents), fill)


def by_channel(shape: Sequence[Size], axis: int, block: int) -> Layout:
    """The layout for vectors along `axis`: blocked, or as it is if no longer axis follows."""
    if any(extent != 1 for extent in shape[axis + 1 :]):
        return blocked(shape, axis, block)
    return Layout(tuple(var(f"d{k}") for k in range(axis + 1)), tuple(shape[: axis + 1]))


def padded(shape: Sequence[Size], block: int, fill: int | float | None = None) -> Layout:
    """Row-major, with the last extent rounded up to a multiple of `block`."""
    d = tuple(var(f"d{k}") for k in range(len(shape)))
    return Layout(d, (*shape[:-1], ceildiv(shape[-1], block) * block), fill)


def physical_index(
    layout: Layout | None, indices: Sequence[Size], ranges: Mapping[str, Range] | None = None
) -> tuple[Size, ...]:
    """Where a buffer of this layout keeps the element at logical `indices`, simplified."""
    if layout is None:
        return tuple(indices)
    values = {f"d{k}": i for k, i in enumerate(indices)}
    return tuple(simplify(substitute(d, values), ranges or {}) for d in layout.dims)


def is_row_major(layout: Layout | None, shape: Sequence[Size]) -> bool:
    """Whether a buffer of this layout holds the same bytes as a dense row-major one."""
    if layout is None:
        return True
    parts = [
        (_split_of(d), extent)
        for d, extent in zip(layout.dims, layout.extents, strict=True)
        if extent != 1
    ]
    order: list[int] = []
    while parts:
        found, extent = parts.pop(0)
        if found is None:
            return False
        axis, fn, block = found
        size = shape[axis]
        if fn == "//" and parts and parts[0] == ((axis, "%", block), block):
            parts.pop(0)
            extent = extent * block
        elif fn == "//" or (fn == "%" and block != size):
            return False
        if extent != size:
            return False
        order.append(axis)
    return order == [k for k, extent in enumerate(shape) if extent != 1]


def _split_of(d: Size) -> tuple[int, str, int] | None:
    """(axis, "" or "//" or "%", block) of a physical dimension of that form."""
    if not isinstance(d, Index) or len(d.terms) != 1 or d.terms[0][1] != 1:
        return None
    monomial = d.terms[0][0]
    a = monomial[0]
    if len(monomial) != 1:
        return None
    if isinstance(a, str):
        return int(a[1:]), "", 1
    if not isinstance(a, Term) or not isinstance(a.b, int) or not isinstance(a.a, Index):
        return None
    inner = str(a.a)
    if a.fn in ("//", "%") and a.a == var(inner) and inner[1:].isdigit():
        return int(inner[1:]), a.fn, a.b
    return None
