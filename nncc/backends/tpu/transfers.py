"""Tensors on their way between the host and the unified buffer.

Inputs and outputs have as many bytes of each row in the host's memory as hold elements. Of a tensor
that goes there for want of room, the lanes go that have been written; when it comes back, the
others are filled.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nncc.backends.tpu.order import Rows, Stream, Use
from nncc.backends.tpu.places import Places
from nncc.backends.tpu.residence import Move
from nncc.diagnostics import TargetError
from nncc.isa.tpu.instructions import ReadHostMemory, WriteHostMemory
from nncc.isa.tpu.program import Origin
from nncc.machines.systolic.model import HOST, UNIFIED_BUFFER

Part = tuple[int, int, int, int]  # rows after the first one, how many, lanes, bytes before them


class Transfers:
    """Appends the instructions of moves to a program.

    Args:
        moves: all that there will be.
    """

    def __init__(self, places: Places, moves: Iterable[Move]) -> None:
        self.places, self.sizes = places, places.sizes()
        moved = dict.fromkeys(m.tensor for m in moves if m.tensor not in places.host)
        places.scratch = {name: self.sizes[name] for name in moved}
        self.buffers = places.buffers()
        self.numbers = {name: k for k, name in enumerate(self.buffers)}
        array = places.array
        shape = (array.unified_rows, array.rows) if moved else (0, array.rows)
        self.defined = np.zeros(shape, bool)
        self.parts: dict[str, list[Part]] = {
            t.name: [(0, t.rows, t.lanes, 0)] for t in places.host.values()
        }

    def written(self, rows: Rows, lane: int, lanes: int) -> None:
        """Lanes of rows have got a value."""
        if len(self.defined):
            self.defined[rows, lane : lane + lanes] = True

    def begin(self, tensor: str, row: int) -> None:
        """The rows of a tensor hold nothing yet."""
        if len(self.defined):
            self.defined[row : row + self.sizes[tensor]] = False

    def move(self, stream: Stream, m: Move, node: str) -> None:
        """The instructions of a move, for a node of the model."""
        origin, buffer = Origin(node, m.tensor), self.buffers[m.tensor]
        if m.direction == "write" and m.tensor not in self.places.host:
            self.parts[m.tensor] = self.filled_parts(m)
        for first, count, lanes, before in self.parts[m.tensor]:
            row, address = m.row + first, buffer.address + before
            in_buffer = Use(UNIFIED_BUFFER, slice(row, row + count), m.direction == "read")
            number = self.numbers[m.tensor]
            on_host = Use(HOST, slice(number, number + 1), m.direction == "write")
            kind = ReadHostMemory if m.direction == "read" else WriteHostMemory
            stream.add(kind(address, row, count, lanes), origin, (in_buffer, on_host))
            if m.direction == "read":
                self.written(slice(row, row + count), 0, self.places.array.rows)

    def filled_parts(self, m: Move) -> list[Part]:
        """Rows that follow each other and have as many lanes. Raises TargetError for gaps."""
        defined = self.defined[m.row : m.row + self.sizes[m.tensor]]
        lanes = defined.sum(axis=1)
        leading = np.where(defined.all(axis=1), defined.shape[1], defined.argmin(axis=1))
        if (leading != lanes).any() or not lanes.all():
            raise TargetError(f"'{m.tensor}' has lanes without a value between others")
        starts = [0, *(int(k) for k in np.flatnonzero(np.diff(lanes)) + 1)]
        found: list[Part] = []
        before = 0
        for start, stop in zip(starts, [*starts[1:], len(lanes)], strict=True):
            found.append((start, stop - start, int(lanes[start]), before))
            before += (stop - start) * int(lanes[start])
        return found
