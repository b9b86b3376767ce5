"""Pooling: the maximum or the average of windows.

    y[n,c,e,f] = max(r,s) (x[n, c, 2*e+r-1, 2*f+s-1] else -inf)

With ceil_mode a last window may reach beyond the padding too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Index, Size, ceildiv, maximum, minimum, product
from nncc.ir.nests import Nest, builtin_identity
from nncc.ir.types import DTYPES, TensorType, dtype_of
from nncc.ops.convolution import (
    SPATIAL,
    WINDOW_AXES,
    reaches_border,
    spatial_dims,
    spatial_pads,
    window_extents,
    window_indices,
)
from nncc.ops.inference import FLOATS, require, window_extent
from nncc.ops.notation import Notation, Scalar, cast, size_value
from nncc.ops.samples import Draw, sample
from nncc.ops.table import AttrDecl, Sample, Site, op
from nncc.ops.windows import windows

POOL_ATTRS = {
    "kernel_shape": AttrDecl("ints", required=True, doc="extent of the window along each axis"),
    **WINDOW_AXES,
    "ceil_mode": AttrDecl("bool", False, doc="also a last window that is partly behind the end"),
}
INCLUDE_PAD = {
    "count_include_pad": AttrDecl("bool", False, doc="padding counts as elements of value 0"),
}


def pool_shape(site: Site) -> tuple[Size, ...]:
    """The output shape of a pooling node."""
    x = site.input("x")
    kernel: tuple[int, ...] = site.attr("kernel_shape")
    spatial = len(kernel)
    if x.rank != spatial + 2 or not 1 <= spatial <= 3:
        raise site.error(f"kernel_shape {list(kernel)} does not fit x, which is {x}")
    extents = window_extents(site, x.shape[2:], kernel, site.attr("ceil_mode"))
    pads, dilations = spatial_pads(site, spatial), site.per_axis("dilations", spatial)
    if any(max(p) >= d * (k - 1) + 1 for p, d, k in zip(pads, dilations, kernel, strict=True)):
        raise site.error("a window would lie wholly in the padding")
    return (*x.shape[:2], *extents)


def window_parts(
    site: Site, notation: Notation
) -> tuple[tuple[Index, ...], tuple[Size, ...], dict[Index, Size], bool]:
    """Dims of the output, the input index, the window's dims, and whether it can reach outside."""
    x = notation.tensor("x")
    kernel: tuple[int, ...] = site.attr("kernel_shape")
    n, c = notation.dims("n c")
    positions, taps = spatial_dims(notation, len(kernel))
    where = (n, c, *window_indices(site, positions, taps))
    outside = reaches_border(site, x.type, kernel) or site.attr("ceil_mode")
    return (n, c, *positions), where, dict(zip(taps, kernel, strict=True)), outside


def _infer_max_pool(site: Site) -> Sequence[TensorType]:
    type = require(site, "x", dtypes=FLOATS + " i8 u8")
    return (TensorType(type.dtype, pool_shape(site)),)


def _max_pool_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims, where, window, outside = window_parts(site, notation)
    lowest = builtin_identity("max", x.dtype)
    notation.reduce("max", y[dims], x.at(where, lowest if outside else None), window)
    return notation.build()


def _output_extents(x: np.ndarray, kernel: Sequence[int], attrs: dict[str, Any]) -> list[int]:
    spatial = len(kernel)
    pads = attrs.get("pads") or (0,) * (2 * spatial)
    strides = attrs.get("strides") or (1,) * spatial
    dilations = attrs.get("dilations") or (1,) * spatial
    extents = [
        window_extent(
            x.shape[2 + k], kernel[k], strides[k], (pads[k], pads[k + spatial]), dilations[k],
            attrs.get("ceil_mode", False),
        )
        for k in range(spatial)
    ]  # fmt: skip
    return [int(e) for e in extents]  # type: ignore[arg-type]


def pool_windows(
    x: np.ndarray, kernel_shape: Sequence[int], outside: int | float, attrs: dict[str, Any]
) -> np.ndarray:
    """The windows of a pooling node with its attributes, as w[n,c,e…,r…]."""
    extents = _output_extents(x, kernel_shape, attrs)
    strides, pads, dilations = (attrs.get(k) for k in ("strides", "pads", "dilations"))
    return windows(x, kernel_shape, strides, pads, dilations, outside, extents)


def _last_axes(view: np.ndarray) -> tuple[int, ...]:
    spatial = (view.ndim - 2) // 2
    return tuple(range(view.ndim - spatial, view.ndim))


def _max_pool_reference(
    x: np.ndarray, *, kernel_shape: Sequence[int], **attrs: Any
) -> tuple[np.ndarray, ...]:
    dtype = dtype_of(x.dtype)
    lowest = -np.inf if dtype.is_float else dtype.limits[0]
    view = pool_windows(x, kernel_shape, lowest, attrs)
    return (np.asarray(view.max(axis=_last_axes(view)), x.dtype),)


def pool_geometry(d: Draw) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Shape of x and attributes of a random pooling node."""
    spatial = d.choice(2, 2, 1)
    kernel = d.shape(spatial, 1, 3)
    dilations = d.shape(spatial, 1, 2)
    reach = [dil * (k - 1) + 1 for dil, k in zip(dilations, kernel, strict=True)]
    pads = tuple(d.whole(0, k - 1) for k in (*kernel, *kernel))
    extents = [max(d.whole(1, 7), r) for r in reach]
    attrs = {
        "kernel_shape": kernel, "strides": d.shape(spatial, 1, 3), "pads": pads,
        "dilations": dilations, "ceil_mode": d.flag(),
    }  # fmt: skip
    return (d.whole(1, 2), d.whole(1, 3), *extents), attrs


def _sample_max_pool(d: Draw) -> Sample:
    shape, attrs = pool_geometry(d)
    return Sample((d.array(shape, d.choice("f32", "i8")),), attrs)


op(
    "MaxPool", "x -> y", since=22,
    doc="The maximum of each window; padding never wins. The output Indices is not taken.",
    attrs=POOL_ATTRS, infer=_infer_max_pool, nest=_max_pool_nest,
    reference=_max_pool_reference, traits={"reduction"}, sample=sample(_sample_max_pool),
    deviation="onnx.reference pads wrongly without dilations: with one spatial axis, and where "
    "an axis gets shorter than the window",
)  # fmt: skip


def _infer_average_pool(site: Site) -> Sequence[TensorType]:
    type = require(site, "x", dtypes=FLOATS)
    return (TensorType(type.dtype, pool_shape(site)),)


def window_count(site: Site, positions: Sequence[Size]) -> Size:
    """How many elements the average of the window at `positions` is over.

    Without count_include_pad those in the tensor; with it, those in the padded tensor.
    """
    x = site.input("x")
    kernel: tuple[int, ...] = site.attr("kernel_shape")
    spatial = len(kernel)
    pads = spatial_pads(site, spatial)
    strides = site.per_axis("strides", spatial)
    dilations = site.per_axis("dilations", spatial)
    include = site.attr("count_include_pad")
    counts: list[Size] = []
    for k in range(spatial):
        start = strides[k] * positions[k] - pads[k][0]
        end = x.shape[2 + k] + (pads[k][1] if include else 0)
        first: Size = 0
        if pads[k][0] and not include:
            first = maximum(0, ceildiv(-start, dilations[k]))
        last: Size = kernel[k]
        if site.attr("ceil_mode") or (pads[k][1] and not include):
            last = minimum(kernel[k], ceildiv(end - start, dilations[k]))
        counts.append(last - first)
    return product(counts)


def _average_pool_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    accumulator = DTYPES[x.dtype.accumulator]
    dims, where, window, outside = window_parts(site, notation)
    total = notation.local("t", accumulator, y.shape)[dims]
    notation.reduce("sum", total, cast(accumulator, x.at(where, 0 if outside else None)), window)
    count = size_value(window_count(site, dims[2:]), accumulator)
    notation.assign(y[dims], cast(y.dtype, total / count))
    return notation.build()


def counts_of_windows(
    x: np.ndarray, kernel_shape: Sequence[int], count_include_pad: bool, attrs: dict[str, Any]
) -> np.ndarray:
    """The number of elements that each window averages, of shape [1,1,e…]."""
    inside = np.ones((1, 1, *x.shape[2:]), np.int64)
    if count_include_pad:
        spatial = len(kernel_shape)
        pads = attrs.get("pads") or (0,) * (2 * spatial)
        border = [(0, 0), (0, 0), *((pads[k], pads[k + spatial]) for k in range(spatial))]
        extents = _output_extents(x, kernel_shape, attrs)
        whole = np.pad(inside, border, constant_values=1)
        steps, dilations = attrs.get("strides"), attrs.get("dilations")
        view = windows(whole, kernel_shape, steps, dilations=dilations, extents=extents)
    else:
        view = pool_windows(inside, kernel_shape, 0, attrs)
    return np.asarray(view.sum(axis=_last_axes(view)))


def _average_pool_reference(
    x: np.ndarray, *, kernel_shape: Sequence[int], count_include_pad: bool = False, **attrs: Any
) -> tuple[np.ndarray, ...]:
    wide = np.float64 if x.dtype == np.float64 else np.float32
    view = pool_windows(x.astype(wide), kernel_shape, 0, attrs)
    total = view.sum(axis=_last_axes(view), dtype=wide)
    counts = counts_of_windows(x, kernel_shape, count_include_pad, attrs)
    return ((total / counts.astype(wide)).astype(x.dtype),)


def _sample_average_pool(d: Draw) -> Sample:
    shape, attrs = pool_geometry(d)
    return Sample((d.floats(shape),), {**attrs, "count_include_pad": d.flag()})


op(
    "AveragePool", "x -> y", since=22,
    doc="The average of each window over its elements in x, or, with count_include_pad, over "
    "its elements in the padded x.",
    attrs={**POOL_ATTRS, **INCLUDE_PAD}, infer=_infer_average_pool, nest=_average_pool_nest,
    reference=_average_pool_reference, traits={"reduction"}, sample=sample(_sample_average_pool),
    deviation="onnx.reference takes wrong elements with ceil_mode and dilations together",
)  # fmt: skip


def infer_global(site: Site, dtypes: str) -> TensorType:
    """Every spatial axis becomes 1."""
    x = require(site, "x", dtypes=dtypes)
    if x.rank < 3:
        raise site.error(f"operand x is {x}; batch, channel and spatial axes are needed")
    return TensorType(x.dtype, (*x.shape[:2], *[1] * (x.rank - 2)))


def global_parts(notation: Notation) -> tuple[tuple[Index, ...], Scalar, dict[Index, Size]]:
    """Dims of x, y's element, and the reduced dims."""
    x, y = notation.tensors("x", "y")
    dims = notation.dims("n c " + " ".join(SPATIAL[5 - x.type.rank :]))
    window: dict[Index, Size] = dict(zip(dims[2:], x.shape[2:], strict=True))
    return dims, y[(*dims[:2], *[0] * (x.type.rank - 2))], window


def _global_average_nest(site: Site) -> Nest:
    notation = Notation(site)
    x = notation.tensor("x")
    dims, y, window = global_parts(notation)
    accumulator = DTYPES[x.dtype.accumulator]
    total = notation.local("t", accumulator, x.shape[:2])[dims[:2]]
    notation.reduce("sum", total, cast(accumulator, x[dims]), window)
    count = size_value(product(x.shape[2:]), accumulator)
    notation.assign(y, cast(y.dtype, total / count))
    return notation.build()


def _global_max_nest(site: Site) -> Nest:
    notation = Notation(site)
    dims, y, window = global_parts(notation)
    notation.reduce("max", y, notation.tensor("x")[dims], window)
    return notation.build()


def _sample_global(d: Draw) -> Sample:
    return Sample((d.floats(d.shape(d.choice(3, 4, 5))),))


op(
    "GlobalAveragePool", "x -> y", since=22, doc="The average over all spatial axes.",
    infer=lambda site: (infer_global(site, FLOATS),), nest=_global_average_nest,
    traits={"reduction"}, sample=sample(_sample_global),
)  # fmt: skip
op(
    "GlobalMaxPool", "x -> y", since=22, doc="The maximum over all spatial axes.",
    infer=lambda site: (infer_global(site, FLOATS),), nest=_global_max_nest,
    reference=lambda x: (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),),
    traits={"reduction"}, sample=sample(_sample_global),
    deviation="onnx.reference forgets an axis of tensors of rank 3",
)  # fmt: skip
