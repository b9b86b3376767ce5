"""A level to choose for, and the nest around it in numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from nncc.diagnostics import PassError
from nncc.ir.index import evaluate
from nncc.ir.nests import Nest, Statement
from nncc.machines.machine import Storage
from nncc.passes.reuse.operands import Operand
from nncc.passes.reuse.points import Range
from nncc.passes.reuse.screen import bytes_needed
from nncc.passes.reuse.traffic import Loops, Traffic, counted_operands, dim_ranges


def counted_sizes(nest: Nest, given: Mapping[str, int]) -> dict[str, int]:
    """Numbers for the named sizes of a nest: those given, any other as 1 (traffic is for each
    image), or the power of two from which on no tensor is empty (a window fits into its image)."""
    extents = [e for p in nest.params for e in p.type.shape if not isinstance(e, int)]
    for k in range(32):
        numbers = dict.fromkeys(nest.sizes, 1 << k) | dict(given)
        if all(evaluate(e, numbers) > 0 for e in extents):
            return numbers
    raise PassError("no sizes are large enough for all of its tensors", nest.location)


@dataclass(frozen=True)
class Level:
    """A memory: what of it may be used, and what it is filled from."""

    name: str
    above: Storage
    capacity: int
    managed: bool

    @property
    def rates(self) -> tuple[float, float]:
        """Bytes a cycle read from and written to the memory around; 1 where not stated."""
        return self.above.read_bytes_per_cycle or 1.0, self.above.write_bytes_per_cycle or 1.0

    def cost(self, moved: Iterable[Traffic]) -> float:
        """Cycles that traffic takes."""
        read, write = self.rates
        return sum(t.load_bytes / read + t.store_bytes / write for t in moved)


class Problem:
    """The nest in numbers."""

    def __init__(
        self,
        nest: Nest,
        main: Statement,
        sizes: Mapping[str, int],
        inner: Mapping[str, int],
        elsewhere: Collection[str] = (),
    ) -> None:
        self.members: list[tuple[Operand, dict[str, Range]]] = [
            (operand, ranges)
            for operand, ranges in counted_operands(nest, sizes, main.name)
            if operand.tensor not in elsewhere
        ]
        self.ranges = dim_ranges(nest, main, sizes)
        self.inner = {d: inner.get(d, 1) for d in self.ranges}

    def box(self, loops: Loops) -> dict[str, int]:
        """Sides of the first tile below `loops`."""
        sides = {d: max(1, hi - lo) for d, (lo, hi) in self.ranges.items()}
        for d, step in loops:
            sides[d] = min(sides[d], step)
        return sides

    def bytes(self, loops: Loops) -> int:
        """Bytes of one tile below `loops`."""
        return sum(size for _, size in self.held(loops))

    def held(self, loops: Loops) -> tuple[tuple[str, int], ...]:
        """Bytes of each operand in one tile below `loops`."""
        tile = {d: float(side) for d, side in self.box(loops).items()}
        return tuple(
            (operand.tensor, int(bytes_needed([(operand, ranges)], tile)))
            for operand, ranges in self.members
        )


def amount(size: int) -> str:
    """Bytes for people: `36 KiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.3g} {unit}"
        value /= 1024
    raise AssertionError
