"""Where registers are declared in finished code."""

from __future__ import annotations

from collections.abc import Mapping

from nncc.ir.expr import Const, Name
from nncc.ir.loops import Assign, Declare, Stmt, walk_statements


def declared(statements: list[Stmt], registers: Mapping[str, Name]) -> list[Stmt]:
    """`statements` with a Declare for each of `registers`.

    It takes the place of the register's first assignment, unless that is inside of another
    statement; then the register is zero before all of them.
    """
    done: set[str] = set()
    nested = _assigned_inside(statements)
    result: list[Stmt] = []
    for position, s in enumerate(statements):
        first = isinstance(s, Assign) and s.name in registers and s.name not in done
        if isinstance(s, Assign) and first and nested.get(s.name, position) >= position:
            done.add(s.name)
            s = Declare(s.name, s.value)
        result.append(s)
    zeros: list[Stmt] = [
        Declare(r, Const(0.0 if t.dtype.is_float else 0, t.dtype, t.lanes))
        for r, t in registers.items()
        if r not in done
    ]
    return [*zeros, *result]


def _assigned_inside(statements: list[Stmt]) -> dict[str, int]:
    """Position of the first compound statement that assigns each register inside it."""
    found: dict[str, int] = {}
    for position, s in enumerate(statements):
        for inner in walk_statements((s,)):
            if isinstance(inner, Assign) and inner is not s:
                found.setdefault(inner.name, position)
    return found
