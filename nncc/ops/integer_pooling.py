"""Average pooling of integers: int32 sums, rescaled by one multiplier for each distinct count.

    t[n,c,e,f] = sum(r,s) ((x[n, c, e+r-1, f+s-1] else zx) - zx)
    y[n,c,e,f] = clamp(z + ((t*m + 2^(s-1)) >> s), lo, hi)      m, s: of the window's count

The scale sx / (sy * count) differs where a window reaches over the border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Size, evaluate, product, var
from nncc.ir.nests import Nest
from nncc.ir.types import DType, TensorType, i8, i32, i64
from nncc.ops.inference import require
from nncc.ops.integer import largest_distance, quantize_multiplier, requantize
from nncc.ops.notation import Notation, Scalar, call, cast, const, select, size_value
from nncc.ops.pooling import (
    INCLUDE_PAD,
    POOL_ATTRS,
    counts_of_windows,
    global_parts,
    infer_global,
    pool_geometry,
    pool_shape,
    pool_windows,
    window_count,
    window_parts,
)
from nncc.ops.rescaling import RESULT, draw_result, rescaled, result_type
from nncc.ops.samples import Draw, sample
from nncc.ops.table import AttrDecl, Sample, Site, op

INPUT = {"zx": AttrDecl("int", 0, doc="zero point of x; padding holds it")}


def distinct_counts(site: Site) -> tuple[int, ...]:
    """The numbers of elements that windows of a pooling node average, ascending.

    Raises VerifyError if they depend on named sizes.
    """
    extents = pool_shape(site)[2:]
    count = window_count(site, [_position(k) for k in range(len(extents))])
    if isinstance(count, int):
        return (count,)
    known = [e for e in extents if isinstance(e, int)]
    if len(known) < len(extents):
        raise site.error("windows at borders need spatial sizes that are known")
    grid: Any = np.indices(known)
    counts = evaluate(count, {str(_position(k)): g for k, g in enumerate(grid)})
    return tuple(int(c) for c in np.unique(counts))


def _position(k: int) -> Size:
    return var(f"position{k}")


def _zero_point(site: Site, x: TensorType) -> int:
    zero: int = site.attr("zx")
    if not x.dtype.limits[0] <= zero <= x.dtype.limits[1]:
        raise site.error(f"zx={zero} is no value of {x.dtype}")
    return zero


def _check_sum(site: Site, x: TensorType, count: int) -> None:
    """The sum of `count` elements stays within int32."""
    if count * largest_distance(x.dtype.limits, site.attr("zx")) >= 1 << 31:
        raise site.error(f"sums of {count} elements may leave int32")


def _check_multiplier(site: Site, m: int, s: int) -> None:
    if not 1 << 30 <= m < 1 << 31:
        raise site.error(f"the multiplier {m} is not in [2^30, 2^31)")
    if not 2 <= s <= 62:
        raise site.error(f"the shift {s} is not in 2..62")


def _infer_pool(site: Site) -> Sequence[TensorType]:
    x = require(site, "x", dtypes="i8 u8")
    _zero_point(site, x)
    shape = pool_shape(site)
    _check_sum(site, x, math.prod(site.attr("kernel_shape")))
    counts = distinct_counts(site)
    if tuple(site.attr("counts")) != counts:
        raise site.error(f"counts are {list(site.attr('counts'))}, windows have {list(counts)}")
    if not len(site.attr("m")) == len(site.attr("s")) == len(counts):
        raise site.error("m and s need one entry for each count")
    for m, s in zip(site.attr("m"), site.attr("s"), strict=True):
        _check_multiplier(site, m, s)
    return (TensorType(result_type(site), shape),)


def _pool_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    zero: int = site.attr("zx")
    dims, where, window, outside = window_parts(site, notation)
    total = notation.local("t", i32, y.shape)[dims]
    value = cast(i32, x.at(where, zero if outside else None))
    notation.reduce("sum", total, value - zero if zero else value, window)
    count = window_count(site, dims[2:])
    m, s = (_by_count(site, name, count) for name in ("m", "s"))
    notation.assign(y[dims], rescaled(site, cast(i64, total), m, s))
    return notation.build()


def _by_count(site: Site, name: str, count: Size) -> Scalar:
    """The entry of attribute `name` for a window's count."""
    counts, entries = site.attr("counts"), site.attr(name)
    chosen = const(entries[-1], i64)
    for c, entry in zip(counts[:-1], entries[:-1], strict=True):
        chosen = select(call("eq", size_value(count, i32), c), const(entry, i64), chosen)
    return chosen


def _pool_reference(
    x: np.ndarray, *, kernel_shape: Sequence[int], counts: Sequence[int], m: Sequence[int],
    s: Sequence[int], zx: int = 0, z: int = 0, lo: int = -128, hi: int = 127, to: DType = i8,
    count_include_pad: bool = False, **attrs: Any,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    view = pool_windows(x.astype(np.int64) - zx, kernel_shape, 0, attrs)
    spatial = len(kernel_shape)
    total = view.sum(axis=tuple(range(view.ndim - spatial, view.ndim)))
    of = counts_of_windows(x, kernel_shape, count_include_pad, attrs)
    entry = np.searchsorted(np.asarray(counts), of)
    y = requantize(total, np.asarray(m)[entry], np.asarray(s)[entry], z, lo, hi)
    return (y.astype(to.numpy),)


def _sample_pool(d: Draw) -> Sample:
    shape, attrs = pool_geometry(d)
    attrs |= {"count_include_pad": d.flag(), "zx": d.whole(0, 100), **draw_result(d)}
    x = d.ints(shape, d.choice("i8", "u8"), -128, 255)
    geometry = {k: attrs[k] for k in ("strides", "pads", "dilations", "ceil_mode")}
    found = counts_of_windows(x, attrs["kernel_shape"], attrs["count_include_pad"], geometry)
    counts = tuple(int(c) for c in np.unique(found))
    pairs = [quantize_multiplier(1.3 / c) for c in counts]
    attrs |= {"counts": counts, "m": tuple(m for m, _ in pairs), "s": tuple(s for _, s in pairs)}
    return Sample((x,), attrs)


op(
    "IntAveragePool", "x -> y", domain="nncc",
    doc="Average pooling of integers: the int32 sum of (x - zx) over each window, rescaled with "
    "the m and s that belong to the window's count (see AveragePool) as by Requantize.",
    attrs={
        **POOL_ATTRS, **INCLUDE_PAD, **INPUT, **RESULT,
        "counts": AttrDecl("ints", required=True, doc="every count that occurs, ascending"),
        "m": AttrDecl("ints", required=True, doc="multiplier for each count"),
        "s": AttrDecl("ints", required=True, doc="shift for each count"),
    },
    infer=_infer_pool, nest=_pool_nest, reference=_pool_reference,
    traits={"reduction", "requantizes"}, sample=sample(_sample_pool),
)  # fmt: skip


def _infer_global(site: Site) -> Sequence[TensorType]:
    type = infer_global(site, "i8 u8")
    _zero_point(site, type)
    _check_multiplier(site, site.attr("m"), site.attr("s"))
    count = product(site.input("x").shape[2:])
    if not isinstance(count, int):
        raise site.error("the spatial sizes must be known")
    _check_sum(site, type, count)
    return (TensorType(result_type(site), type.shape),)


def _global_nest(site: Site) -> Nest:
    notation = Notation(site)
    x = notation.tensor("x")
    dims, y, window = global_parts(notation)
    total = notation.local("t", i32, x.shape[:2])[dims[:2]]
    zero: int = site.attr("zx")
    value = cast(i32, x[dims])
    notation.reduce("sum", total, value - zero if zero else value, window)
    m, s = (const(site.attr(name), i64) for name in ("m", "s"))
    notation.assign(y, rescaled(site, cast(i64, total), m, s))
    return notation.build()


def _global_reference(
    x: np.ndarray, *, m: int, s: int, zx: int = 0, z: int = 0, lo: int = -128, hi: int = 127,
    to: DType = i8,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    total = (x.astype(np.int64) - zx).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    return (requantize(total, m, s, z, lo, hi).astype(to.numpy),)


def _sample_global(d: Draw) -> Sample:
    shape = d.shape(d.choice(3, 4))
    m, s = quantize_multiplier(1.7 / float(np.prod(shape[2:])))
    x = d.ints(shape, d.choice("i8", "u8"), -128, 255)
    return Sample((x,), {"m": m, "s": s, "zx": d.whole(0, 100), **draw_result(d)})


op(
    "IntGlobalAveragePool", "x -> y", domain="nncc",
    doc="The int32 sum of (x - zx) over all spatial axes, rescaled as by Requantize; the count "
    "is part of m and s.",
    attrs={
        **INPUT, **RESULT,
        "m": AttrDecl("int", required=True), "s": AttrDecl("int", required=True),
    },
    infer=_infer_global, nest=_global_nest, reference=_global_reference,
    traits={"reduction", "requantizes"}, sample=sample(_sample_global),
)  # fmt: skip
