"""How the interpreter of nests writes: the elements that an access names over a box.

A plain access (`y[n, m, e+1]`: each subscript fixed or one dimension plus an offset) is a view
of the tensor; any other is a scatter, element by element where several instances meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncc.diagnostics import CheckError
from nncc.ir.index import affine
from nncc.ir.interpreter.boxes import Array, Box
from nncc.ir.nests import Access


def plain_view(target: Access, box: Box) -> Array | None:
    """The written elements as a view with the box's axes; None if the access is not plain."""
    tensor = box.tensors[target.tensor]
    axes = list(box.ranges)
    parts: list[slice] = []
    used: list[str | None] = []
    for index, extent in zip(target.indices, tensor.shape, strict=True):
        form = affine(index, axes)
        if form is None or len(form[0]) > 1 or any(c != 1 for c in form[0].values()):
            return None
        dim = next(iter(form[0]), None)
        if dim is not None and dim in used:
            return None
        lo, hi = box.ranges[dim] if dim is not None else (0, 1)
        offset = int(box.size(form[1]))
        if lo + offset < 0 or hi + offset > extent:
            return None  # masked instances, or a mistake: the scatter tells which
        parts.append(slice(lo + offset, hi + offset))
        used.append(dim)
    if not target.indices:
        return tensor.reshape((1,) * len(axes))
    fixed = tuple(k for k, d in enumerate(used) if d is None)
    named = [axes.index(d) for d in used if d is not None]
    view = tensor[tuple(parts)].squeeze(fixed).transpose(np.argsort(named))
    return np.expand_dims(view, tuple(k for k in range(len(axes)) if k not in named))


def positions(target: Access, box: Box, exists: Array | None) -> tuple[tuple[Array, ...], Array]:
    """Where each instance of the box writes: flat subscripts, and which instances those are.

    Args:
        exists: bool over the box's axes; instances where it is False are left out.

    Returns subscripts for numpy and a bool array over the box that selects the instances in
    the same order. Raises CheckError if an instance writes outside the tensor.
    """
    tensor = box.tensors[target.tensor]
    shape = box.shape if exists is None else exists.shape
    where = [np.broadcast_to(np.asarray(box.size(i)), shape) for i in target.indices]
    selected = np.ones(shape, bool) if exists is None else exists
    where = [w[selected] for w in where]
    for index, w, extent in zip(target.indices, where, tensor.shape, strict=True):
        if w.size and (w.min() < 0 or w.max() >= extent):
            shown = f"{target.tensor}[{','.join(str(i) for i in target.indices)}]"
            raise CheckError(f"{shown} is outside the tensor: {index} reaches {w.max()}")
    return tuple(where), selected


def assign(target: Access, box: Box, value: Array) -> None:
    """`target = value` for every instance of the box."""
    view = plain_view(target, box)
    if view is not None:
        view[...] = value if box.mask is None else np.where(box.mask, value, view)
        return
    where, selected = positions(target, box, _full(box.mask, box.shape))
    box.tensors[target.tensor][where] = np.broadcast_to(value, selected.shape)[selected]


def fold(
    targets: tuple[Access, ...],
    box: Box,
    values: tuple[Array, ...],
    exists: Array | None,
    combined: Callable[[tuple[Array, ...], tuple[Array, ...]], tuple[Array, ...]],
    ufunc: np.ufunc | None,
) -> None:
    """`target = combined(target, value)`; the box's reduction dimensions have length 1.

    Args:
        exists: as for `positions`; an instance that does not exist must hold the identity.
        ufunc: the combine if it is a built-in one.
    """
    views = [plain_view(t, box) for t in targets]
    if all(v is not None for v in views):
        old = tuple(v for v in views if v is not None)
        for view, value in zip(old, combined(old, values), strict=True):
            view[...] = value
        return
    where, selected = positions(targets[0], box, _full(exists, box.shape))
    rows = [np.broadcast_to(v, selected.shape)[selected] for v in values]
    tensors = [box.tensors[t.tensor] for t in targets]
    if ufunc is not None:
        ufunc.at(tensors[0], where, rows[0])
        return
    for k, at in enumerate(zip(*where, strict=True)):
        old = tuple(np.asarray(t[at]) for t in tensors)
        for tensor, value in zip(tensors, combined(old, tuple(r[k] for r in rows)), strict=True):
            tensor[at] = value


def _full(mask: Array | None, shape: tuple[int, ...]) -> Array | None:
    return None if mask is None else np.asarray(np.broadcast_to(mask, shape))


def as_rank(array: Array, rank: int) -> Array:
    """An array over a box of `rank` dimensions; constants have rank 0 before."""
    return array if array.ndim == rank else array.reshape((1,) * rank)


def anywhere(mask: Array | None, axes: tuple[int, ...]) -> Any:
    """Where at least one instance exists along `axes`."""
    return None if mask is None else mask.any(axis=axes, keepdims=True)
