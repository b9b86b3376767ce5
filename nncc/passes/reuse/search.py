"""The search for the tiles and loop order of one level.

Candidates (sizes with distinct numbers of tiles, multiples of the innermost tile) are screened
roughly and all at once; the best of them, under several loop orders, are computed exactly, their
surroundings are screened in turn, and the winner is improved by small steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from nncc.diagnostics import PassError
from nncc.passes.reuse.problem import Level, Problem, amount
from nncc.passes.reuse.screen import Screen, bytes_needed
from nncc.passes.reuse.traffic import Loops, traffic

MOST_CANDIDATES = 1 << 13  # tiles screened for a level
NEAR = 2  # sizes to either side of the best candidate that are screened again
STARTS = 3  # innermost loops whose best candidates are followed up
EXACT = 3  # candidates that are computed exactly
STEPS = 12  # exact evaluations spent on improving the best of them


class Search:
    """Tiles and order of one level inside the first tile of the loops around it."""

    def __init__(
        self, problem: Problem, level: Level, around: Loops, given: Mapping[str, int]
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
                    f"the smallest tile needs {amount(self.bytes(smallest))}, {self.level.name} "
                    f"has {amount(self.level.capacity)}",
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
            found = self.level.cost(traffic(o, loops, ranges) for o, ranges in self.members)
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
        """Sizes for each dimension, thinned to what can be screened."""
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
