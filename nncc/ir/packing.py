"""Arrays in the layout of a buffer.

pack(array, layout)        logical array -> physical array, row-major
unpack(array, layout, shape)                and back
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncc.ir.index import evaluate, variables
from nncc.ir.nests import Layout

Array = np.ndarray[Any, Any]


def pack(array: Array, layout: Layout | None, sizes: Mapping[str, int] | None = None) -> Array:
    """The physical array of a logical one; places that no element reaches hold the layout's fill.

    Args:
        layout: None is the dense row-major one.
        sizes: values of the named sizes in the layout's extents.
    """
    if layout is None:
        return array
    extents = tuple(int(evaluate(e, sizes or {})) for e in layout.extents)
    fill = layout.fill or 0
    if digits := _digits(array.shape, layout, extents):
        return _packed_by_digits(array, digits, extents, fill)
    physical = np.full(extents, fill, array.dtype)
    physical[_positions(array.shape, layout)] = array
    return physical


def unpack(array: Array, layout: Layout | None, shape: tuple[int, ...]) -> Array:
    """The logical array of `shape` that a physical one holds."""
    if layout is None:
        return array.reshape(shape)
    return np.asarray(array[_positions(shape, layout)]).reshape(shape)


def _positions(shape: tuple[int, ...], layout: Layout) -> tuple[Array, ...]:
    """The physical index of every logical one, along each physical dimension."""
    names = {
        f"d{k}": np.arange(n).reshape([-1 if j == k else 1 for j in range(len(shape))])
        for k, n in enumerate(shape)
    }
    full = tuple(shape)
    return tuple(
        np.broadcast_to(np.asarray(evaluate(d, names)), full)  # type: ignore[arg-type]
        for d in layout.dims
    )


def _digits(
    shape: tuple[int, ...], layout: Layout, extents: tuple[int, ...]
) -> tuple[tuple[int, ...], ...] | None:
    """For each logical dimension the physical ones that are its digits, most significant first.

    None if the layout is anything but a split of dimensions into digits in some order.
    """
    digits: list[list[tuple[int, int]]] = [[] for _ in shape]
    for j, dim in enumerate(layout.dims):
        used = variables(dim)
        if len(used) != 1:
            return None
        k = int(next(iter(used))[1:])
        digit = np.asarray(evaluate(dim, {f"d{k}": np.arange(shape[k])}))  # type: ignore[dict-item]
        unit = int(np.argmax(digit > 0)) or shape[k]  # the least index with a digit above 0
        digits[k].append((unit, j))
    for k, own in enumerate(digits):
        own.sort(reverse=True)
        index = np.arange(shape[k])
        place = 1
        for _, j in reversed(own):
            found = np.asarray(evaluate(layout.dims[j], {f"d{k}": index}))  # type: ignore[dict-item]
            expected = index // place % extents[j]
            if not np.array_equal(found, expected):
                return None
            place *= extents[j]
        if place < shape[k]:
            return None
    return tuple(tuple(j for _, j in own) for own in digits)


def _packed_by_digits(
    array: Array, digits: tuple[tuple[int, ...], ...], extents: tuple[int, ...], fill: float
) -> Array:
    padded_shape = tuple(math.prod(extents[j] for j in own) for own in digits)
    if padded_shape != array.shape:
        padded = np.full(padded_shape, fill, array.dtype)
        padded[tuple(slice(n) for n in array.shape)] = array
        array = padded
    order = [j for own in digits for j in own]
    split = array.reshape([extents[j] for j in order])
    return np.ascontiguousarray(split.transpose(np.argsort(order)))
