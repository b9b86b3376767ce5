"""Ops that make tensors from nothing or from shapes: Constant, ConstantOfShape, Shape, Range.

Known up to named sizes they vanish at compile time; each has a `shape_rule` for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Size, ceildiv
from nncc.ir.nests import Nest
from nncc.ir.tensor import Tensor
from nncc.ir.types import DTYPES, TensorType, f32, i64
from nncc.ops.inference import known_sizes, object_array, one_dtype, require
from nncc.ops.notation import Notation, axis_names, cast, const, size_value
from nncc.ops.samples import Draw, sample
from nncc.ops.samples import i64 as shape_operand
from nncc.ops.table import AttrDecl, Sample, Site, op

LARGEST_LITERAL = 64  # elements of a Constant that its nest may write out


def _constant_value(site: Site) -> np.ndarray:
    """The tensor of a Constant node, from whichever attribute gives it."""
    given = {k: v for k, v in site.node.attrs.items() if k.startswith("value")}
    if len(given) != 1:
        raise site.error(f"one attribute must give the value, not {len(given)}")
    ((name, value),) = given.items()
    if isinstance(value, Tensor):
        return value.array
    return np.asarray(value, np.int64 if name.startswith("value_int") else np.float32)


def _infer_constant(site: Site) -> Sequence[TensorType]:
    return (Tensor(_constant_value(site)).type,)


def _constant_nest(site: Site) -> Nest:
    notation = Notation(site)
    y = notation.tensor("y")
    value = _constant_value(site)
    if value.size > LARGEST_LITERAL:
        raise site.error(
            f"a constant of {value.size} elements cannot stand in code",
            "fold first: it makes symbols of constants",
        )
    for where in np.ndindex(value.shape):
        name = "_".join(["y", *map(str, where)])
        notation.assign(y.at(where), const(value[where].item(), y.dtype), name=name)
    return notation.build()


def _sample_constant(d: Draw) -> Sample:
    attrs: dict[str, Any] = d.choice(
        {"value": Tensor(d.floats(d.shape(d.whole(0, 2))))}, {"value_float": 1.5},
        {"value_int": -3}, {"value_floats": (1.0, 2.5)}, {"value_ints": (4, 5, 6)},
    )  # fmt: skip
    return Sample((), attrs)


op(
    "Constant", "-> y", since=13, doc="A tensor that the node itself holds.",
    attrs={
        "value": AttrDecl("tensor"), "value_float": AttrDecl("float"),
        "value_floats": AttrDecl("floats"), "value_int": AttrDecl("int"),
        "value_ints": AttrDecl("ints"),
    },
    infer=_infer_constant, nest=_constant_nest, shape_rule=_constant_value,
    reference=lambda **attrs: (_attr_array(attrs),), sample=sample(_sample_constant),
)  # fmt: skip


def _attr_array(attrs: dict[str, Any]) -> np.ndarray:
    ((name, value),) = attrs.items()
    if isinstance(value, Tensor):
        return value.array
    return np.asarray(value, np.int64 if name.startswith("value_int") else np.float32)


def _fill(site: Site) -> tuple[TensorType, bool | int | float]:
    """The type of one element and its value; 0.0 by default."""
    value: Tensor | None = site.attr("value")
    if value is None:
        return TensorType(f32, ()), 0.0
    if value.array.size != 1:
        raise site.error(f"the value must be one element, not {value.type}")
    return TensorType(value.type.dtype, ()), value.array.item()


def _infer_constant_of_shape(site: Site) -> Sequence[TensorType]:
    return (TensorType(_fill(site)[0].dtype, known_sizes(site, "shape")),)


def _constant_of_shape_nest(site: Site) -> Nest:
    notation = Notation(site)
    y = notation.tensor("y")
    dims = notation.dims(axis_names(y.type.rank)) if y.type.rank else ()
    notation.assign(y.at(dims), const(_fill(site)[1], y.dtype))
    return notation.build()


def _filled_shape(site: Site) -> np.ndarray | None:
    shape = known_sizes(site, "shape")
    if not all(isinstance(e, int) for e in shape):
        return None
    type, value = _fill(site)
    return np.full(shape, value, type.dtype.numpy)  # type: ignore[arg-type]


def _sample_constant_of_shape(d: Draw) -> Sample:
    value = d.choice(None, Tensor(d.floats((1,))), Tensor(d.ints((1,))))
    attrs = {} if value is None else {"value": value}
    return Sample((shape_operand(*d.shape()),), attrs)


op(
    "ConstantOfShape", "shape -> y", since=9, doc="A tensor of the given shape and one value.",
    attrs={"value": AttrDecl("tensor", doc="of one element; absent: 0.0 of f32")},
    infer=_infer_constant_of_shape, nest=_constant_of_shape_nest, shape_rule=_filled_shape,
    sample=sample(_sample_constant_of_shape),
)  # fmt: skip


def _extents(site: Site) -> tuple[Size, ...]:
    x, end = site.input("x"), site.attr("end")
    return x.shape[slice(site.attr("start"), x.rank if end is None else end)]


def _shape_nest(site: Site) -> Nest:
    notation = Notation(site)
    y = notation.tensor("y")
    for k, extent in enumerate(_extents(site)):
        notation.assign(y[k], size_value(extent, i64), name=f"y_{k}")
    return notation.build()


def _sample_shape(d: Draw) -> Sample:
    shape = d.shape(None)
    attrs = d.choice({}, {"start": 0, "end": 1}, {"start": -1}, {"end": len(shape)})
    return Sample((d.floats(shape),), attrs)


op(
    "Shape", "x -> y", since=15, doc="The extents of x, those of the axes start..end.",
    attrs={"start": AttrDecl("int", 0), "end": AttrDecl("int")},
    infer=lambda site: (TensorType(i64, (len(_extents(site)),)),), nest=_shape_nest,
    shape_rule=lambda site: object_array(_extents(site)), traits={"of_shape"},
    sample=sample(_sample_shape),
)  # fmt: skip


def _range_extent(site: Site) -> Size:
    for name in ("start", "limit", "delta"):
        if site.input(name).elements != 1:
            raise site.error(f"operand {name} is {site.input(name)}, not a scalar")
    start, limit, delta = (site.known(n).item() for n in ("start", "limit", "delta"))
    if delta == 0:
        raise site.error("a step of 0 never ends")
    if isinstance(delta, float) or isinstance(limit, float):
        return max(0, int(np.ceil((limit - start) / delta)))
    return ceildiv(limit - start, delta) if delta > 0 else ceildiv(start - limit, -delta)


def _infer_range(site: Site) -> Sequence[TensorType]:
    require(site, "start", dtypes="f64 f32 i64 i32 i16")
    extent = _range_extent(site)
    if isinstance(extent, int) and extent < 1:
        raise site.error("the range is empty")
    return (TensorType(one_dtype(site, "start", "limit", "delta"), (extent,)),)


def _range_nest(site: Site) -> Nest:
    notation = Notation(site)
    y = notation.tensor("y")
    (i,) = notation.dims("i")
    start, delta = (notation.operand(n, ()) for n in ("start", "delta"))
    notation.assign(y[i], start + delta * cast(y.dtype, size_value(i, y.dtype)))
    return notation.build()


def _range_value(site: Site) -> np.ndarray | None:
    values = [site.known(n).item() for n in ("start", "limit", "delta")]
    if not all(isinstance(v, int) for v in values):
        return None
    return np.arange(*values, dtype=np.int64)


def _sample_range(d: Draw) -> Sample:
    dtype, delta = d.choice("i64", "f32"), d.choice(1, 2, -1, -3)
    start, count = d.whole(-5, 5), d.whole(1, 6)
    values = (start, start + delta * count, delta)
    return Sample(tuple(np.asarray(v, DTYPES[dtype].numpy) for v in values))


op(
    "Range", "start limit delta -> y", since=11, doc="start, start + delta, … before limit.",
    infer=_infer_range, nest=_range_nest, shape_rule=_range_value, sample=sample(_sample_range),
)  # fmt: skip
