"""Tile the loops of nests for the memories of the machine, by the data-reuse model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from nncc.diagnostics import PassError, nearest
from nncc.ir.graph import Module
from nncc.ir.index import evaluate, product, variables
from nncc.ir.nests import (
    ASSIGN,
    Band,
    Leaf,
    Local,
    Nest,
    Scan,
    Schedule,
    Statement,
    walk_schedule,
)
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.reuse import Choice, Loops, choose_tiles, placed_in, scheduled_traffic
from nncc.passes.reuse.traffic import ordered_statements

GAIN = 0.9  # loops are added to a schedule if they leave at most this part of its traffic


@dataclass(frozen=True)
class Tile(Pass):
    """Choose tile sizes and loop order for each memory, where a reduction gives data reuse.

    for m, n, k { t[m,n] sum= a[m,k] * b[k,n] }
    →
    for m by 96 { for n by 64 { init  for k by 4 { acc }  out } }

    Loops over dimensions that all statements have alike are shared, so that what one statement
    writes is still there for the next; from the first other loop on, each has its own. Where
    dependences forbid sharing, every statement is tiled for itself. Nests with a scan, without a
    reduction or with ranges that depend on other dimensions stay as they are; so do those without
    a schedule where memories are caches, unless sizes are given.

    A nest that has a schedule (a register tile by `tensorize`) keeps its innermost loops and what
    is parallel: loops around them are added if a memory, not arithmetic, is expected to set the
    pace, and the model finds a tenth less traffic with them.

    for n { for m by 32 { for f by 14 { … } } }
    →
    for n { for m by 96 { for f by 56 { for m by 32 { for f by 14 { … } } } } }

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
        main = ordered_statements(nest)[0]
        if main.combine == ASSIGN or any(isinstance(item, Scan) for item in nest.body):
            return nest
        if not all(_is_box(s) for s in nest.statements):
            return nest
        own = {d.name for d in main.dims}
        tile = {d: s for d, s in self.sizes.items() if self.node or d in own}
        memory = {target.storage[1].name: self.memory} if self.memory else None
        if nest.schedule is not None:
            return surround(nest, main, target, tile, memory)
        if not tile and not target.storage[1].managed:
            return nest
        choice = choose_tiles(nest, target, tile=tile, memory=memory)
        return schedule(nest, main, choice, target)


def _is_box(s: Statement) -> bool:
    """Whether no range depends on another dimension: the model counts boxes."""
    own = {d.name for d in s.dims}
    return not any((variables(d.lo) | variables(d.hi)) & own for d in s.dims)


def surround(
    nest: Nest,
    main: Statement,
    machine: Machine,
    tile: Mapping[str, int],
    memory: Mapping[str, int] | None,
) -> Nest:
    """`nest` with further loops between the parallel and the other bands of its schedule.

    The same object if the model sees no gain in them, if the schedule has no bands around all
    statements, or if what these hold is more than a managed memory takes. Loads isl to prove that
    the new order is legal.
    """
    parallel, serial, core = _chain(nest)
    before = scheduled_traffic(nest, machine, memory=memory)
    if not serial or not _holds(before, machine, len(parallel) + len(serial)):
        return nest
    # Measured on a CPU: loops that relieve a memory which the arithmetic hides gain nothing.
    if not tile and max(level.cost for level in before.levels) < cycles(nest, main, machine):
        return nest
    # Tiles are whole pieces of the existing loops; what those do not split stays whole.
    whole = {d.name: d.extent for d in main.dims if isinstance(d.extent, int)}
    inner = whole | {d: max(s for name, s in serial if name == d) for d, _ in serial}
    choice = choose_tiles(
        nest,
        machine,
        inner=inner,
        outer=parallel,
        tile=tile,
        memory=memory,
        elsewhere=placed_in(nest, machine.storage[-1].name),
    )
    added = choice.loops[len(choice.outer) :]
    if not added:
        return nest
    last = dict(added)  # a loop that would run once inside the added ones is left out
    kept = tuple(loop for loop in serial if last.get(loop[0]) != loop[1])
    body = _banded((*added, *kept), core)
    for dim, step in reversed(parallel):
        body = (Band(dim, step, "parallel", body),)
    found = replace(nest, schedule=body)
    after = scheduled_traffic(found, machine, memory=memory)
    if not tile and after.cost > GAIN * before.cost:
        return nest
    from nncc.passes.poly import check_schedule

    check_schedule(found)
    return found


def cycles(nest: Nest, main: Statement, machine: Machine) -> float:
    """Cycles that the machine operation which performs `main` takes at its full rate.

    0 if the schedule names none. Named sizes count as 1.
    """
    for leaf in walk_schedule(nest.schedule or ()):
        if isinstance(leaf, Leaf) and leaf.statement == main.name and leaf.operation:
            operation = machine.operations[leaf.operation]
            (meaning,) = operation.semantics.statements
            at_once = evaluate(product(d.extent for d in meaning.dims), {})
            sizes = dict.fromkeys(nest.sizes, 1)
            instances = evaluate(product(d.extent for d in main.dims), sizes)
            return instances / (at_once * operation.per_cycle)
    return 0.0


def _holds(traffic: Choice, machine: Machine, depth: int) -> bool:
    """Whether every managed memory holds a tile below the first `depth` loops of a schedule."""
    used = 0
    for level in traffic.levels:
        used += len(level.loops)
        if machine.memory(level.storage).managed and (used > depth or level.bytes > level.capacity):
            return False
    return True


def _chain(nest: Nest) -> tuple[Loops, Loops, tuple[Schedule, ...]]:
    """The parallel bands around everything, the serial ones inside them, and what these hold."""
    loops: dict[str, list[tuple[str, int]]] = {"parallel": [], "serial": []}
    core = nest.schedule or ()
    while len(core) == 1 and isinstance(band := core[0], Band) and isinstance(band.step, int):
        if band.kind not in loops or (band.kind == "parallel" and loops["serial"]):
            break
        loops[band.kind].append((band.dim, band.step))
        core = band.body
    return tuple(loops["parallel"]), tuple(loops["serial"]), core


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
    common = {d.name for d in set.intersection(*(set(s.dims) for s in nest.statements))}
    outside = 0
    while outside < len(choice.loops) and choice.loops[outside][0] in common:
        outside += 1
    inside = choice.loops[outside:]
    body: tuple[Schedule, ...] = tuple(_own_loops(s, inside) for s in nest.statements)
    locals_ = tuple(p.name for p in nest.locals)
    level = choice.levels[-1].storage
    if outside and locals_ and machine.memory(level).managed:
        body = (Local(locals_, level, body),)
    return _banded(choice.loops[:outside], body)


def _own_loops(statement: Statement, loops: Loops) -> Schedule:
    own = {d.name for d in statement.dims}
    return _loops(tuple(loop for loop in loops if loop[0] in own), Leaf(statement.name))


def _loops(loops: Loops, node: Schedule) -> Schedule:
    (root,) = _banded(loops, (node,))
    return root


def _banded(loops: Loops, body: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
    for dim, step in reversed(loops):
        body = (Band(dim, step, "serial", body),)
    return body
