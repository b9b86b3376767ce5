"""The Loops of a product: which taps meet which pixels, tile by tile.

    for q0 in 0..3 { for q1 in 0..3 { perform matmul for a in …, b in … { t[…] sum= x[…], w[…] } } }
    perform requantize for a in 0..14, b in 0..14 { y[…] = t[…], bias[…], … }

A box of pixels is cut where a tap leaves x: outside of it, a row of padding is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.bounds import Range, simplify
from nncc.ir.expr import Const, Load, Value, apply
from nncc.ir.index import Size, ceildiv, maximum, minimum, var
from nncc.ir.loops import Alloc, Buffer, For, If, Perform, Stmt
from nncc.ir.nests import ASSIGN, Access, Dim
from nncc.ir.types import i8, i32
from nncc.machines.systolic.model import ACCUMULATORS
from nncc.passes.systolic.code import box_dims, filled, limits_of, requantized
from nncc.passes.systolic.places import Array, runs_of
from nncc.passes.systolic.tiling import BOX, Tiling

if TYPE_CHECKING:
    from nncc.passes.systolic.products import Product


@dataclass(frozen=True)
class Group:
    """Columns that go to one row of y.

    Args:
        rows: of y; `lane`: the first one there; `source`: the first column.
        lanes: how many; `filled`: how many lanes behind them hold no channel.
    """

    rows: tuple[int, ...]
    lane: int
    source: int
    lanes: int
    filled: int


@dataclass(frozen=True)
class Columns:
    """Column blocks that one loop goes over.

    Args:
        count: how many; `groups`: the rescalings of the first one, whose rows in y are `step`
            further in each later block.
        taps: row offsets in x of the first block's taps [taps, row dims]; `shift`: what a later
            block's are further on.
        members: for each block the columns in it; `columns`: and which of the array they are.
    """

    count: int
    groups: tuple[Group, ...]
    step: Array
    taps: Array
    shift: Array
    members: tuple[Array, ...]
    columns: tuple[Array, ...]


class Emitter:
    """The statements of a product."""

    def __init__(self, p: Product, tiling: Tiling) -> None:
        self.p, self.tiling = p, tiling
        self.ranges: dict[str, Range] = {n: (0, end - 1) for n, end, _ in tiling.loops}
        self.local = Buffer("t", i32, (*tiling.local_shape, p.array.columns), "local", ACCUMULATORS)

    def columns(self, c: Columns, tile: int, block: int) -> tuple[Stmt, ...]:
        """All pixels of some column blocks, whose tiles and parameters start at these numbers."""
        o: Size = var("o") if c.count > 1 else 0
        self.ranges["o"] = (0, c.count - 1)
        body = (*self.products(c, o, tile), *self.rescaled(c, o, block))
        tiles = self.tiling.tiles((Alloc(self.local, body),))
        return (For("o", 0, c.count, tiles),) if c.count > 1 else tiles

    def products(self, c: Columns, o: Size, tile: int) -> tuple[Stmt, ...]:
        count = len(c.taps)
        base = tile + o * count
        grid = _grid(c.taps)
        shift = [int(s) for s in c.shift]
        reach = np.concatenate([c.taps, c.taps + (c.count - 1) * c.shift])
        if grid is None:
            found: list[Stmt] = []
            for k, tap in enumerate(c.taps):
                offsets = [int(t) + o * s for t, s in zip(tap, shift, strict=True)]
                found += self.tap(offsets, base + k, "sum" if k else ASSIGN, reach)
            return tuple(found)
        loops: list[tuple[str, int]] = []
        offsets = []
        index: Size = 0
        total: Size = 0
        for (start, step, extent), s in zip(grid, shift, strict=True):
            offset = start + o * s
            if extent > 1:
                name = f"q{len(loops)}"
                loops.append((name, extent))
                self.ranges[name] = (0, extent - 1)
                offset = offset + step * var(name)
                index, total = index * extent + var(name), total + var(name)
            offsets.append(offset)
        if not loops:
            return self.tap(offsets, base, ASSIGN, reach)
        zero = apply("eq", Value(total, i32), Const(0, i32))
        body: tuple[Stmt, ...] = (
            If(
                zero,
                self.tap(offsets, base + index, ASSIGN, reach),
                self.tap(offsets, base + index, "sum", reach),
            ),
        )
        for name, extent in reversed(loops):
            body = (For(name, 0, extent, body),)
        return body

    def tap(self, offsets: list[Size], tile: Size, combine: str, taps: Array) -> tuple[Stmt, ...]:
        """Products of all rows of a tile with one tile of weights.

        Args:
            taps: the first and last offsets of all column blocks.
        """
        tiling = self.tiling
        r, c = var("r"), var("c")
        lanes = (Dim("r", 0, self.p.array.rows), Dim("c", 0, self.p.array.columns))
        w = Load("w", (tile, r, c), i8)
        rows = [tiling.index(f, offset)
                for f, offset in zip(self.p.x_place.factors, offsets, strict=True)]  # fmt: skip
        inner = Load("x", (*rows, r), i8)
        target = Access("t", (*tiling.local(), c))
        found: list[Stmt] = []
        for box, is_inside in self.rectangles(offsets, taps):
            source = inner if is_inside else Load("pad", (r,), i8)
            dims = (*box, *lanes)
            one = Perform(self.p.operation, _ordered(dims), target, combine, (source, w))
            found += tiling.rows((one,))
        return tuple(found)

    def rectangles(self, offsets: list[Size], taps: Array) -> list[tuple[tuple[Dim, Dim], bool]]:
        """The box of a tile cut where x ends: pieces, and whether they are inside of x."""
        a, b = box_dims(self.tiling)
        inside = {name: self.guard(name, offsets, taps) for name in BOX}
        found: list[tuple[tuple[Dim, Dim], bool]] = []
        (above, a_in, below), (left, b_in, right) = (
            _cut(d, inside[d.name], self.ranges) for d in (a, b)
        )
        found += [((a, d), False) for d in (left, right) if d is not None]
        found += [((d, b_in), False) for d in (above, below) if d is not None]
        return [*found, ((a_in, b_in), True)]

    def guard(self, name: str, offsets: list[Size], taps: Array) -> tuple[Size | None, Size | None]:
        """The first pixel inside of x along a side of the box, and the first one after it.

        None where no tap leaves x on that side.
        """
        piece = self.tiling.box[BOX.index(name)]
        lo: Size | None = None
        hi: Size | None = None
        for j, extent in self.p.x_place.guards:
            factors = self.p.x_place.factors[j]
            if len(factors) != 1 or not set(factors) <= {p.name for p in self.tiling.box if p.name}:
                raise PassError(f"{self.p.acc.name}: padding along more than two dims")
            (pixel, factor), *_ = factors.items()
            if factor < 1:
                raise PassError(f"{self.p.acc.name}: a window that walks backwards")
            if pixel != piece.name:
                continue
            (size,) = (d.hi for d in self.p.pixels if d.name == pixel)
            assert isinstance(size, int)
            if (-taps[:, j]).max() > 0:
                lo = ceildiv(-offsets[j], factor)
            if ((size - 1) * factor + taps[:, j]).max() >= extent:
                hi = ceildiv(extent - offsets[j], factor)
        return lo, hi

    def rescaled(self, c: Columns, o: Size, block: int) -> tuple[Stmt, ...]:
        """Accumulators to rows of y."""
        found: list[Stmt] = []
        alike: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        for g in c.groups:
            alike.setdefault((g.lanes, g.filled), []).append((*g.rows, g.lane, g.source))
        step = [int(s) for s in c.step]
        for (lanes, fill), vectors in alike.items():
            for run in runs_of(vectors):
                k: Size = var("g") if run.count > 1 else 0
                *rows, lane, source = run.at(k)
                rows = [start + o * s for start, s in zip(rows, step, strict=True)]
                body = self.group(rows, lane, source, lanes, fill, block + o)
                found += (For("g", 0, run.count, body),) if run.count > 1 else body
        return tuple(found)

    def group(
        self, offsets: list[Size], start: Size, source: Size, lanes: int, fill: int, block: Size
    ) -> tuple[Stmt, ...]:
        """Some columns to one row of y for each pixel."""
        tiling, lane = self.tiling, var("l")
        rows = [tiling.index(f, offset)
                for f, offset in zip(self.p.y_place.factors, offsets, strict=True)]  # fmt: skip
        t = Load("t", (*tiling.local(), source + lane), i32)
        parameters = [Load(n, (block, source + lane), i8 if n == "s" else i32)
                      for n in ("bias", "m", "s")]  # fmt: skip
        assert self.p.match is not None
        target = Access("y", (*rows, start + lane))
        found = requantized(tiling, target, t, parameters, limits_of(self.p.match), lanes)
        if fill:
            end = Access("y", (*rows, start + lanes + lane))
            found += filled(tiling, end, fill)
        return found


def _ordered(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Dims in the order of the record: a, b, c, r."""
    return tuple(sorted(dims, key=lambda d: d.name))


def _cut(
    d: Dim, inside: tuple[Size | None, Size | None], ranges: Mapping[str, Range]
) -> tuple[Dim | None, Dim, Dim | None]:
    """What is before, in and after a range; they cover `d`, also where the range is empty."""
    lo, hi = inside
    start = d.lo if lo is None else simplify(minimum(maximum(lo, d.lo), d.hi), ranges)
    stop = d.hi if hi is None else simplify(maximum(minimum(hi, d.hi), start), ranges)
    before = None if lo is None else Dim(d.name, d.lo, start)
    after = None if hi is None else Dim(d.name, stop, d.hi)
    return before, Dim(d.name, start, stop), after


def _grid(taps: Array) -> list[tuple[int, int, int]] | None:
    """(start, step, count) of each dimension if the taps are all combinations of such."""
    found = []
    for column in taps.T:
        values = np.unique(column)
        steps = {int(q - p) for p, q in pairwise(values)}
        if len(steps) > 1:
            return None
        found.append((int(values[0]), steps.pop() if steps else 0, len(values)))
    count = 1
    for _, _, extent in found:
        count *= extent
    return found if count == len(taps) else None
