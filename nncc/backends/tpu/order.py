"""What makes instructions wait for each other, and the weights that come ahead of their use.

Units run side by side. An instruction that reads rows which another unit wrote, or writes rows
which another unit reads or wrote, needs a Sync, unless earlier ones order them already. Weights
are fetched as many tiles ahead as the FIFO holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nncc.isa.tpu.instructions import (
    INITIAL,
    UNITS,
    Halt,
    Instruction,
    ReadWeights,
    Register,
    SetConfiguration,
    Sync,
    Unit,
)
from nncc.isa.tpu.program import NO_ORIGIN, Origin
from nncc.machines.systolic.model import ACCUMULATORS, HOST, UNIFIED_BUFFER, SystolicArray

Rows = slice | np.ndarray
INDEX = {u: k for k, u in enumerate(UNITS)}


@dataclass(frozen=True, slots=True)
class Use:
    """Rows of a memory that an instruction reads or writes; of the host: numbers of buffers."""

    memory: str
    rows: Rows
    writes: bool


class Stream:
    """The program so far; `buffers`: how many the host has."""

    def __init__(self, array: SystolicArray, buffers: int) -> None:
        self.array = array
        self.instructions: list[Instruction] = []
        self.origins: list[Origin] = []
        self.configuration = list(INITIAL)
        self.tile: int | None = None
        self.unit: Unit | None = None  # of the last instruction that has one
        self.switches: list[tuple[int, int]] = []  # position of a first use, tile
        count = {UNIFIED_BUFFER: array.unified_rows, ACCUMULATORS: array.accumulator_rows,
                 HOST: max(buffers, 1)}  # fmt: skip
        self.read = {m: np.zeros((len(UNITS), n), np.int64) for m, n in count.items()}
        self.written = {m: np.zeros((len(UNITS), n), np.int64) for m, n in count.items()}
        self.number = [0] * len(UNITS)
        self.known = [[0] * len(UNITS) for _ in UNITS]

    def add(
        self,
        instruction: Instruction,
        origin: Origin,
        uses: Iterable[Use] = (),
        registers: dict[Register, int] | None = None,
        tile: int | None = None,
    ) -> None:
        """Appends an instruction with what must stand before it.

        Args:
            registers: configuration that it needs.
            tile: of weights that it starts to use.
        """
        for register, value in (registers or {}).items():
            if self.configuration[register] != value:
                self.configuration[register] = value
                self._append(SetConfiguration(register, value), origin)
        if instruction.unit is not None:
            self._free_accumulators(instruction.unit, origin)
            self._order(INDEX[instruction.unit], tuple(uses), origin)
            self.unit = instruction.unit
        if tile is not None:
            self.switches.append((len(self.instructions), tile))
        self._append(instruction, origin)

    def _free_accumulators(self, unit: Unit, origin: Origin) -> None:
        """Before a tile is rescaled, the array waits for the rescaling of the tile before it.

        The next products go to the accumulators of that one. Waiting when they come would be
        waiting for the tile in between, too.
        """
        matrix, activation = INDEX[Unit.MATRIX], INDEX[Unit.ACTIVATION]
        if (unit, self.unit) == (Unit.ACTIVATION, Unit.MATRIX) and (
            self.known[matrix][activation] < self.number[activation]
        ):
            self.wait(Unit.MATRIX, Unit.ACTIVATION, origin)

    def _append(self, instruction: Instruction, origin: Origin) -> None:
        self.instructions.append(instruction)
        self.origins.append(origin)

    def _order(self, unit: int, uses: Sequence[Use], origin: Origin) -> None:
        needed = [0] * len(UNITS)
        for use in uses:
            for table in (self.written, self.read) if use.writes else (self.written,):
                rows = table[use.memory][:, use.rows]
                if rows.size:
                    latest = rows.max(axis=1)
                    needed = [max(a, int(b)) for a, b in zip(needed, latest, strict=True)]
        for other in range(len(UNITS)):
            if other != unit and needed[other] > self.known[unit][other]:
                self.wait(UNITS[unit], UNITS[other], origin)
        self.number[unit] += 1
        for use in uses:
            table = self.written if use.writes else self.read
            table[use.memory][unit, use.rows] = self.number[unit]

    def wait(self, waiting: Unit, on: Unit, origin: Origin) -> None:
        """A Sync: `waiting` then knows what `on` was given, and what `on` knew."""
        a, b = INDEX[waiting], INDEX[on]
        self._append(Sync(waiting, on), origin)
        mine = self.known[a]
        for k, theirs in enumerate(self.known[b]):
            mine[k] = max(mine[k], theirs)
        mine[b] = max(mine[b], self.number[b])

    def finished(self) -> tuple[tuple[Instruction, ...], tuple[Origin, ...]]:
        """The whole program, weights ahead of their use, with its Halt."""
        ahead = self.array.fifo_tiles
        before: dict[int, list[tuple[int, Origin]]] = {}
        for k, (use, tile) in enumerate(self.switches):
            position = self.switches[k - ahead][0] + 1 if k >= ahead else 0
            before.setdefault(position, []).append((tile, self.origins[use]))
        instructions: list[Instruction] = []
        origins: list[Origin] = []
        for position, (i, origin) in enumerate(zip(self.instructions, self.origins, strict=True)):
            for tile, user in before.get(position, ()):
                instructions.append(ReadWeights(tile))
                origins.append(user)
            instructions.append(i)
            origins.append(origin)
        return (*instructions, Halt()), (*origins, NO_ORIGIN)


class Unwritten(Stream):
    """A program of which only what it needs is asked."""

    def add(
        self,
        instruction: Instruction,
        origin: Origin,
        uses: Iterable[Use] = (),
        registers: dict[Register, int] | None = None,
        tile: int | None = None,
    ) -> None:
        """Nothing."""
