"""The bits of an instruction, derived from the architecture.

    encoding = encoding_of(architecture)
    encoding.width                                  bits of an instruction
    encoding.pack(instruction) -> int, encoding.unpack(bits) -> Instruction

From the lowest bit: the template (0: none; otherwise its number from 1 on), for each immediate
unit the register that is written, the immediate slots, and one slot for each bus. A slot has a
guard (0: always; otherwise its number among the bus's guards from 1 on), a source and a
destination (0: no move). Sources and destinations are numbered as the bus reaches them: ports of
units in order (a port that triggers once for each operation), then ports of register files and
immediate units with each of their registers. Where the bus has short immediates, the lowest bit
of the source tells them (1) from numbers (0). Every field has as many bits as its numbers need,
a slot at least as many as the pieces of long immediates that it may hold. Unused bits are 0.

The encoding is nncc's own: OpenASIP generates one for each machine that its users may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from nncc.isa.tta.program import (
    Destination,
    Instruction,
    Literal,
    LongImmediate,
    Move,
    PortRef,
    RegisterRef,
    Source,
)
from nncc.isa.tta.verify import literal_range
from nncc.machines.tta.model import (
    Architecture,
    Bus,
    ImmediateUnit,
    InstructionTemplate,
    RegisterFile,
)


@dataclass(frozen=True)
class Field:
    """`width` bits from bit `low` of the instruction on."""

    low: int
    width: int

    def put(self, value: int) -> int:
        assert 0 <= value < 1 << self.width, "verified programs fit"
        return value << self.low

    def get(self, bits: int) -> int:
        return bits >> self.low & ((1 << self.width) - 1)


class BusSlot:
    """The fields of a bus's slot, relative to its lowest bit."""

    def __init__(self, bus: Bus, a: Architecture) -> None:
        self.bus = bus
        self.sources = tuple(_sources(bus, a))
        self.destinations = tuple(_destinations(bus, a))
        self.source_number = {s: k for k, s in enumerate(self.sources)}
        self.destination_number = {d: k + 1 for k, d in enumerate(self.destinations)}
        immediate = bus.immediate.width if bus.immediate else 0
        source = max(immediate, _bits(len(self.sources))) + (bus.immediate is not None)
        self.guard = Field(0, _bits(len(bus.guards) + 1))
        self.source = Field(self.guard.width, source)
        self.destination = Field(self.guard.width + source, _bits(len(self.destinations) + 1))
        self.width = self.destination.low + self.destination.width

    def pack(self, move: Move) -> int:
        guard = 0 if move.guard is None else self.bus.guards.index(move.guard) + 1
        return (
            self.guard.put(guard)
            | self.source.put(self._source(move.source))
            | self.destination.put(self.destination_number[move.destination])
        )

    def _source(self, source: Source) -> int:
        immediate = self.bus.immediate
        if isinstance(source, Literal):
            assert immediate is not None, "verified programs fit"
            return (source.value & ((1 << immediate.width) - 1)) << 1 | 1
        number = self.source_number[source]
        return number << 1 if immediate else number

    def unpack(self, bits: int) -> Move | None:
        """Raises ValueError for numbers that nothing has."""
        number = self.destination.get(bits)
        if number == 0:
            if bits & ((1 << self.width) - 1):
                raise ValueError(f"bus {self.bus.name}: bits are set in a slot without a move")
            return None
        guard = self.guard.get(bits)
        if number > len(self.destinations) or guard > len(self.bus.guards):
            raise ValueError(f"bus {self.bus.name}: there is no such guard or destination")
        return Move(
            self.bus.name,
            self._unpack_source(self.source.get(bits)),
            self.destinations[number - 1],
            self.bus.guards[guard - 1] if guard else None,
        )

    def _unpack_source(self, number: int) -> Source:
        immediate = self.bus.immediate
        if immediate is not None:
            is_literal, number = number & 1, number >> 1
            if is_literal:
                if number >> immediate.width:
                    raise ValueError(f"bus {self.bus.name}: an immediate is too wide")
                last = literal_range(self.bus)[-1]
                return Literal(number if number <= last else number - (1 << immediate.width))
        if number >= len(self.sources):
            raise ValueError(f"bus {self.bus.name}: there is no such source")
        return self.sources[number]


class Encoding:
    """The fields of an instruction of one architecture."""

    def __init__(self, a: Architecture) -> None:
        self.a = a
        low = 0

        def field(width: int) -> Field:
            nonlocal low
            low += width
            return Field(low - width, width)

        self.template = field(_bits(len(a.templates) + 1))
        self.registers = {u.name: field(_bits(u.size)) for u in a.immediates}
        self.slots = {s.name: field(s.width) for s in a.immediate_slots}
        self.moves = {b.name: BusSlot(b, a) for b in a.buses}
        for name, slot in self.moves.items():
            pieces = [p.width for t in a.templates for p in t.pieces if p.slot == name]
            self.slots[name] = field(max([slot.width, *pieces]))
        self.width = low

    @property
    def bytes(self) -> int:
        """Bytes of an instruction in memory."""
        return -(-self.width // 8)

    def pack(self, instruction: Instruction) -> int:
        """The bits of a verified instruction."""
        bits = 0
        for move in instruction.moves:
            bits |= self.slots[move.bus].put(self.moves[move.bus].pack(move))
        if not instruction.template:
            return bits
        template = self.a.template[instruction.template]
        bits |= self.template.put(self.a.templates.index(template) + 1)
        for immediate in instruction.immediates:
            bits |= self.registers[immediate.unit].put(immediate.index)
            rest = template.width(immediate.unit)
            for piece in template.pieces:
                if piece.unit == immediate.unit:
                    rest -= piece.width
                    chunk = immediate.value >> rest & ((1 << piece.width) - 1)
                    bits |= self.slots[piece.slot].put(chunk)
        return bits

    def unpack(self, bits: int) -> Instruction:
        """The instruction of some bits. Raises ValueError if they are none."""
        if bits >> self.width:
            raise ValueError("bits are set beyond the last field")
        template = self._template(bits)
        taken = template.slots if template else frozenset()
        used = 0 if template is None else self.template.put(self.template.get(bits))
        moves = []
        for name, slot in self.moves.items():
            if name not in taken:
                content = self.slots[name].get(bits)
                move = slot.unpack(content & ((1 << slot.width) - 1))
                if content >> slot.width:
                    raise ValueError(f"bus {name}: bits are set beyond its fields")
                used |= self.slots[name].put(content)
                if move is not None:
                    moves.append(move)
        immediates: list[LongImmediate] = []
        for unit in template.units if template else ():
            assert template is not None
            index = self.registers[unit].get(bits)
            if index >= self.a.immediate[unit].size:
                raise ValueError(f"{unit} has no register {index}")
            used |= self.registers[unit].put(index)
            immediates.append(self._immediate(bits, template, unit, index))
            for piece in template.pieces:
                used |= self.slots[piece.slot].put(self.slots[piece.slot].get(bits))
        if used != bits:
            raise ValueError("bits are set in fields that the instruction does not use")
        name = template.name if template else ""
        found = Instruction(tuple(moves), tuple(immediates), name)
        if self.pack(found) != bits:
            raise ValueError("bits are set in fields that the instruction does not use")
        return found

    def _template(self, bits: int) -> InstructionTemplate | None:
        number = self.template.get(bits)
        if number > len(self.a.templates):
            raise ValueError(f"there is no template {number}")
        return self.a.templates[number - 1] if number else None

    def _immediate(
        self, bits: int, template: InstructionTemplate, unit: str, index: int
    ) -> LongImmediate:
        value = 0
        for piece in template.pieces:
            if piece.unit == unit:
                chunk = self.slots[piece.slot].get(bits) & ((1 << piece.width) - 1)
                value = value << piece.width | chunk
        width = template.width(unit)
        if self.a.immediate[unit].extension == "sign" and value >> (width - 1):
            value -= 1 << width
        return LongImmediate(unit, index, value)


@lru_cache(maxsize=8)
def encoding_of(a: Architecture) -> Encoding:
    """The encoding of an architecture's instructions."""
    return Encoding(a)


def _bits(count: int) -> int:
    """Bits that tell `count` things apart."""
    return max(count - 1, 0).bit_length()


def _sources(bus: Bus, a: Architecture) -> list[Source]:
    found: list[Source] = []
    for unit in a.unit.values():
        found += [PortRef(unit.name, p.name) for p in unit.ports if bus.name in a.writes(p)]
    files: tuple[RegisterFile | ImmediateUnit, ...] = (*a.files, *a.immediates)
    for file in files:
        for port in file.ports:
            if bus.name in a.writes(port):
                found += [RegisterRef(file.name, k, port.name) for k in range(file.size)]
    return found


def _destinations(bus: Bus, a: Architecture) -> list[Destination]:
    found: list[Destination] = []
    for unit in a.unit.values():
        for port in unit.ports:
            if bus.name not in a.reads(port):
                continue
            if port.triggers:
                found += [PortRef(unit.name, port.name, o.operation) for o in unit.operations]
            else:
                found.append(PortRef(unit.name, port.name))
    for file in a.files:
        for port in file.ports:
            if bus.name in a.reads(port):
                found += [RegisterRef(file.name, k, port.name) for k in range(file.size)]
    return found
