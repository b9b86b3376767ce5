"""The instructions of systolic-array machines, one frozen dataclass each.

    MatrixMultiply(row=0, accumulator=16, width=64, next_tile=True)
    Requantize(accumulator=16, row=512, width=64, lanes=256, parameters=1024, lo=0)

Units of the fields: a *row* is a row of the unified buffer (R bytes, one a lane), an *accumulator*
a row of accumulators (C int32), a *tile* a weight tile (R*C bytes, row-major: `w[r][c]`) of the
weight memory, a *host* address a byte of the host's memory. Activations are stored as int8.

Boxes. MatrixMultiply and the Activate instructions work on a box of `height` x `width` points
(i, j). Their operands' rows are affine in the point, with strides from the configuration:

    MatrixMultiply   source  row + i*SOURCE_1 + j*SOURCE_2
                     target  accumulator + i*TARGET_1 + j
    Activate         source  base + i*IN_1 + j*IN_2
                     target  base + i*OUT_1 + j*OUT_2
                     second operand of an addition: other + i*OTHER_1 + j*OTHER_2
                     windows: + r*WINDOW_1 + q*WINDOW_2 for r < WINDOW_HEIGHT, q < WINDOW_WIDTH

A stride of 0 reads a row again and again; no two points may write the same row. Configuration
registers take effect on the instructions that follow in the program, whatever unit they go to:
issue hands the values over with the instruction. At the start, outer strides (…_1) are 0, inner
strides (…_2) are 1, windows are 1 x 1.

Lanes of Activate: element `source_lane + l` of a source row goes to element `lane + l` of the
target row, for l < lanes; other lanes of the target keep what they hold.

Which unit runs an instruction is its class's `unit`; those without one are done by issue.
Every field's range is in its metadata, from which the encoding, the assembly and the checks are
made; see `nncc.isa.tpu.encoding` for the bits.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, ClassVar


class Unit(StrEnum):
    """What works beside each other; each takes its instructions in order."""

    HOST_READ = "host_read"
    WEIGHTS = "weights"
    MATRIX = "matrix"
    ACTIVATION = "activation"
    HOST_WRITE = "host_write"


UNITS = tuple(Unit)


class Register(IntEnum):
    """Configuration registers: strides in rows, sizes of windows."""

    SOURCE_1 = 0
    SOURCE_2 = 1
    TARGET_1 = 2
    IN_1 = 3
    IN_2 = 4
    OTHER_1 = 5
    OTHER_2 = 6
    OUT_1 = 7
    OUT_2 = 8
    WINDOW_1 = 9
    WINDOW_2 = 10
    WINDOW_HEIGHT = 11
    WINDOW_WIDTH = 12


REGISTERS = tuple(Register)
# What the registers hold when a program starts.
INITIAL = tuple(0 if r.name.endswith("_1") else 1 for r in REGISTERS)


def _number(low: int, high: int, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def _row(default: Any = dataclasses.MISSING) -> Any:
    return _number(0, (1 << 24) - 1, default)


def _accumulator() -> Any:
    return _number(0, (1 << 16) - 1)


def _extent(low: int = 1, default: Any = 1) -> Any:
    return _number(low, 0xFFFF, default)


def _byte(default: int) -> Any:
    return _number(-128, 127, default)


@dataclass(frozen=True, slots=True)
class Instruction:
    """The base of all instructions."""

    unit: ClassVar[Unit | None] = None


@dataclass(frozen=True, slots=True)
class ReadHostMemory(Instruction):
    """Rows row..row+rows-1 of the unified buffer from the host: `lanes` bytes a row, one row
    after the other from address `host`; the other lanes of the rows become `fill`.
    """

    unit: ClassVar[Unit | None] = Unit.HOST_READ

    host: int = _number(0, (1 << 40) - 1)
    row: int = _row()
    rows: int = _number(1, (1 << 24) - 1, 1)
    lanes: int = _extent()
    fill: int = _byte(0)


@dataclass(frozen=True, slots=True)
class WriteHostMemory(Instruction):
    """Lanes 0..lanes-1 of rows row..row+rows-1 to the host, one after the other from `host`."""

    unit: ClassVar[Unit | None] = Unit.HOST_WRITE

    host: int = _number(0, (1 << 40) - 1)
    row: int = _row()
    rows: int = _number(1, (1 << 24) - 1, 1)
    lanes: int = _extent()


@dataclass(frozen=True, slots=True)
class ReadWeights(Instruction):
    """Tile number `tile` of the weight memory into the FIFO, as soon as there is room."""

    unit: ClassVar[Unit | None] = Unit.WEIGHTS

    tile: int = _number(0, (1 << 32) - 1)


@dataclass(frozen=True, slots=True)
class MatrixMultiply(Instruction):
    """acc[i,j,c] = sum(r) x[i,j,r] * w[r,c], or += with `accumulate`; R lanes, C columns.

    Args:
        row: of the source at point (0, 0); `accumulator`: of the target there.
        height, width: the box; `height` 1 may have a width of up to 2^32 - 1 (the 1-D form),
            otherwise both are below 2^16.
        accumulate: add to what the accumulators hold (they must hold something).
        next_tile: take the next tile of the FIFO into the array first; otherwise the tile in use
            stays.
        unsigned: activations are x + 128: stored bytes with the top bit flipped.
    """

    unit: ClassVar[Unit | None] = Unit.MATRIX

    row: int = _row()
    accumulator: int = _accumulator()
    height: int = _extent()
    width: int = _number(1, (1 << 32) - 1, 1)
    accumulate: bool = False
    next_tile: bool = False
    unsigned: bool = False


@dataclass(frozen=True, slots=True)
class Activate(Instruction):
    """The base of what the activation unit does: one opcode, the class is its function field."""

    unit: ClassVar[Unit | None] = Unit.ACTIVATION


@dataclass(frozen=True, slots=True)
class Requantize(Activate):
    """y = clamp(z + (((acc + bias)*m + 2^(s-1)) >> s), lo, hi), per lane: accumulators to rows.

    `parameters` is the first row of a block of 9*C bytes, lane by lane and row by row: C int32
    biases, C int32 multipliers m, C bytes of shifts s (all little-endian), indexed by the column
    of the accumulator (source_lane + l). acc + bias must stay within int32, s in 1..62.
    """

    accumulator: int = _accumulator()
    row: int = _row()
    parameters: int = _row()
    height: int = _extent()
    width: int = _extent()
    source_lane: int = _extent(0, 0)
    lane: int = _extent(0, 0)
    lanes: int = _extent()
    z: int = _byte(0)
    lo: int = _byte(-128)
    hi: int = _byte(127)


@dataclass(frozen=True, slots=True)
class AddRows(Activate):
    """y = clamp(z + (((a-za)*ma + (b-zb)*mb + 2^(s-1)) >> s), lo, hi): a residual addition.

    a at `source`, b at `other`; both use `source_lane`. All arithmetic is in int32.
    """

    source: int = _row()
    other: int = _row()
    row: int = _row()
    height: int = _extent()
    width: int = _extent()
    source_lane: int = _extent(0, 0)
    lane: int = _extent(0, 0)
    lanes: int = _extent()
    za: int = _byte(0)
    zb: int = _byte(0)
    ma: int = _number(0, (1 << 15) - 1, 0)
    mb: int = _number(0, (1 << 15) - 1, 0)
    s: int = _number(1, 30, 1)
    z: int = _byte(0)
    lo: int = _byte(-128)
    hi: int = _byte(127)


@dataclass(frozen=True, slots=True)
class LookUp(Activate):
    """y = table[x + 128]; the 256 bytes stand lane by lane and row by row from row `table`."""

    source: int = _row()
    row: int = _row()
    table: int = _row()
    height: int = _extent()
    width: int = _extent()
    source_lane: int = _extent(0, 0)
    lane: int = _extent(0, 0)
    lanes: int = _extent()


@dataclass(frozen=True, slots=True)
class PoolMax(Activate):
    """y = the largest x of the window."""

    source: int = _row()
    row: int = _row()
    height: int = _extent()
    width: int = _extent()
    source_lane: int = _extent(0, 0)
    lane: int = _extent(0, 0)
    lanes: int = _extent()


@dataclass(frozen=True, slots=True)
class WindowSum(Activate):
    """acc = the sum of x over the window, or += with `accumulate`: rows to accumulators."""

    source: int = _row()
    accumulator: int = _accumulator()
    height: int = _extent()
    width: int = _extent()
    source_lane: int = _extent(0, 0)
    lane: int = _extent(0, 0)
    lanes: int = _extent()
    accumulate: bool = False


@dataclass(frozen=True, slots=True)
class FillRows(Activate):
    """y = value."""

    row: int = _row()
    height: int = _extent()
    width: int = _extent()
    lane: int = _extent(0, 0)
    lanes: int = _extent()
    value: int = _byte(0)


@dataclass(frozen=True, slots=True)
class CopyRows(Activate):
    """y = x."""

    source: int = _row()
    row: int = _row()
    height: int = _extent()
    width: int = _extent()
    source_lane: int = _extent(0, 0)
    lane: int = _extent(0, 0)
    lanes: int = _extent()


@dataclass(frozen=True, slots=True)
class SetConfiguration(Instruction):
    """A configuration register gets a value, for the instructions that follow."""

    register: Register
    value: int = _row()


@dataclass(frozen=True, slots=True)
class Sync(Instruction):
    """`waiting` starts nothing more before all that `on` was given so far is complete.

    Everything that was complete when `on` began is then complete for `waiting` too.
    """

    waiting: Unit
    on: Unit


@dataclass(frozen=True, slots=True)
class SyncHost(Instruction):
    """Issue stops until every unit has completed what it was given."""


@dataclass(frozen=True, slots=True)
class InterruptHost(Instruction):
    """The host gets `code`; the trace keeps it."""

    code: int = _number(0, (1 << 32) - 1, 0)


@dataclass(frozen=True, slots=True)
class DebugTag(Instruction):
    """A mark in the trace."""

    tag: int = _number(0, (1 << 32) - 1, 0)


@dataclass(frozen=True, slots=True)
class Nop(Instruction):
    """Nothing, for one issue cycle."""


@dataclass(frozen=True, slots=True)
class Halt(Instruction):
    """The end of the program, once every unit has completed what it was given."""


# In the order of their opcodes (Activate: of its functions).
ACTIVATIONS: tuple[type[Activate], ...] = (
    Requantize, AddRows, LookUp, PoolMax, WindowSum, FillRows, CopyRows,
)  # fmt: skip
INSTRUCTIONS: tuple[type[Instruction], ...] = (
    Nop, ReadHostMemory, WriteHostMemory, ReadWeights, MatrixMultiply, *ACTIVATIONS,
    SetConfiguration, Sync, SyncHost, InterruptHost, DebugTag, Halt,
)  # fmt: skip


_FIELDS = {kind: dataclasses.fields(kind) for kind in INSTRUCTIONS}


def fields_of(kind: type[Instruction]) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of an instruction in the order of the text."""
    return _FIELDS[kind]


def mnemonic(kind: type[Instruction]) -> str:
    """The name of an instruction in assembly.

    >>> mnemonic(MatrixMultiply)
    'matrix_multiply'
    """
    name = kind.__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


def range_problem(instruction: Instruction) -> str:
    """What field no encoding can hold, as text; "" if they all fit."""
    for f in fields_of(type(instruction)):
        value = getattr(instruction, f.name)
        if f.metadata and not f.metadata["low"] <= value <= f.metadata["high"]:
            return f"{f.name} is {value}, not in {f.metadata['low']}..{f.metadata['high']}"
    two_dimensional = isinstance(instruction, MatrixMultiply) and instruction.height > 1
    if two_dimensional and instruction.width > 0xFFFF:  # type: ignore[attr-defined]
        return "width is above 65535, which height 1 alone allows"
    return ""
