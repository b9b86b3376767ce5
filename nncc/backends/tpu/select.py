"""Instructions for operations on memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from nncc.backends.tpu.order import Rows, Stream, Use
from nncc.backends.tpu.places import Places
from nncc.backends.tpu.walk import Operand, Step
from nncc.diagnostics import TargetError
from nncc.isa.tpu.instructions import (
    AddRows,
    CopyRows,
    FillRows,
    Instruction,
    LookUp,
    MatrixMultiply,
    PoolMax,
    Register,
    Requantize,
    WindowSum,
)
from nncc.isa.tpu.program import Origin
from nncc.machines.systolic.boxes import Dims, fits, simple
from nncc.machines.systolic.model import ACCUMULATORS, UNIFIED_BUFFER

R = Register


Emit = Callable[["Box"], None]
Written = Callable[[Rows, int, int], None]


def _forget(rows: Rows, lane: int, lanes: int) -> None:
    pass


@dataclass(frozen=True)
class Box:
    """Points of an instruction: `height` x `width`, and for each operand where they are.

    Args:
        bases: rows at the first point; `outer`, `inner`: strides.
    """

    height: int
    width: int
    bases: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]

    def rows(self, k: int, shift: int = 0) -> slice | np.ndarray:
        """The rows of operand k."""
        base = self.bases[k] + shift
        return _box(base, self.height, self.width, self.outer[k], self.inner[k])


@dataclass
class _Pending:
    """An instruction that may still grow: the same one with other bases, at equal distances."""

    key: tuple[object, ...]
    bases: tuple[int, ...]
    dims: Dims
    emit: Emit
    dense: bool
    count: int = 1
    step: tuple[int, ...] = ()

    def grows(self, key: tuple[object, ...], bases: tuple[int, ...], dims: Dims) -> bool:
        """Whether the next one is one more of the same; counts it then."""
        if key != self.key or dims != self.dims:
            return False
        step = self.step
        if self.count == 1:
            step = tuple(b - a for a, b in zip(self.bases, bases, strict=True))
        expected = tuple(a + self.count * d for a, d in zip(self.bases, step, strict=True))
        grown = simple([(self.count + 1, step), *self.dims])
        if bases != expected or not fits(grown, self.dense):
            return False
        self.count, self.step = self.count + 1, step
        return True

    def box(self) -> Box:
        none = (0,) * len(self.bases)
        dims = simple([(self.count, self.step or none), *self.dims])
        if len(dims) == 1 and self.dense and dims[0][1][-1] != 1:
            dims.append((1, none))
        (height, outer), (width, inner) = ([(1, none)] * 2 + dims)[-2:]
        return Box(height, width, self.bases, outer, inner)


class Selector:
    """Appends the instructions of steps to a program.

    Boxes that follow each other at equal distances become one instruction where it can express
    them. Raises TargetError for an operation that the array does not have.

    Args:
        written: is told which lanes of which rows of the unified buffer are written.
    """

    def __init__(self, places: Places, program: Stream, written: Written = _forget) -> None:
        self.places, self.program, self.written = places, program, written
        self.pending: _Pending | None = None

    def add(self, step: Step) -> None:
        emit = _EMIT.get(step.operation)
        if emit is None:
            raise TargetError(f"the array has no operation '{step.operation}'")
        emit(self, step)

    def finish(self) -> None:
        """Appends what has not been appended yet."""
        if self.pending is not None:
            self.pending.emit(self.pending.box())
            self.pending = None

    def push(
        self, s: Step, key: tuple[object, ...], operands: list[Operand], emit: Emit,
        dense: bool = False,
    ) -> None:  # fmt: skip
        """An instruction over the box of a step.

        Args:
            key: equal for instructions that differ in the bases of their operands alone.
            dense: the rows of the last operand must follow one another within a line of the box.
        """
        dims = simple([(s.extents[n], tuple(o.strides.get(n, 0) for o in operands))
                        for n in ("a", "b")])  # fmt: skip
        bases = tuple(self.rows(o) for o in operands)
        key = (s.operation, s.node, *key)
        if self.pending is not None and self.pending.grows(key, bases, dims):
            return
        self.finish()
        self.pending = _Pending(key, bases, dims, emit, dense)
        if not fits(self.pending.dims, dense):
            raise TargetError(f"a box of {s.extents} rows is no box of one instruction")

    # -- boxes -----------------------------------------------------------------------------
    def rows(self, o: Operand) -> int:
        """The first row of an operand in the unified buffer; constants get their rows now."""
        if o.region.content is None:
            return o.row
        return self.places.rows_of(o.region) + o.row - o.region.base

    def matmul(self, s: Step) -> None:
        x, w = s.operands

        def emit(box: Box) -> None:
            registers = {R.SOURCE_2: box.inner[0]} if box.width > 1 else {}
            if box.height > 1:
                registers |= {R.SOURCE_1: box.outer[0], R.TARGET_1: box.outer[1]}
            tile = w.row if w.row != self.program.tile else None
            self.program.tile = w.row
            uses = [
                Use(UNIFIED_BUFFER, box.rows(0), False),
                Use(ACCUMULATORS, box.rows(1), True),
            ]
            row, accumulator = box.bases
            i = MatrixMultiply(
                row, accumulator, box.height, box.width, s.accumulate, tile is not None,
                s.operation == "matmul_unsigned",
            )  # fmt: skip
            self.program.add(i, self.origin(s), uses, registers, tile)

        self.push(s, (w.row, s.accumulate), [x, s.target], emit, dense=True)

    def activate(
        self,
        s: Step,
        sources: list[tuple[Operand, tuple[Register, Register]]],
        make: Callable[[Box], Instruction],
        extra: tuple[tuple[int, int], ...] = (),
        window: Mapping[Register, int] | None = None,
    ) -> None:
        """An instruction of the activation unit.

        Args:
            sources: operands with their stride registers.
            make: from the box; its last operand is the target.
            extra: (first row, rows) of the unified buffer that are read besides.
            window: configuration of windows.
        """
        operands = [o for o, _ in sources] + [s.target]
        named = [r for _, r in sources] + [(R.OUT_1, R.OUT_2)]
        lanes = tuple(o.lane for o in operands)
        sides = tuple((n, e) for n, e in s.extents.items() if n not in ("a", "b"))
        key = (lanes, sides, s.numbers, extra, tuple((window or {}).items()), s.accumulate)

        def emit(box: Box) -> None:
            registers: dict[Register, int] = dict(window or {})
            for (first, second), p, q in zip(named, box.outer, box.inner, strict=True):
                if box.height > 1:
                    registers[first] = p
                if box.width > 1:
                    registers[second] = q
            uses = []
            for k, (o, _) in enumerate(sources):
                for i in range(s.extents.get("p", 1)):
                    for j in range(s.extents.get("q", 1)):
                        shift = i * o.strides.get("p", 0) + j * o.strides.get("q", 0)
                        uses.append(Use(o.region.space, box.rows(k, shift), False))
            uses += [Use(UNIFIED_BUFFER, slice(r, r + n), False) for r, n in extra]
            target = box.rows(len(sources))
            uses.append(Use(s.target.region.space, target, True))
            if s.target.region.space == UNIFIED_BUFFER:
                self.written(target, s.target.lane, s.extents["l"])
            self.program.add(make(box), self.origin(s), uses, registers)

        self.push(s, key, operands, emit)

    def origin(self, s: Step) -> Origin:
        return Origin(s.node, s.tensor, s.tile)

    # -- operations ------------------------------------------------------------------------
    def requantize(self, s: Step) -> None:
        acc, bias, m, shift = s.operands
        z, lo, hi = s.numbers
        rows = []
        for o in (bias, m, shift):
            assert o.region.content is not None
            if o.lane != acc.lane:
                raise TargetError("parameters of a rescaling are in other lanes than the sums")
            rows.append(o.region.content[o.index[:-1]].tobytes())
        block = b"".join(rows)
        parameters = self.places.block(block)
        count = -(-len(block) // self.places.array.rows)

        def make(box: Box) -> Instruction:
            a, b, bases, target = box.height, box.width, box.bases[:-1], box.bases[-1]
            return Requantize(
                bases[0], target, parameters, a, b, acc.lane, s.target.lane, s.extents["l"],
                z, lo, hi,
            )  # fmt: skip

        self.activate(s, [(acc, (R.IN_1, R.IN_2))], make, ((parameters, count),))

    def add_rows(self, s: Step) -> None:
        x, o = s.operands
        zx, zo, mx, mo, shift, z, lo, hi = s.numbers
        if x.lane != o.lane:
            raise TargetError("the operands of an addition are in different lanes")

        def make(box: Box) -> Instruction:
            a, b, bases, target = box.height, box.width, box.bases[:-1], box.bases[-1]
            return AddRows(
                bases[0], bases[1], target, a, b, x.lane, s.target.lane, s.extents["l"],
                zx, zo, mx, mo, shift, z, lo, hi,
            )  # fmt: skip

        self.activate(s, [(x, (R.IN_1, R.IN_2)), (o, (R.OTHER_1, R.OTHER_2))], make)

    def look_up(self, s: Step) -> None:
        x, table = s.operands
        row = self.places.rows_of(table.region)
        count = -(-256 // self.places.array.rows)

        def make(box: Box) -> Instruction:
            a, b, bases, target = box.height, box.width, box.bases[:-1], box.bases[-1]
            return LookUp(bases[0], target, row, a, b, x.lane, s.target.lane, s.extents["l"])

        self.activate(s, [(x, (R.IN_1, R.IN_2))], make, ((row, count),))

    def copy_rows(self, s: Step) -> None:
        (x,) = s.operands

        def make(box: Box) -> Instruction:
            a, b, bases, target = box.height, box.width, box.bases[:-1], box.bases[-1]
            return CopyRows(bases[0], target, a, b, x.lane, s.target.lane, s.extents["l"])

        self.activate(s, [(x, (R.IN_1, R.IN_2))], make)

    def fill_rows(self, s: Step) -> None:
        (value,) = s.numbers

        def make(box: Box) -> Instruction:
            (target,) = box.bases
            return FillRows(target, box.height, box.width, s.target.lane, s.extents["l"], value)

        self.activate(s, [], make)

    def pool_max(self, s: Step) -> None:
        (x,) = s.operands

        def make(box: Box) -> Instruction:
            a, b, bases, target = box.height, box.width, box.bases[:-1], box.bases[-1]
            return PoolMax(bases[0], target, a, b, x.lane, s.target.lane, s.extents["l"])

        self.activate(s, [(x, (R.IN_1, R.IN_2))], make, window=_window(s, x))

    def window_sum(self, s: Step) -> None:
        (x,) = s.operands

        def make(box: Box) -> Instruction:
            a, b, bases, target = box.height, box.width, box.bases[:-1], box.bases[-1]
            lanes = s.extents["l"]
            return WindowSum(bases[0], target, a, b, x.lane, s.target.lane, lanes, s.accumulate)

        self.activate(s, [(x, (R.IN_1, R.IN_2))], make, window=_window(s, x))


_EMIT: dict[str, Callable[[Selector, Step], None]] = {
    "matmul": Selector.matmul,
    "matmul_unsigned": Selector.matmul,
    "requantize": Selector.requantize,
    "add_rows": Selector.add_rows,
    "look_up": Selector.look_up,
    "copy_rows": Selector.copy_rows,
    "fill_rows": Selector.fill_rows,
    "pool_max": Selector.pool_max,
    "window_sum": Selector.window_sum,
}


def _window(s: Step, x: Operand) -> dict[Register, int]:
    p, q = s.extents["p"], s.extents["q"]
    found = {R.WINDOW_HEIGHT: p, R.WINDOW_WIDTH: q}
    if p > 1:
        found[R.WINDOW_1] = x.strides.get("p", 0)
    if q > 1:
        found[R.WINDOW_2] = x.strides.get("q", 0)
    return found


def _box(base: int, a: int, b: int, outer: int, inner: int) -> slice | np.ndarray:
    """The rows of a box."""
    if b > 1 and not inner:
        b = 1
    if a > 1 and not outer:
        a = 1
    if a == 1:
        return slice(base, base + (b - 1) * inner + 1, max(inner, 1))
    if b == 1:
        return slice(base, base + (a - 1) * outer + 1, outer)
    if outer == b * inner:
        return slice(base, base + (a * b - 1) * inner + 1, inner)
    rows = base + np.arange(a)[:, None] * outer + np.arange(b) * inner
    return rows.reshape(-1)
