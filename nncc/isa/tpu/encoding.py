"""Instructions as bits.

One fact about the TPU's encoding is public: MatrixMultiply has 12 bytes, of which 3 are the
address in the unified buffer, 2 that of the accumulators, 4 a length (or two dimensions), and 3
opcode and flags. Everything else here is nncc's own.

An instruction begins with a byte of opcode; integers are little-endian; its length follows from
the opcode, for Activate from the function in the second byte. Layouts, fields in this order:

    0  nop
    1  read_host_memory    host 5, row 3, rows 3, lanes 2, fill 1
    2  write_host_memory   host 5, row 3, rows 3, lanes 2
    3  read_weights        tile 4
    4  matrix_multiply     flags 2, row 3, accumulator 2, length 4: a width, or (flag 2-D) a width
                           of 2 bytes and a height of 2
    5  activate            function 1, then the fields in the order of the dataclass: rows 3,
                           accumulators, extents and lanes 2, multipliers 2, everything else 1
    6  set_configuration   register 1, value 3
    7  sync                waiting 1, on 1
    8  sync_host
    9  interrupt_host      code 4
    10 debug_tag           tag 4
    255 halt

Flags of matrix_multiply: bit 0 accumulate, 1 next_tile, 2 unsigned, 3 2-D.
"""

from __future__ import annotations

from nncc.isa.container import Reader, number
from nncc.isa.tpu.instructions import (
    ACTIVATIONS,
    REGISTERS,
    UNITS,
    Activate,
    DebugTag,
    Halt,
    Instruction,
    InterruptHost,
    MatrixMultiply,
    Nop,
    ReadHostMemory,
    ReadWeights,
    SetConfiguration,
    Sync,
    SyncHost,
    WriteHostMemory,
    fields_of,
    range_problem,
)

_ACTIVATE = 5
_OPCODES: dict[type[Instruction], int] = {
    Nop: 0, ReadHostMemory: 1, WriteHostMemory: 2, ReadWeights: 3, MatrixMultiply: 4,
    SetConfiguration: 6, Sync: 7, SyncHost: 8, InterruptHost: 9, DebugTag: 10, Halt: 255,
}  # fmt: skip
_KINDS = {opcode: kind for kind, opcode in _OPCODES.items()}
_FLAGS = ("accumulate", "next_tile", "unsigned")
_TWO_DIMENSIONAL = 1 << len(_FLAGS)


def _layout(kind: type[Instruction]) -> tuple[tuple[str, int, bool], ...]:
    """(field, bytes, signed) of an instruction's numbers."""
    found = []
    for f in fields_of(kind):
        low, high = f.metadata.get("low", 0), f.metadata.get("high", 1)
        bits = high.bit_length() + (low < 0)
        found.append((f.name, -(-bits // 8), low < 0))
    return tuple(found)


_LAYOUTS = {kind: _layout(kind) for kind in (*_OPCODES, *ACTIVATIONS)}


def encode_instruction(i: Instruction) -> bytes:
    """The bits of an instruction. Raises ValueError if a field is out of range."""
    if problem := range_problem(i):
        raise ValueError(problem)
    if isinstance(i, MatrixMultiply):
        return _encode_multiply(i)
    if isinstance(i, SetConfiguration):
        return bytes([_OPCODES[type(i)], i.register]) + number(i.value, 3)
    if isinstance(i, Sync):
        return bytes([_OPCODES[type(i)], UNITS.index(i.waiting), UNITS.index(i.on)])
    kind = type(i)
    head = (
        bytes([_ACTIVATE, ACTIVATIONS.index(kind)])
        if isinstance(i, Activate)
        else bytes([_OPCODES[kind]])
    )
    return head + b"".join(
        number(int(getattr(i, name)), size, signed=signed) for name, size, signed in _LAYOUTS[kind]
    )


def _encode_multiply(i: MatrixMultiply) -> bytes:
    flags = sum(1 << k for k, name in enumerate(_FLAGS) if getattr(i, name))
    extent = number(i.width)
    if i.height > 1:
        flags |= _TWO_DIMENSIONAL
        extent = number(i.width, 2) + number(i.height, 2)
    head = bytes([_OPCODES[MatrixMultiply]]) + number(flags, 2)
    return head + number(i.row, 3) + number(i.accumulator, 2) + extent


def decode_instruction(reader: Reader) -> Instruction:
    """The next instruction. Raises ValueError if there is none."""
    opcode = reader.number(1)
    if opcode == _ACTIVATE:
        function = reader.number(1)
        if function >= len(ACTIVATIONS):
            raise ValueError(f"there is no function {function} of activate")
        return _decoded(ACTIVATIONS[function], reader)
    kind = _KINDS.get(opcode)
    if kind is None:
        raise ValueError(f"there is no opcode {opcode}")
    if kind is MatrixMultiply:
        return _decode_multiply(reader)
    if kind is SetConfiguration:
        return _checked(SetConfiguration(REGISTERS[reader.number(1)], reader.number(3)))
    if kind is Sync:
        return Sync(UNITS[reader.number(1)], UNITS[reader.number(1)])
    return _decoded(kind, reader)


def _decoded(kind: type[Instruction], reader: Reader) -> Instruction:
    values: dict[str, int | bool] = {
        name: reader.number(size, signed=signed) for name, size, signed in _LAYOUTS[kind]
    }
    for f in fields_of(kind):
        if not f.metadata:  # a flag
            if values[f.name] > 1:
                raise ValueError(f"{f.name} is {values[f.name]}, neither 0 nor 1")
            values[f.name] = bool(values[f.name])
    return _checked(kind(**values))


def _decode_multiply(reader: Reader) -> Instruction:
    flags = reader.number(2)
    if flags >= 2 * _TWO_DIMENSIONAL:
        raise ValueError(f"matrix_multiply has no flags {flags:#x}")
    row, accumulator = reader.number(3), reader.number(2)
    two = bool(flags & _TWO_DIMENSIONAL)
    width = reader.number(2 if two else 4)
    height = reader.number(2) if two else 1
    if two and height < 2:
        raise ValueError(f"a 2-D matrix_multiply of height {height}")
    values = [bool(flags & 1 << k) for k in range(len(_FLAGS))]
    return _checked(MatrixMultiply(row, accumulator, height, width, *values))


def _checked(i: Instruction) -> Instruction:
    if problem := range_problem(i):
        raise ValueError(problem)
    return i
