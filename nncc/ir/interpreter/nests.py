"""What a nest means: this is the definition that every schedule and back end must equal.

    interpret_nest(nest, {"x": array}, {"N": 2})  ->  {"y": array}

Tensors are logical arrays; the schedule and layouts are ignored. Each statement runs over its
whole domain at once with numpy, in pieces so that intermediate arrays stay small. Integers
wrap around in their width. Floats are summed in an order of numpy's choice, which a reduction
allows. What is not written yet holds a poison value, so that reading it shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from nncc.diagnostics import CheckError
from nncc.ir.expr import Apply, Expr, Load, Value, walk
from nncc.ir.index import evaluate, variables
from nncc.ir.interpreter.boxes import Array, Box, evaluate_expression
from nncc.ir.interpreter.contraction import contract
from nncc.ir.interpreter.targets import anywhere, as_rank, assign, fold
from nncc.ir.nests import (
    ASSIGN,
    BUILTIN_COMBINES,
    Combine,
    Item,
    Nest,
    Param,
    Statement,
    builtin_identity,
)

PIECE_ELEMENTS = 1 << 22  # of one intermediate array

_UFUNC: Mapping[str, np.ufunc] = {
    "sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum,
}  # fmt: skip


def interpret_nest(
    nest: Nest, inputs: Mapping[str, Array], sizes: Mapping[str, int]
) -> dict[str, Array]:
    """The outputs of `nest`, by parameter name.

    Args:
        inputs: an array for every `in` parameter, of the parameter's logical type.
        sizes: a value for every named size of the nest; others are ignored.

    Raises CheckError if an input does not fit its type or an access leaves its tensor.
    """
    values = {name: int(sizes[name]) for name in nest.sizes}
    tensors: dict[str, Array] = {}
    for p in nest.params:
        shape = tuple(int(evaluate(s, values)) for s in p.type.shape)
        tensors[p.name] = (
            _checked(nest, p, shape, inputs[p.name])
            if p.role == "in"
            else np.full(shape, _poison(p), p.type.dtype.numpy)
        )
    with np.errstate(all="ignore"):
        _Run(tensors, {c.name: c for c in nest.combines}).items(nest.body, values)
    return {p.name: tensors[p.name] for p in nest.outputs}


def _checked(nest: Nest, p: Param, shape: tuple[int, ...], array: Array) -> Array:
    if array.shape != shape or array.dtype != p.type.dtype.numpy:
        raise CheckError(
            f"nest {nest.name}: {p.name} is {array.dtype}{list(array.shape)}, "
            f"not {p.type.dtype}{list(shape)}"
        )
    return array


def _poison(p: Param) -> float | int | bool:
    dtype = p.type.dtype
    if dtype.is_float:
        return float("nan")
    return True if dtype.kind == "bool" else dtype.limits[1] // 3


@dataclass(frozen=True)
class _Run:
    """One run of a nest: its tensors, and the combines that it declares."""

    tensors: Mapping[str, Array]
    combines: Mapping[str, Combine]

    def items(self, items: tuple[Item, ...], values: Mapping[str, int]) -> None:
        """Items one after the other; `values` are sizes and the dimensions of scans around."""
        for item in items:
            if isinstance(item, Statement):
                self.statement(item, values)
                continue
            at = Box({}, values, self.tensors)
            for step in range(int(at.size(item.dim.lo)), int(at.size(item.dim.hi))):
                self.items(item.body, {**values, item.dim.name: step})

    def statement(self, s: Statement, values: Mapping[str, int]) -> None:
        factors = contraction_factors(s)
        for box in self.pieces(s, factors, values):
            if s.combine == ASSIGN:
                assign(s.targets[0], box, evaluate_expression(s.values[0], box))
                continue
            axes = tuple(k for k, d in enumerate(box.ranges) if d in s.reduction_dims)
            given = tuple(evaluate_expression(v, box) for v in factors or s.values)
            if factors:
                given = (contract(given[0], given[1], axes, box.shape),)
            else:
                given = self.reduced(s, box, axes, given)
            # the reduction is done: its dimensions are left with a single value
            ranges = {
                d: (lo, lo + 1) if k in axes else (lo, hi)
                for k, (d, (lo, hi)) in enumerate(box.ranges.items())
            }
            exists = anywhere(box.mask, axes)
            fold(
                s.targets, replace(box, ranges=ranges, mask=exists), given, exists,
                lambda a, b: self.combined(s, a, b), _UFUNC.get(s.combine),
            )  # fmt: skip

    def pieces(
        self, s: Statement, factors: tuple[Expr, ...], values: Mapping[str, int]
    ) -> Iterator[Box]:
        """The statement's domain in boxes whose arrays have at most PIECE_ELEMENTS elements."""
        ranges: dict[str, tuple[int, int]] = {}
        for d in s.dims:
            outer = Box(ranges, values, self.tensors)
            lo, hi = int(np.min(outer.size(d.lo))), int(np.max(outer.size(d.hi)))
            if lo >= hi:
                return
            ranges = {**ranges, d.name: (lo, hi)}
        names = frozenset(ranges)
        used = [_variables(f) & names for f in factors] or [names]
        if factors:
            used.append(names - set(s.reduction_dims))
        todo = [Box(ranges, values, self.tensors)]
        while todo:
            box = todo.pop()
            large = max(used, key=lambda u: _elements(box, u))
            cut = [d for d in box.ranges if d in large and box.ranges[d][1] - box.ranges[d][0] > 1]
            if _elements(box, large) > PIECE_ELEMENTS and cut:
                todo += reversed(box.halves(cut[0]))
            else:
                yield _masked(box, s)

    def reduced(
        self, s: Statement, box: Box, axes: tuple[int, ...], given: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """`given` folded over `axes`, which keep length 1."""
        rank = len(box.ranges)
        shapes = [as_rank(g, rank).shape for g in given]
        if box.mask is not None:
            shapes.append(box.mask.shape)
        folded = tuple(n if k in axes else 1 for k, n in enumerate(box.shape))
        shape = np.broadcast_shapes(folded, *shapes)
        given = tuple(np.broadcast_to(g, shape) for g in given)
        if box.mask is not None:
            identities = self.identity(s)
            given = tuple(
                np.where(box.mask, g, np.asarray(i, g.dtype))
                for g, i in zip(given, identities, strict=True)
            )
        if s.combine in BUILTIN_COMBINES:
            return (_UFUNC[s.combine].reduce(given[0], axes, given[0].dtype, keepdims=True),)
        rest = [k for k in range(rank) if k not in axes]
        rows = tuple(
            g.transpose(*rest, *axes).reshape(*(shape[k] for k in rest), -1) for g in given
        )
        while rows[0].shape[-1] > 1:
            rows = self.halved(s, rows)
        kept = tuple(1 if k in axes else n for k, n in enumerate(shape))
        return tuple(r.reshape(kept) for r in rows)

    def halved(self, s: Statement, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Neighbours in the last axis combined; the order of elements is kept."""
        even = rows[0].shape[-1] // 2 * 2
        pairs = self.combined(
            s, tuple(r[..., 0:even:2] for r in rows), tuple(r[..., 1:even:2] for r in rows)
        )
        return tuple(
            np.concatenate((p, r[..., even:]), axis=-1) for p, r in zip(pairs, rows, strict=True)
        )

    def identity(self, s: Statement) -> tuple[Any, ...]:
        if declared := self.combines.get(s.combine):
            return tuple(evaluate_expression(i, Box({}, {}, {})) for i in declared.identity)
        return (builtin_identity(s.combine, s.values[0].dtype),)

    def combined(
        self, s: Statement, a: tuple[Array, ...], b: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """combine(a, b), component by component."""
        if s.combine in BUILTIN_COMBINES:
            return (_UFUNC[s.combine](a[0], b[0]),)
        names = {f"a{k}": x for k, x in enumerate(a)} | {f"b{k}": x for k, x in enumerate(b)}
        shape = np.broadcast_shapes(a[0].shape, b[0].shape)
        return tuple(
            np.broadcast_to(evaluate_expression(v, Box({}, {}, {}), names), shape)
            for v in self.combines[s.combine].values
        )


def contraction_factors(s: Statement) -> tuple[Expr, ...]:
    """The two factors if the statement is a sum of products over a box; else nothing."""
    value = s.values[0]
    if s.combine != "sum" or not isinstance(value, Apply) or value.fn != "mul" or s.where:
        return ()
    own = {d.name for d in s.dims}
    if any(variables(bound) & own for d in s.dims for bound in (d.lo, d.hi)):
        return ()
    exact = value.dtype.name in ("f32", "f64") or value.dtype.is_integer
    return value.args if exact and s.reduction_dims else ()


def _variables(e: Expr) -> frozenset[str]:
    """Every variable of the index expressions in `e`."""
    found: frozenset[str] = frozenset()
    for x in walk(e):
        if isinstance(x, Load):
            found = found.union(*(variables(i) for i in x.indices))
        elif isinstance(x, Value):
            found |= variables(x.size)
    return found


def _elements(box: Box, names: frozenset[str]) -> int:
    return reduce(
        lambda a, b: a * b, (hi - lo for d, (lo, hi) in box.ranges.items() if d in names), 1
    )


def _masked(box: Box, s: Statement) -> Box:
    """The box with the mask of a triangular domain and of the statement's constraints."""
    own = frozenset(box.ranges)
    tests = [box.size(c) >= 0 for c in s.where]
    for d in s.dims:
        here = box.names[d.name]
        tests += [here >= box.size(d.lo)] if variables(d.lo) & own else []
        tests += [here < box.size(d.hi)] if variables(d.hi) & own else []
    if not tests:
        return replace(box, checked=True)
    mask = np.asarray(reduce(lambda a, b: a & b, tests))
    return replace(box, mask=np.broadcast_to(as_rank(mask, len(own)), box.shape), checked=True)
