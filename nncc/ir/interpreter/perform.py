"""What an operation on memory means: its record's statement at all points of a box at once.

Operands are arrays with one axis for the instances that run in lockstep and one for each
dimension of the box, of length 1 along those that they do not depend on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nncc.diagnostics import CheckError
from nncc.ir.expr import Apply, Const, Expr, Load, Value
from nncc.ir.index import Size, evaluate
from nncc.ir.interpreter.contraction import contract
from nncc.ir.interpreter.loop_values import Array, Frame, Memory, value_of
from nncc.ir.loops import Perform
from nncc.ir.nests import ASSIGN, BUILTIN_COMBINES, Nest, builtin_identity
from nncc.ir.scalar import FUNCTIONS


def perform(s: Perform, frame: Frame) -> None:
    """Runs one operation. Raises CheckError if an operand leaves its buffer."""
    semantics = frame.records.get(s.operation)
    if semantics is None:
        raise CheckError(f"the machine has no operation '{s.operation}'")
    box = _Box(s, frame)
    if not all(box.shape[1:]):
        return
    statement = semantics.statements[-1]
    memory = frame.memories[s.target.tensor]
    inputs = [p.name for p in semantics.params[1:]]
    value = box.folded(statement.values[0], dict(zip(inputs, s.operands, strict=True)), semantics)
    where = box.positions(memory, s.target.indices)
    shape = np.broadcast_shapes(
        where.shape, value.shape, box.spread(np.zeros(frame.instances)).shape
    )
    where, value = np.broadcast_to(where, shape), np.broadcast_to(value, shape)
    owner = np.broadcast_to(box.owners(memory), shape)
    if frame.active is not None:
        active = np.broadcast_to(box.spread(frame.active), shape)
        where, value, owner = where[active], value[active], owner[active]
    if s.combine != ASSIGN:
        fold = FUNCTIONS[BUILTIN_COMBINES[s.combine]].numpy
        value = fold(np, memory.data[owner, where], value)
    memory.data[owner, where] = value


class _Box:
    """The points of an operation. `shape` is [instances, extent of each dimension]."""

    def __init__(self, s: Perform, frame: Frame) -> None:
        self.frame = frame
        self.names = tuple(d.name for d in s.dims)
        rank = 1 + len(s.dims)
        self.variables: dict[str, Any] = {
            name: v.reshape(-1, *(1,) * len(s.dims)) if isinstance(v, np.ndarray) else v
            for name, v in frame.variables.items()
        }
        extents = []
        for k, d in enumerate(s.dims):
            lo, hi = (_literal(frame.size(b), d.name) for b in (d.lo, d.hi))
            axis = [1] * rank
            axis[1 + k] = -1
            self.variables[d.name] = np.arange(lo, max(lo, hi)).reshape(axis)
            extents.append(max(hi - lo, 0))
        self.shape = (frame.instances, *extents)

    def spread(self, x: Array) -> Array:
        """A value for each instance, [instances], at all points."""
        return x.reshape(-1, *(1,) * len(self.names))

    def owners(self, memory: Memory) -> Array:
        count, instances = len(memory.data), self.frame.instances
        return self.spread(np.arange(instances) // (instances // count))

    def positions(self, memory: Memory, indices: tuple[Size, ...]) -> Array:
        """Row-major positions in a buffer. Raises CheckError if one is outside."""
        flat: Any = np.zeros((1,) * len(self.shape), np.int64)
        for k, (index, extent) in enumerate(zip(indices, memory.shape, strict=True)):
            at = np.asarray(evaluate(index, self.variables, _Readers(self)))
            at = self.inside(memory, k, extent, at)
            flat = flat + at * math.prod(memory.shape[k + 1 :])
        return np.asarray(flat)

    def inside(self, memory: Memory, k: int, extent: int, at: Array) -> Array:
        """The values of subscript k. Raises CheckError if one of an active instance is outside."""
        if at.min() >= 0 and at.max() < extent:
            return at
        active = self.frame.active
        used = at if active is None or len(at) == 1 else at[active]
        if used.min() < 0 or used.max() >= extent:
            raise CheckError(
                f"{memory.buffer.name}: subscript {k} goes over {used.min()}..{used.max() + 1}, "
                f"outside the buffer {list(memory.shape)}"
            )
        return np.clip(at, 0, extent - 1)

    def read(self, tensor: str, indices: tuple[Size, ...]) -> Array:
        memory = self.frame.memories[tensor]
        where, owner = self.positions(memory, indices), self.owners(memory)
        if len(memory.data) == 1:
            return np.asarray(memory.data[0, where])
        return np.asarray(memory.data[owner, where])

    def value(self, e: Expr, operands: dict[str, Expr]) -> Array:
        """An expression of the record with the operands in the place of its loads."""
        if isinstance(e, Load):
            return self.operand(operands[e.tensor])
        if isinstance(e, Apply):
            args = (self.value(a, operands) for a in e.args)
            found = np.asarray(FUNCTIONS[e.fn].numpy(np, *args))
            return found.astype(e.dtype.numpy, copy=False)
        return self.operand(e)

    def operand(self, e: Expr) -> Array:
        if isinstance(e, Load) and e.other is None and e.lanes == 1:
            return self.read(e.tensor, e.indices)
        if isinstance(e, Const):
            return np.full((1,) * len(self.shape), e.value, e.dtype.numpy)
        if isinstance(e, Value):
            found = evaluate(e.size, self.variables, _Readers(self))
            return np.asarray(found).astype(e.dtype.numpy)
        return self.spread(value_of(e, self.frame)[:, 0])

    def folded(self, e: Expr, operands: dict[str, Expr], semantics: Nest) -> Array:
        """The record's value, folded over the dimensions that its reduction has."""
        statement = semantics.statements[-1]
        axes = tuple(1 + self.names.index(n) for n in statement.reduction_dims)
        if statement.combine == ASSIGN or not axes:
            return self.value(e, operands)
        if isinstance(e, Apply) and e.fn == "mul" and statement.combine == "sum":
            a, b = (self.value(x, operands) for x in e.args)
            return contract(a, b, axes, self.shape)
        value = self.value(e, operands)
        lengths = [n if k in axes else m for k, (n, m) in enumerate(
            zip(self.shape, _full(value.shape, len(self.shape)), strict=True))]  # fmt: skip
        value = np.broadcast_to(value, lengths)
        identity = builtin_identity(statement.combine, e.dtype)
        reduce = _REDUCE[statement.combine]
        found = reduce(value, axis=axes, keepdims=True, initial=e.dtype.numpy.type(identity))
        return np.asarray(found).astype(e.dtype.numpy, copy=False)


def _full(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(shape)) + shape


_REDUCE: dict[str, Any] = {"sum": np.sum, "prod": np.prod, "min": np.min, "max": np.max}


class _Readers(dict[str, object]):
    """Integer buffers as subscripts, by name."""

    def __init__(self, box: _Box) -> None:
        self.box = box

    def __missing__(self, name: str) -> _Reader:
        return _Reader(self.box, name)


class _Reader:
    def __init__(self, box: _Box, name: str) -> None:
        self.box, self.name = box, name

    def __getitem__(self, where: tuple[Any, ...]) -> Array:
        memory = self.box.frame.memories[self.name]
        flat: Any = 0
        for k, (at, extent) in enumerate(zip(where, memory.shape, strict=True)):
            at = self.box.inside(memory, k, extent, np.atleast_1d(at))
            flat = flat + at * math.prod(memory.shape[k + 1 :])
        owner: Any = 0 if len(memory.data) == 1 else self.box.owners(memory)
        return np.asarray(memory.data[owner, flat]).astype(np.int64)


def _literal(bound: Any, name: str) -> int:
    """A bound of the box: the same for all instances."""
    if isinstance(bound, np.ndarray):
        if bound.size and (bound != bound.flat[0]).any():
            raise CheckError(f"the bounds of '{name}' differ between parallel iterations")
        return int(bound.flat[0])
    return int(bound)
