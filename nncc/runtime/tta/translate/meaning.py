"""What an operation computes, as LLVM code from its operands: pointers to them, or values.

    kind, result = Meaning(operation, writer, InMemory(writer, {"a": "%a", "b": "%b"})).value()
    value = computed(operation, writer, {"y.old": Val("%3", 1024), "a": …})

The statement's instances that give different elements of the result are the lanes of vectors; the
instances that fold into one element follow one another, as in the interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any, Protocol

import numpy as np

from nncc.backends.cpu.functions import function
from nncc.backends.cpu.text import Writer, constant, scalar_type, value_type
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value, apply
from nncc.ir.index import Size, evaluate
from nncc.ir.nests import ASSIGN, BUILTIN_COMBINES, Dim
from nncc.ir.types import DType
from nncc.machines.machine import OLD, Operation
from nncc.runtime.tta.translate.values import Val, resized, type_of

Array = np.ndarray[Any, Any]


class Operands(Protocol):
    """Where the elements of operands come from."""

    def load(self, name: str, dtype: DType, first: int, lanes: int, elements: int) -> str:
        """`lanes` neighbours of an operand's `elements`, from number `first` on."""


class InMemory:
    """Operands whose elements lie one after the other at pointers."""

    def __init__(self, w: Writer, pointers: Mapping[str, str]) -> None:
        self.w, self.pointers = w, pointers

    def load(self, name: str, dtype: DType, first: int, lanes: int, elements: int) -> str:
        pointer = self.pointers[name]
        size = dtype.bits // 8
        if first:
            pointer = self.w.define(f"getelementptr i8, ptr {pointer}, i64 {first * size}")
        return self.w.define(f"load {value_type(dtype, lanes)}, ptr {pointer}, align {size}")


class InValues:
    """Operands that are values, perhaps with bits above those that the operation takes."""

    def __init__(self, w: Writer, values: Mapping[str, Val]) -> None:
        self.w, self.values = w, values
        self.whole: dict[str, str] = {}

    def load(self, name: str, dtype: DType, first: int, lanes: int, elements: int) -> str:
        if name not in self.whole:
            self.whole[name] = self._whole(name, dtype, elements)
        whole, kind = self.whole[name], value_type(dtype, elements)
        if lanes == elements:
            return whole
        if lanes == 1:
            return self.w.define(f"extractelement {kind} {whole}, i32 {first}")
        places = ", ".join(f"i32 {first + k}" for k in range(lanes))
        return self.w.define(
            f"shufflevector {kind} {whole}, {kind} poison, <{lanes} x i32> <{places}>"
        )

    def _whole(self, name: str, dtype: DType, elements: int) -> str:
        v = resized(self.w, self.values[name], elements * dtype.bits)
        kind = value_type(dtype, elements)
        if dtype.kind == "bool":
            plain = f"<{elements} x i8>" if elements > 1 else "i8"
            return self.w.define(f"trunc {plain} {self._as(v, plain)} to {kind}")
        return self._as(v, kind)

    def _as(self, v: Val, kind: str) -> str:
        return v.text if v.type == kind else self.w.define(f"bitcast {v.type} {v.text} to {kind}")


def computed(operation: Operation, w: Writer, values: Mapping[str, Val]) -> Val:
    """The result of an operation."""
    kind, found = Meaning(operation, w, InValues(w, values)).value()
    result = operation.semantics.params[0].type
    elements = prod(result.static_shape)
    bits = elements * result.dtype.bits
    if result.dtype.kind == "bool":
        wide = f"<{elements} x i8>" if elements > 1 else "i8"
        found, kind = w.define(f"zext {kind} {found} to {wide}"), wide
    if kind != type_of(bits):
        found = w.define(f"bitcast {kind} {found} to {type_of(bits)}")
    return Val(found, bits)


class Meaning:
    """Writes one operation.

    Args:
        operands: by their names; a load's nest reads its memory by the name that the nest gives
            it.
    """

    def __init__(self, operation: Operation, w: Writer, operands: Operands) -> None:
        self.w = w
        self.operands = operands
        self.nest = operation.semantics
        self.statement = self.nest.statements[-1]
        reduced = self.statement.reduction_dims
        self.kept = _grid([d for d in self.statement.dims if d.name not in reduced])
        self.folded = _grid([d for d in self.statement.dims if d.name in reduced])
        self.lanes = _count(self.kept)
        self.whole: dict[str, str] = {}

    def value(self) -> tuple[str, str]:
        """The result's type and operand: all elements in row-major order."""
        result = self.nest.params[0]
        target = self._positions(result.name, self.statement.targets[0].indices, self.kept)
        combine = self.statement.combine
        if combine == ASSIGN:
            found = self._expression(self.statement.values[0], self.kept)[1]
        else:
            old = result.name + OLD
            found = self._elements(old, result.type.dtype, target)
            for k in range(_count(self.folded)):
                point = self.kept | {n: v[k : k + 1] for n, v in self.folded.items()}
                step, operand = self._expression(self.statement.values[0], point)
                name = Name("accumulator", result.type.dtype, self.lanes)
                folded = apply(BUILTIN_COMBINES[combine], name, step)
                found = function(self.w, folded, (found, operand))
        inverse = np.argsort(target)
        if not np.array_equal(inverse, np.arange(self.lanes)):
            found = self._shuffle(found, result.type.dtype, self.lanes, inverse)
        return value_type(result.type.dtype, self.lanes), found

    def _expression(self, e: Expr, point: Mapping[str, Array]) -> tuple[Expr, str]:
        """`e` in all lanes: an expression of its type for the emitter's rules, and the operand."""
        if isinstance(e, Const):
            wide = replace(e, lanes=self.lanes)
            return wide, constant(wide)
        if isinstance(e, Load):
            places = self._positions(e.tensor, e.indices, point)
            return Name(e.tensor, e.dtype, self.lanes), self._elements(e.tensor, e.dtype, places)
        if isinstance(e, Value):
            numbers = np.broadcast_to(np.asarray(evaluate(e.size, point)), (self.lanes,))  # type: ignore[arg-type]
            if len(set(numbers.tolist())) == 1:
                same = Const(int(numbers[0]), e.dtype, self.lanes)
                return same, constant(same)
            texts = [constant(Const(int(n), e.dtype)) for n in numbers]
            element = scalar_type(e.dtype)
            return (
                Name("value", e.dtype, self.lanes),
                f"<{', '.join(f'{element} {t}' for t in texts)}>",
            )
        assert isinstance(e, Apply), "operations compute with operands and literals"
        pairs = [self._expression(a, point) for a in e.args]
        lifted = Apply(e.fn, tuple(x for x, _ in pairs), e.dtype, self.lanes)
        operand = function(self.w, lifted, tuple(o for _, o in pairs))
        return Name("result", e.dtype, self.lanes), operand

    def _positions(
        self, tensor: str, indices: tuple[Size, ...], point: Mapping[str, Array]
    ) -> Array:
        """Row-major positions in an operand, one for each lane."""
        shape = self.nest.param(tensor).type.static_shape
        position: Any = np.zeros(1, np.int64)
        for index, extent in zip(indices, shape, strict=True):
            position = position * extent + evaluate(index, point)  # type: ignore[arg-type]
        return np.broadcast_to(position, (self.lanes,))

    # -- elements --------------------------------------------------------------------------
    def _elements(self, name: str, dtype: DType, places: Array) -> str:
        """The elements of an operand at `places`, one for each lane."""
        if (places == places[0]).all():
            return self._splat(self._load(name, dtype, int(places[0]), 1), dtype)
        if (np.diff(places) == 1).all():
            return self._load(name, dtype, int(places[0]), self.lanes)
        elements = prod(self.nest.param(name.removesuffix(OLD)).type.static_shape)
        if name not in self.whole:
            self.whole[name] = self._load(name, dtype, 0, elements)
        stride = elements // self.lanes
        if (
            (np.diff(places) == stride).all()
            and places[0] < stride
            and (stride * dtype.bits in (16, 32, 64))
        ):
            return self._parts(name, dtype, stride, int(places[0]))
        return self._shuffle(self.whole[name], dtype, elements, places)

    def _parts(self, name: str, dtype: DType, stride: int, number: int) -> str:
        """Element `number` of every `stride` elements: part of a wider integer (LLVM takes much
        longer to find that out from a shuffle)."""
        narrow, wide = (f"<{self.lanes} x i{n * dtype.bits}>" for n in (1, stride))
        kind = value_type(dtype, self.lanes * stride)
        words = self.w.define(f"bitcast {kind} {self.whole[name]} to {wide}")
        if number:
            shift = f"splat (i{stride * dtype.bits} {number * dtype.bits})"
            words = self.w.define(f"lshr {wide} {words}, {shift}")
        part = self.w.define(f"trunc {wide} {words} to {narrow}")
        target = value_type(dtype, self.lanes)
        return self.w.define(f"bitcast {narrow} {part} to {target}") if target != narrow else part

    def _load(self, name: str, dtype: DType, first: int, lanes: int) -> str:
        elements = prod(self.nest.param(name.removesuffix(OLD)).type.static_shape)
        return self.operands.load(name, dtype, first, lanes, elements)

    def _splat(self, x: str, dtype: DType) -> str:
        if self.lanes == 1:
            return x
        full = value_type(dtype, self.lanes)
        first = self.w.define(f"insertelement {full} poison, {scalar_type(dtype)} {x}, i32 0")
        return self._shuffle(first, dtype, self.lanes, np.zeros(self.lanes, np.int64))

    def _shuffle(self, x: str, dtype: DType, lanes: int, places: Array) -> str:
        full = value_type(dtype, lanes)
        mask = ", ".join(f"i32 {p}" for p in places.tolist())
        return self.w.define(
            f"shufflevector {full} {x}, {full} poison, <{len(places)} x i32> <{mask}>"
        )


def _grid(dims: list[Dim]) -> dict[str, Array]:
    """The values of `dims` in all combinations, in row-major order."""
    ranges = [np.arange(evaluate(d.lo, {}), evaluate(d.hi, {})) for d in dims]
    grids = np.meshgrid(*ranges, indexing="ij") if ranges else []
    return {d.name: g.reshape(-1) for d, g in zip(dims, grids, strict=True)}


def _count(grid: Mapping[str, Array]) -> int:
    return next((len(g) for g in grid.values()), 1)
