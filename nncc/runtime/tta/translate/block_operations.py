"""Operations in a block: computing, loads and stores, and the banks that they lock.

The base of `nncc.runtime.tta.translate.block.Block`.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from nncc.machines.machine import ADDRESS, Operation
from nncc.machines.tta.model import AddressSpace
from nncc.runtime.tta.decoded import Key, Trigger, alignment
from nncc.runtime.tta.translate.block_values import BlockValues
from nncc.runtime.tta.translate.context import Context, Stop
from nncc.runtime.tta.translate.meaning import computed
from nncc.runtime.tta.translate.units import may_lock, most_extra
from nncc.runtime.tta.translate.values import Val, resized, type_of

if TYPE_CHECKING:
    from nncc.runtime.tta.translate.unit import Unit

Accesses = dict[str, list[tuple[Trigger, Val]]]  # by memory: what accesses it, and the address


class BlockOperations(BlockValues):
    """A block, with what its operations give and cost.

    Attributes:
        coming: results on their way: (cycle of the block, port) -> value, and the condition (i1)
            under which there is one, "" for always.
        stalls: where locked cycles are counted, and how many (i64); `most_stalls` of them all.
    """

    def __init__(self, unit: Unit, context: Context, label: str) -> None:
        super().__init__(unit, context, label)
        self.position = context.position
        self.coming: dict[tuple[int, Key], tuple[Val, str]] = {}
        self.stalls: list[tuple[int, str]] = []
        self.most_stalls = 0
        self.bases: dict[str, tuple[str, str]] = {}

    def _arrive(self) -> None:
        for due, key in [place for place in self.coming if place[0] == self.length]:
            value, condition = self.coming.pop((due, key))
            self._set(key, value, condition)

    def _start(self, t: Trigger, condition: str, accesses: Accesses) -> None:
        assert t.output is not None
        place = self.length + t.latency, t.output
        if place in self.coming or (condition and (t.space is not None or t.latency > 1)):
            raise Stop
        if t.space is None:
            result = self._result(t.operation, self._operands(t))
        else:
            memory = t.operation.memory
            assert memory is not None
            size = memory.bits // 8
            address = self._address(t, t.space, size)
            accesses.setdefault(t.space.name, []).append((t, address))
            content, flags = self._pointers(t.space, address)
            self._check_written(flags, size)
            found = self.w.define(f"load {type_of(memory.bits)}, ptr {content}, align 1")
            result = self._result(t.operation, {memory.name: Val(found, memory.bits)})
        self.coming[place] = resized(self.w, result, self.layout.width[t.output]), condition

    def _result(self, operation: Operation, operands: dict[str, Val]) -> Val:
        """What an operation gives: vectors by a function of the unit, which LLVM sees once."""
        if all(v.bits <= 64 for v in operands.values()) and operation.operands[-1].bits <= 64:
            return computed(operation, self.w, operands)
        name, bits = self.unit.operation(operation, {n: v.bits for n, v in operands.items()})
        given = ", ".join(f"{v.type} {v.text}" for v in operands.values())
        return Val(self.w.define(f"call {type_of(bits)} {name}({given})"), bits)

    def _operands(self, t: Trigger) -> dict[str, Val]:
        taken = [o.name for o in t.operation.operands if not o.is_result]
        return {
            name: self.value(key)
            for name, key in zip(taken, t.inputs, strict=True)
            if name != ADDRESS
        }

    # -- memory ----------------------------------------------------------------------------
    def _address(self, t: Trigger, space: AddressSpace, size: int) -> Val:
        """The address of an access, checked, as 32 bits."""
        address = resized(self.w, self.value(t.inputs[0]), 32)
        low, aligned = space.min_address, alignment(size)
        if size > space.size or low % aligned:
            raise Stop
        if address.number is not None:
            if not low <= address.number <= space.max_address + 1 - size:
                raise Stop
            if address.number % aligned:
                raise Stop
            return address
        # bits below the alignment, rotated to the top, make the number too large
        start = self.w.define(f"sub i32 {address.text}, {low}") if low else address.text
        shift = aligned.bit_length() - 1
        if shift:
            start = self.w.call(
                "i32", "llvm.fshr.i32", ("i32", start), ("i32", start), ("i32", str(shift))
            )
        last = (space.size - size) >> shift
        if last < (1 << 32) - 1:
            self._fail_if(self.w.define(f"icmp ugt i32 {start}, {last}"))
        return address

    def _pointers(self, space: AddressSpace, address: Val) -> tuple[str, str]:
        """Pointers to the content and the flags at an address."""
        if space.name not in self.bases:
            content, flags = (
                self.w.define(f"load ptr, ptr {self.at(x)}")
                for x in self.layout.memories[space.name]
            )
            self.bases[space.name] = content, flags
        wide = resized(self.w, address, 64)
        start = wide.text
        if space.min_address:
            start = self.w.define(f"sub i64 {start}, {space.min_address}")
        content, flags = (
            self.w.define(f"getelementptr i8, ptr {base}, i64 {start}")
            for base in self.bases[space.name]
        )
        return content, flags

    def _check_written(self, flags: str, size: int) -> None:
        kind = type_of(8 * size)
        found = self.w.define(f"load {kind}, ptr {flags}, align 1")
        if size <= 8:
            ones = int.from_bytes(b"\1" * size, "little")
            self._fail_if(self.w.define(f"icmp ne {kind} {found}, {ones}"))
            return
        words = next(n for n in (8, 4, 2, 1) if size % n == 0)
        count, ones = size // words, int.from_bytes(b"\1" * words, "little")
        wide = f"<{count} x i{8 * words}>"
        found = self.w.define(f"bitcast {kind} {found} to {wide}")
        missing = self.w.define(f"icmp ne {wide} {found}, splat (i{8 * words} {ones})")
        bits = self.w.define(f"bitcast <{count} x i1> {missing} to i{count}")
        self._fail_if(self.w.define(f"icmp ne i{count} {bits}, 0"))

    def _store(self, stores: list[tuple[Trigger, str]], accesses: Accesses) -> None:
        ready = []
        for t, condition in stores:
            if condition:
                raise Stop
            memory = t.operation.memory
            assert t.space is not None and memory is not None
            address = self._address(t, t.space, memory.bits // 8)
            accesses.setdefault(t.space.name, []).append((t, address))
            content = self._result(t.operation, self._operands(t))
            ready.append((t.space, address, memory.bits // 8, content))
        for (space, a, size, _), (other, b, length, _) in combinations(ready, 2):
            if space is other:
                self._check_apart(a, size, b, length)
        for space, address, size, content in ready:
            data, flags = self._pointers(space, address)
            before = self.w.place()
            self.w.line(f"store {content.type} {content.text}, ptr {data}, align 1")
            kind = f"<{size} x i8>"
            self.w.line(f"store {kind} splat (i8 1), ptr {flags}, align 1")
            old, old_flags = "%" + self.w.fresh("old"), "%" + self.w.fresh("old")
            lines = [
                f"  {old} = load {kind}, ptr {data}, align 1",
                f"  {old_flags} = load {kind}, ptr {flags}, align 1",
                f"store {kind} {old}, ptr {data}, align 1",
                f"store {kind} {old_flags}, ptr {flags}, align 1",
            ]
            self.undo.append((before, lines))

    def _check_apart(self, a: Val, size: int, b: Val, length: int) -> None:
        first, second = (resized(self.w, x, 64).text for x in (a, b))
        ends = [self.w.define(f"add i64 {x}, {n}") for x, n in ((first, size), (second, length))]
        one = self.w.define(f"icmp ult i64 {first}, {ends[1]}")
        other = self.w.define(f"icmp ult i64 {second}, {ends[0]}")
        self._fail_if(self.w.define(f"and i1 {one}, {other}"))

    def _lock(self, space: str, found: list[tuple[Trigger, Val]]) -> None:
        # in the order of the moves, which the name of the function has
        triggers = tuple(t for t, _ in found)
        if not may_lock(triggers):
            return
        self.most_stalls += most_extra(triggers)
        given = [f"i64 {resized(self.w, address, 64).text}, i1 true" for _, address in found]
        extra = self.w.define(f"call i64 {self.unit.banks(triggers)}({', '.join(given)})")
        self.stalls.append((self.layout.stall(self.position, space), extra))
