"""Sums of products as matrix products, exact for integers."""

from __future__ import annotations

import math

import numpy as np

from nncc.ir.interpreter.boxes import Array
from nncc.ir.interpreter.targets import as_rank


def contract(a: Array, b: Array, axes: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """`sum(a * b)` over `axes`, which keep length 1; a and b have one dtype.

    Args:
        a, b: arrays over a box of that shape, of length 1 along axes that they do not use.

    Integers wrap around in their width, floats are summed in some order.
    """
    rank, dtype = len(shape), a.dtype
    a, b = as_rank(a, rank), as_rank(b, rank)
    kept = [k for k in range(rank) if k not in axes]
    batch = [k for k in kept if a.shape[k] > 1 and b.shape[k] > 1]
    columns = [k for k in kept if a.shape[k] == 1 and b.shape[k] > 1]
    rows = [k for k in kept if k not in batch and k not in columns]
    a, b = (
        np.broadcast_to(x, [shape[k] if k in axes else n for k, n in enumerate(x.shape)])
        for x in (a, b)
    )
    left = _matrix(a, batch, rows, list(axes))
    right = _matrix(b, batch, list(axes), columns)
    product = _exact_product(left, right)
    order = batch + rows + columns
    lengths = [max(a.shape[k], b.shape[k]) for k in order]
    result = product.reshape(lengths).transpose(np.argsort(order)) if order else product.reshape(())
    return np.expand_dims(result, axes).astype(dtype, copy=False)


def _matrix(x: Array, batch: list[int], rows: list[int], columns: list[int]) -> Array:
    """`x` as a batch of matrices."""
    sizes = [math.prod(x.shape[k] for k in group) for group in (batch, rows, columns)]
    # axes that x does not use have length 1 and move freely
    order = batch + rows + columns
    rest = [k for k in range(x.ndim) if k not in order]
    return x.transpose(*order, *rest).reshape(sizes)


def _exact_product(left: Array, right: Array) -> Array:
    """Integer products go through floats, which have fast code, as far as those are exact."""
    if left.dtype.kind == "f":
        return np.asarray(left @ right)
    if not left.size or not right.size:
        return np.zeros((left.shape[0], left.shape[1], right.shape[2]), np.int64)
    largest = _magnitude(left) * _magnitude(right) * left.shape[2]
    for kind, limit in ((np.float32, 1 << 24), (np.float64, 1 << 53)):
        if largest < limit:
            return np.asarray(left.astype(kind) @ right.astype(kind)).astype(np.int64)
    return np.asarray(left.astype(np.int64) @ right.astype(np.int64))  # wraps around


def _magnitude(x: Array) -> int:
    return max(abs(int(x.min())), abs(int(x.max())))
