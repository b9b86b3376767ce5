"""A block of Loops code under construction, with the values already loaded in it."""

from __future__ import annotations

from collections.abc import Hashable

from nncc.ir.expr import Expr, Name
from nncc.ir.loops import Let, Stmt


class Scope:
    """Statements of one block; `known` finds values named here or in an enclosing block.

    Only values that cannot change may be kept: loads from inputs, and what is computed of them.
    """

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.statements: list[Stmt] = []
        self.values: dict[Hashable, Name] = {}

    def inner(self) -> Scope:
        return Scope(self)

    def add(self, statement: Stmt) -> None:
        self.statements.append(statement)

    def name(self, key: Hashable, name: str, value: Expr) -> Name:
        """Names `value`; the same key finds it again."""
        bound = Name(name, value.dtype, value.lanes)
        self.add(Let(name, value))
        self.values[key] = bound
        return bound

    def known(self, key: Hashable) -> Name | None:
        scope: Scope | None = self
        while scope is not None:
            if key in scope.values:
                return scope.values[key]
            scope = scope.parent
        return None

    def copy(self) -> Scope:
        """A trial version of this block; `replace` takes it over."""
        trial = Scope(self.parent)
        trial.statements = list(self.statements)
        trial.values = dict(self.values)
        return trial

    def replace(self, trial: Scope) -> None:
        self.statements = trial.statements
        self.values = trial.values
