"""What tiles of pixels mean for the memories, before any code is written, and which are best.

Weights stay in the array while all pixels of a tile of accumulators pass; a tile of weights is
fetched again for each tile of pixels, unless it is alone for its columns. So the fewest tiles of
pixels move the least, as long as the array can work on one tile while the one before is rescaled.

What the finished Loops move, of every kind of nest, `nncc.passes.systolic.performed` counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from nncc.ir.nests import Dim
from nncc.machines.systolic.model import SystolicArray
from nncc.passes.reuse.fetches import fetched, unit
from nncc.passes.systolic.tiling import Tiling, fewest_tiles, tiled

# Tiles of whole rows are fewer instructions; others are taken if they leave this part of the tiles.
FEWER = 0.97


@dataclass(frozen=True)
class Shape:
    """How much work a product is.

    Args:
        pixels: rows of the output for each block of columns; `tiles`: pieces that they are cut in.
        blocks: for each block of columns the number of taps, of lanes that are written, of lanes
            that are filled, and of rescalings.
    """

    pixels: int
    tiles: int
    blocks: tuple[tuple[int, int, int, int], ...]

    @property
    def fetches(self) -> int:
        """Weight tiles that are fetched, by the data-reuse model: the array holds one."""
        return sum(
            count * fetched_tiles(self.tiles, taps)
            for taps, count in Counter(taps for taps, *_ in self.blocks).items()
        )

    @property
    def products(self) -> int:
        """Cycles in which the array works."""
        return self.pixels * sum(taps for taps, *_ in self.blocks)


@cache
def fetched_tiles(tiles: int, taps: int) -> int:
    """Weight tiles that come to the array for one block of columns: tiles of pixels, then taps."""
    sides = {"tile": (0, tiles), "tap": (0, taps)}
    weights = unit("w", "read", 1, tap=taps)
    return fetched(weights, (("tile", 1), ("tap", 1)), sides).loads


def chosen_tiling(
    pixels: Sequence[Dim], count: int, blocks: tuple[tuple[int, int, int, int], ...],
    array: SystolicArray, frequency_hz: float,
) -> tuple[Tiling, Shape]:  # fmt: skip
    """The tiling that takes the fewest cycles by bandwidth and work.

    Half of the accumulators for a tile lets the array go on while the other half is rescaled; all
    of them fetch the weights less often.
    """
    found: list[tuple[float, Tiling, Shape]] = []
    for limit in dict.fromkeys((max(array.accumulator_rows // 2, 1), array.accumulator_rows)):
        tiling, other = tiled(pixels, limit), fewest_tiles(pixels, limit)
        if other.count < FEWER * tiling.count:
            tiling = other
        shape = Shape(count, tiling.count, blocks)
        is_half = limit <= max(array.accumulator_rows // 2, 1)
        found.append((cycles(shape, array, frequency_hz, beside=is_half), tiling, shape))
    _, tiling, shape = min(found, key=lambda f: f[0])
    return tiling, shape


def cycles(shape: Shape, array: SystolicArray, frequency_hz: float, *, beside: bool) -> float:
    """Cycles of the unit that has most to do.

    Args:
        beside: whether the array multiplies while rows are rescaled.
    """
    fetching = shape.fetches * array.tile_bytes * frequency_hz / array.weight_bytes_per_second
    rescaling = shape.pixels * sum(n for *_, n in shape.blocks)
    if beside:
        return max(fetching, shape.products, rescaling)
    return max(fetching, shape.products) + rescaling
