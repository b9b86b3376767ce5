"""Where a simulated machine's state lies: one block of memory, shared with the translated code.

    layout = Layout(machine, decoded)
    layout.value[("alu", "out1")]       bytes from the start of the block

Values of up to 64 bits are kept in 8 bytes, the rest zeros; wider ones in as many bytes as they
have. Beside each stands a byte that says whether it was ever written. Results that take more than
a cycle wait in a ring of their port, in the place of the cycle in which they arrive.
"""

from __future__ import annotations

from dataclasses import dataclass

from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine
from nncc.runtime.tta.decoded import (
    DecodedInstruction,
    Key,
    guards_of,
    ports_of,
    registers_of,
    width_of,
)

# Why a piece of translated code stops: the limit of cycles, the end of the program, a fault whose
# message stands in the state, a position outside of the piece, a move that reads what was never
# written (which one follows from the state); a unit of blocks also because the plain code has to
# go on, or because it has no block for the state.
LIMIT, FINISHED, FAULT, LEFT, UNWRITTEN, SLOW, MISS = range(7)

WIDE = 64  # alignment of wide values: a vector register of the host


@dataclass(frozen=True, slots=True)
class Ring:
    """Results on their way to a port: `length` (a power of two) places and their flags.

    Between blocks of translated code, the result that comes in `k` cycles, 1 <= k < `latency`,
    lies in slot `k - 1` from `slots` on instead.
    """

    values: int
    flags: int
    length: int
    stride: int
    latency: int
    slots: int

    def slot(self, k: int) -> int:
        """The slot of the result that comes in `k` cycles."""
        return self.slots + (k - 1) * self.stride


class Layout:
    """Byte offsets of everything in the state.

    Attributes:
        value, valid: of registers and ports; `rings`: by port.
        seen: by guard register, one byte for each of the last cycles: bit 0 its value, bit 1
            whether it was written; place 0 is the start of the current cycle.
        memories: by memory, the addresses of its content and of its written flags.
        ring_flags: the flags of all rings, one after the other.
        executed: 8 bytes for each instruction; `moves`: for each guarded move; `stalled`: for each
            instruction and memory.
    """

    def __init__(self, machine: Machine, decoded: tuple[DecodedInstruction, ...]) -> None:
        a = architecture_of(machine)
        self.architecture = a
        self._end = 0
        self.time = self._take(8)
        self.stalls = self._take(8)
        self.jump_time = self._take(8)
        self.slots_until = self._take(8)
        self.buffered = self._take(8)
        self.fault_value = self._take(8)
        self.position = self._take(4)
        self.finished = self._take(4)
        self.fault_message = self._take(4)
        self.jump_target = self._take(4)
        self.loop_count = self._take(4)
        self.loop_end = self._take(4)
        # first, last, iterations left, plain: four integers a loop
        self.loops = self._take(16 * max(1, a.control.loop_depth), 8)
        self.memories = {m.name: (self._take(8), self._take(8)) for m in a.memories}

        keys = (*registers_of(a), *ports_of(a))
        self.width = {k: width_of(k, a) for k in keys}
        self.value = {k: self._take(self.bytes(k), self._alignment(k)) for k in keys}
        self.valid = {k: self._take(1) for k in keys}
        depth = a.control.guard_delay + 1
        self.seen = {k: self._take(depth) for k in guards_of(a)}
        self.rings = self._rings()

        self.executed = self._take(8 * len(decoded), 8)
        guarded = [
            (i, m.bus) for i, x in enumerate(decoded) for m in x.moves if m.guard is not None
        ]
        start = self._take(8 * len(guarded), 8)
        self.moves = {place: start + 8 * k for k, place in enumerate(guarded)}
        self.spaces = tuple(m.name for m in a.memories)
        self.stalled = self._take(8 * len(decoded) * len(self.spaces), 8)
        self.bytes_total = self._end

    def coming_order(self, place: tuple[Key, int]) -> tuple[int, int]:
        """Sorts results on their way: ports as the rings, then cycles until they arrive."""
        return self.rings[place[0]].slots, place[1]

    def bytes(self, key: Key) -> int:
        """Bytes in which a value is kept."""
        return 8 if self.width[key] <= 64 else self.width[key] // 8

    def stall(self, position: int, space: str) -> int:
        """Where the stalls of an instruction by a memory are counted."""
        return self.stalled + 8 * (position * len(self.spaces) + self.spaces.index(space))

    def _alignment(self, key: Key) -> int:
        return 8 if self.width[key] <= 64 else WIDE

    def _take(self, size: int, alignment: int = 0) -> int:
        alignment = alignment or max(1, size & -size)
        start = -(-self._end // alignment) * alignment
        self._end = start + size
        return start

    def _rings(self) -> dict[Key, Ring]:
        latencies: dict[Key, int] = {}
        for unit in self.architecture.units:
            for binding in unit.operations:
                for bound in binding.operands:
                    key: Key = (unit.name, bound.port)
                    if bound.start and self.architecture.is_output(unit.port[bound.port]):
                        latencies[key] = max(latencies.get(key, 0), bound.start + 1)
        lengths = {key: 1 << latency.bit_length() for key, latency in latencies.items()}
        self.ring_flags = self._take(sum(lengths.values()), WIDE)
        flags = self.ring_flags
        rings = {}
        for key, latency in latencies.items():
            alignment = self._alignment(key)
            stride = -(-self.bytes(key) // alignment) * alignment
            values = self._take(lengths[key] * stride, alignment)
            slots = self._take((latency - 1) * stride, alignment)
            rings[key] = Ring(values, flags, lengths[key], stride, latency, slots)
            flags += lengths[key]
        return rings
