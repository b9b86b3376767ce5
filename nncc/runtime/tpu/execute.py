"""What instructions do to the memories: numpy code for the records of systolic/operations.toml.

`Memories` holds the state and runs one instruction after the other in the order of the program,
which for a legal program gives the same as any order that its synchronization allows. It also
keeps the books on legality: who has surely completed what (`known`), tiles in the FIFO.
Arithmetic is exact: products of int8 are summed as float32 over at most 512 rows at a time, whose
partial sums stay below 2^24 in magnitude (255 * 128 * 512), and then as integers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import gcd
from typing import Any

import numpy as np

from nncc.isa.tpu.instructions import (
    INITIAL,
    UNITS,
    AddRows,
    CopyRows,
    FillRows,
    Instruction,
    LookUp,
    MatrixMultiply,
    PoolMax,
    ReadHostMemory,
    ReadWeights,
    Register,
    Requantize,
    SetConfiguration,
    Sync,
    SyncHost,
    Unit,
    WindowSum,
    WriteHostMemory,
)
from nncc.isa.tpu.program import Program
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import UNIFIED_BUFFER, WEIGHT_MEMORY
from nncc.machines.systolic.sizes import array_of
from nncc.runtime.tpu.host import HostMemory
from nncc.runtime.tpu.rows import Array, Rows, Selection, Violation, apart, box_rows

_EXACT_ROWS = 512  # products summed in float32 without rounding
_INT32 = np.iinfo(np.int32)
INDEX = {unit: k for k, unit in enumerate(UNITS)}
_MATRIX, _ACTIVATION = INDEX[Unit.MATRIX], INDEX[Unit.ACTIVATION]
_READ, _WRITE, _WEIGHTS = INDEX[Unit.HOST_READ], INDEX[Unit.HOST_WRITE], INDEX[Unit.WEIGHTS]


class Memories:
    """The state of a machine while a program runs, as its instructions change it."""

    def __init__(
        self, program: Program, machine: Machine, inputs: Mapping[str, Array], *,
        products: bool = True,
    ) -> None:  # fmt: skip
        self.products = products
        self.array = a = array_of(machine)
        self.unified = Rows("row", a.unified_rows, a.rows, np.int8)
        self.accumulators = Rows("accumulator", a.accumulator_rows, a.columns, np.int32)
        # no accumulator of a row is larger in magnitude
        self.bound = np.zeros(a.accumulator_rows, np.int64)
        self.weights: dict[int, Array] = {}
        self.fifo: deque[int] = deque()
        self.tile: Array | None = None  # rows and columns behind the last that are not 0 left out
        self.configuration = list(INITIAL)
        self.number = [0] * len(UNITS)
        self.known = [[0] * len(UNITS) for _ in UNITS]
        self.host = HostMemory(program, inputs)
        self._place_constants(program)

    def _place_constants(self, program: Program) -> None:
        a = self.array
        for data in program.data:
            content = np.frombuffer(data.content, np.int8)
            if data.memory == WEIGHT_MEMORY:
                whole = len(content) // a.tile_bytes
                tiles = content[: whole * a.tile_bytes].reshape(whole, a.rows, a.columns)
                self.weights |= {data.address + k: tile for k, tile in enumerate(tiles)}
            elif data.memory == UNIFIED_BUFFER:
                whole = len(content) // a.rows
                rows = content[: whole * a.rows].reshape(whole, a.rows)
                self.unified.put(slice(data.address, data.address + whole, 1), 0, rows)
                if rest := len(content) % a.rows:
                    row = data.address + whole
                    last = content[-rest:].reshape(1, rest)
                    self.unified.put(slice(row, row + 1, 1), 0, last)

    def execute(self, instruction: Instruction) -> None:
        """Runs one instruction. Raises Violation if it may not do what it does."""
        if (unit := instruction.unit) is not None:
            self.number[INDEX[unit]] += 1
            return _EXECUTE[type(instruction)](self, instruction)
        if isinstance(instruction, SetConfiguration):
            self.configuration[instruction.register] = instruction.value
        elif isinstance(instruction, Sync):
            self._learn(INDEX[instruction.waiting], INDEX[instruction.on])
        elif isinstance(instruction, SyncHost):
            self.known = [list(self.number) for _ in UNITS]

    def _learn(self, waiting: int, on: int) -> None:
        """`waiting` starts after everything that `on` was given and knows."""
        mine = self.known[waiting]
        for k, theirs in enumerate(self.known[on]):
            mine[k] = max(mine[k], theirs)
        mine[on] = self.number[on]

    # -- transfers -------------------------------------------------------------------------

    def _read_host(self, i: ReadHostMemory) -> None:
        ub = self.unified
        ub.inside(i.row, (i.rows,), (1,))
        ub.lanes_inside(0, i.lanes)
        content = self.host.read(
            i.host, i.rows * i.lanes, self.number[_READ], self.known[_READ][_WRITE]
        )
        rows = np.full((i.rows, ub.lanes), i.fill, np.int8)
        rows[:, : i.lanes] = content.reshape(i.rows, i.lanes)
        ub.write(
            slice(i.row, i.row + i.rows, 1), 0, rows, _READ, self.number[_READ], self.known[_READ]
        )

    def _write_host(self, i: WriteHostMemory) -> None:
        ub = self.unified
        ub.inside(i.row, (i.rows,), (1,))
        ub.lanes_inside(0, i.lanes)
        content = ub.read(
            slice(i.row, i.row + i.rows, 1), 0, i.lanes, _WRITE, self.number[_WRITE],
            self.known[_WRITE],
        )  # fmt: skip
        self.host.write(i.host, content.reshape(-1), self.number[_WRITE], self.known[_WRITE][_READ])

    def _read_weights(self, i: ReadWeights) -> None:
        if i.tile >= self.array.weight_tiles:
            most = self.array.weight_tiles - 1
            raise Violation(f"tile {i.tile} is out of range: there are 0..{most}")
        if i.tile not in self.weights:
            raise Violation(f"tile {i.tile} of the weight memory was never written")
        self.fifo.append(i.tile)

    # -- the array -------------------------------------------------------------------------

    def _multiply(self, i: MatrixMultiply) -> None:
        c = self.configuration
        box = (i.height, i.width)
        targets = self._targets(self.accumulators, i.accumulator, box, (c[Register.TARGET_1], 1))
        strides = (c[Register.SOURCE_1], c[Register.SOURCE_2])
        self.unified.inside(i.row, box, strides)
        sources = box_rows(i.row, box, strides)
        if i.next_tile:
            if not self.fifo:
                raise Violation("the weight FIFO is empty: no Read_Weights before this is left")
            self.tile = _used_part(self.weights[self.fifo.popleft()]).astype(np.float32)
        if self.tile is None:
            raise Violation("there is no weight tile in the array yet")
        number, known = self.number[_MATRIX], self.known[_MATRIX]
        x = self.unified.read(sources, 0, self.array.rows, _MATRIX, number, known)
        if i.unsigned:
            x = x.view(np.uint8) ^ 0x80
        acc = self.accumulators
        zeros = np.zeros((len(x), 1), np.int32)
        result = _product(x, self.tile) if self.products else zeros
        if i.accumulate:
            acc.defined(targets, 0, acc.lanes)
        else:
            result = np.pad(result, ((0, 0), (0, acc.lanes - result.shape[1])))
        bound = 255 * 128 * len(self.tile)
        self._accumulate(targets, 0, result, bound, _MATRIX, i.accumulate)

    def _accumulate(
        self, rows: Selection, lane: int, values: Array, bound: int, unit: int, add: bool
    ) -> None:
        """Accumulators become values, or grow by them; no value is above `bound`."""
        acc, number, known = self.accumulators, self.number[unit], self.known[unit]
        lanes = values.shape[1]
        if not add:
            whole = lanes == acc.lanes
            self.bound[rows] = bound if whole else np.maximum(self.bound[rows], bound)
            acc.write(rows, lane, values, unit, number, known)
            return
        old = acc.read(rows, lane, lanes, unit, number, known)
        bounds = self.bound[rows] + bound
        if bounds.max() <= _INT32.max:
            self.bound[rows] = bounds
            acc.write(rows, lane, old + values, unit, number, known)
            return
        wide = old.astype(np.int64) + values
        if wide.min() < _INT32.min or wide.max() > _INT32.max:
            raise Violation("an accumulator overflows int32")
        acc.write(rows, lane, wide.astype(np.int32), unit, number, known)
        self.bound[rows] = np.abs(acc.content[rows].astype(np.int64)).max(axis=1)

    def _targets(
        self, memory: Rows, base: int, box: tuple[int, int], strides: tuple[int, int]
    ) -> Selection:
        """The rows that a box writes, which must be there and differ."""
        memory.inside(base, box, strides)
        (height, width), (outer, inner) = box, strides
        # i*outer + j*inner repeats after inner/g steps of i and outer/g steps of j
        g = gcd(outer, inner)
        if height * width > 1 and (g == 0 or (inner // g < height and outer // g < width)):
            raise Violation(
                f"strides {outer} and {inner} of the target write a {memory.unit} more than once"
            )
        return box_rows(base, box, strides)

    # -- activation ------------------------------------------------------------------------

    def _outputs(self, row: int, height: int, width: int, lane: int, lanes: int) -> Selection:
        c = self.configuration
        self.unified.lanes_inside(lane, lanes)
        strides = (c[Register.OUT_1], c[Register.OUT_2])
        return self._targets(self.unified, row, (height, width), strides)

    def _sources(
        self, base: int, height: int, width: int, first: Register = Register.IN_1
    ) -> Selection:
        box, strides = (height, width), tuple(self.configuration[first : first + 2])
        self.unified.inside(base, box, strides)
        return box_rows(base, box, strides)

    def _read(self, rows: Selection, lane: int, lanes: int) -> Array:
        self.unified.lanes_inside(lane, lanes)
        return self.unified.read(
            rows, lane, lanes, _ACTIVATION, self.number[_ACTIVATION], self.known[_ACTIVATION]
        )

    def _write(self, rows: Selection, lane: int, values: Array) -> None:
        self.unified.write(
            rows, lane, values, _ACTIVATION, self.number[_ACTIVATION], self.known[_ACTIVATION]
        )

    def _block(self, row: int, count: int, targets: Selection) -> Array:
        """`count` bytes from lane 0 of `row` on, which the instruction does not write itself."""
        rows, lanes = -(-count // self.unified.lanes), self.unified.lanes
        self.unified.inside(row, (rows,), (1,))
        selection = slice(row, row + rows, 1)
        apart(selection, targets, same=False)
        whole = count // lanes
        content = [self._read(slice(row, row + whole, 1), 0, lanes).reshape(-1)]
        if count % lanes:
            last = slice(row + whole, row + whole + 1, 1)
            content.append(self._read(last, 0, count % lanes).reshape(-1))
        return np.concatenate(content)

    def _requantize(self, i: Requantize) -> None:
        targets = self._outputs(i.row, i.height, i.width, i.lane, i.lanes)
        c, columns = self.configuration, self.array.columns
        box, strides = (i.height, i.width), (c[Register.IN_1], c[Register.IN_2])
        acc = self.accumulators
        acc.inside(i.accumulator, box, strides)
        acc.lanes_inside(i.source_lane, i.lanes)
        block = self._block(i.parameters, 9 * columns, targets)
        used = slice(i.source_lane, i.source_lane + i.lanes)
        bias, m = block[: 8 * columns].view("<i4").reshape(2, columns)[:, used].astype(np.int64)
        s = block[8 * columns :].view(np.uint8)[used].astype(np.int64)
        if s.min() < 1 or s.max() > 62:
            raise Violation(f"a shift of {s.min() if s.min() < 1 else s.max()} is not in 1..62")
        a = acc.read(
            box_rows(i.accumulator, box, strides), i.source_lane, i.lanes, _ACTIVATION,
            self.number[_ACTIVATION], self.known[_ACTIVATION],
        ) + bias  # fmt: skip
        if a.min() < _INT32.min or a.max() > _INT32.max:
            raise Violation("an accumulator and its bias overflow int32")
        a *= m
        a += np.int64(1) << (s - 1)
        a >>= s
        self._write(targets, i.lane, np.clip(a + i.z, i.lo, i.hi).astype(np.int8))

    def _add(self, i: AddRows) -> None:
        targets = self._outputs(i.row, i.height, i.width, i.lane, i.lanes)
        first = self._sources(i.source, i.height, i.width)
        second = self._sources(i.other, i.height, i.width, Register.OTHER_1)
        apart(first, targets, same=True)
        apart(second, targets, same=True)
        a = self._read(first, i.source_lane, i.lanes).astype(np.int32)
        b = self._read(second, i.source_lane, i.lanes).astype(np.int32)
        total = (a - i.za) * i.ma + (b - i.zb) * i.mb + (1 << (i.s - 1)) >> i.s
        self._write(targets, i.lane, np.clip(total + i.z, i.lo, i.hi).astype(np.int8))

    def _look_up(self, i: LookUp) -> None:
        targets = self._outputs(i.row, i.height, i.width, i.lane, i.lanes)
        sources = self._sources(i.source, i.height, i.width)
        apart(sources, targets, same=True)
        table = self._block(i.table, 256, targets)
        x = self._read(sources, i.source_lane, i.lanes)
        self._write(targets, i.lane, table[x.astype(np.int16) + 128])

    def _window(self, base: int, height: int, width: int) -> list[Selection]:
        """For each element of the window the rows of the box."""
        c = self.configuration
        counts = (c[Register.WINDOW_HEIGHT], c[Register.WINDOW_WIDTH])
        strides = (c[Register.WINDOW_1], c[Register.WINDOW_2])
        most = self.array.unified_rows  # more would be some rows several times
        if not 1 <= counts[0] * counts[1] <= most:
            raise Violation(
                f"a window of {counts[0]} x {counts[1]} has not between 1 and {most} elements"
            )
        steps = (c[Register.IN_1], c[Register.IN_2])
        self.unified.inside(base, (height, width, *counts), (*steps, *strides))
        return [
            box_rows(base + r * strides[0] + q * strides[1], (height, width), steps)
            for r in range(counts[0])
            for q in range(counts[1])
        ]

    def _pool_max(self, i: PoolMax) -> None:
        targets = self._outputs(i.row, i.height, i.width, i.lane, i.lanes)
        window = self._window(i.source, i.height, i.width)
        for rows in window:
            apart(rows, targets, same=len(window) == 1)
        largest = self._read(window[0], i.source_lane, i.lanes)
        for rows in window[1:]:
            largest = np.maximum(largest, self._read(rows, i.source_lane, i.lanes))
        self._write(targets, i.lane, largest)

    def _window_sum(self, i: WindowSum) -> None:
        c = self.configuration
        self.accumulators.lanes_inside(i.lane, i.lanes)
        targets = self._targets(
            self.accumulators, i.accumulator, (i.height, i.width),
            (c[Register.OUT_1], c[Register.OUT_2]),
        )  # fmt: skip
        window = self._window(i.source, i.height, i.width)
        if len(window) > _INT32.max // 128:
            raise Violation(f"a window of {len(window)} elements may overflow int32")
        total = self._read(window[0], i.source_lane, i.lanes).astype(np.int32)
        for rows in window[1:]:
            total += self._read(rows, i.source_lane, i.lanes)
        bound = 128 * len(window)
        self._accumulate(targets, i.lane, total, bound, _ACTIVATION, i.accumulate)

    def _fill(self, i: FillRows) -> None:
        targets = self._outputs(i.row, i.height, i.width, i.lane, i.lanes)
        count = i.height * i.width
        self._write(targets, i.lane, np.full((count, i.lanes), i.value, np.int8))

    def _copy(self, i: CopyRows) -> None:
        targets = self._outputs(i.row, i.height, i.width, i.lane, i.lanes)
        sources = self._sources(i.source, i.height, i.width)
        apart(sources, targets, same=True)
        self._write(targets, i.lane, self._read(sources, i.source_lane, i.lanes))


def _used_part(tile: Array) -> Array:
    """The tile up to its last row and its last column that hold something else than 0."""
    rows, columns = np.flatnonzero(tile.any(axis=1)), np.flatnonzero(tile.any(axis=0))
    return tile[: rows[-1] + 1, : columns[-1] + 1] if len(rows) else tile[:1, :1]


def _product(x: Array, tile: Array) -> Array:
    """x · tile as int32; `tile` is float32, lanes of x beyond its rows do not count."""
    total: Array | None = None
    for k in range(0, len(tile), _EXACT_ROWS):
        piece = tile[k : k + _EXACT_ROWS]
        part = x[:, k : k + len(piece)].astype(np.float32) @ piece
        total = part.astype(np.int32) if total is None else total + part.astype(np.int32)
    assert total is not None
    return total


_EXECUTE: dict[type[Instruction], Callable[[Memories, Any], None]] = {
    ReadHostMemory: Memories._read_host,
    WriteHostMemory: Memories._write_host,
    ReadWeights: Memories._read_weights,
    MatrixMultiply: Memories._multiply,
    Requantize: Memories._requantize,
    AddRows: Memories._add,
    LookUp: Memories._look_up,
    PoolMax: Memories._pool_max,
    WindowSum: Memories._window_sum,
    FillRows: Memories._fill,
    CopyRows: Memories._copy,
}
