"""Running through Loops: every operation on memory with the numbers that it has in each round.

for k, call in enumerate(calls(program)):
    for step in steps(program, k, call, places): …      step.operation, step.extents, step.operands
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nncc.backends.tpu.places import Places, Region, literal
from nncc.diagnostics import TargetError
from nncc.ir.expr import Apply, Const, Expr, Load, Value
from nncc.ir.index import Size, affine, elements, weighted_sum
from nncc.ir.loops import Alloc, Call, For, Function, If, Perform, Stmt
from nncc.ir.program import Program
from nncc.machines.systolic.model import ACCUMULATORS, WEIGHT_MEMORY

Numbers = dict[str, int]


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand in memory, at the first point of the box.

    Args:
        row: row, tile or accumulator; `lane`: the first element of it.
        strides: rows by dim of the operation; `index`: the subscripts, for constants.
    """

    region: Region
    row: int
    lane: int
    strides: Mapping[str, int]
    index: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """An operation on memory.

    Args:
        extents: of each dim of the operation; `numbers`: operands of rank 0.
        tile: the values of the loop variables around it.
        node: of the model that it works for.
    """

    operation: str
    extents: Numbers
    target: Operand
    operands: tuple[Operand, ...]
    numbers: tuple[int, ...]
    accumulate: bool
    node: str
    tensor: str
    tile: tuple[int, ...]


def steps(program: Program, number: int, call: Call, places: Places) -> Iterator[Step]:
    """Every operation of call number `number`. Raises TargetError for statements that are none."""
    return _Run(program.functions[call.callee], number, call, places).body()


@dataclass
class _Run:
    """One call of a function."""

    function: Function
    number_of_call: int
    call: Call
    places: Places
    regions: dict[str, Region] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)
    tensor: str = ""
    half: int = 0
    prepared: dict[int, Any] = field(default_factory=dict)
    sizes: dict[int, Callable[[Numbers], int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for view, buffer in zip(self.call.arguments, self.function.buffers, strict=True):
            self.regions[buffer.name] = self.places.region(
                view.buffer, literal(view.offset), buffer, self.number_of_call
            )

    def body(self) -> Iterator[Step]:
        return self.run(self.function.body)

    def run(self, body: tuple[Stmt, ...]) -> Iterator[Step]:
        for s in body:
            if isinstance(s, For):
                name = s.variable
                for k in range(self.number(s.lo), self.number(s.hi), s.step):
                    self.numbers[name] = k
                    yield from self.run(s.body)
                self.numbers.pop(name, None)
            elif isinstance(s, If):
                yield from self.run(s.then if self.holds(s.condition) else s.otherwise)
            elif isinstance(s, Alloc):
                yield from self.alloc(s)
            elif isinstance(s, Perform):
                step = self.perform(s)
                if step is not None:
                    yield step
            else:
                raise TargetError(f"the array has no instruction for {type(s).__name__}")

    def alloc(self, s: Alloc) -> Iterator[Step]:
        if s.buffer.space != ACCUMULATORS:
            raise TargetError(f"'{s.buffer.name}' is in {s.buffer.space}: only accumulators")
        shape = tuple(self.number(e) for e in s.buffer.shape)
        rows = 1
        for extent in shape[:-1]:
            rows *= extent
        room = self.places.array.accumulator_rows
        if rows > room:
            raise TargetError(f"a tile of {rows} rows needs more than {room} accumulators")
        self.half = 1 - self.half if rows <= room // 2 else 0  # one half while the other is read
        self.regions[s.buffer.name] = Region(ACCUMULATORS, self.half * (room // 2), shape)
        yield from self.run(s.body)
        del self.regions[s.buffer.name]

    def number(self, size: Size) -> int:
        if isinstance(size, int):
            return size
        found = self.sizes.get(id(size))  # the function keeps its sizes alive
        if found is None:
            found = self.sizes[id(size)] = _compiled(size)
        return found(self.numbers)

    def holds(self, e: Expr) -> bool:
        if not (isinstance(e, Apply) and e.fn == "eq"):
            raise TargetError("the array knows comparisons for equality alone")
        a, b = (self.scalar(x) for x in e.args)
        return a == b

    def scalar(self, e: Expr) -> int:
        if isinstance(e, Const):
            return int(e.value)
        if isinstance(e, Value):
            return self.number(e.size)
        raise TargetError("an operand is no number")

    def perform(self, s: Perform) -> Step | None:
        low: Numbers = {}
        extents: Numbers = {}
        for d in s.dims:
            low[d.name] = self.number(d.lo)
            extents[d.name] = self.number(d.hi) - low[d.name]
            if extents[d.name] <= 0:
                return None
        operands, numbers = [], []
        for e in s.operands:
            if isinstance(e, Load):
                operands.append(self.operand(e.tensor, e.indices, low))
            else:
                numbers.append(self.scalar(e))
        target = self.operand(s.target.tensor, s.target.indices, low)
        return Step(
            s.operation, extents, target, tuple(operands), tuple(numbers), s.combine != "=",
            self.call.source, s.target.tensor, tuple(self.numbers.values()),
        )  # fmt: skip

    def operand(self, tensor: str, indices: tuple[Size, ...], low: Numbers) -> Operand:
        region = self.regions[tensor]
        found = self.prepared.get(id(indices))
        if found is None:
            found = self.prepared[id(indices)] = _prepare(indices, region.shape, tuple(low))
        strides, compiled = found
        numbers = {**self.numbers, **low}
        index = tuple(f(numbers) for f in compiled)
        if region.space == WEIGHT_MEMORY:  # [tiles, R, C]
            return Operand(region, region.base + index[0], 0, {}, index)
        row = 0
        for k, extent in zip(index[:-1], region.shape[:-1], strict=True):
            row = row * extent + k
        return Operand(region, region.base + row, index[-1], strides, index)


def _prepare(
    indices: tuple[Size, ...], shape: tuple[int, ...], dims: tuple[str, ...]
) -> tuple[Numbers, list[Callable[[Numbers], int]]]:
    """Rows by dim, and the subscripts as functions of all variables."""
    parts = []
    rows = 1
    for index, extent in zip(reversed(indices[:-1]), reversed(shape[:-1]), strict=True):
        parts.append((index, rows))
        rows *= extent
    form = affine(weighted_sum(parts), dims)
    if form is None:
        raise TargetError(f"the subscripts {indices} are not affine in the box")
    # an element of a buffer as a subscript is the instruction's own matter
    compiled = [_compiled(i) if not elements(i) else _zero for i in indices]
    return form[0], compiled


def _zero(numbers: Numbers) -> int:
    return 0


def _compiled(size: Size) -> Callable[[Numbers], int]:
    """A size as a function of the variables; its text is an expression of Python, too."""
    if isinstance(size, int):
        return lambda numbers: size
    code = compile(str(size), "<size>", "eval")
    scope = {"__builtins__": {}, "min": min, "max": max}
    return lambda numbers: int(eval(code, scope, numbers))
