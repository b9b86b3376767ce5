"""A program's main function as operations over virtual registers, in loops and branches.

Calls are written out in place: every buffer has a known address. Named sizes are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nncc.backends.tta.accesses import Accesses, bits_of
from nncc.backends.tta.addresses import flat
from nncc.backends.tta.code import Branch, Item, Loop, Op, Operand, Register
from nncc.backends.tta.lanes import Lanes
from nncc.backends.tta.limits import limits
from nncc.backends.tta.memory import Blocks, Memory, Place
from nncc.backends.tta.operations import Operations
from nncc.backends.tta.scalars import Scalars
from nncc.backends.tta.scope import Open, Scope, Wide
from nncc.backends.tta.select import Patterns
from nncc.backends.tta.simplify import simplified
from nncc.backends.tta.vectors import Vectors
from nncc.backends.tta.words import Words
from nncc.diagnostics import TargetError
from nncc.ir.bounds import bounds
from nncc.ir.expr import Expr
from nncc.ir.index import Size, ceildiv, evaluate, maximum
from nncc.ir.loops import (
    Alloc,
    Assign,
    Call,
    Declare,
    For,
    Function,
    If,
    Let,
    Prefetch,
    Stmt,
    Store,
    While,
)
from nncc.machines.machine import Machine

BARRIER = "barrier"  # no operation: what stands after it runs after what stands before it


@dataclass(frozen=True)
class Lowered:
    """A function's code.

    Args:
        by_lanes: nodes of the model, and how many vector expressions of theirs became loops over
            lanes, since the machine has no operation for them.
    """

    items: list[Item]
    by_lanes: Mapping[str, int]


def lowered(
    functions: Mapping[str, Function],
    root: str,
    blocks: Blocks,
    machine: Machine,
    memory: Memory,
    sizes: Mapping[str, int],
) -> Lowered:
    """The code of function `root`, which calls others. Raises TargetError."""
    lowering = Lowering(functions, blocks, machine, memory, sizes)
    return Lowered(lowering.program(root), dict(lowering.lanes.nodes))


class Lowering:
    """Statements of Loops as items; the parts that compute expressions hold one another."""

    def __init__(
        self,
        functions: Mapping[str, Function],
        blocks: Blocks,
        machine: Machine,
        memory: Memory,
        sizes: Mapping[str, int],
    ) -> None:
        self.functions, self.blocks, self.sizes = functions, blocks, dict(sizes)
        patterns = Patterns(machine)
        self.words = Words(machine, patterns)
        self.scope = Scope()
        self.accesses = Accesses(self.words, self.scope, memory)
        operations = Operations(self.words, self.accesses, patterns, self.operand)
        parts = self.words, self.scope, self.accesses, operations
        self.scalars = Scalars(*parts, lambda e: self.lanes.folded(e))
        self.vectors = Vectors(*parts, lambda e: self.lanes.through_memory(e))
        self.lanes = Lanes(self.scope, self.accesses, self.vectors, self.statement)

    def operand(self, e: Expr) -> Operand:
        """What stands at a port for an expression."""
        return self.vectors.vector(e) if e.lanes > 1 else self.scalars.word(e)

    def program(self, root: str) -> list[Item]:
        """All calls of a function, one after the other."""
        for step, s in enumerate(self.functions[root].body):
            assert isinstance(s, Call)
            self._call(s, step)
            self.words.items.append(Op(BARRIER, (), None, None, self.words.source))
        return self.words.items

    def _call(self, s: Call, step: int) -> None:
        callee = self.functions[s.callee]
        self.words.source = s.source or callee.location.node or s.callee
        sizes = {
            name: evaluate(value, self.sizes)
            for name, value in zip(callee.sizes, s.sizes, strict=True)
        }
        self.scope.open(sizes)
        self.accesses.addresses.forget()
        for buffer, view in zip(callee.buffers, s.arguments, strict=True):
            region, start = self.blocks.find(view, min(step, self.blocks.last))
            shape = tuple(evaluate(e, sizes) for e in buffer.shape)
            self.scope.places[buffer.name] = Place(region, start, buffer.dtype, shape)
        overlap = self.accesses.memory.architecture.control.loop_depth > 0
        try:
            self.body(simplified(callee.body, sizes, overlap=overlap))
        except TargetError as error:
            if not error.location.node:
                raise TargetError(error.message, callee.location, error.help) from error
            raise

    # -- statements ------------------------------------------------------------------------
    def body(self, statements: tuple[Stmt, ...]) -> None:
        outer = dict(self.scope.values)
        for s in statements:
            self.statement(s)
        for name in self.scope.values.keys() - outer.keys():
            del self.scope.values[name]
            self.scope.limits.pop(name, None)

    def statement(self, s: Stmt) -> None:
        if (write := STATEMENTS.get(type(s))) is None:
            raise TargetError(f"the machine has no {type(s).__name__.lower()} of Loops")
        write(self, s)

    def _let(self, s: Let) -> None:
        e = s.value
        if e.lanes > 1:
            self._vector_let(s.name, e, is_variable=False)
            return
        found = self.scalars.scalar(e)
        if e.dtype.is_integer:
            self.scope.limits[s.name] = limits(e, self.scope)
        if isinstance(found, Wide):
            kept = Wide(self._kept(found.low), self._kept(found.high), found.is_word)
            self.scope.values[s.name] = kept
        else:
            self.scope.values[s.name] = self._kept(found)

    def _kept(self, x: int | Register) -> int | Register:
        """A value that stays when the variable that it comes from changes."""
        if not isinstance(x, Register) or x not in self.scope.variables:
            return x
        copied = Register(x.kind)
        self.words.copy(x, copied)
        return copied

    def _declare(self, s: Declare) -> None:
        e = s.value
        if e.lanes > 1:
            self._vector_let(s.name, e, is_variable=True)
            return
        found = self._parts(e)
        parts = [Register("scalar") for _ in found]
        self.scope.variables.update(parts)
        for part, value in zip(parts, found, strict=True):
            self.words.copy(value, part)
        self.scope.values[s.name] = Wide(parts[0], parts[1]) if e.dtype.bits == 64 else parts[0]

    def _parts(self, e: Expr) -> list[Operand]:
        """The words of a scalar, the lower one first."""
        if e.dtype.bits < 64:
            return [self.scalars.word(e)]
        found = self.scalars.wide(e)
        return [found.low, found.high]

    def _vector_let(self, name: str, e: Expr, *, is_variable: bool) -> None:
        if not self.accesses.in_register(e.dtype, e.lanes):
            place = self.accesses.slot(e.dtype, e.lanes)
            self.lanes.fill(place, e)
            self.scope.values[name] = place
            return
        found = self.vectors.vector(e)
        if is_variable:
            register = Register("vector" if bits_of(e.dtype, e.lanes) > 32 else "scalar")
            self.scope.variables.add(register)
            self.words.copy(found, register)
            self.scope.values[name] = register
        else:
            self.scope.values[name] = self._kept(found)

    def _assign(self, s: Assign) -> None:
        target = self.scope.values[s.name]
        if isinstance(target, Place):
            # the value may read the target
            place = self.accesses.slot(s.value.dtype, s.value.lanes)
            self.lanes.fill(place, s.value)
            self.lanes.fill(target, self.lanes.as_load(place, s.value))
            return
        if isinstance(target, Wide):
            kept = [self._kept(x) for x in self._parts(s.value)]
            for part, value in zip((target.low, target.high), kept, strict=True):
                assert isinstance(part, Register)
                self.words.copy(value, part)
            return
        assert isinstance(target, Register)
        self._into(self.operand(s.value), target)

    def _into(self, x: int | Register, target: Register) -> None:
        """target = x; the last operation writes it at once if it made x."""
        last = self.words.items[-1] if self.words.items else None
        is_new = (
            isinstance(x, Register)
            and x not in self.scope.variables
            and not self.scope.is_pointer(x)
        )
        if isinstance(last, Op) and last.result is x and is_new and last.result is not None:
            if last.result.kind != target.kind:
                self.words.copy(x, target)
                return
            self.accesses.addresses.forget(last.result)
            last.result = target
            return
        self.words.copy(x, target)

    def _store(self, s: Store) -> None:
        if s.value.lanes > 1:
            if not self.vectors.stores(s):
                self.lanes.store(s)
            return
        place = self.scope.places[s.buffer]
        of_type = self.scalars.wide if s.value.dtype.bits == 64 else self.scalars.word
        where = flat(s.indices, place.shape)
        self.accesses.store(place, where, of_type(s.value), s.value.dtype)

    def _alloc(self, s: Alloc) -> None:
        b = s.buffer
        shape = []
        for extent in b.shape:
            known = self.scope.resolved(extent)
            if not isinstance(known, int):
                raise TargetError(f"buffer '{b.name}': its size {known} is not known")
            shape.append(known)
        count = 1
        for extent in shape:
            count *= extent
        size = -(-count * b.dtype.bits // 8)
        region = self.accesses.memory.region(self.scope.fresh(b.name), size)
        self.scope.places[b.name] = Place(region, 0, b.dtype, tuple(shape))
        self.body(s.body)

    def _prefetch(self, s: Prefetch) -> None:
        """Memories of these machines hold no copies of others."""

    # -- control flow ----------------------------------------------------------------------
    def _for(self, s: For) -> None:
        lo, hi = self.scope.resolved(s.lo), self.scope.resolved(s.hi)
        trips = self.scope.resolved(ceildiv(hi - lo, s.step))
        if isinstance(trips, int) and (s.kind == "unroll" or trips <= 1):
            for k in range(trips):
                self.scope.known[s.variable] = lo + k * s.step
                self.body(s.body)
                self.scope.known.pop(s.variable)
            return
        if isinstance(trips, int):
            self._loop(s, lo, hi, trips)
            return
        low, _ = bounds(trips, self.scope.ranges)
        if isinstance(low, int) and low >= 1:
            self._loop(s, lo, hi, self._count(trips))
            return
        count = self._count(trips)
        outer, inner = self.words.items, []  # type: list[Item], list[Item]
        self.words.items = inner
        self._loop(s, lo, hi, count)
        self.words.items = outer
        self.words.items.append(
            Branch(self.words.apply("gt", count, 0), inner, [], self.words.source)
        )

    def _count(self, trips: Size) -> Register:
        found = self.accesses.addresses.size(trips)
        assert isinstance(found, Register)
        return found

    def _loop(self, s: For, lo: Size, hi: Size, trips: int | Register) -> None:
        outer, body = self.words.items, []  # type: list[Item], list[Item]
        opened = Open(s.variable, lo, s.step, outer)
        low, high = bounds(lo, self.scope.ranges)[0], bounds(hi - 1, self.scope.ranges)[1]
        self.scope.loops.append(opened)
        self.scope.ranges[s.variable] = (low, maximum(low, high))
        self.words.items = body
        self.body(s.body)
        self.words.items = outer
        self.scope.ranges.pop(s.variable)
        self.scope.loops.pop()
        body += opened.steps
        self.words.items.append(Loop(trips, body, self.words.source))

    def _if(self, s: If) -> None:
        condition = self.scalars.word(s.condition)
        if isinstance(condition, int):
            self.body(s.then if condition else s.otherwise)
            return
        parts: list[list[Item]] = []
        outer = self.words.items
        for statements in (s.then, s.otherwise):
            self.words.items = []
            self.body(statements)
            parts.append(self.words.items)
        self.words.items = outer
        self.words.items.append(Branch(condition, parts[0], parts[1], self.words.source))

    def _while(self, s: While) -> None:
        raise TargetError("loops that end by a condition are not possible on this machine yet")


STATEMENTS: dict[type, Callable[[Lowering, Any], None]] = {
    For: Lowering._for,
    While: Lowering._while,
    If: Lowering._if,
    Let: Lowering._let,
    Declare: Lowering._declare,
    Assign: Lowering._assign,
    Store: Lowering._store,
    Alloc: Lowering._alloc,
    Prefetch: Lowering._prefetch,
}
