"""Many tiles and loop orders at once, roughly: which of them are worth an exact look.

Sizes are arrays over candidates. Footprints are upper bounds (the hull of each subscript, or the
product of the tile's sides if that is less); traffic counts full tiles, with the overlap of
neighbours along the innermost loop that moves an operand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nncc.passes.reuse.operands import Operand
from nncc.passes.reuse.points import Axis, Range

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Sizes = NDArray[np.float64] | float

Members = Sequence[tuple[Operand, Mapping[str, Range]]]


def bytes_needed(members: Members, tile: Mapping[str, Sizes]) -> Any:
    """Bytes that a level needs for all operands of each tile; no tile at a border needs more."""
    import numpy as np

    total: Sizes = 0.0
    for operand, ranges in members:
        total = total + np.ceil(elements(operand, tile, ranges) * (operand.bits / 8))
    return total


def elements(operand: Operand, tile: Mapping[str, Sizes], ranges: Mapping[str, Range]) -> Sizes:
    """Elements of an operand in a tile of the interior."""
    total: Sizes = 1.0
    for axis in operand.axes:
        total = total * _positions(axis, tile, ranges)
    return total


def _positions(axis: Axis, tile: Mapping[str, Sizes], ranges: Mapping[str, Range]) -> Sizes:
    extent = float(math.prod(axis.extents))
    if not axis.subscripts:
        return extent
    sides = {d: tile[d] if d in tile else float(ranges[d][1] - ranges[d][0]) for d in axis.dims}
    bound: Sizes = float(len(axis.subscripts))
    for side in sides.values():
        bound = bound * side
    if (hull := axis.hull) is not None:
        width: Sizes = 1.0 + hull.spread
        for d, factor in hull.factors.items():
            width = width + factor * (sides[d] - 1)
        bound = _lesser(bound, width)
    return _lesser(bound, extent)


def _lesser(a: Sizes, b: Sizes) -> Sizes:
    if isinstance(a, float) and isinstance(b, float):
        return min(a, b)
    import numpy as np

    return np.minimum(a, b)


class Screen:
    """Estimates for many tiles of one box: `cost(order)` for each order of loops.

    Args:
        box: sides of what the loops walk. `tile`: an array for each of its dimensions.
        rates: bytes a cycle read from, and written to, the memory around the level.
    """

    def __init__(
        self,
        members: Members,
        box: Mapping[str, int],
        tile: Mapping[str, NDArray[np.float64]],
        rates: tuple[float, float],
    ) -> None:
        import numpy as np

        self._rates = rates
        self._counts = {d: np.ceil(box[d] / sizes) for d, sizes in tile.items()}
        self._shares = []
        for operand, ranges in members:
            own: dict[str, Sizes] = {d: sizes for d, sizes in tile.items() if d in ranges}
            along = {
                d: elements(operand, {**own, d: float(box[d])}, ranges)
                for d in own
                if d in operand.dims
            }
            distinct = elements(operand, {d: float(box[d]) for d in own}, ranges)
            inside = elements(operand, own, ranges)
            self._shares.append((operand, own.keys(), inside, along, distinct))

    def cost(self, order: Sequence[str]) -> Sizes:
        """Cost of each tile's traffic when `order`, outermost first, walks the box."""
        read, write = self._rates
        total: Sizes = 0.0
        for operand, own, inside, along, distinct in self._shares:
            moved = self._moved([d for d in order if d in own], inside, along)
            size = operand.bits / 8
            if operand.role == "read":
                total = total + moved * (size / read)
                continue
            back = moved - distinct
            loads = 0.0 if operand.role == "write" else back
            total = total + (loads / read + (back if operand.local else moved) / write) * size
        return total

    def _moved(self, order: Sequence[str], inside: Sizes, along: Mapping[str, Sizes]) -> Sizes:
        """How many elements come in: each loop outside of the innermost moving one repeats it."""
        import numpy as np

        moved: Any = inside
        moving: Any = np.False_
        for d in reversed(order):
            counts = self._counts[d]
            if d in along:
                first = np.where(counts > 1, along[d], moved)
                moved = np.where(moving, moved * counts, first)
                moving = moving | (counts > 1)
            else:
                moved = np.where(moving, moved * counts, moved)
        return moved  # type: ignore[no-any-return]
