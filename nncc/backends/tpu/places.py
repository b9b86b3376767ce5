"""Which rows and tiles tensors and constants have.

The arena of the memory plan lies at the start of the unified buffer, the model's inputs and
outputs behind it, then constants in the order of their first use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nncc.diagnostics import TargetError
from nncc.ir.index import Size
from nncc.ir.loops import Buffer
from nncc.ir.nests import Layout
from nncc.ir.program import ARENA, WEIGHTS, Program
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
    type: TensorType
    layout: Layout
    row: int
    rows: int
    lanes: int
    role: Role


class Places:
    """The memories of a program that is being compiled."""

    def __init__(self, program: Program, array: SystolicArray) -> None:
        self.array = array
        self.weights = program.weights_block()
        arena = literal(program.memory.arena_bytes)
        self.rows = -(-arena // array.rows) + len(program.memory.placements)
        self.tiles = 0
        self.data: list[Data] = []
        self.host: dict[str, HostTensor] = {}
        self._tiles: dict[int, int] = {}
        self._rows: dict[tuple[int, int], int] = {}
        self._blocks: dict[bytes, int] = {}
        signature = program.signature
        for role, tensors in (("in", signature.inputs), ("out", signature.outputs)):
            for name, type in tensors:
                self._add_host(name, type, program.layouts.get(name), role)  # type: ignore[arg-type]

    def _add_host(self, name: str, type: TensorType, layout: Layout | None, role: Role) -> None:
        if layout is None or type.dtype.bits != 8:
            raise TargetError(f"'{name}' ({type}) is not kept in rows of bytes")
        *outer, lanes = (literal(e) for e in layout.extents)
        channels = literal(type.shape[1])
        used = channels if channels <= lanes else lanes
        rows = int(np.prod(outer))
        self.host[name] = HostTensor(name, type, layout, self._take(rows), rows, used, role)

    def _take(self, rows: int) -> int:
        start = self.rows
        self.rows += rows
        return start

    def region(self, block: str, offset: int, buffer: Buffer) -> Region:
        """What a function sees as `buffer`: a part of a block, or an input or output."""
        shape = tuple(literal(e) for e in buffer.shape)
        size = int(np.prod(shape)) * buffer.dtype.bits // 8
        if block == ARENA:
            return Region(UNIFIED_BUFFER, -(-offset // self.array.rows), shape)
        if block == WEIGHTS:
            raw = self.weights[offset : offset + size]
            content = raw.view(buffer.dtype.numpy).reshape(shape)
            if buffer.space == WEIGHT_MEMORY:
                return Region(WEIGHT_MEMORY, self._tile(offset, content), shape)
            return Region(UNIFIED_BUFFER, offset, shape, content)
        return Region(UNIFIED_BUFFER, self.host[block].row, shape)

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

    def buffers(self) -> tuple[HostBuffer, ...]:
        """The host's buffers, one after the other."""
        found: list[HostBuffer] = []
        address = 0
        for t in self.host.values():
            found.append(HostBuffer(t.name, t.role, address, i8, (t.rows, t.lanes)))
            address += -(-t.rows * t.lanes // 64) * 64
        return tuple(found)

    def check(self) -> None:
        """Raises TargetError if something does not fit."""
        for what, used, room, unit in (
            ("unified buffer", self.rows, self.array.unified_rows, "rows"),
            ("weight memory", self.tiles, self.array.weight_tiles, "tiles"),
        ):
            if used > room:
                raise TargetError(
                    f"the model needs {used} {unit} of the {what}, which has {room}",
                    help="compile for a smaller batch" if what[0] == "u" else "",
                )


def literal(size: Size) -> int:
    """A size of a program without named sizes. Raises TargetError."""
    if not isinstance(size, int):
        raise TargetError(f"the size {size} is not known", help="give every named size a number")
    return size
