"""Integer expressions and addresses as LLVM i64 and pointer arithmetic.

Every part of a `Size` is computed once, in the outermost block where its variables are known:
in `for n { for e { … x[n, e + 1] … } }` the part that only needs `n` is computed at the top of
the loop over `n`. Literal offsets stay last, where the instruction's address field takes them:

    %x.3 = getelementptr i8, ptr %x, i64 %n.2          top of the loop over n
    %x.5 = getelementptr i8, ptr %x.3, i64 %e.4        top of the loop over e
    %7 = getelementptr i8, ptr %x.5, i64 64            where it is used
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nncc.backends.cpu.checks import Checks
from nncc.backends.cpu.text import Region, Writer
from nncc.ir.index import Atom, Element, Index, Monomial, Size, Term, atom, elements, product
from nncc.ir.index import substitute as substitute_size
from nncc.ir.loops import Buffer


@dataclass(slots=True)
class Scope:
    """A block: what is computed at its top, by what it is."""

    prologue: Region
    known: dict[object, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """A buffer's pointer and the distance of neighbours in each dimension, in bytes."""

    pointer: str
    buffer: Buffer
    strides: tuple[Size, ...]


class Sizes:
    """Emits sizes and addresses of one function.

    Attributes:
        scopes: the blocks around the place that is being written, outermost first.
        literals: loop variables whose value is a literal here (unrolled loops).
        memories: buffers by name.
    """

    def __init__(self, writer: Writer, checks: Checks | None = None) -> None:
        self.writer = writer
        self.checks = checks  # None: no element of a tensor is read
        self.scopes: list[Scope] = []
        self.literals: dict[str, int] = {}
        self.memories: dict[str, Memory] = {}
        self._names: dict[str, str] = {}
        self._depths: dict[str, int] = {}
        self._nonnegative: set[str] = set()

    # -- names -----------------------------------------------------------------------------
    def open_scope(self) -> None:
        """Starts a block here; its prologue is the next thing in the open region."""
        self.scopes.append(Scope(self.writer.place()))

    def close_scope(self) -> None:
        """Ends the innermost block."""
        self.scopes.pop()

    def bind(self, name: str, operand: str, nonnegative: bool = False) -> None:
        """Makes a variable known in the innermost block."""
        self._names[name] = operand
        self._depths[name] = len(self.scopes) - 1
        (self._nonnegative.add if nonnegative else self._nonnegative.discard)(name)

    def value_of(self, name: str) -> str:
        """The operand of a bound variable."""
        return self._names[name]

    def add_buffer(self, buffer: Buffer, pointer: str) -> None:
        """Makes a buffer known. Sub-byte elements have no address and are refused earlier."""
        step: Size = buffer.dtype.bits // 8
        strides = tuple(product(buffer.shape[k + 1 :]) * step for k in range(len(buffer.shape)))
        self.memories[buffer.name] = Memory(pointer, buffer, strides)

    def resolve(self, size: Size) -> Size:
        """`size` with literal loop variables replaced."""
        if isinstance(size, int) or not self.literals:
            return size
        return substitute_size(size, self.literals)

    # -- values ----------------------------------------------------------------------------
    def value(self, size: Size) -> str:
        """The i64 operand of a size."""
        return self._value(self.resolve(size))

    def _value(self, size: Size) -> str:
        if isinstance(size, int):
            return str(size)
        if constant := size.constant:
            rest = self._value(size - constant)
            return self._computed(size, lambda: self.writer.define(f"add i64 {rest}, {constant}"))
        return self._computed(size, lambda: self._sum(size))

    def _computed(self, key: Size, emit: object, prefix: str = "") -> str:
        """`emit()` in the outermost block where that can be done, or what it gave before."""
        assert isinstance(key, Index) and callable(emit)
        if self._bound_here(key):
            # a read of memory, or a division that may only happen here
            return str(emit())
        scope = self.scopes[self._depth(key)]
        name = (prefix, key)
        if name not in scope.known:
            before = self.writer.switch(scope.prologue)
            scope.known[name] = str(emit())
            self.writer.switch(before)
        return scope.known[name]

    def _sum(self, size: Index) -> str:
        depth = self._depth(size)
        outer, inner = _partition(size, lambda m: self._monomial_depth(m) < depth)
        total = self._value(outer) if outer != 0 else ""
        for monomial, coefficient in inner:
            term = self._monomial(monomial, coefficient, depth)
            total = self.writer.define(f"add i64 {total}, {term}") if total else term
        return total

    def _monomial(self, monomial: Monomial, coefficient: int, depth: int) -> str:
        invariant = tuple(a for a in monomial if self._atom_depth(a) < depth)
        factors = [self._atom(a) for a in monomial if self._atom_depth(a) >= depth]
        if invariant:
            factors.append(self._value(product(atom(a) for a in invariant)))
        result = factors[0]
        for factor in factors[1:]:
            result = self.writer.define(f"mul i64 {result}, {factor}")
        if coefficient == 1:
            return result
        if coefficient > 0 and coefficient & (coefficient - 1) == 0:
            return self.writer.define(f"shl i64 {result}, {coefficient.bit_length() - 1}")
        return self.writer.define(f"mul i64 {result}, {coefficient}")

    def _atom(self, a: Atom) -> str:
        if isinstance(a, str):
            return self._names[a]
        if isinstance(a, Element):
            return self._element(a)
        x, y = self._value(a.a), self._value(a.b)
        if a.fn in ("min", "max"):
            return self.writer.call("i64", f"llvm.s{a.fn}.i64", ("i64", x), ("i64", y))
        return self._division(a, x, y)

    def _element(self, a: Element) -> str:
        buffer = self.memories[a.tensor].buffer
        bits = buffer.dtype.bits
        pointer = self.address(a.tensor, a.indices)
        loaded = self.writer.define(f"load i{bits}, ptr {pointer}, align {bits // 8}")
        if bits < 64:
            extend = "sext" if buffer.dtype.kind == "int" else "zext"
            loaded = self.writer.define(f"{extend} i{bits} {loaded} to i64")
        lo, hi = self.resolve(a.lo), self.resolve(a.hi)
        least, most = buffer.dtype.limits
        if isinstance(lo, int) and isinstance(hi, int) and lo <= least and most < hi:
            return loaded
        assert self.checks is not None
        what = f"an index in '{a.tensor}' is not in {a.lo}..{a.hi}"
        return self.checks.index(loaded, self._value(lo), self._value(hi), what)

    def _division(self, a: Term, x: str, y: str) -> str:
        """Floor division or its remainder; the divisor is positive."""
        w = self.writer
        if isinstance(a.b, int) and a.b & (a.b - 1) == 0:
            if a.fn == "//":
                return w.define(f"ashr i64 {x}, {a.b.bit_length() - 1}")
            return w.define(f"and i64 {x}, {a.b - 1}")
        if self._is_nonnegative(a.a):
            return w.define(f"{'udiv' if a.fn == '//' else 'urem'} i64 {x}, {y}")
        remainder = w.define(f"srem i64 {x}, {y}")
        negative = w.define(f"icmp slt i64 {remainder}, 0")
        if a.fn == "%":
            raised = w.define(f"add i64 {remainder}, {y}")
            return w.define(f"select i1 {negative}, i64 {raised}, i64 {remainder}")
        quotient = w.define(f"sdiv i64 {x}, {y}")
        borrow = w.define(f"sext i1 {negative} to i64")
        return w.define(f"add i64 {quotient}, {borrow}")

    # -- addresses -------------------------------------------------------------------------
    def address(self, buffer: str, indices: Sequence[Size]) -> str:
        """The pointer to an element; it is not checked whether there is such an element."""
        memory = self.memories[buffer]
        offset: Size = 0
        for index, stride in zip(indices, memory.strides, strict=True):
            offset = offset + index * stride
        return self.at(buffer, offset)

    def at(self, buffer: str, offset: Size) -> str:
        """The pointer to `offset` bytes after a buffer's first."""
        pointer = self.memories[buffer].pointer
        offset = self.resolve(offset)
        constant = offset if isinstance(offset, int) else offset.constant
        base = self._pointer(pointer, offset - constant)
        if constant == 0:
            return base
        return self.writer.define(f"getelementptr i8, ptr {base}, i64 {constant}")

    def _pointer(self, pointer: str, offset: Size) -> str:
        if isinstance(offset, int):
            return pointer
        depth = self._depth(offset)
        outer, inner = _partition(offset, lambda m: self._monomial_depth(m) < depth)

        def emit() -> str:
            base = self._pointer(pointer, outer)
            moved = self._value(Index(inner))
            return self.writer.define(f"getelementptr i8, ptr {base}, i64 {moved}", pointer[1:])

        return self._computed(offset, emit, pointer)

    # -- where -----------------------------------------------------------------------------
    def _depth(self, size: Size) -> int:
        if isinstance(size, int):
            return 0
        return max(self._monomial_depth(m) for m, _ in size.terms)

    def _monomial_depth(self, monomial: Monomial) -> int:
        return max((self._atom_depth(a) for a in monomial), default=0)

    def _atom_depth(self, a: Atom) -> int:
        if isinstance(a, str):
            return self._depths[a]
        if isinstance(a, Element):
            return len(self.scopes) - 1
        if a.fn in ("//", "%") and not isinstance(a.b, int):
            return len(self.scopes) - 1
        return max(self._depth(a.a), self._depth(a.b))

    def _bound_here(self, size: Size) -> bool:
        """Whether `size` may not be computed before its place: it reads memory or may trap."""
        return bool(elements(size)) or _divides_by_value(size)

    def _is_nonnegative(self, size: Size) -> bool:
        if isinstance(size, int):
            return size >= 0
        return all(
            c >= 0 and all(isinstance(a, str) and a in self._nonnegative for a in m)
            for m, c in size.terms
        )


def _divides_by_value(size: Size) -> bool:
    """Whether there is a division by something that is not a literal."""
    if isinstance(size, int):
        return False
    terms = [a for m, _ in size.terms for a in m if isinstance(a, Term)]
    return any(
        (t.fn in ("//", "%") and not isinstance(t.b, int))
        or _divides_by_value(t.a)
        or _divides_by_value(t.b)
        for t in terms
    )


def _partition(size: Index, outer: object) -> tuple[Size, tuple[tuple[Monomial, int], ...]]:
    """The terms for which `outer(monomial)` holds, as a size, and the others."""
    assert callable(outer)
    chosen = tuple(t for t in size.terms if outer(t[0]))
    others = tuple(t for t in size.terms if not outer(t[0]))
    if not chosen:
        return 0, others
    if len(chosen) == 1 and not chosen[0][0]:
        return chosen[0][1], others
    return Index(chosen), others
