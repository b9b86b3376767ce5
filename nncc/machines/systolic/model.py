"""A systolic array with its memories, queues and links, as data.

Five units work beside each other, each through its own instructions in order: `host_read` and
`host_write` move rows between the host's memory and the unified buffer, `weights` fills the
weight FIFO with tiles, `matrix` multiplies rows of the unified buffer with the tile in the array
and adds to the accumulators, `activation` does everything else on rows.

What is published of the TPU (N. P. Jouppi et al., ISCA 2017) are the sizes, the clock, the
bandwidth of the weight memory and that a tile is shifted in within as many cycles as it has rows
while the one before is in use. Latencies and the depth of the queues are not: they are
parameters here.
"""

from __future__ import annotations

from dataclasses import dataclass

# The memories of such a machine, by name, outermost first; `above` in a machine file follows this.
HOST = "host"
WEIGHT_MEMORY = "weight_memory"
WEIGHT_FIFO = "weight_fifo"
UNIFIED_BUFFER = "unified_buffer"
ACCUMULATORS = "accumulators"
MEMORIES = (HOST, WEIGHT_MEMORY, WEIGHT_FIFO, UNIFIED_BUFFER, ACCUMULATORS)


@dataclass(frozen=True, slots=True)
class SystolicArray:
    """An array of `rows` x `columns` multiply-accumulate cells and what surrounds it.

    A row of the unified buffer has `rows` bytes, an accumulator row `columns` int32, a weight
    tile `rows * columns` bytes in row-major order.

    Args:
        unified_bytes: of the unified buffer; what is left of a whole row is not used, nor what no
            address reaches (of the weight memory likewise).
        accumulator_rows: rows of accumulators.
        fifo_tiles: tiles that the weight FIFO holds, besides the one in use and the one that is
            being shifted into the array.
        weight_bytes: of the weight memory.
        host_bytes: of the host's memory that programs may address.
        weight_bytes_per_second, host_bytes_per_second: bandwidth of the weight memory, and of the
            link to the host in each direction.
        weight_latency, host_latency: cycles from a transfer's last byte to its use.
        activation_latency: cycles from the last row that the activation unit reads to its result.
        issue_stages: cycles from the issue of an instruction to its start.
        queue_depth: instructions that wait in front of each unit before issue stops.
    """

    rows: int
    columns: int
    unified_bytes: int
    accumulator_rows: int
    fifo_tiles: int
    weight_bytes: int
    host_bytes: int
    weight_bytes_per_second: int
    host_bytes_per_second: int
    weight_latency: int = 0
    host_latency: int = 0
    activation_latency: int = 1
    issue_stages: int = 4
    queue_depth: int = 16

    @property
    def tile_bytes(self) -> int:
        return self.rows * self.columns

    @property
    def unified_rows(self) -> int:
        """Of the unified buffer, as many as an address of 3 bytes reaches."""
        return min(self.unified_bytes // self.rows, 1 << 24)

    @property
    def weight_tiles(self) -> int:
        """In the weight memory, as many as an address of 4 bytes reaches."""
        return min(self.weight_bytes // self.tile_bytes, 1 << 32)

    @property
    def peak_macs(self) -> int:
        """Multiply-accumulates a cycle."""
        return self.rows * self.columns

    def bytes_of(self, memory: str) -> int:
        """The size of one of `MEMORIES`."""
        return {
            HOST: self.host_bytes,
            WEIGHT_MEMORY: self.weight_tiles * self.tile_bytes,
            WEIGHT_FIFO: self.fifo_tiles * self.tile_bytes,
            UNIFIED_BUFFER: self.unified_rows * self.rows,
            ACCUMULATORS: 4 * self.accumulator_rows * self.columns,
        }[memory]

    def problem(self) -> str:
        """What no program can address, as text; "" if nothing."""
        limits = (
            ("rows", self.rows, 1, 0xFFFF),
            ("columns", self.columns, 1, 0xFFFF),
            ("unified_bytes: rows", self.unified_rows, 1, 1 << 24),
            ("accumulator_rows", self.accumulator_rows, 1, 1 << 16),
            ("fifo_tiles", self.fifo_tiles, 1, 1 << 16),
            ("weight_bytes: tiles", self.weight_tiles, 1, 1 << 32),
            ("host_bytes", self.host_bytes, 1, 1 << 40),
            ("queue_depth", self.queue_depth, 1, 1 << 16),
            ("issue_stages", self.issue_stages, 0, 1 << 16),
            ("weight_bytes_per_second", self.weight_bytes_per_second, 1, 1 << 60),
            ("host_bytes_per_second", self.host_bytes_per_second, 1, 1 << 60),
            ("weight_latency", self.weight_latency, 0, 1 << 30),
            ("host_latency", self.host_latency, 0, 1 << 30),
            ("activation_latency", self.activation_latency, 0, 1 << 30),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                return f"{name} is {value}, not in {low}..{high}"
        return ""
