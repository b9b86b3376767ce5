"""Load what loops do not select before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.bounds import Range, bounds
from nncc.ir.expr import Load
from nncc.ir.graph import Module
from nncc.ir.index import elements, maximum, variables
from nncc.ir.loops import Alloc, Declare, For, Function, If, Let, Stmt, While, walk_statements
from nncc.machines.machine import Machine
from nncc.passes.base import Pass


@dataclass(frozen=True)
class Hoist(Pass):
    """Keep in registers what loops read again and again.

    for e { for f { let b_v = b[0 : 32] … } }  →  let b_v = b[0 : 32]  for e { for f { … } }

    A load from a buffer that the function does not write goes before the loops that do not select
    its element, where these surely run, if no other value has its name. So the Loops say how often
    everything is loaded: `nncc.passes.reuse` counts it, and a back end need not look for it.

    Args:
        registers: vectors, and as many scalars, that may be held across a loop for that
            (0: half of the machine's).
    """

    name: ClassVar[str] = "hoist"
    registers: int = 0

    def run(self, module: Module, target: Machine) -> Module:
        most = self.registers or max(1, target.vector_registers // 2)
        functions = {n: hoisted(f, most) for n, f in module.functions.items()}
        unchanged = all(functions[n] is f for n, f in module.functions.items())
        return module if unchanged else replace(module, functions=functions)


def hoisted(function: Function, registers: int) -> Function:
    """`function` with loads before loops; the same object if there are none to move."""
    known = frozenset(b.name for b in function.buffers if b.access == "in")
    bound = Counter(map(_bound, walk_statements(function.body)))
    once = frozenset(name for name, count in bound.items() if count == 1)
    body = _Hoisting(known, once, registers).block(function.body, {})
    return function if body == function.body else replace(function, body=body)


def _bound(s: Stmt) -> str:
    """The name that a statement binds, if it does."""
    if isinstance(s, Let | Declare):
        return s.name
    if isinstance(s, For):
        return s.variable
    return s.buffer.name if isinstance(s, Alloc) else ""


@dataclass(frozen=True)
class _Hoisting:
    """Args:
    known: buffers that are not written; `registers`: values of a kind held across a loop.
    once: names that are bound once, and so may be visible anywhere.
    """

    known: frozenset[str]
    once: frozenset[str]
    registers: int

    def block(self, body: tuple[Stmt, ...], ranges: Mapping[str, Range]) -> tuple[Stmt, ...]:
        found: list[Stmt] = []
        for s in body:
            if isinstance(s, For):
                found += self.loop(s, ranges)
            elif isinstance(s, While | Alloc):
                found.append(replace(s, body=self.block(s.body, ranges)))
            elif isinstance(s, If):
                then, otherwise = self.block(s.then, ranges), self.block(s.otherwise, ranges)
                found.append(replace(s, then=then, otherwise=otherwise))
            else:
                found.append(s)
        return tuple(found)

    def loop(self, s: For, ranges: Mapping[str, Range]) -> list[Stmt]:
        """The loop, behind what moves out of it."""
        low, high = bounds(s.lo, ranges)[0], bounds(s.hi - 1, ranges)[1]
        inside = {**ranges, s.variable: (low, maximum(low, high))}
        body = self.block(s.body, inside)
        least, _ = bounds(s.hi - s.lo - 1, ranges)
        before: list[Stmt] = []
        if isinstance(least, int) and least >= 0:
            room = {True: self.registers, False: self.registers}  # vectors, scalars
            for x in body:
                if not isinstance(x, Let) or not self.is_fixed(x, s.variable):
                    continue
                if room[x.value.lanes > 1]:
                    room[x.value.lanes > 1] -= 1
                    before.append(x)
        kept = tuple(x for x in body if not any(x is b for b in before))
        return [*before, replace(s, body=kept)]

    def is_fixed(self, x: Let, variable: str) -> bool:
        """Whether all rounds of a loop load the same."""
        e = x.value
        if not isinstance(e, Load) or e.tensor not in self.known or e.other is not None:
            return False
        if x.name not in self.once:
            return False
        sizes = (*e.indices, *([] if e.count is None else [e.count]))
        return not any(variable in variables(i) or elements(i) for i in sizes)
