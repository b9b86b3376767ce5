"""Integer expressions over loop variables as words, by pointers that are stepped in the loops.

A sum of factors times loop variables becomes a register that its innermost loop steps by its
factor; the same sum with another constant is that register plus a constant, or a neighbour that
was computed before plus a small one (so that a run of accesses is a chain of equal steps).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nncc.backends.tta.code import Op, Operand, Register
from nncc.backends.tta.scope import Pointer, Scope
from nncc.backends.tta.words import Words
from nncc.diagnostics import TargetError
from nncc.ir.bounds import bounds
from nncc.ir.index import Element, Index, Size, Term, polynomial, substitute, weighted_sum


class Addresses:
    """Words that are integer expressions.

    Args:
        element: loads an element of an integer tensor.
    """

    def __init__(self, words: Words, scope: Scope, element: Callable[[Element], Operand]) -> None:
        self.words, self.scope, self.element = words, scope, element
        self.chains: dict[tuple[int, int], Pointer] = {}

    def forget(self, register: Register | None = None) -> None:
        """No address is computed from that register any more (from any, without one)."""
        for place, pointer in list(self.chains.items()):
            if register is None or pointer.register is register:
                del self.chains[place]

    def size(self, size: Size) -> Operand:
        """The value of an integer expression at this place."""
        size = self.scope.resolved(size)
        if isinstance(size, int):
            return size
        variables = {loop.variable for loop in self.scope.loops}
        linear = {m: c for m, c in size.terms if not m or (len(m) == 1 and m[0] in variables)}
        total = self.linear(polynomial(linear))
        for m, c in size.terms:
            if m in linear:
                continue
            product: Operand = c
            for a in m:
                product = self.words.apply("mul", product, self.atom(a))
            total = self.words.apply("add", total, product)
        return total

    def atom(self, a: str | Term | Element) -> Operand:
        if isinstance(a, str):
            return self.linear(Index((((a,), 1),)))
        if isinstance(a, Element):
            return self.element(a)
        if a.fn in ("min", "max"):
            return self.words.apply(a.fn, self.size(a.a), self.size(a.b))
        if not isinstance(a.b, int) or a.b < 1:
            raise TargetError(f"a division by {a.b} while running: the machine has none")
        low, _ = bounds(self.scope.resolved(a.a), self.scope.ranges)
        negative = not (isinstance(low, int) and low >= 0)
        x = self.size(a.a)
        if a.fn == "%" and a.b & (a.b - 1) == 0:
            return self.words.apply("and", x, a.b - 1)
        quotient = self.words.quotient(x, a.b, negative=negative)
        if a.fn == "//":
            return quotient
        return self.words.apply("sub", x, self.words.apply("mul", quotient, a.b))

    # -- pointers --------------------------------------------------------------------------
    def linear(self, size: Size) -> Operand:
        """A sum of factors times variables of open loops, and a constant."""
        if isinstance(size, int):
            return size
        constant = size.constant
        moving = size - constant
        assert isinstance(moving, Index)
        names = {m[0]: c for m, c in moving.terms}
        depth = max(k for k, loop in enumerate(self.scope.loops) if loop.variable in names)
        loop = self.scope.loops[depth]
        pointer = loop.pointers.get(moving)
        if pointer is None:
            pointer = Pointer(Register("scalar"), constant)
            loop.pointers[moving] = pointer
            first = substitute(size, {loop.variable: loop.lo})
            with self.outside(depth):
                self.words.copy(self.size(first), pointer.register)
            step = names[loop.variable] * loop.step
            now, self.words.items = self.words.items, loop.steps
            stepped = self.words.apply("add", pointer.register, step)
            self.words.items = now
            last = loop.steps[-1]
            assert isinstance(last, Op) and isinstance(stepped, Register)
            last.result = pointer.register
        place = (id(self.words.items), id(pointer))
        near = self.chains.get(place, pointer)
        if near.constant == constant:
            return near.register
        moved = self.words.apply("add", near.register, constant - near.constant)
        assert isinstance(moved, Register)
        self.chains[place] = Pointer(moved, constant)
        return moved

    @contextmanager
    def outside(self, depth: int) -> Iterator[None]:
        """The place before loop number `depth`."""
        words, scope = self.words, self.scope
        items, loops = words.items, scope.loops
        words.items, scope.loops = loops[depth].before, loops[:depth]
        yield
        words.items, scope.loops = items, loops


def flat(indices: tuple[Size, ...], shape: tuple[int, ...]) -> Size:
    """The number of an element in row-major order."""
    total: Size = 0
    for index, extent in zip(indices, shape, strict=True):
        total = total * extent + index
    return weighted_sum(((total, 1),))
