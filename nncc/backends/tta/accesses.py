"""Loads and stores: the machine's operation for an access, with its address.

A vector of at most 32 bits is a word with its elements in it; a wider one lives in a register if
the machine loads and stores vectors of so many bits.
"""

from __future__ import annotations

from nncc.backends.tta.addresses import Addresses, flat
from nncc.backends.tta.code import Access, Op, Operand, Register
from nncc.backends.tta.memory import Memory, MemoryOperation, Place, Region
from nncc.backends.tta.scope import Scope, Wide
from nncc.backends.tta.words import Words
from nncc.diagnostics import TargetError
from nncc.ir.bounds import bounds
from nncc.ir.expr import Load
from nncc.ir.index import Element, Size
from nncc.ir.types import DType, boolean, u8
from nncc.machines.machine import ADDRESS, Operation


def bits_of(dtype: DType, lanes: int) -> int:
    """Of a vector in memory."""
    return max(8, dtype.bits) * lanes


class Accesses:
    """Loads and stores of scalars and of vectors in registers."""

    def __init__(self, words: Words, scope: Scope, memory: Memory) -> None:
        self.words, self.scope, self.memory = words, scope, memory
        self.addresses = Addresses(words, scope, self._element)
        self.pool: dict[bytes, Place] = {}

    # -- scalars ---------------------------------------------------------------------------
    def load(self, e: Load) -> Operand | Wide:
        """A scalar from inside of its buffer."""
        place = self.scope.places[e.tensor]
        where = flat(e.indices, place.shape)
        if e.dtype.bits == 64:
            low = self._load_word(place, where * 8, 32, e.dtype)
            return Wide(low, self._load_word(place, where * 8 + 4, 32, e.dtype))
        bits = bits_of(e.dtype, 1)
        return self._load_word(place, where * (bits // 8), bits, e.dtype)

    def _element(self, a: Element) -> Operand:
        found = self.load(Load(a.tensor, a.indices, self.scope.places[a.tensor].dtype))
        return found.low if isinstance(found, Wide) else found

    def inside(self, e: Load) -> Operand:
        """Whether every index of a load is within its extent: 1, 0, or a word."""
        found: Operand = 1
        words = self.words
        for index, extent in zip(e.indices, self.scope.places[e.tensor].shape, strict=True):
            index = self.scope.resolved(index)
            low, high = bounds(index, self.scope.ranges)
            x = None
            if not (isinstance(low, int) and low >= 0):
                x = self.addresses.size(index)
                found = words.apply("and", found, words.apply("ge", x, 0))
            if not (isinstance(high, int) and high < extent):
                x = self.addresses.size(index) if x is None else x
                found = words.apply("and", found, words.apply("lt", x, extent))
        return found

    def _load_word(self, place: Place, offset: Size, bits: int, dtype: DType) -> Operand:
        """A word from a number of bits in memory, extended as `dtype` says."""
        signed = dtype.kind == "int"
        usable = [
            o for o in self.memory.loads(place.region)
            if o.bits == bits and _is_scalar(o.operation)
        ]  # fmt: skip
        usable.sort(key=lambda o: bits < 32 and _is_signed(o.operation) != signed)
        if not usable:
            raise self._lacks(f"loads {bits} bits")
        wanted = usable[0]
        found = self._emit_load(wanted, place, offset)
        if bits < 32 and _is_signed(wanted.operation) != signed and dtype is not boolean:
            return self.words.held(found, dtype)
        return found

    def store(self, place: Place, where: Size, value: Operand | Wide, dtype: DType) -> None:
        """place[where] = a scalar of that type"""
        if isinstance(value, Wide) and dtype.bits == 64:
            self._store_word(place, where * 8, 32, value.low)
            self._store_word(place, where * 8 + 4, 32, value.high)
            return
        bits = bits_of(dtype, 1)
        low = value.low if isinstance(value, Wide) else value
        self._store_word(place, where * (bits // 8), bits, low)

    def _store_word(self, place: Place, offset: Size, bits: int, value: Operand) -> None:
        for o in self.memory.stores():
            if o.bits == bits and _is_scalar(o.operation):
                self._emit_store(o, place, offset, value)
                return
        raise self._lacks(f"stores {bits} bits")

    def _lacks(self, what: str) -> TargetError:
        name = self.memory.machine.name
        return TargetError(f"machine '{name}' has no operation that {what}")

    # -- vectors ---------------------------------------------------------------------------
    def in_register(self, dtype: DType, lanes: int) -> bool:
        """Whether vectors of this type live in registers."""
        bits = bits_of(dtype, lanes)
        stored = any(o.bits == bits for o in self.memory.stores() if _moves_bits(o))
        loads = self.memory.loads(Region("", 0))
        return stored and any(o.bits == bits for o in loads if _moves_bits(o))

    def load_vector(self, place: Place, where: Size, dtype: DType, lanes: int) -> Register | None:
        """Lanes from an element on, if an operation can and the address is a multiple."""
        bits = bits_of(dtype, lanes)
        size = max(1, dtype.bits // 8)
        for o in self.memory.loads(place.region):
            if o.bits == bits and _moves_bits(o) and self._is_aligned(place, where * size, o):
                return self._emit_load(o, place, where * size)
        return None

    def store_vector(
        self, place: Place, where: Size, value: Operand, dtype: DType, lanes: int
    ) -> bool:
        """Lanes from an element on; False if no operation can."""
        size = max(1, dtype.bits // 8)
        for o in self.memory.stores():
            if o.bits != bits_of(dtype, lanes) or not _moves_bits(o):
                continue
            if self._is_aligned(place, where * size, o):
                self._emit_store(o, place, where * size, value)
                return True
        return False

    def constant(self, content: bytes) -> Register | None:
        """A vector with these bytes from the memory of constants, if an operation loads it."""
        if content not in self.pool:
            name = f"constant {len(self.pool)}"
            region = self.memory.region(name, len(content), content, is_tensor=False)
            self.pool[content] = Place(region, 0, u8, (len(content),))
        return self.load_vector(self.pool[content], 0, u8, len(content))

    def slot(self, dtype: DType, lanes: int) -> Place:
        """A vector's place in memory."""
        size = bits_of(dtype, lanes) // 8
        region = self.memory.region(self.scope.fresh("vector"), size, is_tensor=False)
        return Place(region, 0, dtype, (lanes,))

    def _is_aligned(self, place: Place, offset: Size, o: MemoryOperation) -> bool:
        step = 1
        while step * 2 <= o.bits // 8 and (o.bits // 8) % (step * 2) == 0:
            step *= 2
        return self.scope.is_multiple(self.scope.resolved(offset) + place.start, step)

    # -- operations ------------------------------------------------------------------------
    def _emit_load(self, o: MemoryOperation, place: Place, offset: Size) -> Register:
        address = self._address(place, offset, o.space)
        kind = "vector" if o.operation.operands[-1].bits > 32 else "scalar"
        touched = self._touched(place, o.space)
        return self.words.emit(o.operation.name, (address,), kind, touched)

    def _emit_store(self, o: MemoryOperation, place: Place, offset: Size, value: Operand) -> None:
        address = self._address(place, offset, o.space)
        inputs = tuple(
            address if x.name == ADDRESS else value for x in o.operation.operands if not x.is_result
        )
        touched = self._touched(place, o.space)
        self.words.items.append(Op(o.operation.name, inputs, None, touched, self.words.source))

    def _touched(self, place: Place, space: str) -> Access:
        region = place.region
        constant = region.content is not None
        return Access(
            space, region.name, constant=constant, literal=constant and not region.is_tensor
        )

    def _address(self, place: Place, offset: Size, space: str) -> Operand:
        start = self.memory.address(place.region, space) + place.start
        return self.addresses.size(self.scope.resolved(offset) + start)


def _is_scalar(o: Operation) -> bool:
    assert o.memory is not None
    return o.memory.lanes == 1 and all(x.lanes == 1 for x in o.operands)


def _is_signed(o: Operation) -> bool:
    assert o.memory is not None
    return o.memory.dtype.kind == "int"


def _moves_bits(o: MemoryOperation) -> bool:
    """Whether an access only moves bits: what stands in memory stands in the register."""
    record = o.operation
    value = record.semantics.statements[0].values[0]
    return isinstance(value, Load) and record.operands[-1].bits == o.bits
