"""The parts of a transport-triggered machine: OpenASIP's architecture definition as dataclasses.

A program of such a machine consists of moves on buses. Each instruction has one slot a bus; a
move takes a value from a source (an output port of a function unit, a register, an immediate) and
writes it to an input port or a register. Writing a port that `triggers` starts the operation
that the move names; its result appears at an output port some cycles later.

Buses and ports are tied by sockets: an input socket lets its ports read from its buses, an output
socket lets them write. Names of buses, sockets, units, register files and immediate units are
each unique in an architecture. What OpenASIP's files do not have, energy, banks, nested hardware
loops and loop buffers, stands here as further fields; energies are in pJ, 0 where not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Extension = Literal["zero", "sign"]


@dataclass(frozen=True, slots=True)
class ShortImmediate:
    """A constant of `width` bits in a bus's slot, extended to the width of the bus."""

    width: int
    extension: Extension = "zero"


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on a move: the lowest bit of a register, or its inverse.

    >>> str(Guard("bool", 0, inverted=True))
    '!bool.0'
    """

    file: str
    index: int
    inverted: bool = False

    def __str__(self) -> str:
        return f"{'!' if self.inverted else '?'}{self.file}.{self.index}"


@dataclass(frozen=True, slots=True)
class Bus:
    """A bus of `width` bits; one move a cycle. `energy` is for one move."""

    name: str
    width: int
    guards: tuple[Guard, ...] = ()
    immediate: ShortImmediate | None = None
    energy: float = 0.0


@dataclass(frozen=True, slots=True)
class Socket:
    """What ties ports to buses. `input`: its ports read from the buses; `output`: they write."""

    name: str
    direction: Literal["input", "output"]
    buses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """A register at the edge of a unit, or a way into a register file.

    Args:
        sockets: one; two for a port that is read and written (the return address).
        width: in bits.
        triggers: writing it starts an operation, which the move names (`sets_opcode`).
    """

    name: str
    width: int
    sockets: tuple[str, ...]
    triggers: bool = False
    sets_opcode: bool = False


@dataclass(frozen=True, slots=True)
class OperandBinding:
    """An operand of an operation at a port of the unit.

    Args:
        operand: its name, see `nncc.machines.machine.Operation.operands`.
        start: the cycle after the trigger (0: the same) in which the port is read, or after which
            the result stands at the port: a result that starts in cycle 2 can be moved 3 cycles
            after the trigger.
        cycles: for how many the port is used.
    """

    operand: str
    port: str
    start: int = 0
    cycles: int = 1


@dataclass(frozen=True, slots=True)
class OperationBinding:
    """An operation of a unit; operands in the order of the operation's record."""

    operation: str
    operands: tuple[OperandBinding, ...]

    def port(self, operand: str) -> str:
        """The port of an operand. Raises KeyError."""
        for o in self.operands:
            if o.operand == operand:
                return o.port
        raise KeyError(operand)


@dataclass(frozen=True)
class FunctionUnit:
    """A unit that computes or accesses a memory (`address_space`).

    Operand ports keep what was written last. Operations start in the cycle of their trigger and
    may overlap without limit, but two results cannot reach one port in the same cycle.
    """

    name: str
    ports: tuple[Port, ...]
    operations: tuple[OperationBinding, ...]
    address_space: str = ""

    @cached_property
    def port(self) -> dict[str, Port]:
        return {p.name: p for p in self.ports}

    @cached_property
    def operation(self) -> dict[str, OperationBinding]:
        return {o.operation: o for o in self.operations}


@dataclass(frozen=True)
class RegisterFile:
    """`size` registers of `width` bits. A cycle reads and writes at most so many registers.

    A port serves one register a cycle, to any number of buses.
    """

    name: str
    size: int
    width: int
    ports: tuple[Port, ...]
    max_reads: int = 1
    max_writes: int = 1
    read_energy: float = 0.0
    write_energy: float = 0.0


@dataclass(frozen=True)
class ImmediateUnit:
    """Registers of `width` bits that long immediates are written to by the instruction itself."""

    name: str
    size: int
    width: int
    ports: tuple[Port, ...]
    extension: Extension = "zero"


@dataclass(frozen=True)
class ControlUnit:
    """Jumps, calls and loops.

    Args:
        delay_slots: instructions that still run after a jump, call or loop operation.
        guard_latency: cycles from a move to a register to the first guard that sees it; 1 is as
            soon as a move does.
        return_port: where `call` leaves the instruction to come back to ("" without calls).
        loop_depth: how many hardware loops may be nested; 0: none at all.
        loop_buffer: how many instructions a buffer holds from which loops are fetched instead of
            the instruction memory (the energy of a fetch is saved, no time); 0: none.
        address_space: the instruction memory; its addresses are instruction numbers.
    """

    name: str
    ports: tuple[Port, ...]
    operations: tuple[OperationBinding, ...]
    delay_slots: int = 0
    guard_latency: int = 1
    return_port: str = ""
    loop_depth: int = 0
    loop_buffer: int = 0
    address_space: str = ""

    @property
    def guard_delay(self) -> int:
        """How many cycles later than a move a guard sees a register."""
        return self.guard_latency - 1

    @cached_property
    def port(self) -> dict[str, Port]:
        return {p.name: p for p in self.ports}

    @cached_property
    def operation(self) -> dict[str, OperationBinding]:
        return {o.operation: o for o in self.operations}


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """A memory, or the instructions.

    Args:
        width: bits of a minimum addressable unit.
        banks: how many of them answer in one cycle, each with one row of `bank_bytes`; 0: any
            number of accesses are served at once. Consecutive rows of `bank_bytes` bytes lie in
            consecutive banks.
        latency: cycles from the trigger of a load to its result, at least.
        read_energy, write_energy: of one byte (instructions: of one fetched byte).
    """

    name: str
    width: int
    min_address: int
    max_address: int
    banks: int = 0
    bank_bytes: int = 4
    latency: int = 1
    read_energy: float = 0.0
    write_energy: float = 0.0

    @property
    def size(self) -> int:
        return self.max_address - self.min_address + 1


@dataclass(frozen=True, slots=True)
class ImmediateSlot:
    """A field of the instruction for pieces of long immediates only."""

    name: str
    width: int


@dataclass(frozen=True, slots=True)
class ImmediatePiece:
    """`width` bits of a long immediate for `unit`, in the slot of a bus or an immediate slot."""

    slot: str
    width: int
    unit: str


@dataclass(frozen=True, slots=True)
class InstructionTemplate:
    """A form of the instruction in which some slots hold long immediates instead of moves.

    Pieces of one unit make its immediate, the most significant piece first.
    """

    name: str
    pieces: tuple[ImmediatePiece, ...]

    @property
    def units(self) -> tuple[str, ...]:
        """The immediate units that an instruction of this form writes."""
        return tuple(dict.fromkeys(p.unit for p in self.pieces))

    def width(self, unit: str) -> int:
        """Bits of the immediate for `unit`."""
        return sum(p.width for p in self.pieces if p.unit == unit)

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(p.slot for p in self.pieces)


Unit = FunctionUnit | ControlUnit
Holder = FunctionUnit | ControlUnit | RegisterFile | ImmediateUnit


@dataclass(frozen=True)
class Architecture:
    """A transport-triggered machine. `nncc.machines.tta.check` says what makes it legal."""

    buses: tuple[Bus, ...]
    sockets: tuple[Socket, ...]
    units: tuple[FunctionUnit, ...]
    files: tuple[RegisterFile, ...]
    control: ControlUnit
    spaces: tuple[AddressSpace, ...]
    immediates: tuple[ImmediateUnit, ...] = ()
    immediate_slots: tuple[ImmediateSlot, ...] = ()
    templates: tuple[InstructionTemplate, ...] = ()

    @cached_property
    def bus(self) -> dict[str, Bus]:
        return {b.name: b for b in self.buses}

    @cached_property
    def socket(self) -> dict[str, Socket]:
        return {s.name: s for s in self.sockets}

    @cached_property
    def unit(self) -> dict[str, Unit]:
        """Function units and the control unit by name."""
        units: tuple[Unit, ...] = (*self.units, self.control)
        return {u.name: u for u in units}

    @cached_property
    def file(self) -> dict[str, RegisterFile]:
        return {f.name: f for f in self.files}

    @cached_property
    def immediate(self) -> dict[str, ImmediateUnit]:
        return {u.name: u for u in self.immediates}

    @cached_property
    def space(self) -> dict[str, AddressSpace]:
        return {s.name: s for s in self.spaces}

    @cached_property
    def template(self) -> dict[str, InstructionTemplate]:
        return {t.name: t for t in self.templates}

    @property
    def holders(self) -> Iterator[Holder]:
        """Everything that has ports."""
        yield from self.units
        yield self.control
        yield from self.files
        yield from self.immediates

    def is_input(self, port: Port) -> bool:
        """Whether moves can write to a port."""
        return any(self.socket[s].direction == "input" for s in port.sockets)

    def is_output(self, port: Port) -> bool:
        """Whether moves can take a value from a port."""
        return any(self.socket[s].direction == "output" for s in port.sockets)

    def writes(self, port: Port) -> tuple[str, ...]:
        """The buses that can take a value from `port`, in order of the architecture."""
        return self._buses(port, "output")

    def reads(self, port: Port) -> tuple[str, ...]:
        """The buses from which `port` can be written, in order of the architecture."""
        return self._buses(port, "input")

    def _buses(self, port: Port, direction: str) -> tuple[str, ...]:
        reached = {
            b
            for s in port.sockets
            if self.socket[s].direction == direction
            for b in self.socket[s].buses
        }
        return tuple(b.name for b in self.buses if b.name in reached)

    @property
    def memories(self) -> tuple[AddressSpace, ...]:
        """The address spaces of data."""
        return tuple(s for s in self.spaces if s.name != self.control.address_space)
