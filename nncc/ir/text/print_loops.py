"""Loops functions as text; `read_loops.py` reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nncc.ir.expr import Expr
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
from nncc.ir.nests import ASSIGN
from nncc.ir.text.names import quote, string
from nncc.ir.text.print_expr import (
    print_expr,
    print_range,
    print_size,
    print_sizes,
    subscripts,
    typed_name,
)
from nncc.ir.text.print_nests import (
    INDENT,
    at,
    print_domain,
    print_named_sizes,
    signature,
)


def print_function(f: Function) -> str:
    """A loops function."""
    buffers = [f"{b.access} {_buffer(b)}" for b in f.buffers]
    head = signature(
        f"function {quote(f.name)}", buffers, f"{print_named_sizes(f.sizes)}){at(f.location)} {{"
    )
    return "\n".join([head, *_body(f.body, INDENT), "}"])


def print_stmts(body: Iterable[Stmt]) -> str:
    """Statements of a function, for messages and tests."""
    return "\n".join(_body(body, ""))


def _buffer(b: Buffer) -> str:
    text = f"{quote(b.name)}: {b.dtype}[{subscripts(b.shape)}]"
    if b.space != "host":
        text += f" in {quote(b.space)}"
    if b.alignment != 64:
        text += f" align {b.alignment}"
    return text


def _body(body: Iterable[Stmt], indent: str) -> Iterator[str]:
    for s in body:
        yield from _stmt(s, indent)


def _stmt(s: Stmt, indent: str) -> Iterator[str]:
    if isinstance(s, For):
        word = "for" if s.kind == "serial" else s.kind
        step = "" if s.step == 1 else f" step {s.step}"
        yield from _block(
            f"{word} {quote(s.variable)} in {print_range(s.lo, s.hi)}{step}", s.body, indent
        )
    elif isinstance(s, If):
        yield f"{indent}if {print_expr(s.condition, known=True)} {{"
        yield from _body(s.then, indent + INDENT)
        if s.otherwise:
            yield f"{indent}}} else {{"
            yield from _body(s.otherwise, indent + INDENT)
        yield indent + "}"
    elif isinstance(s, While):
        yield from _block(f"while {print_expr(s.condition, known=True)}", s.body, indent)
    elif isinstance(s, Let):
        yield f"{indent}let {_binding(s.name, s.value)}"
    elif isinstance(s, Declare):
        yield f"{indent}declare {_binding(s.name, s.value)}"
    elif isinstance(s, Assign):
        yield f"{indent}{quote(s.name)} = {print_expr(s.value, known=True)}"
    elif isinstance(s, Store):
        target = f"{quote(s.buffer)}[{subscripts(s.indices, s.value.lanes, s.count)}]"
        yield f"{indent}{target} = {print_expr(s.value, known=True)}"
    elif isinstance(s, Alloc):
        yield from _block(f"alloc {_buffer(s.buffer)}", s.body, indent)
    elif isinstance(s, Call):
        yield indent + _call(s)
    elif isinstance(s, Perform):
        yield from _perform(s, indent)
    else:
        assert isinstance(s, Prefetch)
        yield f"{indent}prefetch {quote(s.buffer)}[{subscripts(s.indices)}]"


def _block(head: str, body: Iterable[Stmt], indent: str) -> Iterator[str]:
    yield f"{indent}{head} {{"
    yield from _body(body, indent + INDENT)
    yield indent + "}"


def _binding(name: str, value: Expr) -> str:
    kind = typed_name(value.dtype, value.lanes)
    return f"{quote(name)}: {kind} = {print_expr(value, known=True)}"


def _call(c: Call) -> str:
    views = ", ".join(_view(v) for v in c.arguments)
    sizes = f"; {print_sizes(c.sizes, ', ')}" if c.sizes else ""
    source = f" at {string(c.source)}" if c.source else ""
    return f"call {quote(c.callee)}({views}{sizes}){source}"


def _perform(p: Perform, indent: str) -> Iterator[str]:
    combine = "=" if p.combine == ASSIGN else f"{quote(p.combine)}="
    target = f"{quote(p.target.tensor)}[{subscripts(p.target.indices)}]"
    operands = ", ".join(print_expr(e) for e in p.operands)
    yield f"{indent}perform {quote(p.operation)} {print_domain(p.dims)}{{"
    yield f"{indent}{INDENT}{target} {combine} {operands}"
    yield indent + "}"


def _view(v: View) -> str:
    return quote(v.buffer) if v.offset == 0 else f"{quote(v.buffer)} + {print_size(v.offset)}"
