"""Tile the loops of nests for the memories of the machine, by the data-reuse model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from nncc.diagnostics import PassError, nearest
from nncc.ir.graph import Module
from nncc.ir.nests import (
    ASSIGN,
    Band,
    Leaf,
    Local,
    Nest,
    Scan,
    Schedule,
    Statement,
)
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.reuse import Choice, Loops, choose_tiles
from nncc.passes.reuse.traffic import ordered_statements


@dataclass(frozen=True)
class Tile(Pass):
    """Choose tile sizes and loop order for each memory, where a reduction gives data reuse.

    for m, n, k { t[m,n] sum= a[m,k] * b[k,n] }
    →
    for m by 96 { for n by 64 { init  for k by 4 { acc }  out } }

    Loops over dimensions that all statements have are shared, so that what one statement writes
    is still there for the next; from the first other loop on, each statement has its own. Where
    dependences forbid sharing, every statement is tiled for itself. Nests that have a schedule,
    a scan or no reduction stay as they are.

    Args:
        sizes: tile sizes that are given, by dimension (`tile[conv1]{m=32, c=64}`); a dimension
            that a nest lacks is refused if `node` names the nest, else passed over.
        memory: bytes to use of the outermost memory that is tiled for (0: what it has).
        node: only the nest of this name.
    """

    name: ClassVar[str] = "tile"
    sizes: Mapping[str, int] = field(default_factory=dict)
    memory: int = 0
    node: str = ""

    def run(self, module: Module, target: Machine) -> Module:
        """Raises PassError for an unknown node or dimension, or if no tile fits the machine."""
        if self.node and self.node not in module.nests:
            help = nearest(self.node, module.nests, "nests")
            raise PassError(f"there is no nest '{self.node}'", help=help)
        nests = {
            name: self._tiled(nest, target) if self.node in ("", name) else nest
            for name, nest in module.nests.items()
        }
        unchanged = all(nests[name] is nest for name, nest in module.nests.items())
        return module if unchanged else replace(module, nests=nests)

    def _tiled(self, nest: Nest, target: Machine) -> Nest:
        if nest.schedule is not None or any(isinstance(item, Scan) for item in nest.body):
            return nest
        main = ordered_statements(nest)[0]
        if main.combine == ASSIGN:
            return nest
        own = {d.name for d in main.dims}
        tile = {d: s for d, s in self.sizes.items() if self.node or d in own}
        memory = {target.storage[1].name: self.memory} if self.memory else None
        choice = choose_tiles(nest, target, tile=tile, memory=memory)
        return schedule(nest, main, choice, target)


def schedule(nest: Nest, main: Statement, choice: Choice, machine: Machine) -> Nest:
    """`nest` with the loops of `choice`, shared among its statements where that is legal.

    Loads isl to prove it if there is more than one statement.
    """
    if not choice.loops:
        return nest
    if len(nest.statements) == 1:
        return replace(nest, schedule=(_loops(choice.loops, Leaf(main.name)),))
    from nncc.passes.poly import check_schedule

    fused = replace(nest, schedule=_shared(nest, choice, machine))
    try:
        check_schedule(fused)
    except PassError:
        return replace(nest, schedule=tuple(_own_loops(s, choice.loops) for s in nest.statements))
    return fused


def _shared(nest: Nest, choice: Choice, machine: Machine) -> tuple[Schedule, ...]:
    """Loops that all statements have around them all, as far as they stand outside of others."""
    common = set.intersection(*({d.name for d in s.dims} for s in nest.statements))
    outside = 0
    while outside < len(choice.loops) and choice.loops[outside][0] in common:
        outside += 1
    inside = choice.loops[outside:]
    body: tuple[Schedule, ...] = tuple(_own_loops(s, inside) for s in nest.statements)
    locals_ = tuple(p.name for p in nest.locals)
    level = choice.levels[-1].storage
    if outside and locals_ and machine.memory(level).managed:
        body = (Local(locals_, level, body),)
    for dim, step in reversed(choice.loops[:outside]):
        body = (Band(dim, step, "serial", body),)
    return body


def _own_loops(statement: Statement, loops: Loops) -> Schedule:
    own = {d.name for d in statement.dims}
    return _loops(tuple(loop for loop in loops if loop[0] in own), Leaf(statement.name))


def _loops(loops: Loops, node: Schedule) -> Schedule:
    for dim, step in reversed(loops):
        node = Band(dim, step, "serial", (node,))
    return node
