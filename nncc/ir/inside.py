"""Whether the accesses of a Loops function stay inside of their buffers.

    for access in doubtful(function, functions): …       those that cannot be proved

An index is proved by the bounds of the loops around it, and by the conditions of those `if`s that
compare numbers. Minima and maxima, as in the bounds of a last tile, are taken apart:

    for a in 0..4 { for b in 0..min(16, 50 - 16*a) { y[16*a + b] … } }        y: f32[50]
    49 - (16*a + b)  >=  50 - 16*a - min(16, 50 - 16*a)  >=  50 - 16*a - (50 - 16*a)  =  0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nncc.ir.bounds import bounds, nonnegative
from nncc.ir.expr import Apply, Const, Expr, Load, Value, walk
from nncc.ir.index import (
    Element,
    Size,
    Term,
    atom,
    elements,
    minimum,
    replace_elements,
    substitute,
)
from nncc.ir.loops import (
    Alloc,
    Assign,
    Buffer,
    Call,
    Declare,
    For,
    Function,
    If,
    Let,
    Perform,
    Prefetch,
    Stmt,
    Store,
    While,
)  # fmt: skip
from nncc.ir.nests import Dim
from nncc.ir.types import i64


@dataclass(frozen=True)
class Range:
    """A loop variable: `lo <= name <= hi`."""

    name: str
    lo: Size
    hi: Size


def range_of(loop: For) -> Range:
    """The values of a loop's variable."""
    steps = (loop.hi - loop.lo - 1) // loop.step
    exact = isinstance(steps, int) or (loop.hi - loop.lo) % loop.step == 0
    last = loop.lo + steps * loop.step if exact else loop.hi - 1
    return Range(loop.variable, loop.lo, last)


@dataclass(frozen=True)
class Facts:
    """What is known at a place: the loops around it, outermost first, and sizes >= 0."""

    ranges: tuple[Range, ...] = ()
    where: tuple[Size, ...] = ()
    _proved: dict[Size, bool] = field(default_factory=dict, compare=False, repr=False)

    def prove(self, size: Size) -> bool:
        """Whether `size` >= 0 for certain."""
        if size not in self._proved:
            self._proved[size] = self._prove(size)
        return self._proved[size]

    def _prove(self, size: Size) -> bool:
        # Elements of tensors become variables: they cancel as long as they have no bounds.
        names: dict[Element, str] = {}
        known: list[Range] = []

        def named(e: Element) -> str:
            if e not in names:
                names[e] = f"element {len(names)}"
                known.append(Range(names[e], e.lo, e.hi - 1))
            return names[e]

        def plain(x: Size) -> Size:
            return replace_elements(x, named)

        size, *where = map(plain, (size, *self.where))
        ranges = [Range(r.name, plain(r.lo), plain(r.hi)) for r in self.ranges]
        return any(_proves(size - w, [*known, *ranges]) for w in (0, *where))


def _proves(size: Size, ranges: Sequence[Range]) -> bool:
    if isinstance(size, int):
        return size >= 0
    for m, c in size.terms:
        a = m[0] if len(m) == 1 else ""
        if isinstance(a, Term) and a.fn in ("min", "max"):
            rest = size - c * atom(a)
            branches = (_proves(rest + c * x, ranges) for x in (a.a, a.b))
            # -min(a, b) >= -a and >= -b: one is enough; min(a, b) >= 0 needs both
            return any(branches) if (a.fn == "min") == (c < 0) else all(branches)
    if not ranges:
        return nonnegative(bounds(size, {})[0])
    *outer, last = ranges
    if _proves(bounds(size, {last.name: (last.lo, last.hi)})[0], outer):
        return True
    for m, c in size.terms:
        a = m[0] if len(m) == 1 else ""
        if isinstance(a, Term) and a.fn == "//" and isinstance(a.b, int):
            # a - b < b * (a // b) <= a, and an integer above -1 is not negative
            numerator = a.a if c < 0 else a.a - a.b + 1
            rest = size - c * atom(a)
            return _proves(rest * a.b + c * numerator + (a.b - 1), ranges)
    return False


def doubtful(function: Function, functions: Mapping[str, Function]) -> Iterator[str]:
    """The accesses of a function that cannot be proved to be inside, and what cannot be proved."""
    yield from _Walker(functions, {b.name: b for b in function.buffers}).body(
        function.body, Facts()
    )


class _Walker:
    def __init__(self, functions: Mapping[str, Function], buffers: dict[str, Buffer]) -> None:
        self.functions = functions
        self.buffers = buffers

    def body(self, body: tuple[Stmt, ...], facts: Facts) -> Iterator[str]:
        for s in body:
            yield from self.statement(s, facts)

    def statement(self, s: Stmt, facts: Facts) -> Iterator[str]:
        if isinstance(s, For):
            yield from self.sizes((s.lo, s.hi), facts)
            inner = Facts((*facts.ranges, range_of(s)), facts.where)
            yield from self.body(s.body, inner)
        elif isinstance(s, If | While):
            yield from self.expression(s.condition, facts)
            holds = Facts(facts.ranges, (*facts.where, *_known(s.condition)))
            yield from self.body(s.then if isinstance(s, If) else s.body, holds)
            yield from self.body(s.otherwise if isinstance(s, If) else (), facts)
        elif isinstance(s, Let | Declare | Assign):
            yield from self.expression(s.value, facts)
        elif isinstance(s, Store):
            yield from self.expression(s.value, facts)
            yield from self.access(s.buffer, s.indices, s.value.lanes, s.count, facts)
        elif isinstance(s, Alloc):
            self.buffers[s.buffer.name] = s.buffer
            yield from self.body(s.body, facts)
        elif isinstance(s, Call):
            yield from self.call(s, facts)
        elif isinstance(s, Prefetch):
            yield from self.sizes(s.indices, facts)
        else:
            assert isinstance(s, Perform)
            yield from self.perform(s, facts)

    def perform(self, s: Perform, facts: Facts) -> Iterator[str]:
        """The elements at all points of the box."""
        yield from self.sizes([b for d in s.dims for b in (d.lo, d.hi)], facts)
        if any(isinstance(d.extent, int) and d.extent < 1 for d in s.dims):
            return  # it has no points
        ranges = tuple(_range_of_points(d, facts) for d in s.dims)
        inner = Facts((*facts.ranges, *ranges), facts.where)
        yield from self.access(s.target.tensor, s.target.indices, 1, None, inner)
        for e in s.operands:
            yield from self.expression(e, inner)

    def call(self, s: Call, facts: Facts) -> Iterator[str]:
        callee = self.functions[s.callee]
        sizes = dict(zip(callee.sizes, s.sizes, strict=True))
        for view, buffer in zip(s.arguments, callee.buffers, strict=True):
            room = self.buffers[view.buffer].bytes - view.offset
            needed = substitute(buffer.bytes, sizes)
            if not (facts.prove(view.offset) and facts.prove(room - needed)):
                yield (
                    f"'{s.callee}' takes {needed} bytes of '{view.buffer}' from {view.offset} on, "
                    f"which are not surely in its {self.buffers[view.buffer].bytes}"
                )

    def expression(self, e: Expr, facts: Facts) -> Iterator[str]:
        for x in walk(e):
            if isinstance(x, Value):
                yield from self.sizes((x.size,), facts)
            elif isinstance(x, Load) and x.other is not None:
                yield from self.sizes(x.indices, facts)
            elif isinstance(x, Load):
                yield from self.access(x.tensor, x.indices, x.lanes, x.count, facts)

    def sizes(self, sizes: Sequence[Size], facts: Facts) -> Iterator[str]:
        for size in sizes:
            for e in elements(size):
                yield from self.access(e.tensor, e.indices, 1, None, facts)
                if not facts.prove(e.hi - e.lo - 1):
                    yield f"'{e}': the range {e.lo}..{e.hi} may be empty"

    def access(
        self, name: str, indices: Sequence[Size], lanes: int, count: Size | None, facts: Facts
    ) -> Iterator[str]:
        yield from self.sizes(indices, facts)
        shape = self.buffers[name].shape
        rows = list(zip(indices, shape, strict=True))
        while len(rows) > 1 and isinstance(rows[-1][1], int) and rows[-1][1] < lanes:
            # a vector longer than the last dimension runs on in the one before
            (outer, rows_of_it), (inner, extent) = rows[-2:]
            if not (facts.prove(inner) and facts.prove(extent - 1 - inner)):
                break
            rows[-2:] = [(outer * extent + inner, rows_of_it * extent)]
        width = lanes if count is None else minimum(count, lanes)
        for k, (index, extent) in enumerate(rows):
            last = index + (width - 1 if k == len(rows) - 1 else 0)
            if facts.prove(index) and facts.prove(extent - 1 - last):
                continue
            text = f"'{name}[{', '.join(map(str, indices))}]'"
            reach = f"{index}" if last == index else f"{index} to {last}"
            yield f"{text} may be outside of the buffer: {reach} is not surely in 0..{extent}"
            return


def _range_of_points(dim: Dim, facts: Facts) -> Range:
    """The values of a dimension of a box, without those parts of its bounds that could only make
    it empty: in lo..max(lo, x) there is nothing from x on, in min(x, hi)..hi nothing below x."""
    lo, hi = dim.lo, dim.hi
    changed = True
    while changed:
        changed = False
        for bound, fn in ((hi, "max"), (lo, "min")):
            for one, other in _branches(bound, fn):
                if facts.prove(lo - one if fn == "max" else one - hi):
                    lo, hi = (lo, other) if fn == "max" else (other, hi)
                    changed = True
                    break
    return Range(dim.name, lo, hi - 1)


def _branches(size: Size, fn: str) -> Iterator[tuple[Size, Size]]:
    """The two sides of a size that is a `fn` plus something, in both orders."""
    for m, c in () if isinstance(size, int) else size.terms:
        a = m[0] if len(m) == 1 else ""
        if c == 1 and isinstance(a, Term) and a.fn == fn:
            rest = size - atom(a)
            yield a.a + rest, a.b + rest
            yield a.b + rest, a.a + rest


def _known(condition: Expr) -> Iterator[Size]:
    """Sizes that are >= 0 where a condition holds."""
    if not isinstance(condition, Apply):
        return
    if condition.fn == "and":
        for part in condition.args:
            yield from _known(part)
        return
    sizes = [_number(a) for a in condition.args]
    if len(sizes) != 2 or condition.fn not in ("lt", "le", "gt", "ge"):
        return
    less, more = sizes if condition.fn[0] == "l" else sizes[::-1]
    if less is not None and more is not None:
        yield more - less - (1 if condition.fn[1] == "t" else 0)


def _number(e: Expr) -> Size | None:
    """The integer that an expression is, if it is known as a size."""
    if isinstance(e, Value) and e.dtype is i64:  # a narrower one might have wrapped
        return e.size
    if isinstance(e, Const) and e.dtype is i64 and isinstance(e.value, int):
        return e.value
    return None
