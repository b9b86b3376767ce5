"""Sums of products with constants, rescaled: convolutions and fully connected layers of any kind.

    init: t[n,m,e,f] = b[m]
    acc:  t[n,m,e,f] sum= (x[n, c, e + r - 1, f + s - 1] else p) * w[m,c,r,s]
    out:  y[n,m,e,f] = clamp(z + ((t[n,m,e,f]*m1[m] + …) >> s1[m]), …)

Reduction points that read the same rows are a *tap*: a block of channels at one place of the
window. The weights of a tap and of a column block are one tile; those of grouped convolutions
have zeros, and tiles that no product is in are left out. Columns for several rows of the output
are one block where they share taps: its accumulators are rescaled in parts. Zero points and the
bias go to the bias of the rescaling: integer sums are exact.

Where rows hold blocks of pixels (`blocks`), the pixels of a block are columns beside the channels:
what x has in its lanes meets the weights for every one of them in a tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.expr import Apply, Const, Expr, Load, loads
from nncc.ir.loops import Stmt
from nncc.ir.nests import ASSIGN, Access, Nest, Statement
from nncc.ir.types import i32, u8
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import WEIGHT_MEMORY
from nncc.passes.systolic.blocks import with_block_dims
from nncc.passes.systolic.code import (
    Code,
    blocks_of,
    channel_dims,
    constant_buffer,
    function,
    is_filled,
    rescaling,
    rows_buffer,
    volume,
)
from nncc.passes.systolic.places import Array, Grid, place
from nncc.passes.systolic.product_loops import Columns, Emitter, Group
from nncc.passes.systolic.traffic import chosen_tiling
from nncc.passes.systolic.unify import offset_of, unify


def product_code(nest: Nest, constants: Mapping[str, Array], machine: Machine) -> Code:
    """The code of such a nest. Raises PassError if it is none, with the statement that is not."""
    return Product(nest, constants, machine).code()


class Product:
    """A nest taken to pieces: what is multiplied, which dims count what, where things are."""

    def __init__(self, nest: Nest, constants: Mapping[str, Array], machine: Machine) -> None:
        assert machine.array is not None
        self.constants, self.array = constants, machine.array
        self.frequency_hz = machine.frequency_hz
        acc, out = statements(nest)[1:]
        self.nest, inner = with_block_dims(nest, out, loads(acc.values[0]))
        self.init, self.acc, self.out = statements(self.nest)
        a, b = factors(self.acc)
        if a[0].tensor in constants:
            a, b = b, a
        (self.x, zero), (self.w, w_zero) = a, b
        if self.x.tensor in constants or self.w.tensor not in constants:
            raise PassError(f"{self.acc.name}: no product of a tensor and a constant")
        self.match = unify(machine.operations["requantize"].semantics, self.out.values[0])
        if self.match is None or not _is(self.match.operands["acc"], self.acc.targets[0]):
            raise PassError(f"{self.out.name}: what is done with the sum is no requantization")
        x, y = nest.param(self.x.tensor), nest.param(self.out.targets[0].tensor)
        self.x_param, self.y_param = x, y
        self.zero = zero
        self.operation = "matmul_unsigned" if x.type.dtype is u8 else "matmul"
        names = {d.name for d in channel_dims(self.out, y, self.nest, constants)} | inner
        channels = tuple(d for d in self.out.dims if d.name in names)
        self.pixels = tuple(d for d in self.out.dims if d.name not in names)
        outer = names | {d.name for d in self.pixels}
        self.reduced = tuple(d for d in self.acc.dims if d.name not in outer)
        self.columns = Grid(channels)
        self.y_place = place(y, self.out.targets[0].indices, self.columns, self.pixels,
                             guarded=False)  # fmt: skip
        self.grid = Grid((*channels, *self.reduced))
        self.x_place = place(x, self.x.indices, self.grid, self.pixels,
                             guarded=self.x.other is not None)  # fmt: skip
        where = tuple(self.grid.evaluate(i) for i in self.w.indices)
        self.weights = self.flat(np.asarray(constants[self.w.tensor][where]), full=True)
        self.weights = self.weights.astype(np.int32) - w_zero

    # -- numbers ---------------------------------------------------------------------------
    def flat(self, x: Array, full: bool = False) -> Array:
        """An array over the grid as [columns or 1, reduction points or 1]."""
        k = len(self.columns.shape)
        shape = list(self.grid.shape)
        if not full:
            shape[:k] = shape[:k] if any(n > 1 for n in x.shape[:k]) else [1] * k
            shape[k:] = shape[k:] if any(n > 1 for n in x.shape[k:]) else [1] * (len(shape) - k)
        return np.broadcast_to(x, shape).reshape(int(np.prod(shape[:k])), -1)

    @property
    def outside(self) -> int | None:
        """What is outside of x."""
        if self.x.other is None:
            return None
        if not isinstance(self.x.other, Const):
            raise PassError(f"{self.acc.name}: padding with what is no number")
        return int(self.x.other.value)

    def bias(self) -> Array:
        """What the sums lack, by column."""
        grid = self.columns
        value = grid.value(self.init.values[0], self.constants).astype(np.int64)
        bias = grid.full(value).reshape(-1) - self.zero * self.weights.sum(axis=1, dtype=np.int64)
        inside = self.flat(self.x_place.inside)
        if not inside.all():
            assert self.outside is not None
            bias = bias + self.outside * (self.weights * ~inside).sum(axis=1, dtype=np.int64)
        return np.asarray(bias)

    def parameters(self, blocks: list[Columns]) -> list[tuple[str, Array]]:
        """Bias, multiplier and shift of each column block: [blocks, C]."""
        assert self.match is not None
        bias = self.bias().reshape(self.columns.shape)
        found = rescaling(self.match, self.columns, self.constants, bias)
        count = sum(c.count for c in blocks)
        result = []
        for name, values, start in zip(("bias", "m", "s"), found, (0, 0, 1), strict=True):
            array = np.full(
                (count, self.array.columns), start, np.int8 if name == "s" else np.int32
            )
            flat = self.columns.full(values).reshape(-1)
            columns = ((m, at) for c in blocks for m, at in zip(c.members, c.columns, strict=True))
            for row, (members, at) in enumerate(columns):
                array[row, at] = flat[members]
            result.append((name, array))
        return result

    def taps(self) -> tuple[Array, Array]:
        """The distinct row offsets, and which one each point has (-1: outside)."""
        parts = [self.flat(o) for o in self.x_place.offsets]
        inside = self.flat(self.x_place.inside)
        shape = np.broadcast_shapes(*(p.shape for p in parts), inside.shape)
        found, which = blocks_of(parts, shape)
        return found, np.where(inside, which.reshape(shape), -1)

    def column_blocks(self, taps: Array, which: Array) -> list[Columns]:
        """The blocks of columns in the order of the code."""
        merged: list[Columns] = []
        for parts in self.packed(self.parts(which)):
            used = np.unique(np.concatenate([p.taps for p in parts]))
            own = taps[used] if used.size else self.without_weights(taps[:1])
            groups, at, source = [], [], 0
            for p in parts:
                groups.append(self.group(p, source, len(parts) == 1))
                at.append(source + p.lanes - p.lane)
                source += p.width
            members = np.concatenate([p.members for p in parts])
            c = Columns(1, tuple(groups), 0 * parts[0].rows, own, 0 * taps[0], (members,),
                        (np.concatenate(at),))  # fmt: skip
            joined = _joined(merged[-1], c) if merged else None
            merged[-1:] = [joined] if joined else [*merged[-1:], c]
        return merged

    def without_weights(self, tap: Array) -> Array:
        """A tap for columns all of whose points are outside of x: rows that are there, times 0."""
        assert self.x_param.layout is not None
        found = tap.copy()
        for k, factors in enumerate(self.x_place.factors):
            if not factors:  # where they are of pixels, rows outside are cut off
                found[:, k] = np.clip(tap[:, k], 0, int(str(self.x_param.layout.extents[k])) - 1)
        return found

    def parts(self, which: Array) -> list[_Part]:
        """The columns by rows of y, at most as many of a row as the array has."""
        rows, block = blocks_of(self.y_place.offsets, self.columns.shape)
        lane = self.columns.full(self.y_place.lanes).reshape(-1)
        width = self.array.columns
        found: list[_Part] = []
        for start in range(0, self.array.rows, width):
            for k in range(len(rows)):
                members = np.flatnonzero((block == k) & (lane // width == start // width))
                if not members.size:
                    continue
                used = np.unique(which if which.shape[0] == 1 else which[members])
                end = int(lane[block == k].max()) + 1
                found.append(
                    _Part(rows[k], start, min(end, start + width) - start, end <= start + width,
                          members, lane[members], used[used >= 0])
                )  # fmt: skip
        return found

    def packed(self, parts: list[_Part]) -> list[list[_Part]]:
        """Parts that follow each other together, where they have taps in common."""
        found: list[list[_Part]] = []
        for p in parts:
            if found:
                last = found[-1]
                known = np.unique(np.concatenate([q.taps for q in last]))
                shared = np.intersect1d(known, p.taps).size
                if shared and sum(q.width for q in last) + p.width <= self.array.columns:
                    last.append(p)
                    continue
            found.append([p])
        return found

    def group(self, p: _Part, source: int, alone: bool) -> Group:
        """A part's rescaling; accumulators behind its own ones fill the lanes that hold nothing."""
        height = self.array.rows
        lanes, filled = p.width, 0
        if p.is_last and is_filled(self.y_param):
            rest = height - p.lane
            if alone or source + rest <= self.array.columns:
                lanes = min(rest, self.array.columns - source)
            filled = rest - lanes
        return Group(tuple(int(r) for r in p.rows), p.lane, source, lanes, filled)

    def tiles(self, blocks: list[Columns], taps: Array, which: Array) -> Array:
        """The weights of every block's taps: [tiles, R, C]."""
        rows, columns = self.array.rows, self.array.columns
        lane = self.flat(self.x_place.lanes)
        found: list[Array] = []
        position = {tuple(t): k for k, t in enumerate(taps.tolist())}
        for c in blocks:
            for k, (members, at) in enumerate(zip(c.members, c.columns, strict=True)):
                own = [position.get(tuple(t), -2) for t in (c.taps + k * c.shift).tolist()]
                place_of = np.full(len(taps) + 1, -1)
                place_of[[o for o in own if o >= 0]] = [j for j, o in enumerate(own) if o >= 0]
                tile = np.zeros((len(own) * rows, columns), np.int32)
                row = place_of[_rows(which, members)] * rows + _rows(lane, members)
                _add(tile, np.where(_rows(which, members) >= 0, row, -1), at, self.weights[members])
                if tile.size and (tile.min() < -128 or tile.max() > 127):
                    raise PassError(f"{self.acc.name}: weights of one element leave int8")
                found.append(tile.astype(np.int8).reshape(len(own), rows, columns))
        return np.concatenate(found)

    def shapes(self, blocks: list[Columns]) -> tuple[tuple[int, int, int, int], ...]:
        """Taps, lanes written, lanes filled and rescalings of each block of columns."""
        return tuple(
            (
                len(c.taps), sum(g.lanes for g in c.groups), sum(g.filled for g in c.groups),
                len(c.groups),
            )
            for c in blocks
            for _ in c.members
        )  # fmt: skip

    # -- code ------------------------------------------------------------------------------
    def code(self) -> Code:
        taps, which = self.taps()
        blocks = self.column_blocks(taps, which)
        if (count := sum(c.count * len(c.taps) for c in blocks)) > self.array.weight_tiles:
            raise PassError(
                f"{self.acc.name}: its weights are {count} tiles; the weight memory has "
                f"{self.array.weight_tiles}"
            )
        tiling, _ = chosen_tiling(
            self.pixels, volume(self.pixels), self.shapes(blocks), self.array, self.frequency_hz
        )
        constants = [("w", self.tiles(blocks, taps, which)), *self.parameters(blocks)]
        if self.x_place.guards:
            assert self.outside is not None
            stored = self.outside - offset_of(self.x_param.type.dtype)
            constants.append(("pad", np.full(self.array.rows, stored, np.int8)))
        emitter = Emitter(self, tiling)
        body: list[Stmt] = []
        tile = block = 0
        for c in blocks:
            body += emitter.columns(c, tile, block)
            tile += c.count * len(c.taps)
            block += c.count
        x, y = rows_buffer("x", self.x_param, "in"), rows_buffer("y", self.y_param, "out")
        buffers = [x, *(constant_buffer(n, a, WEIGHT_MEMORY if n == "w" else "unified_buffer")
                        for n, a in constants), y]  # fmt: skip
        return Code(
            function(self.nest, buffers, body),
            (self.x_param.name,),
            tuple(constants),
            volume(self.acc.dims),
        )


def _add(tile: Array, row: Array, column: Array, weights: Array) -> None:
    """Adds weights [columns, points] to their cells of a tile.

    Args:
        row: by point, or by column and point; negative: left out. `column`: by column.
    """
    if row.shape[0] == 1:  # all columns have their weights in the same rows
        used = row[0] >= 0
        rows = row[0, used]
        if len(np.unique(rows)) == len(rows):
            tile[rows[:, None], column] = weights[:, used].T
            return
    row, at = np.broadcast_to(row, weights.shape), np.broadcast_to(column[:, None], weights.shape)
    used = row >= 0
    np.add.at(tile, (row[used], at[used]), weights[used])


def _rows(x: Array, members: Array) -> Array:
    return x if x.shape[0] == 1 else x[members]


@dataclass(frozen=True)
class _Part:
    """Columns for one row of y.

    Args:
        rows: of y; `lane`, `width`: the part of such a row; `is_last`: no channel is behind it.
        members: numbers of the columns; `lanes`: of the row of y, `taps`: numbers of those used.
    """

    rows: Array
    lane: int
    width: int
    is_last: bool
    members: Array
    lanes: Array
    taps: Array


def _joined(a: Columns, b: Columns) -> Columns | None:
    """Two neighbouring sets of column blocks as one loop, if they are alike."""
    if a.taps.shape != b.taps.shape or len(a.groups) != len(b.groups):
        return None
    steps = []
    for g, h in zip(a.groups, b.groups, strict=True):
        if replace(g, rows=h.rows) != h:
            return None
        steps.append(np.subtract(h.rows, g.rows) - (a.count - 1) * a.step)
    shifts = b.taps - (a.taps + (a.count - 1) * a.shift)
    step, shift = steps[0], shifts[0]
    if (shifts != shift).any() or any((other != step).any() for other in steps):
        return None
    if a.count > 1 and ((step != a.step).any() or (shift != a.shift).any()):
        return None
    return Columns(
        a.count + 1, a.groups, step, a.taps, shift, a.members + b.members, a.columns + b.columns
    )


def statements(nest: Nest) -> tuple[Statement, Statement, Statement]:
    """What starts a sum, what adds to it, what is made of it. Raises PassError otherwise."""
    found = nest.statements
    if len(found) != 3 or len(nest.body) != 3:
        raise PassError(f"{nest.name}: no sum that is rescaled")
    init, acc, out = found
    if (init.combine, acc.combine, out.combine) != (ASSIGN, "sum", ASSIGN) or any(
        s.where or len(s.targets) != 1 for s in found
    ):
        raise PassError(f"{nest.name}: no sum that is rescaled")
    if init.targets != acc.targets:
        raise PassError(f"{init.name}: it starts the sum at other subscripts")
    return init, acc, out


def factors(acc: Statement) -> tuple[tuple[Load, int], tuple[Load, int]]:
    """What is multiplied, each with its zero point. Raises PassError."""
    value = acc.values[0]
    if not isinstance(value, Apply) or value.fn != "mul":
        raise PassError(f"{acc.name}: no sum of products")
    return centred(value.args[0], acc), centred(value.args[1], acc)


def centred(e: Expr, s: Statement) -> tuple[Load, int]:
    """`x[…]` as int32 less a zero point. Raises PassError."""
    zero = 0
    if isinstance(e, Apply) and e.fn == "sub" and isinstance(e.args[1], Const):
        zero, e = int(e.args[1].value), e.args[0]
    if isinstance(e, Apply) and e.fn == "cast" and e.dtype is i32 and isinstance(e.args[0], Load):
        load = e.args[0]
        if load.dtype.bits == 8:
            return load, zero
    raise PassError(f"{s.name}: an operand is no byte as int32")


def _is(e: Expr, a: Access) -> bool:
    return isinstance(e, Load) and (e.tensor, e.indices) == (a.tensor, a.indices)
