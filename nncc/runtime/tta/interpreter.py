"""The definition of what programs of transport-triggered machines do, cycle by cycle.

    simulator = Interpreter(program, machine)
    simulator.write("dmem", 0, data)
    counts = simulator.run()
    simulator.read("dmem", 4096, 32)

Time. Cycle t runs one instruction; in this order:

 1. Results that are due in t replace what their output ports held.
 2. Each move whose guard holds reads its source. A guard looks at the lowest bit of its register
    as it was at the start of cycle t + 1 - g, with g the control unit's guard latency: a register
    written in cycle c decides guards from c + g on.
 3. All values that were read are written: to operand ports at once, to registers for cycles from
    t + 1 on. A value is cut to the width of bus and destination, or extended by zeros; short
    immediates are extended to the bus as it says. Long immediates are written like registers.
 4. Each trigger starts its operation with what the unit's operand ports hold now, that is, with
    the values of earlier cycles and of this one. Its result, of latency L, can be moved from cycle
    t + L on, until the next result reaches the port. A load reads memory as it was before the
    stores of cycle t; stores change it for cycles from t + 1 on.
 5. The next instruction is the following one, unless
     - a jump or call that started in cycle t - d, d being the delay slots, goes to its target
       (a call that starts in cycle t at instruction i leaves i + 1 + d in the return port);
     - the instruction is the last one of the innermost active loop, which has iterations left.
       A loop operation with n iterations of k instructions that starts at instruction i makes
       i + 1 + d … i + d + k run n times. Loops may share their last instruction.
    `halt` ends the program with this cycle.

If the accesses of an instruction meet in the banks of a memory, the whole machine is locked for
the cycles that the memory needs: they count as cycles and as stalls, and no time passes otherwise.

Faults (SimError): an illegal instruction (see `nncc.isa.tta.verify`); reading a register, port
or byte of memory that was never written; an address outside of its memory or not aligned to the
access; two stores to one byte in a cycle; two results for a port in a cycle; a jump, call or loop
in the delay slots of another, or a jump or call inside of a loop; a loop without iterations or
instructions, nested too deeply, or reaching beyond the loop around it; a target outside of the
program; running past the last instruction; too many cycles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from nncc.diagnostics import SimError
from nncc.ir.interpreter.operations import operation_function
from nncc.isa.tta.program import Program
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import ADDRESS, Machine, Operation
from nncc.runtime.tta.banks import extra_cycles
from nncc.runtime.tta.counters import Accounts, Counters, Tally
from nncc.runtime.tta.decoded import (
    DecodedMove,
    Key,
    Trigger,
    alignment,
    decode_program,
    guards_of,
    mask,
    registers_of,
    spelled,
    unseen,
    unwritten,
)
from nncc.runtime.tta.outcome import Snapshot, fault

DEFAULT_LIMIT = 10_000_000_000

Observer = Callable[[int, int, tuple[DecodedMove, ...], int], None]


class Interpreter:
    """A machine with a program in it.

    Args:
        observer: called after each cycle with its number, the instruction, the moves that
            happened and the cycles that the machine was locked for.
    """

    def __init__(
        self, program: Program, machine: Machine, observer: Observer | None = None
    ) -> None:
        self.program, self.machine = program, machine
        self.architecture = a = architecture_of(machine)
        self.decoded = decode_program(program, machine)
        self.observer = observer
        self.position = 0
        self.time = 0
        self.stalls = 0
        self.finished = False
        self.values: dict[Key, int] = {}
        self.coming: dict[tuple[int, Key], int] = {}
        self.jump: tuple[int, int] | None = None
        self.slots_until = -1  # the last cycle that is a delay slot of what started before
        self.loops: list[_Loop] = []
        self.guards = guards_of(a)
        self.seen = deque[dict[Key, int]](maxlen=a.control.guard_delay + 1)
        self.meanings: dict[str, Meaning] = {}
        self.registers = frozenset(registers_of(a))
        self.memory = {m.name: (bytearray(m.size), bytearray(m.size)) for m in a.memories}
        for data in program.data:
            self.write(data.space, data.address, data.content)
        self.tally = Tally(len(program.instructions))

    # -- from outside ----------------------------------------------------------------------
    def write(self, space: str, address: int, content: bytes) -> None:
        """Puts bytes into a memory. Raises SimError if they do not fit."""
        start = self._offset(space, address, len(content))
        data, written = self.memory[space]
        data[start : start + len(content)] = content
        written[start : start + len(content)] = b"\1" * len(content)

    def read(self, space: str, address: int, size: int) -> bytes:
        """Bytes of a memory, zeros where nothing was written. Raises SimError if outside."""
        start = self._offset(space, address, size)
        return bytes(self.memory[space][0][start : start + size])

    def _offset(self, space: str, address: int, size: int) -> int:
        memory = self.architecture.space[space]
        if address < memory.min_address or address + size - 1 > memory.max_address:
            raise SimError(f"{size} bytes at {address} are not inside of memory {space}")
        return address - memory.min_address

    def run(self, limit: int = DEFAULT_LIMIT) -> Counters:
        """Runs to the end of the program. Raises SimError after `limit` cycles, and on faults."""
        while not self.finished:
            if self.time + self.stalls >= limit:
                raise self._fault(f"the limit of {limit} cycles is reached")
            self.step()
        return self.counters()

    def counters(self) -> Counters:
        """What was counted up to now."""
        return Accounts(self.program, self.machine).count(self.tally)

    def snapshot(self) -> Snapshot:
        """The state between two cycles."""
        seen = [*self.seen, self._guard_registers()]
        latency = self.architecture.control.guard_delay
        arrived = {port: value for (t, port), value in self.coming.items() if t == self.time}
        return Snapshot(
            position=self.position,
            time=self.time,
            stalls=self.stalls,
            finished=self.finished,
            values=self.values | arrived,
            guards=dict(seen[-1 - latency]) if len(seen) > latency else {},
            coming={k: value for k, value in self.coming.items() if k[0] > self.time},
            jump=self.jump,
            loops=tuple((x.first, x.last, x.left) for x in self.loops),
            memory={n: (bytes(d), bytes(w)) for n, (d, w) in self.memory.items()},
        )

    # -- a cycle ---------------------------------------------------------------------------
    def step(self) -> None:
        """Runs one cycle. Raises SimError on a fault."""
        if self.position >= len(self.decoded):
            raise self._fault("the program runs past its last instruction")
        instruction = self.decoded[self.position]
        if instruction.problem:
            raise self._fault(instruction.problem)
        for key in [k for k in self.coming if k[0] == self.time]:
            self.values[key[1]] = self.coming.pop(key)
        self.seen.append(self._guard_registers())

        happened = [(m, self._source(m)) for m in instruction.moves if self._holds(m)]
        later: list[tuple[Key, int]] = [*instruction.immediates]
        for m, value in happened:
            if m.destination in self.registers:
                later.append((m.destination, value & mask(m.bits)))
            else:
                self.values[m.destination] = value & mask(m.bits)
        accesses: dict[str, list[tuple[int, int]]] = {}
        stores: list[tuple[str, int, bytes]] = []
        control: Trigger | None = None
        for m, _ in happened:
            if m.trigger is None:
                continue
            if m.trigger.operation.kind in ("compute", "load", "store"):
                self._start(m.trigger, accesses, stores)
            else:
                control = m.trigger
        if control is not None:
            self._control(control, [m for m, _ in happened])
        self._store(stores)
        self.values.update(later)
        extra = self._lock(accesses)
        moves = tuple(m for m, _ in happened)
        self._count(moves)
        if self.observer is not None:
            self.observer(self.time + self.stalls, self.position, moves, extra)
        self.stalls += extra
        self.position = self._next()
        self.time += 1

    def _fault(self, message: str) -> SimError:
        cycle = self.time + self.stalls
        return fault(self.program, self.machine, self.position, cycle, message)

    # -- moves -----------------------------------------------------------------------------
    def _guard_registers(self) -> dict[Key, int]:
        return {k: self.values[k] & 1 for k in self.guards if k in self.values}

    def _holds(self, m: DecodedMove) -> bool:
        if m.guard is None:
            return True
        latency = self.architecture.control.guard_delay
        if len(self.seen) <= latency or m.guard not in self.seen[0]:
            raise self._fault(unseen(m.guard))
        return bool(self.seen[0][m.guard]) != m.inverted

    def _source(self, m: DecodedMove) -> int:
        return m.literal if m.source is None else self._value(m.source)

    def _value(self, key: Key) -> int:
        if key not in self.values:
            raise self._fault(unwritten(key))
        return self.values[key]

    # -- operations ------------------------------------------------------------------------
    def _start(
        self,
        t: Trigger,
        accesses: dict[str, list[tuple[int, int]]],
        stores: list[tuple[str, int, bytes]],
    ) -> None:
        operands = [self._value(key) for key in t.inputs]
        if t.space is None:
            self._finish(t, self._result(t.operation, operands))
            return
        memory = t.operation.memory
        assert memory is not None
        size = memory.bits // 8
        address = operands[0] & mask(32)
        if address < t.space.min_address or address + size - 1 > t.space.max_address:
            raise self._fault(f"address {address} is outside of memory {t.space.name}")
        if address % alignment(size):
            raise self._fault(f"address {address} is not aligned to {alignment(size)} bytes")
        accesses.setdefault(t.space.name, []).append((address, size))
        start = address - t.space.min_address
        if t.operation.kind == "store":
            content = self._result(t.operation, operands[1:]).to_bytes(size, "little")
            stores.append((t.space.name, start, content))
            return
        data, written = self.memory[t.space.name]
        missing = written.find(0, start, start + size)
        if missing >= 0:
            place = missing + t.space.min_address
            raise self._fault(f"byte {place} of {t.space.name} is read and was never written")
        found = int.from_bytes(data[start : start + size], "little")
        self._finish(t, self._result(t.operation, [found]))

    def _result(self, operation: Operation, operands: list[int]) -> int:
        if operation.name not in self.meanings:
            self.meanings[operation.name] = Meaning(operation)
        return self.meanings[operation.name](operands)

    def _finish(self, t: Trigger, result: int) -> None:
        assert t.output is not None
        place = (self.time + t.latency, t.output)
        if place in self.coming:
            raise self._fault(f"two results reach {spelled(t.output)} in one cycle")
        self.coming[place] = result

    def _store(self, stores: list[tuple[str, int, bytes]]) -> None:
        done: list[tuple[str, int, int]] = []
        for space, start, content in stores:
            end = start + len(content)
            if any(s == space and start < e and b < end for s, b, e in done):
                raise self._fault(f"two stores to one byte of {space} in one cycle")
            done.append((space, start, end))
        for space, start, content in stores:
            data, written = self.memory[space]
            data[start : start + len(content)] = content
            written[start : start + len(content)] = b"\1" * len(content)

    def _lock(self, accesses: dict[str, list[tuple[int, int]]]) -> int:
        total = 0
        for space, found in accesses.items():
            extra = extra_cycles(found, self.architecture.space[space])
            self.tally.stall(self.position, space, extra)
            total += extra
        return total

    # -- control ---------------------------------------------------------------------------
    def _control(self, t: Trigger, happened: list[DecodedMove]) -> None:
        operands = [self._value(key) & mask(32) for key in t.inputs]
        kind = t.operation.kind
        if kind == "halt":
            self.finished = True
            return
        if self.time <= self.slots_until:
            raise self._fault(f"a {kind} in the delay slots of another")
        slots = self.architecture.control.delay_slots
        self.slots_until = self.time + slots
        after = self.position + 1 + slots
        if kind == "loop":
            self._loop(operands[0], after, operands[1])
            return
        if self.loops:
            raise self._fault(f"a {kind} inside of a loop")
        if operands[0] >= len(self.decoded):
            raise self._fault(f"a {kind} to {operands[0]}, outside of the program")
        self.jump = (self.time + slots, operands[0])
        if kind == "call":
            control = self.architecture.control
            port = (control.name, control.return_port)
            if any(m.destination == port for m in happened):
                raise self._fault(f"{spelled(port)} is written twice")
            self.values[port] = after & mask(control.port[control.return_port].width)

    def _loop(self, iterations: int, first: int, length: int) -> None:
        if iterations == 0 or length == 0:
            raise self._fault("a loop without iterations or instructions")
        last = first + length - 1
        if last >= len(self.decoded):
            raise self._fault(f"a loop to {last}, outside of the program")
        if len(self.loops) == self.architecture.control.loop_depth:
            raise self._fault(f"more than {len(self.loops)} loops are nested")
        if self.loops and last > self.loops[-1].last:
            raise self._fault("a loop reaches beyond the loop around it")
        for outer in self.loops:
            outer.is_plain = False
        self.loops.append(_Loop(first, last, iterations))

    def _next(self) -> int:
        if self.jump is not None and self.jump[0] == self.time:
            target = self.jump[1]
            self.jump = None
            return target
        while self.loops and self.loops[-1].last == self.position:
            loop = self.loops[-1]
            if loop.left > 1:
                loop.left -= 1
                length = loop.last - loop.first + 1
                if loop.is_plain and length <= self.architecture.control.loop_buffer:
                    self.tally.buffered += length
                return loop.first
            self.loops.pop()
        return self.position + 1

    def _count(self, happened: tuple[DecodedMove, ...]) -> None:
        self.tally.executed[self.position] += 1
        for m in happened:
            if m.guard is not None:
                self.tally.happened(self.position, m.bus)


class _Loop:
    """An active loop; `is_plain` as long as no other started inside of it."""

    def __init__(self, first: int, last: int, left: int) -> None:
        self.first, self.last, self.left = first, last, left
        self.is_plain = True


class Meaning:
    """An operation as a function of integers: the bits at its ports, or a load's memory."""

    def __init__(self, operation: Operation) -> None:
        self.run = operation_function(operation.semantics)
        taken = [o for o in operation.operands if not o.is_result and o.name != ADDRESS]
        if operation.kind == "load":
            assert operation.memory is not None
            taken = [operation.memory]
        self.taken = tuple(taken)

    def __call__(self, operands: list[int]) -> int:
        arrays = []
        for value, operand in zip(operands, self.taken, strict=True):
            bits = (value & mask(operand.bits)).to_bytes(operand.bits // 8, "little")
            arrays.append(np.frombuffer(bits, operand.dtype.numpy)[None, :])
        with np.errstate(all="ignore"):
            found = self.run(*arrays)
        return int.from_bytes(np.ascontiguousarray(found[0]).tobytes(), "little")
