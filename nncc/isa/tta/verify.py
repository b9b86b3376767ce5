"""Whether a program can run on a machine, as far as that does not depend on values.

    program = allocate_ports(program, machine)      ports of register files filled in
    verify(program, machine)                        raises VerifyError with everything that is wrong

An instruction is legal if its moves stand on buses that lead from their sources to their
destinations, immediates fit, no port of a unit and no register is written twice, no port of a
register file serves two registers, a file's limits hold, and long immediates are those of the
template, whose slots hold no moves. Two moves whose guards are each other's inverse never happen
together and may share what they write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from nncc.diagnostics import Diagnostic, Location, VerifyError, nearest
from nncc.isa.tta.program import (
    Instruction,
    Literal,
    Move,
    PortRef,
    Program,
    RegisterRef,
)
from nncc.machines.machine import Machine
from nncc.machines.tta.model import Architecture, Bus, Port, RegisterFile


def architecture_of(machine: Machine) -> Architecture:
    """The architecture of a machine that has one. Raises VerifyError."""
    if machine.architecture is None:
        raise VerifyError(f"machine '{machine.name}' is not transport-triggered")
    return machine.architecture


def verify(program: Program, machine: Machine) -> None:
    """Raises VerifyError, with one line a problem."""
    a = architecture_of(machine)
    found = [
        Diagnostic(f"instruction {i}: {problem}", Location(node=instruction.source))
        for i, instruction in enumerate(program.instructions)
        for problem in instruction_problems(instruction, a)
    ]
    found += [Diagnostic(problem) for problem in _program_problems(program, a)]
    if found:
        raise VerifyError("\n".join(d.render() for d in found))


def exclusive(one: Move, other: Move) -> bool:
    """Whether two moves can never happen in the same cycle."""
    p, q = one.guard, other.guard
    return (
        p is not None
        and q is not None
        and (p.file, p.index) == (q.file, q.index)
        and p.inverted != q.inverted
    )


def literal_range(bus: Bus) -> range:
    """The short immediates of a bus as the numbers that `Literal` takes; empty without any."""
    if bus.immediate is None:
        return range(0)
    width = bus.immediate.width
    if bus.immediate.extension == "zero":
        return range(1 << width)
    return range(-(1 << (width - 1)), 1 << (width - 1))


def long_range(a: Architecture, template: str, unit: str) -> range:
    """The long immediates that a template has for a unit, as numbers."""
    width = a.template[template].width(unit)
    if a.immediate[unit].extension == "zero":
        return range(1 << width)
    return range(-(1 << (width - 1)), 1 << (width - 1))


# -- one instruction -------------------------------------------------------------------------


def instruction_problems(instruction: Instruction, a: Architecture) -> Iterator[str]:
    """What makes an instruction illegal."""
    moves = instruction.moves
    taken = a.template[instruction.template].slots if instruction.template in a.template else ()
    order = [b.name for b in a.buses]
    for move in moves:
        if move.bus not in a.bus:
            yield f"{move}: there is no bus {move.bus}; {nearest(move.bus, order, 'buses')}"
            return
        if move.bus in taken:
            yield f"{move}: the slot of bus {move.bus} holds a long immediate"
    places = [order.index(m.bus) for m in moves]
    if places != sorted(set(places)):
        yield "moves are not one a bus, in the order of the buses"
    for move in moves:
        problem = _move_problem(move, a)
        if problem:
            yield f"{move}: {problem}"
            return
    yield from _write_conflicts(moves)
    yield from _file_conflicts(moves, a)
    yield from _immediate_problems(instruction, a)


def _move_problem(move: Move, a: Architecture) -> str:
    bus = a.bus[move.bus]
    if move.guard is not None and move.guard not in bus.guards:
        return f"bus {bus.name} has no guard {move.guard}"
    return _source_problem(move, bus, a) or _destination_problem(move, a)


def _source_problem(move: Move, bus: Bus, a: Architecture) -> str:
    source = move.source
    if isinstance(source, Literal):
        fitting = literal_range(bus)
        if source.value in fitting:
            return ""
        if not fitting:
            return f"bus {bus.name} has no immediates"
        return f"immediates of bus {bus.name} are {fitting[0]}..{fitting[-1]}"
    ports, problem = _ports_of(source, a, reading=True)
    if problem:
        return problem
    if not any(move.bus in a.writes(p) for p in ports):
        return f"{source} does not reach bus {bus.name}"
    return ""


def _destination_problem(move: Move, a: Architecture) -> str:
    destination = move.destination
    ports, problem = _ports_of(destination, a, reading=False)
    if problem:
        return problem
    if not any(move.bus in a.reads(p) for p in ports):
        return f"bus {move.bus} does not reach {destination}"
    if isinstance(destination, RegisterRef):
        return ""
    unit = a.unit[destination.unit]
    if not ports[0].triggers:
        return f"{destination} starts no operation" if destination.operation else ""
    if not destination.operation:
        return f"{destination} must name the operation that it starts"
    if destination.operation not in unit.operation:
        help = nearest(destination.operation, unit.operation, "operations")
        return f"{unit.name} has no operation {destination.operation}; {help}"
    return ""


def _ports_of(
    place: RegisterRef | PortRef, a: Architecture, *, reading: bool
) -> tuple[tuple[Port, ...], str]:
    """The ports that a source or destination may stand for, or what is wrong with it."""
    if isinstance(place, PortRef):
        unit = a.unit.get(place.unit)
        if unit is None:
            return (), f"there is no unit {place.unit}; {nearest(place.unit, a.unit, 'units')}"
        port = unit.port.get(place.port)
        if port is None:
            return (), f"{unit.name} has no port {place.port}; {nearest(place.port, unit.port)}"
        if reading and place.operation:
            return (), f"{place}: a source names no operation"
        usable = a.is_output(port) if reading else a.is_input(port)
        return (port,), "" if usable else f"{place} cannot be {'read' if reading else 'written'}"
    file = a.file.get(place.file) or a.immediate.get(place.file)
    if file is None:
        names = [*a.file, *a.immediate]
        return (), f"there is no register file {place.file}; {nearest(place.file, names)}"
    if not 0 <= place.index < file.size:
        return (), f"{file.name} has registers 0..{file.size - 1}"
    ports = candidates(place, a, reading=reading)
    if not ports:
        port_text = f" port {place.port} that" if place.port else " port that"
        return (), f"{file.name} has no{port_text} can be {'read' if reading else 'written'}"
    return ports, ""


def candidates(place: RegisterRef, a: Architecture, *, reading: bool) -> tuple[Port, ...]:
    """The ports through which a register can be read or written."""
    file = a.file.get(place.file) or a.immediate[place.file]
    usable = a.is_output if reading else a.is_input
    return tuple(p for p in file.ports if usable(p) and place.port in ("", p.name))


def _write_conflicts(moves: tuple[Move, ...]) -> Iterator[str]:
    for one, other in combinations(moves, 2):
        if exclusive(one, other):
            continue
        p, q = one.destination, other.destination
        if isinstance(p, PortRef) and isinstance(q, PortRef):
            if (p.unit, p.port) == (q.unit, q.port):
                yield f"port {p.unit}.{p.port} is written twice"
        elif isinstance(p, RegisterRef) and isinstance(q, RegisterRef) and p.file == q.file:
            if p.index == q.index:
                yield f"register {p.file}.{p.index} is written twice"
            elif p.port == q.port != "":
                yield f"port {p.file}.{p.port} writes two registers"


def _file_conflicts(moves: tuple[Move, ...], a: Architecture) -> Iterator[str]:
    read = {m.source for m in moves if isinstance(m.source, RegisterRef)}
    for one, other in combinations(sorted(read, key=str), 2):
        if one.file == other.file and one.port == other.port != "" and one.index != other.index:
            yield f"port {one.file}.{one.port} reads two registers"
    for file in a.files:
        registers = {r.index for r in read if r.file == file.name}
        if len(registers) > file.max_reads:
            yield f"{len(registers)} registers of {file.name} are read; {file.max_reads} can be"
        written = [m for m in moves if _writes(m, file)]
        ports = {m.destination.port for m in written if isinstance(m.destination, RegisterRef)}
        if len(ports) > file.max_writes:
            yield f"{len(ports)} registers of {file.name} are written; {file.max_writes} can be"
    for move in moves:
        for place in (move.source, move.destination):
            if isinstance(place, RegisterRef) and not place.port:
                yield f"{move}: no port of {place.file} is free for it"


def _writes(move: Move, file: RegisterFile) -> bool:
    return isinstance(move.destination, RegisterRef) and move.destination.file == file.name


def _immediate_problems(instruction: Instruction, a: Architecture) -> Iterator[str]:
    if not instruction.template:
        if instruction.immediates:
            yield "long immediates need a template"
        return
    template = a.template.get(instruction.template)
    if template is None:
        help = nearest(instruction.template, a.template, "templates")
        yield f"there is no template {instruction.template}; {help}"
        return
    if tuple(i.unit for i in instruction.immediates) != template.units:
        yield f"template {template.name} writes {', '.join(template.units)}"
        return
    for immediate in instruction.immediates:
        fitting = long_range(a, template.name, immediate.unit)
        if immediate.value not in fitting:
            yield f"{immediate.value} is not in {fitting[0]}..{fitting[-1]} of {immediate.unit}"
        if not 0 <= immediate.index < a.immediate[immediate.unit].size:
            yield f"{immediate.unit} has registers 0..{a.immediate[immediate.unit].size - 1}"


# -- the program -----------------------------------------------------------------------------


def _program_problems(program: Program, a: Architecture) -> Iterator[str]:
    count = len(program.instructions)
    space = a.space.get(a.control.address_space)
    if not count:
        yield "the program has no instructions"
    if space is not None and count > space.size:
        yield f"{count} instructions do not fit {space.name} of {space.size}"
    for name, place in program.labels.items():
        if not 0 <= place <= count:
            yield f"label {name}: there is no instruction {place}"
        if not name.isidentifier() or not name.isascii():
            yield f"label {name!r}: a label has letters, digits and _, no digit first"
    memories = {m.name: m for m in a.memories}
    end: dict[str, int] = {}
    for data in sorted(program.data, key=lambda d: (d.space, d.address)):
        memory = memories.get(data.space)
        if memory is None:
            yield f"data: there is no memory {data.space}; {nearest(data.space, memories)}"
            continue
        last = data.address + len(data.content) - 1
        if data.address < memory.min_address or last > memory.max_address:
            yield (
                f"data at {data.address}..{last} of {memory.name} is not in "
                f"{memory.min_address}..{memory.max_address}"
            )
        if data.address < end.get(data.space, 0):
            yield f"data at {data.address} of {memory.name} overlaps what stands before it"
        end[data.space] = last + 1


# -- ports of register files -----------------------------------------------------------------


def allocate_ports(program: Program, machine: Machine) -> Program:
    """The program with its moves in the order of the buses and every register's port stated.

    What cannot be allocated stays open, which `verify` reports.
    """
    a = architecture_of(machine)
    order = {b.name: k for k, b in enumerate(a.buses)}

    def one(i: Instruction) -> Instruction:
        moves = tuple(sorted(i.moves, key=lambda m: order.get(m.bus, len(order))))
        moves = _allocate(_allocate(moves, a, reading=True), a, reading=False)
        return i if moves == i.moves else replace(i, moves=moves)

    return replace(program, instructions=tuple(one(i) for i in program.instructions))


def _place(move: Move, reading: bool) -> RegisterRef | None:
    place = move.source if reading else move.destination
    return place if isinstance(place, RegisterRef) else None


def _allocate(moves: tuple[Move, ...], a: Architecture, *, reading: bool) -> tuple[Move, ...]:
    open_moves = [k for k, m in enumerate(moves) if (p := _place(m, reading)) and not p.port]
    if not open_moves:
        return moves
    chosen: dict[int, RegisterRef] = {
        k: p for k, m in enumerate(moves) if (p := _place(m, reading)) and p.port
    }

    def fits(k: int, place: RegisterRef) -> bool:
        return all(
            (other.file, other.port) != (place.file, place.port)
            or (reading and other.index == place.index)
            or (not reading and exclusive(moves[j], moves[k]))
            for j, other in chosen.items()
        )

    def search(rest: list[int]) -> bool:
        if not rest:
            return True
        k = rest[0]
        place = _place(moves[k], reading)
        assert place is not None
        if place.file not in a.file and place.file not in a.immediate:
            return search(rest[1:])
        for port in candidates(place, a, reading=reading):
            reached = a.writes(port) if reading else a.reads(port)
            trial = replace(place, port=port.name)
            if moves[k].bus in reached and fits(k, trial):
                chosen[k] = trial
                if search(rest[1:]):
                    return True
                del chosen[k]
        return False

    search(open_moves)
    field = "source" if reading else "destination"
    return tuple(
        replace(m, **{field: chosen[k]}) if k in chosen else m  # type: ignore[arg-type]
        for k, m in enumerate(moves)
    )
