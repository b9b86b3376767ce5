"""Values of Loops expressions, for many instances at once: the state of a function that runs.

All values are arrays of shape [instances or 1, lanes]; see `nncc.ir.interpreter.loops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from nncc.diagnostics import CheckError
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value
from nncc.ir.index import Index, Size, elements, evaluate
from nncc.ir.loops import Buffer, Function
from nncc.ir.nests import Nest
from nncc.ir.scalar import FUNCTIONS

Array = np.ndarray[Any, Any]
Operations = Mapping[str, Callable[..., Array]]

_REDUCTIONS = {"reduce_add": "add", "reduce_max": "max", "reduce_min": "min"}


@dataclass(frozen=True, slots=True)
class Memory:
    """A buffer: its elements, once for each of `len(data)` groups of instances."""

    buffer: Buffer
    shape: tuple[int, ...]
    data: Array


@dataclass
class Frame:
    """The state of a function that runs.

    Args:
        variables: sizes and loop variables, as ints or as arrays [instances].
        values: Let values and registers by name.
        instances: how many run in lockstep; `active`: which of them take part (None: all).
        watch: is told the name of each function before it is called.
        records: what the machine's operations on memory mean, by name.
        lockstep: by a loop's identity, whether its iterations run in lockstep.
    """

    functions: Mapping[str, Function]
    operations: Operations
    variables: dict[str, Any]
    values: dict[str, Array]
    memories: dict[str, Memory]
    instances: int = 1
    active: Array | None = None
    watch: Callable[[str], None] | None = None
    records: Mapping[str, Nest] = field(default_factory=dict)
    lockstep: dict[int, bool] = field(default_factory=dict)

    def size(self, size: Size) -> Any:
        """An int, or an int64 array [instances]."""
        if isinstance(size, int):
            return size
        if not _has_elements(size):
            return evaluate(size, self.variables)
        readers = {name: _Subscripts(self, name) for name in self.memories}
        return evaluate(size, self.variables, readers)

    def masked(self, condition: Array) -> Frame:
        """This frame for those active instances where `condition` [instances] holds."""
        active = condition if self.active is None else self.active & condition
        return replace(self, active=active)


@cache
def _has_elements(size: Index) -> bool:
    return bool(elements(size))


class _Subscripts:
    """An integer buffer as a subscript of index expressions."""

    def __init__(self, frame: Frame, name: str) -> None:
        self.frame, self.name = frame, name

    def __getitem__(self, where: tuple[Any, ...]) -> Any:
        memory = self.frame.memories[self.name]
        flat, inside = flat_index(self.frame, memory, where, 1)
        check_inside(self.frame, memory, inside, where)
        read = _gather(self.frame, memory, flat, inside)[:, 0].astype(np.int64)
        return int(read[0]) if len(read) == 1 else read


def value_of(e: Expr, frame: Frame) -> Array:
    """`e` as an array [instances or 1, lanes]."""
    if isinstance(e, Const):
        return _constant(e)
    if isinstance(e, Name):
        return frame.values[e.name]
    if isinstance(e, Value):
        number = np.atleast_1d(np.asarray(frame.size(e.size)))[:, None]
        return np.repeat(number.astype(e.dtype.numpy), e.lanes, axis=1)
    if isinstance(e, Load):
        return _load(e, frame)
    assert isinstance(e, Apply), "reductions are statements by now"
    args = [value_of(a, frame) for a in e.args]
    if e.fn in frame.operations and e.fn not in FUNCTIONS:
        return frame.operations[e.fn](*_operands(args, e.lanes))
    if e.fn == "broadcast":
        return np.repeat(args[0], e.lanes, axis=1)
    if e.fn in _REDUCTIONS:
        return _tree(_REDUCTIONS[e.fn], args[0])
    return np.asarray(FUNCTIONS[e.fn].numpy(np, *args)).astype(e.dtype.numpy, copy=False)


@cache
def _constant(e: Const) -> Array:
    return np.full((1, e.lanes), np.asarray(e.value).astype(e.dtype.numpy))


def _operands(args: list[Array], lanes: int) -> list[Array]:
    """Scalar operands as they are, the accumulator in full."""
    return [np.broadcast_to(args[0], (len(args[0]), lanes)), *args[1:]]


def _tree(fn: str, x: Array) -> Array:
    """The halves are combined, and so on; the last one of an odd number of lanes comes last."""
    lanes = x.shape[1]
    if lanes == 1:
        return x
    even = lanes - lanes % 2
    f = FUNCTIONS[fn].numpy
    folded = _tree(fn, f(np, x[:, : even // 2], x[:, even // 2 : even]))
    return folded if lanes == even else np.asarray(f(np, folded, x[:, even:]))


def _load(e: Load, frame: Frame) -> Array:
    memory = frame.memories[e.tensor]
    where = tuple(frame.size(i) for i in e.indices)
    if e.count is None and (start := start_of(memory, where, e.lanes)) is not None:
        return _read(frame, memory, start, e.lanes)
    flat, inside = flat_index(frame, memory, where, e.lanes)
    wanted = first_lanes(frame, e.count, e.lanes)
    if e.other is None:
        check_inside(frame, memory, inside | ~wanted, where)
        return _gather(frame, memory, flat, inside & wanted)
    return np.where(
        inside & wanted, _gather(frame, memory, flat, inside & wanted), value_of(e.other, frame)
    )


def start_of(memory: Memory, where: tuple[Any, ...], lanes: int) -> Any:
    """The row-major position of the first lane, an int or an array [instances]; None if a lane
    of some instance is outside. (The common case, in few steps.)"""
    start: Any = 0
    for k, (index, extent) in enumerate(zip(where, memory.shape, strict=True)):
        last = extent - (lanes if k == len(where) - 1 else 1)
        lowest, highest = (index, index) if isinstance(index, int) else (index.min(), index.max())
        if lowest < 0 or highest > last:
            return None
        start = start * extent + index
    return start


def _read(frame: Frame, memory: Memory, start: Any, lanes: int) -> Array:
    """A copy of `lanes` elements from `start` on, for each instance."""
    if isinstance(start, int):
        found = memory.data[:, start : start + lanes]
        if len(found) in (1, frame.instances):
            return found.copy()
        return found[owners(frame, memory)]
    columns = start[:, None] + np.arange(lanes)
    return np.asarray(memory.data[owners(frame, memory)[:, None], columns])


def flat_index(
    frame: Frame, memory: Memory, where: tuple[Any, ...], lanes: int
) -> tuple[Array, Array]:
    """Row-major positions in the buffer, and which of them exist: [instances or 1, lanes]."""
    flat: Any = np.zeros((1, 1), np.int64)
    inside: Any = np.ones((1, 1), bool)
    outer = len(where) - 1  # a vector longer than the last dimension runs on in the ones before
    while outer > 0 and math.prod(memory.shape[outer:]) < lanes:
        outer -= 1
    row: Any = np.zeros((1, 1), np.int64)
    for k, index in enumerate(where):
        at = np.atleast_1d(np.asarray(index, np.int64))[:, None]
        if k < outer or outer < len(where) - 1:
            inside = inside & (at >= 0) & (at < memory.shape[k])
        step = math.prod(memory.shape[k + 1 :])
        flat = flat + at * step
        if k >= outer:
            row = row + at * step
    row = row + np.arange(lanes)
    inside = inside & (row >= 0) & (row < math.prod(memory.shape[outer:]))
    return flat + np.arange(lanes), inside


def first_lanes(frame: Frame, count: Size | None, lanes: int) -> Array:
    """Which lanes are the first `count`: [instances or 1, lanes]."""
    if count is None:
        return np.ones((1, lanes), bool)
    limit = np.atleast_1d(np.asarray(frame.size(count)))[:, None]
    return np.asarray(np.arange(lanes) < limit)


def check_inside(frame: Frame, memory: Memory, inside: Array, where: tuple[Any, ...]) -> None:
    """Raises CheckError if an active instance has a lane outside of the buffer."""
    if frame.active is not None:
        inside = inside | ~frame.active[:, None]
    if not inside.all():
        text = ",".join(str(w) for w in where)
        raise CheckError(f"{memory.buffer.name}[{text}] is outside the buffer {list(memory.shape)}")


def owners(frame: Frame, memory: Memory) -> Array:
    """The row of a buffer's data that belongs to each instance."""
    if len(memory.data) == 1:
        return np.zeros(1, np.int64)
    return np.arange(frame.instances) // (frame.instances // len(memory.data))


def _gather(frame: Frame, memory: Memory, flat: Array, inside: Array) -> Array:
    """The elements at `flat`, zero where not `inside`."""
    if not memory.data.size:
        return np.zeros(np.broadcast_shapes(flat.shape, inside.shape), memory.data.dtype)
    found = memory.data[owners(frame, memory)[:, None], np.where(inside, flat, 0)]
    return found if inside.all() else np.where(inside, found, memory.data.dtype.type(0))
