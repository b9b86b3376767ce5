"""Borders: where loads reach outside their tensor, and how loops are cut so that they don't.

A load `x[…, e + r - 1, …] else 0` has two conditions a dimension, `e + r - 1 >= 0` and
`H - 1 - (e + r - 1) >= 0`. A loop over `d` meets each undecided condition on `d` in one of these
ways:

 - clamp: `d` is the last open dimension of the condition and skipping the iteration changes
   nothing (the term is the identity of the reduction): the loop's bounds become the condition;
 - leave: a reduction dimension further in will clamp it;
 - peel: iterations of which the condition is not certain are written out before and after the
   loop, with the base of their piece as a literal, so that it can be decided further in.

What remains undecided at a leaf becomes a select at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nncc.ir.expr import Apply, Const, Expr, Load, loads, transform
from nncc.ir.index import Size, affine, maximum, minimum, variables
from nncc.ir.nests import (
    ASSIGN,
    BUILTIN_COMBINES,
    Band,
    Leaf,
    Nest,
    Schedule,
    Statement,
    builtin_identity,
    walk_schedule,
    walk_statements,
)
from nncc.passes.emission.pieces import Piece, Place

MAX_PEELED = 16  # pieces written out at one end of a loop


@dataclass(frozen=True, slots=True)
class Guard:
    """`condition >= 0` must hold for `load` of `statement` to be inside its tensor.

    `skippable`: where it does not hold, the statement's instance has no effect.
    """

    statement: Statement
    condition: Size
    skippable: bool


def load_conditions(nest: Nest, statement: Statement, load: Load) -> tuple[Size, ...]:
    """The conditions, each `>= 0`, under which `load` is inside its tensor.

    Those that hold in the whole domain of the statement are left out.
    """
    shape = nest.param(load.tensor).type.shape
    scans = next(around for s, around in walk_statements(nest.body) if s.name == statement.name)
    dims = (*scans, *statement.dims)
    domain = Place(
        {d.name: Piece(d.lo, d.extent) for d in dims},
        {d.name: (d.lo, d.hi - 1) for d in dims},  # what bounds of later dimensions refer to
    )
    found: list[Size] = []
    for index, extent in zip(load.indices, shape, strict=True):
        found += [c for c in (index, extent - 1 - index) if domain.decide(c) is not True]
    return tuple(found)


def guards(nest: Nest, statement: Statement) -> Iterator[Guard]:
    """Every condition of a statement: of its bordered loads and of its `where`."""
    for value in statement.values:
        for load in loads(value):
            if load.other is None:
                continue
            skippable = vanishes(statement, load)
            for c in load_conditions(nest, statement, load):
                yield Guard(statement, c, skippable)
    for c in statement.where:
        yield Guard(statement, c, True)


def vanishes(statement: Statement, load: Load) -> bool:
    """Whether an instance has no effect when `load` is outside its tensor."""
    if statement.combine == ASSIGN or len(statement.values) != 1 or load.other is None:
        return False
    other = load.other
    value = transform(statement.values[0], lambda e: other if e == load else e)
    return is_identity(statement.combine, value)


def is_identity(combine: str, value: Expr) -> bool:
    """Whether folding `value` in is certain to change nothing."""
    folded = fold(value)
    return (
        combine in BUILTIN_COMBINES
        and isinstance(folded, Const)
        and folded.value == builtin_identity(combine, folded.dtype)
    )


def fold(e: Expr) -> Expr:
    """`e` with constants computed and 0 * x == 0 (a border contributes nothing, as in ONNX)."""

    def rule(x: Expr) -> Expr:
        if not isinstance(x, Apply):
            return x
        if x.fn == "mul" and any(isinstance(a, Const) and a.value == 0 for a in x.args):
            return Const(0.0 if x.dtype.is_float else 0, x.dtype, x.lanes)
        if not all(isinstance(a, Const) for a in x.args):
            return x
        values = [a.value for a in x.args if isinstance(a, Const)]
        if x.fn == "cast" and x.dtype.is_integer and isinstance(values[0], int):
            lo, hi = x.dtype.limits
            return Const(int(values[0]), x.dtype, x.lanes) if lo <= values[0] <= hi else x
        if x.fn in ("add", "sub", "mul"):
            a, b = values
            result = a + b if x.fn == "add" else a - b if x.fn == "sub" else a * b
            if x.dtype.is_integer and not x.dtype.limits[0] <= result <= x.dtype.limits[1]:
                return x
            return Const(result, x.dtype, x.lanes)
        return x

    return transform(e, rule)


@dataclass(frozen=True)
class Cut:
    """How a loop over pieces `first..last` (last excluded) is cut.

    The loop itself runs over `first..last`; the pieces before and after are written out.
    With `clamp`, the loop runs over dimension values lo..hi instead, and the conditions `facts`
    hold in it.
    """

    first: Size
    last: Size
    clamp: tuple[Size, Size] | None = None
    facts: tuple[Size, ...] = ()


def cut(
    nest: Nest,
    place: Place,
    band: Band,
    statements: tuple[Statement, ...],
    count: Size,
    widen: Callable[[Place, str], Place],
) -> Cut:
    """Decides how the loop of `band` over `count` pieces meets the borders below it.

    `widen` completes a place with a statement's dimensions that no band has touched yet.
    """
    first: Size = 0
    last: Size = count
    piece = place.pieces[band.dim]
    lo, hi = piece.base, piece.base + piece.extent
    facts: list[Size] = []
    clamped = False
    outer = place
    for statement in statements:
        place = widen(outer, statement.name)
        for guard in guards(nest, statement):
            condition = guard.condition
            if band.dim not in variables(condition) or place.decide(condition) is not None:
                continue
            if _can_clamp(place, band, statements, guard):
                a, b = _clamp(place, band.dim, condition)
                if a is None and b is None:
                    continue
                lo = lo if a is None else maximum(lo, a)
                hi = hi if b is None else minimum(hi, b)
                facts.append(condition)
                clamped = True
            elif not _clamps_later(place, band, guard) and isinstance(count, int):
                good = _certain(place, band, condition, count)
                if good is not None:
                    first, last = maximum(first, good[0]), minimum(last, good[1])
    if clamped:
        return Cut(0, count, (lo, hi), tuple(facts))
    if isinstance(first, int) and isinstance(last, int) and isinstance(count, int):
        last = max(first, last)
        if first <= MAX_PEELED and count - last <= MAX_PEELED:
            return Cut(first, last)
    return Cut(0, count)


def _can_clamp(place: Place, band: Band, statements: tuple[Statement, ...], guard: Guard) -> bool:
    if band.step != 1 or band.kind != "serial" or len(statements) != 1 or not guard.skippable:
        return False
    if place.open_dims(guard.condition) != {band.dim}:
        return False
    return affine(guard.condition, [band.dim]) is not None


def _clamp(place: Place, dim: str, condition: Size) -> tuple[Size | None, Size | None]:
    """Bounds on `dim` (low included, high excluded) that are equivalent to `condition >= 0`."""
    split = affine(condition, [dim])
    assert split is not None
    factors, rest = split
    k, rest = factors[dim], place.size(rest)
    if k > 0:  # k*d + rest >= 0  <=>  d >= ceil(-rest / k)
        return -(rest // k), None
    return None, rest // -k + 1  # rest - |k|*d >= 0  <=>  d <= floor(rest / |k|)


def _clamps_later(place: Place, band: Band, guard: Guard) -> bool:
    """Whether a loop inside `band` over a reduction dimension can take the condition."""
    if not guard.skippable:
        return False
    open_dims = set(place.open_dims(guard.condition))
    if band.step == 1:
        open_dims.discard(band.dim)
    for dim in open_dims & set(guard.statement.reduction_dims):
        if _fixed_last(band.body, guard.statement.name, open_dims, dim):
            return True
    return False


def _fixed_last(tree: tuple[Schedule, ...], statement: str, open_dims: set[str], dim: str) -> bool:
    """Whether on the way to `statement` all of `open_dims` are fixed before serial `dim`."""
    remaining = set(open_dims)
    while True:
        node = next(n for n in tree if _leads_to(n, statement))
        if isinstance(node, Leaf):
            return False
        if isinstance(node, Band) and node.dim == dim and node.step == 1:
            return node.kind == "serial" and remaining == {dim} and _alone(node)
        if isinstance(node, Band) and node.step == 1:
            remaining.discard(node.dim)
        tree = node.body


def _alone(band: Band) -> bool:
    return len({n.statement for n in walk_schedule(band.body) if isinstance(n, Leaf)}) == 1


def _leads_to(node: Schedule, statement: str) -> bool:
    return any(isinstance(n, Leaf) and n.statement == statement for n in walk_schedule((node,)))


def _certain(place: Place, band: Band, condition: Size, count: int) -> tuple[int, int] | None:
    """The run of pieces on all of which `condition` surely holds; None if nothing is static."""
    piece = place.pieces[band.dim]
    if not isinstance(band.step, int) or not isinstance(piece.extent, int):
        return None
    step, extent = band.step, piece.extent

    def sure(k: int) -> bool:
        part = Piece(piece.base + k * step, min(step, extent - k * step))
        return place.at(band.dim, part).decide(condition) is True

    first, last = 0, count
    while first < last and not sure(first):
        first += 1
        if first > MAX_PEELED and not sure(last - 1):
            return None
    while last > first and not sure(last - 1):
        last -= 1
    return first, last
