"""Sizes, types, layouts and scalar expressions as text; `scope.py` and `scalars.py` read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nncc.ir.expr import LANE_FUNCTIONS, Apply, Const, Expr, Load, Name, Reduce, Value
from nncc.ir.index import Element, Size, Term, atom, var
from nncc.ir.nests import Layout
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.text.names import number, quote
from nncc.ir.types import DType, TensorType


def print_size(size: Size) -> str:
    """An integer expression as text.

    >>> print_size(2 * var("n") + var("the size"))
    '2*n + `the size`'
    """
    return str(_quoted(size) if any(quote(n) != n for n in _names(size)) else size)


def _names(size: Size) -> Iterator[str]:
    """Variables and tensors that occur in `size`."""
    if isinstance(size, int):
        return
    for monomial, _ in size.terms:
        for a in monomial:
            if isinstance(a, str):
                yield a
            elif isinstance(a, Term):
                yield from _names(a.a)
                yield from _names(a.b)
            else:
                yield a.tensor
                for part in (*a.indices, a.lo, a.hi):
                    yield from _names(part)


def _quoted(size: Size) -> Size:
    """`size` with every name replaced by its spelling in text."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, coefficient in size.terms:
        term: Size = coefficient
        for a in monomial:
            if isinstance(a, str):
                term = term * var(quote(a))
            elif isinstance(a, Term):
                term = term * atom(Term(a.fn, _quoted(a.a), _quoted(a.b)))
            else:
                indices = tuple(_quoted(i) for i in a.indices)
                element = Element(quote(a.tensor), indices, _quoted(a.lo), _quoted(a.hi))
                term = term * atom(element)
        total = total + term
    return total


def print_sizes(sizes: Iterable[Size], separator: str = ",") -> str:
    """Integer expressions in a row."""
    return separator.join(print_size(s) for s in sizes)


def print_type(t: TensorType) -> str:
    """`f32[N,3,224,224]`."""
    return f"{t.dtype}[{subscripts(t.shape)}]"


def print_layout(layout: Layout | None) -> str:
    """` @ (d0, d1 // 16, d1 % 16 : N, 4, 16)`, or nothing for the dense row-major one."""
    if layout is None:
        return ""
    fill = "" if layout.fill is None else f" fill {layout.fill}"
    return f" @ ({print_sizes(layout.dims, ', ')} : {print_sizes(layout.extents, ', ')}{fill})"


def print_expr(e: Expr, *, known: bool = False, attributes: frozenset[str] = frozenset()) -> str:
    """A scalar expression as text.

    Args:
        known: dtype and lanes follow from the place where the text will stand, so that a number
            by itself needs no type.
        attributes: the names among `Name` expressions that are attributes of a definition.
    """
    return _Printer(attributes).text(e, 0, known)


def typed_name(dtype: DType, lanes: int) -> str:
    """`f32`, or `f32x16` for a vector."""
    return f"{dtype}x{lanes}" if lanes > 1 else str(dtype)


class _Printer:
    def __init__(self, attributes: frozenset[str]) -> None:
        self.attributes = attributes

    def text(self, e: Expr, precedence: int, known: bool) -> str:
        """`e` where an operand of at least `precedence` is needed."""
        if not known and self.is_weak(e):
            return f"{typed_name(e.dtype, e.lanes)}({self.text(e, 0, True)})"
        if isinstance(e, Const):
            return number(e.value, e.dtype)
        if isinstance(e, Name):
            return quote(e.name)
        if isinstance(e, Value):
            return f"value({typed_name(e.dtype, e.lanes)}, {print_size(e.size)})"
        if isinstance(e, Load):
            return self.load(e, precedence)
        if isinstance(e, Reduce):
            dims = ", ".join(
                quote(d) if lo is None or hi is None else f"{quote(d)} in {print_range(lo, hi)}"
                for d, lo, hi in e.dims
            )
            return f"{quote(e.combine)}({dims})({self.text(e.body, 0, known)})"
        return self.apply(e, precedence, known)

    def is_weak(self, e: Expr) -> bool:
        """Whether the text of `e` takes its dtype from what stands around it."""
        if isinstance(e, Const):
            return True
        if isinstance(e, Name):
            return e.name in self.attributes
        if isinstance(e, Reduce):
            return self.is_weak(e.body)
        if not isinstance(e, Apply):
            return False
        if e.fn == "broadcast":
            return self.is_weak(e.args[0])
        f = FUNCTIONS.get(e.fn)
        if f is None or f.rule not in ("same", "select"):
            return False
        return all(self.is_weak(a) for a in (e.args[1:] if f.rule == "select" else e.args))

    def load(self, e: Load, precedence: int) -> str:
        text = f"{quote(e.tensor)}[{subscripts(e.indices, e.lanes, e.count)}]"
        if e.other is None:
            return text
        text += f" else {self.text(e.other, 0, True)}"
        return f"({text})" if precedence else text

    def apply(self, e: Apply, precedence: int, known: bool) -> str:
        if e.fn == "cast":
            return f"cast({e.dtype}, {self.text(e.args[0], 0, False)})"
        if e.fn == "broadcast":
            return f"broadcast({self.text(e.args[0], 0, known)}, {e.lanes})"
        f = FUNCTIONS.get(e.fn)
        if f is None:
            return self.call(e)
        siblings = e.args[1:] if f.rule == "select" else e.args
        clear = any(not self.is_weak(a) for a in siblings) or (known and f.rule != "compare")
        # where no sibling has a dtype of its own, the first one states it
        flags = [clear or k > 0 for k in range(len(siblings))]
        if f.rule == "select":
            flags.insert(0, True)
        if not f.symbol or (e.fn == "neg" and isinstance(e.args[0], Const)):
            args = (self.text(a, 0, k) for a, k in zip(e.args, flags, strict=True))
            return f"{e.fn}({', '.join(args)})"
        if e.fn == "neg":
            text = f"-{self.text(e.args[0], f.precedence, flags[0])}"
        else:
            left = self.text(e.args[0], f.precedence, flags[0])
            text = f"{left} {f.symbol} {self.text(e.args[1], f.precedence + 1, flags[1])}"
        return f"({text})" if precedence > f.precedence else text

    def call(self, e: Apply) -> str:
        """An operation of a machine, or a function across lanes."""
        text = f"{quote(e.fn)}({', '.join(self.text(a, 0, False) for a in e.args)})"
        if e.fn in LANE_FUNCTIONS:
            return text
        first = e.args[0] if e.args else None
        if first is not None and (first.dtype, first.lanes) == (e.dtype, e.lanes):
            return text
        return f"{text} as {typed_name(e.dtype, e.lanes)}"


def print_range(lo: Size, hi: Size) -> str:
    """`0..N`."""
    return f"{print_size(lo)}..{print_size(hi)}"


def subscripts(indices: Iterable[Size], lanes: int = 1, count: Size | None = None) -> str:
    """What stands between the brackets of an access."""
    parts = [print_size(i) for i in indices]
    text = (", " if any(" " in p for p in parts) else ",").join(parts)
    if lanes == 1 and count is None:
        return text
    first = "" if count is None else f" first {print_size(count)}"
    return f"{text} : {lanes}{first}"
