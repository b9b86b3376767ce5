"""A compiled model's outside: what a back end needs besides the Loops functions.

`main` and `reset` are Loops functions whose buffers are, in this order: the inputs, the outputs,
and then three blocks of bytes: weights, state and arena. `reset` writes the first state.

    main(image, logits, nncc.weights, nncc.state, nncc.arena; N)
    reset(nncc.weights, nncc.state; N)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nncc.ir.index import Size, evaluate
from nncc.ir.loops import Function
from nncc.ir.nests import Layout
from nncc.ir.types import TensorType

MAIN, RESET = "main", "reset"
# The names of the blocks; no input or output of a model is called so.
WEIGHTS, STATE, ARENA = "nncc.weights", "nncc.state", "nncc.arena"
BLOCKS = {"weights": WEIGHTS, "state": STATE, "arena": ARENA}

# Of every block, and of every tensor in it.
ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a tensor lives: `bytes` bytes from `offset` on, in one of the three blocks.

    It is alive from the call number `first` to the call number `last` of `main`.
    """

    tensor: str
    space: Literal["weights", "state", "arena"]
    offset: Size
    bytes: Size
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """Every placement, and the size in bytes of each block."""

    placements: tuple[Placement, ...]
    weights_bytes: int
    state_bytes: Size
    arena_bytes: Size

    def of(self, tensor: str) -> Placement | None:
        """The placement of a tensor; None if it has none (inputs, outputs and their aliases)."""
        return next((p for p in self.placements if p.tensor == tensor), None)


@dataclass(frozen=True)
class Signature:
    """What a caller passes and gets: names and logical types (dense, row-major)."""

    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    sizes: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """Everything a back end needs.

    Args:
        weights: (offset, function that gives the packed array) of every constant.
        extents: those of tensors that some sizes make less than 1: such sizes are refused.
        layouts: of the inputs and outputs that `main` takes in another form than row-major.
        macs: multiply-accumulates that the model asks for, by node, where that is known.
    """

    name: str
    signature: Signature
    functions: Mapping[str, Function]
    memory: MemoryPlan
    weights: tuple[tuple[int, Callable[[], np.ndarray]], ...]
    extents: tuple[Size, ...] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    macs: Mapping[str, int] = field(default_factory=dict)

    def weights_block(self) -> np.ndarray:
        """The bytes of all weights: uint8[weights_bytes]."""
        block = np.zeros(self.memory.weights_bytes, np.uint8)
        for offset, pack in self.weights:
            data = np.ascontiguousarray(pack()).reshape(-1).view(np.uint8)
            block[offset : offset + data.size] = data
        return block


# Offsets in one block are 64-bit integers, and no computer has more memory.
_LARGEST_BLOCK = 1 << 46


def largest_size(program: Program) -> int:
    """The power of two up to which every named size may grow without an overflow anywhere."""
    blocks = [program.memory.state_bytes, program.memory.arena_bytes]
    blocks += [t.bytes for _, t in program.signature.inputs + program.signature.outputs]
    limit = 1 << 40
    while limit > 1:
        values = dict.fromkeys(program.signature.sizes, limit)
        if all(evaluate(b, values) <= _LARGEST_BLOCK for b in blocks):
            break
        limit //= 2
    return limit
