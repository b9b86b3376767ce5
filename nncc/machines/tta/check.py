"""What makes an architecture legal, beyond what its classes can say.

    for problem in problems(architecture, operations): …        # "unit alu: port in1t: …"

Checked: names are unique and known; sockets lead to buses and ports to sockets of one direction;
every unit with operations has one triggering input port, bound by each of its operations; the
operands of an operation are bound once each, to ports of the right direction and enough bits,
operands read with the trigger; loads are as slow as their memory; registers have ways in and out;
guards name registers; templates fill immediate units; memories are counted in bytes; numbers are
not so large that no computer could hold the machine's state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from nncc.diagnostics import nearest
from nncc.machines.machine import Operation
from nncc.machines.tta.model import (
    Architecture,
    ControlUnit,
    FunctionUnit,
    Holder,
    ImmediateUnit,
    OperationBinding,
    Port,
    RegisterFile,
    Unit,
)

_CONTROL = ("jump", "call", "loop", "halt")

# Beyond these, a number is a slip: the state of a simulated machine would fill the computer.
MOST_BITS = 1 << 16  # of a bus, port or register
MOST_REGISTERS = 1 << 16  # of a file
MOST_CYCLES = 1 << 10  # of latencies, guards and delay slots
MOST_LOOPS = 64  # nested ones
LAST_ADDRESS = (1 << 32) - 1  # addresses have 32 bits


def problems(a: Architecture, operations: Mapping[str, Operation]) -> Iterator[str]:
    """Everything that is wrong, each as a sentence that begins with the place."""
    yield from _names(a)
    known = list(_dangling(a))
    yield from known
    if known:  # what follows looks names up
        return
    yield from _buses(a)
    for holder in a.holders:
        yield from _ports(a, holder)
    for unit in a.unit.values():
        yield from _unit(a, unit, operations)
    yield from _control(a, operations)
    for file in a.files:
        yield from _file(a, file)
    yield from _spaces(a)
    yield from _immediates(a)


def _names(a: Architecture) -> Iterator[str]:
    """Names of the same kind, and of everything that a program can write to or read from."""
    holders = [h.name for h in a.holders]
    groups = {
        "bus": [b.name for b in a.buses],
        "socket": [s.name for s in a.sockets],
        "unit, register file or immediate unit": holders,
        "address space": [s.name for s in a.spaces],
        "template": [t.name for t in a.templates],
    }
    for kind, names in groups.items():
        for name in _repeated(names):
            yield f"{kind} {name}: there are two of that name"
        for name in names:
            if not name.replace("_", "a").isalnum() or name[:1].isdigit():
                yield f"{kind} {name!r}: a name has letters, digits and _, no digit first"
    for holder in a.holders:
        for name in _repeated(p.name for p in holder.ports):
            yield f"{holder.name}.ports: there are two ports {name}"
    if not a.buses:
        yield "bus: a machine has at least one bus"


def _dangling(a: Architecture) -> Iterator[str]:
    for s in a.sockets:
        for bus in s.buses:
            if bus not in a.bus:
                help = nearest(bus, a.bus, "buses")
                yield f"socket {s.name}.buses: there is no bus {bus}; {help}"
    for h in a.holders:
        for p in h.ports:
            for name in p.sockets:
                if name not in a.socket:
                    help = nearest(name, a.socket, "sockets")
                    yield f"{h.name}.{p.name}.sockets: there is no socket {name}; {help}"
    for unit in a.unit.values():
        space = unit.address_space
        if space and space not in a.space:
            help = nearest(space, a.space, "address spaces")
            yield f"{unit.name}.address_space: there is no {space}; {help}"
    for t in a.templates:
        for piece in t.pieces:
            if piece.unit not in a.immediate:
                help = nearest(piece.unit, a.immediate, "immediate units")
                yield f"template {t.name}.unit: there is no {piece.unit}; {help}"
            if piece.slot not in a.bus and all(piece.slot != s.name for s in a.immediate_slots):
                yield f"template {t.name}.slot: there is no bus or immediate slot {piece.slot}"


def _buses(a: Architecture) -> Iterator[str]:
    for bus in a.buses:
        yield from _width(f"bus {bus.name}", bus.width)
        if bus.immediate and not 1 <= bus.immediate.width <= bus.width:
            yield f"bus {bus.name}.immediate: {bus.immediate.width} bits; 1 to {bus.width} fit"
        for guard in bus.guards:
            file = a.file.get(guard.file)
            if file is None or not 0 <= guard.index < file.size:
                yield f"bus {bus.name}.guards: there is no register {guard.file}.{guard.index}"


def _width(place: str, width: int) -> Iterator[str]:
    if not 1 <= width <= MOST_BITS:
        yield f"{place}.width: {width}; it is 1 to {MOST_BITS} bits"
    elif width > 64 and width % 8:
        yield f"{place}.width: {width}; above 64 bits, widths are whole bytes"


def _ports(a: Architecture, holder: Holder) -> Iterator[str]:
    for port in holder.ports:
        place = f"{holder.name}.{port.name}"
        yield from _width(place, port.width)
        directions = [a.socket[s].direction for s in port.sockets]
        if not directions:
            yield f"{place}.sockets: no socket connects it"
        if len(set(directions)) != len(directions):
            yield f"{place}.sockets: two sockets of one direction"
        both = len(directions) == 2
        if both and not (isinstance(holder, ControlUnit) and port.name == holder.return_port):
            yield f"{place}.sockets: only the return address can be read and written"
        if isinstance(holder, RegisterFile | ImmediateUnit):
            if port.width != holder.width:
                yield f"{place}.width: its registers have {holder.width} bits, not {port.width}"
            if port.triggers or port.sets_opcode:
                yield f"{place}.triggers: only ports of units start operations"
        if isinstance(holder, ImmediateUnit) and not a.is_output(port):
            yield f"{place}.sockets: an immediate unit is only read"


def _unit(a: Architecture, unit: Unit, operations: Mapping[str, Operation]) -> Iterator[str]:
    triggers = [p for p in unit.ports if p.triggers]
    if unit.operations and len(triggers) != 1:
        yield f"{unit.name}.ports: {len(triggers)} ports trigger; one must"
        return
    for port in triggers:
        if not a.is_input(port):
            yield f"{unit.name}.{port.name}: a port that triggers is an input"
        if not port.sets_opcode and len(unit.operations) > 1:
            yield f"{unit.name}.{port.name}.sets_opcode: the unit has several operations"
    for name in _repeated(o.operation for o in unit.operations):
        yield f"{unit.name}.operations: {name} is bound twice"
    for port in unit.ports:
        if port.name in unit.operation:
            yield f"{unit.name}.{port.name}: a port cannot have the name of an operation"
    for binding in unit.operations:
        place = f"{unit.name}.{binding.operation}"
        record = operations.get(binding.operation)
        if record is None:
            help = nearest(binding.operation, operations, "operations")
            yield f"{place}: there is no operation {binding.operation}; {help}"
            continue
        if (record.kind in _CONTROL) != isinstance(unit, ControlUnit):
            yield f"{place}: the control unit has what jumps, and nothing else"
        yield from _binding(a, unit, binding, record, triggers[0])
        if isinstance(unit, FunctionUnit) and record.memory is not None:
            yield from _memory(a, unit, binding, record)


def _binding(
    a: Architecture, unit: Unit, binding: OperationBinding, record: Operation, trigger: Port
) -> Iterator[str]:
    place = f"{unit.name}.{binding.operation}"
    names = [o.name for o in record.operands]
    if [b.operand for b in binding.operands] != names:
        yield f"{place}.bind: it must bind {', '.join(names)}"
        return
    for name in _repeated(b.port for b in binding.operands):
        yield f"{place}.bind: two operands at port {name}"
    for bound, operand in zip(binding.operands, record.operands, strict=True):
        where = f"{place}.bind.{operand.name}"
        port = unit.port.get(bound.port)
        if port is None:
            help = nearest(bound.port, unit.port, "ports")
            yield f"{where}: there is no port {bound.port}; {help}"
            continue
        if not (a.is_output(port) if operand.is_result else a.is_input(port)):
            yield f"{where}: port {port.name} has the wrong direction"
        if port.width < operand.bits:
            yield f"{where}: {operand.bits} bits do not fit port {port.name} of {port.width}"
        if not operand.is_result and bound.start != 0:
            yield f"{where}.start: {bound.start}; operands are read with the trigger"
        if bound.start >= MOST_CYCLES:
            yield f"{where}.start: {bound.start + 1} cycles of latency; at most {MOST_CYCLES}"
        if bound.cycles != 1 or bound.start < 0:
            yield f"{where}.cycles: a port is used for one cycle, from cycle 0 on"
    if all(b.port != trigger.name for b in binding.operands):
        yield f"{place}.bind: no operand at the port that triggers, {trigger.name}"


def _memory(
    a: Architecture, unit: FunctionUnit, binding: OperationBinding, record: Operation
) -> Iterator[str]:
    place = f"{unit.name}.{binding.operation}"
    if not unit.address_space or unit.address_space == a.control.address_space:
        yield f"{place}: {unit.name}.address_space must name a memory"
        return
    space = a.space[unit.address_space]
    latency = binding.operands[-1].start + 1
    if record.kind == "load" and latency < space.latency:
        yield f"{place}.latency: {latency} cycles; memory {space.name} takes {space.latency}"


def _control(a: Architecture, operations: Mapping[str, Operation]) -> Iterator[str]:
    c = a.control
    for field in ("delay_slots", "loop_depth", "loop_buffer"):
        if getattr(c, field) < 0:
            yield f"{c.name}.{field}: {getattr(c, field)} is negative"
    if c.guard_latency < 1:
        yield f"{c.name}.guard_latency: {c.guard_latency}; guards see no move of their own cycle"
    for field in ("delay_slots", "guard_latency"):
        if getattr(c, field) > MOST_CYCLES:
            yield f"{c.name}.{field}: {getattr(c, field)}; at most {MOST_CYCLES}"
    if c.loop_depth > MOST_LOOPS:
        yield f"{c.name}.loop_depth: {c.loop_depth}; at most {MOST_LOOPS}"
    kinds = {operations[o.operation].kind for o in c.operations if o.operation in operations}
    if "call" in kinds and (c.return_port not in c.port or not a.is_output(c.port[c.return_port])):
        yield f"{c.name}.return_port: calls need a port that can be read"
    if "loop" in kinds and c.loop_depth == 0:
        yield f"{c.name}.loop_depth: it has a loop operation, so at least 1"


def _file(a: Architecture, file: RegisterFile) -> Iterator[str]:
    if not 1 <= file.size <= MOST_REGISTERS:
        yield f"{file.name}.size: {file.size}; it is 1 to {MOST_REGISTERS} registers"
    reads = sum(a.is_output(p) for p in file.ports)
    writes = sum(a.is_input(p) for p in file.ports)
    for field, ports in (("max_reads", reads), ("max_writes", writes)):
        if getattr(file, field) < min(1, ports):
            yield f"{file.name}.{field}: {getattr(file, field)} with {ports} ports"


def _spaces(a: Architecture) -> Iterator[str]:
    for s in a.spaces:
        if not 0 <= s.min_address <= s.max_address <= LAST_ADDRESS:
            yield (
                f"address space {s.name}: {s.min_address}..{s.max_address} is no range in "
                f"0..{LAST_ADDRESS}"
            )
        if s.width < 1:
            yield f"address space {s.name}.width: {s.width}; it is at least 1"
        if s.name != a.control.address_space and s.width != 8:
            yield f"address space {s.name}.width: {s.width}; memories are counted in bytes"
        if s.banks < 0 or s.bank_bytes < 1 or s.latency < 1:
            yield f"address space {s.name}: banks, bank_bytes or latency out of range"
        if s.bank_bytes & (s.bank_bytes - 1) or s.banks & (s.banks - 1):
            yield f"address space {s.name}: banks and bank_bytes are powers of two"


def _immediates(a: Architecture) -> Iterator[str]:
    slots = {b.name for b in a.buses}
    for slot in a.immediate_slots:
        if slot.width < 1 or slot.name in slots:
            yield f"immediate slot {slot.name}: it has a width and a name of its own"
    for unit in a.immediates:
        if not 1 <= unit.size <= MOST_REGISTERS or not 1 <= unit.width <= 64:
            yield (
                f"{unit.name}: an immediate unit has 1 to {MOST_REGISTERS} registers of 1 to 64 "
                f"bits, not {unit.size} of {unit.width}"
            )
    widths = {s.name: s.width for s in a.immediate_slots}
    for t in a.templates:
        for name in _repeated(p.slot for p in t.pieces):
            yield f"template {t.name}.slot: {name} is used twice"
        for p in t.pieces:
            if p.width < 1 or p.width > widths.get(p.slot, p.width):
                yield f"template {t.name}.width: {p.width} bits do not fit slot {p.slot}"
        for unit_name in t.units:
            if t.width(unit_name) > a.immediate[unit_name].width:
                yield (
                    f"template {t.name}.width: {t.width(unit_name)} bits for {unit_name} of "
                    f"{a.immediate[unit_name].width}"
                )
        for other in a.templates[: a.templates.index(t)]:
            if {(p.slot, p.unit) for p in t.pieces} == {(p.slot, p.unit) for p in other.pieces}:
                yield f"template {t.name}: it has the slots and units of {other.name}"
        if not t.pieces:
            yield f"template {t.name}.pieces: a template holds at least one immediate"


def _repeated(names: Iterable[str]) -> list[str]:
    return [n for n, count in Counter(names).items() if count > 1]
