"""Layouts applied: between a logical array and the physical one that a buffer holds.

layout = blocked((N, 64, 56, 56), axis=1, block=16)
layout                        (d0, d1 // 16, d2, d3, d1 % 16) with extents (N, 4, 56, 56, 16)
pack(array, layout)           the physical array, shape (N, 4, 56, 56, 16)
unpack(physical, layout, shape)           the logical one again
physical_index(layout, (n, 16*m + v, e, f), {"v": (0, 15)})       (n, m, e, f, v)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Index, Range, Size, Term, ceildiv, evaluate, simplify, substitute, var
from nncc.ir.nests import Layout

Array = np.ndarray[Any, Any]


def blocked(
    shape: Sequence[Size], axis: int, block: int, fill: int | float | None = None
) -> Layout:
    """The layout that keeps `block` neighbours of one axis innermost."""
    d = [var(f"d{k}") for k in range(len(shape))]
    outer: list[Size] = [*d[:axis], d[axis] // block, *d[axis + 1 :], d[axis] % block]
    extents = [*shape[:axis], ceildiv(shape[axis], block), *shape[axis + 1 :], block]
    return Layout(tuple(outer), tuple(extents), fill)


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


def pack(array: Array, layout: Layout, sizes: Mapping[str, int] | None = None) -> Array:
    """The physical array: elements that no logical index reaches are `fill`, or 0."""
    extents = tuple(evaluate(e, sizes or {}) for e in layout.extents)
    filler = 0 if layout.fill is None else layout.fill
    form = _as_transpose(layout, array.shape, extents)
    if form is None:
        physical = np.full(extents, filler, array.dtype)
        physical[_positions(layout, array.shape)] = array
        return physical
    split, order = form
    whole = [m * b for m, b in split]
    if tuple(whole) != array.shape:
        grown = np.full(whole, filler, array.dtype)
        grown[tuple(slice(0, n) for n in array.shape)] = array
        array = grown
    parts = array.reshape([n for pair in split for n in pair])
    return np.ascontiguousarray(parts.transpose(order).reshape(extents))


def unpack(
    physical: Array, layout: Layout, shape: Sequence[int], sizes: Mapping[str, int] | None = None
) -> Array:
    """The logical array of that shape; the inverse of `pack`."""
    extents = tuple(evaluate(e, sizes or {}) for e in layout.extents)
    form = _as_transpose(layout, tuple(shape), extents)
    if form is None:
        return np.ascontiguousarray(physical.reshape(extents)[_positions(layout, shape)])
    split, order = form
    parts = [n for pair in split for n in pair]
    whole = physical.reshape([parts[k] for k in order]).transpose(np.argsort(order))
    whole = whole.reshape([m * b for m, b in split])
    return np.ascontiguousarray(whole[tuple(slice(0, n) for n in shape)])


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


def _positions(layout: Layout, shape: Sequence[int]) -> tuple[Any, ...]:
    """For each physical dimension, the index of every logical element."""
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    names = {f"d{k}": g for k, g in enumerate(grid)}
    return tuple(evaluate(d, names) for d in layout.dims)


def _as_transpose(
    layout: Layout, shape: tuple[int, ...], extents: tuple[int, ...]
) -> tuple[list[tuple[int, int]], list[int]] | None:
    """The layout as axes split in two and put in another order, which numpy is fast at.

    Returns (extent // block, block) for each axis, and the order of the two parts of all axes;
    None if the layout is something else.
    """
    split = [(0, 0)] * len(shape)
    order: list[int] = []
    for d, extent in zip(layout.dims, extents, strict=True):
        found = _split_of(d)
        if found is None:
            return None
        axis, fn, block = found
        major, minor = split[axis]
        if fn == "%" and extent == block and minor in (0, block):
            split[axis] = (major, block)
            order.append(2 * axis + 1)
        elif fn == "//" and not major and minor in (0, block):
            split[axis] = (extent, block)
            order.append(2 * axis)
        elif fn == "" and not major and not minor:
            split[axis] = (extent, 1)
            order += [2 * axis, 2 * axis + 1]
        else:
            return None
    for k, (major, minor) in enumerate(split):
        if not major and not minor and shape[k] == 1:
            split[k] = (1, 1)
            order += [2 * k, 2 * k + 1]
        elif not major or not minor or major * minor < shape[k]:
            return None
    return (split, order) if len(set(order)) == 2 * len(shape) else None


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
