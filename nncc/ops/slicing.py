"""Views that select, repeat or join elements: Transpose, Slice, Split, Concat, Expand, Tile, Pad.

    Concat(x0: f32[N,3], x1: f32[N,5]) {axis=1}      y[i, j]     = x0[i,j]   j in 0..3
                                                     y[i, j + 3] = x1[i,j]   j in 0..5

Where to cut must be known at compile time, up to named sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncc.ir.bounds import nonnegative
from nncc.ir.index import Index, Size, ceildiv, modulo
from nncc.ir.nests import Nest
from nncc.ir.types import TensorType
from nncc.ops.inference import axis, broadcast, known_ints, known_sizes
from nncc.ops.notation import Notation, Number, axis_names, broadcast_indices
from nncc.ops.samples import Draw, i64, sample
from nncc.ops.table import AttrDecl, Sample, Site, bind, op


def _permutation(site: Site) -> tuple[int, ...]:
    rank = site.input("x").rank
    perm = tuple(site.attr("perm") or reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise site.error(f"perm {list(perm)} is not a permutation of 0..{rank - 1}")
    return perm


def _infer_transpose(site: Site) -> Sequence[TensorType]:
    x = site.input("x")
    return (TensorType(x.dtype, tuple(x.shape[k] for k in _permutation(site))),)


def _transpose_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims = notation.dims(axis_names(x.type.rank))
    notation.assign(y.at([dims[k] for k in _permutation(site)]), x.at(dims))
    return notation.build()


def _sample_transpose(d: Draw) -> Sample:
    shape = d.shape()
    attrs = {"perm": d.order(range(len(shape)))} if d.whole(0, 3) else {}
    return Sample((d.array(shape, d.choice("f32", "i8", "i64")),), attrs)


op(
    "Transpose", "x -> y", since=13, doc="Axis k of y is axis perm[k] of x; default: reversed.",
    attrs={"perm": AttrDecl("ints")}, infer=_infer_transpose, nest=_transpose_nest,
    shape_rule=lambda site: site.known("x").transpose(_permutation(site)),
    traits={"view"}, sample=sample(_sample_transpose),
)  # fmt: skip


def _slices(site: Site) -> list[tuple[Size, int, Size]]:
    """(start, step, extent) of the result along every axis of x."""
    x = site.input("x")
    starts, ends = known_sizes(site, "starts"), known_sizes(site, "ends")
    given = site.optional("axes")
    which = range(len(starts)) if given is None else known_ints(site, "axes")
    steps = (1,) * len(starts) if site.optional("steps") is None else known_ints(site, "steps")
    if not len(starts) == len(ends) == len(which) == len(steps):
        raise site.error("starts, ends, axes and steps have different lengths")
    result: list[tuple[Size, int, Size]] = [(0, 1, e) for e in x.shape]
    for start, end, a, step in zip(starts, ends, which, steps, strict=True):
        if step == 0:
            raise site.error("a step of 0 selects nothing")
        k = axis(site, a, x.rank)
        result[k] = _one_slice(site, start, end, step, x.shape[k])
    return result


def _one_slice(
    site: Site, start: Size, end: Size, step: int, extent: Size
) -> tuple[Size, int, Size]:
    """A slice with its bounds counted from the front and limited to the axis."""
    if step > 0:
        first = _limited(site, start, extent, 0, extent)
        count = ceildiv(_limited(site, end, extent, 0, extent) - first, step)
    else:
        first = _limited(site, start, extent, 0, extent - 1)
        count = ceildiv(first - _limited(site, end, extent, -1, extent - 1), -step)
    if isinstance(count, int) and count < 1:
        raise site.error(f"the slice {start}:{end}:{step} of an axis of {extent} is empty")
    return first, step, count


def _limited(site: Site, bound: Size, extent: Size, least: Size, most: Size) -> Size:
    """A bound, counted from the front, within `least..most`, both included."""

    def surely(size: Size) -> bool:
        return nonnegative(size) or nonnegative(size - extent + 1)  # every extent is at least 1

    if isinstance(bound, int) and abs(bound) > 2**31 - 2:  # "to the very end", either way
        return most if bound > 0 else least
    counted = bound if surely(bound) else bound + extent
    if surely(bound) or surely(-1 - bound):
        if surely(least - counted):
            return least
        if surely(counted - most):
            return most
        if surely(counted - least) and surely(most - counted):
            return counted
    raise site.error(
        f"whether the bound {bound} lies inside of an axis of {extent} is not known",
        "give the size a number, or slice another axis",
    )


def _infer_slice(site: Site) -> Sequence[TensorType]:
    return (TensorType(site.input("x").dtype, tuple(n for _, _, n in _slices(site))),)


def _slice_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims = notation.dims(axis_names(x.type.rank))
    where = [first + step * d for d, (first, step, _) in zip(dims, _slices(site), strict=True)]
    notation.assign(y.at(dims), x.at(where))
    return notation.build()


def _sliced_value(site: Site) -> np.ndarray | None:
    selected = []
    for first, step, count in _slices(site):
        if not (isinstance(first, int) and isinstance(count, int)):
            return None
        stop = first + step * count
        selected.append(slice(first, None if stop < 0 else stop, step))
    return site.known("x")[tuple(selected)]


def _sample_slice(d: Draw) -> Sample:
    shape = d.shape(None, 2, 6)
    which = d.subset(range(len(shape)))
    starts, ends, steps = [], [], []
    for k in which:
        step = d.choice(1, 1, 2, -1, -2)
        a, b = sorted(d.order(range(shape[k] + 1))[:2])
        first, last = (a, b) if step > 0 else (b - 1, a - 1)
        last = -shape[k] - 1 if last < 0 else last
        starts.append(first - shape[k] if d.flag() and first < shape[k] else first)
        ends.append(d.choice(last, 2**31 - 1) if step > 0 and d.flag() else last)
        steps.append(step)
    axes = i64(*(k - len(shape) if d.flag() else k for k in which))
    return Sample((d.floats(shape), i64(*starts), i64(*ends), axes, i64(*steps)))


op(
    "Slice", "x starts ends axes? steps? -> y", since=13,
    doc="x[start:end:step] along the given axes, as in Python.",
    infer=_infer_slice, nest=_slice_nest, shape_rule=_sliced_value, traits={"view"},
    sample=sample(_sample_slice),
)  # fmt: skip


def _parts(site: Site) -> tuple[int, tuple[int, ...]]:
    """The axis that is split and the extents of the parts."""
    x = site.input("x")
    k = axis(site, site.attr("axis"), x.rank)
    extent, count = x.shape[k], len(site.node.outputs)
    if site.attr("num_outputs") not in (None, count):
        raise site.error(f"num_outputs={site.attr('num_outputs')}, but it has {count} outputs")
    if site.optional("split") is not None:
        parts = known_ints(site, "split")
    elif not isinstance(extent, int):
        raise site.error(f"an axis of extent {extent} needs explicit parts")
    else:
        size = -(-extent // count)
        parts = (*[size] * (count - 1), extent - size * (count - 1))
    if sum(parts) != extent or min(parts) < 1:
        raise site.error(f"parts {list(parts)} do not make up axis {k} of {x}")
    if len(parts) != count:
        raise site.error(f"{len(parts)} parts for {count} outputs")
    return k, parts


def _infer_split(site: Site) -> Sequence[TensorType]:
    x = site.input("x")
    k, parts = _parts(site)
    return tuple(TensorType(x.dtype, (*x.shape[:k], p, *x.shape[k + 1 :])) for p in parts)


def _split_nest(site: Site) -> Nest:
    notation = Notation(site)
    x = notation.tensor("x")
    dims = notation.dims(axis_names(x.type.rank))
    k, parts = _parts(site)
    names = bind(site.node)
    for j, _ in enumerate(parts):
        if f"y{j}" not in names or not names[f"y{j}"]:
            continue
        where = (*dims[:k], dims[k] + sum(parts[:j]), *dims[k + 1 :])
        notation.assign(notation.tensor(f"y{j}").at(dims), x.at(where))
    return notation.build()


def _sample_split(d: Draw) -> Sample:
    shape, count = list(d.shape()), d.whole(1, 3)
    k = d.whole(-len(shape), len(shape) - 1)
    if d.flag():
        parts = d.shape(count)
        shape[k] = sum(parts)
        return Sample((d.floats(shape), i64(*parts)), {"axis": k}, count)
    shape[k] = count * d.whole(2, 3) - d.whole(0, 1)
    return Sample((d.floats(shape),), {"axis": k, "num_outputs": count}, count)


op(
    "Split", "x split? -> y*", since=18,
    doc="x cut along one axis into parts of the given extents, or into num_outputs parts of one "
    "extent, of which the last may be smaller.",
    attrs={"axis": AttrDecl("int", 0), "num_outputs": AttrDecl("int")},
    infer=_infer_split, nest=_split_nest, traits={"view"}, sample=sample(_sample_split),
)  # fmt: skip


def _infer_concat(site: Site) -> Sequence[TensorType]:
    types = [t for t in site.inputs if t is not None]
    first = types[0]
    if not first.rank:
        raise site.error("scalars cannot be concatenated")
    k = axis(site, site.attr("axis"), first.rank)
    for t in types[1:]:
        alike = t.rank == first.rank and t.dtype is first.dtype
        if not alike or any(
            a != b for j, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if j != k
        ):
            raise site.error(f"{first} and {t} differ in more than axis {k}")
    total: Size = 0
    for t in types:
        total = total + t.shape[k]
    return (TensorType(first.dtype, (*first.shape[:k], total, *first.shape[k + 1 :])),)


def _concat_nest(site: Site) -> Nest:
    notation = Notation(site)
    y = notation.tensor("y")
    dims = notation.dims(axis_names(y.type.rank))
    k = axis(site, site.attr("axis"), y.type.rank)
    offset: Size = 0
    for j in range(len(site.inputs)):
        x = notation.tensor(f"x{j}")
        where = (*dims[:k], dims[k] + offset, *dims[k + 1 :])
        over = {dims[k]: x.shape[k]}
        notation.assign(y.at(where), x.at(dims), over, name=f"y{j}")
        offset = offset + x.shape[k]
    return notation.build()


def _sample_concat(d: Draw) -> Sample:
    shape, dtype = list(d.shape()), d.choice("f32", "i8")
    k = d.whole(-len(shape), len(shape) - 1)
    arrays = []
    for _ in range(d.whole(1, 3)):
        shape[k] = d.whole(1, 4)
        arrays.append(d.array(shape, dtype))
    return Sample(tuple(arrays), {"axis": k})


op(
    "Concat", "x* -> y", since=13, doc="The operands one after the other along one axis.",
    attrs={"axis": AttrDecl("int", required=True)}, infer=_infer_concat, nest=_concat_nest,
    shape_rule=lambda site: np.concatenate(
        [c for c in site.constants if c is not None], axis=site.attr("axis")
    ),
    traits={"view"}, sample=sample(_sample_concat),
)  # fmt: skip


def _infer_expand(site: Site) -> Sequence[TensorType]:
    x = site.input("x")
    return (TensorType(x.dtype, broadcast(site, [x.shape, known_sizes(site, "shape")])),)


def _expand_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims = notation.dims(axis_names(y.type.rank))
    notation.assign(y.at(dims), x.at(broadcast_indices(x.shape, dims)))
    return notation.build()


def _sample_expand(d: Draw) -> Sample:
    shape = d.shape()
    return Sample((d.floats(d.broadcastable(shape)), i64(*shape)))


op(
    "Expand", "x shape -> y", since=13, doc="x broadcast with a tensor of the given shape.",
    infer=_infer_expand, nest=_expand_nest, traits={"view"}, sample=sample(_sample_expand),
)  # fmt: skip


def _infer_tile(site: Site) -> Sequence[TensorType]:
    x, repeats = site.input("x"), known_sizes(site, "repeats")
    if len(repeats) != x.rank:
        raise site.error(f"{len(repeats)} repeats for {x}")
    return (TensorType(x.dtype, tuple(e * r for e, r in zip(x.shape, repeats, strict=True))),)


def _tile_nest(site: Site) -> Nest:
    """Iterates over copies and positions: y[copy * extent + i] = x[i].

    Along an axis of symbolic extent over y alone: y[i] = x[i % extent].
    """
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims = notation.dims(axis_names(x.type.rank))
    target: list[Size] = list(dims)
    source: list[Size] = list(dims)
    over: dict[Index, Size] = {}
    for k, repeat in enumerate(known_sizes(site, "repeats")):
        d, extent = dims[k], x.shape[k]
        if repeat != 1 and isinstance(extent, int):
            copy = notation.dim(f"copy{k}")
            over |= {copy: repeat, d: extent}
            target[k] = copy * extent + d
        elif repeat != 1:
            source[k] = modulo(d, extent)
    notation.assign(y.at(target), x.at(source), over)
    return notation.build()


def _sample_tile(d: Draw) -> Sample:
    shape = d.shape(d.whole(1, 3))
    return Sample((d.floats(shape), i64(*d.shape(len(shape), 1, 3))))


op(
    "Tile", "x repeats -> y", since=13, doc="Copies of x one after the other along each axis.",
    infer=_infer_tile, nest=_tile_nest, traits={"view"}, sample=sample(_sample_tile),
)  # fmt: skip


def _paddings(site: Site) -> list[tuple[Size, Size]]:
    """Elements added before and behind along every axis of x."""
    x, pads = site.input("x"), known_ints(site, "pads")
    given = site.optional("axes")
    which = range(x.rank) if given is None else known_ints(site, "axes")
    if len(pads) != 2 * len(which):
        raise site.error(f"{len(pads)} pads for {len(which)} axes")
    result: list[tuple[Size, Size]] = [(0, 0)] * x.rank
    for j, a in enumerate(which):
        result[axis(site, a, x.rank)] = (pads[j], pads[j + len(which)])
    return result


def _infer_pad(site: Site) -> Sequence[TensorType]:
    x = site.input("x")
    if site.attr("mode") != "constant":
        raise site.error(f"mode={site.attr('mode')} is not supported", "use mode=constant")
    value = site.optional("value")
    if value is not None and (value.dtype is not x.dtype or value.elements != 1):
        raise site.error(f"the value is {value}, not one {x.dtype}")
    if value is not None:
        site.known("value")
    extents = [lo + e + hi for e, (lo, hi) in zip(x.shape, _paddings(site), strict=True)]
    if any(isinstance(e, int) and e < 1 for e in extents):
        raise site.error(f"padding leaves nothing of {x}")
    return (TensorType(x.dtype, tuple(extents)),)


def _pad_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    fill: Number = 0
    if site.optional("value") is not None:
        fill = site.known("value").item()
    dims = notation.dims(axis_names(x.type.rank))
    where = [d - lo for d, (lo, _) in zip(dims, _paddings(site), strict=True)]
    notation.assign(y.at(dims), x.at(where, fill))
    return notation.build()


def _pad_reference(
    x: np.ndarray,
    pads: np.ndarray,
    value: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    *,
    mode: str = "constant",
) -> tuple[np.ndarray, ...]:
    border = [(0, 0)] * x.ndim
    which = range(x.ndim) if axes is None else axes.tolist()
    for j, k in enumerate(which):
        border[k] = (int(pads[j]), int(pads[j + len(which)]))
    added = [(max(lo, 0), max(hi, 0)) for lo, hi in border]
    y = np.pad(x, added, constant_values=0 if value is None else value.item())
    cut = zip(border, y.shape, strict=True)
    return (y[tuple(slice(max(-lo, 0), n - max(-hi, 0)) for (lo, hi), n in cut)],)


def _sample_pad(d: Draw) -> Sample:
    shape = d.shape(None, 2, 4)
    which = d.subset(range(len(shape)))
    pads = i64(*(d.whole(-1 if k < len(which) else 0, 2) for k in range(2 * len(which))))
    value = d.floats(()) if d.flag() else None
    return Sample((d.floats(shape), pads, value, i64(*which)))


op(
    "Pad", "x pads value? axes? -> y", since=18,
    doc="x with elements of one value (default 0) added before and behind along the given axes; "
    "negative pads cut off. Only mode=constant.",
    attrs={"mode": AttrDecl("string", "constant")}, infer=_infer_pad, nest=_pad_nest,
    reference=_pad_reference, sample=sample(_sample_pad),
    deviation="onnx.reference does not take negative pads",
)  # fmt: skip
