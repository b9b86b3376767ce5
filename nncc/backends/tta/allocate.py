"""Virtual registers to registers of the machine's files; what does not fit lives in memory.

Linear scan over the operations in their order; a register that is needed in the next round of a
loop, or was there before it, lives through all of the loop. Spilled registers are loaded before and
stored after each operation that uses them; numbers are made again instead.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from nncc.backends.tta.code import (
    COPY,
    LITERAL,
    Access,
    Branch,
    Item,
    Op,
    Operand,
    Register,
    walk,
)  # fmt: skip
from nncc.backends.tta.memory import Memory, MemoryOperation
from nncc.backends.tta.model import Model
from nncc.diagnostics import TargetError
from nncc.machines.machine import ADDRESS


@dataclass
class Life:
    """When a register is needed: from one position to another, both included."""

    register: Register
    start: int
    end: int
    weight: float = 0.0
    hint: Register | None = None


@dataclass(frozen=True)
class Allocation:
    """The code, the number of each virtual register in its file, and their lives.

    `position` gives the place of operations and, for loops and branches, of their begin and end.
    """

    items: list[Item]
    lives: dict[Register, Life]
    position: dict[int, tuple[int, int]]


def allocate(items: list[Item], model: Model, memory: Memory) -> Allocation:
    """Gives every register its `index`. Raises TargetError if a file is too small to spill."""
    for _ in range(40):
        lives, position = _lives(items)
        spilled = _scan(lives, model)
        if not spilled:
            return Allocation(items, lives, position)
        items = _Spiller(spilled, items, model, memory).block(items)
    raise TargetError(f"machine '{model.machine.name}' has too few registers for this program")


# -- lives -----------------------------------------------------------------------------------


class _Walker:
    def __init__(self) -> None:
        self.now = 0
        self.lives: dict[Register, Life] = {}
        self.position: dict[int, tuple[int, int]] = {}
        self.depth = 0
        self.first: list[dict[Register, bool]] = []  # by open loop: whether read first
        self.loops: list[tuple[int, int, dict[Register, bool]]] = []

    def touch(self, register: Register, at: int, is_read: bool) -> None:
        life = self.lives.get(register)
        if life is None:
            life = self.lives[register] = Life(register, at, at)
        life.start, life.end = min(life.start, at), max(life.end, at)
        life.weight += 10.0 ** min(self.depth, 6)
        for seen in self.first:
            seen.setdefault(register, is_read)

    def block(self, items: list[Item]) -> None:
        for item in items:
            start = self.now
            self.now += 1
            if isinstance(item, Op):
                for x in item.registers:
                    self.touch(x, 2 * start, True)
                if item.result is not None:
                    self.touch(item.result, 2 * start + 1, False)
                    if item.operation == COPY and item.registers:
                        self.lives[item.result].hint = item.registers[0]
                        source = self.lives[item.registers[0]]
                        source.hint = source.hint or item.result
            elif isinstance(item, Branch):
                if isinstance(item.condition, Register):
                    self.touch(item.condition, 2 * start, True)
                self.block(item.then)
                self.block(item.otherwise)
            else:
                if isinstance(item.trips, Register):
                    self.touch(item.trips, 2 * start, True)
                self.depth += 1
                self.first.append({})
                self.block(item.body)
                if item.again is not None:
                    self.touch(item.again, 2 * self.now, True)
                self.now += 1
                self.depth -= 1
                self.loops.append((2 * start + 1, 2 * self.now - 1, self.first.pop()))
            self.position[id(item)] = (start, self.now)


def _lives(items: list[Item]) -> tuple[dict[Register, Life], dict[int, tuple[int, int]]]:
    w = _Walker()
    w.block(items)
    before = {r: (life.start, life.end) for r, life in w.lives.items()}
    for start, end, seen in w.loops:
        for register, read_first in seen.items():
            low, high = before[register]
            if read_first or low < start or high > end:
                life = w.lives[register]
                life.start, life.end = min(life.start, start), max(life.end, end)
    return w.lives, w.position


# -- registers -------------------------------------------------------------------------------


def _scan(lives: dict[Register, Life], model: Model) -> set[Register]:
    """Numbers for all registers, or those that have to live in memory."""
    spilled: set[Register] = set()
    for kind in ("scalar", "vector"):
        size = model.files[kind].size
        waiting = sorted(
            (x for x in lives.values() if x.register.kind == kind), key=lambda x: (x.start, x.end)
        )
        free = list(range(size))
        recent = {n: k for k, n in enumerate(free)}  # taken again as late as possible
        active: list[Life] = []
        clock = size
        for life in waiting:
            for old in [x for x in active if x.end < life.start]:
                active.remove(old)
                free.append(old.register.index)
                recent[old.register.index] = clock
                clock += 1
            if not free:
                candidates = [x for x in (*active, life) if not x.register.is_short]
                if not candidates:
                    raise TargetError(
                        f"machine '{model.machine.name}' has too few {kind} registers ({size})"
                    )
                worst = min(candidates, key=lambda x: x.weight / (x.end - x.start + 1))
                spilled.add(worst.register)
                if worst is life:
                    continue
                active.remove(worst)
                free.append(worst.register.index)
            hint = life.hint.index if life.hint is not None else -1
            choice = hint if hint in free else min(free, key=lambda n: recent[n])
            free.remove(choice)
            life.register.index = choice
            active.append(life)
    return spilled


# -- spilling --------------------------------------------------------------------------------


class _Spiller:
    def __init__(
        self, spilled: set[Register], items: list[Item], model: Model, memory: Memory
    ) -> None:
        self.model, self.memory = model, memory
        definitions = Counter(op.result for op in walk(items) if op.result is not None)
        self.numbers = {
            op.result: op.inputs[0]
            for op in walk(items)
            if op.result in spilled
            and definitions[op.result] == 1
            and (op.operation == LITERAL or (op.operation == COPY and not op.registers))
        }
        self.spilled = spilled
        self.slots: dict[Register, int] = {}
        for register in sorted(spilled, key=lambda r: r.number):
            if register not in self.numbers:
                size = 4 if register.kind == "scalar" else model.files["vector"].width // 8
                region = memory.region(f"spilled {register.number}", size, is_tensor=False)
                self.slots[register] = memory.address(region, memory.data)
        self.out: list[Item] = []

    def block(self, items: list[Item]) -> list[Item]:
        outer, self.out = self.out, []
        for item in items:
            if isinstance(item, Op):
                self._op(item)
                continue
            if isinstance(item, Branch):
                item.condition = self._read(item.condition, item.source)
                item.then = self.block(item.then)
                item.otherwise = self.block(item.otherwise)
            else:
                item.trips = self._read(item.trips, item.source)
                item.body = self.block(item.body)
                if item.again in self.spilled:
                    inner, self.out = self.out, item.body
                    again = self._read(item.again, item.source)
                    assert isinstance(again, Register)
                    item.again = again
                    self.out = inner
            self.out.append(item)
        found, self.out = self.out, outer
        return found

    def _op(self, op: Op) -> None:
        if op.result in self.numbers:
            return
        cache: dict[Operand, Operand] = {}
        inputs = []
        for x in op.inputs:
            if x not in cache:
                cache[x] = self._read(x, op.source)
            inputs.append(cache[x])
        op.inputs = tuple(inputs)
        self.out.append(op)
        if op.result in self.spilled:
            assert op.result is not None
            kept = Register(op.result.kind, is_short=True)
            address = self.slots[op.result]
            o = self._access(op.result, "store")
            op.result, slot = kept, op.result
            where = self._address(address, o, op.source)
            values = tuple(
                where if x.name == ADDRESS else kept
                for x in o.operation.operands if not x.is_result
            )  # fmt: skip
            access = Access(o.space, f"spilled {slot.number}")
            self.out.append(Op(o.operation.name, values, None, access, op.source))

    def _read(self, x: Operand, source: str) -> Operand:
        if not isinstance(x, Register) or x not in self.spilled:
            return x
        loaded = Register(x.kind, is_short=True)
        if x in self.numbers:
            number = self.numbers[x]
            copy = Op(COPY, (number,), loaded, None, source)
            assert isinstance(number, int)
            if not self.model.is_short(number, copy, 0):
                copy.operation = LITERAL
            self.out.append(copy)
            return loaded
        o = self._access(x, "load")
        where = self._address(self.slots[x], o, source)
        access = Access(o.space, f"spilled {x.number}")
        self.out.append(Op(o.operation.name, (where,), loaded, access, source))
        return loaded

    def _address(self, address: int, o: MemoryOperation, source: str) -> Operand:
        k = next(i for i, x in enumerate(o.operation.operands) if x.name == ADDRESS)
        trial = Op(o.operation.name, (), None, Access(o.space, ""))
        if self.model.is_short(address, trial, k):
            return address
        register = Register("scalar", is_short=True)
        self.out.append(Op(LITERAL, (address,), register, None, source))
        return register

    def _access(self, register: Register, kind: str) -> MemoryOperation:
        bits = self.model.files[register.kind].width
        for o in self.memory.operations:
            record = o.operation
            if o.space == self.memory.data and record.kind == kind and o.bits == bits:
                return o
        raise TargetError(
            f"machine '{self.model.machine.name}' has too few {register.kind} registers, and no "
            f"operation to {kind} {bits} bits"
        )
