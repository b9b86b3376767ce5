"""Which values moves carry, as numbers: equal numbers stand for equal values.

    flow = Dataflow(Wiring(machine), Numbers())
    for instruction in instructions:
        flow.step((instruction, …))

Nothing here is shared with the scheduler: what moves do is taken from the definition of the
simulators (`nncc.runtime.tta.interpreter`), and from the machine's records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from nncc.isa.tta.program import Instruction, Literal, Move, PortRef, RegisterRef
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine
from nncc.machines.tta.model import Unit

MASK = (1 << 32) - 1

Key = tuple[str, str, int | str]  # ("reg", file, number) or ("port", unit, port)


class Numbers:
    """A number for each value: what it is made of decides which."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def of(self, *made: Hashable) -> int:
        """The number of what is made so."""
        return self._numbers.setdefault(made, len(self._numbers))

    def literal(self, value: int) -> int:
        """The number of a word."""
        return self.of("literal", value & MASK)

    def before(self, key: Key) -> int:
        """The number of what a place holds at first."""
        return self.of("before", key)


@dataclass(frozen=True)
class Event:
    """An operation that started: in which cycle, by which instruction of the caller's, where.

    `space` is the memory of a load or store, else "".
    """

    cycle: int
    name: Hashable
    unit: str
    space: str
    operation: str
    inputs: tuple[int, ...]
    guard: int | None = None


_Unit = tuple[tuple[Key, ...], Key | None, int, str, str]


class Wiring:
    """What starts where on a machine, looked up once.

    Attributes:
        units: for each unit and operation: ports of the inputs, of the result, its latency, kind,
            and the memory of loads and stores.
        outputs: ports of results; `triggers`: ports that start operations.
        longest: the longest latency.
    """

    def __init__(self, machine: Machine) -> None:
        a = architecture_of(machine)
        self.units: dict[tuple[str, str], _Unit] = {}
        self.triggers: set[Key] = set()
        units: tuple[Unit, ...] = (*a.units, a.control)
        for unit in units:
            self.triggers |= {("port", unit.name, p.name) for p in unit.ports if p.triggers}
            for name, binding in unit.operation.items():
                record = machine.operations[name]
                ports = {b.operand: b for b in binding.operands}
                inputs: list[Key] = []
                output, latency = None, 0
                for o in record.operands:
                    key: Key = ("port", unit.name, ports[o.name].port)
                    if o.is_result:
                        output, latency = key, ports[o.name].start + 1
                    else:
                        inputs.append(key)
                space = unit.address_space if record.kind in ("load", "store") else ""
                self.units[unit.name, name] = (tuple(inputs), output, latency, record.kind, space)
        self.outputs = sorted({found[1] for found in self.units.values() if found[1] is not None})
        self.longest = max(found[2] for found in self.units.values())


class Dataflow:
    """The state of a machine in numbers.

    Args:
        unsettled: cycles at the beginning in which results may reach ports that were started
            before.
        regions: for loads and stores, as (operation, memory, operands …), the part of it that they
            touch; what a load finds there depends on how many stores there were before.
    """

    def __init__(
        self, wiring: Wiring, numbers: Numbers, unsettled: int = 0,
        regions: Mapping[Hashable, Hashable] | None = None,
    ) -> None:  # fmt: skip
        self.wiring, self.numbers, self.unsettled = wiring, numbers, unsettled
        self.regions = regions or {}
        self.values: dict[Key, int] = {}
        self.coming: dict[int, list[tuple[Key, int]]] = {}
        self.time = 0
        self.clashes = False  # whether two results reached a port in one cycle
        self.events: list[Event] = []
        # what moves of instructions with names carried, by name and number of the move
        self.carried: dict[tuple[Hashable, int], int] = {}
        self._stores: Counter[Hashable] = Counter()  # by region
        self._stored: list[Hashable] = []  # in this cycle

    def copy(self) -> Dataflow:
        """The same state, to go on from in another way; nothing is carried yet."""
        other = object.__new__(Dataflow)
        other.__dict__ |= self.__dict__
        other.values = dict(self.values)
        other.coming = {t: list(found) for t, found in self.coming.items()}
        other.events = list(self.events)
        other.carried = {}
        other._stores, other._stored = Counter(self._stores), []
        return other

    def value(self, key: Key) -> int:
        """What a place holds now."""
        found = self.values.get(key)
        return self.numbers.before(key) if found is None else found

    def ahead(self) -> dict[int, list[tuple[Key, int]]]:
        """Results on their way, by the cycles until they arrive."""
        return {t - self.time: sorted(found) for t, found in self.coming.items() if found}

    def step(self, parts: Iterable[tuple[Instruction, Hashable]]) -> None:
        """A cycle in which instructions run, each with a name (which tells apart what
        loads find, if it is not None)."""
        if self.time < self.unsettled:
            for key in self.wiring.outputs:
                self.values[key] = self.numbers.of("unsettled", key, self.time)
        for key, value in self.coming.pop(self.time, ()):
            self.values[key] = value
        later: list[tuple[Key, int]] = []
        started: list[tuple[PortRef, Hashable, int | None]] = []
        written: list[tuple[Key, int]] = []
        for instruction, name in parts:
            for k, move in enumerate(instruction.moves):
                value = self._source(move)
                if name is not None:
                    self.carried[name, k] = value
                to = move.destination
                if isinstance(to, RegisterRef):
                    later.append((("reg", to.file, to.index), value))
                    continue
                written.append((("port", to.unit, to.port), value))
                if to.operation:
                    guard = move.guard
                    seen = None
                    if guard is not None:
                        seen = self.value(("reg", guard.file, guard.index))
                    started.append((to, name, seen))
            for long in instruction.immediates:
                later.append((("reg", long.unit, long.index), self.numbers.literal(long.value)))
        self.values.update(written)
        for port, name, seen in started:
            self._start(port, name, seen)
        self._stores.update(self._stored)
        self._stored.clear()
        self.values.update(later)
        self.time += 1

    def _source(self, move: Move) -> int:
        place = move.source
        if isinstance(place, Literal):
            return self.numbers.literal(place.value)
        if isinstance(place, PortRef):
            return self.value(("port", place.unit, place.port))
        return self.value(("reg", place.file, place.index))

    def _start(self, port: PortRef, name: Hashable, guard: int | None) -> None:
        inputs, output, latency, kind, space = self.wiring.units[port.unit, port.operation]
        found = tuple(self.value(key) for key in inputs)
        self.events.append(Event(self.time, name, port.unit, space, port.operation, found, guard))
        made: tuple[Hashable, ...] = (port.operation, *([space] if space else []), *found)
        if kind == "store" and made in self.regions:
            self._stored.append(self.regions[made])
        if output is None:
            return
        if kind == "load":
            if name is None and made in self.regions:
                name = self._stores[self.regions[made]]
            made = ("load", made, name)
        result = self.numbers.of(*made)
        coming = self.coming.setdefault(self.time + latency, [])
        self.clashes |= any(key == output for key, _ in coming)
        coming.append((output, result))
