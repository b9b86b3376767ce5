"""How an access moves through memory with one dimension, under the layout of its tensor."""

from __future__ import annotations

from nncc.ir.bounds import simplify
from nncc.ir.expr import Load
from nncc.ir.index import Size, substitute, var, variables
from nncc.ir.nests import Access, Nest

STEP = "step"
ALIGNED = 1 << 12  # a multiple of every power of two by which layouts block dimensions


def stride(nest: Nest, access: Load | Access, dim: str, lanes: int) -> int | None:
    """Elements between neighbours in `dim` within a piece of `lanes` that no block border cuts.

    0: the access does not vary; 1: neighbours in memory; None: anything else. Only accesses
    whose last physical dimension alone varies count as 1.

    >>> # x: f32[N,C,H,W] stored as (n, c // 16, h, w, c % 16): 1 for c, None for w
    """
    param = nest.param(access.tensor)
    if all(dim not in variables(i) for i in access.indices):
        return 0
    moved = [substitute(i, {dim: var(dim) * ALIGNED + var(STEP)}) for i in access.indices]
    ranges = {STEP: (0, lanes - 1)}
    physical: list[Size] = moved
    if param.layout is not None:
        values = {f"d{k}": i for k, i in enumerate(moved)}
        physical = [simplify(substitute(d, values), ranges) for d in param.layout.dims]
    varying = [k for k, p in enumerate(physical) if STEP in variables(p)]
    if varying != [len(physical) - 1]:
        return None
    last = physical[-1]
    return 1 if last - substitute(last, {STEP: 0}) == var(STEP) else None
