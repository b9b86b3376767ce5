"""Elementwise ops: one output element from the input elements at the same position.

    Relu(x: f32[N,8]) -> f32[N,8]          y[i,j] = max(x[i,j], 0.0)
    Add(a: f32[N,8], b: f32[8])            y[i,j] = a[i,j] + b[j]

Operands are broadcast against each other, aligned right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nncc.ir.expr import Const
from nncc.ir.nests import Nest
from nncc.ir.types import DTYPES, TensorType, boolean, f64
from nncc.ops.inference import FLOATS, Infer, broadcast, one_dtype, require
from nncc.ops.notation import (
    Notation,
    Scalar,
    axis_names,
    call,
    cast,
    maximum,
    minimum,
    select,
)
from nncc.ops.polynomials import arithmetic, quotient
from nncc.ops.samples import Draw, Strategy, sample
from nncc.ops.table import AttrDecl, Sample, Site, bind, get, op

Formula = Callable[..., Scalar]
NUMBERS = FLOATS + " i64 i32 i16 i8 u64 u32 u16 u8"


def elementwise(formula: Formula, attrs: Sequence[str] = ()) -> Callable[[Site], Nest]:
    """The nest of `y[…] = formula(operands…, **attrs)` with numpy's broadcasting."""

    def nest(site: Site) -> Nest:
        notation = Notation(site)
        names = list(bind(site.node))
        y = notation.tensor(names[-1])
        dims = notation.dims(axis_names(y.type.rank)) if y.type.rank else ()
        operands = [notation.operand(n, dims) for n in names[:-1]]
        value = formula(*operands, **{a: site.attr(a) for a in attrs})
        notation.assign(y.at(dims), value)
        return notation.build()

    return nest


def broadcasts(dtypes: str, result: str = "") -> Infer:
    """Operands of one dtype among `dtypes` are broadcast; `result` is the dtype if another."""

    def infer(site: Site) -> Sequence[TensorType]:
        types = [t for t in site.inputs if t is not None]
        dtype = types[0].dtype
        if any(t.dtype is not dtype for t in types):
            raise site.error(
                f"operands must have one dtype, not {', '.join(str(t.dtype) for t in types)}"
            )
        if dtype.name not in dtypes.split():
            raise site.error(f"{get(site.node).name} does not take {dtype}")
        shape = broadcast(site, [t.shape for t in types])
        return (TensorType(boolean if result else dtype, shape),)

    return infer


def operands(
    count: int,
    dtypes: str,
    lo: float = -3,
    hi: float = 3,
    attrs: Callable[[Draw], Any] | None = None,
) -> Strategy:
    """Samples of `count` operands that broadcast, one of them of the full shape."""

    def make(d: Draw) -> Sample:
        shape, dtype = d.shape(d.whole(0, 4)), d.choice(*dtypes.split())
        full = d.whole(0, count - 1)
        shapes = [shape if k == full else d.broadcastable(shape) for k in range(count)]

        def data(s: Sequence[int]) -> Any:
            return d.floats(s, dtype, lo, hi) if dtype.startswith("f") else d.array(s, dtype)

        return Sample(tuple(data(s) for s in shapes), attrs(d) if attrs else {})

    return sample(make)


def _unary(
    name: str,
    since: int,
    doc: str,
    formula: Formula,
    *,
    dtypes: str = FLOATS,
    infer: Infer | None = None,
    attrs: Mapping[str, AttrDecl] | None = None,
    lo: float = -3,
    hi: float = 3,
    samples: str = "f32",
    sample_attrs: Callable[[Draw], Any] | None = None,
) -> None:
    declared = attrs or {}
    op(
        name, "x -> y", since=since, doc=doc, attrs=declared,
        infer=infer or broadcasts(dtypes), nest=elementwise(formula, tuple(declared)),
        traits={"elementwise"}, sample=operands(1, samples, lo, hi, sample_attrs),
    )  # fmt: skip


def _sigmoid(x: Scalar) -> Scalar:
    return 1.0 / (1.0 + call("exp", -x))


_SIGNED = FLOATS + " i64 i32 i16 i8"

_unary("Relu", 14, "max(x, 0)", lambda x: maximum(x, 0), dtypes=_SIGNED, samples="f32 i32 i8")
_unary("Neg", 13, "The negative of x: -x", lambda x: -x, dtypes=_SIGNED, samples="f32 i32")
_unary("Abs", 13, "The absolute value of x", lambda x: call("abs", x), dtypes=NUMBERS,
       samples="f32 i32 u8")  # fmt: skip
_unary("Sigmoid", 13, "1 / (1 + exp(-x))", _sigmoid)
_unary("Tanh", 13, "The hyperbolic tangent of x", lambda x: call("tanh", x))
_unary("Erf", 13, "The error function of x", lambda x: call("erf", x))
_unary("Exp", 13, "e to the power of x", lambda x: call("exp", x))
_unary("Log", 13, "The natural logarithm of x", lambda x: call("log", x), lo=0.01)
_unary("Sqrt", 13, "The square root of x", lambda x: call("sqrt", x), lo=0)
_unary("Reciprocal", 13, "1 / x", lambda x: 1.0 / x, lo=0.1)
_unary("Sin", 22, "The sine of x", lambda x: call("sin", x))
_unary("Cos", 22, "The cosine of x", lambda x: call("cos", x))
_unary("Floor", 13, "x rounded down", lambda x: call("floor", x))
_unary("Ceil", 13, "x rounded up", lambda x: call("ceil", x))
_unary("Round", 22, "x rounded to the nearest integer, half to even", lambda x: call("round", x))
_unary(
    "Softplus", 22, "log(exp(x) + 1), computed so that no large x overflows",
    lambda x: maximum(x, 0.0) + call("log", call("exp", -call("abs", x)) + 1.0),
)  # fmt: skip
_unary(
    "HardSwish", 22, "x * max(0, min(1, x/6 + 1/2))",
    lambda x: x * maximum(minimum(x * (1 / 6) + 0.5, 1.0), 0.0), lo=-5, hi=5,
)  # fmt: skip
_unary(
    "HardSigmoid", 22, "max(0, min(1, alpha*x + beta))",
    lambda x, alpha, beta: maximum(minimum(x * alpha + beta, 1.0), 0.0),
    attrs={"alpha": AttrDecl("float", 0.2), "beta": AttrDecl("float", 0.5)}, lo=-5, hi=5,
)  # fmt: skip
_unary(
    "LeakyRelu", 16, "x where x >= 0, else alpha*x",
    lambda x, alpha: select(call("ge", x, 0.0), x, x * alpha),
    attrs={"alpha": AttrDecl("float", 0.01)}, sample_attrs=lambda d: {"alpha": d.choice(0.1, 0.5)},
)  # fmt: skip
_unary(
    "Elu", 22, "x where x >= 0, else alpha*(exp(x) - 1)",
    lambda x, alpha: select(call("ge", x, 0.0), x, (call("exp", x) - 1.0) * alpha),
    attrs={"alpha": AttrDecl("float", 1.0)}, sample_attrs=lambda d: {"alpha": d.choice(0.5, 2.0)},
)  # fmt: skip


def _infer_gelu(site: Site) -> Sequence[TensorType]:
    if (how := site.attr("approximate")) not in ("none", "tanh"):
        raise site.error(f"approximate={how} is neither none nor tanh")
    return broadcasts(FLOATS)(site)


def _gelu(x: Scalar, approximate: str) -> Scalar:
    if approximate == "tanh":
        inner = (x + x * x * x * 0.044715) * 0.7978845608028654  # sqrt(2/pi)
        return x * 0.5 * (1.0 + call("tanh", inner))
    return x * 0.5 * (1.0 + call("erf", x * 0.7071067811865476))  # sqrt(1/2)


_unary(
    "Gelu", 20,
    "0.5 * x * (1 + erf(x / sqrt(2))); with approximate=tanh, erf(x/sqrt 2) is replaced by "
    "tanh(sqrt(2/pi) * (x + 0.044715 x^3))",
    _gelu, infer=_infer_gelu, attrs={"approximate": AttrDecl("string", "none")},
    sample_attrs=lambda d: {"approximate": d.choice("none", "tanh")},
)  # fmt: skip


def _binary(
    name: str, since: int, doc: str, formula: Formula, *, dtypes: str = NUMBERS, result: str = "",
    samples: str = "f32 i64 i32", lo: float = -3, hi: float = 3, commutative: bool = False,
    **rest: Any,
) -> None:  # fmt: skip
    op(
        name, "a b -> y", since=since, doc=doc, infer=broadcasts(dtypes, result),
        nest=elementwise(formula),
        traits={"elementwise"} | ({"commutative"} if commutative else set()),
        sample=rest.pop("sample", None) or operands(2, samples, lo, hi), **rest,
    )  # fmt: skip


def _fold(fn: str) -> Formula:
    def formula(first: Scalar, *rest: Scalar) -> Scalar:
        for x in rest:
            first = call(fn, first, x)
        return first

    return formula


def _nonzero_divisor(d: Draw) -> Sample:
    shape = d.shape()
    dtype = d.choice("f32", "i32")
    divisor = d.array(d.broadcastable(shape), dtype)
    divisor[divisor == 0] = 2
    return Sample((d.array(shape, dtype), divisor))


def _power(d: Draw) -> Sample:
    shape = d.shape()
    if d.whole(0, 2) == 0:
        exponent = d.ints(shape, d.choice("i32", "i64"), 0, 5)
        halves = d.ints(shape, "i32", 1, 4).astype(np.float32) / 2
        base = d.ints(shape, d.choice("i32", "i64"), 0, 9)
        return Sample((base, d.choice(exponent, halves)))
    return Sample((d.floats(shape, lo=0.1), d.floats(d.broadcastable(shape))))


_binary("Add", 14, "a + b", lambda a, b: a + b, commutative=True,
        shape_rule=arithmetic(lambda a, b: a + b))  # fmt: skip
_binary("Sub", 14, "a - b", lambda a, b: a - b, shape_rule=arithmetic(lambda a, b: a - b))
_binary("Mul", 14, "a * b", lambda a, b: a * b, commutative=True,
        shape_rule=arithmetic(lambda a, b: a * b))  # fmt: skip
_binary("Div", 14, "a / b; integers are truncated towards zero", lambda a, b: a / b,
        sample=sample(_nonzero_divisor), shape_rule=arithmetic(quotient))  # fmt: skip
_binary("Equal", 19, "a == b", lambda a, b: call("eq", a, b), dtypes=NUMBERS + " bool",
        result="bool", commutative=True, samples="f32 i64 i32 bool")  # fmt: skip
_binary("Less", 13, "a < b", lambda a, b: call("lt", a, b), result="bool")
_binary("LessOrEqual", 16, "a <= b", lambda a, b: call("le", a, b), result="bool")
_binary("Greater", 13, "a > b", lambda a, b: call("gt", a, b), result="bool")
_binary("GreaterOrEqual", 16, "a >= b", lambda a, b: call("ge", a, b), result="bool")
for _name, _doc in (("And", "a and b"), ("Or", "a or b"), ("Xor", "either a or b")):
    _binary(_name, 7, _doc, _fold(_name.lower()), dtypes="bool", samples="bool", commutative=True)
_unary("Not", 1, "not x", lambda x: call("not", x), dtypes="bool", samples="bool")


def _infer_pow(site: Site) -> Sequence[TensorType]:
    base = require(site, "a", dtypes=FLOATS + " i64 i32")
    require(site, "b", dtypes=NUMBERS)
    shape = broadcast(site, [t.shape for t in site.inputs if t is not None])
    return (TensorType(base.dtype, shape),)


def _pow(a: Scalar, b: Scalar) -> Scalar:
    """The result has the dtype of the base."""
    if isinstance(b.expr, Const) and b.expr.value == 2:
        return a * a
    if isinstance(b.expr, Const) and b.expr.value == 0.5 and a.dtype.is_float:
        return call("sqrt", a)
    if b.dtype.is_float and not a.dtype.is_float:
        power = call("pow", cast(f64, a), cast(f64, b))
        nearest = call("round", power)
        # 4 ** 0.5 is 2, though a function that is not exact may give a little less
        close = call("le", call("abs", power - nearest), call("abs", nearest) * 1e-12)
        whole = call("eq", b, call("floor", b))
        exact = call("pow", a, cast(a.dtype, b))
        return select(whole, exact, cast(a.dtype, select(close, nearest, power)))
    return call("pow", a, cast(a.dtype, b))


def _pow_reference(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    if a.dtype.kind != "i":
        return (np.power(a, b.astype(a.dtype)),)
    if b.dtype.kind not in "iu":
        wide = np.power(a.astype(np.float64), b.astype(np.float64))
        whole, exponent = b == np.floor(b), np.trunc(b).astype(np.int64)
        return (np.where(whole, _pow_reference(a, exponent)[0], wide).astype(a.dtype),)
    whole = np.power(a, np.maximum(b, 0).astype(a.dtype))
    inverse = np.where(np.abs(a) == 1, np.where(b % 2, a, 1), 0)  # of what is larger: 0.…
    return (np.where(b < 0, inverse, whole).astype(a.dtype),)


op(
    "Pow", "a b -> y", since=15,
    doc="a to the power of b, in the dtype of a; for integers the result is truncated.",
    infer=_infer_pow, nest=elementwise(_pow), reference=_pow_reference, traits={"elementwise"},
    sample=sample(_power),
    deviation="onnx.reference raises an error for integers to negative powers",
)  # fmt: skip


for _name, _doc in (("Max", "The largest"), ("Min", "The smallest")):
    op(
        _name, "x* -> y", since=13, doc=f"{_doc} of the operands at each position.",
        infer=broadcasts(NUMBERS), nest=elementwise(_fold(_name.lower())),
        traits={"elementwise", "commutative"}, sample=operands(3, "f32 i32"),
    )  # fmt: skip


def _infer_where(site: Site) -> Sequence[TensorType]:
    dtype = one_dtype(site, "a", "b")
    if site.input("condition").dtype is not boolean:
        raise site.error(f"the condition is {site.input('condition').dtype}, not bool")
    shapes = [t.shape for t in site.inputs if t is not None]
    return (TensorType(dtype, broadcast(site, shapes)),)


def _sample_where(d: Draw) -> Sample:
    shape, dtype = d.shape(), d.choice("f32", "i64")
    condition = d.bools(d.broadcastable(shape))
    return Sample((condition, d.array(shape, dtype), d.array(d.broadcastable(shape), dtype)))


op(
    "Where", "condition a b -> y", since=16, doc="a where the condition holds, else b.",
    infer=_infer_where, nest=elementwise(select), traits={"elementwise"},
    sample=sample(_sample_where),
)  # fmt: skip


def _infer_clip(site: Site) -> Sequence[TensorType]:
    require(site, "x", dtypes=NUMBERS)
    one_dtype(site, "x", "min", "max")
    for bound in ("min", "max"):
        type = site.optional(bound)
        if type is not None and type.rank:
            raise site.error(f"operand {bound} is {type}, not a scalar")
    return (site.input("x"),)


def _clip_nest(site: Site) -> Nest:
    notation = Notation(site)
    x, y = notation.tensors("x", "y")
    dims = notation.dims(axis_names(x.type.rank))
    value = x.at(dims)
    # in this order: where min > max, ONNX gives max
    if notation.optional("min"):
        value = maximum(value, notation.operand("min", dims))
    if notation.optional("max"):
        value = minimum(value, notation.operand("max", dims))
    notation.assign(y.at(dims), value)
    return notation.build()


def _sample_clip(d: Draw) -> Sample:
    dtype = d.choice("f32", "i32", "i8")
    lo = d.choice(None, d.array((), dtype))
    hi = d.choice(None, d.array((), dtype))
    return Sample((d.array(d.shape(), dtype), lo, hi))


op(
    "Clip", "x min? max? -> y", since=13,
    doc="x limited to min..max; a missing bound does not limit.",
    infer=_infer_clip, nest=_clip_nest, traits={"elementwise"}, sample=sample(_sample_clip),
)  # fmt: skip


def _infer_prelu(site: Site) -> Sequence[TensorType]:
    x, slope = require(site, "x", dtypes=FLOATS + " i64 i32 u64 u32"), site.input("slope")
    one_dtype(site, "x", "slope")
    if broadcast(site, [x.shape, slope.shape]) != x.shape:
        raise site.error(f"slope {slope} does not broadcast to {x}")
    return (x,)


def _sample_prelu(d: Draw) -> Sample:
    shape = d.shape()
    return Sample((d.floats(shape), d.floats(d.broadcastable(shape))))


op(
    "PRelu", "x slope -> y", since=16, doc="x where x >= 0, else slope*x.",
    infer=_infer_prelu, traits={"elementwise"}, sample=sample(_sample_prelu),
    nest=elementwise(lambda x, slope: select(call("ge", x, 0.0), x, x * slope)),
)  # fmt: skip


def _cast_nest(site: Site) -> Nest:
    to = site.attr("to")
    return elementwise(lambda x: cast(to, x))(site)


def _sample_cast(d: Draw) -> Sample:
    source, to = d.choice("f32", "i32", "i64", "bool", "i8"), d.choice("f32", "i64", "i32", "bool")
    return Sample((d.array(d.shape(), source),), {"to": DTYPES[to]})


op(
    "Cast", "x -> y", since=13,
    doc="x as another dtype. Floats are truncated towards zero, integers wrap around, "
    "and whatever is not zero is true.",
    attrs={"to": AttrDecl("dtype", required=True)},
    infer=lambda site: (TensorType(site.attr("to"), site.input("x").shape),),
    nest=_cast_nest, traits={"elementwise"}, sample=sample(_sample_cast),
    shape_rule=lambda site: site.known("x") if site.attr("to").is_integer else None,
)  # fmt: skip
