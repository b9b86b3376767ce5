"""The start of a hardware loop, put into instructions that are there already."""

from __future__ import annotations

from nncc.backends.tta.code import Register
from nncc.backends.tta.model import Model
from nncc.isa.tta.program import Literal, LongImmediate, Move, PortRef, RegisterRef


def start_loop(
    rows: list[list[Move]], long: dict[int, tuple[str, LongImmediate]], at: int,
    trips: int | Register, length: int, model: Model,
) -> bool:  # fmt: skip
    """Puts the start of a hardware loop of `length` instructions into row `at`; its operands may
    be moved before. Returns whether there is room."""
    site = model.loop
    assert site is not None
    record = model.machine.operations[site.operation]
    names = [o.name for o in record.operands if not o.is_result]
    for k, name in enumerate(names):
        value = trips if name == "iterations" else length
        is_trigger = k == site.trigger
        target = PortRef(site.unit, site.ports[k], site.operation if is_trigger else "")
        cycles = [at] if is_trigger else range(at, max(-1, at - 12), -1)
        if isinstance(value, Register):
            done = any(_copied(rows, long, c, value, target, model) for c in cycles)
        else:
            done = any(_number(rows, long, c, value, target, model) for c in cycles)
        if not done:
            return False
    return True


def _copied(
    rows: list[list[Move]], long: dict[int, tuple[str, LongImmediate]], c: int, value: Register,
    target: PortRef, m: Model,
) -> bool:  # fmt: skip
    """Moves a register to a port in a cycle, if nothing else is read from its file then."""
    file = m.files[value.kind].name
    taken = m.slots_of(long[c][0]) if c in long else 0
    for x in rows[c]:
        if isinstance(x.source, RegisterRef) and x.source.file == file:
            return False
        taken |= m.bit[x.bus]
    place = "port", target.unit, target.port, target.operation
    free = m.reach(("reg", file, value.index), place) & ~taken
    if free:
        bus = m.buses[(free & -free).bit_length() - 1]
        rows[c].append(Move(bus, RegisterRef(file, value.index), target))
    return free != 0


def _number(
    rows: list[list[Move]], long: dict[int, tuple[str, LongImmediate]], c: int, value: int,
    target: PortRef, m: Model,
) -> bool:  # fmt: skip
    """Moves a number to a port in a cycle, if there is room for a short or long immediate."""
    taken = {x.bus for x in rows[c]}
    if c in long:
        taken |= m.a.template[long[c][0]].slots
    free = [b for b in m.into[target.unit, target.port] if b not in taken]
    for b in free:
        if (spelled := m.spelled(value, b)) is not None:
            rows[c].append(Move(b, Literal(spelled), target))
            return True
    found = m.template(value)
    if found is None or c == 0 or c - 1 in long:
        return False
    name, unit, spelled = found
    if m.a.template[name].slots & {x.bus for x in rows[c - 1]}:
        return False
    number = m.a.immediate[unit].size - 1
    if _is_read_from(rows, long, c, RegisterRef(unit, number)):
        return False
    for b in free:
        if any(b in buses for buses in m.readers[unit]):
            long[c - 1] = (name, LongImmediate(unit, number, spelled))
            rows[c].append(Move(b, RegisterRef(unit, number), target))
            return True
    return False


def _is_read_from(
    rows: list[list[Move]], long: dict[int, tuple[str, LongImmediate]], c: int, place: RegisterRef
) -> bool:
    """Whether what stands in an immediate register in cycle c is read then or later."""
    for t in range(c, len(rows)):
        if any(x.source == place for x in rows[t]):
            return True
        if t in long and (long[t][1].unit, long[t][1].index) == (place.file, place.index):
            return False
    return False
