"""What a run costs: cycles, stalls, moves, operations, accesses, bytes, energy, by source node.

    counts = simulator.run()
    counts.cycles, counts.busy("vmac"), counts.energy["dmem"], counts.sources["conv1"].cycles

A simulator keeps a `Tally`: how often each instruction ran, which of its guarded moves happened,
stalls and bytes where they depend on values. Everything else follows from the program.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from nncc.isa.tta.encoding import encoding_of
from nncc.isa.tta.program import Move, PortRef, Program, RegisterRef
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine


class Tally:
    """Counts that a simulator keeps while it runs, by instruction."""

    def __init__(self, instructions: int) -> None:
        self.executed = [0] * instructions
        self.moves: Counter[tuple[int, str]] = Counter()  # guarded ones that happened
        self.stalls: Counter[tuple[int, str]] = Counter()  # (instruction, memory) -> cycles
        self.buffered = 0  # instructions that came from the loop buffer

    def happened(self, position: int, bus: str) -> None:
        """A guarded move took place."""
        self.moves[position, bus] += 1

    def stall(self, position: int, space: str, cycles: int) -> None:
        """The machine was locked."""
        if cycles:
            self.stalls[position, space] += cycles


@dataclass
class SourceCounters:
    """The share of a source node."""

    cycles: int = 0
    stalls: int = 0
    triggers: Counter[str] = field(default_factory=Counter)
    bytes_read: Counter[str] = field(default_factory=Counter)  # by memory, as bytes_written
    bytes_written: Counter[str] = field(default_factory=Counter)
    # pJ by unit, bus and register file
    energy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    operations: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Counters:
    """What was counted.

    Args:
        cycles: with stalls; `instructions`: without.
        stalls: cycles by cause: the memory whose banks met.
        moves: by bus; `squashed`: guarded moves that did not happen.
        triggers: (unit, operation) -> how often it started.
        reads, writes: moves from and to each register file and immediate unit.
        bytes_read, bytes_written: by memory; the instruction memory's are fetched ones.
        energy: pJ by unit, bus, register file and memory, where known; the others are absent.
        sources: by source node ("" for what belongs to none).
    """

    cycles: int
    instructions: int
    stalls: Mapping[str, int]
    moves: Mapping[str, int]
    squashed: int
    triggers: Mapping[tuple[str, str], int]
    reads: Mapping[str, int]
    writes: Mapping[str, int]
    bytes_read: Mapping[str, int]
    bytes_written: Mapping[str, int]
    energy: Mapping[str, float]
    sources: Mapping[str, SourceCounters]

    def busy(self, unit: str) -> float:
        """The share of cycles in which a unit started an operation, 0 to 1."""
        started = sum(n for (name, _), n in self.triggers.items() if name == unit)
        return started / self.cycles if self.cycles else 0.0


def count(program: Program, machine: Machine, tally: Tally) -> Counters:
    """The counts of a run."""
    a = architecture_of(machine)
    moves: Counter[str] = Counter()
    triggers: Counter[tuple[str, str]] = Counter()
    reads: Counter[str] = Counter()
    writes: Counter[str] = Counter()
    read_bytes: Counter[str] = Counter()
    written_bytes: Counter[str] = Counter()
    energy: defaultdict[str, float] = defaultdict(float)
    sources: dict[str, SourceCounters] = {}
    buses = {b.name: b.energy for b in a.buses}
    files = {f.name: f for f in a.files}
    squashed = 0
    for i, (instruction, times) in enumerate(
        zip(program.instructions, tally.executed, strict=True)
    ):
        if not times:
            continue
        share = sources.setdefault(instruction.source, SourceCounters())
        share.cycles += times
        for move in instruction.moves:
            happened = times if move.guard is None else tally.moves[i, move.bus]
            squashed += times - happened
            moves[move.bus] += happened
            share.energy[move.bus] += happened * buses[move.bus]
            if isinstance(move.source, RegisterRef):
                reads[move.source.file] += happened
                if (file := files.get(move.source.file)) is not None:  # else an immediate unit
                    share.energy[file.name] += happened * file.read_energy
            if isinstance(move.destination, RegisterRef):
                name = move.destination.file
                writes[name] += happened
                share.energy[name] += happened * files[name].write_energy
            elif started := _operation(move, machine):
                unit, operation = started
                triggers[unit, operation] += happened
                share.triggers[unit] += happened
                record = machine.operations[operation]
                energy[unit] += happened * record.energy
                share.energy[unit] += happened * record.energy
                share.operations[operation] += happened
                if record.memory is not None:
                    space = a.unit[unit].address_space
                    total = read_bytes if record.kind == "load" else written_bytes
                    total[space] += happened * record.memory.bits // 8
                    own = share.bytes_read if record.kind == "load" else share.bytes_written
                    own[space] += happened * record.memory.bits // 8
        for immediate in instruction.immediates:
            writes[immediate.unit] += times
    stalls: Counter[str] = Counter()
    for (i, space), cycles in tally.stalls.items():
        stalls[space] += cycles
        share = sources[program.instructions[i].source]
        share.stalls += cycles
        share.cycles += cycles
    executed = sum(tally.executed)
    fetched = (executed - tally.buffered) * encoding_of(a).bytes
    if a.control.address_space:
        read_bytes[a.control.address_space] = fetched
    for bus in a.buses:
        energy[bus.name] += moves[bus.name] * bus.energy
    for file in a.files:
        energy[file.name] += reads[file.name] * file.read_energy
        energy[file.name] += writes[file.name] * file.write_energy
    for memory in a.spaces:
        energy[memory.name] += read_bytes[memory.name] * memory.read_energy
        energy[memory.name] += written_bytes[memory.name] * memory.write_energy
    return Counters(
        cycles=executed + sum(stalls.values()),
        instructions=executed,
        stalls=stalls,
        moves=moves,
        squashed=squashed,
        triggers=triggers,
        reads=reads,
        writes=writes,
        bytes_read=read_bytes,
        bytes_written=written_bytes,
        energy={name: e for name, e in energy.items() if e},
        sources=sources,
    )


def _operation(move: Move, machine: Machine) -> tuple[str, str] | None:
    """The unit and operation that a move starts."""
    place = move.destination
    if isinstance(place, PortRef) and place.operation in machine.operations:
        return place.unit, place.operation
    return None
