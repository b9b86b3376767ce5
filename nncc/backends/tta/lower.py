"""A program's main function as operations over virtual registers, in loops and branches.

Calls are written out in place: every buffer has a known address. Named sizes are numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nncc.backends.tta.addresses import Open, flat
from nncc.backends.tta.code import Branch, Item, Loop, Op, Register
from nncc.backends.tta.memory import Blocks, Memory, Place
from nncc.backends.tta.scalars import Held, Wide
from nncc.backends.tta.select import Patterns
from nncc.backends.tta.simplify import simplified
from nncc.backends.tta.vectors import Unselectable, Vectors
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


def lowered(
    functions: Mapping[str, Function],
    root: str,
    blocks: Blocks,
    machine: Machine,
    memory: Memory,
    sizes: Mapping[str, int],
) -> list[Item]:
    """The code of function `root`, which calls others. Raises TargetError."""
    return _Lowering(functions, blocks, machine, memory, sizes).program(root)


class _Lowering(Vectors):
    def __init__(
        self,
        functions: Mapping[str, Function],
        blocks: Blocks,
        machine: Machine,
        memory: Memory,
        sizes: Mapping[str, int],
    ) -> None:
        patterns = Patterns(machine)
        super().__init__(machine, patterns)
        self.patterns, self.memory, self.blocks = patterns, memory, blocks
        self.functions, self.sizes = functions, dict(sizes)
        self.fresh = 0
        self.pool: dict[bytes, Place] = {}
        self.places: dict[str, Place] = {}
        self.values: dict[str, Held] = {}
        self.variables: set[Register] = set()
        self._open()

    def _open(self) -> None:
        self.loops: list[Open] = []
        self.known: dict[str, Size] = {}
        self.ranges: dict[str, tuple[Size, Size]] = {}
        self.chains = {}

    def program(self, root: str) -> list[Item]:
        """All calls of a function, one after the other."""
        for step, s in enumerate(self.functions[root].body):
            assert isinstance(s, Call)
            self._call(s, step)
            self.items.append(Op(BARRIER, (), None, None, self.source))
        return self.items

    def _call(self, s: Call, step: int) -> None:
        callee = self.functions[s.callee]
        self.source = s.source or callee.location.node or s.callee
        sizes = {
            name: evaluate(value, self.sizes)
            for name, value in zip(callee.sizes, s.sizes, strict=True)
        }
        self._open()
        self.known = dict(sizes)
        self.values, self.places = {}, {}
        for buffer, view in zip(callee.buffers, s.arguments, strict=True):
            region, start = self.blocks.find(view, min(step, self.blocks.last))
            shape = tuple(evaluate(e, sizes) for e in buffer.shape)
            self.places[buffer.name] = Place(region, start, buffer.dtype, shape)
        overlap = self.machine.architecture is not None and bool(
            self.machine.architecture.control.loop_depth
        )
        try:
            self.body(simplified(callee.body, sizes, overlap=overlap))
        except TargetError as error:
            if not error.location.node:
                raise TargetError(error.message, callee.location, error.help) from error
            raise

    # -- statements ------------------------------------------------------------------------
    def body(self, statements: tuple[Stmt, ...]) -> None:
        outer = dict(self.values)
        for s in statements:
            self.statement(s)
        for name in self.values.keys() - outer.keys():
            del self.values[name]

    def statement(self, s: Stmt) -> None:
        if (write := STATEMENTS.get(type(s))) is None:
            raise TargetError(f"the machine has no {type(s).__name__.lower()} of Loops")
        write(self, s)

    def _let(self, s: Let) -> None:
        e = s.value
        if e.lanes > 1:
            self._vector_let(s.name, e, is_variable=False)
            return
        found = self.scalar(e)
        if isinstance(found, Wide):
            found = Wide(self._kept(found.low), self._kept(found.high), found.is_word)
        else:
            found = self._kept(found)
        self.values[s.name] = found

    def _kept(self, x: int | Register) -> int | Register:
        """A value that stays when the variable that it comes from changes."""
        if not isinstance(x, Register) or x not in self.variables:
            return x
        copied = Register(x.kind)
        self.copy(x, copied)
        return copied

    def _declare(self, s: Declare) -> None:
        e = s.value
        if e.lanes > 1:
            self._vector_let(s.name, e, is_variable=True)
            return
        found = self.scalar(e)
        wide = e.dtype.bits == 64
        parts = [Register("scalar") for _ in range(2 if wide else 1)]
        self.variables.update(parts)
        given = self._wide_parts(found) if wide else [found]
        for part, value in zip(parts, given, strict=True):
            assert not isinstance(value, Wide)
            self.copy(value, part)
        self.values[s.name] = Wide(parts[0], parts[1]) if wide else parts[0]

    def _wide_parts(self, x: int | Register | Wide) -> list[int | Register]:
        if not isinstance(x, Wide):
            x = Wide(x, self.apply("shr", x, 31))
        return [x.low, x.high]

    def _vector_let(self, name: str, e: Expr, *, is_variable: bool) -> None:
        if not self.in_register(e.dtype, e.lanes):
            place = self.slot(e.dtype, e.lanes)
            self.fill(place, e)
            self.values[name] = place
            return
        found = self.vector(e)
        if is_variable:
            register = Register("vector" if not _is_word(e) else "scalar")
            self.variables.add(register)
            self.copy(found, register)
            self.values[name] = register
        else:
            self.values[name] = self._kept(found)

    def _assign(self, s: Assign) -> None:
        target = self.values[s.name]
        if isinstance(target, Place):
            place = self.slot(s.value.dtype, s.value.lanes)  # the value may read the target
            self.fill(place, s.value)
            self.fill(target, self._as_load(place, s.value))
            return
        if isinstance(target, Wide):
            found = self._wide_parts(self.scalar(s.value))
            kept = [self._kept(x) for x in found]
            for part, value in zip((target.low, target.high), kept, strict=True):
                assert isinstance(part, Register)
                self.copy(value, part)
            return
        assert isinstance(target, Register)
        self._into(self.operand(s.value), target)

    def _into(self, x: int | Register, target: Register) -> None:
        """target = x; the last operation writes it at once if it made x."""
        last = self.items[-1] if self.items else None
        is_new = isinstance(x, Register) and x not in self.variables and x not in self._pointers()
        if isinstance(last, Op) and last.result is x and is_new and last.result is not None:
            if last.result.kind != target.kind:
                self.copy(x, target)
                return
            last.result = target
            for place, pointer in list(self.chains.items()):
                if pointer.register is x:
                    del self.chains[place]
            return
        self.copy(x, target)

    def _pointers(self) -> set[Register]:
        return {p.register for loop in self.loops for p in loop.pointers.values()}

    def _store(self, s: Store) -> None:
        if s.value.lanes > 1:
            self.store_vector(s)
            return
        place = self.places[s.buffer]
        self.store_scalar(place, flat(s.indices, place.shape), s.value)

    def _alloc(self, s: Alloc) -> None:
        b = s.buffer
        shape = []
        for extent in b.shape:
            known = self.resolved(extent)
            if not isinstance(known, int):
                raise TargetError(f"buffer '{b.name}': its size {known} is not known")
            shape.append(known)
        count = 1
        for extent in shape:
            count *= extent
        self.fresh += 1
        size = -(-count * b.dtype.bits // 8)
        region = self.memory.region(f"{b.name} {self.fresh}", size)
        self.places[b.name] = Place(region, 0, b.dtype, tuple(shape))
        self.body(s.body)

    def _prefetch(self, s: Prefetch) -> None:
        """Memories of these machines hold no copies of others."""

    # -- control flow ----------------------------------------------------------------------
    def _for(self, s: For) -> None:
        lo, hi = self.resolved(s.lo), self.resolved(s.hi)
        trips = self.resolved(ceildiv(hi - lo, s.step))
        if isinstance(trips, int) and (s.kind == "unroll" or trips <= 1):
            for k in range(trips):
                self.known[s.variable] = lo + k * s.step
                self.body(s.body)
                self.known.pop(s.variable)
            return
        if isinstance(trips, int):
            self._loop(s, lo, hi, trips)
            return
        low, _ = bounds(trips, self.ranges)
        if isinstance(low, int) and low >= 1:
            self._loop(s, lo, hi, self._count(trips))
            return
        count = self._count(trips)
        outer, inner = self.items, []  # type: list[Item], list[Item]
        self.items = inner
        self._loop(s, lo, hi, count)
        self.items = outer
        self.items.append(Branch(self.apply("gt", count, 0), inner, [], self.source))

    def _count(self, trips: Size) -> Register:
        found = self.size(trips)
        assert isinstance(found, Register)
        return found

    def _loop(self, s: For, lo: Size, hi: Size, trips: int | Register) -> None:
        outer, body = self.items, []  # type: list[Item], list[Item]
        opened = Open(s.variable, lo, s.step, outer)
        low, high = bounds(lo, self.ranges)[0], bounds(hi - 1, self.ranges)[1]
        self.loops.append(opened)
        self.ranges[s.variable] = (low, maximum(low, high))
        self.items = body
        self.body(s.body)
        self.items = outer
        self.ranges.pop(s.variable)
        self.loops.pop()
        body += opened.steps
        self.items.append(Loop(trips, body, self.source))

    def _if(self, s: If) -> None:
        condition = self.word(s.condition)
        if isinstance(condition, int):
            self.body(s.then if condition else s.otherwise)
            return
        parts: list[list[Item]] = []
        outer = self.items
        for statements in (s.then, s.otherwise):
            self.items = []
            self.body(statements)
            parts.append(self.items)
        self.items = outer
        self.items.append(Branch(condition, parts[0], parts[1], self.source))

    def _while(self, s: While) -> None:
        raise TargetError("loops that end by a condition are not possible on this machine yet")


def _is_word(e: Expr) -> bool:
    return max(8, e.dtype.bits) * e.lanes <= 32


STATEMENTS: dict[type, Callable[[_Lowering, Any], None]] = {
    For: _Lowering._for,
    While: _Lowering._while,
    If: _Lowering._if,
    Let: _Lowering._let,
    Declare: _Lowering._declare,
    Assign: _Lowering._assign,
    Store: _Lowering._store,
    Alloc: _Lowering._alloc,
    Prefetch: _Lowering._prefetch,
}

__all__ = ["BARRIER", "Unselectable", "lowered"]
