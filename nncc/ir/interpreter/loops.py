"""What Loops mean: this is the definition that every back end must equal.

    interpret(functions, "main", [x, w, y], sizes=[7])        # writes into y

Iterations of a `parallel` loop run in lockstep: every variable then holds one value for each
*instance* (a combination of iterations of the parallel loops around), and branches are masked.
All values are arrays of shape [instances or 1, lanes]; a buffer that is allocated inside of a
parallel loop exists once for each instance. That is sound because the iterations are
independent, and it makes the interpretation of a batch about as fast as that of one sample.
Serial loops of which the same can be shown run in lockstep too (`independence.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nncc.diagnostics import CheckError
from nncc.ir.index import evaluate
from nncc.ir.interpreter.independence import independent
from nncc.ir.interpreter.loop_values import (
    Array,
    Frame,
    Memory,
    Operations,
    check_inside,
    first_lanes,
    flat_index,
    owners,
    start_of,
    value_of,
)
from nncc.ir.interpreter.perform import perform
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
    Perform,
    Prefetch,
    Stmt,
    Store,
    View,
    While,
    walk_statements,
)  # fmt: skip
from nncc.ir.nests import Nest

# How many instances run at once: more save interpretation, fewer save memory.
LOCKSTEP = 4096


def interpret(
    functions: Mapping[str, Function],
    name: str,
    arrays: Sequence[Array],
    sizes: Sequence[int] = (),
    operations: Operations | None = None,
    watch: Callable[[str], None] | None = None,
    records: Mapping[str, Nest] | None = None,
) -> None:
    """Runs a function on arrays in the order of its buffers; `out` arrays are written.

    Args:
        arrays: C-contiguous, with the dtype and the number of elements of each buffer.
        operations: machine operations by name (see `operation_function`).
        watch: is told the name of each function before it is called.
        records: the nests of the operations that the code performs on memory, by name.

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
    frame = Frame(
        functions, operations or {}, dict(variables), {}, memories, watch=watch,
        records=records or {},
    )  # fmt: skip
    with np.errstate(all="ignore"):
        run_body(f.body, frame)


# -- statements --------------------------------------------------------------------------------
def run_body(body: tuple[Stmt, ...], frame: Frame) -> None:
    """Statements one after the other."""
    for s in body:
        _RUN[type(s)](s, frame)


def _for(s: For, frame: Frame) -> None:
    if frame.active is None and _lockstep(s, frame):
        lo, hi = _uniform(frame.size(s.lo)), _uniform(frame.size(s.hi))
        if isinstance(lo, int) and isinstance(hi, int):
            _parallel(s, range(lo, hi, s.step), frame)
            return
    for value, inner in _iterations(s, frame):
        inner.variables[s.variable] = value
        run_body(s.body, inner)
    frame.variables.pop(s.variable, None)


def _lockstep(s: For, frame: Frame) -> bool:
    """Whether a loop's iterations run in lockstep; this is found out once for each loop."""
    if id(s) not in frame.lockstep:
        if s.kind == "parallel":  # calls are not: their buffers are passed as bytes
            found = not any(isinstance(x, Call) for x in walk_statements(s.body))
        else:
            shapes = {name: memory.shape for name, memory in frame.memories.items()}
            found = s.kind == "serial" and independent(s, shapes)
        frame.lockstep[id(s)] = found
    return frame.lockstep[id(s)]


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
    holds = np.broadcast_to(value_of(s.condition, frame)[:, 0], (frame.instances,))
    for condition, body in ((holds, s.then), (~holds, s.otherwise)):
        inner = frame.masked(condition)
        if np.all(condition):
            run_body(body, frame)
        elif np.any(inner.active):
            run_body(body, inner)


def _while(s: While, frame: Frame) -> None:
    running = frame
    while True:
        holds = np.broadcast_to(value_of(s.condition, running)[:, 0], (frame.instances,))
        if not np.all(holds):
            running = running.masked(holds)
        if running.active is not None and not np.any(running.active):
            return
        run_body(s.body, running)


def _let(s: Let | Declare, frame: Frame) -> None:
    frame.values[s.name] = value_of(s.value, frame)


def _assign(s: Assign, frame: Frame) -> None:
    new = value_of(s.value, frame)
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
    x = value_of(s.value, frame)
    where = tuple(frame.size(i) for i in s.indices)
    if s.count is None and frame.active is None:
        start = start_of(memory, where, s.value.lanes)
        if isinstance(start, int) and len(memory.data) == frame.instances:
            memory.data[:, start : start + s.value.lanes] = x
            return
    flat, inside = flat_index(frame, memory, where, s.value.lanes)
    written = first_lanes(frame, s.count, s.value.lanes)
    check_inside(frame, memory, inside | ~written, where)
    if frame.active is not None:
        written = written & frame.active[:, None]
    shape = (frame.instances, s.value.lanes)
    flat, x = np.broadcast_to(flat, shape), np.broadcast_to(x, shape)
    owner = np.broadcast_to(owners(frame, memory)[:, None], shape)
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
    if frame.watch:
        frame.watch(s.callee)
    interpret(
        frame.functions, s.callee, arrays, sizes, frame.operations, frame.watch, frame.records
    )


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
    Perform: perform,
}
