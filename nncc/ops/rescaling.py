"""Rescaling inside of integer programs: Requantize, IntAdd, Lookup.

    Requantize(x: i32, m, s) {z=3}         y = clamp(z + ((x*m + 2^(s-1)) >> s), lo, hi)

Only integers occur; `nncc.ops.integer` has the arithmetic in numpy and makes the multipliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Size
from nncc.ir.nests import Nest
from nncc.ir.types import DType, TensorType, i8, i32, i64, u8
from nncc.ops.inference import axis, broadcast, require
from nncc.ops.integer import requantize, rounding_shift
from nncc.ops.notation import (
    Notation,
    Scalar,
    axis_names,
    broadcast_indices,
    cast,
    const,
    maximum,
    minimum,
)
from nncc.ops.quantization import AXIS, aligned, check_per_axis, per_axis
from nncc.ops.samples import Draw, sample
from nncc.ops.table import AttrDecl, Sample, Site, op

# The result of an op that rescales: z + …, limited to lo..hi, as `to`.
RESULT = {
    "z": AttrDecl("int", 0, doc="zero point of the result"),
    "lo": AttrDecl("int", -128, doc="smallest result, for example z after a Relu"),
    "hi": AttrDecl("int", 127, doc="largest result"),
    "to": AttrDecl("dtype", i8, doc="dtype of the result, i8 or u8"),
}


def result_type(site: Site) -> DType:
    """The dtype of a rescaled result, after a check of the limits against it."""
    to: DType = site.attr("to")
    lo, hi = site.attr("lo"), site.attr("hi")
    if to not in (i8, u8):
        raise site.error(f"the result cannot be {to}")
    if not to.limits[0] <= lo <= hi <= to.limits[1]:
        raise site.error(f"lo={lo}, hi={hi} are no limits within {to}")
    if not lo <= site.attr("z") <= hi:
        raise site.error(f"the zero point {site.attr('z')} is not in {lo}..{hi}")
    return to


def rescaled(site: Site, x: Scalar, m: Scalar, s: Scalar) -> Scalar:
    """clamp(z + ((x*m + 2^(s-1)) >> s), lo, hi) with x, m, s as i64 and the result as `to`."""
    half = const(1, i64) << (s - 1)
    return limited(site, (x * m + half) >> s)


def limited(site: Site, x: Scalar) -> Scalar:
    """clamp(z + x, lo, hi) as the node's result dtype."""
    shifted = x + site.attr("z")
    bounded = minimum(maximum(shifted, site.attr("lo")), site.attr("hi"))
    return cast(site.attr("to"), bounded)


def _infer_requantize(site: Site) -> Sequence[TensorType]:
    x = require(site, "x", dtypes="i32")
    for name in ("m", "s"):
        require(site, name, dtypes="i32")
        check_per_axis(site, x, name)
    _check_range(site, "m", 1 << 30, (1 << 31) - 1)
    _check_range(site, "s", 2, 62)
    return (TensorType(result_type(site), x.shape),)


def _check_range(site: Site, name: str, lo: int, hi: int) -> None:
    known = site.constant(name)
    if known is not None and (known.min() < lo or known.max() > hi):
        raise site.error(f"operand {name} has {known.min()}..{known.max()}, not in {lo}..{hi}")


def _requantize_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims = notation.dims(axis_names(x.type.rank)) if x.type.rank else ()
    along = axis(site, site.attr("axis"), x.type.rank) if x.type.rank > 1 else 0
    m, s = (per_axis(notation, n, dims, along) for n in ("m", "s"))
    assert m is not None and s is not None
    notation.assign(y.at(dims), rescaled(site, cast(i64, x.at(dims)), cast(i64, m), cast(i64, s)))
    return notation.build()


def _requantize_reference(
    x: np.ndarray,
    m: np.ndarray,
    s: np.ndarray,
    *,
    axis: int = 1,
    z: int = 0,
    lo: int = -128,
    hi: int = 127,
    to: DType = i8,
) -> tuple[np.ndarray, ...]:
    y = requantize(x, aligned(m, x, axis), aligned(s, x, axis), z, lo, hi)
    return (y.astype(to.numpy),)


def draw_result(d: Draw) -> dict[str, Any]:
    """Random attributes of a rescaled result."""
    to: DType = d.choice(i8, u8)
    lo, z, hi = sorted(d.whole(*to.limits) for _ in range(3))
    least, most = to.limits
    return {"z": z, "lo": d.choice(least, lo), "hi": d.choice(most, hi), "to": to}


def _sample_requantize(d: Draw) -> Sample:
    x = d.ints(d.shape(), "i32", -(2**31), 2**31 - 1)
    if d.flag():
        x = d.ints(x.shape, "i32", -5000, 5000)
    along = d.whole(0, x.ndim - 1)
    shape = (x.shape[along],) if d.flag() else ()
    m = d.ints(shape, "i32", 2**30, 2**31 - 1)
    s = d.ints(shape, "i32", 2, 62) if d.flag() else d.ints(shape, "i32", 33, 42)
    return Sample((x, m, s), {"axis": along, **draw_result(d)})


op(
    "Requantize", "x m s -> y", domain="nncc",
    doc="clamp(z + ((int64(x)*m + 2^(s-1)) >> s), lo, hi): x times the scale m/2^s with one "
    "rounding, half up. m in [2^30, 2^31) and s in 2..62 are for the whole tensor or for each "
    "index of `axis`.",
    attrs={**AXIS, **RESULT}, infer=_infer_requantize, nest=_requantize_nest,
    reference=_requantize_reference, traits={"elementwise", "requantizes"},
    sample=sample(_sample_requantize),
)  # fmt: skip


def _infer_lookup(site: Site) -> Sequence[TensorType]:
    x, table = require(site, "x", dtypes="i8 u8"), require(site, "table", rank=1)
    if table.shape != (256,):
        raise site.error(f"the table is {table}, not of 256 entries")
    return (TensorType(table.dtype, x.shape),)


def _lookup_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, table, y = notation.tensors("x", "table", "y")
    dims = notation.dims(axis_names(x.type.rank)) if x.type.rank else ()
    least, most = x.dtype.limits
    position: Size = x.element(dims, least, most + 1) - least
    notation.assign(y.at(dims), table[position])
    return notation.build()


def _lookup_reference(x: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, ...]:
    return (table[x.astype(np.int64) - np.iinfo(x.dtype).min],)


def _sample_lookup(d: Draw) -> Sample:
    x = d.ints(d.shape(), d.choice("i8", "u8"), -128, 255)
    table = d.ints((256,), d.choice("i8", "u8", "i32"), -128, 255)
    return Sample((x, table))


op(
    "Lookup", "x table -> y", domain="nncc",
    doc="Any function of 8 bits as a table: table[x + 128] for i8, table[x] for u8.",
    infer=_infer_lookup, nest=_lookup_nest, reference=_lookup_reference,
    traits={"elementwise"}, sample=sample(_sample_lookup),
)  # fmt: skip


ADD_ATTRS = {
    "za": AttrDecl("int", 0, doc="zero point of a"),
    "zb": AttrDecl("int", 0, doc="zero point of b"),
    "ma": AttrDecl("int", required=True, doc="multiplier of a, in 0..2^15"),
    "mb": AttrDecl("int", required=True, doc="multiplier of b, in 0..2^15"),
    "s": AttrDecl("int", required=True, doc="shift, in 1..30"),
    **RESULT,
}


def _infer_int_add(site: Site) -> Sequence[TensorType]:
    a, b = require(site, "a", dtypes="i8 u8"), require(site, "b", dtypes="i8 u8")
    for name, type in (("za", a), ("zb", b)):
        least, most = type.dtype.limits
        if not least <= site.attr(name) <= most:
            raise site.error(f"{name}={site.attr(name)} is no value of {type.dtype}")
    for name in ("ma", "mb"):
        if not 0 <= site.attr(name) < 1 << 15:
            raise site.error(f"{name}={site.attr(name)} is not in 0..2^15")
    if not 1 <= site.attr("s") <= 30:
        raise site.error(f"s={site.attr('s')} is not in 1..30")
    return (TensorType(result_type(site), broadcast(site, [a.shape, b.shape])),)


def _int_add_nest(site: Site) -> Nest:
    notation = Notation(site)
    a, b, y = notation.tensors("a", "b", "y")
    dims = notation.dims(axis_names(y.type.rank)) if y.type.rank else ()
    total = const(1 << (site.attr("s") - 1), i32)
    for handle, zero, multiplier in ((a, "za", "ma"), (b, "zb", "mb")):
        value = cast(i32, handle.at(broadcast_indices(handle.shape, dims))) - site.attr(zero)
        total = value * site.attr(multiplier) + total
    notation.assign(y.at(dims), limited(site, total >> site.attr("s")))
    return notation.build()


def _int_add_reference(
    a: np.ndarray, b: np.ndarray, *, ma: int, mb: int, s: int, za: int = 0, zb: int = 0,
    z: int = 0, lo: int = -128, hi: int = 127, to: DType = i8,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    total = (a.astype(np.int64) - za) * ma + (b.astype(np.int64) - zb) * mb
    return (np.clip(z + rounding_shift(total, s), lo, hi).astype(to.numpy),)


def _sample_int_add(d: Draw) -> Sample:
    shape = d.shape()
    a = d.ints(shape, d.choice("i8", "u8"), -128, 255)
    b = d.ints(d.broadcastable(shape), d.choice("i8", "u8"), -128, 255)
    attrs = {
        "za": d.whole(0, 20), "zb": d.whole(0, 127), "ma": d.whole(0, 2**15 - 1),
        "mb": d.whole(2**14, 2**15 - 1), "s": d.choice(1, 14, 15, 16, 17, 30), **draw_result(d),
    }  # fmt: skip
    return Sample((a, b), attrs)


op(
    "IntAdd", "a b -> y", domain="nncc",
    doc="The sum of two tensors of different scales: clamp(z + (((a-za)*ma + (b-zb)*mb + "
    "2^(s-1)) >> s), lo, hi) in int32, one rounding, half up.",
    attrs=ADD_ATTRS, infer=_infer_int_add, nest=_int_add_nest, reference=_int_add_reference,
    traits={"elementwise", "requantizes"}, sample=sample(_sample_int_add),
)  # fmt: skip
