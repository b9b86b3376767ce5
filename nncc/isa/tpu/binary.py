"""The binary file of a program.

    encode(program, machine) -> bytes           decode(bits, machine) -> Program

A header and a checksum as in `nncc.isa.container`; in between: the number of instructions and the
instructions (see `nncc.isa.tpu.encoding`), constants (memory 1, address 4, bytes 8, content),
buffers (role 1, name, address 5, dtype's name, rank 1, extents 8), MACs (node, 8), origins in
runs (node, tensor, rank 1, tile 4 each, number of instructions), each list after its length.
"""

from __future__ import annotations

import hashlib
from itertools import groupby

from nncc.diagnostics import VerifyError
from nncc.ir.text import print_nest
from nncc.ir.types import DTYPES
from nncc.isa.container import Reader, guarded, name, number, pack, unpack
from nncc.isa.tpu.encoding import decode_instruction, encode_instruction
from nncc.isa.tpu.program import ROLES, Data, HostBuffer, Origin, Program
from nncc.isa.tpu.verify import verify
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import UNIFIED_BUFFER, WEIGHT_MEMORY
from nncc.machines.systolic.sizes import array_of

MAGIC = b"nnccTPU\0"
VERSION = 1
_MEMORIES = (WEIGHT_MEMORY, UNIFIED_BUFFER)


def machine_hash(machine: Machine) -> bytes:
    """What a binary is bound to: the array, and what its operations mean."""
    texts = [repr(array_of(machine))]
    texts += [f"{o.name} {print_nest(o.semantics)}" for o in machine.operations.values()]
    return hashlib.sha256("\n".join(texts).encode()).digest()


def encode(program: Program, machine: Machine) -> bytes:
    """The binary of a program. Raises VerifyError if it cannot run on the machine."""
    verify(program, machine)
    parts = [number(len(program.instructions))]
    for position, i in enumerate(program.instructions):
        try:
            parts.append(encode_instruction(i))
        except ValueError as error:
            raise VerifyError(f"instruction {position}: {error}") from error
    parts.append(number(len(program.data)))
    for d in program.data:
        parts += [number(_MEMORIES.index(d.memory), 1), number(d.address)]
        parts += [number(len(d.content), 8), d.content]
    parts.append(number(len(program.buffers)))
    for b in program.buffers:
        parts += [number(ROLES.index(b.role), 1), name(b.name), number(b.address, 5)]
        parts += [name(b.dtype.name), number(len(b.shape), 1)]
        parts += [number(extent, 8) for extent in b.shape]
    parts.append(number(len(program.macs)))
    for node, count in program.macs.items():
        parts += [name(node), number(count, 8)]
    runs = [(origin, len(list(same))) for origin, same in groupby(program.origins)]
    parts.append(number(len(runs)))
    for origin, length in runs:
        parts += [name(origin.node), name(origin.tensor), number(len(origin.tile), 1)]
        parts += [number(t, 4, signed=True) for t in origin.tile]
        parts.append(number(length))
    return pack(MAGIC, VERSION, machine_hash(machine), b"".join(parts))


def decode(bits: bytes, machine: Machine) -> Program:
    """The program in a binary. Raises TargetError if it is damaged or for another machine."""
    what = "a program of a machine with a systolic array"
    reader = unpack(bits, MAGIC, VERSION, machine_hash(machine), what=what, machine=machine.name)
    return guarded(_program, reader)


def _program(reader: Reader) -> Program:
    instructions = []
    for position in range(reader.number()):
        try:
            instructions.append(decode_instruction(reader))
        except ValueError as error:
            raise ValueError(f"instruction {position}: {error}") from error
    data = []
    for _ in range(reader.number()):
        memory, address = _MEMORIES[reader.number(1)], reader.number()
        data.append(Data(memory, address, reader.take(reader.number(8))))
    buffers = []
    for _ in range(reader.number()):
        role, label, address = ROLES[reader.number(1)], reader.name(), reader.number(5)
        dtype = DTYPES[reader.name()]
        shape = tuple(reader.number(8) for _ in range(reader.number(1)))
        buffers.append(HostBuffer(label, role, address, dtype, shape))
    macs = [(reader.name(), reader.number(8)) for _ in range(reader.number())]
    if len(macs) != len(dict(macs)):
        raise ValueError("a node has two numbers of MACs")
    origins: list[Origin] = []
    for _ in range(reader.number()):
        node, tensor = reader.name(), reader.name()
        tile = tuple(reader.number(4, signed=True) for _ in range(reader.number(1)))
        length = reader.number()
        origin = Origin(node, tensor, tile)
        if not length or (origins and origins[-1] == origin):
            raise ValueError("origins are not what follows one another")
        if len(origins) + length > len(instructions):
            raise ValueError("there are more origins than instructions")
        origins += [origin] * length
    if origins and len(origins) != len(instructions):
        raise ValueError("there are fewer origins than instructions")
    return Program(tuple(instructions), tuple(origins), tuple(data), tuple(buffers), dict(macs))
