"""From what ran when to `Statistics`: cycles, stalls, bytes and energy by layer.

Every cycle belongs to one layer: where the array works, or waits for a tile, to the layer of that
instruction; where it waits for anything else, to the layer for which the activation unit works
then, else the host links, else to the layer of the instruction that waits. Bytes are those that
instructions move: whole rows by the array, the lanes used by the activation unit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from nncc.isa.tpu.instructions import (
    ACTIVATIONS,
    AddRows,
    CopyRows,
    FillRows,
    Instruction,
    LookUp,
    MatrixMultiply,
    PoolMax,
    ReadHostMemory,
    ReadWeights,
    Requantize,
    Unit,
    WindowSum,
    WriteHostMemory,
    mnemonic,
)
from nncc.isa.tpu.program import Program
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import (
    ACCUMULATORS,
    HOST,
    UNIFIED_BUFFER,
    WEIGHT_FIFO,
    WEIGHT_MEMORY,
    SystolicArray,
)
from nncc.machines.systolic.sizes import array_of
from nncc.runtime.statistics import Layer, MemoryUse, OperationUse, Statistics
from nncc.runtime.tpu.points import Points, points_of
from nncc.runtime.tpu.timing import NON_MATRIX, OTHER, Span, Wait

# A number of bytes that go out of (read) or into (written) a memory.
_Traffic = tuple[str, int, int]


def traffic(i: Instruction, points: Points, a: SystolicArray) -> tuple[_Traffic, ...]:
    """(memory, bytes read, bytes written) of an instruction."""
    n = points.box
    if isinstance(i, ReadHostMemory):
        return (HOST, n * i.lanes, 0), (UNIFIED_BUFFER, 0, n * a.rows)
    if isinstance(i, WriteHostMemory):
        return (UNIFIED_BUFFER, n * i.lanes, 0), (HOST, 0, n * i.lanes)
    if isinstance(i, ReadWeights):
        return (WEIGHT_MEMORY, a.tile_bytes, 0), (WEIGHT_FIFO, 0, a.tile_bytes)
    if isinstance(i, MatrixMultiply):
        sums = 4 * n * a.columns
        return (
            (UNIFIED_BUFFER, n * a.rows, 0),
            (WEIGHT_FIFO, a.tile_bytes if i.next_tile else 0, 0),
            (ACCUMULATORS, sums if i.accumulate else 0, sums),
        )
    if isinstance(i, Requantize):
        moved = n * i.lanes
        return (ACCUMULATORS, 4 * moved, 0), (UNIFIED_BUFFER, 9 * a.columns, moved)
    if isinstance(i, WindowSum):
        sums = 4 * n * i.lanes
        read = n * points.window * i.lanes
        return (UNIFIED_BUFFER, read, 0), (ACCUMULATORS, sums if i.accumulate else 0, sums)
    if isinstance(i, FillRows):
        return ((UNIFIED_BUFFER, 0, n * i.lanes),)
    if isinstance(i, AddRows | LookUp | PoolMax | CopyRows):
        read = n * points.window * i.lanes * (2 if isinstance(i, AddRows) else 1)
        read += 256 if isinstance(i, LookUp) else 0
        return ((UNIFIED_BUFFER, read, n * i.lanes),)
    return ()


_MULTIPLICATIONS = {False: "matmul", True: "matmul_unsigned"}  # by `unsigned`
# The unit that does each operation.
_UNIT_OF = dict.fromkeys(_MULTIPLICATIONS.values(), Unit.MATRIX)
_UNIT_OF |= {mnemonic(kind): Unit.ACTIVATION for kind in ACTIVATIONS}


def operation_points(i: Instruction, points: Points, a: SystolicArray) -> tuple[str, int]:
    """The name of the operation that an instruction is, and the points of its statement."""
    if isinstance(i, MatrixMultiply):
        return _MULTIPLICATIONS[i.unsigned], points.box * a.rows * a.columns
    if i.unit is Unit.ACTIVATION:
        return mnemonic(type(i)), points.box * points.window * i.lanes  # type: ignore[attr-defined]
    return "", 0


def rates(
    program: Program, spans: Iterable[Span], a: SystolicArray
) -> Iterator[tuple[str, int, float]]:
    """(memory, cycle, bytes a cycle from then on): what instructions move, evenly over the time
    in which their units work."""
    points = tuple(points_of(program))
    changes: dict[str, Counter[int]] = {}
    for s in spans:
        for memory, read, written in traffic(
            program.instructions[s.position], points[s.position], a
        ):
            if read + written:
                rate = Fraction(read + written, max(s.end - s.start, 1))
                found = changes.setdefault(memory, Counter())
                found[s.start] += rate  # type: ignore[assignment]
                found[max(s.end, s.start + 1)] -= rate  # type: ignore[assignment]
    for memory, steps in changes.items():
        now = Fraction()
        for cycle in sorted(steps):
            if steps[cycle]:
                now += steps[cycle]
                yield memory, cycle, float(now)


@dataclass(slots=True)
class _Share:
    cycles: int = 0
    active: int = 0
    macs: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    stalls: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)


class Books:
    """Collects what instructions do; `statistics` closes them."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self.program, self.machine, self.array = program, machine, array_of(machine)
        self.layers: dict[str, _Share] = {}

    def enter(self, position: int, i: Instruction, points: Points) -> None:
        """An instruction of a unit was executed."""
        node = self.program.origin(position).node
        share = self._share(position)
        for memory, read, written in traffic(i, points, self.array):
            share.read[memory] += read
            share.written[memory] += written
        name, count = operation_points(i, points, self.array)
        if name:
            share.operations[name] += count
        if isinstance(i, MatrixMultiply) and node not in self.program.macs:
            share.macs += count

    def statistics(self, spans: tuple[Span, ...], waits: Iterable[Wait], cycles: int) -> Statistics:
        """The sums of a run that took so many cycles."""
        self._attribute(spans, tuple(waits), cycles)
        for node, share in self.layers.items():
            share.macs = self.program.macs.get(node, share.macs)
        busy: Counter[str] = Counter({str(unit): 0 for unit in Unit})
        for s in spans:
            busy[str(s.unit)] += s.end - s.start
        return Statistics(
            machine=self.machine.name,
            frequency_hz=self.machine.frequency_hz,
            cycles=cycles,
            peak_macs=self.array.peak_macs,
            layers=tuple(self._layer(node, share) for node, share in self.layers.items()),
            units=dict(busy),
        )

    def _layer(self, node: str, share: _Share) -> Layer:
        memories = {}
        for s in self.machine.storage:
            read, written = share.read[s.name], share.written[s.name]
            energy = read * s.read_pj_per_byte + written * s.write_pj_per_byte
            memories[s.name] = MemoryUse(read, written, energy)
        operations = {}
        units = {str(unit): 0.0 for unit in (Unit.MATRIX, Unit.ACTIVATION)}
        for name, count in share.operations.items():
            use = operations[name] = OperationUse(
                count, count * self.machine.operations[name].energy
            )
            units[str(_UNIT_OF[name])] += use.energy_pj
        return Layer(
            node, share.cycles, share.active, share.macs, dict(share.stalls), memories, units,
            operations,
        )  # fmt: skip

    def _attribute(self, spans: tuple[Span, ...], waits: tuple[Wait, ...], cycles: int) -> None:
        at, last = 0, 0
        for s in spans:
            if s.unit is Unit.MATRIX:
                last = s.position
                share = self._share(s.position)
                share.cycles += s.end - s.start
                share.active += s.end - s.start
                at = max(at, s.end)
        at = max([at, *(w.end for w in waits)])
        if cycles > at:
            waits = (*waits, Wait(last, at, cycles, OTHER))
        others = [
            _Timeline(s for s in spans if s.unit is unit)
            for unit in (Unit.ACTIVATION, Unit.HOST_READ, Unit.HOST_WRITE)
        ]
        for wait in waits:
            for position, length in self._pieces(wait, others):
                share = self._share(position)
                share.cycles += length
                share.stalls[wait.cause] += length

    def _pieces(self, wait: Wait, others: list[_Timeline]) -> Iterator[tuple[int, int]]:
        """(position of the instruction to which they belong, cycles) of a wait."""
        if wait.cause not in NON_MATRIX:
            yield wait.position, wait.end - wait.start
            return
        rest = [(wait.start, wait.end)]
        for timeline in others:
            left: list[tuple[int, int]] = []
            for start, end in rest:
                for position, first, last in timeline.within(start, end):
                    yield position, last - first
                    if first > start:
                        left.append((start, first))
                    start = last
                if end > start:
                    left.append((start, end))
            rest = left
        for start, end in rest:
            yield wait.position, end - start

    def _share(self, position: int) -> _Share:
        node = self.program.origin(position).node
        if node not in self.layers:
            self.layers[node] = _Share()
        return self.layers[node]


class _Timeline:
    """Spans of one unit, which follow one another."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = sorted(spans, key=lambda s: s.start)
        self.ends: list[int] = []
        for s in self.spans:
            self.ends.append(max(s.done, self.ends[-1] if self.ends else 0))

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(position, first, last) of the parts between two cycles, which do not overlap."""
        for k in range(bisect_right(self.ends, start), len(self.spans)):
            s = self.spans[k]
            if s.start >= end:
                return
            first, last = max(start, s.start), min(end, self.ends[k])
            if last > first:
                yield s.position, first, last
                start = last
