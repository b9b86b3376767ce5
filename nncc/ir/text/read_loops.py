"""Loops functions: from syntax to the IR, with names and types checked."""

from __future__ import annotations

from collections.abc import Iterable

from lark import Token

from nncc.diagnostics import nearest
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
)
from nncc.ir.nests import ASSIGN, BUILTIN_COMBINES, Access
from nncc.ir.text import syntax as s
from nncc.ir.text import syntax_items as si
from nncc.ir.text.read_nests import place, read_dims
from nncc.ir.text.scalars import lanes_of, whole
from nncc.ir.text.scope import SIZES_HINT, Scope, numeric, unique
from nncc.ir.types import TensorType, boolean


def read_function(text: si.FunctionText, file: str) -> Function:
    """A function. Raises Problem."""
    unique(text.sizes, "size")
    unique((b.name for b in text.buffers), "buffer")
    scope = Scope(set(map(str, text.sizes)), operations=True, hint=SIZES_HINT)
    buffers = tuple(_buffer(b, scope) for b in text.buffers)
    scope.tensors = {b.name: TensorType(b.dtype, b.shape) for b in buffers}
    return Function(
        str(text.name), buffers, tuple(map(str, text.sizes)), _block(text.body, scope),
        place(file, text.name, text.source),
    )  # fmt: skip


def _buffer(b: si.BufferText, scope: Scope) -> Buffer:
    t = scope.type(b.type)
    space = "host" if b.space is None else str(b.space)
    alignment = 64 if b.alignment is None else int(b.alignment)
    if alignment.bit_count() != 1:
        raise s.Problem(b.name, f"an alignment is a power of two, as {alignment} is not")
    return Buffer(str(b.name), t.dtype, t.shape, b.access, space, alignment)  # type: ignore[arg-type]


def _block(body: Iterable[object], scope: Scope) -> tuple[Stmt, ...]:
    """Statements in a scope of their own: names bound in them are not seen outside."""
    inner = scope.inner()
    return tuple(_stmt(x, inner) for x in body)


def _stmt(x: object, scope: Scope) -> Stmt:
    if isinstance(x, si.BindText):
        return _bind(x, scope)
    if isinstance(x, si.StoreText):
        return _store(x, scope)
    if isinstance(x, si.LoopText):
        return _loop(x, scope)
    if isinstance(x, si.BranchText):
        condition = whole(scope, x.condition, (boolean, 1), "a condition")
        return If(condition, _block(x.then, scope), _block(x.otherwise, scope))
    if isinstance(x, si.RepeatText):
        condition = whole(scope, x.condition, (boolean, 1), "a condition")
        return While(condition, _block(x.body, scope))
    if isinstance(x, si.AllocText):
        return _alloc(x, scope)
    if isinstance(x, si.PrefetchText):
        scope.tensor(x.target)
        return Prefetch(str(x.target.at), scope.sizes_of(x.target.indices))
    if isinstance(x, si.PerformText):
        return _perform(x, scope)
    assert isinstance(x, si.InvokeText)
    views = tuple(_view(buffer, offset, scope) for buffer, offset in x.views)
    return Call(str(x.callee), views, scope.sizes_of(x.sizes), x.source)


def _bind(x: si.BindText, scope: Scope) -> Stmt:
    name = str(x.name)
    if not x.keyword:
        if name not in scope.values:
            raise s.Problem(
                x.name,
                f"there is no register '{name}' here",
                nearest(name, scope.values, "known") if scope.values else "write declare first",
            )
        return Assign(name, whole(scope, x.value, scope.values[name], f"'{name}'"))
    if name in scope.values:
        raise s.Problem(x.name, f"there is already a value '{name}' here")
    kind = None if x.type is None else numeric(x.type)
    value = whole(scope, x.value, kind, f"'{name}'")
    scope.values[name] = (value.dtype, value.lanes)
    return Let(name, value) if x.keyword == "let" else Declare(name, value)


def _store(x: si.StoreText, scope: Scope) -> Store:
    t = scope.tensor(x.target)
    lanes, count = lanes_of(scope, x.target)
    value = whole(scope, x.value, (t.dtype, lanes), f"what goes to '{x.target.at}'")
    return Store(str(x.target.at), scope.sizes_of(x.target.indices), value, count)


def _loop(x: si.LoopText, scope: Scope) -> For:
    name = str(x.range.at)
    if name in scope.sizes:
        raise s.Problem(x.range.at, f"'{name}' is already a size or loop variable here")
    lo, hi = scope.size(x.range.lo), scope.size(x.range.hi)
    step = 1 if x.step is None else int(x.step)
    if step < 1:
        raise s.Problem(x.range.at, "the step of a loop is at least 1")
    inner = scope.inner()
    inner.sizes.add(name)
    kind = "serial" if x.kind == "for" else str(x.kind)
    return For(name, lo, hi, _block(x.body, inner), step, kind)  # type: ignore[arg-type]


def _alloc(x: si.AllocText, scope: Scope) -> Alloc:
    if x.buffer.name in scope.tensors:
        raise s.Problem(x.buffer.name, f"there is already a buffer '{x.buffer.name}' here")
    buffer = _buffer(x.buffer, scope)
    inner = scope.inner()
    inner.tensors = {**scope.tensors, buffer.name: TensorType(buffer.dtype, buffer.shape)}
    return Alloc(buffer, _block(x.body, inner))


def _perform(x: si.PerformText, scope: Scope) -> Perform:
    dims, inner = read_dims(x.dims, scope)
    inner.tensor(x.target)
    if x.target.lanes is not None:
        raise s.Problem(x.target.lanes, "an operation on memory writes single elements")
    combine = ASSIGN if x.combine is None else str(x.combine)
    if x.combine is not None and combine not in BUILTIN_COMBINES:
        raise s.Problem(
            x.combine, f"there is no combine '{combine}'",
            nearest(combine, BUILTIN_COMBINES, "combines"),
        )  # fmt: skip
    target = Access(str(x.target.at), inner.sizes_of(x.target.indices))
    operands = tuple(whole(inner, e, None, "an operand") for e in x.operands)
    return Perform(str(x.operation), dims, target, combine, operands)


def _view(buffer: Token, offset: s.Expression | None, scope: Scope) -> View:
    if buffer not in scope.tensors:
        raise s.Problem(
            buffer,
            f"there is no buffer '{buffer}' here",
            nearest(buffer, scope.tensors, "buffers") if scope.tensors else "",
        )
    return View(str(buffer), 0 if offset is None else scope.size(offset))
