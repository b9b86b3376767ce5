"""Normalizations: affine maps by stored or computed statistics, and softmax."""

from __future__ import annotations

from collections.abc import Sequence

from nncc.ir.index import Index, Size, product
from nncc.ir.nests import Nest
from nncc.ir.types import DTYPES, TensorType
from nncc.ops.inference import FLOATS, axis, broadcast, one_dtype, require
from nncc.ops.notation import Notation, axis_names, broadcast_indices, call, cast, size_value
from nncc.ops.samples import Draw, sample
from nncc.ops.table import AttrDecl, Sample, Site, op

EPSILON = {"epsilon": AttrDecl("float", 1e-5, doc="added to the variance")}


def _infer_batch_normalization(site: Site) -> Sequence[TensorType]:
    x = require(site, "x", dtypes=FLOATS)
    if x.rank < 2:
        raise site.error(f"operand x is {x}; axis 1 must be the channels")
    for name in ("scale", "b", "mean", "var"):
        if site.input(name).shape != (x.shape[1],):
            raise site.error(f"operand {name} is {site.input(name)}, not of shape [{x.shape[1]}]")
    return (x,)


def _batch_normalization_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, scale, b, mean, var, y = notation.tensors("x", "scale", "b", "mean", "var", "y")
    dims = notation.dims("n c " + " ".join("dhw"[5 - x.type.rank :]))
    c = dims[1]
    factor = notation.local("a", y.dtype, (x.shape[1],))
    deviation = call("sqrt", cast(y.dtype, var[c]) + site.attr("epsilon"))
    notation.assign(factor[c], cast(y.dtype, scale[c]) / deviation)
    centered = x[dims] - cast(y.dtype, mean[c])
    notation.assign(y[dims], centered * factor[c] + cast(y.dtype, b[c]))
    return notation.build()


def _sample_batch_normalization(d: Draw) -> Sample:
    shape = d.shape(d.choice(2, 3, 4))
    c = shape[1:2]
    statistics = (d.floats(c), d.floats(c), d.floats(c), d.floats(c, lo=0.1))
    return Sample((d.floats(shape), *statistics), {"epsilon": d.choice(1e-5, 1e-3)})


op(
    "BatchNormalization", "x scale b mean var -> y", since=15,
    doc="(x - mean) / sqrt(var + epsilon) * scale + b for each channel, by stored statistics "
    "(training_mode is not taken).",
    attrs={**EPSILON, "momentum": AttrDecl("float", 0.9, doc="of training; without effect")},
    infer=_infer_batch_normalization, nest=_batch_normalization_nest,
    sample=sample(_sample_batch_normalization),
)  # fmt: skip


def _infer_layer_normalization(site: Site) -> Sequence[TensorType]:
    x = require(site, "x", dtypes=FLOATS)
    one_dtype(site, "x", "scale", "b")
    if site.attr("stash_type") != 1:
        raise site.error("statistics are kept in float32 or wider: stash_type must be 1")
    axis(site, site.attr("axis"), x.rank)
    for name in ("scale", "b"):
        given = site.optional(name)
        if given is not None and broadcast(site, [x.shape, given.shape]) != x.shape:
            raise site.error(f"operand {name}, {given}, does not broadcast to {x}")
    return (x,)


def _layer_normalization_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, scale, y = notation.tensors("x", "scale", "y")
    first = axis(site, site.attr("axis"), x.type.rank)
    dims = notation.dims(axis_names(x.type.rank))
    kept, shape = dims[:first], x.shape[:first]
    over: dict[Index, Size] = dict(zip(dims[first:], x.shape[first:], strict=True))
    wide = DTYPES[x.dtype.accumulator]
    count = size_value(product(x.shape[first:]), wide)

    total = notation.local("total", wide, shape).at(kept)
    notation.reduce("sum", total, cast(wide, x[dims]), over)
    mean = notation.local("mean", wide, shape).at(kept)
    notation.assign(mean, total / count)
    centered = cast(wide, x[dims]) - mean
    squares = notation.local("squares", wide, shape).at(kept)
    notation.reduce("sum", squares, centered * centered, over)
    factor = notation.local("factor", wide, shape).at(kept)
    notation.assign(factor, 1.0 / call("sqrt", squares / count + site.attr("epsilon")))
    value = cast(x.dtype, centered * factor) * scale.at(broadcast_indices(scale.shape, dims))
    bias = notation.optional("b")
    if bias:
        value = value + bias.at(broadcast_indices(bias.shape, dims))
    notation.assign(y[dims], value)
    return notation.build()


def _sample_layer_normalization(d: Draw) -> Sample:
    shape = (*d.shape(d.whole(0, 2)), d.whole(2, 6))
    first = d.whole(0, len(shape) - 1)
    bias = d.floats(shape[first:]) if d.flag() else None
    attrs = {"axis": first - len(shape), "epsilon": d.choice(1e-5, 1e-3)}
    return Sample((d.floats(shape), d.floats(shape[first:]), bias), attrs)


op(
    "LayerNormalization", "x scale b? -> y", since=17,
    doc="(x - mean) / sqrt(variance + epsilon) * scale + b with the statistics of the axes from "
    "`axis` on. The outputs Mean and InvStdDev are not taken.",
    attrs={
        "axis": AttrDecl("int", -1), **EPSILON,
        "stash_type": AttrDecl("int", 1, doc="1: statistics are kept in at least float32"),
    },
    infer=_infer_layer_normalization, nest=_layer_normalization_nest, traits={"reduction"},
    sample=sample(_sample_layer_normalization),
)  # fmt: skip


def _infer_softmax(site: Site) -> Sequence[TensorType]:
    x = require(site, "x", dtypes=FLOATS)
    axis(site, site.attr("axis"), x.rank)
    return (x,)


def _softmax_nest(site: Site, logarithm: bool = False) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    along = axis(site, site.attr("axis"), x.type.rank)
    dims = notation.dims(axis_names(x.type.rank))
    kept = (*dims[:along], *dims[along + 1 :])
    shape = (*x.shape[:along], *x.shape[along + 1 :])
    over: dict[Index, Size] = {dims[along]: x.shape[along]}
    wide = DTYPES[x.dtype.accumulator]

    highest = notation.local("highest", x.dtype, shape).at(kept)
    notation.reduce("max", highest, x[dims], over)
    shifted = cast(wide, x[dims]) - cast(wide, highest)
    total = notation.local("total", wide, shape).at(kept)
    if logarithm:
        notation.reduce("sum", total, call("exp", shifted), over)
        notation.assign(y[dims], cast(y.dtype, shifted - call("log", total)))
        return notation.build()
    power = notation.local("power", wide, x.shape)[dims]
    notation.assign(power, call("exp", shifted))
    notation.reduce("sum", total, power, over)
    notation.assign(y[dims], cast(y.dtype, power / total))
    return notation.build()


def _sample_softmax(d: Draw) -> Sample:
    shape = d.shape()
    return Sample((d.floats(shape),), {"axis": d.whole(-len(shape), len(shape) - 1)})


op(
    "Softmax", "x -> y", since=13, doc="exp(x) / sum(exp(x)) along one axis.",
    attrs={"axis": AttrDecl("int", -1)}, infer=_infer_softmax, nest=_softmax_nest,
    traits={"reduction"}, sample=sample(_sample_softmax),
)  # fmt: skip
op(
    "LogSoftmax", "x -> y", since=13, doc="x - log(sum(exp(x))) along one axis.",
    attrs={"axis": AttrDecl("int", -1)}, infer=_infer_softmax,
    nest=lambda site: _softmax_nest(site, logarithm=True),
    traits={"reduction"}, sample=sample(_sample_softmax),
)  # fmt: skip
