"""Which rows and tiles tensors and constants have.

The arena of the memory plan lies at the start of the unified buffer, the model's inputs and
outputs behind it, then constants in the order of their first use. Where that is too much, tensors
go to the host and come back (`residence`), and constants lie at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nncc.backends.tpu.residence import Move, Residence, Used, residence
from nncc.diagnostics import TargetError
from nncc.ir.bounds import Range, bounds
from nncc.ir.index import Size
from nncc.ir.loops import Buffer, Call
from nncc.ir.nests import Layout
from nncc.ir.program import ARENA, MAIN, WEIGHTS, Program
from nncc.ir.types import TensorType, i8
from nncc.isa.tpu.program import Data, HostBuffer, Role
from nncc.machines.systolic.model import UNIFIED_BUFFER, WEIGHT_MEMORY, SystolicArray


@dataclass(frozen=True)
class Region:
    """A buffer of a function in a memory.

    Args:
        base: its first row, or tile; `shape`: literal extents; `content`: that of a constant.
    """

    space: str
    base: int
    shape: tuple[int, ...]
    content: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class HostTensor:
    """An input or output of the model: its rows, and how many bytes of each go to the host."""

    name: str
    rows: int
    lanes: int
    role: Role


class Full(TargetError):
    """The unified buffer is too small."""


class Places:
    """The memories of a program that is being compiled.

    Args:
        first: the row from which on constants lie; None: behind the arena, inputs and outputs.
    """

    def __init__(self, program: Program, array: SystolicArray, first: int | None = None) -> None:
        self.array = array
        self.weights = program.weights_block()
        self.arena = [p for p in program.memory.placements if p.space == "arena"]
        self.tiles = 0
        self.data: list[Data] = []
        self.host: dict[str, HostTensor] = {}
        self.scratch: dict[str, int] = {}  # tensors for which the host has a buffer, with rows
        self.at: Mapping[str, int] = {}  # first rows of the tensors of the current call
        self._tiles: dict[int, int] = {}
        self._blocks: dict[bytes, int] = {}
        signature = program.signature
        roles: tuple[tuple[Role, tuple[tuple[str, TensorType], ...]], ...] = (
            ("in", signature.inputs), ("out", signature.outputs),
        )  # fmt: skip
        for role, tensors in roles:
            for name, type in tensors:
                self._add_host(name, type, program.layouts.get(name), role)
        self.calls = [self._used(program, k, call) for k, call in enumerate(calls(program))]
        arena = literal(program.memory.arena_bytes)
        self.behind_arena = -(-arena // array.rows) + len(program.memory.placements)
        rows = self.behind_arena + sum(t.rows for t in self.host.values())
        self.first = self.rows = rows if first is None else first

    def _add_host(self, name: str, type: TensorType, layout: Layout | None, role: Role) -> None:
        if layout is None or type.dtype.bits != 8:
            raise TargetError(f"'{name}' ({type}) is not kept in rows of bytes")
        rows = int(np.prod([literal(e) for e in layout.extents[:-1]]))
        ranges: dict[str, Range] = {f"d{k}": (0, e - 1) for k, e in enumerate(type.shape)}
        _, last = bounds(layout.dims[-1], ranges)  # lanes without an element stay here
        self.host[name] = HostTensor(name, rows, literal(last) + 1, role)

    # -- tensors ---------------------------------------------------------------------------
    def _used(self, program: Program, number: int, call: Call) -> Used:
        """The tensors of a call."""
        reads: list[str] = []
        writes: list[str] = []
        for view, buffer in zip(
            call.arguments, program.functions[call.callee].buffers, strict=True
        ):
            if view.buffer != WEIGHTS:
                name = self.tensor(view.buffer, literal(view.offset), number)
                (reads if buffer.access == "in" else writes).append(name)
        return Used(call.source, tuple(reads), tuple(writes))

    def tensor(self, block: str, offset: int, number: int) -> str:
        """The tensor at a place of a block in call number `number`."""
        if block != ARENA:
            return block
        return next(
            p.tensor for p in self.arena
            if p.offset == offset and p.first <= number <= p.last
        )  # fmt: skip

    def sizes(self) -> dict[str, int]:
        """The rows of every tensor."""
        found = {p.tensor: -(-literal(p.bytes) // self.array.rows) for p in self.arena}
        return found | {t.name: t.rows for t in self.host.values()}

    def planned(self) -> Residence:
        """All tensors where the memory plan puts them; the host's come first and go last."""
        rows = {p.tensor: -(-literal(p.offset) // self.array.rows) for p in self.arena}
        end = self.behind_arena
        reads: list[Move] = []
        writes: list[Move] = []
        for t in self.host.values():
            rows[t.name], end = end, end + t.rows
            if t.role == "in":
                reads.append(Move("read", t.name, rows[t.name]))
            else:
                writes.append(Move("write", t.name, rows[t.name]))
        between: list[tuple[Move, ...]] = [()] * (len(self.calls) + 1)
        between[0] = (*between[0], *reads)
        between[-1] = (*between[-1], *writes)
        return Residence(tuple(between), (rows,) * len(self.calls))

    def moved(self) -> Residence:
        """Tensors in the rows before the constants, and on the host when there is no room."""
        roles = {role: frozenset(t.name for t in self.host.values() if t.role == role)
                 for role in ("in", "out")}  # fmt: skip
        return residence(self.calls, self.sizes(), self.first, roles["in"], roles["out"])

    def _take(self, rows: int) -> int:
        start = self.rows
        self.rows += rows
        return start

    def region(self, block: str, offset: int, buffer: Buffer, number: int) -> Region:
        """What call number `number` sees as `buffer`: a part of a block, an input or output."""
        shape = tuple(literal(e) for e in buffer.shape)
        size = int(np.prod(shape)) * buffer.dtype.bits // 8
        if block == WEIGHTS:
            raw = self.weights[offset : offset + size]
            content = raw.view(buffer.dtype.numpy).reshape(shape)
            if buffer.space == WEIGHT_MEMORY:
                return Region(WEIGHT_MEMORY, self._tile(offset, content), shape)
            return Region(UNIFIED_BUFFER, offset, shape, content)
        return Region(UNIFIED_BUFFER, self.at[self.tensor(block, offset, number)], shape)

    def _tile(self, offset: int, content: np.ndarray) -> int:
        if offset not in self._tiles:
            self._tiles[offset] = self.tiles
            self.data.append(Data(WEIGHT_MEMORY, self.tiles, content.tobytes()))
            self.tiles += content.shape[0]
        return self._tiles[offset]

    def rows_of(self, region: Region) -> int:
        """The first row of a constant that is read row by row."""
        assert region.content is not None
        return self.block(region.content.tobytes())

    def block(self, content: bytes) -> int:
        """The first row of some bytes; equal ones have one place."""
        if content not in self._blocks:
            count = -(-len(content) // self.array.rows)
            row = self._take(count)
            padded = content.ljust(count * self.array.rows, b"\0")
            self.data.append(Data(UNIFIED_BUFFER, row, padded))
            self._blocks[content] = row
        return self._blocks[content]

    # -- the host's memory -----------------------------------------------------------------
    def buffers(self) -> dict[str, HostBuffer]:
        """The host's buffers, one after the other, by tensor."""
        lanes = self.array.rows
        wanted: list[tuple[str, Role, tuple[int, int]]] = [
            (t.name, t.role, (t.rows, t.lanes)) for t in self.host.values()
        ]
        wanted += [(name, "temporary", (rows, lanes)) for name, rows in self.scratch.items()]
        found: dict[str, HostBuffer] = {}
        address = 0
        for name, role, shape in wanted:
            found[name] = HostBuffer(name, role, address, i8, shape)
            address += -(-shape[0] * shape[1] // 64) * 64
        return found

    def check(self) -> None:
        """Raises Full or TargetError if something does not fit."""
        for what, used, room, unit, error in (
            ("unified buffer", self.rows, self.array.unified_rows, "rows", Full),
            ("weight memory", self.tiles, self.array.weight_tiles, "tiles", TargetError),
        ):
            if used > room:
                raise error(f"the model needs {used} {unit} of the {what}, which has {room}")


def literal(size: Size) -> int:
    """A size of a program without named sizes. Raises TargetError."""
    if not isinstance(size, int):
        raise TargetError(f"the size {size} is not known", help="give every named size a number")
    return size


def calls(program: Program) -> tuple[Call, ...]:
    """The calls of the main function. Raises TargetError for other statements."""
    found = []
    for s in program.functions[MAIN].body:
        if not isinstance(s, Call):
            raise TargetError(f"the array has no instruction for {type(s).__name__}")
        if program.functions[s.callee].sizes:  # of any number of bytes: a copy
            raise TargetError(
                "an output is the same bytes as another output or an input, and the array has no "
                "instruction that copies them",
                help="make one of them alone an output of the model",
            )
        found.append(s)
    return tuple(found)
