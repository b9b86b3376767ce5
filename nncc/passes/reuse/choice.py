"""Choice of tile sizes and loop order for the memories of a machine.

    choice = choose_tiles(nest, load("cpu"), inner={"f": 14, "m": 32})
    choice.loops      (("e", 12), ("m", 32), ("e", 4), ("f", 28), ("c", 1)): outermost first, around
                      the caller's register tile; a later loop over a dimension splits its tile
    choice.reason     a line for each memory:
        l3: whole: 1.67 MiB of 16 MiB (y 784 KiB, x 784 KiB, w 144 KiB); 928 KiB in, …
        l2: for e by 12: 508 KiB of 512 KiB (y 168 KiB, x 196 KiB, w 144 KiB), w stays; …
    choice.levels     the same as data: loops, bytes held and predicted traffic of each memory

Levels are chosen from the outermost to the innermost, each inside one tile of the level around it.
A level whose memory holds everything gets no loops; otherwise `nncc.passes.reuse.search` finds the
loops with the least traffic, weighed by the bandwidths of the memory around it. Choices are kept
by nest and machine: the same question is answered once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from nncc.diagnostics import PassError, nearest
from nncc.ir.index import variables
from nncc.ir.nests import Local, Nest, Statement, walk_schedule
from nncc.machines.machine import Machine
from nncc.passes.reuse.problem import Level, Problem, amount, counted_sizes
from nncc.passes.reuse.search import Search
from nncc.passes.reuse.traffic import (
    Loops,
    Traffic,
    ordered_statements,
    schedule_loops,
    traffic,
)

CACHED_SHARE = 0.5  # of a cache that the model uses: the rest is for what it does not know of


@dataclass(frozen=True)
class LevelChoice:
    """What was chosen for one memory.

    Args:
        loops: those that walk its tiles inside one tile of the level around it.
        bytes: that its tile needs, of `capacity`; `held`: of each operand.
        stays: operands that the innermost of the loops does not move.
        traffic: between it and `above`, the memory around it, over the whole nest; `cost`: the
            cycles that it takes.
    """

    storage: str
    above: str
    loops: Loops
    bytes: int
    capacity: int
    held: tuple[tuple[str, int], ...]
    stays: tuple[str, ...]
    traffic: tuple[Traffic, ...]
    cost: float

    @property
    def reason(self) -> str:
        """One line for people."""
        loops = " ".join(f"{d} by {step}" for d, step in self.loops)
        parts = ", ".join(f"{tensor} {amount(size)}" for tensor, size in self.held)
        text = f"{self.storage}: {f'for {loops}' if loops else 'whole'}: "
        text += f"{amount(self.bytes)} of {amount(self.capacity)} ({parts})"
        if self.stays:
            text += f", {', '.join(self.stays)} stay{'s' if len(self.stays) == 1 else ''}"
        loads = sum(t.load_bytes for t in self.traffic)
        stores = sum(t.store_bytes for t in self.traffic)
        return f"{text}; {amount(loads)} in, {amount(stores)} out to {self.above}"


@dataclass(frozen=True)
class Choice:
    """Loops for all levels, outermost first, and what they mean for each."""

    outer: Loops
    levels: tuple[LevelChoice, ...]

    @cached_property
    def loops(self) -> Loops:
        return (*self.outer, *(loop for level in self.levels for loop in level.loops))

    @property
    def reason(self) -> str:
        return "\n".join(level.reason for level in self.levels)

    @property
    def cost(self) -> float:
        """Cycles that the traffic of all levels takes (bytes where no bandwidth is stated)."""
        return sum(level.cost for level in self.levels)


def choose_tiles(
    nest: Nest,
    machine: Machine,
    *,
    inner: Mapping[str, int] | None = None,
    outer: Loops = (),
    tile: Mapping[str, int] | None = None,
    sizes: Mapping[str, int] | None = None,
    memory: Mapping[str, int] | None = None,
    levels: Sequence[str] | None = None,
    statement: str | None = None,
    elsewhere: Iterable[str] = (),
) -> Choice:
    """Loops around the innermost tile of a nest, for every memory between it and the outermost.

    Args:
        inner: the tile that the caller handles (of registers); tiles are multiples of it.
        outer: loops that the caller puts outside of all others; dimensions whose extent is a
            named size without a number are added to them.
        tile: tile sizes that are given, for the outermost level that is tiled.
        sizes: numbers for named sizes; any other counts as 1 (traffic is for each image).
        memory: bytes to use of a memory, instead of what the machine has (half of a cache).
        levels: the memories to choose for (default: all but the outermost and innermost).
        statement: the one to tile (default: the one with the most dimensions). The others are
            taken to run in its tiles.
        elsewhere: tensors that the levels do not hold (a local tensor in registers).

    Raises PassError for unknown names, and if not even `inner` fits a managed memory.
    """
    names = tuple(levels) if levels is not None else tuple(s.name for s in machine.storage[1:-1])
    return _choose(
        replace(nest, name="", schedule=None),
        tuple(_levels(machine, names, memory or {})),
        tuple(sorted((inner or {}).items())),
        outer,
        tuple(sorted((tile or {}).items())),
        tuple(sorted((sizes or {}).items())),
        statement,
        frozenset(elsewhere),
    )


def _levels(machine: Machine, names: Iterable[str], memory: Mapping[str, int]) -> Iterator[Level]:
    known = {s.name: s for s in machine.storage}
    for name in (*names, *memory):
        if name not in known:
            help = nearest(name, known, "memories")
            raise PassError(f"{machine.name} has no memory '{name}'", help=help)
    for position, storage in enumerate(machine.storage):
        if storage.name not in names:
            continue
        share = 1.0 if storage.managed else CACHED_SHARE
        capacity = memory.get(storage.name, int(storage.bytes * share))
        above = known[storage.above] if storage.above else machine.storage[max(0, position - 1)]
        yield Level(storage.name, above, capacity, storage.managed)


def scheduled_traffic(
    nest: Nest,
    machine: Machine,
    *,
    sizes: Mapping[str, int] | None = None,
    memory: Mapping[str, int] | None = None,
    statement: str | None = None,
) -> Choice:
    """What the schedule that a nest has means for each memory of a machine.

    A memory holds one iteration of as few of the loops around the main statement as let it fit.

    Args: as of `choose_tiles`. Raises PassError if a step of the schedule is no number.
    """
    main = ordered_statements(nest, statement)[0]
    loops = schedule_loops(nest, main.name) if nest.schedule else ()
    numbers = counted_sizes(nest, sizes or {})
    placed = placed_in(nest, machine.storage[-1].name)
    problem = Problem(nest, main, numbers, {}, placed)
    names = [s.name for s in machine.storage[1:-1]]
    reports: list[LevelChoice] = []
    around = 0
    for level in _levels(machine, names, memory or {}):
        cut = around
        while cut < len(loops) and problem.bytes(loops[:cut]) > level.capacity:
            cut += 1
        reports.append(_report(problem, level, loops[around:cut], loops[:cut]))
        around = cut
    return Choice((), tuple(reports))


def placed_in(nest: Nest, space: str) -> frozenset[str]:
    """The local tensors that the schedule of `nest` places in a memory."""
    nodes = walk_schedule(nest.schedule or ())
    local = (n for n in nodes if isinstance(n, Local) and n.space == space)
    return frozenset(t for n in local for t in n.tensors)


@lru_cache(maxsize=1024)
def _choose(
    nest: Nest,
    levels: tuple[Level, ...],
    inner: tuple[tuple[str, int], ...],
    outer: Loops,
    tile: tuple[tuple[str, int], ...],
    sizes: tuple[tuple[str, int], ...],
    statement: str | None,
    elsewhere: frozenset[str],
) -> Choice:
    numbers = counted_sizes(nest, dict(sizes))
    main = ordered_statements(nest, statement)[0]
    own = {d.name for d in main.dims}
    for name, _ in (*inner, *outer, *tile):
        if name not in own:
            help = nearest(name, own, "dimensions")
            raise PassError(f"statement {main.name} has no dimension '{name}'", help=help)
    outer = (*_symbolic(main, dict(inner), outer, numbers, sizes), *outer)
    problem = Problem(nest, main, numbers, dict(inner), elsewhere)
    given = dict(tile)
    chosen: list[LevelChoice] = []
    loops = outer
    for level in levels:
        found = Search(problem, level, loops, given).run()
        if found:
            given = {}
        loops = (*loops, *found)
        chosen.append(_report(problem, level, found, loops))
    return Choice(outer, tuple(chosen))


def _symbolic(
    main: Statement,
    inner: Mapping[str, int],
    outer: Loops,
    numbers: Mapping[str, int],
    sizes: tuple[tuple[str, int], ...],
) -> Loops:
    """Loops over dimensions whose extent is not known."""
    unknown = numbers.keys() - dict(sizes).keys()
    return tuple(
        (d.name, inner.get(d.name, 1))
        for d in main.dims
        if variables(d.extent) & unknown and d.name not in dict(outer)
    )


def _report(problem: Problem, level: Level, found: Loops, loops: Loops) -> LevelChoice:
    held = problem.held(loops)
    innermost = next((d for d, _ in reversed(found)), None)
    return LevelChoice(
        level.name,
        level.above.name,
        found,
        sum(size for _, size in held),
        level.capacity,
        held,
        tuple(o.tensor for o, _ in problem.members if innermost and innermost not in o.dims),
        moved := tuple(traffic(o, loops, ranges) for o, ranges in problem.members),
        level.cost(moved),
    )
