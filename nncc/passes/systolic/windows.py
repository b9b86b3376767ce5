"""Pooling: the largest element of windows, and rescaled sums of windows.

    init: t[n,c,e,f] = -128
    acc:  t[n,c,e,f] max= (x[n, c, 2*e + r - 1, 2*f + s - 1] else -128)
    out:  y[n,c,e,f] = t[n,c,e,f]

Where windows reach over the border, the output is cut into regions in which all windows have the
same part inside of x: each has a window of its own, and for sums its own rescaling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.expr import Const, Load
from nncc.ir.index import Size, maximum, minimum, var
from nncc.ir.loops import Alloc, Buffer, For, Perform, Stmt
from nncc.ir.nests import ASSIGN, Access, Dim, Nest
from nncc.ir.types import i8, i32
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import ACCUMULATORS
from nncc.passes.systolic.blocks import block_phases
from nncc.passes.systolic.code import (
    Code,
    blocks_of,
    channel_dims,
    constant_buffer,
    filled,
    function,
    integer,
    is_filled,
    limits_of,
    rescaling,
    rows_buffer,
    rows_of_a_box,
    whole,
)
from nncc.passes.systolic.places import Array, Grid, place, runs_of
from nncc.passes.systolic.products import centred
from nncc.passes.systolic.tiling import BOX, Tiling, tiled
from nncc.passes.systolic.unify import offset_of, unify

WINDOW = ("p", "q")


def window_code(nest: Nest, constants: Mapping[str, Array], machine: Machine) -> Code:
    """The code of such a nest. Raises PassError with the statement that no operation computes."""
    phases = list(block_phases(nest, nest.statements[-1]))
    found = [_Windows(p, constants, machine, p is phases[-1]).code() for p in phases]
    if len(found) == 1:
        return found[0]
    if any(code.constants for code in found):
        raise PassError(f"{nest.name}: sums of windows are not kept in blocks of pixels")
    body = [s for code in found for s in code.function.body]
    return replace(found[0], function=replace(found[0].function, body=tuple(body)))


@dataclass(frozen=True, slots=True)
class _Segment:
    """Pixels lo..hi of one dim whose windows have first..last inside of x."""

    lo: int
    hi: int
    first: int
    last: int


class _Windows:
    """The windows of one pixel of a block; `fills`: behind its lanes there are none of others."""

    def __init__(
        self, nest: Nest, constants: Mapping[str, Array], machine: Machine, fills: bool
    ) -> None:
        assert machine.array is not None
        self.nest, self.constants, self.array = nest, constants, machine.array
        self.fills = fills
        found = nest.statements
        if len(found) != 3 or [s.combine for s in found if s is not found[1]] != [ASSIGN] * 2:
            raise PassError(f"{nest.name}: no windows")
        self.init, self.acc, self.out = found
        if any(s.where or len(s.targets) != 1 for s in found) or (
            self.init.targets != self.acc.targets
        ):
            raise PassError(f"{self.acc.name}: no windows")
        self.is_sum = self.acc.combine == "sum"
        self.match = None
        value = self.acc.values[0]
        if self.is_sum:
            self.x, zero = centred(value, self.acc)
            self.match = unify(machine.operations["requantize"].semantics, self.out.values[0])
            result = None if self.match is None else self.match.operands["acc"]
        elif self.acc.combine == "max" and isinstance(value, Load) and value.dtype.bits == 8:
            self.x, zero, result = value, 0, self.out.values[0]
        else:
            raise PassError(f"{self.acc.name}: no operation folds this")
        t = self.acc.targets[0]
        if not isinstance(result, Load) or (result.tensor, result.indices) != (t.tensor, t.indices):
            raise PassError(f"{self.out.name}: no operation computes this")
        self.x_param = nest.param(self.x.tensor)
        self.y_param = nest.param(self.out.targets[0].tensor)
        self.offset = offset_of(self.x_param.type.dtype)
        self.zero = zero - self.offset
        self.start()
        channels = channel_dims(self.out, self.y_param, nest, constants)
        names = {d.name for d in channels}
        self.pixels = tuple(d for d in self.out.dims if d.name not in names)
        outer = names | {d.name for d in self.pixels}
        self.window = tuple(d for d in self.acc.dims if d.name not in outer)
        if len(self.window) > 2:
            raise PassError(f"{self.acc.name}: a window of {len(self.window)} dims")
        self.grid = Grid(channels)
        around = (*self.pixels, *self.window)
        self.source = place(self.x_param, self.x.indices, self.grid, around,
                            guarded=self.x.other is not None)  # fmt: skip
        self.target = place(self.y_param, self.out.targets[0].indices, self.grid, self.pixels,
                            guarded=False)  # fmt: skip
        lanes = self.grid.full(self.source.lanes).reshape(-1)
        shifts = self.grid.full(self.target.lanes).reshape(-1) - lanes
        self.lanes, self.shift = lanes, int(shifts[0])
        if (shifts != self.shift).any():
            raise PassError(f"{self.acc.name}: the windows move channels")

    def start(self) -> None:
        """Checks what the fold starts with. Raises PassError."""
        first = self.init.values[0]
        wanted = 0 if self.is_sum else self.x_param.type.dtype.limits[0]
        if not isinstance(first, Const) or first.value != wanted:
            raise PassError(f"{self.init.name}: the fold does not start with {wanted}")

    @property
    def outside(self) -> int:
        other = self.x.other
        if other is None:
            return 0
        if isinstance(other, Const) and (self.is_sum or other.value == self.x.dtype.limits[0]):
            return int(other.value) - self.offset
        raise PassError(f"{self.acc.name}: padding that is no smallest number")

    # -- regions ---------------------------------------------------------------------------
    def segments(self, k: int, tiling: Tiling) -> list[_Segment]:
        """Pixels along side k of the box by the part of window dim k that is inside of x."""
        piece = tiling.box[k]
        size = next((int(d.hi) for d in self.pixels if d.name == piece.name), 1)  # type: ignore[arg-type]
        found: list[_Segment] = []
        window = self.sides(tiling)[k]
        for pixel in range(size):
            first, last = self.part(window, piece.name, pixel)
            if found and (found[-1].first, found[-1].last) == (first, last):
                found[-1] = _Segment(found[-1].lo, pixel + 1, first, last)
            else:
                found.append(_Segment(pixel, pixel + 1, first, last))
        return found

    def sides(self, tiling: Tiling) -> list[Dim | None]:
        """For each side of the box the window dim that goes along it."""
        found: list[Dim | None] = [None, None]
        rest: list[Dim] = []
        names = [p.name for p in tiling.box]
        for w in self.window:
            along = {n for f in self.source.factors if w.name in f for n in f} - {w.name}
            side = next((k for k, n in enumerate(names) if n in along), None)
            if side is None or found[side] is not None:
                rest.append(w)
            else:
                found[side] = w
        for w in rest:
            found[found.index(None)] = w
        return found

    def part(self, w: Dim | None, name: str, pixel: int) -> tuple[int, int]:
        """Which values of window dim w are inside of x for a pixel of that side of the box."""
        if w is None:
            return 0, 1
        assert isinstance(w.hi, int)
        valid = np.ones(w.hi, bool)
        for j, extent in self.source.guards:
            factors = dict(self.source.factors[j])
            step = factors.pop(w.name, 0)
            if not step:
                continue
            at = int(self.source.offsets[j].flat[0]) + factors.pop(name, 0) * pixel
            if factors or (self.source.offsets[j] != self.source.offsets[j].flat[0]).any():
                raise PassError(f"{self.acc.name}: windows that are not side by side")
            index = at + step * np.arange(w.hi)
            valid &= (index >= 0) & (index < extent)
        inside = np.flatnonzero(valid)
        if not inside.size:
            return 0, 0
        return int(inside[0]), int(inside[-1]) + 1

    def regions(self, tiling: Tiling) -> list[tuple[_Segment, _Segment]]:
        sides = [self.segments(k, tiling) for k in range(2)]
        for _ in range(2):
            found = [(a, b) for a in sides[0] for b in sides[1]]
            if not self.is_sum or all(self.uniform(tiling, *r) for r in found):
                return found
            sides = [
                [_Segment(k, k + 1, s.first, s.last) for s in side for k in range(s.lo, s.hi)]
                for side in sides
            ]
        raise PassError(f"{self.out.name}: the rescaling differs between channels or samples")

    def scales(self, tiling: Tiling) -> tuple[Array, Array]:
        """m and s over the box."""
        assert self.match is not None
        names = [p.name for p in tiling.box]
        grid = Grid([d for d in self.pixels if d.name in names])
        try:
            found = tuple(
                grid.full(grid.value(self.match.operands[n], self.constants)) for n in ("m", "s")
            )
        except KeyError as error:
            raise PassError(f"{self.out.name}: the rescaling differs between channels") from error
        shape = (1,) * (2 - len(grid.shape)) + grid.shape
        return found[0].reshape(shape), found[1].reshape(shape)

    def uniform(self, tiling: Tiling, a: _Segment, b: _Segment) -> bool:
        parts = [x[a.lo : a.hi, b.lo : b.hi] for x in self.scales(tiling)]
        return all((x == x.flat[0]).all() for x in parts)

    # -- code ------------------------------------------------------------------------------
    def code(self) -> Code:
        limit = (
            max(self.array.accumulator_rows // 2, 1) if self.is_sum else rows_of_a_box(self.array)
        )
        tiling = tiled(self.pixels, limit)
        regions = self.regions(tiling)
        constants = self.parameters(tiling, regions) if self.is_sum else []
        vectors: dict[int, list[tuple[int, ...]]] = {}  # by the number of lanes
        blocks, which = blocks_of(self.target.offsets, self.grid.shape)
        for k, block in enumerate(blocks):
            members = np.flatnonzero(which == k)
            source = [int(self.grid.full(o).reshape(-1)[members[0]]) for o in self.source.offsets]
            lanes = int(self.lanes[members].max()) + 1
            if self.fills and not self.shift and is_filled(self.x_param):
                lanes = self.array.rows  # what fills x fills y
            vectors.setdefault(lanes, []).append((*(int(b) for b in block), *source))
        body: list[Stmt] = []
        for lanes, own in vectors.items():
            for run in runs_of(own):
                o: Size = var("o") if run.count > 1 else 0
                offsets = run.at(o)
                y, x = offsets[: len(self.target.factors)], offsets[len(self.target.factors) :]
                inner = (*self.folded(tiling, regions, y, x, lanes), *self.rest(tiling, y, lanes))
                body += (For("o", 0, run.count, inner),) if run.count > 1 else inner
        buffers: list[Buffer] = [rows_buffer("x", self.x_param, "in")]
        buffers += [constant_buffer(n, a) for n, a in constants]
        buffers.append(rows_buffer("y", self.y_param, "out"))
        return Code(function(self.nest, buffers, body), (self.x_param.name,), tuple(constants))

    def folded(
        self, tiling: Tiling, regions: list[tuple[_Segment, _Segment]], y: list[Size],
        x: list[Size], lanes: int,
    ) -> tuple[Stmt, ...]:  # fmt: skip
        """All windows around one row of y for each pixel."""
        if self.is_sum:
            return self.sums(tiling, regions, y, x, lanes)
        found = tuple(self.largest(tiling, a, b, y, x, lanes) for a, b in regions)
        return tiling.tiles(tiling.rows(found))

    def rest(self, tiling: Tiling, y: list[Size], lanes: int) -> tuple[Stmt, ...]:
        """Fills what no window gives, if someone reads it."""
        end = self.shift + lanes
        if not self.fills or not is_filled(self.y_param) or end == self.array.rows:
            return ()
        rows = [tiling.index(f, v) for f, v in zip(self.target.factors, y, strict=True)]
        fill = filled(tiling, Access("y", (*rows, end + var("l"))), self.array.rows - end)
        return tiling.tiles(fill)

    def box(self, tiling: Tiling, a: _Segment, b: _Segment) -> tuple[Dim, Dim]:
        found = []
        for name, piece, s in zip(BOX, tiling.box, (a, b), strict=True):
            side = whole(name, piece)
            found.append(Dim(name, maximum(side.lo, s.lo), minimum(side.hi, s.hi)))
        return found[0], found[1]

    def window_dims(self, a: _Segment, b: _Segment) -> tuple[Dim, Dim]:
        first, second = (Dim(n, s.first, s.last) for n, s in zip(WINDOW, (a, b), strict=True))
        return first, second

    def load(self, tiling: Tiling, x: list[Size], lane: Size) -> Load:
        sides = zip(self.sides(tiling), WINDOW, strict=True)
        values = {d.name: name for d, name in sides if d is not None}
        rows = []
        for factors, offset in zip(self.source.factors, x, strict=True):
            pixels = {n: f for n, f in factors.items() if n not in values}
            for name, f in factors.items():
                if name in values:
                    offset = offset + f * var(values[name])
            rows.append(tiling.index(pixels, offset))
        return Load("x", (*rows, lane), i8)

    def largest(
        self, tiling: Tiling, a: _Segment, b: _Segment, y: list[Size], x: list[Size], count: int
    ) -> Stmt:
        """The largest elements of all windows of a region."""
        assert self.outside is not None
        lanes = Dim("l", 0, count)
        rows = [tiling.index(f, v) for f, v in zip(self.target.factors, y, strict=True)]
        target = Access("y", (*rows, self.shift + var("l")))
        box = self.box(tiling, a, b)
        if a.first == a.last or b.first == b.last:
            return Perform("fill_rows", (*box, lanes), target, ASSIGN, (integer(-128, i8),))
        dims = (*box, lanes, *self.window_dims(a, b))
        return Perform("pool_max", dims, target, ASSIGN, (self.load(tiling, x, var("l")),))

    def sums(
        self, tiling: Tiling, regions: list[tuple[_Segment, _Segment]], y: list[Size],
        x: list[Size], count: int,
    ) -> tuple[Stmt, ...]:  # fmt: skip
        """Sums of all windows into accumulators and from there, rescaled, to rows."""
        assert self.match is not None
        columns = self.array.columns
        rows = [tiling.index(f, v) for f, v in zip(self.target.factors, y, strict=True)]
        local = Buffer("t", i32, (*tiling.local_shape, columns), "local", ACCUMULATORS)
        lane = var("l")
        t = (*tiling.local(), lane)
        body: list[Stmt] = []
        for first in range(0, count, columns):
            lanes = Dim("l", 0, min(columns, count - first))
            added: list[Stmt] = []
            for k, (a, b) in enumerate(regions):
                box = self.box(tiling, a, b)
                dims = (*box, lanes, *self.window_dims(a, b))
                source = self.load(tiling, x, first + lane)
                added.append(Perform("window_sum", dims, Access("t", t), ASSIGN, (source,)))
                parameters = [Load(n, (k, lane), i8 if n == "s" else i32)
                              for n in ("bias", "m", "s")]  # fmt: skip
                operands = (Load("t", t, i32), *parameters, *limits_of(self.match))
                target = Access("y", (*rows, self.shift + first + lane))
                added.append(Perform("requantize", (*box, lanes), target, ASSIGN, operands))
            body += tiling.tiles((Alloc(local, tiling.rows(tuple(added))),))
        return tuple(body)

    def parameters(
        self, tiling: Tiling, regions: list[tuple[_Segment, _Segment]]
    ) -> list[tuple[str, Array]]:
        """Bias, multiplier and shift of each region: [regions, C]."""
        assert self.match is not None
        total = 1
        for d in self.window:
            assert isinstance(d.hi, int)
            total *= d.hi
        m, s = self.scales(tiling)
        count, columns = len(regions), self.array.columns
        arrays = {n: np.zeros((count, columns), np.int8 if n == "s" else np.int32)
                  for n in ("bias", "m", "s")}  # fmt: skip
        for k, (a, b) in enumerate(regions):
            inside = (a.last - a.first) * (b.last - b.first)
            if not inside:
                raise PassError(f"{self.acc.name}: a window without elements")
            bias = (total - inside) * self.outside - total * self.zero
            point = Grid(())
            constants = {"m": m[a.lo, b.lo], "s": s[a.lo, b.lo]}
            operands = {
                **self.match.operands,
                **{n: Const(int(v), i32) for n, v in constants.items()},
            }
            at = type(self.match)(operands, self.match.unsigned)
            found = rescaling(at, point, self.constants, np.asarray(bias))
            for name, value in zip(("bias", "m", "s"), found, strict=True):
                arrays[name][k] = int(value)
        return list(arrays.items())
