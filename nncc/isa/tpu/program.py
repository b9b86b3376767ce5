"""Programs of systolic-array machines: instructions, constants, host buffers, origins.

Program(
    instructions=(ReadWeights(0), MatrixMultiply(0, 0, width=8, next_tile=True), …, Halt()),
    origins=(Origin("conv1", "y", (0, 0)), …),
    data=(Data("weight_memory", 0, tile), Data("unified_buffer", 1024, rows)),
    buffers=(HostBuffer("image", "in", 0, i8, (1, 28, 28, 1)),),
    macs={"conv1": 156800},
)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from nncc.ir.types import DType
from nncc.isa.tpu.instructions import Instruction


@dataclass(frozen=True, slots=True)
class Origin:
    """What an instruction works for.

    Args:
        node: of the user's model, or "" for none; `tensor`: the one that it makes or moves.
        tile: position of the piece of the tensor or schedule, whatever the compiler counts.
    """

    node: str = ""
    tensor: str = ""
    tile: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f"[{','.join(map(str, self.tile))}]" if self.tile else ""
        what = f"{self.tensor}{where}"
        return f"{self.node}: {what}" if self.node and what else self.node or what


NO_ORIGIN = Origin()
Role = Literal["in", "out", "temporary"]
ROLES: tuple[Role, ...] = ("in", "out", "temporary")


@dataclass(frozen=True, slots=True)
class Data:
    """Constants that are in place before the program starts.

    Args:
        memory: `weight_memory` or `unified_buffer`.
        address: the first tile or row; `content`: bytes from there on, over as many tiles or
            rows as it takes. What it leaves of the last one stays undefined.
    """

    memory: str
    address: int
    content: bytes


@dataclass(frozen=True, slots=True)
class HostBuffer:
    """A tensor in the host's memory: row-major, no gaps.

    Args:
        role: `in` (the host fills it before the run), `out` (the program fills it) or `temporary`
            (what does not fit the unified buffer).
        address: byte in the host's memory.
        shape: physical extents: those of the tensor's layout, not of its type.
    """

    name: str
    role: Role
    address: int
    dtype: DType
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.bits // 8


@dataclass(frozen=True)
class Program:
    """A program; it starts with the first instruction and ends at Halt.

    Args:
        origins: one for each instruction, or none at all.
        macs: multiply-accumulates that nodes need; for the others all that the array does count.
    """

    instructions: tuple[Instruction, ...]
    origins: tuple[Origin, ...] = ()
    data: tuple[Data, ...] = ()
    buffers: tuple[HostBuffer, ...] = ()
    macs: Mapping[str, int] = field(default_factory=dict)

    def origin(self, position: int) -> Origin:
        """What the instruction at `position` works for."""
        return self.origins[position] if self.origins else NO_ORIGIN
