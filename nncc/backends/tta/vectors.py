"""Vector expressions of Loops: operations of the machine on vectors, and a way for everything else.

A vector lives in a register if the machine loads and stores vectors of so many bits, otherwise in
memory. What no operation computes goes through memory lane by lane, in a loop of scalar code.
"""

from __future__ import annotations

from nncc.backends.tta.addresses import flat
from nncc.backends.tta.code import Operand, Register
from nncc.backends.tta.memory import MemoryOperation, Place, Region
from nncc.backends.tta.scalars import Scalars, Wide
from nncc.backends.tta.select import Found
from nncc.diagnostics import TargetError
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value
from nncc.ir.index import Index, Size, var
from nncc.ir.loops import For, Stmt, Store
from nncc.ir.types import DType, u8


class Unselectable(Exception):
    """No operation computes it; it is computed lane by lane."""


def bits_of(dtype: DType, lanes: int) -> int:
    """Of a vector in memory."""
    return max(8, dtype.bits) * lanes


class Vectors(Scalars):
    """Vector expressions; a vector of at most 32 bits is a word with its elements in it."""

    fresh: int
    pool: dict[bytes, Place]

    def statement(self, s: Stmt) -> None:
        raise NotImplementedError

    # -- what the machine moves ------------------------------------------------------------
    def in_register(self, dtype: DType, lanes: int) -> bool:
        """Whether vectors of this type live in registers."""
        bits = bits_of(dtype, lanes)
        stored = any(o.bits == bits for o in self.memory.stores() if _moves_bits(o))
        loads = self.memory.loads(Region("", 0))
        return stored and any(o.bits == bits for o in loads if _moves_bits(o))

    def operand(self, e: Expr) -> Operand:
        return self.vector(e) if e.lanes > 1 else self.word(e)

    # -- values ----------------------------------------------------------------------------
    def vector(self, e: Expr) -> Operand:
        """The register of a vector. Raises Unselectable."""
        if not self.in_register(e.dtype, e.lanes):
            if isinstance(e, Const) or (isinstance(e, Apply) and e.fn == "broadcast"):
                return self._selected(e)
            raise Unselectable
        if isinstance(e, Name):
            found = self.values[e.name]
            if isinstance(found, Place):
                return self._whole(found, e)
            assert not isinstance(found, Wide)
            return found
        if isinstance(e, Load):
            return self._vector_load(e)
        if isinstance(e, Const) and bits_of(e.dtype, e.lanes) <= 32:
            one = int(e.value) & ((1 << e.dtype.bits) - 1)
            content = b"".join(one.to_bytes(e.dtype.bits // 8, "little") for _ in range(e.lanes))
            return self.packed(content)
        try:
            return self._selected(e)
        except Unselectable:
            return self._through_memory(e)

    def _selected(self, e: Expr) -> Operand:
        """By the machine's operations alone."""
        if isinstance(e, Apply) and self.is_operation(e.fn):
            record = self.machine.operations[e.fn]
            inputs = tuple(
                self._for_record(a, o.lanes) for a, o in zip(e.args, record.operands, strict=False)
            )
            result = record.operands[-1]
            return self.emit(record.name, inputs, "vector" if result.bits > 32 else "scalar")
        for found in self.patterns.matches(e):
            if not self._usable(found):
                continue
            before = len(self.items)
            try:
                return self.found(found)
            except Unselectable:
                self._forget(before)
        raise Unselectable

    def _for_record(self, e: Expr, lanes: int) -> Operand:
        if e.lanes < lanes and e.lanes == 1:
            e = Apply("broadcast", (e,), e.dtype, lanes)
        return self.operand(e)

    def _usable(self, found: Found) -> bool:
        """Not where an operand would have to be made of itself."""
        return all(x.lanes == 1 or not isinstance(x, Value) for x in found.bound.values())

    def packed(self, content: bytes) -> Operand:
        """Bytes as an operand: a number, or a constant in memory."""
        if len(content) <= 4:
            return super().packed(content)
        if content not in self.pool:
            region = self.memory.region(f"constant {len(self.pool)}", len(content), content)
            self.pool[content] = Place(region, 0, u8, (len(content),))
        place = self.pool[content]
        for o in self.memory.loads(place.region):
            if o.bits == 8 * len(content) and _moves_bits(o):
                return self.access(o, place, 0)
        raise Unselectable

    def _forget(self, before: int) -> None:
        """Drops operations of the block from a place on; nothing may refer to them."""
        del self.items[before:]
        self.chains.clear()

    # -- loads and stores ------------------------------------------------------------------
    def _vector_load(self, e: Load) -> Operand:
        place = self.places[e.tensor]
        where = self.resolved(flat(e.indices, place.shape))
        if e.other is None and self._covers(e, place, where):
            found = self._load_at(place, where, e.dtype, e.lanes)
            if found is not None:
                return found
        return self._through_memory(e)

    def _load_at(self, place: Place, where: Size, dtype: DType, lanes: int) -> Register | None:
        """Lanes from an element on, if an operation can and the address is a multiple."""
        bits = bits_of(dtype, lanes)
        size = max(1, dtype.bits // 8)
        for o in self.memory.loads(place.region):
            if o.bits == bits and _moves_bits(o) and self._aligned(place, where * size, o):
                return self.access(o, place, where * size)
        return None

    def _covers(self, e: Load, place: Place, where: Size) -> bool:
        """Whether all lanes may be read: also those behind the end of a constant, which are 0."""
        if e.count is None:
            return True
        count = self.resolved(e.count)
        if isinstance(count, int) and count >= e.lanes:
            return True
        content = place.region.content
        if content is None or not isinstance(where, int) or not isinstance(count, int):
            return False
        size = e.dtype.bits // 8
        padded = -(-len(content) // self.memory.alignment) * self.memory.alignment
        end = place.start + (where + count) * size
        return end == len(content) and place.start + (where + e.lanes) * size <= padded

    def _aligned(self, place: Place, offset: Size, o: MemoryOperation) -> bool:
        step = 1
        while step * 2 <= o.bits // 8 and (o.bits // 8) % (step * 2) == 0:
            step *= 2
        return self._multiple(self.resolved(offset) + place.start, step)

    def _multiple(self, offset: Size, step: int) -> bool:
        """Whether an offset is certainly a multiple of `step`, a power of two."""
        if isinstance(offset, int):
            return offset % step == 0
        loops = {loop.variable: loop for loop in self.loops}
        for m, c in offset.terms:
            if c % step == 0:
                continue
            loop = loops.get(m[0]) if len(m) == 1 and isinstance(m[0], str) else None
            # lo + k * step_of_loop
            if loop is None or not isinstance(loop.lo, int):
                return False
            if c * loop.lo % step or c * loop.step % step:
                return False
        return True

    def _whole(self, place: Place, e: Expr) -> Register:
        found = self._load_at(place, 0, e.dtype, e.lanes)
        if found is None:
            raise Unselectable
        return found

    # -- through memory --------------------------------------------------------------------
    def slot(self, dtype: DType, lanes: int) -> Place:
        """A vector's place in memory."""
        self.fresh += 1
        size = bits_of(dtype, lanes) // 8
        region = self.memory.region(f"vector {self.fresh}", size)
        return Place(region, 0, dtype, (lanes,))

    def _through_memory(self, e: Expr) -> Register:
        place = self.slot(e.dtype, e.lanes)
        self.fill(place, e)
        return self._whole(place, e)

    def fill(self, place: Place, e: Expr) -> None:
        """place = e, lane by lane, or a register at once."""
        if self.in_register(e.dtype, e.lanes) and not isinstance(e, Load):
            try:
                self._store_register(place, 0, self._selected(e), e)
                return
            except Unselectable:
                pass
        self.fresh += 1
        name = f"slot.{self.fresh}"
        self.places[name] = place
        self.by_lanes(name, (0,), e, e.lanes)

    def _store_register(self, place: Place, where: Size, x: Operand, e: Expr) -> None:
        for o in self.memory.stores():
            if o.bits == bits_of(e.dtype, e.lanes) and _moves_bits(o):
                size = max(1, e.dtype.bits // 8)
                if self._aligned(place, where * size, o):
                    self.put(o, place, where * size, x)
                    return
        raise Unselectable

    def store_vector(self, s: Store) -> None:
        """buffer[indices] = value, all lanes or the first ones."""
        e, place = s.value, self.places[s.buffer]
        where = self.resolved(flat(s.indices, place.shape))
        count = e.lanes if s.count is None else self.resolved(s.count)
        if isinstance(count, int) and count >= e.lanes and self.in_register(e.dtype, e.lanes):
            before = len(self.items)
            try:
                self._store_register(place, where, self.vector(e), e)
                return
            except Unselectable:
                self._forget(before)
        self.by_lanes(s.buffer, s.indices, e, count)

    def by_lanes(self, buffer: str, indices: tuple[Size, ...], e: Expr, count: Size) -> None:
        """Stores the first `count` lanes of `e` one by one."""
        e = self._in_memory(e)
        limits = sorted(self._limits(e, e.lanes) | {e.lanes})
        start = 0
        for end in limits:
            hi = min(end, count) if isinstance(count, int) else count
            if isinstance(hi, int) and hi <= start:
                continue
            self.fresh += 1
            lane = var(f"lane.{self.fresh}")
            target = (*indices[:-1], indices[-1] + lane)
            scalar = self._lane(e, lane, start)
            loop = For(f"lane.{self.fresh}", start, hi, (Store(buffer, target, scalar),))
            self.statement(loop)
            start = end
            if not isinstance(hi, int):
                return

    def _limits(self, e: Expr, lanes: int) -> set[int]:
        """Lanes at which loads in `e` end."""
        if isinstance(e, Load) and e.count is not None and e.lanes > 1:
            count = self.resolved(e.count)
            if not isinstance(count, int):
                raise TargetError("a vector with a number of lanes that only the run decides")
            return {max(0, min(count, lanes))} - {0}
        if isinstance(e, Apply) and e.fn != "broadcast":
            return set[int]().union(*(self._limits(a, lanes) for a in e.args))
        return set()

    def _in_memory(self, e: Expr) -> Expr:
        """`e` with what is no function of each lane stored to memory and loaded from there."""
        if isinstance(e, Name) and e.lanes > 1:
            found = self.values[e.name]
            if isinstance(found, Place):
                return self._as_load(found, e)
            assert not isinstance(found, Wide)
            place = self.slot(e.dtype, e.lanes)
            self._store_register(place, 0, found, e)
            return self._as_load(place, e)
        if isinstance(e, Apply) and e.lanes > 1 and e.fn != "broadcast":
            if self.is_operation(e.fn):
                place = self.slot(e.dtype, e.lanes)
                self._store_register(place, 0, self._selected(e), e)
                return self._as_load(place, e)
            args = tuple(self._in_memory(a) for a in e.args)
            return e if args == e.args else Apply(e.fn, args, e.dtype, e.lanes)
        return e

    def _as_load(self, place: Place, e: Expr) -> Load:
        self.fresh += 1
        name = f"slot.{self.fresh}"
        self.places[name] = place
        return Load(name, (0,), e.dtype, lanes=e.lanes)

    def _lane(self, e: Expr, lane: Index, start: int) -> Expr:
        """Lane number `lane` of `e`, which is at least `start`."""
        if e.lanes == 1:
            return e
        if isinstance(e, Const):
            return Const(e.value, e.dtype)
        if isinstance(e, Value):
            return Value(e.size, e.dtype)
        if isinstance(e, Load):
            if e.count is not None:
                count = self.resolved(e.count)
                if isinstance(count, int) and start >= count:
                    return Const(0, e.dtype)
            other = None if e.other is None else self._lane(e.other, lane, start)
            return Load(e.tensor, (*e.indices[:-1], e.indices[-1] + lane), e.dtype, other)
        assert isinstance(e, Apply)
        if e.fn == "broadcast":
            return e.args[0]
        return Apply(e.fn, tuple(self._lane(a, lane, start) for a in e.args), e.dtype)

    def folded(self, e: Apply) -> Operand | Wide:
        """`reduce_add` and the like: the lanes in memory, one after the other."""
        x = e.args[0]
        fn = e.fn.removeprefix("reduce_")
        place = self.slot(x.dtype, x.lanes)
        self.fill(place, x)
        self.fresh += 1
        name, total, lane = f"slot.{self.fresh}", f"fold.{self.fresh}", f"lane.{self.fresh}"
        self.places[name] = place
        self.fold(name, total, lane, fn, x.dtype, x.lanes)
        found = self.values.pop(total)
        assert not isinstance(found, Place)
        return found

    def fold(self, name: str, total: str, lane: str, fn: str, dtype: DType, lanes: int) -> None:
        from nncc.ir.expr import apply
        from nncc.ir.loops import Assign, Declare

        one = apply(fn, Name(total, dtype), Load(name, (var(lane),), dtype))
        self.statement(Declare(total, Load(name, (0,), dtype)))
        self.statement(For(lane, 1, lanes, (Assign(total, one),)))


def _moves_bits(o: MemoryOperation) -> bool:
    """Whether an access only moves bits: what stands in memory stands in the register."""
    record = o.operation
    value = record.semantics.statements[0].values[0]
    return isinstance(value, Load) and record.operands[-1].bits == o.bits
