"""Programs as text: assembly that `assemble` reads back, and listings for people.

assemble(disassemble(program, machine), machine) == program
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from nncc.isa.tta.program import Data, Instruction, Program, RegisterRef
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine
from nncc.machines.tta.model import Architecture

_BYTES_A_LINE = 32


def disassemble(program: Program, machine: Machine) -> str:
    """The program in assembly; every slot is written."""
    a = architecture_of(machine)
    lines = ["CODE ;"]
    source = ""
    names = _names(program)
    for i, instruction in enumerate(program.instructions):
        lines += [f"{name}:" for name in names.get(i, ())]
        if instruction.source != source:
            source = instruction.source
            lines.append(f":source {json.dumps(source)} ;")
        comment = f"  # {_on_a_line(instruction.comment)}" if instruction.comment else ""
        lines.append(f"  {instruction_text(instruction, a)} ;{comment}")
    lines += [f"{name}:" for name in names.get(len(program.instructions), ())]
    for data in program.data:
        lines += _data(data)
    return "\n".join(lines) + "\n"


def instruction_text(instruction: Instruction, a: Architecture, *, short: bool = False) -> str:
    """The slots of an instruction.

    Args:
        short: only what happens, each move after its bus: `s0: r.0 -> alu0.in2`.
    """
    slots = _slots(instruction, a)
    if short:
        return ", ".join(f"{bus}: {text}" for bus, text in slots.items()) or "nothing"
    inner = [slots.pop(bus.name, "...") for bus in a.buses]
    if all(text == "..." for text in inner) and not slots:
        return ". . ." if len(inner) != 1 else "..."
    return " ".join([", ".join(inner), *slots.values()])


def _slots(instruction: Instruction, a: Architecture) -> dict[str, str]:
    """What stands in the slots of buses and immediates, by their names."""
    slots = {m.bus: str(m) for m in instruction.moves}
    if instruction.template not in a.template:
        return slots
    template = a.template[instruction.template]
    for immediate in instruction.immediates:
        place = RegisterRef(immediate.unit, immediate.index)
        own = [p.slot for p in template.pieces if p.unit == immediate.unit]
        on_buses = [s for s in own if s in a.bus]
        outside = [s for s in own if s not in a.bus][:1]  # one piece stands for them all
        for k, slot in enumerate([*on_buses, *outside]):
            slots[slot] = f"[{place}={immediate.value}]" if k == 0 else f"[{place}]"
    order = [b.name for b in a.buses] + [s.name for s in a.immediate_slots]
    return dict(sorted(slots.items(), key=lambda item: order.index(item[0])))


def _data(data: Data) -> Iterator[str]:
    yield f"DATA {data.space} {data.address} ;"
    for start in range(0, len(data.content), _BYTES_A_LINE):
        line = data.content[start : start + _BYTES_A_LINE]
        words = [line[k : k + 4] for k in range(0, len(line), 4)]
        values = " ".join("0x" + w[::-1].hex() for w in words)
        yield f"  DA {len(line)} {values} ;"


def _names(program: Program) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, place in sorted(program.labels.items()):
        names.setdefault(place, []).append(name)
    return names


def _on_a_line(name: str) -> str:
    """Names of models may hold anything."""
    return json.dumps(name)[1:-1]


def listing(program: Program, machine: Machine, executed: tuple[int, ...] = ()) -> str:
    """Instruction numbers, how often each ran (if known), what happens, source nodes, comments."""
    a = architecture_of(machine)
    names = _names(program)
    width = len(str(len(program.instructions)))
    lines = []
    source = ""
    for i, instruction in enumerate(program.instructions):
        lines += [f"{name}:" for name in names.get(i, ())]
        if instruction.source != source:
            source = instruction.source
            lines.append(f"-- {_on_a_line(source)}")
        count = f"{executed[i]:>10}  " if executed else ""
        comment = f"    # {_on_a_line(instruction.comment)}" if instruction.comment else ""
        lines.append(f"{i:{width}}  {count}{instruction_text(instruction, a, short=True)}{comment}")
    lines += [f"{name}:" for name in names.get(len(program.instructions), ())]
    for data in program.data:
        lines.append(f"data {data.space} {data.address}: {len(data.content)} bytes")
    return "\n".join(lines) + "\n"
