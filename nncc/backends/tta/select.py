"""Which operation of a machine computes an expression: patterns are the operations' records.

    for found in Patterns(machine).matches(e): found.operation, found.bound

A record's statement is a tree over its parameters. It matches an expression if the trees are equal
up to the order of sums, products, minima and maxima; a parameter stands for any expression of its
dtype that varies over the lanes as the parameter does. An element of a parameter at a fixed
place (`p[2]`) stands for a number; numbers that the expression folded into others are found again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nncc.ir.expr import Apply, Const, Expr, Load, Value, walk
from nncc.ir.nests import ASSIGN, BUILTIN_COMBINES
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import DType
from nncc.machines.machine import OLD, Machine, Operation

_SWAPS = frozenset({"mul", "min", "max", "and", "or", "xor", "eq", "ne"})

Bound = dict[tuple[str, int], Expr]  # (parameter, place in it; -1: all of it) -> expression


@dataclass(frozen=True)
class Found:
    """An operation that computes an expression, with what its parameters stand for."""

    operation: Operation
    bound: Mapping[tuple[str, int], Expr]


@dataclass(frozen=True)
class _Pattern:
    operation: Operation
    tree: Expr
    lanes: int
    varying: frozenset[str]  # parameters with an element for each lane
    size: int

    @property
    def is_scalar(self) -> bool:
        return self.lanes == 1


class Patterns:
    """The operations of a machine that compute, the largest trees first."""

    def __init__(self, machine: Machine) -> None:
        found = [_pattern(o) for o in machine.operations.values() if o.kind == "compute"]
        self.patterns = sorted((p for p in found if p is not None), key=lambda p: -p.size)

    def matches(self, e: Expr, without: Collection[str] = ()) -> Iterator[Found]:
        """The operations whose result is `e`, in its lower lanes."""
        e = normal(e)
        for p in self.patterns:
            if (
                p.operation.name in without
                or p.tree.dtype is not e.dtype
                or (p.lanes == 1) != (e.lanes == 1)
            ):
                continue
            if e.lanes > p.lanes:
                continue
            if (bound := _Matcher(p).match(e)) is not None:
                yield Found(p.operation, bound)


def _pattern(o: Operation) -> _Pattern | None:
    """None for what is no function of each lane: reductions over dimensions."""
    s = o.semantics.statements[0]
    if s.reduction_dims and any(s.dims):
        return None
    target = s.targets[0]
    if len(s.dims) != len(target.indices) or len(s.dims) > 1:
        return None
    lane = s.dims[0].name if s.dims else ""
    if lane and (str(target.indices[0]) != lane or s.dims[0].lo != 0):
        return None
    tree = s.values[0]
    if s.combine != ASSIGN:
        old = Load(target.tensor + OLD, target.indices, tree.dtype)
        tree = Apply(BUILTIN_COMBINES[s.combine], (old, tree), tree.dtype)
    varying = set()
    for x in walk(tree):
        if isinstance(x, Value):
            return None
        if isinstance(x, Load):
            if len(x.indices) > 1:
                return None
            if x.indices and str(x.indices[0]) == lane:
                varying.add(x.tensor)
            elif x.indices and not isinstance(x.indices[0], int):
                return None
    extent = s.dims[0].extent if s.dims else 1
    assert isinstance(extent, int)
    size = sum(isinstance(x, Apply) for x in walk(tree))
    return _Pattern(o, normal(tree), extent, frozenset(varying), size)


def normal(e: Expr) -> Expr:
    """`e` with copies to lanes at the leaves; constants, comparisons, choices in one form."""
    if isinstance(e, Apply) and e.fn == "broadcast":
        x = e.args[0]
        if isinstance(x, Const):
            return Const(x.value, x.dtype, e.lanes)
        if isinstance(x, Apply) and x.fn in FUNCTIONS:
            args = tuple(Apply("broadcast", (a,), a.dtype, e.lanes) for a in x.args)
            return normal(Apply(x.fn, args, x.dtype, e.lanes))
        return e
    if isinstance(e, Apply) and e.fn in FUNCTIONS:
        inner = tuple(normal(a) for a in e.args)
        if e.fn == "cast" and isinstance(inner[0], Const) and e.dtype.is_integer:
            held = _wrapped(inner[0].value, e.dtype)
            if held == inner[0].value:
                return Const(held, e.dtype, e.lanes)
        return _ordered(e if inner == e.args else Apply(e.fn, inner, e.dtype, e.lanes))
    return e


# a > b == b < a
_TURNED = {"gt": "lt", "le": "ge"}


def _ordered(e: Apply) -> Apply:
    """Comparisons as `lt` and `ge`, choices by `lt`."""
    if e.fn in _TURNED:
        return Apply(_TURNED[e.fn], e.args[::-1], e.dtype, e.lanes)
    if e.fn == "select":
        condition, then, otherwise = e.args
        # select(a >= b, x, y) == select(a < b, y, x), for integers: floats may be NaN
        if isinstance(condition, Apply) and condition.fn == "ge" and _of_integers(condition):
            turned = Apply("lt", condition.args, condition.dtype, condition.lanes)
            return Apply("select", (turned, otherwise, then), e.dtype, e.lanes)
    return e


def _of_integers(e: Apply) -> bool:
    return all(a.dtype.is_integer for a in e.args)


def _wrapped(value: bool | int | float, dtype: DType) -> int:
    with np.errstate(all="ignore"):
        return int(np.array(int(value)).astype(dtype.numpy))


def _fits(value: int, dtype: DType) -> bool:
    if not dtype.is_integer:
        return False
    lo, hi = dtype.limits
    return bool(lo <= value <= hi)


@dataclass
class _Matcher:
    """One pattern against one expression. Checks that have to wait for numbers stand in `later`."""

    pattern: _Pattern

    def match(self, e: Expr) -> Bound | None:
        if not _alike(self.pattern.tree, e):
            return None
        for bound, later in self.unify(self.pattern.tree, e, {}, ()):
            if all(self.evaluate(p, bound) == c for p, c in later):
                return bound
        return None

    def unify(
        self, p: Expr, e: Expr, bound: Bound, later: tuple[tuple[Expr, int], ...]
    ) -> Iterator[tuple[Bound, tuple[tuple[Expr, int], ...]]]:
        """Every way to make `p` equal to `e` beyond what is bound."""
        if isinstance(p, Load):
            yield from ((b, later) for b in self.bind(p, e, bound))
            return
        if isinstance(p, Const):
            if isinstance(e, Const) and (e.value, e.dtype) == (p.value, p.dtype):
                yield bound, later
            return
        assert isinstance(p, Apply)
        if isinstance(e, Const) and p.dtype is e.dtype and p.dtype.is_integer:
            yield from self.number(p, int(e.value), bound, later)
            if p.fn not in ("add", "sub"):
                return
        if p.fn in ("add", "sub") and p.dtype is e.dtype and p.dtype.is_integer:
            yield from self.sum(p, e, bound, later)
            return
        if not isinstance(e, Apply) or e.fn != p.fn or e.dtype is not p.dtype:
            return
        if len(e.args) != len(p.args):
            return
        orders = [e.args, e.args[::-1]] if p.fn in _SWAPS else [e.args]
        for args in orders:
            ways = [(bound, later)]
            for inner, a in zip(p.args, args, strict=True):
                ways = [w for b, k in ways for w in self.unify(inner, a, b, k)]
            yield from ways

    def bind(self, p: Load, e: Expr, bound: Bound) -> Iterator[Bound]:
        if e.dtype is not p.dtype:
            return
        place = -1
        if p.tensor in self.pattern.varying:
            pass
        elif p.indices:
            index = p.indices[0]
            assert isinstance(index, int)
            if not isinstance(e, Const):
                return
            place, e = index, Const(e.value, e.dtype)
        elif e.lanes > 1:
            if isinstance(e, Const):
                e = Const(e.value, e.dtype)
            elif isinstance(e, Apply) and e.fn == "broadcast":
                e = e.args[0]
            else:
                return
        known = bound.get((p.tensor, place))
        if known is None:
            yield bound | {(p.tensor, place): e}
        elif known == e:
            yield bound

    def number(
        self, p: Apply, value: int, bound: Bound, later: tuple[tuple[Expr, int], ...]
    ) -> Iterator[tuple[Bound, tuple[tuple[Expr, int], ...]]]:
        """`p` as a number that the expression has in one piece."""
        if p.fn == "cast" and p.args[0].dtype.is_integer and _fits(value, p.args[0].dtype):
            inner = p.args[0]
            number = Const(value, inner.dtype)
            if isinstance(inner, Load) and inner.tensor in self.pattern.varying:
                number = Const(value, inner.dtype, self.pattern.lanes)
            yield from self.unify(inner, number, bound, later)
        elif all(not isinstance(x, Load) or self.is_number(x) for x in walk(p)):
            yield bound, (*later, (p, value))

    def is_number(self, x: Load) -> bool:
        return bool(x.indices) and x.tensor not in self.pattern.varying

    def evaluate(self, p: Expr, bound: Bound) -> int | None:
        """The value of a tree of numbers; None if one of them is not known."""
        if isinstance(p, Const):
            return int(p.value)
        if isinstance(p, Load):
            index = p.indices[0]
            assert isinstance(index, int)
            found = bound.get((p.tensor, index))
            return int(found.value) if isinstance(found, Const) else None
        assert isinstance(p, Apply)
        args = [self.evaluate(a, bound) for a in p.args]
        if any(a is None for a in args):
            return None
        arrays = [np.array([a]).astype(x.dtype.numpy) for a, x in zip(args, p.args, strict=True)]
        with np.errstate(all="ignore"):
            return int(FUNCTIONS[p.fn].numpy(np, *arrays).astype(p.dtype.numpy)[0])

    # -- sums ------------------------------------------------------------------------------
    def sum(
        self, p: Apply, e: Expr, bound: Bound, later: tuple[tuple[Expr, int], ...]
    ) -> Iterator[tuple[Bound, tuple[tuple[Expr, int], ...]]]:
        """Sums in any order; one term of the pattern may be the number that is left over."""
        wanted, base = terms(p)
        given, rest = terms(e)
        left = _wrapped(rest - base, p.dtype)

        def place(
            k: int, free: tuple[tuple[int, Expr], ...], b: Bound, t: tuple[tuple[Expr, int], ...],
            used: bool,
        ) -> Iterator[tuple[Bound, tuple[tuple[Expr, int], ...]]]:  # fmt: skip
            if k == len(wanted):
                if not free and (used or left == 0):
                    yield b, t
                return
            sign, term = wanted[k]
            for j, (s, x) in enumerate(free):
                if s == sign:
                    for b2, t2 in self.unify(term, x, b, t):
                        yield from place(k + 1, (*free[:j], *free[j + 1 :]), b2, t2, used)
            if not used:
                lanes = e.lanes if self.pattern.lanes > 1 else 1
                number = Const(_wrapped(sign * left, p.dtype), p.dtype, lanes)
                for b2, t2 in self.unify(term, number, b, t):
                    yield from place(k + 1, free, b2, t2, True)

        if isinstance(e, Apply) and e.fn == p.fn:  # terms may be sums themselves
            orders = [e.args, e.args[::-1]] if p.fn == "add" else [e.args]
            for args in orders:
                for b, t in self.unify(p.args[0], args[0], bound, later):
                    yield from self.unify(p.args[1], args[1], b, t)
        yield from place(0, tuple(given), bound, later, False)


def _alike(p: Expr, e: Expr) -> bool:
    """Whether the outermost functions are the same (nothing is computed as itself plus 0)."""
    if not isinstance(p, Apply):
        return True
    sums = ("add", "sub")
    return isinstance(e, Apply) and (e.fn == p.fn or (e.fn in sums and p.fn in sums))


def terms(e: Expr) -> tuple[list[tuple[int, Expr]], int]:
    """A sum as (sign, term) pairs and a number."""
    if isinstance(e, Const):
        return [], int(e.value)
    if isinstance(e, Apply) and e.fn in ("add", "sub") and e.dtype.is_integer:
        first, a = terms(e.args[0])
        second, b = terms(e.args[1])
        sign = 1 if e.fn == "add" else -1
        return first + [(sign * s, x) for s, x in second], a + sign * b
    return [(1, e)], 0
