"""A memory of rows: content, which lanes were ever written, and who used each row last.

Selections of rows are slices where the rows are evenly spaced, arrays of row numbers otherwise.
Violations are raised as `Violation`; the simulator adds cycle and instruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncc.isa.tpu.instructions import UNITS

Selection = slice | np.ndarray
Array = np.ndarray


class Violation(Exception):
    """A program did something that its machine forbids."""


def box_rows(base: int, counts: tuple[int, ...], strides: tuple[int, ...]) -> Selection:
    """The rows base + sum of i_k * strides[k], for i_k < counts[k], the last one fastest.

    >>> box_rows(4, (2, 3), (3, 1))
    slice(4, 10, 1)
    >>> box_rows(4, (2, 2), (0, 5)).tolist()
    [4, 9, 4, 9]
    """
    count, stride = 1, 1
    for n, s in zip(reversed(counts), reversed(strides), strict=True):
        if n == 1:
            continue
        if count == 1 and s > 0:
            count, stride = n, s
        elif count > 1 and s == count * stride:
            count *= n
        else:
            return _grid(base, counts, strides)
    return slice(base, base + (count - 1) * stride + 1, stride)


def _grid(base: int, counts: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    rows = np.array([base], np.int64)
    for n, s in zip(counts, strides, strict=True):
        rows = np.add.outer(rows, np.arange(n, dtype=np.int64) * s).reshape(-1)
    return rows


def first_and_last(base: int, counts: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
    """The smallest and the largest row of a box."""
    return base, base + sum((n - 1) * s for n, s in zip(counts, strides, strict=True))


def apart(sources: Selection, targets: Selection, *, same: bool) -> None:
    """Raises Violation unless an instruction's sources and targets have no row in common.

    Args:
        same: each point may read the row that it writes.
    """
    first, last = _span(sources)
    low, high = _span(targets)
    if last < low or high < first:
        return
    ours, theirs = _numbers(sources), _numbers(targets)
    if same and np.array_equal(ours, theirs):
        return
    common = np.intersect1d(ours, theirs)
    if len(common):
        raise Violation(f"row {common[0]} is read and written by the same instruction")


def _span(rows: Selection) -> tuple[int, int]:
    if isinstance(rows, slice):
        return rows.start, rows.stop - 1
    return int(rows.min()), int(rows.max())


def _numbers(rows: Selection) -> Array:
    if isinstance(rows, slice):
        return np.arange(rows.start, rows.stop, rows.step)
    return rows


class Rows:
    """A memory of `rows` rows with `lanes` elements each.

    Args:
        unit: what a row is called in messages.
    """

    def __init__(self, unit: str, rows: int, lanes: int, dtype: Any) -> None:
        self.unit, self.rows, self.lanes = unit, rows, lanes
        self.content = np.zeros((rows, lanes), dtype)
        self.written = np.zeros((rows, lanes), np.bool_)
        self.full = np.zeros(rows, np.bool_)  # rows of which every lane was written
        self.writer = np.zeros(rows, np.int8)
        self.write_number = np.zeros(rows, np.int32)  # 0: before the program began
        self.read_number: dict[int, Array] = {}  # for each unit that has read
        self.last_write = [0] * len(UNITS)
        self.last_read = [0] * len(UNITS)

    def inside(self, base: int, counts: tuple[int, ...], strides: tuple[int, ...]) -> None:
        """Raises Violation if a box leaves the memory."""
        _, last = first_and_last(base, counts, strides)
        if last >= self.rows:
            raise Violation(f"{self.unit} {last} is out of range: there are 0..{self.rows - 1}")

    def lanes_inside(self, lane: int, lanes: int) -> None:
        """Raises Violation if there are no such lanes."""
        if lane + lanes > self.lanes:
            raise Violation(
                f"lanes {lane}..{lane + lanes - 1} are out of range: "
                f"a row of the {self.unit}s has 0..{self.lanes - 1}"
            )

    # -- reading ---------------------------------------------------------------------------

    def read(
        self, rows: Selection, lane: int, lanes: int, unit: int, number: int, known: list[int]
    ) -> Array:
        """The lanes of some rows, as `unit`'s instruction of that number sees them.

        Args:
            known: for each unit the number up to which its instructions are surely complete.
        """
        self._ordered_writes(rows, unit, known, "read", "wrote")
        self.defined(rows, lane, lanes)
        if unit not in self.read_number:
            self.read_number[unit] = np.zeros(self.rows, np.int32)
        self.read_number[unit][rows] = number
        self.last_read[unit] = number
        return self.content[rows, lane : lane + lanes]

    def defined(self, rows: Selection, lane: int, lanes: int) -> None:
        """Raises Violation if a lane of the rows was never written."""
        if self.full[rows].all():
            return
        defined: Array = np.asarray(self.written[rows, lane : lane + lanes], np.bool_)
        if not defined.all():
            point, at = (int(k) for k in np.argwhere(~defined)[0])
            which = f"{self.unit} {_row(rows, point)}"
            if lanes < self.lanes or defined[point].any():
                which = f"lane {lane + at} of {which}"
            raise Violation(f"{which} has never been written")

    # -- writing ---------------------------------------------------------------------------

    def write(
        self, rows: Selection, lane: int, values: Array, unit: int, number: int, known: list[int]
    ) -> None:
        """New values for the lanes from `lane` on of some rows."""
        self._ordered_writes(rows, unit, known, "written", "wrote")
        for other, last in enumerate(self.last_read):
            if other == unit or last <= known[other]:
                continue
            late = self.read_number[other][rows] > known[other]
            if late.any():
                row = _row(rows, int(np.argmax(late)))
                raise Violation(
                    f"{self.unit} {row} is written while {UNITS[other]} may still read it: "
                    f"{UNITS[unit]} has not waited for {UNITS[other]}"
                )
        self.put(rows, lane, values)
        self.writer[rows] = unit
        self.write_number[rows] = number
        self.last_write[unit] = number

    def put(self, rows: Selection, lane: int, values: Array) -> None:
        """New values without a check of the order."""
        lanes = values.shape[-1]
        self.content[rows, lane : lane + lanes] = values
        if lanes == self.lanes:
            self.written[rows] = True
            self.full[rows] = True
        elif not self.full[rows].all():
            self.written[rows, lane : lane + lanes] = True
            self.full[rows] = self.written[rows].all(axis=1)

    def _ordered_writes(
        self, rows: Selection, unit: int, known: list[int], done: str, did: str
    ) -> None:
        for other, last in enumerate(self.last_write):
            if other == unit or last <= known[other]:
                continue
            late = (self.writer[rows] == other) & (self.write_number[rows] > known[other])
            if late.any():
                row = _row(rows, int(np.argmax(late)))
                raise Violation(
                    f"{self.unit} {row} is {done} before what {UNITS[other]} {did} is surely "
                    f"there: {UNITS[unit]} has not waited for {UNITS[other]}"
                )


def _row(rows: Selection, point: int) -> int:
    """The row at a position of a selection."""
    if isinstance(rows, slice):
        return int(rows.start + point * rows.step)
    return int(rows[point])
