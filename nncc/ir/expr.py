"""Scalar expressions: what a statement of a nest, or a line of Loops, computes.

    Const      a literal with a dtype
    Value      an integer expression (`Size`) as a number of some dtype
    Name       a variable bound by Let or Declare (Loops only)
    Load       an element of a tensor or buffer; in Loops also `lanes` neighbours at once
    Apply      a scalar function (`nncc.ir.scalar`) or an operation of a machine
    Reduce     a reduction inside an expression: `sum(c, r in 0..3) …` (as people write it; a
               verified nest has one reduction a statement, as the statement's combine)

Every expression has `dtype` and `lanes`; 1 lane is a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nncc.ir.index import Size
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import DType, boolean


@dataclass(frozen=True, slots=True)
class Const:
    """A literal. `value` becomes the Python bool, int or float that `dtype` holds: a float is
    rounded to it, so that what is printed reads back equal.
    """

    value: bool | int | float
    dtype: DType
    lanes: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _held(self.value, self.dtype))

    def __eq__(self, other: object) -> bool:
        # repr tells -0.0 from 0.0 and lets nan equal itself: printed text must read back equal
        return (
            isinstance(other, Const)
            and (self.dtype, self.lanes) == (other.dtype, other.lanes)
            and repr(self.value) == repr(other.value)
        )

    def __hash__(self) -> int:
        return hash((repr(self.value), self.dtype, self.lanes))


def _held(value: bool | int | float, dtype: DType) -> bool | int | float:
    if dtype.kind == "bool":
        return bool(value)
    if dtype.is_integer:
        return int(value)
    if dtype.bits == 64:
        return float(value)
    with np.errstate(over="ignore"):  # too large a number becomes infinite
        return float(dtype.numpy.type(value))


@dataclass(frozen=True, slots=True)
class Value:
    """An integer expression over loop variables and sizes, as a number of type `dtype`."""

    size: Size
    dtype: DType
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Name:
    """A bound variable of Loops: a `Let` value or a `Declare`d register."""

    name: str
    dtype: DType
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Load:
    """`tensor[indices]`, and `other` where an index is outside the tensor.

    Without `other` the verifier must be able to show that every index is inside.
    In Loops a load of several lanes reads `lanes` consecutive elements of the last dimension (a
    vector longer than it runs on through the dimensions before); with `count`, only the first
    `count` are read and the others are zero.
    """

    tensor: str
    indices: tuple[Size, ...]
    dtype: DType
    other: Expr | None = None
    lanes: int = 1
    count: Size | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """A function applied to expressions of equal lanes.

    Besides the scalar functions: `broadcast` (1 lane to `lanes`), `reduce_add`, `reduce_max`,
    `reduce_min` (`lanes` to 1); a `cast` keeps its lanes; and the names of the target machine's
    operations, whose types their records state.
    """

    fn: str
    args: tuple[Expr, ...]
    dtype: DType
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Reduce:
    """`combine(dims) body` as written: dims are names with optional ranges."""

    combine: str
    dims: tuple[tuple[str, Size | None, Size | None], ...]
    body: Expr
    dtype: DType
    lanes: int = 1


Expr = Const | Value | Name | Load | Apply | Reduce

LANE_FUNCTIONS = ("broadcast", "reduce_add", "reduce_max", "reduce_min")


def apply(fn: str, *args: Expr) -> Apply:
    """A scalar function applied to `args`, its type found by the function's rule.

    Raises ValueError with a sentence a user can read if the operands do not fit.
    """
    f = FUNCTIONS[fn]
    if len(args) != f.arity:
        raise ValueError(f"{fn} takes {f.arity} operands, not {len(args)}")
    if f.rule == "cast":
        raise ValueError("a cast states its dtype: use cast(dtype, x)")
    operands = args[1:] if f.rule == "select" else args
    if f.rule == "select" and args[0].dtype is not boolean:
        raise ValueError(f"the condition of select is {args[0].dtype}, not bool")
    dtype = operands[0].dtype
    if any(a.dtype is not dtype for a in operands):
        kinds = ", ".join(str(a.dtype) for a in operands)
        raise ValueError(f"the operands of {fn} have different dtypes ({kinds}); cast them")
    if len({a.lanes for a in args}) > 1:
        raise ValueError(f"the operands of {fn} have different numbers of lanes")
    if not f.takes(dtype):
        raise ValueError(f"{fn} does not take {dtype}")
    return Apply(fn, args, boolean if f.rule == "compare" else dtype, args[0].lanes)


def cast(dtype: DType, x: Expr) -> Expr:
    """`x` as `dtype`; the same object if it already is."""
    return x if x.dtype is dtype else Apply("cast", (x,), dtype, x.lanes)


def broadcast(x: Expr, lanes: int) -> Expr:
    """One lane copied to `lanes`."""
    return x if x.lanes == lanes else Apply("broadcast", (x,), x.dtype, lanes)


def children(e: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside `e`."""
    if isinstance(e, Apply):
        return e.args
    if isinstance(e, Load) and e.other is not None:
        return (e.other,)
    if isinstance(e, Reduce):
        return (e.body,)
    return ()


def walk(e: Expr) -> Iterator[Expr]:
    """`e` and every expression inside it, outermost first."""
    yield e
    for c in children(e):
        yield from walk(c)


def transform(e: Expr, rule: Callable[[Expr], Expr]) -> Expr:
    """`e` rebuilt from the leaves up with `rule` applied to every node."""
    if isinstance(e, Apply):
        args = tuple(transform(a, rule) for a in e.args)
        e = e if all(a is b for a, b in zip(args, e.args, strict=True)) else replace(e, args=args)
    elif isinstance(e, Load) and e.other is not None:
        other = transform(e.other, rule)
        e = e if other is e.other else replace(e, other=other)
    elif isinstance(e, Reduce):
        body = transform(e.body, rule)
        e = e if body is e.body else replace(e, body=body)
    return rule(e)


def map_indices(e: Expr, rule: Callable[[Size], Size]) -> Expr:
    """`e` with every integer expression in it replaced by `rule` of it."""

    def one(x: Expr) -> Expr:
        if isinstance(x, Load):
            indices = tuple(rule(i) for i in x.indices)
            return replace(x, indices=indices, count=None if x.count is None else rule(x.count))
        if isinstance(x, Value):
            return replace(x, size=rule(x.size))
        return x

    return transform(e, one)


def loads(e: Expr) -> tuple[Load, ...]:
    """Every load in `e`, in the order of the text."""
    return tuple(x for x in walk(e) if isinstance(x, Load))
