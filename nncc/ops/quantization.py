"""Ops at the border of floats and integers, by ONNX's rules: f32 scales, half to even.

    QuantizeLinear(x: f32, scale, zero)    y = saturate(round(x / scale) + zero)
    DequantizeLinear(x: i8, scale, zero)   y = (x - zero) * scale

Scale and zero point are of the whole tensor, or of each index of one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Index
from nncc.ir.nests import Nest
from nncc.ir.types import DType, TensorType, f32, i8, i32, u8
from nncc.ops.inference import axis, require
from nncc.ops.notation import Notation, Scalar, axis_names, call, cast, maximum, minimum
from nncc.ops.samples import Draw, sample
from nncc.ops.table import AttrDecl, Sample, Site, op

AXIS = {"axis": AttrDecl("int", 1, doc="the axis that operands of rank 1 belong to")}


def check_per_axis(site: Site, x: TensorType, name: str) -> None:
    """`name` is a scalar, or has one element for each index of `axis`."""
    type = site.optional(name)
    if type is None or type.shape in ((), (1,)):
        return
    if type.rank != 1 or type.shape[0] != x.shape[axis(site, site.attr("axis"), x.rank)]:
        raise site.error(
            f"operand {name} is {type}: neither a scalar nor along axis {site.attr('axis')} of {x}"
        )


def per_axis(notation: Notation, name: str, dims: Sequence[Index], along: int) -> Scalar | None:
    """The element of `name` that belongs to `dims`; None if the operand is absent."""
    handle = notation.optional(name)
    if handle is None:
        return None
    if handle.shape in ((), (1,)):
        return notation.operand(name, dims)
    return handle[dims[along]]


def aligned(values: np.ndarray, x: np.ndarray, along: int) -> np.ndarray:
    """A scalar or a rank-1 operand, shaped to broadcast along its axis of x."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * x.ndim
    shape[along] = -1
    return values.reshape(shape)


def _infer_quantize(site: Site) -> Sequence[TensorType]:
    x = require(site, "x", dtypes="f32")
    require(site, "scale", dtypes="f32")
    zero, stated = site.optional("zero"), site.attr("output_dtype")
    dtype = zero.dtype if zero is not None else stated or u8
    if stated is not None and stated is not dtype:
        raise site.error(f"the zero point is {dtype}, output_dtype is {stated}")
    if dtype not in (i8, u8):
        raise site.error(f"quantization to {dtype} is not supported")
    for name in ("scale", "zero"):
        check_per_axis(site, x, name)
    return (TensorType(dtype, x.shape),)


def _quantize_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims = notation.dims(axis_names(x.type.rank)) if x.type.rank else ()
    along = axis(site, site.attr("axis"), x.type.rank) if x.type.rank > 1 else 0
    scale = per_axis(notation, "scale", dims, along)
    zero = per_axis(notation, "zero", dims, along)
    assert scale is not None
    rounded = call("round", x.at(dims) / scale)
    if zero is not None:
        rounded = rounded + cast(f32, zero)
    lo, hi = y.dtype.limits
    notation.assign(y.at(dims), cast(y.dtype, minimum(maximum(rounded, float(lo)), float(hi))))
    return notation.build()


def _quantize_reference(
    x: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None = None,
    *,
    axis: int = 1,
    output_dtype: DType | None = None,
) -> tuple[np.ndarray, ...]:
    target = (output_dtype or u8).numpy if zero is None else zero.dtype
    limits = np.iinfo(target)
    rounded = np.rint(x / aligned(scale, x, axis))
    if zero is not None:
        rounded = rounded + aligned(zero, x, axis).astype(np.float32)
    return (np.clip(rounded, limits.min, limits.max).astype(target),)


def _quantization_operands(d: Draw, x: np.ndarray, dtype: str) -> tuple[Any, Any, dict[str, Any]]:
    along = d.whole(0, x.ndim - 1)
    shape = (x.shape[along],) if d.flag() else ()
    zero = d.ints(shape, dtype, 0, 100) if d.flag() else None
    return d.floats(shape, lo=0.01, hi=0.1), zero, {"axis": along}


def _sample_quantize(d: Draw) -> Sample:
    x = d.floats(d.shape(), lo=-15, hi=15)
    dtype = d.choice("i8", "u8")
    scale, zero, attrs = _quantization_operands(d, x, dtype)
    if zero is None and dtype == "i8":
        attrs["output_dtype"] = i8
    return Sample((x, scale, zero), attrs)


op(
    "QuantizeLinear", "x scale zero? -> y", since=21,
    doc="saturate(round(x / scale) + zero), half to even, in f32; scale and zero for the whole "
    "tensor or for each index of `axis`.",
    attrs={
        **AXIS,
        "output_dtype": AttrDecl("dtype", doc="where there is no zero point; absent: u8"),
    },
    infer=_infer_quantize, nest=_quantize_nest, reference=_quantize_reference,
    sample=sample(_sample_quantize),
)  # fmt: skip


def _infer_dequantize(site: Site) -> Sequence[TensorType]:
    x = require(site, "x", dtypes="i8 u8 i32")
    require(site, "scale", dtypes="f32")
    zero = site.optional("zero")
    if zero is not None and zero.dtype is not x.dtype:
        raise site.error(f"x is {x.dtype}, the zero point is {zero.dtype}")
    for name in ("scale", "zero"):
        check_per_axis(site, x, name)
    return (TensorType(f32, x.shape),)


def _dequantize_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims = notation.dims(axis_names(x.type.rank)) if x.type.rank else ()
    along = axis(site, site.attr("axis"), x.type.rank) if x.type.rank > 1 else 0
    scale = per_axis(notation, "scale", dims, along)
    zero = per_axis(notation, "zero", dims, along)
    assert scale is not None
    value = cast(i32, x.at(dims))
    if zero is not None:
        value = value - cast(i32, zero)
    notation.assign(y.at(dims), cast(f32, value) * scale)
    return notation.build()


def _dequantize_reference(
    x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None, *, axis: int = 1
) -> tuple[np.ndarray, ...]:
    centered = x.astype(np.int32)
    if zero is not None:
        centered = centered - aligned(zero, x, axis).astype(np.int32)
    return (centered.astype(np.float32) * aligned(scale, x, axis),)


def _sample_dequantize(d: Draw) -> Sample:
    dtype = d.choice("i8", "u8", "i32")
    x = d.ints(d.shape(), dtype, -128, 255)
    scale, zero, attrs = _quantization_operands(d, x, dtype)
    if dtype == "i32":
        zero = None  # ONNX: a zero point of int32 must be 0
    return Sample((x, scale, zero), attrs)


op(
    "DequantizeLinear", "x scale zero? -> y", since=21,
    doc="(x - zero) * scale in f32; scale and zero for the whole tensor or for each index of "
    "`axis`.",
    attrs=AXIS, infer=_infer_dequantize, nest=_dequantize_nest, reference=_dequantize_reference,
    sample=sample(_sample_dequantize),
)  # fmt: skip
