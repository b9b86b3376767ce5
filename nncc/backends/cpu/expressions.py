"""Expressions of Loops as LLVM instructions: literals, loads, functions, machine operations.

    Expressions(writer, sizes, operations).value(e)      "%7", the operand that holds e

A bool is an i1 as a value and a byte in memory. Vectors are loaded and stored at the alignment
of one element: unaligned instructions cost nothing on addresses that happen to be aligned, and
so a caller may pass any array.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nncc.backends.cpu.casts import cast
from nncc.backends.cpu.functions import function
from nncc.backends.cpu.sizes import Sizes
from nncc.backends.cpu.text import Writer, constant, scalar_type, splat, suffix, value_type, vector
from nncc.ir.bounds import Range, bounds, nonnegative
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value, apply
from nncc.ir.index import Size, maximum, minimum, product
from nncc.ir.loops import Store
from nncc.ir.types import DType, i64
from nncc.machines.machine import Operation

REDUCTIONS = {"reduce_add": "add", "reduce_max": "max", "reduce_min": "min"}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Expressions:
    """Emits the expressions of one function.

    Attributes:
        values: operands of the names that are bound here.
        ranges: smallest and largest value of the loop variables around the place.
    """

    def __init__(self, writer: Writer, sizes: Sizes, operations: Mapping[str, Operation]) -> None:
        self.w = writer
        self.sizes = sizes
        self.operations = operations
        self.values: dict[str, str] = {}
        self.ranges: dict[str, Range] = {}

    def value(self, e: Expr) -> str:
        """The operand that holds `e`."""
        if isinstance(e, Const):
            return constant(e)
        if isinstance(e, Name):
            return self.values[e.name]
        if isinstance(e, Value):
            number = cast(self.w, self.sizes.value(e.size), i64, e.dtype, 1)
            return self.splat(number, e.dtype, e.lanes)
        if isinstance(e, Load):
            return self._load(e) if e.other is None else self._load_or(e, e.other)
        assert isinstance(e, Apply), "reductions are statements by now"
        return self._apply(e)

    def splat(self, x: str, dtype: DType, lanes: int) -> str:
        """One element copied to every lane."""
        if lanes == 1:
            return x
        full = value_type(dtype, lanes)
        first = self.w.define(f"insertelement {full} poison, {scalar_type(dtype)} {x}, i32 0")
        return self._shuffle(full, first, f"<{lanes} x i32> zeroinitializer")

    # -- functions -------------------------------------------------------------------------
    def _apply(self, e: Apply) -> str:
        if operation := self.operations.get(e.fn):
            return self._operation(operation, e)
        if e.fn == "broadcast" and isinstance(e.args[0], Const):
            literal = e.args[0]
            return constant(Const(literal.value, literal.dtype, e.lanes))
        operands = tuple(self.value(a) for a in e.args)
        if e.fn == "broadcast":
            return self.splat(operands[0], e.dtype, e.lanes)
        if e.fn in REDUCTIONS:
            return self._reduce(REDUCTIONS[e.fn], operands[0], e.dtype, e.args[0].lanes)
        return function(self.w, e, operands)

    def _reduce(self, fn: str, x: str, dtype: DType, lanes: int) -> str:
        """The halves are combined, and so on; the last one of an odd number of lanes comes last.

        The interpreter does it in the same order, so that floats are equal to the bit.
        """
        full = value_type(dtype, lanes)
        if lanes == 1:
            return x if "<" not in full else self.w.define(f"extractelement {full} {x}, i32 0")
        even = lanes - lanes % 2
        low, high = (
            self._take(full, x, dtype, range(start, start + even // 2)) for start in (0, even // 2)
        )
        folded = self._reduce(fn, self._combine(fn, low, high, dtype, even // 2), dtype, even // 2)
        if lanes == even:
            return folded
        last = self.w.define(f"extractelement {full} {x}, i32 {even}")
        return self._combine(fn, folded, last, dtype, 1)

    def _combine(self, fn: str, x: str, y: str, dtype: DType, lanes: int) -> str:
        operation = apply(fn, Name("x", dtype, lanes), Name("y", dtype, lanes))
        return function(self.w, operation, (x, y))

    def _take(self, full: str, x: str, dtype: DType, lanes: range) -> str:
        if len(lanes) == 1:
            return self.w.define(f"extractelement {full} {x}, i32 {lanes[0]}")
        mask = ", ".join(f"i32 {k}" for k in lanes)
        return self._shuffle(full, x, f"<{len(lanes)} x i32> <{mask}>")

    def _shuffle(self, full: str, x: str, mask: str) -> str:
        return self.w.define(f"shufflevector {full} {x}, {full} poison, {mask}")

    def _operation(self, operation: Operation, e: Apply) -> str:
        """A machine operation: its spelling with the operands put in, a line at a time."""
        names: dict[str, str] = {}
        for param, a in zip(operation.semantics.params, e.args, strict=True):
            lanes = e.lanes if param.type.rank == 0 else product(param.type.shape)
            assert isinstance(lanes, int)
            names[param.name] = self.splat(self.value(a), a.dtype, lanes if a.lanes == 1 else 1)

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            if name not in names:
                names[name] = "%" + self.w.fresh(operation.name if name == "result" else name)
            return names[name]

        self.w.declarations.update(f"declare {d}" for d in operation.declares)
        for line in operation.spelling.strip().splitlines():
            self.w.line(_PLACEHOLDER.sub(fill, line))
        return names["result"]

    # -- memory ----------------------------------------------------------------------------
    def store(self, s: Store) -> None:
        """Writes `buffer[indices] = value`."""
        x, dtype, lanes = self.value(s.value), s.value.dtype, s.value.lanes
        memory = _memory_type(dtype, lanes)
        if dtype.kind == "bool":
            x = self.w.define(f"zext {value_type(dtype, lanes)} {x} to {memory}")
        pointer = self.sizes.address(s.buffer, s.indices)
        if s.count is None or self._covers(s.count, lanes):
            self.w.line(f"store {memory} {x}, ptr {pointer}, align {dtype.bits // 8}")
            return
        if s.count == 1:
            # LLVM 22 makes a wrong store of a narrowed vector with just one lane in a constant
            # mask: it writes the element before it was narrowed.
            element = _memory_type(dtype, 1)
            lane = self.w.define(f"extractelement {memory} {x}, i32 0")
            self.w.line(f"store {element} {lane}, ptr {pointer}, align {dtype.bits // 8}")
            return
        mask = self._first_lanes(s.count, dtype, lanes)
        target = f"ptr align {dtype.bits // 8} {pointer}"
        self._masked("void", "store", memory, f"{memory} {x}, {target}, {mask}")

    def _load(self, e: Load) -> str:
        memory = _memory_type(e.dtype, e.lanes)
        pointer = self.sizes.address(e.tensor, e.indices)
        if e.count is None or self._covers(e.count, e.lanes):
            x = self.w.define(f"load {memory}, ptr {pointer}, align {e.dtype.bits // 8}")
        else:
            mask = self._first_lanes(e.count, e.dtype, e.lanes)
            x = self._masked_load(memory, pointer, mask, "zeroinitializer", e.dtype)
        return self._from_memory(x, e.dtype, e.lanes)

    def _load_or(self, e: Load, other: Expr) -> str:
        """A load with a value for what lies outside of the buffer; nothing outside is read."""
        outside = self.value(other)
        memory = _memory_type(e.dtype, e.lanes)
        shape = self.sizes.memories[e.tensor].buffer.shape
        rows = list(zip(e.indices, shape, strict=True))
        if e.lanes == 1:
            inside = self._inside(rows)
            pointer = self.sizes.address(e.tensor, e.indices)
            if inside:
                # any element will do: the value is not used
                start = self.sizes.at(e.tensor, 0)
                pointer = self.w.define(f"select i1 {inside}, ptr {pointer}, ptr {start}")
            x = self.w.define(f"load {memory}, ptr {pointer}, align {e.dtype.bits // 8}")
            x = self._from_memory(x, e.dtype, 1)
            full = value_type(e.dtype)
            if not inside:
                return x
            return self.w.define(f"select i1 {inside}, {full} {x}, {full} {outside}")
        index, extent = rows[-1]
        count = extent - index if e.count is None else minimum(extent - index, e.count)
        mask = self._first_lanes(count, e.dtype, e.lanes)
        mask = self._and(mask, self._first_lanes(-index, e.dtype, e.lanes, negated=True), e.lanes)
        if inside := self._inside(rows[:-1]):
            flags = vector("i1", e.lanes)
            mask = f"{flags} " + self.w.define(
                f"select i1 {inside}, {mask}, {flags} zeroinitializer"
            )
        pointer = self.sizes.address(e.tensor, e.indices)
        if e.dtype.kind == "bool":
            flags = vector("i1", e.lanes)
            outside = self.w.define(f"zext {flags} {outside} to {memory}")
        x = self._masked_load(memory, pointer, mask, outside, e.dtype)
        return self._from_memory(x, e.dtype, e.lanes)

    def _inside(self, rows: list[tuple[Size, Size]]) -> str:
        """Whether every index is within its extent; "" if that is certain."""
        tests: list[str] = []
        for index, extent in rows:
            index, extent = self.sizes.resolve(index), self.sizes.resolve(extent)
            low, high = bounds(index, self.ranges)
            if not nonnegative(low):
                tests.append(self.w.define(f"icmp sge i64 {self.sizes.value(index)}, 0"))
            if not nonnegative(extent - 1 - high):
                x, limit = self.sizes.value(index), self.sizes.value(extent)
                tests.append(self.w.define(f"icmp slt i64 {x}, {limit}"))
        result = ""
        for test in tests:
            result = self.w.define(f"and i1 {result}, {test}") if result else test
        return result

    def _from_memory(self, x: str, dtype: DType, lanes: int) -> str:
        if dtype.kind != "bool":
            return x
        return self.w.define(f"icmp ne {vector('i8', lanes)} {x}, {splat('i8', '0', lanes)}")

    # -- masks -----------------------------------------------------------------------------
    def _covers(self, count: Size, lanes: int) -> bool:
        count = self.sizes.resolve(count)
        return isinstance(count, int) and count >= lanes

    def _first_lanes(self, count: Size, dtype: DType, lanes: int, negated: bool = False) -> str:
        """A typed mask of the lanes before `count` (negated: from `count` on)."""
        count = maximum(minimum(self.sizes.resolve(count), lanes), 0)
        flags = vector("i1", lanes)
        if isinstance(count, int):
            bits = ", ".join(f"i1 {'01'[(k < count) != negated]}" for k in range(lanes))
            return f"{flags} <{bits}>"
        # compared in integers as wide as the data: masks of that width are cheapest
        width = max(dtype.bits, 8 if lanes < 256 else 16)
        wide = self.sizes.value(count)
        narrow = self.w.define(f"trunc i64 {wide} to i{width}") if width < 64 else wide
        full = vector(f"i{width}", lanes)
        first = self.w.define(f"insertelement {full} poison, i{width} {narrow}, i32 0")
        limit = self._shuffle(full, first, f"<{lanes} x i32> zeroinitializer")
        numbers = ", ".join(f"i{width} {k}" for k in range(lanes))
        predicate = "uge" if negated else "ult"
        return f"{flags} " + self.w.define(f"icmp {predicate} {full} <{numbers}>, {limit}")

    def _and(self, a: str, b: str, lanes: int) -> str:
        """Both of two typed masks."""
        flags = vector("i1", lanes)
        return f"{flags} " + self.w.define(f"and {a}, {b.removeprefix(flags)}")

    def _masked_load(self, memory: str, pointer: str, mask: str, other: str, dtype: DType) -> str:
        source = f"ptr align {dtype.bits // 8} {pointer}"
        return self._masked(memory, "load", memory, f"{source}, {mask}, {memory} {other}")

    def _masked(self, result: str, name: str, memory: str, operands: str) -> str:
        full = f"llvm.masked.{name}.{suffix(memory)}.p0"
        flags = re.sub(r"x \w+>", "x i1>", memory)
        types = f"ptr, {flags}, {memory}" if name == "load" else f"{memory}, ptr, {flags}"
        self.w.declarations.add(f"declare {result} @{full}({types})")
        text = f"call {result} @{full}({operands})"
        if name == "load":
            return self.w.define(text)
        self.w.line(text)
        return ""


def _memory_type(dtype: DType, lanes: int) -> str:
    return vector("i8" if dtype.kind == "bool" else scalar_type(dtype), lanes)
