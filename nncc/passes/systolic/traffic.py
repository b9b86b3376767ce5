"""What a product moves between the memories, before any code is written.

Weights stay in the array while all pixels of a tile of accumulators pass; a tile of weights is
fetched again for each tile of pixels. So the fewest tiles of pixels move the least, as long as the
array can work on one tile while the one before is rescaled.

    traffic(shape, array)["weight_memory"]      (bytes read, bytes written)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nncc.ir.nests import Dim
from nncc.machines.systolic.model import (
    ACCUMULATORS,
    UNIFIED_BUFFER,
    WEIGHT_FIFO,
    WEIGHT_MEMORY,
    SystolicArray,
)
from nncc.passes.systolic.tiling import Tiling, tiled

PARAMETERS = 9  # bytes a column: bias, multiplier and shift


@dataclass(frozen=True)
class Shape:
    """How much work a product is.

    Args:
        pixels: rows of the output for each block of columns; `tiles`: pieces that they are cut in.
        blocks: for each block of columns the number of taps, of lanes that are written, and of
            lanes that are filled.
    """

    pixels: int
    tiles: int
    blocks: tuple[tuple[int, int, int], ...]

    @property
    def fetches(self) -> int:
        """Weight tiles that are fetched; one that is alone for its columns stays."""
        return sum(taps * (self.tiles if taps > 1 else 1) for taps, _, _ in self.blocks)

    @property
    def products(self) -> int:
        """Cycles in which the array works."""
        return self.pixels * sum(taps for taps, _, _ in self.blocks)


def traffic(shape: Shape, array: SystolicArray) -> dict[str, tuple[int, int]]:
    """Bytes read from and written to each memory."""
    pixels, sums = shape.pixels, 4 * array.columns * shape.pixels
    weights = shape.fetches * array.tile_bytes
    taps = sum(t for t, _, _ in shape.blocks)
    lanes = sum(n for _, n, _ in shape.blocks)
    filled = sum(n for _, _, n in shape.blocks)
    parameters = PARAMETERS * array.columns * shape.tiles * len(shape.blocks)
    return {
        WEIGHT_MEMORY: (weights, 0),
        WEIGHT_FIFO: (weights, weights),
        UNIFIED_BUFFER: (pixels * taps * array.rows + parameters, pixels * (lanes + filled)),
        ACCUMULATORS: (sums * (taps - len(shape.blocks)) + 4 * pixels * lanes, sums * taps),
    }


def chosen_tiling(
    pixels: Sequence[Dim], count: int, blocks: tuple[tuple[int, int, int], ...],
    array: SystolicArray, frequency_hz: float,
) -> tuple[Tiling, Shape]:  # fmt: skip
    """The tiling that takes the fewest cycles by bandwidth and work.

    Half of the accumulators for a tile lets the array go on while the other half is rescaled; all
    of them fetch the weights less often.
    """
    found: list[tuple[float, Tiling, Shape]] = []
    cycle = frequency_hz / array.weight_bytes_per_second
    for limit in dict.fromkeys((max(array.accumulator_rows // 2, 1), array.accumulator_rows)):
        tiling = tiled(pixels, limit)
        shape = Shape(count, tiling.count, blocks)
        fetching = shape.fetches * array.tile_bytes * cycle
        alone = 0 if not found else count * len(blocks)  # rescaling while the array waits
        found.append((max(fetching, shape.products) + alone, tiling, shape))
    _, tiling, shape = min(found, key=lambda f: f[0])
    return tiling, shape
