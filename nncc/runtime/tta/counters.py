"""What a run costs: cycles, stalls, moves, operations, accesses, bytes, energy, by source node.

    counts = simulator.run()
    counts.cycles, counts.busy("vmac"), counts.energy["dmem"], counts.sources["conv1"].cycles

A simulator keeps a `Tally`: how often each instruction ran, which of its guarded moves happened,
stalls and bytes where they depend on values. Everything else follows from the program.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nncc.isa.tta.encoding import encoding_of
from nncc.isa.tta.program import Move, Program, RegisterRef
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine, Operation

Thing = tuple[str, ...]  # its kind, and the names of what it happens at


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


class Accounts:
    """What the instructions of a program count, looked up once.

    Things that are counted are numbered: cycles, moves that have a guard, a move on a bus, a
    register read or written, an operation started. A table has how often each happened for each
    source node; everything else follows from it.
    """

    def __init__(self, program: Program, machine: Machine) -> None:
        self.program, self.machine = program, machine
        self.a = a = architecture_of(machine)
        self.sources = tuple(dict.fromkeys(i.source for i in program.instructions))
        self.source_number = {s: k for k, s in enumerate(self.sources)}
        self.things: dict[Thing, int] = {}
        self.guarded = tuple(
            (i, m.bus) for i, x in enumerate(program.instructions) for m in x.moves if m.guard
        )
        number = {place: k for k, place in enumerate(self.guarded)}
        events: list[tuple[int, int, Thing]] = []  # place in the counts, source, thing
        count = len(program.instructions)
        for i, instruction in enumerate(program.instructions):
            source = self.source_number[instruction.source]
            events.append((i, source, ("cycle",)))
            for move in instruction.moves:
                happened = i
                if move.guard is not None:
                    events.append((i, source, ("guarded",)))
                    happened = count + number[i, move.bus]
                    events.append((happened, source, ("passed",)))
                events += ((happened, source, thing) for thing in self._things(move))
            for immediate in instruction.immediates:
                events.append((i, source, ("write", immediate.unit)))
        self.places = np.array([place for place, _, _ in events], np.int64)
        self.cells = np.array([(s, self._number(t)) for _, s, t in events], np.int64).reshape(-1, 2)
        self.energies = {t: self._energy(t) for t in self.things}
        self.fetched = encoding_of(a).bytes

    def _number(self, thing: Thing) -> int:
        return self.things.setdefault(thing, len(self.things))

    def _things(self, move: Move) -> Iterator[Thing]:
        yield "move", move.bus
        if isinstance(move.source, RegisterRef):
            yield "read", move.source.file
        place = move.destination
        if isinstance(place, RegisterRef):
            yield "write", place.file
        elif place.operation in self.machine.operations:
            yield "start", place.unit, place.operation

    def _energy(self, thing: Thing) -> float:
        """Of one time, in pJ, at the part that the thing names first."""
        kind, *names = thing
        if kind == "move":
            return self.a.bus[names[0]].energy
        if kind == "start":
            return self.machine.operations[names[1]].energy
        if kind in ("read", "write") and (file := self.a.file.get(names[0])) is not None:
            return file.read_energy if kind == "read" else file.write_energy
        return 0.0  # cycles, guards, and immediate units, of which none is known

    def count(self, tally: Tally) -> Counters:
        """The counts of a run."""
        moved = [tally.moves[place] for place in self.guarded]
        happened = np.concatenate([np.asarray(tally.executed, np.int64), moved]).astype(np.int64)
        table = np.zeros((len(self.sources), len(self.things)), np.int64)
        np.add.at(table, (self.cells[:, 0], self.cells[:, 1]), happened[self.places])
        shares = {s: self._share(row) for s, row in zip(self.sources, table.tolist(), strict=True)}
        stalls: Counter[str] = Counter()
        for (i, space), cycles in tally.stalls.items():
            stalls[space] += cycles
            share = shares[self.program.instructions[i].source]
            share.stalls += cycles
            share.cycles += cycles
        sources = {name: share for name, share in shares.items() if share.cycles}
        totals = dict(zip(self.things, table.sum(axis=0).tolist(), strict=True))
        by_kind: defaultdict[str, Counter[Any]] = defaultdict(Counter)
        for (kind, *names), n in totals.items():
            if n:
                by_kind[kind][names[0] if len(names) == 1 else tuple(names)] += n
        read, written = Counter[str](), Counter[str]()
        energy: defaultdict[str, float] = defaultdict(float)
        for share in sources.values():
            read.update(share.bytes_read)
            written.update(share.bytes_written)
            for part, used in share.energy.items():
                energy[part] += used
        executed = totals.get(("cycle",), 0)
        if self.a.control.address_space:
            read[self.a.control.address_space] = (executed - tally.buffered) * self.fetched
        for memory in self.a.spaces:
            energy[memory.name] += read[memory.name] * memory.read_energy
            energy[memory.name] += written[memory.name] * memory.write_energy
        return Counters(
            cycles=executed + sum(stalls.values()),
            instructions=executed,
            stalls=stalls,
            moves=by_kind["move"],
            squashed=totals.get(("guarded",), 0) - totals.get(("passed",), 0),
            triggers=by_kind["start"],
            reads=by_kind["read"],
            writes=by_kind["write"],
            bytes_read=read,
            bytes_written=written,
            energy={name: e for name, e in energy.items() if e},
            sources=sources,
        )

    def _share(self, row: list[int]) -> SourceCounters:
        share = SourceCounters()
        for (thing, one), n in zip(self.energies.items(), row, strict=True):
            if not n:
                continue
            kind, *names = thing
            if kind == "cycle":
                share.cycles = n
            if one:
                share.energy[names[0]] += n * one
            if kind == "start":
                unit, operation = names
                share.triggers[unit] += n
                share.operations[operation] += n
                self._access(share, unit, self.machine.operations[operation], n)
        return share

    def _access(self, share: SourceCounters, unit: str, o: Operation, times: int) -> None:
        if o.memory is not None:
            moved = share.bytes_read if o.kind == "load" else share.bytes_written
            moved[self.a.unit[unit].address_space] += times * o.memory.bits // 8
