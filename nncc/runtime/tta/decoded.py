"""Programs with every name looked up once: what both simulators start from.

    decoded = decode_program(program, machine)
    decoded[3].moves[0].trigger.operation

A place that holds a value has a `Key`: (register file or immediate unit, number) or (unit, port).
Values are integers of as many bits as their place, element 0 of a vector in the lowest bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from nncc.isa.tta.program import Instruction, Literal, Move, PortRef, Program
from nncc.isa.tta.verify import architecture_of, instruction_problems
from nncc.machines.machine import Machine, Operation
from nncc.machines.tta.model import AddressSpace, Architecture, FunctionUnit

Key = tuple[str, int | str]


@dataclass(frozen=True, slots=True)
class Trigger:
    """An operation that a move starts.

    Args:
        inputs: where its operands stand, in order of the record.
        output: where its result goes, `latency` cycles later; None without result.
        space: the memory of a load or store.
    """

    unit: str
    operation: Operation
    inputs: tuple[Key, ...]
    output: Key | None
    latency: int
    space: AddressSpace | None


@dataclass(frozen=True, slots=True)
class DecodedMove:
    """A move. `literal` is its value where `source` is None; `bits` of it reach the destination."""

    bus: str
    guard: Key | None
    inverted: bool
    source: Key | None
    literal: int
    bits: int
    destination: Key
    trigger: Trigger | None


@dataclass(frozen=True, slots=True)
class DecodedInstruction:
    """An instruction; `problem` says why it cannot run ("" if it can)."""

    moves: tuple[DecodedMove, ...]
    immediates: tuple[tuple[Key, int], ...]
    problem: str


def decode_program(program: Program, machine: Machine) -> tuple[DecodedInstruction, ...]:
    """All instructions of a program."""
    a = architecture_of(machine)
    return tuple(_instruction(i, a, machine) for i in program.instructions)


def _instruction(i: Instruction, a: Architecture, machine: Machine) -> DecodedInstruction:
    problem = next(instruction_problems(i, a), "")
    if problem:
        return DecodedInstruction((), (), problem)
    immediates = tuple(
        ((x.unit, x.index), x.value & mask(a.immediate[x.unit].width)) for x in i.immediates
    )
    return DecodedInstruction(tuple(_move(m, a, machine) for m in i.moves), immediates, "")


def _move(m: Move, a: Architecture, machine: Machine) -> DecodedMove:
    bus = a.bus[m.bus]
    guard = None if m.guard is None else (m.guard.file, m.guard.index)
    source: Key | None = None
    literal = 0
    if isinstance(m.source, Literal):
        literal = m.source.value & mask(bus.width)
    elif isinstance(m.source, PortRef):
        source = (m.source.unit, m.source.port)
    else:
        source = (m.source.file, m.source.index)
    trigger = None
    if isinstance(m.destination, PortRef):
        destination: Key = (m.destination.unit, m.destination.port)
        if m.destination.operation:
            trigger = _trigger(m.destination, a, machine)
    else:
        destination = (m.destination.file, m.destination.index)
    bits = min(bus.width, width_of(destination, a))
    inverted = m.guard is not None and m.guard.inverted
    return DecodedMove(m.bus, guard, inverted, source, literal, bits, destination, trigger)


def _trigger(place: PortRef, a: Architecture, machine: Machine) -> Trigger:
    unit = a.unit[place.unit]
    binding = unit.operation[place.operation]
    operation = machine.operations[place.operation]
    inputs: list[Key] = []
    output: Key | None = None
    latency = 0
    for bound, operand in zip(binding.operands, operation.operands, strict=True):
        if operand.is_result:
            output, latency = (unit.name, bound.port), bound.start + 1
        else:
            inputs.append((unit.name, bound.port))
    reaches_memory = isinstance(unit, FunctionUnit) and operation.memory is not None
    space = a.space[unit.address_space] if reaches_memory else None
    return Trigger(unit.name, operation, tuple(inputs), output, latency, space)


def width_of(key: Key, a: Architecture) -> int:
    """Bits of a place."""
    owner, part = key
    if owner in a.unit:
        return a.unit[owner].port[str(part)].width
    return (a.file.get(owner) or a.immediate[owner]).width


def registers_of(a: Architecture) -> tuple[Key, ...]:
    """Every register of register files and immediate units."""
    files = [(f.name, f.size) for f in a.files] + [(u.name, u.size) for u in a.immediates]
    return tuple((name, k) for name, size in files for k in range(size))


def ports_of(a: Architecture) -> tuple[Key, ...]:
    """Every port of a function unit or the control unit."""
    return tuple((u.name, p.name) for u in a.unit.values() for p in u.ports)


def guards_of(a: Architecture) -> tuple[Key, ...]:
    """Every register that some guard looks at."""
    return tuple(sorted({(g.file, g.index) for b in a.buses for g in b.guards}))


def alignment(size: int) -> int:
    """The alignment that an access of `size` bytes needs: the largest power of two in it."""
    return size & -size


def mask(bits: int) -> int:
    """`bits` ones."""
    return (1 << bits) - 1


def spelled(key: Key) -> str:
    """A place as in assembly."""
    return f"{key[0]}.{key[1]}"


def unwritten(key: Key) -> str:
    """The fault of reading a place that was never written."""
    return f"{spelled(key)} is read and was never written"


def unseen(guard: Key) -> str:
    """The fault of a guard on a register that was never written, as guards see it."""
    return f"guard {spelled(guard)} was never written"
