"""Choice of tile sizes and loop order for the memories of a machine.

    >>> choice = choose_tiles(nest, machine, inner={"f": 14, "m": 32})
    >>> choice.loops                        # outermost first, around the register tile
    (("m", 64), ("e", 7), ("c", 128))
    >>> print(choice.reason)
    l1: for c by 128: 21.9 of 24 KiB (w 16 KiB, x 4.2 KiB, t 1.7 KiB), t stays; 1.2 MiB in, …

Levels are chosen from the outermost to the innermost, each inside one tile of the level around it.
A level whose memory holds everything gets no loops. Otherwise candidates (sizes with distinct
numbers of tiles, multiples of `inner`) are screened roughly and all at once; the best of them,
under several loop orders, are computed exactly and improved by small steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from nncc.diagnostics import PassError, nearest
from nncc.ir.index import variables
from nncc.ir.nests import Nest, Statement
from nncc.machines.machine import Machine, Storage
from nncc.passes.reuse.operands import Operand
from nncc.passes.reuse.points import Range
from nncc.passes.reuse.screen import Screen, bytes_needed
from nncc.passes.reuse.traffic import (
    Loops,
    Traffic,
    counted_operands,
    dim_ranges,
    ordered_statements,
    traffic,
)

CACHED_SHARE = 0.5  # of a cache that the model uses: the rest is for what it does not know of
MOST_CANDIDATES = 1 << 13  # tiles screened for a level
NEAR = 2  # sizes to either side of the best candidate that are screened again
STARTS = 3  # innermost loops whose best candidates are followed up
EXACT = 3  # candidates that are computed exactly
STEPS = 12  # exact evaluations spent on improving the best of them


@dataclass(frozen=True)
class LevelChoice:
    """What was chosen for one memory.

    Args:
        loops: those that walk its tiles inside one tile of the level around it.
        bytes: that its tile needs, of `capacity`.
        traffic: between it and the memory around it, over the whole nest.
    """

    storage: str
    above: str
    loops: Loops
    bytes: int
    capacity: int
    held: tuple[tuple[str, int], ...]
    stays: tuple[str, ...]
    traffic: tuple[Traffic, ...]

    @property
    def reason(self) -> str:
        """One line for people."""
        loops = " ".join(f"{d} by {step}" for d, step in self.loops)
        parts = ", ".join(f"{tensor} {_amount(size)}" for tensor, size in self.held)
        text = f"{self.storage}: {f'for {loops}' if loops else 'whole'}: "
        text += f"{_amount(self.bytes)} of {_amount(self.capacity)} ({parts})"
        if self.stays:
            text += f", {', '.join(self.stays)} stay{'s' if len(self.stays) == 1 else ''}"
        loads = sum(t.load_bytes for t in self.traffic)
        stores = sum(t.store_bytes for t in self.traffic)
        return f"{text}; {_amount(loads)} in, {_amount(stores)} out to {self.above}"


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
    )


@dataclass(frozen=True)
class _Level:
    name: str
    above: Storage
    capacity: int
    managed: bool

    @property
    def rates(self) -> tuple[float, float]:
        return self.above.read_bytes_per_cycle or 1.0, self.above.write_bytes_per_cycle or 1.0


def _levels(machine: Machine, names: Iterable[str], memory: Mapping[str, int]) -> Iterator[_Level]:
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
        yield _Level(storage.name, above, capacity, storage.managed)


@lru_cache(maxsize=1024)
def _choose(
    nest: Nest,
    levels: tuple[_Level, ...],
    inner: tuple[tuple[str, int], ...],
    outer: Loops,
    tile: tuple[tuple[str, int], ...],
    sizes: tuple[tuple[str, int], ...],
    statement: str | None,
) -> Choice:
    numbers = dict.fromkeys(nest.sizes, 1) | dict(sizes)
    main = ordered_statements(nest, statement)[0]
    own = {d.name for d in main.dims}
    for name, _ in (*inner, *outer, *tile):
        if name not in own:
            help = nearest(name, own, "dimensions")
            raise PassError(f"statement {main.name} has no dimension '{name}'", help=help)
    outer = (*_symbolic(main, dict(inner), outer, numbers, sizes), *outer)
    problem = _Problem(nest, main, numbers, dict(inner), outer)
    given = dict(tile)
    chosen: list[LevelChoice] = []
    loops = outer
    for level in levels:
        found = _Search(problem, level, loops, given).run()
        if found:
            given = {}
        loops = (*loops, *found)
        chosen.append(problem.report(level, found, loops))
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


class _Problem:
    """The nest in numbers."""

    def __init__(
        self,
        nest: Nest,
        main: Statement,
        sizes: Mapping[str, int],
        inner: Mapping[str, int],
        outer: Loops,
    ) -> None:
        self.members: list[tuple[Operand, dict[str, Range]]] = counted_operands(
            nest, sizes, main.name
        )
        self.ranges = dim_ranges(nest, main, sizes)
        self.inner = {d: inner.get(d, 1) for d in self.ranges}

    def box(self, loops: Loops) -> dict[str, int]:
        """Sides of the first tile below `loops`."""
        sides = {d: max(1, hi - lo) for d, (lo, hi) in self.ranges.items()}
        for d, step in loops:
            sides[d] = min(sides[d], step)
        return sides

    def held(self, loops: Loops) -> tuple[tuple[str, int], ...]:
        """Bytes of each operand in one tile below `loops`."""
        tile = {d: float(side) for d, side in self.box(loops).items()}
        return tuple(
            (operand.tensor, int(bytes_needed([(operand, ranges)], tile)))
            for operand, ranges in self.members
        )

    def report(self, level: _Level, found: Loops, loops: Loops) -> LevelChoice:
        held = self.held(loops)
        innermost = next((d for d, _ in reversed(found)), None)
        stays = tuple(o.tensor for o, _ in self.members if innermost and innermost not in o.dims)
        moved = tuple(traffic(o, loops, ranges) for o, ranges in self.members)
        total = sum(size for _, size in held)
        return LevelChoice(
            level.name, level.above.name, found, total, level.capacity, held, stays, moved
        )


class _Search:
    """Tiles and order of one level inside the first tile of the loops around it."""

    def __init__(
        self, problem: _Problem, level: _Level, around: Loops, given: Mapping[str, int]
    ) -> None:
        self.problem = problem
        self.level = level
        self.box = problem.box(around)
        self.fixed = {d: max(1, min(side, self.box[d])) for d, side in given.items()}
        self.units = {d: min(problem.inner[d], side) for d, side in self.box.items()}
        self.members = [
            (o, {d: (lo, min(hi, lo + self.box.get(d, hi))) for d, (lo, hi) in ranges.items()})
            for o, ranges in problem.members
        ]
        self.evaluated: dict[Loops, float] = {}
        self.sizes: dict[str, list[int]] = {}

    def run(self) -> Loops:
        """The loops of this level; none if everything fits."""
        if not self.fixed and self.bytes(self.box) <= self.level.capacity:
            return ()
        smallest = self.units | self.fixed
        if self.bytes(smallest) > self.level.capacity:
            if self.level.managed:
                raise PassError(
                    f"the smallest tile needs {_amount(self.bytes(smallest))}, {self.level.name} "
                    f"has {_amount(self.level.capacity)}",
                    help="choose smaller tiles, or a larger memory",
                )
            return self.loops(self.fixed, list(self.fixed))
        coarse = self.screened(self.candidates())
        by_innermost: dict[str, Loops] = {}
        for loops in coarse:
            by_innermost.setdefault(loops[-1][0] if loops else "", loops)
        near = [x for start in by_innermost.values() for x in self.screened(self.around(start))]
        return self.improved(min([*coarse, *near], key=self.cost))

    def bytes(self, tile: Mapping[str, int]) -> int:
        return int(bytes_needed(self.members, {d: float(s) for d, s in tile.items()}))

    def cost(self, loops: Loops) -> float:
        found = self.evaluated.get(loops)
        if found is None:
            read, write = self.level.rates
            moved = [traffic(o, loops, ranges) for o, ranges in self.members]
            found = sum(t.load_bytes / read + t.store_bytes / write for t in moved)
            self.evaluated[loops] = found
        return found

    def loops(self, tile: Mapping[str, int], order: Iterable[str]) -> Loops:
        return tuple((d, tile[d]) for d in order if tile[d] < self.box[d])

    # -- screening -------------------------------------------------------------------------

    def screened(self, choices: Mapping[str, list[int]]) -> list[Loops]:
        """The loops that look best by estimate: over all, and for some innermost loops.

        Args:
            choices: the sizes to combine, for each dimension; at least one combination fits.
        """
        import numpy as np

        columns = [np.array(c, dtype=np.float64) for c in choices.values()]
        grid = np.meshgrid(*columns, indexing="ij", sparse=True)
        need = bytes_needed(self.members, dict(zip(choices, grid, strict=True)))
        fits = np.broadcast_to(need, [len(c) for c in columns]) <= self.level.capacity
        places = np.nonzero(fits & ~_dominated(fits))
        tile = {d: c[k] for d, c, k in zip(choices, columns, places, strict=True)}
        screen = Screen(self.members, self.box, tile, self.level.rates)
        found: dict[str, list[tuple[float, Loops]]] = {}  # by the innermost loop
        for order in self.orders([d for d in self.box if len(choices[d]) > 1 or d in self.fixed]):
            costs = np.broadcast_to(screen.cost(order), places[0].shape)
            for k in np.argsort(costs, kind="stable")[:EXACT]:
                sizes = {d: int(values[k]) for d, values in tile.items()}
                loops = self.loops(sizes, order)
                innermost = loops[-1][0] if loops else ""
                found.setdefault(innermost, []).append((float(costs[k]), loops))
        best = sorted(min(entries) for entries in found.values())[:STARTS]
        rest = sorted(entry for entries in found.values() for entry in entries)[:EXACT]
        return list(dict.fromkeys(loops for _, loops in (*best, *rest)))

    def candidates(self) -> dict[str, list[int]]:
        """Sizes for each dimension: one for each number of tiles, thinned to what can be screened."""
        sizes = {d: self.sizes_of(d) for d in self.box}
        while _count(sizes) > MOST_CANDIDATES:
            longest = max(sizes, key=lambda d: len(sizes[d]))
            sizes[longest] = _thinned(sizes[longest])
        return sizes

    def around(self, loops: Loops) -> dict[str, list[int]]:
        """The sizes next to those of `loops`."""
        tile = self.box | dict(loops)
        near: dict[str, list[int]] = {}
        for d in self.box:
            sizes = self.sizes_of(d)
            k = sizes.index(tile[d])
            near[d] = sizes[max(0, k - NEAR) : k + NEAR + 1]
        return near

    def sizes_of(self, dim: str) -> list[int]:
        """Every size with another number of tiles, ascending."""
        if dim not in self.sizes:
            side, unit = self.box[dim], self.units[dim]
            units = -(-side // unit)
            sizes = {min(side, -(-units // k) * unit) for k in range(1, units + 1)}
            self.sizes[dim] = [self.fixed[dim]] if dim in self.fixed else sorted(sizes)
        return self.sizes[dim]

    def orders(self, dims: list[str]) -> list[tuple[str, ...]]:
        """Orders that keep one operand in place over the inner loops, for each innermost loop."""
        found: dict[tuple[str, ...], None] = {}
        for operand, _ in self.members:
            still = [d for d in dims if d not in operand.dims]
            moving = [d for d in dims if d in operand.dims]
            for last in still:
                found[(*moving, *(d for d in still if d != last), last)] = None
        for last in dims:
            found[(*(d for d in dims if d != last), last)] = None
        return list(found) or [()]

    # -- improvement -----------------------------------------------------------------------

    def improved(self, loops: Loops) -> Loops:
        """Small steps downhill from `loops`, as long as they pay and evaluations last."""
        spent = 0
        moved = True
        while moved and spent < STEPS:
            moved = False
            for other in self.neighbours(loops):
                if spent == STEPS:
                    break
                spent += other not in self.evaluated
                if self.cost(other) < self.cost(loops):
                    loops, moved = other, True
                    break
        return loops

    def neighbours(self, loops: Loops) -> Iterator[Loops]:
        """Two loops exchanged; one tile side a step longer, another shorter if need be."""
        for a, b in pairwise(range(len(loops))):
            order = list(loops)
            order[a], order[b] = order[b], order[a]
            yield tuple(order)
        tile = self.box | dict(loops)
        names = [*(d for d in self.box if d not in dict(loops)), *(d for d, _ in loops)]
        for longer in self.box:
            if (up := self.step(longer, tile, 1)) is None:
                continue
            grown = tile | {longer: up}
            if self.bytes(grown) <= self.level.capacity:
                yield self.loops(grown, names)
                continue
            for shorter in self.box:
                if shorter == longer or (down := self.step(shorter, tile, -1)) is None:
                    continue
                changed = grown | {shorter: down}
                if self.bytes(changed) <= self.level.capacity:
                    yield self.loops(changed, names)

    def step(self, dim: str, tile: Mapping[str, int], by: int) -> int | None:
        """The next size of a dimension, None at the end."""
        sizes = self.sizes_of(dim)
        k = sizes.index(tile[dim]) + by
        return sizes[k] if 0 <= k < len(sizes) else None


def _dominated(fits: Any) -> Any:
    """Candidates that fit and still would with one side longer: more reuse is to be had."""
    import numpy as np

    result = np.zeros_like(fits)
    for axis in range(fits.ndim):
        following = np.roll(fits, -1, axis)
        last = [slice(None)] * fits.ndim
        last[axis] = slice(-1, None)
        following[tuple(last)] = False
        result |= following
    return result


def _count(sizes: Mapping[str, list[int]]) -> int:
    total = 1
    for s in sizes.values():
        total *= len(s)
    return total


def _thinned(sizes: list[int]) -> list[int]:
    """About half of the sizes, the ends kept, spread by ratio."""
    kept = [sizes[0]]
    ratio = (sizes[-1] / sizes[0]) ** (1 / max(1, len(sizes) // 2))
    for size in sizes[1:-1]:
        if size >= kept[-1] * ratio:
            kept.append(size)
    result = [*kept, sizes[-1]]
    return result if len(result) < len(sizes) else sizes[::2] + sizes[-1:]


def _amount(size: int) -> str:
    """Bytes for people: `36 KiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.3g} {unit}"
        value /= 1024
    raise AssertionError
