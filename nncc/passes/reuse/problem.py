"""What a tile is chosen for: the operands of a fused nest, the box of its main statement, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from nncc.ir.nests import Nest, Statement
from nncc.passes.reuse.operands import Operand
from nncc.passes.reuse.points import Range
from nncc.passes.reuse.traffic import (
    Loops,
    Traffic,
    dim_ranges,
    operands_by_statement,
    ordered_statements,
    traffic,
)


@dataclass(frozen=True, eq=False)
class Problem:
    """A nest with numbers for its sizes.

    Args:
        statement: the main one; its dimensions are tiled.
        ranges: of its dimensions.
        members: each operand with the ranges of the statement that it is counted for.
        inner: smallest tile of each dimension; tiles are multiples of it.
    """

    statement: Statement
    ranges: Mapping[str, Range]
    members: tuple[tuple[Operand, Mapping[str, Range]], ...]
    inner: Mapping[str, int]

    @staticmethod
    def of(
        nest: Nest, statement: str | None, sizes: Mapping[str, int], inner: Mapping[str, int]
    ) -> Problem:
        """Raises PassError if an extent is not a number under `sizes`."""
        main = ordered_statements(nest, statement)[0]
        ranges = dim_ranges(nest, main, sizes)
        members = tuple(operands_by_statement(nest, sizes, statement))
        units = {d: min(inner.get(d, 1), max(1, hi - lo)) for d, (lo, hi) in ranges.items()}
        return Problem(main, ranges, members, units)

    def traffic(self, loops: Loops, box: Mapping[str, Range]) -> tuple[Traffic, ...]:
        """Of a level below `loops`, while the main statement runs through `box`."""
        result = []
        for operand, ranges in self.members:
            own = {d: box.get(d, r) for d, r in ranges.items()}
            result.append(traffic(operand, tuple(x for x in loops if x[0] in own), own))
        return tuple(result)

    def bytes(self, tile: Mapping[str, int]) -> int:
        """Bytes that a level needs for tiles of these sizes, borders left out of account."""
        return sum(
            -(-elements_estimate(operand, tile, ranges) * operand.bits // 8)
            for operand, ranges in self.members
        )


def elements_estimate(
    operand: Operand, tile: Mapping[str, int], ranges: Mapping[str, Range]
) -> int:
    """Elements that a tile in the interior touches: never less than any tile does."""
    total = 1
    for axis in operand.axes:
        lengths = {d: tile.get(d, ranges[d][1] - ranges[d][0]) for d in axis.dims}
        total *= axis.largest_in(lengths)
    return total


def cost(moved: tuple[Traffic, ...], read: float, write: float) -> float:
    """Cycles (where bandwidths are stated, else bytes) that the traffic takes."""
    loads = sum(t.load_bytes for t in moved)
    stores = sum(t.store_bytes for t in moved)
    return loads / (read or 1.0) + stores / (write or 1.0)


def trips(box: Mapping[str, Range], tile: Mapping[str, int]) -> int:
    """Number of tiles in a box."""
    return math.prod(-(-(hi - lo) // tile.get(d, hi - lo or 1)) for d, (lo, hi) in box.items())
