"""Calls whose tensors do not fit into the unified buffer all at once, done piece by piece.

Operations that follow each other are one piece as long as the rows that they reach fit: of each
tensor the rows from the first to the last one. These come from the host, and what the piece wrote
goes there. Sums stay in the accumulators meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nncc.backends.tpu.order import Stream
from nncc.backends.tpu.places import Places
from nncc.backends.tpu.residence import Used
from nncc.backends.tpu.select import Selector
from nncc.backends.tpu.transfers import Transfers
from nncc.backends.tpu.walk import Operand, Step
from nncc.diagnostics import TargetError
from nncc.machines.systolic.model import UNIFIED_BUFFER

Spans = dict[str, tuple[int, int]]  # first row and the one after the last, of each tensor


class Pieces:
    """Appends the instructions of one call.

    Args:
        used: its tensors, none of which is in the unified buffer.
    """

    def __init__(
        self, used: Used, places: Places, stream: Stream, selector: Selector, transfers: Transfers
    ) -> None:
        self.used, self.places = used, places
        self.stream, self.selector, self.transfers = stream, selector, transfers
        sizes, row = places.sizes(), 0
        self.bases: dict[int, str] = {}  # tensors by the rows that they would have one by one
        for name in dict.fromkeys((*used.reads, *used.writes)):
            self.bases[row] = name
            row += sizes[name]
        places.at = {name: row for row, name in self.bases.items()}
        self.stored = {name: np.zeros(sizes[name], bool) for name in used.writes}
        for name in used.writes:
            transfers.stores(name)

    def run(self, steps: Iterator[Step]) -> None:
        """Raises TargetError if one operation alone reaches too many rows."""
        piece: list[Step] = []
        spans: Spans = {}
        for s in steps:
            own = self.spans(s)
            both = _joined(spans, own)
            if piece and _rows(both) > self.places.first:
                self.flush(piece, spans)
                piece, both = [], own
            if _rows(both) > self.places.first:
                raise TargetError(
                    f"{self.used.node} needs {_rows(both)} rows of the unified buffer at once; "
                    f"constants leave {self.places.first}",
                    help="compile for a smaller batch or a machine with a larger unified buffer",
                )
            piece.append(s)
            spans = both
        self.flush(piece, spans)

    def spans(self, s: Step) -> Spans:
        """The rows that an operation reaches."""
        found: Spans = {}
        for o in (*s.operands, s.target):
            if (name := self.name(o)) is not None:
                reach = [(s.extents[d] - 1) * stride for d, stride in o.strides.items()]
                first = o.row - o.region.base
                low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
                found = _joined(found, {name: (first + low, first + high + 1)})
        return found

    def name(self, o: Operand) -> str | None:
        """The tensor of an operand; None for constants and accumulators."""
        known = o.region.space == UNIFIED_BUFFER and o.region.content is None
        return self.bases[o.region.base] if known else None

    def flush(self, piece: list[Step], spans: Spans) -> None:
        """One piece: rows in, operations, rows out."""
        written = {
            name: np.zeros(end - first, bool)
            for name, (first, end) in spans.items()
            if name in self.stored
        }
        for s in piece:
            if (target := self.name(s.target)) is not None:
                written[target][self.rows(s) - spans[target][0]] = True
        windows: dict[str, int] = {}
        row = 0
        for name, (first, end) in spans.items():
            windows[name] = row
            wanted = np.ones(end - first, bool)
            if name in written:  # other lanes of the same rows may be there already
                wanted = self.stored[name][first:end] & written[name]
                self.transfers.clear(self.stream, row, end - first, self.used.node)
            self.transfers.fetch(self.stream, name, first, wanted, row, self.used.node)
            row += end - first
        for s in piece:
            self.selector.add(self.moved(s, windows, spans))
            self.places.check()
        self.selector.finish()
        for name, rows in written.items():
            first, end = spans[name]
            row = windows[name]
            self.transfers.store(self.stream, name, first, rows, row, self.used.node)
            self.stored[name][first:end] |= rows

    def moved(self, s: Step, windows: dict[str, int], spans: Spans) -> Step:
        """An operation on the rows where its tensors are now."""

        def place(o: Operand) -> Operand:
            name = self.name(o)
            if name is None:
                return o
            return replace(o, row=o.row - o.region.base - spans[name][0] + windows[name])

        return replace(s, target=place(s.target), operands=tuple(map(place, s.operands)))

    def rows(self, s: Step) -> np.ndarray:
        """The rows of its tensor that an operation writes."""
        o = s.target
        a, b = (np.arange(s.extents[n]) * o.strides.get(n, 0) for n in ("a", "b"))
        return (o.row - o.region.base + a[:, None] + b).reshape(-1)


def _joined(a: Spans, b: Spans) -> Spans:
    found = dict(a)
    for name, (first, end) in b.items():
        old = found.get(name, (first, end))
        found[name] = min(old[0], first), max(old[1], end)
    return found


def _rows(spans: Spans) -> int:
    return sum(end - first for first, end in spans.values())
