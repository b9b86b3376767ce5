"""The binary file of a program.

    encode(program, machine) -> bytes           decode(bits, machine) -> Program

A header and a checksum as in `nncc.isa.container`; in between: bits of an instruction, numbers of
instructions, data areas, labels and sources; instructions, each in whole bytes; data areas (name,
address, content); labels (name, position) in order of position and name; source nodes (name,
number of consecutive instructions). Comments are not kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import groupby

from nncc.ir.text import print_nest
from nncc.isa.container import Reader, guarded, name, number, pack, unpack
from nncc.isa.tta.encoding import encoding_of
from nncc.isa.tta.program import Data, Program
from nncc.isa.tta.verify import architecture_of, verify
from nncc.machines.machine import Machine

MAGIC = b"nnccTTA\0"
VERSION = 1


def machine_hash(machine: Machine) -> bytes:
    """What a binary is bound to: the architecture, and what its operations mean."""
    texts = [repr(architecture_of(machine))]
    texts += [f"{o.kind} {print_nest(o.semantics)}" for o in machine.operations.values()]
    return hashlib.sha256("\n".join(texts).encode()).digest()


def encode(program: Program, machine: Machine) -> bytes:
    """The binary of a program. Raises VerifyError if it is not legal on the machine."""
    verify(program, machine)
    encoding = encoding_of(architecture_of(machine))
    sources = [(s, len(list(g))) for s, g in groupby(i.source for i in program.instructions)]
    counts = (len(program.instructions), len(program.data), len(program.labels), len(sources))
    parts = [number(n) for n in (encoding.width, *counts)]
    parts += [number(encoding.pack(i), encoding.bytes) for i in program.instructions]
    for d in program.data:
        parts += [name(d.space), number(d.address, 8), number(len(d.content), 8), d.content]
    for label, place in sorted(program.labels.items(), key=_order):
        parts += [name(label), number(place)]
    for source, count in sources:
        parts += [name(source), number(count)]
    return pack(MAGIC, VERSION, machine_hash(machine), b"".join(parts))


def decode(bits: bytes, machine: Machine) -> Program:
    """The program in a binary. Raises TargetError if it is damaged or for another machine."""
    what = "a program of a transport-triggered machine"
    reader = unpack(bits, MAGIC, VERSION, machine_hash(machine), what=what, machine=machine.name)
    return guarded(lambda r: _program(r, machine), reader)


def _program(reader: Reader, machine: Machine) -> Program:
    encoding = encoding_of(architecture_of(machine))
    width, count, areas, labels, sources = (reader.number() for _ in range(5))
    if width != encoding.width:
        raise ValueError(f"instructions have {width} bits, not {encoding.width}")
    instructions = []
    for i in range(count):
        try:
            instructions.append(encoding.unpack(reader.number(encoding.bytes)))
        except ValueError as error:
            raise ValueError(f"instruction {i}: {error}") from error
    data = []
    for _ in range(areas):
        space, address = reader.name(), reader.number(8)
        data.append(Data(space, address, reader.take(reader.number(8))))
    places = [(reader.name(), reader.number()) for _ in range(labels)]
    if places != sorted(dict(places).items(), key=_order):
        raise ValueError("labels are not in order")
    position, before = 0, None
    for _ in range(sources):
        source, run = reader.name(), reader.number()
        if source == before or not run:
            raise ValueError("source nodes are not what follows one another")
        before = source
        for i in range(position, position + run):
            instructions[i] = replace(instructions[i], source=source)
        position += run
    if position != count:
        raise ValueError("instructions are without a source node")
    return Program(tuple(instructions), tuple(data), dict(places))


def _order(label: tuple[str, int]) -> tuple[int, str]:
    return label[1], label[0]
