"""Elementwise statements: residual additions, lookups, and elements that move (concat, slices).

    out: y[n,c,e,f] = clamp(z + (((cast(i32, x[n,c,e,f]) - za)*ma + …) >> s), lo, hi)

Lanes that keep their neighbours are one operation; where all of a row keeps its place, the lanes
that hold no channel go with it, otherwise they are filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.expr import Const, Expr, Load
from nncc.ir.index import Element, Size, atom, elements, var
from nncc.ir.loops import Buffer, For, Perform, Stmt
from nncc.ir.nests import ASSIGN, Access, Dim, Nest, Param, Statement
from nncc.ir.types import i8, i32
from nncc.machines.machine import Machine
from nncc.passes.systolic.blocks import with_block_dims
from nncc.passes.systolic.code import (
    Code,
    blocks_of,
    box_dims,
    channel_dims,
    constant_buffer,
    filled,
    function,
    is_filled,
    rows_buffer,
    rows_of_a_box,
    volume,
)
from nncc.passes.systolic.places import Array, Grid, Run, place, runs_of
from nncc.passes.systolic.tiling import Tiling, tiled
from nncc.passes.systolic.unify import Match, literal, offset_of, unify


def pointwise_code(nest: Nest, constants: Mapping[str, Array], machine: Machine) -> Code:
    """The code of such a nest. Raises PassError with the statement that no operation computes."""
    return _Pointwise(nest, constants, machine).code()


@dataclass(frozen=True)
class _Operation:
    """An operation for one statement: its tensors, and its operands with them as loads of `x`."""

    name: str
    tensors: tuple[Load, ...]
    rest: tuple[Expr, ...]
    table: Array | None = None


@dataclass(frozen=True)
class _Written:
    """Where a statement writes: for each channel the offsets of its rows, and its lane."""

    tiling: Tiling
    extents: tuple[int, ...]
    factors: tuple[dict[str, int], ...]
    vectors: Array
    lanes: Array

    def key(self, vector: tuple[int, ...]) -> object:
        """Equal for statements that write the same rows there."""
        return vector, self.extents, tuple(tuple(f.values()) for f in self.factors)


class _Pointwise:
    def __init__(self, nest: Nest, constants: Mapping[str, Array], machine: Machine) -> None:
        assert machine.array is not None
        self.nest = nest
        for k in range(len(nest.statements)):
            self.nest, _ = with_block_dims(self.nest, self.nest.statements[k])
        self.constants, self.machine = constants, machine
        self.rows, self.most = machine.array.rows, rows_of_a_box(machine.array)
        self.extra: list[tuple[str, Array]] = []
        self.names: dict[str, str] = {}
        self.whole: set[tuple[int, ...]] = set()  # rows of y of which all lanes are written
        for k, p in enumerate(p for p in nest.inputs if p.name not in constants):
            self.names[p.name] = f"x{k}" if k else "x"

    def code(self) -> Code:
        nest = self.nest
        if len(nest.outputs) != 1 or nest.locals:
            raise PassError(f"{nest.name}: no operation computes several tensors")
        y = nest.outputs[0]
        body: list[Stmt] = []
        written: list[_Written] = []
        for s in nest.statements:
            if s.combine != ASSIGN or s.where or len(s.targets) != 1:
                raise PassError(f"{s.name}: no operation on every element")
            body += self.statement(s, y, written)
        body = [*self.padding(y, written), *body]
        inputs = [rows_buffer(self.names[p.name], p, "in")
                  for p in nest.inputs if p.name in self.names]  # fmt: skip
        buffers: list[Buffer] = [*inputs, *(constant_buffer(n, a) for n, a in self.extra)]
        buffers.append(rows_buffer("y", y, "out"))
        return Code(function(nest, buffers, body), tuple(self.names), tuple(self.extra))

    # -- one statement ---------------------------------------------------------------------
    def statement(self, s: Statement, y: Param, written: list[_Written]) -> tuple[Stmt, ...]:
        operation = self.operation(s)
        channels = channel_dims(s, y, self.nest, self.constants)
        names = {d.name for d in channels}
        pixels = tuple(d for d in s.dims if d.name not in names)
        grid, tiling = Grid(channels), tiled(pixels, self.most)
        target = place(y, s.targets[0].indices, grid, pixels, guarded=False)
        vectors = [blocks_of(target.offsets, grid.shape)]
        factors = [target.factors]
        lanes = [grid.full(target.lanes).reshape(-1)]
        buffers = []
        for load in operation.tensors:
            if load.tensor in self.constants:
                name, offsets, own = self.constant(load, grid, vectors[0], lanes[0])
                factors.append(({},))
                vectors.append(blocks_of([offsets.reshape(grid.shape)], grid.shape))
            else:
                name = self.names[load.tensor]
                source = place(self.nest.param(load.tensor), load.indices, grid, pixels,
                               guarded=False)  # fmt: skip
                own = grid.full(source.lanes).reshape(-1)
                factors.append(source.factors)
                vectors.append(blocks_of(source.offsets, grid.shape))
            buffers.append(name)
            lanes.append(own)
        if len(lanes) == 3 and (lanes[1] != lanes[2]).any():
            raise PassError(f"{s.name}: the operands keep their channels in different lanes")
        found, which = vectors[0]
        written.append(
            _Written(
                tiling, tuple(volume([d]) for d in pixels), target.factors, found[which], lanes[0]
            )
        )
        whole = np.concatenate([found[which] for found, which in vectors], axis=1)
        body: list[Stmt] = []
        for run, start, source_lane, width in self.pieces(
            whole, vectors, lanes, self.filled(operation)
        ):
            body += self.emitted(s, operation, tiling, factors, buffers, run,
                                 (start, source_lane, width))  # fmt: skip
        return tuple(body)

    def pieces(
        self, whole: Array, vectors: list[tuple[Array, Array]], lanes: list[Array],
        sources_filled: bool,
    ) -> list[tuple[Run, int, int, int]]:  # fmt: skip
        """Lanes that move together: (blocks, lane of y, lane of x, number of lanes)."""
        source = lanes[1] if len(lanes) > 1 else lanes[0]
        order = np.lexsort((lanes[0], vectors[0][1]))
        found: list[tuple[tuple[int, ...], int, int, int]] = []
        for k in order:
            vector, y, x = tuple(int(v) for v in whole[k]), int(lanes[0][k]), int(source[k])
            if found:
                last, y0, x0, n = found[-1]
                if last == vector and (y, x) == (y0 + n, x0 + n):
                    found[-1] = (last, y0, x0, n + 1)
                    continue
            found.append((vector, y, x, 1))
        used = {k: int(lanes[0][vectors[0][1] == k].max()) + 1 for k in range(len(vectors[0][0]))}
        rank = vectors[0][0].shape[1]
        block = {tuple(map(int, v)): k for k, v in enumerate(vectors[0][0])}
        groups: dict[tuple[int, int, int], list[tuple[int, ...]]] = {}
        for vector, y, x, n in found:
            aligned = (y, x) == (0, 0) and n == used[block[vector[:rank]]]
            width = self.rows if aligned and self.alone and sources_filled else n
            if width == self.rows:
                self.whole.add(vector[:rank])
            groups.setdefault((y, x, width), []).append(vector)
        return [(run, y, x, n) for (y, x, n), all_of in groups.items() for run in runs_of(all_of)]

    def filled(self, operation: _Operation) -> bool:
        """Whether all lanes of what the operation reads can be read."""
        names = (load.tensor for load in operation.tensors)
        return all(n in self.constants or is_filled(self.nest.param(n)) for n in names)

    @property
    def alone(self) -> bool:
        """Whether no other statement writes the rows: then unused lanes may be written too."""
        return len(self.nest.statements) == 1

    def emitted(
        self, s: Statement, operation: _Operation, tiling: Tiling,
        factors: list[tuple[dict[str, int], ...]], buffers: list[str], run: Run,
        lanes: tuple[int, int, int],
    ) -> tuple[Stmt, ...]:  # fmt: skip
        start, source_lane, width = lanes
        o: Size = var("o") if run.count > 1 else 0
        offsets = run.at(o)
        lane = var("l")
        rows: list[tuple[Size, ...]] = []
        for own in factors:
            rows.append(tuple(tiling.index(f, offset)
                              for f, offset in zip(own, offsets, strict=False)))  # fmt: skip
            offsets = offsets[len(own) :]
        target = Access("y", (*rows[0], start + lane))
        loads: list[Expr] = [Load(b, (*r, source_lane + lane), i8)
                             for b, r in zip(buffers, rows[1:], strict=True)]  # fmt: skip
        if operation.table is not None:
            (x,) = loads
            assert isinstance(x, Load)
            index = element(x) + 128
            loads.append(Load("table", (index,), i8))
        dims = (*box_dims(tiling), Dim("l", 0, width))
        performs = tiling.rows(
            (Perform(operation.name, dims, target, ASSIGN, (*loads, *operation.rest)),)
        )
        performs = tiling.tiles(performs)
        return (For("o", 0, run.count, performs),) if run.count > 1 else performs

    def padding(self, y: Param, written: list[_Written]) -> tuple[Stmt, ...]:
        """Fills the lanes of y that hold no channel, if someone reads them.

        It does so before the statements: what one of them fills another one may write.
        """
        if not is_filled(y):
            return ()
        ends: dict[object, tuple[_Written, tuple[int, ...], int]] = {}
        for w in written:
            for v, lane in zip(w.vectors.tolist(), w.lanes.tolist(), strict=True):
                key = w.key(tuple(v))
                *_, end = ends.get(key, (None, None, 0))
                ends[key] = w, tuple(v), max(end, lane + 1)
        body: list[Stmt] = []
        for w, vector, end in ends.values():
            if end < self.rows and vector not in self.whole:
                rows = [w.tiling.index(f, v) for f, v in zip(w.factors, vector, strict=True)]
                fill = filled(w.tiling, Access("y", (*rows, end + var("l"))), self.rows - end)
                body += w.tiling.tiles(fill)
        return tuple(body)

    # -- operands --------------------------------------------------------------------------
    def operation(self, s: Statement) -> _Operation:
        """The operation that computes a statement. Raises PassError if there is none."""
        value = s.values[0]
        y = self.nest.param(s.targets[0].tensor).type.dtype
        if isinstance(value, Load) and value.other is None:
            found = self.lookup(value, offset_of(y))
            if found is not None:
                self.extra.append(("table", found[1]))
                return _Operation("look_up", (found[0],), (), found[1])
            if value.dtype is y and y.bits == 8 and value.tensor not in self.constants:
                return _Operation("copy_rows", (value,), ())
        match = unify(self.machine.operations["add_rows"].semantics, value)
        if match is not None and all(isinstance(match.operands[n], Load) for n in ("x", "o")):
            return self.addition(match, s)
        raise PassError(f"{s.name}: no operation computes this")

    def lookup(self, value: Load, offset: int) -> tuple[Load, Array] | None:
        """The tensor whose bytes choose an element of a table, and the table in bytes."""
        if value.tensor not in self.constants or len(value.indices) != 1:
            return None
        found = elements(value.indices[0])
        table = self.constants[value.tensor]
        if len(found) != 1 or table.shape != (256,) or table.dtype.itemsize != 1:
            return None
        chosen: Element = found[0]
        dtype = self.nest.param(chosen.tensor).type.dtype
        if dtype.bits != 8 or value.indices[0] - atom(chosen) != -dtype.limits[0]:
            return None
        content = (table.astype(np.int32) - offset).astype(np.int8)
        return Load(chosen.tensor, chosen.indices, dtype), content

    def addition(self, match: Match, s: Statement) -> _Operation:
        tensors = tuple(match.operands[n] for n in ("x", "o"))
        numbers = {n: literal(match, n) for n in ("zx", "zo", "mx", "mo", "s", "z", "lo", "hi")}
        for name, load in zip(("zx", "zo"), tensors, strict=True):
            assert isinstance(load, Load)
            numbers[name] -= offset_of(load.dtype)
        for name in ("z", "lo", "hi"):
            numbers[name] -= 128 if match.unsigned else 0
        limits = {"mx": (0, 1 << 15), "mo": (0, 1 << 15), "s": (1, 31)}
        for name, number in numbers.items():
            lo, hi = limits.get(name, (-128, 128))
            if not lo <= number < hi:
                raise PassError(f"{s.name}: {name} = {number} is not in {lo}..{hi}")
        rest = tuple(Const(n, i32) for n in numbers.values())
        if isinstance(tensors[0], Load) and tensors[0].tensor in self.constants:
            tensors = tensors[::-1]
            order = ("zo", "zx", "mo", "mx", "s", "z", "lo", "hi")
            rest = tuple(Const(numbers[n], i32) for n in order)
        return _Operation("add_rows", tensors, rest)  # type: ignore[arg-type]

    def constant(
        self, load: Load, grid: Grid, blocks: tuple[Array, Array], lanes: Array
    ) -> tuple[str, Array, Array]:
        """A constant operand as rows: its buffer, and the row and lane of each channel."""
        try:
            values = grid.full(grid.value(load, self.constants)).reshape(-1)
        except KeyError as error:
            raise PassError(f"a constant that differs between pixels ({load.tensor})") from error
        array = np.zeros((len(blocks[0]), self.rows), np.int8)
        array[blocks[1], lanes] = values.astype(np.int32) - offset_of(load.dtype)
        self.extra.append(("k", array))
        return "k", blocks[1], lanes


def element(x: Load) -> Size:
    """A byte of a buffer as a subscript."""
    return atom(Element(x.tensor, x.indices, -128, 128))
