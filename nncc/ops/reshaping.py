"""Views that keep the row-major order: Reshape, Flatten, Squeeze, Unsqueeze, Identity, Dropout.

The nest of a reshape iterates over the finest common pieces of both shapes, so that its
indices are affine wherever such pieces exist:

    Reshape(x: f32[N,3,4]) -> f32[N,12]         y[i0, 4*i1 + i2] = x[i0, i1, i2]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncc.ir.index import Index, Size, floordiv, modulo, product
from nncc.ir.nests import Nest
from nncc.ir.types import TensorType
from nncc.ops.inference import FLOATS, axes, known_ints, known_sizes, require, same_as
from nncc.ops.notation import Notation
from nncc.ops.polynomials import quotient
from nncc.ops.samples import Draw, i64, sample
from nncc.ops.table import AttrDecl, Sample, Site, op


def _infer_reshape(site: Site) -> Sequence[TensorType]:
    x = site.input("x")
    shape: list[Size] = list(known_sizes(site, "shape"))
    if not site.attr("allowzero"):
        for k, extent in enumerate(shape):
            if extent == 0 and k >= x.rank:
                raise site.error(f"entry {k} of the shape is 0, but x is {x}")
            shape[k] = x.shape[k] if extent == 0 else extent
    if shape.count(-1) > 1:
        raise site.error(f"the shape {shape} has more than one -1")
    if -1 in shape:
        rest = quotient(x.elements, -product(shape))
        if rest is None:
            raise site.error(f"{x} cannot be reshaped to {shape}")
        shape[shape.index(-1)] = rest
    type = TensorType(x.dtype, tuple(shape))
    if type.elements != x.elements:
        raise site.error(f"{x} has {x.elements} elements, {type} has {type.elements}")
    return (type,)


def reshape_nest(site: Site) -> Nest:
    """The nest of any op whose output has the elements of its input in row-major order."""
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    source: list[Size] = []
    target: list[Size] = []
    over: dict[Index, Size] = {}
    for inner, outer in _groups(x.shape, y.shape):
        pieces = _pieces(inner, outer)
        extents = outer if pieces is None else pieces
        dims = [notation.dim(f"i{len(over) + k}") for k in range(len(extents))]
        over |= dict(zip(dims, extents, strict=True))
        if pieces is None:
            target += dims
            source += _delinearized(_linear(dims, outer), inner)
        else:
            target += _indices(outer, pieces, dims)
            source += _indices(inner, pieces, dims)
    notation.assign(y.at(target), x.at(source), over)
    return notation.build()


def _groups(
    inner: Sequence[Size], outer: Sequence[Size]
) -> list[tuple[tuple[Size, ...], tuple[Size, ...]]]:
    """Both shapes cut into runs of axes with equal products, as short as possible."""
    groups = []
    i = j = 0
    while i < len(inner) or j < len(outer):
        i_end, j_end = next(
            (p, q)
            for p in range(i + 1, len(inner) + 1)
            for q in range(j + 1, len(outer) + 1)
            if product(inner[i:p]) == product(outer[j:q])
        ) if i < len(inner) and j < len(outer) else (len(inner), len(outer))  # fmt: skip
        if all(e == 1 for e in (*inner[i_end:], *outer[j_end:])):
            i_end, j_end = len(inner), len(outer)  # trailing ones join the last group
        groups.append((tuple(inner[i:i_end]), tuple(outer[j:j_end])))
        i, j = i_end, j_end
    return groups


def _pieces(inner: Sequence[Size], outer: Sequence[Size]) -> list[Size] | None:
    """Extents, outermost first, of which the axes of both sides are products; None: there are none.

    >>> _pieces((6, 4), (2, 12))
    [2, 3, 4]
    """
    a, b = ([e for e in side if e != 1] for side in (inner, outer))
    pieces: list[Size] = []
    while len(a) > 1 and len(b) > 1:
        if (rest := quotient(a[0], b[0])) is not None:
            pieces.append(b.pop(0))
            a[:1] = [] if rest == 1 else [rest]
        elif (rest := quotient(b[0], a[0])) is not None:
            pieces.append(a.pop(0))
            b[:1] = [rest]
        else:
            return None
    return pieces + (b if len(a) <= 1 else a)


def _indices(shape: Sequence[Size], pieces: Sequence[Size], dims: Sequence[Index]) -> list[Size]:
    """The index along each axis of `shape`, whose axes are products of consecutive pieces."""
    indices: list[Size] = []
    at = 0
    for extent in shape:
        start = at
        while extent != 1 and product(pieces[start:at]) != extent:
            at += 1
        indices.append(_linear(dims[start:at], pieces[start:at]))
    return indices


def _linear(dims: Sequence[Size], extents: Sequence[Size]) -> Size:
    """The row-major position of an index."""
    position: Size = 0
    for d, extent in zip(dims, extents, strict=True):
        position = position * extent + d
    return position


def _delinearized(position: Size, shape: Sequence[Size]) -> list[Size]:
    """The index at a row-major position."""
    indices: list[Size] = []
    for k, extent in reversed(list(enumerate(shape))):
        if extent == 1:
            indices.append(0)
            continue
        indices.append(position if all(e == 1 for e in shape[:k]) else modulo(position, extent))
        position = floordiv(position, extent)
    return indices[::-1]


def _shape_rule_reshape(site: Site) -> np.ndarray:
    (type,) = _infer_reshape(site)
    return site.known("x").reshape(type.static_shape)


def _sample_reshape(d: Draw) -> Sample:
    factors = d.order(d.shape(d.whole(1, 4), 1, 4))
    shape, target = _merged(d, factors), _merged(d, d.order(factors) if d.flag() else factors)
    entries = list(target)
    if d.flag():
        entries[d.whole(0, len(entries) - 1)] = -1
    return Sample((d.array(shape, d.choice("f32", "i64")), i64(*entries)))


def _merged(d: Draw, factors: Sequence[int]) -> tuple[int, ...]:
    """Random runs of factors multiplied together."""
    shape = [factors[0]]
    for f in factors[1:]:
        if d.flag():
            shape.append(f)
        else:
            shape[-1] *= f
    return tuple(shape)


op(
    "Reshape", "x shape -> y", since=14,
    doc="The elements of x in row-major order in another shape. One entry of the shape may be -1 "
    "(what is left); 0 copies the extent of x unless allowzero is set.",
    attrs={"allowzero": AttrDecl("bool", False)}, infer=_infer_reshape, nest=reshape_nest,
    shape_rule=_shape_rule_reshape, traits={"view", "alias"}, sample=sample(_sample_reshape),
)  # fmt: skip


def _infer_flatten(site: Site) -> Sequence[TensorType]:
    x, at = site.input("x"), site.attr("axis")
    if not -x.rank <= at <= x.rank:
        raise site.error(f"axis {at} is not in {-x.rank}..{x.rank}")
    at = at + x.rank if at < 0 else at
    return (TensorType(x.dtype, (product(x.shape[:at]), product(x.shape[at:]))),)


def _sample_flatten(d: Draw) -> Sample:
    shape = d.shape()
    return Sample((d.floats(shape),), {"axis": d.whole(-len(shape), len(shape))})


op(
    "Flatten", "x -> y", since=13, doc="x as a matrix: axes before `axis` are the rows.",
    attrs={"axis": AttrDecl("int", 1)}, infer=_infer_flatten, nest=reshape_nest,
    traits={"view", "alias"}, sample=sample(_sample_flatten),
)  # fmt: skip


def _infer_squeeze(site: Site) -> Sequence[TensorType]:
    x = site.input("x")
    if site.optional("axes") is None:
        if not x.is_static:
            raise site.error(f"which axes of {x} have extent 1 is not known", "give the axes")
        gone: tuple[int, ...] = tuple(k for k, e in enumerate(x.shape) if e == 1)
    else:
        gone = axes(site, known_ints(site, "axes"), x.rank)
    for k in gone:
        if x.shape[k] != 1:
            raise site.error(f"axis {k} of {x} has extent {x.shape[k]}, not 1")
    kept = tuple(e for k, e in enumerate(x.shape) if k not in gone)
    return (TensorType(x.dtype, kept),)


def _infer_unsqueeze(site: Site) -> Sequence[TensorType]:
    x, given = site.input("x"), known_ints(site, "axes")
    new = axes(site, given, x.rank + len(given))
    shape = list(x.shape)
    for k in new:
        shape.insert(k, 1)
    return (TensorType(x.dtype, tuple(shape)),)


def _reshaped_value(site: Site) -> np.ndarray:
    (type,) = (_infer_squeeze if site.node.op == "Squeeze" else _infer_unsqueeze)(site)
    return site.known("x").reshape(type.static_shape)


def _sample_squeeze(d: Draw) -> Sample:
    shape = tuple(d.choice(1, e) for e in d.shape())
    ones = [k for k, e in enumerate(shape) if e == 1]
    given = i64(*d.subset(ones)) if ones and d.flag() else None
    return Sample((d.floats(shape), given))


def _sample_unsqueeze(d: Draw) -> Sample:
    shape = d.shape(d.whole(0, 3))
    count = d.whole(1, 2)
    rank = len(shape) + count
    new = d.order(range(rank))[:count]
    return Sample((d.floats(shape), i64(*(k - rank if d.flag() else k for k in new))))


op(
    "Squeeze", "x axes? -> y", since=13,
    doc="x without the given axes of extent 1, or without all of them.",
    infer=_infer_squeeze, nest=reshape_nest, shape_rule=_reshaped_value,
    traits={"view", "alias"}, sample=sample(_sample_squeeze),
)  # fmt: skip
op(
    "Unsqueeze", "x axes -> y", since=13, doc="x with axes of extent 1 put in.",
    infer=_infer_unsqueeze, nest=reshape_nest, shape_rule=_reshaped_value,
    traits={"view", "alias"}, sample=sample(_sample_unsqueeze),
)  # fmt: skip


def _sample_any(d: Draw) -> Sample:
    return Sample((d.array(d.shape(d.whole(0, 4)), d.choice("f32", "i64", "bool", "i8")),))


op(
    "Identity", "x -> y", since=14, doc="x itself.", infer=same_as("x"), nest=reshape_nest,
    shape_rule=lambda site: site.known("x"), traits={"view", "alias"}, sample=sample(_sample_any),
)  # fmt: skip


def _infer_dropout(site: Site) -> Sequence[TensorType]:
    require(site, "x", dtypes=FLOATS)
    if site.optional("training") is not None and site.known("training").item():
        raise site.error("training mode is not supported", "export the model for inference")
    return (site.input("x"),)


def _sample_dropout(d: Draw) -> Sample:
    ratio = np.float32(d.choice(0.0, 0.5)) if d.flag() else None
    return Sample((d.floats(d.shape()), None if ratio is None else np.asarray(ratio)))


op(
    "Dropout", "x ratio? training? -> y", since=13,
    doc="x itself: nothing is dropped in inference. The output mask is not taken.",
    attrs={"seed": AttrDecl("int")}, infer=_infer_dropout, nest=reshape_nest,
    traits={"view", "alias"}, sample=sample(_sample_dropout),
)  # fmt: skip


op(
    "Relayout", "x -> y", domain="nncc",
    doc="x itself, kept in another layout: the graph's layouts of x and y say from which to "
    "which. The pass `layout` inserts it.",
    infer=same_as("x"), nest=reshape_nest, reference=lambda x: (x,), traits={"view"},
    sample=sample(_sample_any),
)  # fmt: skip
