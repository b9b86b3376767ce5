"""Loops made simpler before operations are selected.

   for f in 0..16 { for s in max(1 - f, 0)..min(17 - f, 3) { … } }
   →  f = 0: for s in 1..3 { … }   for f in 1..15 { for s in 0..3 { … } }   f = 15: …

- Loops are split where bounds inside of them change their form: all trip counts become numbers.
- Small inner loops are written out, so that the loop around them becomes the innermost one: its
  rounds overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

from nncc.ir.bounds import Range, bounds, simplify
from nncc.ir.expr import Apply, Expr, Load, map_indices, walk
from nncc.ir.index import Index, Size, Term, affine, substitute, variables
from nncc.ir.loops import (
    Alloc,
    Assign,
    Declare,
    For,
    If,
    Let,
    Prefetch,
    Stmt,
    Store,
    While,
    walk_statements,
)

MOST_PARTS = 5  # of a loop that is split
WRITTEN_OUT = 520  # weight of a body up to which loops in it are written out
MOST_CODE = 6000  # weight of a function's body beyond which nothing is copied


def simplified(
    body: tuple[Stmt, ...], sizes: Mapping[str, int], *, overlap: bool
) -> tuple[Stmt, ...]:
    """The statements of a function, with numbers for its sizes.

    Args:
        overlap: whether rounds of loops can overlap, so that writing out is of use.
    """
    body = _without_hints(_with_sizes(body, dict(sizes)))
    split = _split(body, {})
    if _weight(split) <= MOST_CODE:
        body = split
    return _written_out(body) if overlap else body


def _with_sizes(body: tuple[Stmt, ...], known: dict[str, Size]) -> tuple[Stmt, ...]:
    if not known:
        return body
    return tuple(_map_sizes(s, lambda x: substitute(x, known)) for s in body)


def _without_hints(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    found: list[Stmt] = []
    for s in body:
        if isinstance(s, Prefetch):
            continue
        if isinstance(s, For | While | Alloc):
            s = replace(s, body=_without_hints(s.body))
        elif isinstance(s, If):
            s = replace(s, then=_without_hints(s.then), otherwise=_without_hints(s.otherwise))
        found.append(s)
    return tuple(found)


# -- borders -------------------------------------------------------------------------------


def _split(body: tuple[Stmt, ...], ranges: dict[str, Range]) -> tuple[Stmt, ...]:
    """Loops split where minima and maxima in bounds inside of them are decided differently."""
    found: list[Stmt] = []
    for s in body:
        if isinstance(s, While | Alloc):
            found.append(replace(s, body=_split(s.body, ranges)))
        elif isinstance(s, If):
            then, otherwise = _split(s.then, ranges), _split(s.otherwise, ranges)
            found.append(replace(s, then=then, otherwise=otherwise))
        elif isinstance(s, For):
            found += _parts(s, ranges)
        else:
            found.append(s)
    return tuple(found)


def _parts(s: For, ranges: dict[str, Range]) -> Iterator[For]:
    s = replace(s, lo=simplify(s.lo, ranges), hi=simplify(s.hi, ranges))
    cuts = [s.lo, s.hi]
    if isinstance(s.lo, int) and isinstance(s.hi, int) and s.kind != "unroll":
        points = sorted({p for p in _points(s, s.lo, s.hi) if s.lo < p < s.hi})
        # a loop with steps goes on at its next value
        points = sorted({s.lo + -(-(p - s.lo) // s.step) * s.step for p in points})
        points = [p for p in points if p < s.hi]
        if len(points) < MOST_PARTS:
            cuts = [s.lo, *points, s.hi]
    for lo, hi in pairwise(cuts):
        low, high = bounds(lo, ranges)[0], bounds(hi - 1, ranges)[1]
        inner = _split(s.body, ranges | {s.variable: (low, high)})
        yield replace(s, lo=lo, hi=hi, body=inner)


def _points(s: For, lo: int, hi: int) -> Iterator[int]:
    """Where a minimum or maximum of two things that differ by a multiple of the variable turns."""
    for inner in walk_statements(s.body):
        if not isinstance(inner, For):
            continue
        for size in (inner.lo, inner.hi):
            for t in _terms(size):
                if t.fn not in ("min", "max"):
                    continue
                found = affine(t.a - t.b, [s.variable])
                if found is None or not isinstance(found[1], int) or not found[0]:
                    continue
                factor, rest = found[0][s.variable], found[1]
                turn = -rest // factor if factor > 0 else rest // -factor
                # where both are equal belongs to the side whose bound does not change
                first = t.a if (factor > 0) == (t.fn == "min") else t.b
                is_equal = factor * turn + rest == 0
                yield turn if is_equal and s.variable in variables(first) else turn + 1


def _terms(size: Size) -> Iterator[Term]:
    if isinstance(size, Index):
        for m, _ in size.terms:
            for a in m:
                if isinstance(a, Term):
                    yield a
                    yield from _terms(a.a)
                    yield from _terms(a.b)


# -- writing out ---------------------------------------------------------------------------


def _written_out(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Inner loops marked to be written out where the body around them stays small."""
    found: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            s = replace(s, body=_written_out(s.body))
            loops = [x for x in s.body if isinstance(x, For)]
            others = any(isinstance(x, While | If | Alloc) for x in walk_statements(s.body))
            fixed = all(_trips(x) is not None and _is_innermost(x) for x in loops)
            copies = sum(_weight(x.body) * (_trips(x) or 1) for x in loops)
            rest = tuple(x for x in s.body if not isinstance(x, For))
            small = (_trips(s) or 0) > 1 and _weight(rest) + copies <= WRITTEN_OUT
            if loops and fixed and not others and small and not _has_lanes(s):
                inner = tuple(
                    replace(x, kind="unroll") if isinstance(x, For) else x for x in s.body
                )
                s = replace(s, body=inner)
        elif isinstance(s, Alloc):
            s = replace(s, body=_written_out(s.body))
        elif isinstance(s, If):
            s = replace(s, then=_written_out(s.then), otherwise=_written_out(s.otherwise))
        found.append(s)
    return tuple(found)


def _is_innermost(s: For) -> bool:
    return all(x.kind == "unroll" for x in walk_statements(s.body) if isinstance(x, For))


def _trips(s: For) -> int | None:
    if isinstance(s.lo, int) and isinstance(s.hi, int):
        return max(0, -(-(s.hi - s.lo) // s.step))
    trips = -((s.lo - s.hi) // s.step)
    return trips if isinstance(trips, int) else None


def _has_lanes(s: For) -> bool:
    """Whether statements may go through memory lane by lane, which takes loops."""
    for x in walk_statements(s.body):
        if getattr(x, "count", None) is not None:
            return True
        for e in _expressions(x):
            if any(isinstance(y, Load) and (y.count or y.other) for y in walk(e)):
                return True
    return False


def _weight(body: tuple[Stmt, ...]) -> int:
    """About how many operations statements become, loops to be written out counted so."""
    total = 0
    for s in body:
        if isinstance(s, For):
            times = _trips(s) if s.kind == "unroll" else 1
            total += _weight(s.body) * (times or 1)
        elif isinstance(s, If):
            total += _weight(s.then) + _weight(s.otherwise)
        elif isinstance(s, While | Alloc):
            total += _weight(s.body)
        else:
            for e in _expressions(s):
                total += sum(_cost(x) for x in walk(e))
            total += 2 if isinstance(s, Store) else 0
    return total


def _cost(e: Expr) -> int:
    if isinstance(e, Load):
        return 2
    if isinstance(e, Apply):
        return 1 if e.dtype.bits <= 32 else 5
    return 0


def _expressions(s: Stmt) -> tuple[Expr, ...]:
    if isinstance(s, Let | Declare | Assign | Store):
        return (s.value,)
    return ()


# -- sizes ---------------------------------------------------------------------------------


def _map_sizes(s: Stmt, rule) -> Stmt:  # type: ignore[no-untyped-def]
    """A statement with every integer expression in it replaced."""
    if isinstance(s, For):
        body = tuple(_map_sizes(x, rule) for x in s.body)
        return replace(s, lo=rule(s.lo), hi=rule(s.hi), body=body)
    if isinstance(s, While):
        body = tuple(_map_sizes(x, rule) for x in s.body)
        return replace(s, condition=map_indices(s.condition, rule), body=body)
    if isinstance(s, Alloc):
        body = tuple(_map_sizes(x, rule) for x in s.body)
        shape = tuple(rule(e) for e in s.buffer.shape)
        return replace(s, buffer=replace(s.buffer, shape=shape), body=body)
    if isinstance(s, If):
        then = tuple(_map_sizes(x, rule) for x in s.then)
        otherwise = tuple(_map_sizes(x, rule) for x in s.otherwise)
        return If(map_indices(s.condition, rule), then, otherwise)
    if isinstance(s, Let | Declare | Assign):
        return replace(s, value=map_indices(s.value, rule))
    if isinstance(s, Store):
        indices = tuple(rule(i) for i in s.indices)
        count = None if s.count is None else rule(s.count)
        return replace(s, indices=indices, value=map_indices(s.value, rule), count=count)
    if isinstance(s, Prefetch):
        return replace(s, indices=tuple(rule(i) for i in s.indices))
    return s
