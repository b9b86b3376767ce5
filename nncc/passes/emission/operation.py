"""Whether a statement is what a machine operation computes, and with which operands.

An operation's semantics is a nest of one reduction statement, for example

    fma16(y: f32[16], a: f32[], b: f32[16]) { y[m] sum= a * b[m] }

A statement matches under a map of the operation's dimensions to its own if their values are equal
expressions up to the names of tensors, the order of a product's factors, and subscripts, and each
operand varies with exactly the mapped dimensions that the operation's operand varies with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nncc.ir.expr import Apply, Const, Expr, Load, transform
from nncc.ir.index import variables
from nncc.ir.nests import Statement
from nncc.machines.machine import Operation

COMMUTATIVE = frozenset({"add", "mul", "min", "max", "and", "or", "xor"})


def match(
    operation: Operation, statement: Statement, dims: Mapping[str, str]
) -> tuple[Load, ...] | None:
    """The statement's loads that are the operation's inputs, in order of its parameters.

    Args:
        dims: dimension of the operation -> dimension of the statement.
    """
    pattern = operation.semantics.statements[-1]
    if statement.combine != pattern.combine or len(statement.values) != 1:
        return None
    accumulator = operation.semantics.params[0].type.dtype
    if statement.values[0].dtype is not accumulator:
        return None
    if not _varies_alike(pattern.targets[0].indices, statement.targets[0].indices, dims):
        return None
    bound: dict[str, Load] = {}
    if not _unify(_canonical(pattern.values[0]), _canonical(statement.values[0]), dims, bound):
        return None
    return tuple(bound[p.name] for p in operation.semantics.params[1:])


def _varies_alike(pattern: tuple, indices: tuple, dims: Mapping[str, str]) -> bool:  # type: ignore[type-arg]
    used = frozenset[str]().union(*(variables(i) for i in pattern))
    ours = frozenset[str]().union(*(variables(i) for i in indices))
    return {dims[d] for d in used} == ours & set(dims.values())


def _canonical(e: Expr) -> Expr:
    """`e` with every x - c written as x + (-c)."""

    def rule(x: Expr) -> Expr:
        if isinstance(x, Apply) and x.fn == "sub" and isinstance(x.args[1], Const):
            c = x.args[1]
            return replace(x, fn="add", args=(x.args[0], replace(c, value=-c.value)))
        return x

    return transform(e, rule)


def _unify(pattern: Expr, e: Expr, dims: Mapping[str, str], bound: dict[str, Load]) -> bool:
    if isinstance(pattern, Load):
        if not isinstance(e, Load) or e.dtype is not pattern.dtype:
            return False
        if not _varies_alike(pattern.indices, e.indices, dims):
            return False
        return bound.setdefault(pattern.tensor, e) == e
    if isinstance(pattern, Const):
        return pattern == e
    if not isinstance(pattern, Apply) or not isinstance(e, Apply):
        return False
    if pattern.fn != e.fn or pattern.dtype is not e.dtype or len(pattern.args) != len(e.args):
        return False
    orders = [e.args]
    if pattern.fn in COMMUTATIVE:
        orders.append(tuple(reversed(e.args)))
    for args in orders:
        trial = dict(bound)
        if all(_unify(p, a, dims, trial) for p, a in zip(pattern.args, args, strict=True)):
            bound |= trial
            return True
    return False
