"""Which serial loops may run in lockstep: those whose iterations have nothing in common.

    for f in 0..56 step 14 { … y[n, e, f + 13, 0 : 16] = a13 }      independent(…) is True

Iterations are independent if registers of outside stay as they are, and if of each buffer that
the body writes there is a subscript by which an iteration keeps to elements of its own: it moves on
by more than all accesses of one iteration reach. (Sound, not complete.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nncc.ir.bounds import Range, bounds
from nncc.ir.expr import Expr, Load, Value, walk
from nncc.ir.index import Size, affine, elements
from nncc.ir.loops import (
    Alloc,
    Assign,
    Call,
    Declare,
    For,
    If,
    Let,
    Perform,
    Prefetch,
    Stmt,
    Store,
    While,
    walk_statements,
)  # fmt: skip


@dataclass(frozen=True)
class _Access:
    """Elements that a statement reads or writes, in the ranges of the loops around it."""

    buffer: str
    indices: tuple[Size, ...]
    lanes: int
    ranges: Mapping[str, Range]


def independent(loop: For, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether no iteration of a loop reads or writes what another one writes.

    Args:
        shapes: extents of the buffers. Accesses are inside of them.
    """
    body = list(walk_statements(loop.body))
    if any(isinstance(s, Alloc | Call | Perform) for s in body):
        return False  # these are not worth it, or large for many iterations at once
    own = {s.name for s in body if isinstance(s, Declare)}
    if any(isinstance(s, Assign) and s.name not in own for s in body):
        return False
    written = {s.buffer for s in body if isinstance(s, Store)}
    if not written.isdisjoint(_subscripting(body)):
        return False
    ranges = {loop.variable: (loop.lo, loop.hi - 1)}
    accesses = list(_accesses(loop.body, ranges))
    return all(
        _apart(loop, [a for a in accesses if a.buffer == name], shapes[name]) for name in written
    )


def _apart(loop: For, accesses: Sequence[_Access], shape: tuple[int, ...]) -> bool:
    """Whether a subscript of a buffer keeps the iterations apart."""
    widths = [_widths(a, shape) for a in accesses]
    for k in range(len(shape)):
        slabs = [
            _slab(loop.variable, a, k, width[k]) for a, width in zip(accesses, widths, strict=True)
        ]
        found = [slab for slab in slabs if slab is not None]
        if len(found) < len(slabs) or len({factor for factor, _, _ in found}) > 1:
            continue
        step = abs(found[0][0]) * loop.step
        reach = [hi - lo for _, _, hi in found for _, lo, _ in found]
        if all(isinstance(r, int) and r < step for r in reach):
            return True
    return False


def _slab(variable: str, a: _Access, k: int, width: int) -> tuple[int, Size, Size] | None:
    """(factor, lowest, highest) of subscript k without factor * variable."""
    form = affine(a.indices[k], [variable])
    if form is None or variable not in form[0] or elements(form[1]):
        return None
    lo, hi = bounds(form[1], a.ranges)
    return form[0][variable], lo, hi + width - 1


def _widths(a: _Access, shape: tuple[int, ...]) -> list[int]:
    """How many positions of each dimension the lanes of an access reach.

    A vector longer than the last dimension runs on in the ones before.
    """
    widths, lanes = [1] * len(shape), a.lanes
    for k in range(len(shape) - 1, -1, -1):
        widths[k] = min(lanes, shape[k])
        if lanes <= shape[k]:
            break
        lanes = -(-lanes // shape[k]) + (a.indices[k] != 0)
    return widths


def _accesses(body: tuple[Stmt, ...], ranges: Mapping[str, Range]) -> Iterator[_Access]:
    for s in body:
        for e in _expressions(s):
            for x in walk(e):
                if isinstance(x, Load):
                    yield _Access(x.tensor, x.indices, x.lanes, ranges)
        if isinstance(s, Store):
            yield _Access(s.buffer, s.indices, s.value.lanes, ranges)
        elif isinstance(s, For):
            limits = bounds(s.lo, ranges)[0], bounds(s.hi - 1, ranges)[1]
            yield from _accesses(s.body, {**ranges, s.variable: limits})
        elif isinstance(s, If):
            yield from _accesses((*s.then, *s.otherwise), ranges)
        elif isinstance(s, While):
            yield from _accesses(s.body, ranges)


def _expressions(s: Stmt) -> tuple[Expr, ...]:
    if isinstance(s, If | While):
        return (s.condition,)
    return (s.value,) if isinstance(s, Let | Declare | Assign | Store) else ()


def _subscripting(body: Sequence[Stmt]) -> set[str]:
    """The buffers whose elements are subscripts, bounds or counts."""
    sizes: list[Size] = []
    for s in body:
        if isinstance(s, For):
            sizes += [s.lo, s.hi]
        elif isinstance(s, Store | Prefetch):
            sizes += s.indices
            sizes += [s.count] if isinstance(s, Store) and s.count is not None else []
        for e in _expressions(s):
            for x in walk(e):
                if isinstance(x, Load):
                    sizes += [*x.indices, *(() if x.count is None else (x.count,))]
                elif isinstance(x, Value):
                    sizes.append(x.size)
    return {e.tensor for size in sizes for e in elements(size)}
