"""Scalar expressions: from text to typed `Expr`, and the rule of weak numbers.

A number by itself has no dtype: it takes that of its siblings (`max(x[i], 0.0)`), else that of
where the value goes (`y[i] = 1.0`), else it must be written with one (`f32(1.0)`).
"""

from __future__ import annotations

import math
from dataclasses import replace

from lark import Token

from nncc.diagnostics import nearest
from nncc.ir.expr import LANE_FUNCTIONS, Apply, Const, Expr, Load, Name, Reduce, Value, apply
from nncc.ir.index import Size
from nncc.ir.nests import BUILTIN_COMBINES
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.text import syntax as s
from nncc.ir.text.scope import MAX_LANES, Numeric, Scope, numeric
from nncc.ir.types import DType, boolean

INFIX = {f.symbol: f.name for f in FUNCTIONS.values() if f.symbol and f.arity == 2}
_NAMES = [*FUNCTIONS, *LANE_FUNCTIONS]
MAX_DEPTH = 200


def typed_name(kind: Numeric) -> str:
    """`f32` or `f32x16`."""
    dtype, lanes = kind
    return f"{dtype}x{lanes}" if lanes > 1 else str(dtype)


def scalar(scope: Scope, e: s.Expression, expected: Numeric | None = None) -> Expr:
    """`e` as an expression; `expected` is what numbers without siblings become.

    The result may have another type than `expected`: the caller says what that means.
    """
    if isinstance(e, s.Literal):
        return _literal(e, expected)
    if isinstance(e, s.Ref):
        return _name(scope, e.at, expected)
    if isinstance(e, s.Subscript):
        return _load(scope, e)
    if isinstance(e, s.Border):
        load = _load(scope, e.access)
        return replace(load, other=wanted(scope, e.other, (load.dtype, load.lanes)))
    if isinstance(e, s.Typed):
        return _typed(scope, e)
    if isinstance(e, s.Negative):
        return _apply(scope, e.at, "neg", (e.a,), expected)
    if isinstance(e, s.Infix):
        return _apply(scope, e.at, INFIX[e.at], (e.a, e.b), expected)
    if isinstance(e, s.Reduction):
        return _reduction(scope, e, expected)
    if isinstance(e, s.Call):
        return _call(scope, e, expected)
    if isinstance(e, s.Bounded):
        raise s.Problem(e.at, "'in' gives the range of a subscript; it cannot stand here")
    raise s.Problem(e.at, f"'{e.at}' cannot stand here")


def wanted(scope: Scope, e: s.Expression, kind: Numeric, what: str = "") -> Expr:
    """`e`, which must have dtype and lanes `kind`. Raises Problem."""
    value = scalar(scope, e, kind)
    if (value.dtype, value.lanes) != kind:
        found, want = typed_name((value.dtype, value.lanes)), typed_name(kind)
        subject = what or "this"
        help = ""
        if kind[0] is boolean:
            help = "compare it, as in … != 0.0" if value.lanes == kind[1] else ""
        elif value.dtype is not kind[0] and value.lanes == kind[1]:
            help = f"convert it: cast({kind[0]}, …)"
        elif value.dtype is kind[0] and value.lanes == 1:
            help = f"copy it to all lanes: broadcast(…, {kind[1]})"
        raise s.Problem(position(e), f"{subject} must be {want}, but this value is {found}", help)
    return value


def whole(scope: Scope, e: s.Expression, kind: Numeric | None, what: str) -> Expr:
    """The expression `e` of a statement, of dtype and lanes `kind` if that is given.

    Raises Problem, also if it is nested more deeply than all passes can follow.
    """
    for part, depth in s.walk(e):
        if depth > MAX_DEPTH:
            raise s.Problem(
                part.at,
                f"this is more than {MAX_DEPTH} expressions inside one another",
                "make several statements of it",
            )
    return scalar(scope, e) if kind is None else wanted(scope, e, kind, what)


def position(e: s.Expression) -> Token:
    """The leftmost token of an expression."""
    while isinstance(e, s.Infix):
        e = e.a
    return e.at


def _literal(e: s.Literal, expected: Numeric | None) -> Const:
    if expected is None:
        if isinstance(e.value, bool):
            return Const(e.value, boolean)
        raise s.Problem(
            e.at, "the type of this number is not clear", "write it with a type, as in f32(1.0)"
        )
    dtype, lanes = expected
    _check_fits(e, dtype)
    return Const(e.value, dtype, lanes)


def _check_fits(e: s.Literal, dtype: DType) -> None:
    if isinstance(e.value, bool) != (dtype is boolean):
        what = "a truth value" if isinstance(e.value, bool) else "a number"
        raise s.Problem(e.at, f"{what} where {dtype} is expected")
    if dtype.is_integer:
        if isinstance(e.value, float):
            raise s.Problem(e.at, f"a number with a fraction where {dtype} is expected")
        lo, hi = dtype.limits
        if not lo <= e.value <= hi:
            raise s.Problem(e.at, f"{e.value} does not fit {dtype}, which holds {lo}..{hi}")
    elif dtype.is_float:
        infinite = e.at in ("inf", "-") and math.isinf(e.value)
        if not infinite and math.isinf(_as_float(Const, e.value, dtype)):
            raise s.Problem(e.at, f"{e.value} does not fit {dtype}")


def _as_float(make: type[Const], value: float, dtype: DType) -> float:
    import numpy as np

    with np.errstate(over="ignore"):
        try:
            return float(make(value, dtype).value)
        except OverflowError:  # an int that float64 cannot hold
            return math.inf


def _name(scope: Scope, at: Token, expected: Numeric | None) -> Expr:
    if at in scope.values:
        dtype, lanes = scope.values[at]
        return Name(str(at), dtype, lanes)
    if at in scope.attributes:
        if expected is None:
            raise s.Problem(at, f"the type of '{at}' is not clear here", f"write f32({at})")
        return Name(str(at), *expected)
    if at in scope.tensors:
        raise s.Problem(
            at, f"'{at}' is a tensor: which element of it?", f"write {at}[…] with its subscripts"
        )
    if at in scope.sizes:
        raise s.Problem(
            at,
            f"'{at}' is a size or loop variable, not a number with a type",
            f"write value(i64, {at}), or value(f32, {at})",
        )
    known = {*scope.values, *scope.attributes, *scope.tensors}
    raise s.Problem(
        at, f"there is no '{at}' here", nearest(at, known, "known names") if known else ""
    )


def _load(scope: Scope, e: s.Subscript) -> Load:
    t = scope.tensor(e)
    indices = scope.sizes_of(e.indices)
    lanes, count = lanes_of(scope, e)
    return Load(str(e.at), indices, t.dtype, None, lanes, count)


def lanes_of(scope: Scope, e: s.Subscript) -> tuple[int, Size | None]:
    """Lanes and count of `x[i, j : lanes first count]`."""
    if e.lanes is None:
        return 1, None
    if not scope.operations:
        raise s.Problem(e.lanes, "lanes are only written in functions")
    if not 1 <= int(e.lanes) <= MAX_LANES or not e.indices:
        raise s.Problem(
            e.lanes, f"lanes are neighbours along the last dimension, 1 to {MAX_LANES} of them"
        )
    return int(e.lanes), None if e.count is None else scope.size(e.count)


def _typed(scope: Scope, e: s.Typed) -> Expr:
    dtype, lanes = numeric(e.at)
    if e.size:
        return Value(scope.size(e.a), dtype, lanes)
    if not is_weak(scope, e.a):
        raise s.Problem(
            e.at, f"{e.at}(…) gives a number its type", f"to convert, write cast({dtype}, …)"
        )
    return wanted(scope, e.a, (dtype, lanes))


def is_weak(scope: Scope, e: s.Expression) -> bool:
    """Whether the dtype of `e` is decided by what stands around it."""
    if isinstance(e, s.Literal):
        return True
    if isinstance(e, s.Ref):
        return e.at in scope.attributes and e.at not in scope.values
    if isinstance(e, s.Negative):
        return is_weak(scope, e.a)
    if isinstance(e, s.Reduction):
        return is_weak(scope, e.body)
    if isinstance(e, s.Infix):
        args: tuple[s.Expression, ...] = (e.a, e.b)
        fn = INFIX[e.at]
    elif isinstance(e, s.Call) and e.at in ("broadcast", *FUNCTIONS):
        fn, args = str(e.at), e.args
    else:
        return False
    if fn == "broadcast":
        return bool(args) and is_weak(scope, args[0])
    if FUNCTIONS[fn].rule == "select":
        args = args[1:]
    elif FUNCTIONS[fn].rule != "same":
        return False
    return all(is_weak(scope, a) for a in args)


def _apply(
    scope: Scope, at: Token, fn: str, args: tuple[s.Expression, ...], expected: Numeric | None
) -> Expr:
    f = FUNCTIONS[fn]
    if f.rule == "cast":
        raise s.Problem(at, "a cast names the new type first", "write cast(f32, …)")
    if len(args) != f.arity:
        raise s.Problem(at, f"{fn} takes {f.arity} operands, not {len(args)}")
    siblings = args[1:] if f.rule == "select" else args
    strong = next((a for a in siblings if not is_weak(scope, a)), None)
    if strong is not None:
        first = scalar(scope, strong, None)
        kind: Numeric | None = (first.dtype, first.lanes)
    else:
        kind = None if f.rule == "compare" else expected
    operands = [first if a is strong else scalar(scope, a, kind) for a in siblings]
    if f.rule == "select":
        operands.insert(0, scalar(scope, args[0], (boolean, operands[0].lanes)))
    try:
        return apply(fn, *operands)
    except ValueError as error:
        help = "a power is written pow(a, 2.0)" if at == "^" and operands[0].dtype.is_float else ""
        raise s.Problem(at, str(error), help) from None


def _call(scope: Scope, e: s.Call, expected: Numeric | None) -> Expr:
    if e.type is None:
        if e.at == "cast" and len(e.args) == 2 and isinstance(e.args[0], s.DTypeName):
            dtype, _ = numeric(e.args[0].at, lanes=False)
            x = scalar(scope, e.args[1])
            return Apply("cast", (x,), dtype, x.lanes)
        if e.at == "broadcast":
            return _broadcast(scope, e, expected)
        if e.at in LANE_FUNCTIONS:
            return _across(scope, e)
        if e.at in FUNCTIONS:
            return _apply(scope, e.at, str(e.at), e.args, expected)
    if not scope.operations:
        help = nearest(e.at, _NAMES, "functions")
        if e.at in BUILTIN_COMBINES or e.at in scope.combines:
            help = f"a reduction is written {e.at}(k)(…), with the dims that it runs over first"
        raise s.Problem(e.at, f"there is no function '{e.at}'", help)
    operands = tuple(scalar(scope, a) for a in e.args)
    if e.type is not None:
        return Apply(str(e.at), operands, *numeric(e.type))
    if not operands:
        raise s.Problem(e.at, f"the type of {e.at}() is not clear", f"write {e.at}() as f32")
    return Apply(str(e.at), operands, operands[0].dtype, operands[0].lanes)


def _broadcast(scope: Scope, e: s.Call, expected: Numeric | None) -> Expr:
    if len(e.args) != 2 or not isinstance(e.args[1], s.Literal):
        raise s.Problem(e.at, "broadcast takes a value and a number of lanes: broadcast(x, 16)")
    lanes = e.args[1].value
    if type(lanes) is not int or not 2 <= lanes <= MAX_LANES:
        raise s.Problem(e.args[1].at, f"a vector has 2 to {MAX_LANES} lanes")
    x = scalar(scope, e.args[0], (expected[0], 1) if expected else None)
    if x.lanes != 1:
        raise s.Problem(e.at, f"the value has {x.lanes} lanes already")
    return Apply("broadcast", (x,), x.dtype, lanes)


def _across(scope: Scope, e: s.Call) -> Expr:
    if len(e.args) != 1:
        raise s.Problem(e.at, f"{e.at} takes one vector, not {len(e.args)} operands")
    x = scalar(scope, e.args[0])
    return Apply(str(e.at), (x,), x.dtype)


def _reduction(scope: Scope, e: s.Reduction, expected: Numeric | None) -> Expr:
    if not scope.open:
        raise s.Problem(
            e.at,
            "a reduction inside an expression is only written in a def",
            "here a statement reduces: t[i] sum= …",
        )
    known = {*BUILTIN_COMBINES, *scope.combines}
    if e.at not in known:
        raise s.Problem(e.at, f"there is no combine '{e.at}'", nearest(e.at, known, "combines"))
    if scope.combines.get(e.at, 1) > 1:
        raise s.Problem(
            e.at,
            f"'{e.at}' combines tuples: it stands in a statement of its own",
            f"write a[i], b[i] {e.at}= …, …",
        )
    dims: list[tuple[str, Size | None, Size | None]] = []
    for d in e.call.args:
        if isinstance(d, s.Ref):
            dims.append((str(d.at), None, None))
        elif isinstance(d, s.Range):
            dims.append((str(d.at), scope.size(d.lo), scope.size(d.hi)))
        else:
            raise s.Problem(
                position(d), "expected a dim to reduce over", f"as in {e.at}(k)(…) or (k in 0..3)"
            )
    if not dims:
        raise s.Problem(e.at, f"over which dims does {e.at} reduce?", f"write {e.at}(k)(…)")
    body = scalar(scope, e.body, expected)
    return Reduce(str(e.at), tuple(dims), body, body.dtype, body.lanes)
