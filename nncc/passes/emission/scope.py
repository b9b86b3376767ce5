"""A block of Loops code under construction, with the values already loaded in it.

What cannot be written as vectors is found out by trying: `mark` a block or the names, and `reset`
takes back what came since.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import count, islice
from typing import Any

from nncc.ir.expr import Expr, Name
from nncc.ir.loops import Let, Stmt


class Names:
    """The names of one function, each given once."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken: dict[str, None] = dict.fromkeys(taken)
        self._next: dict[str, int] = {}

    def fresh(self, stem: str) -> str:
        """A name that nothing else in the function has: `stem`, `stem_2`, …"""
        name = stem
        for k in count(self._next.get(stem, 1)):
            name = f"{stem}_{k}" if k > 1 else stem
            if name not in self._taken:
                self._next[stem] = k + 1
                break
        self._taken[name] = None
        return name

    def mark(self) -> int:
        return len(self._taken)

    def reset(self, mark: int) -> None:
        shorten(self._taken, mark)
        self._next.clear()


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

    def mark(self) -> tuple[int, int]:
        return len(self.statements), len(self.values)

    def reset(self, mark: tuple[int, int]) -> None:
        del self.statements[mark[0] :]
        shorten(self.values, mark[1])


def shorten(table: dict[Any, Any], length: int) -> None:
    """Forget the newest entries."""
    for key in list(islice(reversed(table), len(table) - length)):
        del table[key]
