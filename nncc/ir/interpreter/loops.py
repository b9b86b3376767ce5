"""What Loops mean: this is the definition that every back end must equal.

    interpret(functions, "main", [x, w, y], sizes=[7])        # writes into y

Iterations of a `parallel` loop run in lockstep: every variable then holds one value for each
*instance* (a combination of iterations of the parallel loops around), and branches are masked.
All values are arrays of shape [instances or 1, lanes]; a buffer that is allocated inside of a
parallel loop exists once for each instance. That is sound because the iterations are
independent, and it makes the interpretation of a batch about as fast as that of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from nncc.diagnostics import CheckError
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value
from nncc.ir.index import Index, Size, elements, evaluate
from nncc.ir.loops import (
    Alloc,
    Assign,
    Buffer,
    Call,
    Declare,
    For,
    Function,
    If,
    Let,
    Prefetch,
    Stmt,
    Store,
    View,
    While,
    walk_statements,
)  # fmt: skip
from nncc.ir.scalar import FUNCTIONS

Array = np.ndarray[Any, Any]
Operations = Mapping[str, Callable[..., Array]]

# How many instances run at once: more save interpretation, fewer save memory.
LOCKSTEP = 4096

_REDUCTIONS = {"reduce_add": "add", "reduce_max": "max", "reduce_min": "min"}


def interpret(
    functions: Mapping[str, Function],
    name: str,
    arrays: Sequence[Array],
    sizes: Sequence[int] = (),
    operations: Operations | None = None,
) -> None:
    """Runs a function on arrays in the order of its buffers; `out` arrays are written.

    Args:
        arrays: C-contiguous, with the dtype and the number of elements of each buffer.
        operations: machine operations by name (see `operation_function`).

    Raises CheckError if an access leaves its buffer.
    """
    f = functions[name]
    variables = dict(zip(f.sizes, sizes, strict=True))
    memories = {}
    for buffer, array in zip(f.buffers, arrays, strict=True):
        shape = tuple(int(evaluate(s, variables)) for s in buffer.shape)
        if array.dtype != buffer.dtype.numpy or array.size != np.prod(shape, dtype=np.int64):
            raise CheckError(
                f"function {name}: {buffer.name} is {array.dtype}{list(array.shape)}, "
                f"not {buffer.dtype}{list(shape)}"
            )
        flat = array.reshape(1, -1)
        if not np.shares_memory(flat, array) and array.size:
            raise CheckError(f"function {name}: the array of {buffer.name} is not contiguous")
        memories[buffer.name] = Memory(buffer, shape, flat)
    frame = Frame(functions, operations or {}, dict(variables), {}, memories)
    with np.errstate(all="ignore"):
        run_body(f.body, frame)


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
    """

    functions: Mapping[str, Function]
    operations: Operations
    variables: dict[str, Any]
    values: dict[str, Array]
    memories: dict[str, Memory]
    instances: int = 1
    active: Array | None = None

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
        flat, inside = _flat_index(self.frame, memory, where, 1)
        _check(self.frame, memory, inside, where)
        read = _gather(self.frame, memory, flat, inside)[:, 0].astype(np.int64)
        return int(read[0]) if len(read) == 1 else read


# -- statements --------------------------------------------------------------------------------
def run_body(body: tuple[Stmt, ...], frame: Frame) -> None:
    """Statements one after the other."""
    for s in body:
        _RUN[type(s)](s, frame)


def _for(s: For, frame: Frame) -> None:
    if s.kind == "parallel" and frame.active is None and _lockstep(s):
        lo, hi = frame.size(s.lo), frame.size(s.hi)
        if isinstance(lo, int) and isinstance(hi, int):
            _parallel(s, range(lo, hi, s.step), frame)
            return
    for value, inner in _iterations(s, frame):
        inner.variables[s.variable] = value
        run_body(s.body, inner)
    frame.variables.pop(s.variable, None)


def _lockstep(s: For) -> bool:
    """Calls are not run in lockstep: their buffers are passed as bytes."""
    return not any(isinstance(x, Call) for x in walk_statements(s.body))


def _iterations(s: For, frame: Frame) -> Iterator[tuple[Any, Frame]]:
    lo, hi = _uniform(frame.size(s.lo)), _uniform(frame.size(s.hi))
    if isinstance(lo, int) and isinstance(hi, int):
        for k in range(lo, hi, s.step):
            yield k, frame
        return
    value = np.broadcast_to(lo, (frame.instances,)).copy()
    while True:
        inner = frame.masked(value < hi)
        if not np.any(inner.active):
            return
        yield value.copy(), inner
        value += s.step


def _uniform(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.size and (value == value.flat[0]).all():
        return int(value.flat[0])
    return value


def _parallel(s: For, steps: range, frame: Frame) -> None:
    chunk = max(1, LOCKSTEP // frame.instances)
    for first in range(0, len(steps), chunk):
        values = np.asarray(steps[first : first + chunk], np.int64)
        count = len(values)

        def spread(x: Any, count: int = count) -> Any:
            return np.repeat(x, count, axis=0) if isinstance(x, np.ndarray) else x

        inner = replace(
            frame,
            variables={k: spread(v) for k, v in frame.variables.items()},
            values={k: v if len(v) == 1 else spread(v) for k, v in frame.values.items()},
            memories=dict(frame.memories),
            instances=frame.instances * count,
        )
        inner.variables[s.variable] = np.tile(values, frame.instances)
        run_body(s.body, inner)


def _if(s: If, frame: Frame) -> None:
    holds = np.broadcast_to(_value(s.condition, frame)[:, 0], (frame.instances,))
    for condition, body in ((holds, s.then), (~holds, s.otherwise)):
        inner = frame.masked(condition)
        if np.all(condition):
            run_body(body, frame)
        elif np.any(inner.active):
            run_body(body, inner)


def _while(s: While, frame: Frame) -> None:
    running = frame
    while True:
        holds = np.broadcast_to(_value(s.condition, running)[:, 0], (frame.instances,))
        if not np.all(holds):
            running = running.masked(holds)
        if running.active is not None and not np.any(running.active):
            return
        run_body(s.body, running)


def _let(s: Let | Declare, frame: Frame) -> None:
    frame.values[s.name] = _value(s.value, frame)


def _assign(s: Assign, frame: Frame) -> None:
    new = _value(s.value, frame)
    if frame.active is not None:
        new = np.where(frame.active[:, None], new, frame.values[s.name])
    frame.values[s.name] = new


def _alloc(s: Alloc, frame: Frame) -> None:
    shape = tuple(int(_uniform(frame.size(e))) for e in s.buffer.shape)
    elements_of = int(np.prod(shape, dtype=np.int64))
    # what is undefined differs from what a correct program could expect
    poison = (
        np.frombuffer(b"\xa5" * s.buffer.dtype.numpy.itemsize, s.buffer.dtype.numpy)
        if s.buffer.dtype.kind != "bool"
        else np.ones(1, bool)
    )
    data = np.tile(poison, (frame.instances, elements_of))
    frame.memories[s.buffer.name] = Memory(s.buffer, shape, data)
    run_body(s.body, frame)
    del frame.memories[s.buffer.name]


def _store(s: Store, frame: Frame) -> None:
    memory = frame.memories[s.buffer]
    x = _value(s.value, frame)
    where = tuple(frame.size(i) for i in s.indices)
    if s.count is None and frame.active is None:
        start = _start(memory, where, s.value.lanes)
        if isinstance(start, int) and len(memory.data) == frame.instances:
            memory.data[:, start : start + s.value.lanes] = x
            return
    flat, inside = _flat_index(frame, memory, where, s.value.lanes)
    written = _first(frame, s.count, s.value.lanes)
    _check(frame, memory, inside | ~written, where)
    if frame.active is not None:
        written = written & frame.active[:, None]
    shape = (frame.instances, s.value.lanes)
    flat, x = np.broadcast_to(flat, shape), np.broadcast_to(x, shape)
    owner = np.broadcast_to(_owners(frame, memory)[:, None], shape)
    chosen = np.broadcast_to(written, shape)
    memory.data[owner[chosen], flat[chosen]] = x[chosen]


def _call(s: Call, frame: Frame) -> None:
    f = frame.functions[s.callee]
    sizes = [int(frame.size(n)) for n in s.sizes]
    variables = dict(zip(f.sizes, sizes, strict=True))
    arrays = [
        _bytes_of(frame, view, buffer, variables)
        for view, buffer in zip(s.arguments, f.buffers, strict=True)
    ]
    interpret(frame.functions, s.callee, arrays, sizes, frame.operations)


def _bytes_of(frame: Frame, view: View, buffer: Buffer, variables: Mapping[str, int]) -> Array:
    """The part of a buffer that a view passes, as the callee's type."""
    raw = frame.memories[view.buffer].data.reshape(-1).view(np.uint8)
    start, count = int(frame.size(view.offset)), int(evaluate(buffer.bytes, variables))
    if start < 0 or start + count > raw.size:
        raise CheckError(
            f"bytes {start} to {start + count} of {view.buffer} are passed as {buffer.name}, "
            f"but it has {raw.size}"
        )
    return raw[start : start + count].view(buffer.dtype.numpy)


def _prefetch(s: Prefetch, frame: Frame) -> None:
    """A hint: it has no meaning."""


_RUN: dict[type, Callable[[Any, Frame], None]] = {
    For: _for,
    If: _if,
    While: _while,
    Let: _let,
    Declare: _let,
    Assign: _assign,
    Alloc: _alloc,
    Store: _store,
    Call: _call,
    Prefetch: _prefetch,
}


# -- expressions -------------------------------------------------------------------------------
def _value(e: Expr, frame: Frame) -> Array:
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
    args = [_value(a, frame) for a in e.args]
    if e.fn in frame.operations:
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
    if e.count is None and (start := _start(memory, where, e.lanes)) is not None:
        return _read(frame, memory, start, e.lanes)
    flat, inside = _flat_index(frame, memory, where, e.lanes)
    wanted = _first(frame, e.count, e.lanes)
    if e.other is None:
        _check(frame, memory, inside | ~wanted, where)
        return _gather(frame, memory, flat, inside & wanted)
    return np.where(
        inside & wanted, _gather(frame, memory, flat, inside & wanted), _value(e.other, frame)
    )


def _start(memory: Memory, where: tuple[Any, ...], lanes: int) -> Any:
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
        return found[_owners(frame, memory)]
    columns = start[:, None] + np.arange(lanes)
    return np.asarray(memory.data[_owners(frame, memory)[:, None], columns])


def _flat_index(
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
        inside = inside & (at >= 0) & (at < memory.shape[k])
        step = math.prod(memory.shape[k + 1 :])
        flat = flat + at * step
        if k >= outer:
            row = row + at * step
    row = row + np.arange(lanes)
    inside = inside & (row >= 0) & (row < math.prod(memory.shape[outer:]))
    return flat + np.arange(lanes), inside


def _first(frame: Frame, count: Size | None, lanes: int) -> Array:
    """Which lanes are the first `count`: [instances or 1, lanes]."""
    if count is None:
        return np.ones((1, lanes), bool)
    limit = np.atleast_1d(np.asarray(frame.size(count)))[:, None]
    return np.asarray(np.arange(lanes) < limit)


def _check(frame: Frame, memory: Memory, inside: Array, where: tuple[Any, ...]) -> None:
    if frame.active is not None:
        inside = inside | ~frame.active[:, None]
    if not inside.all():
        text = ",".join(str(w) for w in where)
        raise CheckError(f"{memory.buffer.name}[{text}] is outside the buffer {list(memory.shape)}")


def _owners(frame: Frame, memory: Memory) -> Array:
    """The row of a buffer's data that belongs to each instance."""
    if len(memory.data) == 1:
        return np.zeros(1, np.int64)
    return np.arange(frame.instances) // (frame.instances // len(memory.data))


def _gather(frame: Frame, memory: Memory, flat: Array, inside: Array) -> Array:
    """The elements at `flat`, zero where not `inside`."""
    if not memory.data.size:
        return np.zeros(np.broadcast_shapes(flat.shape, inside.shape), memory.data.dtype)
    found = memory.data[_owners(frame, memory)[:, None], np.where(inside, flat, 0)]
    return found if inside.all() else np.where(inside, found, memory.data.dtype.type(0))
