"""What the code generator asks of an architecture, looked up once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any

from nncc.backends.tta.code import COPY, LITERAL, Kind, Op
from nncc.diagnostics import TargetError
from nncc.isa.tta.verify import architecture_of, literal_range, long_range
from nncc.machines.machine import Machine
from nncc.machines.tta.model import Guard, RegisterFile, Unit

MASK = (1 << 32) - 1

Place = tuple[Any, ...]  # a source or target of moves, see `Model.reach`


@dataclass(frozen=True)
class Site:
    """A unit that can do an operation: the ports of its inputs in order, and of its result."""

    unit: str
    operation: str
    ports: tuple[str, ...]
    trigger: int  # which input starts it
    output: str
    latency: int
    space: str


class Model:
    """An architecture as tables."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.a = a = architecture_of(machine)
        self.sites: dict[str, list[Site]] = {}
        units: tuple[Unit, ...] = (*a.units, a.control)
        for unit in units:
            for name, binding in unit.operation.items():
                record = machine.operations[name]
                inputs, output, latency = [], "", 0
                bound = {b.operand: b for b in binding.operands}
                for o in record.operands:
                    if o.is_result:
                        output, latency = bound[o.name].port, bound[o.name].start + 1
                    else:
                        inputs.append(bound[o.name].port)
                trigger = next(k for k, p in enumerate(inputs) if unit.port[p].triggers)
                space = getattr(unit, "address_space", "")
                self.sites.setdefault(name, []).append(
                    Site(unit.name, name, tuple(inputs), trigger, output, latency, space)
                )
        self.into = {
            (u.name, p.name): a.reads(p) for u in units for p in u.ports
            if a.is_input(p)
        }  # fmt: skip
        self.out_of = {
            (u.name, p.name): a.writes(p) for u in units for p in u.ports
            if a.is_output(p)
        }  # fmt: skip
        widest = max(f.width for f in a.files)
        self.files: dict[Kind, RegisterFile] = {
            "scalar": max((f for f in a.files if f.width == 32), key=lambda f: f.size),
            "vector": max((f for f in a.files if f.width == widest), key=lambda f: f.size),
        }
        self.readers = {f.name: [a.writes(p) for p in f.ports if a.is_output(p)] for f in a.files}
        self.writers = {f.name: [a.reads(p) for p in f.ports if a.is_input(p)] for f in a.files}
        for u in a.immediates:
            self.readers[u.name] = [a.writes(p) for p in u.ports if a.is_output(p)]
        self.most_reads = {f.name: f.max_reads for f in a.files}
        self.most_reads |= {u.name: len(self.readers[u.name]) for u in a.immediates}
        self.most_writes = {f.name: f.max_writes for f in a.files}
        self.slots = a.control.delay_slots
        self.jump = self._control("jump")
        self.halt = self._control("halt")
        self.loop = self._control("loop") if a.control.loop_depth else None
        self.ranges = {b.name: literal_range(b) for b in a.buses}
        self.guards = self._guards()
        self.buses = tuple(b.name for b in a.buses)
        self.bit = {name: 1 << k for k, name in enumerate(self.buses)}
        self.all_buses = (1 << len(self.buses)) - 1
        self._reached: dict[Hashable, int] = {}
        self._sites: dict[tuple[str, str], list[Site]] = {}

    def _control(self, kind: str) -> Site:
        for sites in self.sites.values():
            for s in sites:
                if (
                    s.unit == self.a.control.name
                    and self.machine.operations[s.operation].kind == kind
                ):
                    return s
        raise TargetError(f"machine '{self.machine.name}' has no operation of kind {kind}")

    def _guards(self) -> dict[bool, Guard]:
        """By what it takes for a jump: true or false in a register of one bit."""
        found: dict[bool, Guard] = {}
        port = (self.jump.unit, self.jump.ports[0])
        for bus in self.into[port]:
            for guard in self.a.bus[bus].guards:
                if guard.file in self.a.file and self.a.file[guard.file].width == 1:
                    found.setdefault(not guard.inverted, guard)
        if not found:
            raise TargetError(f"machine '{self.machine.name}' has no guards for jumps")
        return found

    # -- numbers ---------------------------------------------------------------------------
    def spelled(self, value: int, bus: str) -> int | None:
        """A word as the short immediate of a bus; None if it does not fit."""
        fitting = self.ranges[bus]
        if value in fitting:
            return value
        if value & MASK in fitting and self.a.bus[bus].width <= 32:
            return value & MASK
        return None

    def fits(self, value: int, buses: tuple[str, ...]) -> bool:
        return any(self.spelled(value, b) is not None for b in buses)

    def is_short(self, value: int, op: Op, k: int) -> bool:
        """Whether a number can be moved to an operand of an operation at once."""
        if op.operation == COPY:
            assert op.result is not None
            ports = self.writers[self.files[op.result.kind].name]
            return any(self.fits(value, buses) for buses in ports)
        return all(self.fits(value, self.into[s.unit, s.ports[k]]) for s in self.sites_of(op))

    def sites_of(self, op: Op) -> list[Site]:
        """The units that can do an operation (that reach the memory of a load or store)."""
        space = op.memory.space if op.memory else ""
        found = self._sites.get((op.operation, space))
        if found is None:
            found = [s for s in self.sites[op.operation] if not space or s.space == space]
            self._sites[op.operation, space] = found
        return found

    # -- buses -----------------------------------------------------------------------------
    def slots_of(self, template: str) -> int:
        """The buses, as bits, that a long immediate of a template takes."""
        return sum(self.bit[b] for b in self.a.template[template].slots if b in self.bit)

    def reach(self, source: Place, target: Place) -> int:
        """The buses, as bits, that carry a value from a source to a target.

        Sources are ("port", unit, port), ("reg", file, number) and ("imm", value), targets
        ("port", unit, port, …) and ("reg", file, number).
        """
        key = (
            source[:2] if source[0] == "reg" else source,
            target[:3] if target[0] == "port" else target[:2],
        )
        found = self._reached.get(key)
        if found is None:
            found = self._reached[key] = self._reach(source, target)
        return found

    def _reach(self, source: Place, target: Place) -> int:
        if target[0] == "port":
            into = set(self.into[target[1], target[2]])
        else:
            into = {b for buses in self.writers[target[1]] for b in buses}
        if source[0] == "imm":
            into = {b for b in into if self.spelled(source[1], b) is not None}
        elif source[0] == "port":
            into &= set(self.out_of[source[1], source[2]])
        else:
            into &= {b for buses in self.readers[source[1]] for b in buses}
        return sum(self.bit[b] for b in into)

    def template(self, value: int) -> tuple[str, str, int] | None:
        """(template, immediate unit, number) that holds a word."""
        for t in self.a.templates:
            if len(t.units) != 1:
                continue
            unit = t.units[0]
            fitting = long_range(self.a, t.name, unit)
            for number in (value, value & MASK):
                if number in fitting and self.a.immediate[unit].width >= 32:
                    return t.name, unit, number
        return None


@cache
def _ports_match(ports: tuple[tuple[str, ...], ...], requests: tuple[tuple[int, str], ...],
                 shared: bool) -> bool:  # fmt: skip
    """Whether every (register, bus) gets a port that reaches the bus; `shared`: a port may serve
    a register on several buses."""

    def search(k: int, taken: dict[int, int]) -> bool:
        if k == len(requests):
            return True
        register, bus = requests[k]
        for p, buses in enumerate(ports):
            usable = p not in taken or (shared and taken[p] == register)
            if bus in buses and usable and search(k + 1, {**taken, p: register}):
                return True
        return False

    return search(0, {})


def ports_match(
    ports: list[tuple[str, ...]], requests: tuple[tuple[int, str], ...], shared: bool
) -> bool:
    """See `_ports_match`."""
    return _ports_match(tuple(ports), requests, shared)


NO_UNIT = frozenset({COPY, LITERAL})
