"""Instructions and programs as text: assembly that `assemble` reads back, listings for people.

assemble(disassemble(program)) == program
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum

from nncc.isa.tpu.encoding import encode_instruction
from nncc.isa.tpu.instructions import (
    Instruction,
    ReadWeights,
    SetConfiguration,
    Sync,
    fields_of,
    mnemonic,
)
from nncc.isa.tpu.program import NO_ORIGIN, Data, HostBuffer, Origin, Program

_BYTES_A_LINE = 32


def instruction_text(instruction: Instruction) -> str:
    """An instruction in assembly: fields that hold their default are left out.

    >>> from nncc.isa.tpu.instructions import MatrixMultiply
    >>> instruction_text(MatrixMultiply(row=3, accumulator=0, width=64, next_tile=True))
    'matrix_multiply row=3 accumulator=0 width=64 next_tile'
    """
    words = [mnemonic(type(instruction))]
    for f in fields_of(type(instruction)):
        value = getattr(instruction, f.name)
        if isinstance(value, bool):
            words += [f.name] if value else []
        elif isinstance(value, Enum):
            words.append(f"{f.name}={value.name.lower()}")
        elif value != f.default:
            words.append(f"{f.name}={value}")
    return " ".join(words)


def disassemble(program: Program) -> str:
    """The program in assembly."""
    lines = [_buffer(b) for b in program.buffers]
    lines += [f".macs {json.dumps(node)} {count}" for node, count in program.macs.items()]
    for data in program.data:
        lines += _data(data)
    if program.origins:  # otherwise the program has none
        lines.append(_origin(program.origin(0)))
    last = program.origin(0) if program.instructions else NO_ORIGIN
    for i, instruction in enumerate(program.instructions):
        if program.origin(i) != last:
            last = program.origin(i)
            lines.append(_origin(last))
        lines.append(f"  {instruction_text(instruction)}")
    return "\n".join(lines) + "\n"


def _origin(origin: Origin) -> str:
    tile = "".join(f" {t}" for t in origin.tile)
    return f".origin {json.dumps(origin.node)} {json.dumps(origin.tensor)}{tile}"


def _buffer(b: HostBuffer) -> str:
    shape = ",".join(map(str, b.shape))
    return f".buffer {b.role} {json.dumps(b.name)} {b.dtype.name}[{shape}] {b.address}"


def _data(data: Data) -> Iterator[str]:
    yield f".data {data.memory} {data.address}"
    for start in range(0, len(data.content), _BYTES_A_LINE):
        yield f"  hex {data.content[start : start + _BYTES_A_LINE].hex()}"


def listing(
    program: Program,
    cycles: Mapping[int, tuple[int, int]] | None = None,
    totals: Mapping[str, str] | None = None,
) -> str:
    """A table for people: byte address, cycles of a run, instruction, tensor, tile, node.

    Each node has one heading, where its work begins. What stands among the instructions of another
    one (weights come ahead of their use) says for whom it is.

    Args:
        cycles: position -> (first cycle, cycle in which the result is complete), for instructions
            of units.
        totals: what to say of each node under its heading.
    """
    lines = [f"{_buffer(b)}  # {b.bytes} bytes" for b in program.buffers]
    lines += [f".data {d.memory} {d.address}  # {len(d.content)} bytes" for d in program.data]
    rows = list(_rows(program, cycles))
    widths = [max((len(row[k]) for row in rows), default=0) for k in range(3)]
    node, known = "", {""}
    for i, (address, when, text, comment) in enumerate(rows):
        own = program.origin(i).node
        begins = not isinstance(program.instructions[i], ReadWeights | SetConfiguration | Sync)
        if begins and own not in known:
            node = own
            known.add(own)
            lines.append(f"-- {own}")
            if totals and own in totals:
                lines.append(f"# {totals[own]}")
        if own and own != node:
            comment = f"{comment or '#'} for {own}"
        columns = [address.rjust(widths[0]), text.ljust(widths[2]), comment]
        columns[1:1] = [when.ljust(widths[1])] if widths[1] else []
        lines.append("  ".join(columns).rstrip())
    return "\n".join(lines) + "\n"


def _rows(
    program: Program, cycles: Mapping[int, tuple[int, int]] | None
) -> Iterator[tuple[str, str, str, str]]:
    address = 0
    for i, instruction in enumerate(program.instructions):
        when = "{}..{}".format(*cycles[i]) if cycles is not None and i in cycles else ""
        origin = program.origin(i)
        tile = f"[{','.join(map(str, origin.tile))}]" if origin.tile else ""
        comment = f"# {origin.tensor}{tile}" if origin.tensor or tile else ""
        yield f"{address:x}", when, instruction_text(instruction), comment
        address += len(encode_instruction(instruction))
