"""Integer expressions over loop variables as words, by pointers that are stepped in the loops.

A sum of factors times loop variables becomes a register that its innermost loop steps by its
factor; the same sum with another constant is that register plus a constant, or a neighbour that
was computed before plus a small one (so that a run of accesses is a chain of equal steps).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nncc.backends.tta.code import Item, Op, Operand, Register
from nncc.backends.tta.words import Words
from nncc.diagnostics import TargetError
from nncc.ir.bounds import Range, bounds, simplify
from nncc.ir.expr import Expr, Load
from nncc.ir.index import Element, Index, Size, Term, polynomial, substitute, weighted_sum
from nncc.ir.types import DType


@dataclass(eq=False)
class Pointer:
    """A register that holds a sum of loop variables plus `constant`."""

    register: Register
    constant: int


@dataclass(eq=False)
class Open:
    """A loop whose body is being written; `before` is the block around it."""

    variable: str
    lo: Size
    step: int
    before: list[Item]
    pointers: dict[Size, Pointer] = field(default_factory=dict)
    steps: list[Item] = field(default_factory=list)


class Addresses(Words):
    """Words that are integer expressions.

    Attributes:
        loops: those around the place, outermost first.
        known: what sizes and variables of unrolled loops stand for; `ranges`: of the others.
    """

    loops: list[Open]
    known: dict[str, Size]
    ranges: dict[str, Range]
    chains: dict[tuple[int, int], Pointer]

    def dtype_of(self, tensor: str) -> DType:
        """Of the elements of a buffer."""
        raise NotImplementedError

    def word(self, e: Expr) -> Operand:
        """A scalar expression."""
        raise NotImplementedError

    def resolved(self, size: Size) -> Size:
        """`size` with what is known put in."""
        if isinstance(size, int):
            return size
        return simplify(substitute(size, self.known), self.ranges)

    def size(self, size: Size) -> Operand:
        """The value of an integer expression at this place."""
        size = self.resolved(size)
        if isinstance(size, int):
            return size
        variables = {loop.variable for loop in self.loops}
        linear = {m: c for m, c in size.terms if not m or (len(m) == 1 and m[0] in variables)}
        total = self.linear(polynomial(linear))
        for m, c in size.terms:
            if m in linear:
                continue
            product: Operand = c
            for a in m:
                product = self.apply("mul", product, self.atom(a))
            total = self.apply("add", total, product)
        return total

    def atom(self, a: str | Term | Element) -> Operand:
        if isinstance(a, str):
            return self.linear(Index((((a,), 1),)))
        if isinstance(a, Element):
            return self.element(a)
        if a.fn in ("min", "max"):
            return self.apply(a.fn, self.size(a.a), self.size(a.b))
        if not isinstance(a.b, int) or a.b < 1:
            raise TargetError(f"a division by {a.b} while running: the machine has none")
        low, _ = bounds(self.resolved(a.a), self.ranges)
        negative = not (isinstance(low, int) and low >= 0)
        x = self.size(a.a)
        if a.fn == "%" and a.b & (a.b - 1) == 0:
            return self.apply("and", x, a.b - 1)
        quotient = self.quotient(x, a.b, negative=negative)
        if a.fn == "//":
            return quotient
        return self.apply("sub", x, self.apply("mul", quotient, a.b))

    def element(self, a: Element) -> Operand:
        """An element of an integer tensor."""
        dtype = self.dtype_of(a.tensor)
        return self.word(Load(a.tensor, a.indices, dtype))

    # -- pointers --------------------------------------------------------------------------
    def linear(self, size: Size) -> Operand:
        """A sum of factors times variables of open loops, and a constant."""
        if isinstance(size, int):
            return size
        constant = size.constant
        moving = size - constant
        assert isinstance(moving, Index)
        names = {m[0]: c for m, c in moving.terms}
        depth = max(k for k, loop in enumerate(self.loops) if loop.variable in names)
        loop = self.loops[depth]
        pointer = loop.pointers.get(moving)
        if pointer is None:
            pointer = Pointer(Register("scalar"), constant)
            loop.pointers[moving] = pointer
            first = substitute(size, {loop.variable: loop.lo})
            with self.outside(depth):
                self.copy(self.size(first), pointer.register)
            step = names[loop.variable] * loop.step
            now, self.items = self.items, loop.steps
            stepped = self.apply("add", pointer.register, step)
            self.items = now
            last = loop.steps[-1]
            assert isinstance(last, Op) and isinstance(stepped, Register)
            last.result = pointer.register
        place = (id(self.items), id(pointer))
        near = self.chains.get(place, pointer)
        if near.constant == constant:
            return near.register
        moved = self.apply("add", near.register, constant - near.constant)
        assert isinstance(moved, Register)
        self.chains[place] = Pointer(moved, constant)
        return moved

    @contextmanager
    def outside(self, depth: int) -> Iterator[None]:
        """The place before loop number `depth`."""
        items, loops = self.items, self.loops
        self.items, self.loops = loops[depth].before, loops[:depth]
        yield
        self.items, self.loops = items, loops


def flat(indices: tuple[Size, ...], shape: tuple[int, ...]) -> Size:
    """The number of an element in row-major order."""
    total: Size = 0
    for index, extent in zip(indices, shape, strict=True):
        total = total * extent + index
    return weighted_sum(((total, 1),))
