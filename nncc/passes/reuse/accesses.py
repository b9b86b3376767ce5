"""What a processor with addressed memories loads and stores, counted in the Loops of a function.

    accesses(function)  →  [Accessed(buffer="x", bits=32, count=484 * 16, is_store=False), …]

Every load is done where it stands, once for each round of the loops around it (the pass `hoist`
says what stays in registers); so is every store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nncc.diagnostics import PassError
from nncc.ir.expr import Apply, Expr, Load
from nncc.ir.index import Element, Size, elements
from nncc.ir.loops import (
    Alloc,
    Assign,
    Declare,
    For,
    Function,
    If,
    Let,
    Prefetch,
    Stmt,
    Store,
)
from nncc.ir.types import DType, boolean
from nncc.passes.reuse.rounds import Around, summed


@dataclass(frozen=True)
class Accessed:
    """How often an access of so many bits to a buffer happens."""

    buffer: str
    bits: int
    count: int
    is_store: bool

    @property
    def bytes(self) -> int:
        return self.count * self.bits // 8


def accesses(function: Function, padded: Iterable[str] = ()) -> list[Accessed]:
    """Every load and store of one call of a function without named sizes.

    Args:
        padded: buffers behind whose end whole vectors may be loaded.

    Raises PassError where data decide how often something happens.
    """
    walk = _Walk({b.name: b.dtype for b in function.buffers}, frozenset(padded))
    walk.block(function.body, (), ())
    return walk.found


def width(dtype: DType) -> int:
    """Bits of an element in memory."""
    return max(8, dtype.bits)


@dataclass
class _Walk:
    dtypes: dict[str, DType]
    padded: frozenset[str]
    found: list[Accessed] = field(default_factory=list)

    def add(
        self, buffer: str, bits: int, loops: Sequence[Around], conditions: Sequence[Expr],
        factor: Size = 1, *, is_store: bool,
    ) -> None:  # fmt: skip
        if count := summed(loops, (factor,), conditions):
            self.found.append(Accessed(buffer, bits, count, is_store))

    def block(
        self, body: Iterable[Stmt], loops: tuple[Around, ...], conditions: tuple[Expr, ...]
    ) -> None:
        for s in body:
            if isinstance(s, For):
                self.sizes((s.lo, s.hi), loops, conditions)
                self.block(s.body, (*loops, Around(s.variable, s.lo, s.hi, s.step)), conditions)
            elif isinstance(s, If):
                self.loads(s.condition, loops, conditions)
                for holds, branch in ((s.condition, s.then), (_not(s.condition), s.otherwise)):
                    self.block(branch, loops, (*conditions, holds))
            elif isinstance(s, Alloc):
                self.dtypes[s.buffer.name] = s.buffer.dtype
                self.block(s.body, loops, conditions)
            elif isinstance(s, Let | Declare | Assign):
                self.loads(s.value, loops, conditions)
            elif isinstance(s, Store):
                self.sizes(s.indices, loops, conditions)
                self.loads(s.value, loops, conditions)
                self.store(s, loops, conditions)
            elif not isinstance(s, Prefetch):
                raise PassError(f"how often a {type(s).__name__.lower()} goes round is not known")

    def store(self, s: Store, loops: tuple[Around, ...], conditions: tuple[Expr, ...]) -> None:
        bits, lanes = width(s.value.dtype), s.value.lanes
        if s.count is None or s.count == lanes:
            self.add(s.buffer, bits * lanes, loops, conditions, is_store=True)
        else:
            self.add(s.buffer, bits, loops, conditions, s.count, is_store=True)

    def loads(self, e: Expr, loops: tuple[Around, ...], conditions: tuple[Expr, ...]) -> None:
        for load, limits in _loads(e):
            self.sizes(load.indices, loops, conditions)
            bits, lanes = width(load.dtype), load.lanes
            limits = (*conditions, *limits)
            if load.count is None or load.count == lanes or load.tensor in self.padded:
                self.add(load.tensor, bits * lanes, loops, limits, is_store=False)
            else:
                self.add(load.tensor, bits, loops, limits, load.count, is_store=False)

    def sizes(
        self, sizes: Iterable[Size], loops: tuple[Around, ...], conditions: tuple[Expr, ...]
    ) -> None:
        """Elements of tensors that choose others."""
        for size in sizes:
            for x in _outer_elements(size):
                self.sizes(x.indices, loops, conditions)
                bits = width(self.dtypes[x.tensor])
                self.add(x.tensor, bits, loops, conditions, is_store=False)


def _outer_elements(size: Size) -> list[Element]:
    """The elements in a size that are not part of another's subscripts."""
    found = elements(size)
    inner = {x for e in found for i in e.indices for x in elements(i)}
    return [e for e in found if e not in inner]


def _loads(e: Expr) -> Iterator[tuple[Load, tuple[Expr, ...]]]:
    """The loads of an expression, each with what must hold for it to happen."""
    if isinstance(e, Load):
        if e.other is not None:
            yield from _loads(e.other)
        yield e, ()
    elif isinstance(e, Apply):
        for a in e.args:
            yield from _loads(a)


def _not(condition: Expr) -> Expr:
    return Apply("not", (condition,), boolean)
