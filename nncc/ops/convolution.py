"""Convolution, in floats and in integers, of 1 to 3 spatial axes.

    y[n,m,e,f] = b[m] + sum(c,r,s) (x[n, c, e+r-1, f+s-1] else 0) * w[m,c,r,s]

Groups iterate over the group `g` and the channels in it, so that every index stays affine:

    y[n, 4*g+m, e, f] sum= x[n, 2*g+c, e+r, f+s] * w[4*g+m, c, r, s]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Index, Size
from nncc.ir.nests import Nest
from nncc.ir.types import DTYPES, TensorType, i32
from nncc.ops.inference import FLOATS, one_dtype, require, window_extent
from nncc.ops.integer import accumulator_bound, coarse_bound, largest_distance
from nncc.ops.notation import Handle, Notation, cast, const
from nncc.ops.samples import Draw, sample
from nncc.ops.table import AttrDecl, Sample, Site, op
from nncc.ops.windows import correlate

SPATIAL = ("d", "h", "w")
WINDOW_AXES = {
    "strides": AttrDecl("ints", fill=1, doc="step of the window along each spatial axis"),
    "pads": AttrDecl("ints", fill=0, doc="padding before each spatial axis, then behind each"),
    "dilations": AttrDecl("ints", fill=1, doc="distance of neighbouring elements of the window"),
}
CONV_ATTRS = {
    **WINDOW_AXES,
    "group": AttrDecl("int", 1, doc="channels are convolved in so many independent groups"),
    "kernel_shape": AttrDecl("ints", doc="redundant: the spatial extents of w"),
}


def spatial_pads(site: Site, rank: int) -> list[tuple[int, int]]:
    """Padding before and behind each of `rank` spatial axes."""
    pads = site.per_axis("pads", 2 * rank)
    return [(pads[k], pads[k + rank]) for k in range(rank)]


def window_extents(
    site: Site, spatial: Sequence[Size], kernel: Sequence[int], ceil: bool = False
) -> list[Size]:
    """How many positions a window has along each spatial axis of x."""
    pads = spatial_pads(site, len(kernel))
    strides = site.per_axis("strides", len(kernel))
    dilations = site.per_axis("dilations", len(kernel))
    if min(*kernel, *strides, *dilations) < 1:
        raise site.error("the window's extents, strides and dilations must be at least 1")
    if min(min(p) for p in pads) < 0:
        raise site.error("pads must not be negative", "cut with Slice")
    extents = [
        window_extent(spatial[k], kernel[k], strides[k], pads[k], dilations[k], ceil)
        for k in range(len(kernel))
    ]
    if any(isinstance(e, int) and e < 1 for e in extents):
        window = "x".join(map(str, kernel))
        raise site.error(f"the window {window} is larger than the padded input {site.input('x')}")
    return extents


def _conv_shape(site: Site) -> tuple[Size, ...]:
    x, w = site.input("x"), site.input("w")
    spatial = x.rank - 2
    if not 1 <= spatial <= 3:
        raise site.error(f"operand x is {x}; 1 to 3 spatial axes are needed")
    if w.rank != x.rank:
        raise site.error(f"x has rank {x.rank}, w has rank {w.rank}")
    if not w.is_static:
        raise site.error(f"the shape of w must be static, not {w}")
    filters, channels, *kernel = w.static_shape
    group = site.attr("group")
    if group < 1:
        raise site.error(f"group={group} is below 1")
    if x.shape[1] != channels * group:
        raise site.error(
            f"x has {x.shape[1]} channels, w takes {channels} in each of {group} groups"
        )
    if filters % group:
        raise site.error(f"group={group} does not divide {filters} output channels")
    if (given := site.attr("kernel_shape")) and tuple(given) != tuple(kernel):
        raise site.error(f"kernel_shape is {list(given)}, but w is {w}")
    bias = site.optional("b")
    if bias is not None and bias.shape != (filters,):
        raise site.error(f"the bias is {bias}, not of shape [{filters}]")
    return (x.shape[0], filters, *window_extents(site, x.shape[2:], kernel))


def _infer_conv(site: Site) -> Sequence[TensorType]:
    require(site, "x", dtypes=FLOATS)
    return (TensorType(one_dtype(site, "x", "w", "b"), _conv_shape(site)),)


def window_indices(site: Site, positions: Sequence[Size], taps: Sequence[Size]) -> tuple[Size, ...]:
    """The input index of each window position and tap: stride*e + dilation*r - pad."""
    spatial = len(positions)
    pads = spatial_pads(site, spatial)
    strides = site.per_axis("strides", spatial)
    dilations = site.per_axis("dilations", spatial)
    return tuple(
        strides[k] * positions[k] + dilations[k] * taps[k] - pads[k][0] for k in range(spatial)
    )


def spatial_dims(notation: Notation, spatial: int) -> tuple[tuple[Index, ...], tuple[Index, ...]]:
    """Dims of the output's spatial axes and of the window's: (e, f) and (r, s)."""
    positions = notation.dims(" ".join("def"[3 - spatial :]))
    return positions, notation.dims(" ".join("qrs"[3 - spatial :]))


def reaches_border(site: Site, x: TensorType, kernel: Sequence[int]) -> bool:
    """Whether a window can lie partly outside of the tensor."""
    return any(p != (0, 0) for p in spatial_pads(site, len(kernel)))


def _conv_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, w, y = notation.tensors("x", "w", "y")
    bias = notation.optional("b")
    accumulator = DTYPES[x.dtype.accumulator]
    filters, channels, *kernel = w.type.static_shape
    group = site.attr("group")
    per_group = filters // group
    spatial = len(kernel)

    n, g, m, c = notation.dims("n g m c")
    positions, taps = spatial_dims(notation, spatial)
    over: dict[Index, Size] = {}
    out_channel: Size = m
    in_channel: Size = c
    weight_channel: Size = c
    if group > 1 and per_group == 1:
        out_channel, in_channel = m, m if channels == 1 else channels * m + c
    elif group > 1:
        over |= {g: group, m: per_group}
        out_channel = per_group * g + m
        in_channel = g if channels == 1 else channels * g + c
    if group > 1 and channels == 1:
        weight_channel = 0
    else:
        over[c] = channels
    over |= dict(zip(taps, kernel, strict=True))

    outside, zero_point = _outside(site, x)
    inside = (n, in_channel, *window_indices(site, positions, taps))
    padded = reaches_border(site, x.type, kernel)
    value = cast(accumulator, x.at(inside, outside if padded else None))
    if zero_point:
        value = value - zero_point
    product = value * cast(accumulator, w[(out_channel, weight_channel, *taps)])
    target = y[(n, out_channel, *positions)]
    start = cast(accumulator, bias[out_channel]) if bias else const(0, accumulator)
    found = notation.accumulate(target, product, over, start)
    if found is not target:
        kept = {d: extent for d, extent in over.items() if d in (g, m)}
        notation.assign(target, cast(y.dtype, found), kept)
    return notation.build()


def _outside(site: Site, x: Handle) -> tuple[int, int]:
    """What padding holds, and the zero point that is subtracted from elements and padding."""
    if x.dtype.is_float:
        return 0, 0
    zero_point = site.attr("zx")
    pad_value = site.attr("pad_value")
    return (zero_point if pad_value is None else pad_value), zero_point


def _conv_reference(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, **attrs: Any
) -> tuple[np.ndarray, ...]:
    wide = np.float64 if x.dtype == np.float64 else np.float32
    y = correlate(x.astype(wide), w.astype(wide), 0, **attrs)
    if b is not None:
        y = y + b.astype(wide).reshape(1, -1, *[1] * (x.ndim - 2))
    return (y.astype(x.dtype),)


def conv_geometry(d: Draw) -> tuple[tuple[int, ...], tuple[int, ...], int, dict[str, Any]]:
    """Shapes of x and w, the number of filters, and attributes of a random convolution."""
    spatial = d.choice(2, 2, 1, 3)
    group = d.choice(1, 1, 2, 3)
    channels, per_group = d.whole(1, 3), d.whole(1, 3)
    kernel = d.shape(spatial, 1, 3)
    dilations = d.shape(spatial, 1, 2)
    pads = tuple(d.whole(0, 2) for _ in range(2 * spatial))
    reach = [dil * (k - 1) + 1 for dil, k in zip(dilations, kernel, strict=True)]
    extents = [max(1, d.whole(1, 6), r - pads[k] - pads[k + spatial]) for k, r in enumerate(reach)]
    attrs: dict[str, Any] = {
        "strides": d.shape(spatial, 1, 3), "pads": pads, "dilations": dilations, "group": group,
    }  # fmt: skip
    x = (d.whole(1, 2), group * channels, *extents)
    w = (group * per_group, channels, *kernel)
    return x, w, group * per_group, attrs


def _sample_conv(d: Draw) -> Sample:
    x, w, filters, attrs = conv_geometry(d)
    bias = d.floats((filters,)) if d.flag() else None
    return Sample((d.floats(x), d.floats(w), bias), attrs)


op(
    "Conv", "x w b? -> y", since=22,
    doc="Convolution (in fact correlation) of x[n,c,…] with the filters w[m,c,…] plus a bias "
    "for each filter; zeros outside of x. auto_pad is resolved to pads on import.",
    attrs=CONV_ATTRS, infer=_infer_conv, nest=_conv_nest, reference=_conv_reference,
    traits={"contraction"}, sample=sample(_sample_conv),
)  # fmt: skip


def _infer_int_conv(site: Site) -> Sequence[TensorType]:
    x = require(site, "x", dtypes="i8 u8")
    require(site, "w", dtypes="i8")
    if site.optional("b") is not None:
        require(site, "b", dtypes="i32")
    for name in ("zx", "pad_value"):
        value = site.attr(name)
        if value is not None and not x.dtype.limits[0] <= value <= x.dtype.limits[1]:
            raise site.error(f"{name}={value} is no value of {x.dtype}")
    return (TensorType(i32, _conv_shape(site)),)


def _int_conv_accumulator(site: Site, array: Callable[[str], np.ndarray | None]) -> int:
    """Coarsely by the number of taps; by the weights themselves where that is not enough."""
    limits = site.input("x").dtype.limits
    bias, taps = array("b"), math.prod(site.input("w").static_shape[1:])
    bound = coarse_bound(taps, largest_distance(limits, site.attr("zx")), 128, bias)
    if bound < 1 << 31 or (w := array("w")) is None:
        return bound
    return accumulator_bound(w, bias, site.attr("zx"), limits)


def _int_conv_reference(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    zx: int = 0,
    pad_value: int | None = None,
    **attrs: Any,
) -> tuple[np.ndarray, ...]:
    outside = (zx if pad_value is None else pad_value) - zx
    # sums of integers below 2^53 are exact in float64, whose product is many times faster
    y = correlate(x.astype(np.float64) - zx, w.astype(np.float64), outside, **attrs)
    y = y.astype(np.int64)
    if b is not None:
        y = y + b.astype(np.int64).reshape(1, -1, *[1] * (x.ndim - 2))
    return (y.astype(np.int32),)


def _sample_int_conv(d: Draw) -> Sample:
    x, w, filters, attrs = conv_geometry(d)
    dtype = d.choice("i8", "u8")
    zero_point = d.whole(0, 100)
    bias = d.ints((filters,), "i32", -1000, 1000) if d.flag() else None
    attrs["zx"] = zero_point
    if d.flag():
        attrs["pad_value"] = d.whole(0, 100)
    return Sample((d.ints(x, dtype, -128, 255), d.ints(w, "i8", -127, 127), bias), attrs)


op(
    "IntConv", "x w b? -> y", domain="nncc",
    doc="Convolution of integers: y = b + sum (x - zx) * w in int32. Padding holds pad_value, "
    "by default zx, so that it adds nothing. Folding -zx * sum(w) into b gives the same with "
    "zx=0 and pad_value=zx (`nncc.ops.integer.absorb_zero_point`).",
    attrs={
        **CONV_ATTRS,
        "zx": AttrDecl("int", 0, doc="zero point of x"),
        "pad_value": AttrDecl("int", doc="what padding holds; absent: zx"),
    },
    infer=_infer_int_conv, nest=_conv_nest, reference=_int_conv_reference,
    accumulator=_int_conv_accumulator,
    traits={"contraction"}, sample=sample(_sample_int_conv),
)  # fmt: skip
