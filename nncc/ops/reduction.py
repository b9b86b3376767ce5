"""Reductions over axes: sum, mean, product, largest, smallest.

    ReduceMean(x: f32[N,C,H,W], [2,3])     t[n,c] sum= x[n,c,h,w]; y[n,c,0,0] = t[n,c] / (H*W)

The axes are a constant operand, or all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nncc.ir.index import Index, Size, product
from nncc.ir.nests import Nest
from nncc.ir.types import DTYPES, TensorType
from nncc.ops.inference import FLOATS, axes, known_ints, object_array, require
from nncc.ops.notation import Notation, axis_names, cast, size_value
from nncc.ops.samples import Draw, Strategy, i64, sample
from nncc.ops.table import AttrDecl, Sample, Site, op


def _reduced(site: Site) -> tuple[int, ...]:
    """The axes that are reduced. An empty list means all, unless noop_with_empty_axes."""
    rank = site.input("x").rank
    given = () if site.optional("axes") is None else known_ints(site, "axes")
    if not given:
        return () if site.attr("noop_with_empty_axes") else tuple(range(rank))
    return axes(site, given, rank)


def _infer(dtypes: str) -> Callable[[Site], Sequence[TensorType]]:
    def infer(site: Site) -> Sequence[TensorType]:
        x = require(site, "x", dtypes=dtypes)
        gone, keep = _reduced(site), site.attr("keepdims")
        shape = [1 if k in gone else e for k, e in enumerate(x.shape) if keep or k not in gone]
        return (TensorType(x.dtype, tuple(shape)),)

    return infer


def _nest(combine: str, mean: bool = False) -> Callable[[Site], Nest]:
    def nest(site: Site) -> Nest:
        notation = Notation(site)
        x, y = notation.tensors("x", "y")
        gone = _reduced(site)
        dims = notation.dims(axis_names(x.type.rank)) if x.type.rank else ()
        over: dict[Index, Size] = {dims[k]: x.shape[k] for k in gone}
        kept = [d for k, d in enumerate(dims) if k not in gone]
        where = [0 if k in gone else d for k, d in enumerate(dims)]
        target = y.at(where if site.attr("keepdims") else kept)
        wide = DTYPES[x.dtype.accumulator] if combine in ("sum", "prod") else x.dtype
        if wide is x.dtype and not mean:
            notation.reduce(combine, target, x.at(dims), over)
            return notation.build()
        shape = [e for k, e in enumerate(x.shape) if k not in gone]
        total = notation.local("t", wide, shape).at(kept)
        notation.reduce(combine, total, cast(wide, x.at(dims)), over)
        count = size_value(product(x.shape[k] for k in gone), wide)
        notation.assign(target, cast(y.dtype, total / count if mean else total))
        return notation.build()

    return nest


def _sample(dtypes: Sequence[str]) -> Strategy:
    def make(d: Draw) -> Sample:
        shape = d.shape()
        chosen = i64(*(k - len(shape) if d.flag() else k for k in d.subset(range(len(shape)))))
        attrs = {"keepdims": d.flag(), "noop_with_empty_axes": d.flag()}
        return Sample((d.array(shape, d.choice(*dtypes)), chosen if d.whole(0, 3) else None), attrs)

    return sample(make)


def _product_of_sizes(site: Site) -> np.ndarray | None:
    values = site.known("x")
    if values.ndim > 1 or values.dtype.kind == "f":
        return None
    total = product(values.reshape(-1).tolist())
    return object_array([total]).reshape((1,) if site.attr("keepdims") else ())


_WIDE = FLOATS + " i64 i32 u64 u32"
for _name, _combine, _doc, _since, _dtypes, _samples in (
    ("ReduceSum", "sum", "The sum", 13, _WIDE, "f32 i32"),
    ("ReduceMean", "sum", "The mean", 18, FLOATS, "f32"),
    ("ReduceProd", "prod", "The product", 18, _WIDE, "f32"),
    ("ReduceMax", "max", "The largest element", 20, _WIDE + " i8 u8", "f32 i32"),
    ("ReduceMin", "min", "The smallest element", 20, _WIDE + " i8 u8", "f32 i32"),
):
    op(
        _name, "x axes? -> y", since=_since,
        doc=f"{_doc} over the given axes, or over all. keepdims leaves axes of extent 1.",
        attrs={
            "keepdims": AttrDecl("bool", True),
            "noop_with_empty_axes": AttrDecl("bool", False, doc="no axes: x itself"),
        },
        infer=_infer(_dtypes), nest=_nest(_combine, mean=_name == "ReduceMean"),
        shape_rule=_product_of_sizes if _name == "ReduceProd" else None,
        traits={"reduction"}, sample=_sample(_samples.split()),
    )  # fmt: skip
