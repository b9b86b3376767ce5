"""A simulator that runs programs of transport-triggered machines as machine code of the host.

    simulator = Translated(program, machine)
    simulator.write("dmem", 0, data)
    counts = simulator.run()

It does what `nncc.runtime.tta.interpreter.Interpreter` does, cycle by cycle, with the same faults
and counts. Blocks of instructions are translated when they are first reached
(`translate/blocks.py`). The rest, what blocks cannot do or stop at, the last cycles before a limit
and every fault, runs in plain code, one instruction after the other, translated in pieces of
`PIECE`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncc.backends.cpu.emit import attributes
from nncc.backends.cpu.jit import Library
from nncc.backends.cpu.target import host_features, object_code
from nncc.diagnostics import SimError
from nncc.isa.tta.program import Program
from nncc.isa.tta.verify import architecture_of
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.runtime.tta.counters import Accounts, Counters, Tally
from nncc.runtime.tta.decoded import Key, decode_program, unseen, unwritten
from nncc.runtime.tta.interpreter import DEFAULT_LIMIT
from nncc.runtime.tta.outcome import Snapshot, fault
from nncc.runtime.tta.translate.blocks import Blocks
from nncc.runtime.tta.translate.code import Piece
from nncc.runtime.tta.translate.context import Context
from nncc.runtime.tta.translate.layout import (
    FAULT,
    FINISHED,
    LEFT,
    MISS,
    UNWRITTEN,
    WIDE,
    Layout,
)

PIECE = 32
STEPS = 64  # instructions of plain code after which blocks are tried again


class Translated:
    """A machine with a program in it."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self.program, self.machine = program, machine
        self.architecture = a = architecture_of(machine)
        self.decoded = decode_program(program, machine)
        self.layout = Layout(machine, self.decoded)
        self.messages: dict[str, int] = {}
        self.blocks = Blocks(program, machine, self.decoded, self.layout)
        self.pieces: dict[int, tuple[Any, Any]] = {}  # by number: (function, what keeps it)
        room = np.zeros(self.layout.bytes_total + WIDE, np.uint8)
        start = -room.ctypes.data % WIDE
        self.state = room[start : start + self.layout.bytes_total]
        self.address = self.state.ctypes.data
        self.memory = {
            m.name: (np.zeros(m.size, np.uint8), np.zeros(m.size, np.uint8)) for m in a.memories
        }
        self.reset(dict.fromkeys(self.memory, 0))  # they are zeros: nothing touches their pages

    def reset(self, used: Mapping[str, int] | None = None) -> None:
        """Puts everything into the state before the first cycle.

        Args:
            used: bytes of memories, by name, beyond which nothing has been written.
        """
        self.state[:] = 0
        self.blocks.clear()
        for name, places in self.layout.memories.items():
            for place, array in zip(places, self.memory[name], strict=True):
                self._set(place, array.ctypes.data, 8)
                array[: (used or {}).get(name, len(array))] = 0
        self._set(self.layout.jump_time, -2, 8)
        self._set(self.layout.slots_until, -1, 8)
        self._set(self.layout.loop_end, -1, 4)
        for data in self.program.data:
            self.write(data.space, data.address, data.content)

    # -- from outside ----------------------------------------------------------------------
    def write(self, space: str, address: int, content: bytes) -> None:
        """Puts bytes into a memory. Raises SimError if they do not fit."""
        start = self._offset(space, address, len(content))
        data, written = self.memory[space]
        data[start : start + len(content)] = np.frombuffer(content, np.uint8)
        written[start : start + len(content)] = 1

    def read(self, space: str, address: int, size: int) -> bytes:
        """Bytes of a memory, zeros where nothing was written. Raises SimError if outside."""
        start = self._offset(space, address, size)
        return self.memory[space][0][start : start + size].tobytes()

    def _offset(self, space: str, address: int, size: int) -> int:
        memory = self.architecture.space[space]
        if address < memory.min_address or address + size - 1 > memory.max_address:
            raise SimError(f"{size} bytes at {address} are not inside of memory {space}")
        return address - memory.min_address

    def run(self, limit: int = DEFAULT_LIMIT) -> Counters:
        """Runs to the end of the program. Raises SimError after `limit` cycles, and on faults."""
        if not self.advance(limit):
            raise self._fault(f"the limit of {limit} cycles is reached")
        return self.counters()

    def advance(self, limit: int) -> bool:
        """Runs until `limit` cycles have passed in all, or the program ends: then True."""
        while not self._get(self.layout.finished, 4):
            if self._cycles() >= limit:
                return False
            if not self.blocks.possible:
                return self._plainly(limit)
            status = self.blocks.run(self.address, limit)
            if status == FINISHED:
                return True
            context = self._context() if status == MISS else None
            if context is not None and self.blocks.can_begin(context):
                self.blocks.translate(context)
            else:
                self._step(limit)
        return True

    def _step(self, limit: int) -> None:
        """Plain code, until blocks may go on."""
        for _ in range(STEPS):
            if self._plainly(min(limit, self._cycles() + 1)) or self._cycles() >= limit:
                return
            if self._get(self.layout.position, 4) in self.blocks.roots:
                return

    def _plainly(self, limit: int) -> bool:
        """As `advance`, in plain code."""
        while True:
            position = self._get(self.layout.position, 4)
            if position >= len(self.decoded):
                if self._get(self.layout.finished, 4):
                    return True
                if self._cycles() >= limit:
                    return False
                raise self._fault("the program runs past its last instruction")
            number = position // PIECE
            if number not in self.pieces:
                self.pieces[number] = self._translate(number)
            status = self.pieces[number][0](self.address, limit)
            if status == FAULT:
                raise self._fault(self._message())
            if status == UNWRITTEN:
                raise self._fault(self._unwritten())
            if status != LEFT:
                return bool(status == FINISHED)

    def _context(self) -> Context | None:
        """Where a block would have to begin; None in the delay slots of something."""
        layout = self.layout
        time = self._get(layout.time, 8)
        if self._get(layout.jump_time, 8) != -2 or self._get(layout.slots_until, 8) >= time:
            return None
        loops = []
        for k in range(self._get(layout.loop_count, 4)):
            first, last, _ = self._loop(k)
            loops.append((first, last, bool(self._value(layout.loops + 16 * k + 12, 4))))
        coming = sorted(
            ((key, due - time) for due, key in self._coming(time)), key=layout.coming_order
        )
        position, length = self._get(layout.position, 4), -1
        if self.blocks.loops.wanted(position):
            port = self.blocks.loops.port
            if self._get(layout.valid[port], 1):
                length = self._value(layout.value[port], layout.bytes(port))
        return Context(position, tuple(loops), tuple(coming), length)

    def _executed(self) -> np.ndarray[Any, Any]:
        start = self.layout.executed
        plain = self.state[start : start + 8 * len(self.decoded)].view(np.int64)
        found: np.ndarray[Any, Any] = plain + self.blocks.executed()
        return found

    def counters(self) -> Counters:
        """What was counted up to now."""
        layout, tally = self.layout, Tally(len(self.decoded))
        tally.executed = self._executed().tolist()
        for place, offset in layout.moves.items():
            tally.moves[place] = self._get(offset, 8)
        shape = (len(self.decoded), len(layout.spaces))
        size = 8 * shape[0] * shape[1]
        stalls = self.state[layout.stalled : layout.stalled + size].view(np.int64).reshape(shape)
        for i, k in zip(*np.nonzero(stalls), strict=True):
            tally.stall(int(i), layout.spaces[k], int(stalls[i, k]))
        tally.buffered = self._get(layout.buffered, 8)
        return self._accounts.count(tally)

    @functools.cached_property
    def _accounts(self) -> Accounts:
        return Accounts(self.program, self.machine)

    def executed(self) -> list[int]:
        """How often each instruction ran up to now."""
        return [int(n) for n in self._executed()]

    def snapshot(self) -> Snapshot:
        """The state between two cycles."""
        layout = self.layout
        time = self._get(layout.time, 8)
        latency = self.architecture.control.guard_delay
        guards = {}
        for key, place in layout.seen.items():
            if latency:
                seen = self._get(place + latency - 1, 1)
                if seen >= 2:
                    guards[key] = seen & 1
            elif self._get(layout.valid[key], 1):
                guards[key] = self._get(layout.value[key], 1) & 1
        jump_time = self._get(layout.jump_time, 8)
        jump = (jump_time, self._get(layout.jump_target, 4)) if jump_time != -2 else None
        return Snapshot(
            position=self._get(layout.position, 4),
            time=time,
            stalls=self._get(layout.stalls, 8),
            finished=bool(self._get(layout.finished, 4)),
            values={
                key: self._value(offset, layout.bytes(key))
                for key, offset in layout.value.items()
                if self._get(layout.valid[key], 1)
            },
            guards=guards,
            coming=self._coming(time),
            jump=jump,
            loops=tuple(self._loop(k) for k in range(self._get(layout.loop_count, 4))),
            memory={n: (d.tobytes(), w.tobytes()) for n, (d, w) in self.memory.items()},
        )

    def _loop(self, number: int) -> tuple[int, int, int]:
        start = self.layout.loops + 16 * number
        first, last, left = (self._value(start + 4 * k, 4) for k in range(3))
        return first, last, left

    def _coming(self, time: int) -> dict[tuple[int, Key], int]:
        found = {}
        for key, ring in self.layout.rings.items():
            for due in range(time + 1, time + ring.length):
                place = due % ring.length
                if self._get(ring.flags + place, 1):
                    offset = ring.values + place * ring.stride
                    found[due, key] = self._value(offset, self.layout.bytes(key))
        return found

    # -- state -----------------------------------------------------------------------------
    def _get(self, offset: int, size: int) -> int:
        return int.from_bytes(self.state[offset : offset + size].tobytes(), "little", signed=True)

    def _value(self, offset: int, size: int) -> int:
        return int.from_bytes(self.state[offset : offset + size].tobytes(), "little")

    def _set(self, offset: int, value: int, size: int) -> None:
        content = value.to_bytes(size, "little", signed=True)
        self.state[offset : offset + size] = np.frombuffer(content, np.uint8)

    def _cycles(self) -> int:
        return self._get(self.layout.time, 8) + self._get(self.layout.stalls, 8)

    # -- faults ----------------------------------------------------------------------------
    def _fault(self, message: str) -> SimError:
        position = self._get(self.layout.position, 4)
        return fault(self.program, self.machine, position, self._cycles(), message)

    def _message(self) -> str:
        number = self._get(self.layout.fault_message, 4)
        value = self._get(self.layout.fault_value, 8)
        message = next(m for m, k in self.messages.items() if k == number)
        if message.startswith("byte {}"):  # of the access there, the first one that is missing
            space = self.architecture.space[message.split()[3]]
            written = self.memory[space.name][1][value - space.min_address :]
            value += int(np.argmin(written))
        return message.replace("{}", str(value))

    def _unwritten(self) -> str:
        """The first thing that a move of the instruction reads and that was never written."""
        latency = self.architecture.control.guard_delay
        for m in self.decoded[self._get(self.layout.position, 4)].moves:
            if m.guard is not None:
                seen = self._get(self.layout.seen[m.guard] + latency, 1)
                if seen < 2:
                    return unseen(m.guard)
                if bool(seen & 1) == m.inverted:
                    continue
            if m.source is not None and not self._get(self.layout.valid[m.source], 1):
                return unwritten(m.source)
        raise AssertionError("the translated code found a place that was never written")

    # -- translation -----------------------------------------------------------------------
    def _translate(self, number: int) -> tuple[Any, Any]:
        host = load("cpu", host_features())
        first = number * PIECE
        last = min(first + PIECE, len(self.decoded))
        piece = Piece(self.decoded, first, last, self.layout, self.messages, host.features)
        library = Library(object_code(piece.text(attributes(host)), host, 0), ["piece"])
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
        return signature(library["piece"]), library
