"""Sums of products with constants, rescaled: convolutions and fully connected layers of any kind.

    init: t[n,m,e,f] = b[m]
    acc:  t[n,m,e,f] sum= (x[n, c, e + r - 1, f + s - 1] else p) * w[m,c,r,s]
    out:  y[n,m,e,f] = clamp(z + ((t[n,m,e,f]*m1[m] + …) >> s1[m]), …)

Reduction points that read the same rows are a *tap*: a block of channels at one place of the
window. The weights of a tap and of a column block are one tile; those of grouped convolutions
have zeros, and tiles that no product is in are left out. A block of columns stays within a row of
the output. Zero points and the bias go to the bias of the rescaling: integer sums are exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.expr import Apply, Const, Expr, Load
from nncc.ir.loops import Stmt
from nncc.ir.nests import ASSIGN, Access, Nest, Statement
from nncc.ir.types import i32
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import WEIGHT_MEMORY
from nncc.passes.systolic.code import (
    Code,
    blocks_of,
    channel_dims,
    constant_buffer,
    function,
    rescaling,
    rows_buffer,
    volume,
)
from nncc.passes.systolic.places import Array, Grid, place
from nncc.passes.systolic.product_loops import Columns, Emitter
from nncc.passes.systolic.traffic import chosen_tiling, traffic
from nncc.passes.systolic.unify import offset_of, unify


def product_code(nest: Nest, constants: Mapping[str, Array], machine: Machine) -> Code:
    """The code of such a nest. Raises PassError if it is none, with the statement that is not."""
    return Product(nest, constants, machine).code()


class Product:
    """A nest taken to pieces: what is multiplied, which dims count what, where things are."""

    def __init__(self, nest: Nest, constants: Mapping[str, Array], machine: Machine) -> None:
        assert machine.array is not None
        self.nest, self.constants, self.array = nest, constants, machine.array
        self.frequency_hz = machine.frequency_hz
        self.init, self.acc, self.out = statements(nest)
        a, b = _factors(self.acc)
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
        self.zero = zero - offset_of(x.type.dtype)
        channels = channel_dims(self.out, y, nest, constants)
        names = {d.name for d in channels}
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
        """The byte that stands for what is outside of x."""
        if self.x.other is None:
            return None
        if not isinstance(self.x.other, Const):
            raise PassError(f"{self.acc.name}: padding with what is no number")
        return int(self.x.other.value) - offset_of(self.x_param.type.dtype)

    def bias(self) -> Array:
        """What the sums of stored bytes lack, by column."""
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
        lanes = self.y_place.lanes
        count = sum(c.count for c in blocks)
        result = []
        for name, values, start in zip(("bias", "m", "s"), found, (0, 0, 1), strict=True):
            array = np.full(
                (count, self.array.columns), start, np.int8 if name == "s" else np.int32
            )
            flat = self.columns.full(values).reshape(-1)
            lane = self.columns.full(lanes).reshape(-1)
            row = 0
            for c in blocks:
                for members in c.members:
                    array[row, lane[members] - c.lane] = flat[members]
                    row += 1
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
        rows, block = blocks_of(self.y_place.offsets, self.columns.shape)
        lane = self.columns.full(self.y_place.lanes).reshape(-1)
        width, height = self.array.columns, self.array.rows
        single: list[Columns] = []
        for start in range(0, height, width):
            for k in range(len(rows)):
                members = np.flatnonzero((block == k) & (lane // width == start // width))
                if not members.size:
                    continue
                used = np.unique(which if which.shape[0] == 1 else which[members])
                used = used[used >= 0]
                own = taps[used] if used.size else taps[:1]
                last = int(lane[block == k].max()) < start + width
                single.append(
                    Columns(1, rows[k], 0 * rows[k], start, min(width, height - start), last,
                             own, 0 * taps[0], (members,))
                )  # fmt: skip
        merged: list[Columns] = []
        for c in single:
            joined = _joined(merged[-1], c) if merged else None
            merged[-1:] = [joined] if joined else [*merged[-1:], c]
        return merged

    def tiles(self, blocks: list[Columns], taps: Array, which: Array) -> Array:
        """The weights of every block's taps: [tiles, R, C]."""
        rows, columns = self.array.rows, self.array.columns
        lane = self.flat(self.x_place.lanes)
        y_lane = self.columns.full(self.y_place.lanes).reshape(-1)
        found: list[Array] = []
        position = {tuple(t): k for k, t in enumerate(taps.tolist())}
        for c in blocks:
            for k, members in enumerate(c.members):
                own = [position.get(tuple(t), -2) for t in (c.taps + k * c.shift).tolist()]
                place_of = np.full(len(taps) + 1, -1)
                place_of[[o for o in own if o >= 0]] = [j for j, o in enumerate(own) if o >= 0]
                weights = self.weights[members]
                shape = weights.shape
                tap = place_of[np.broadcast_to(_rows(which, members), shape)]
                tile = np.zeros((len(own), rows, columns), np.int32)
                chosen = tap >= 0
                where = (
                    tap[chosen],
                    np.broadcast_to(_rows(lane, members), shape)[chosen],
                    np.broadcast_to((y_lane[members] - c.lane)[:, None], shape)[chosen],
                )
                np.add.at(tile, where, weights[chosen])
                if tile.size and (tile.min() < -128 or tile.max() > 127):
                    raise PassError(f"{self.acc.name}: weights of one element leave int8")
                found.append(tile.astype(np.int8))
        return np.concatenate(found)

    def shapes(self, blocks: list[Columns]) -> tuple[tuple[int, int, int], ...]:
        """Taps, lanes written and lanes filled of each block of columns."""
        height = self.array.rows
        return tuple(
            (len(c.taps), c.lanes, height - c.lane - c.lanes if c.last else 0)
            for c in blocks
            for _ in c.members
        )

    # -- code ------------------------------------------------------------------------------
    def code(self) -> Code:
        taps, which = self.taps()
        blocks = self.column_blocks(taps, which)
        tiling, shape = chosen_tiling(
            self.pixels, volume(self.pixels), self.shapes(blocks), self.array, self.frequency_hz
        )
        constants = [("w", self.tiles(blocks, taps, which)), *self.parameters(blocks)]
        if self.x_place.guards:
            constants.append(("pad", np.full(self.array.rows, self.outside, np.int8)))
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
            traffic(shape, self.array),
        )


def _rows(x: Array, members: Array) -> Array:
    return x if x.shape[0] == 1 else x[members]


def _joined(a: Columns, b: Columns) -> Columns | None:
    """Two neighbouring sets of column blocks as one loop, if they are alike."""
    if (a.lane, a.lanes, a.last, a.taps.shape) != (b.lane, b.lanes, b.last, b.taps.shape):
        return None
    shifts = b.taps - (a.taps + (a.count - 1) * a.shift)
    step = b.rows - (a.rows + (a.count - 1) * a.step)
    shift = shifts[0]
    if (shifts != shift).any():
        return None
    if a.count > 1 and ((step != a.step).any() or (shift != a.shift).any()):
        return None
    return Columns(
        a.count + 1, a.rows, step, a.lane, a.lanes, a.last, a.taps, shift, a.members + b.members
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


def _factors(acc: Statement) -> tuple[tuple[Load, int], tuple[Load, int]]:
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
