"""Ops that select by integer tensors: Gather, GatherND.

    Gather(x: f32[30522,768], indices: i64[N,128])    y[i,j,k] = x[indices[i,j], k]

A negative index counts from the end. It is brought into 0..extent by a remainder, so that no
index, however wrong, reads outside of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Size, modulo
from nncc.ir.nests import Nest
from nncc.ir.types import TensorType
from nncc.ops.inference import axis, require
from nncc.ops.notation import Handle, Notation
from nncc.ops.samples import Draw, sample
from nncc.ops.table import AttrDecl, Sample, Site, op


def _infer_gather(site: Site) -> Sequence[TensorType]:
    x, indices = site.input("x"), require(site, "indices", dtypes="i32 i64")
    k = axis(site, site.attr("axis"), x.rank)
    _check_range(site, x.shape[k : k + 1])
    return (TensorType(x.dtype, (*x.shape[:k], *indices.shape, *x.shape[k + 1 :])),)


def _check_range(site: Site, extents: Sequence[Size]) -> None:
    """Refuses known indices outside of their axis; the last axis of them belongs to `extents`."""
    known = site.constant("indices")
    if known is None or known.dtype == object or not known.size:
        return
    columns: list[Any] = [known]
    if len(extents) > 1 or site.node.op == "GatherND":
        columns = [known[..., j] for j in range(len(extents))]
    for column, extent in zip(columns, extents, strict=True):
        if isinstance(extent, int) and (column.min() < -extent or column.max() >= extent):
            raise site.error(
                f"an index in {column.min()}..{column.max()} lies outside of an axis of {extent}"
            )


def _element(site: Site, handle: Handle, where: Sequence[Size], extent: Size) -> Size:
    """The index that `handle` holds at `where`, in 0..extent; a literal where it is known."""
    known = site.constant("indices")
    if known is None or known.dtype == object:
        return modulo(handle.element(where, -1 * extent, extent), extent)
    if known.size == 1 and isinstance(extent, int):
        return int(known.item()) % extent
    if known.min() >= 0:
        return handle.element(where, 0, extent)
    return modulo(handle.element(where, -1 * extent, extent), extent)


def _gather_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, indices, y = notation.tensors("x", "indices", "y")
    k = axis(site, site.attr("axis"), x.type.rank)
    dims = notation.dims(" ".join(f"i{j}" for j in range(y.type.rank)))
    behind = k + indices.type.rank
    chosen = _element(site, indices, dims[k:behind], x.shape[k])
    notation.assign(y.at(dims), x.at((*dims[:k], chosen, *dims[behind:])))
    return notation.build()


def _gathered_value(site: Site) -> np.ndarray | None:
    indices = site.known("indices")
    if indices.dtype == object:
        return None
    return np.take(site.known("x"), indices.astype(np.int64), axis=site.attr("axis"))


def _sample_gather(d: Draw) -> Sample:
    shape = d.shape()
    k = d.whole(-len(shape), len(shape) - 1)
    extent = shape[k]
    indices = d.ints(d.shape(d.whole(0, 2), 1, 3), d.choice("i64", "i32"), -extent, extent - 1)
    return Sample((d.array(shape, d.choice("f32", "i64")), indices), {"axis": k})


op(
    "Gather", "x indices -> y", since=13,
    doc="The slices of x along one axis that an integer tensor names.",
    attrs={"axis": AttrDecl("int", 0)}, infer=_infer_gather, nest=_gather_nest,
    shape_rule=_gathered_value, traits={"view"}, sample=sample(_sample_gather),
)  # fmt: skip


def _infer_gather_nd(site: Site) -> Sequence[TensorType]:
    x, indices = site.input("x"), require(site, "indices", dtypes="i64")
    batch, depth = site.attr("batch_dims"), indices.shape[-1] if indices.rank else 0
    if not isinstance(depth, int) or not 1 <= depth <= x.rank - batch:
        raise site.error(f"indices {indices} do not fit x, which is {x}")
    if x.shape[:batch] != indices.shape[:batch]:
        raise site.error(f"the first {batch} axes of {x} and {indices} differ")
    _check_range(site, x.shape[batch : batch + depth])
    return (TensorType(x.dtype, (*indices.shape[:-1], *x.shape[batch + depth :])),)


def _gather_nd_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, indices, y = notation.tensors("x", "indices", "y")
    batch, depth = site.attr("batch_dims"), indices.shape[-1]
    assert isinstance(depth, int), "inference refuses other index tuples"
    dims = notation.dims(" ".join(f"i{j}" for j in range(y.type.rank)))
    outer = dims[: indices.type.rank - 1]
    chosen = [_element(site, indices, (*outer, j), x.shape[batch + j]) for j in range(depth)]
    notation.assign(y.at(dims), x.at((*dims[:batch], *chosen, *dims[len(outer) :])))
    return notation.build()


def _sample_gather_nd(d: Draw) -> Sample:
    shape = d.shape(d.whole(1, 4))
    batch = d.whole(0, len(shape) - 1)
    depth = d.whole(1, len(shape) - batch)
    outer = (*shape[:batch], *d.shape(d.whole(0 if batch else 1, 2), 1, 3))
    columns = [d.ints(outer, "i64", -extent, extent - 1) for extent in shape[batch : batch + depth]]
    return Sample((d.floats(shape), np.stack(columns, -1)), {"batch_dims": batch})


op(
    "GatherND", "x indices -> y", since=13,
    doc="The slices of x at the index tuples in the last axis of an integer tensor; the first "
    "batch_dims axes of both go together.",
    attrs={"batch_dims": AttrDecl("int", 0)}, infer=_infer_gather_nd, nest=_gather_nd_nest,
    traits={"view"}, sample=sample(_sample_gather_nd),
)  # fmt: skip
