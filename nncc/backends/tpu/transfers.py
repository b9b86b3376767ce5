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
from nncc.isa.tpu.instructions import FillRows, ReadHostMemory, Register, WriteHostMemory
from nncc.isa.tpu.program import Origin
from nncc.machines.systolic.boxes import LONGEST
from nncc.machines.systolic.model import HOST, UNIFIED_BUFFER

Part = tuple[int, int, int, int]  # rows after the first one, how many, lanes, bytes before them


class Transfers:
    """Appends the instructions of moves to a program.

    Args:
        tensors: all that are moved.
    """

    def __init__(self, places: Places, tensors: Iterable[str]) -> None:
        self.places, self.sizes = places, places.sizes()
        moved = dict.fromkeys(name for name in tensors if name not in places.host)
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
        if m.direction == "write" and m.tensor not in self.places.host:
            self.parts[m.tensor] = self.filled_parts(m)
        for first, count, lanes, before in self.parts[m.tensor]:
            part = m.row + first, count, lanes, before
            if m.direction == "read":
                self._read(stream, m.tensor, part, node)
            else:
                self._write(stream, m.tensor, part, node)

    def _read(self, stream: Stream, tensor: str, part: Part, node: str) -> None:
        row, count, lanes, before = part
        number, rows = self.numbers[tensor], slice(row, row + count)
        uses = Use(UNIFIED_BUFFER, rows, True), Use(HOST, slice(number, number + 1), False)
        address = self.buffers[tensor].address + before
        stream.add(ReadHostMemory(address, row, count, lanes), Origin(node, tensor), uses)
        self.written(rows, 0, self.places.array.rows)

    def _write(self, stream: Stream, tensor: str, part: Part, node: str) -> None:
        row, count, lanes, before = part
        number, rows = self.numbers[tensor], slice(row, row + count)
        uses = Use(UNIFIED_BUFFER, rows, False), Use(HOST, slice(number, number + 1), True)
        address = self.buffers[tensor].address + before
        stream.add(WriteHostMemory(address, row, count, lanes), Origin(node, tensor), uses)

    # -- parts of tensors ------------------------------------------------------------------
    def stores(self, tensor: str) -> None:
        """The rows of a tensor go to the host one by one, all with as many lanes."""
        lanes = self.buffers[tensor].shape[1]
        self.parts[tensor] = [(0, self.sizes[tensor], lanes, 0)]

    def clear(self, stream: Stream, row: int, count: int, node: str) -> None:
        """All lanes of some rows get a value."""
        lanes = self.places.array.rows
        for start in range(row, row + count, LONGEST):
            rows = slice(start, min(start + LONGEST, row + count))
            fill = FillRows(start, 1, rows.stop - start, 0, lanes, 0)
            use = Use(UNIFIED_BUFFER, rows, True)
            stream.add(fill, Origin(node), [use], {Register.OUT_2: 1})
            self.written(rows, 0, lanes)

    def fetch(
        self, stream: Stream, tensor: str, first: int, wanted: np.ndarray, row: int, node: str
    ) -> None:
        """Rows of a tensor from `first` on, those that are wanted, to rows from `row` on."""
        for start, stop in _runs(wanted):
            for own, count, lanes, before in self.parts[tensor]:
                low, high = max(first + start, own), min(first + stop, own + count)
                if low < high:
                    at = row + low - first, high - low, lanes, before + (low - own) * lanes
                    self._read(stream, tensor, at, node)

    def store(
        self, stream: Stream, tensor: str, first: int, wanted: np.ndarray, row: int, node: str
    ) -> None:
        """Rows from `row` on, those that are wanted, to the rows of a tensor from `first` on."""
        ((_, _, lanes, _),) = self.parts[tensor]
        for start, stop in _runs(wanted):
            part = row + start, stop - start, lanes, (first + start) * lanes
            self._write(stream, tensor, part, node)

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


def _runs(wanted: np.ndarray) -> list[tuple[int, int]]:
    """Neighbours that are true: first, and the one after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wanted.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
