"""Architectures from the tables of a machine file.

    [architecture.control]                          delay slots, loops, its ports and operations
    [[architecture.bus]]     name = "s", count = 6  six buses s0 … s5, together called s
    [[architecture.unit]]    name = "alu", count = 2
    ports = { in1t = { reaches = ["s"], triggers = true }, in2 = { reaches = ["s"] }, … }
    bind = { a = "in1t", b = "in2", y = "out1" }    for all of its operations
    operations = ["add", "sub"]

Each port has a socket of its own, `<unit>_<port>`; `reaches` names buses, or all buses of a table
with `count`. An operation whose operands have other names or ports states its own binding under
`binds`. Where a result appears follows from the latency of the operation's record, or of the
unit's `latency` table. A port is an output if an operation gives its result there; the ports of
register files say so with `direction`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nncc.diagnostics import nearest
from nncc.machines.fields import Field, Where, read
from nncc.machines.machine import Operation
from nncc.machines.tta.check import problems
from nncc.machines.tta.model import (
    AddressSpace,
    Architecture,
    Bus,
    ControlUnit,
    FunctionUnit,
    Guard,
    ImmediatePiece,
    ImmediateSlot,
    ImmediateUnit,
    InstructionTemplate,
    OperandBinding,
    OperationBinding,
    Port,
    RegisterFile,
    ShortImmediate,
    Socket,
)

Table = dict[str, Any]

_ARCHITECTURE = {
    "bus": Field("tables"),
    "unit": Field("tables"),
    "file": Field("tables"),
    "immediate": Field("tables", []),
    "immediate_slot": Field("tables", []),
    "template": Field("tables", []),
    "space": Field("tables"),
    "control": Field(dict),
}
_EXTENSION = ("zero", "sign")
_BUS = {
    "name": Field(str),
    "count": Field(int, 0, minimum=1),
    "width": Field(int, minimum=1),
    "guards": Field(list, ()),
    "immediate": Field(int, 0, minimum=1),
    "extension": Field(str, "zero", allowed=_EXTENSION),
    "energy": Field(float, 0.0, minimum=0),
}
_PORT = {
    "reaches": Field(list),
    "width": Field(int, 0, minimum=1),
    "triggers": Field(bool, False),
    "direction": Field(str, "", allowed=("input", "output", "both")),
}
_OPERATIONS = {
    "ports": Field(dict),
    "bind": Field(dict, {}),
    "binds": Field(dict, {}),
    "latency": Field(dict, {}),
    "operations": Field(list),
}
_UNIT = {
    "name": Field(str),
    "count": Field(int, 0, minimum=1),
    "space": Field(str, ""),
    "width": Field(int, 32, minimum=1),
} | _OPERATIONS
_CONTROL = {
    "name": Field(str),
    "space": Field(str),
    "width": Field(int, 32, minimum=1),
    "delay_slots": Field(int, minimum=0),
    "guard_latency": Field(int, minimum=1),
    "return_port": Field(str, ""),
    "loop_depth": Field(int, 0, minimum=0),
    "loop_buffer": Field(int, 0, minimum=0),
} | _OPERATIONS
_FILE = {
    "name": Field(str),
    "size": Field(int, minimum=1),
    "width": Field(int, minimum=1),
    "max_reads": Field(int, 0, minimum=1),
    "max_writes": Field(int, 0, minimum=1),
    "read_energy": Field(float, 0.0, minimum=0),
    "write_energy": Field(float, 0.0, minimum=0),
    "ports": Field(dict),
}
_IMMEDIATE = {
    "name": Field(str),
    "size": Field(int, minimum=1),
    "width": Field(int, minimum=1),
    "extension": Field(str, "zero", allowed=_EXTENSION),
    "ports": Field(dict),
}
_SLOT = {"name": Field(str), "width": Field(int, minimum=1)}
_TEMPLATE = {"name": Field(str), "pieces": Field("tables")}
_PIECE = {"slot": Field(str), "width": Field(int, minimum=1), "unit": Field(str)}
_SPACE = {
    "name": Field(str),
    "width": Field(int, 8, minimum=1),
    "min_address": Field(int, 0, minimum=0),
    "max_address": Field(int, minimum=0),
    "banks": Field(int, 0, minimum=0),
    "bank_bytes": Field(int, 4, minimum=1),
    "latency": Field(int, 1, minimum=1),
    "read_energy": Field(float, 0.0, minimum=0),
    "write_energy": Field(float, 0.0, minimum=0),
}


def architecture(table: Table, operations: Mapping[str, Operation], where: Where) -> Architecture:
    """The architecture that the table `architecture` of a machine file describes.

    Raises TargetError that names the field.
    """
    return _Reader(operations, where).read(table)


class _Reader:
    def __init__(self, operations: Mapping[str, Operation], where: Where) -> None:
        self.operations = operations
        self.where = Where(where.file, "architecture")
        self.groups: dict[str, tuple[str, ...]] = {}
        self.sockets: list[Socket] = []

    def read(self, table: Table) -> Architecture:
        values = read(table, _ARCHITECTURE, self.where)
        buses = tuple(b for p, v in self._each(values, "bus", _BUS) for b in self._bus(v, p))
        units = tuple(u for p, v in self._each(values, "unit", _UNIT) for u in self._unit(v, p))
        place = Where(self.where.file, "architecture.control")
        found = Architecture(
            buses=buses,
            units=units,
            control=self._control(read(values["control"], _CONTROL, place), place),
            files=tuple(self._file(v, p) for p, v in self._each(values, "file", _FILE)),
            immediates=tuple(
                self._immediate(v, p) for p, v in self._each(values, "immediate", _IMMEDIATE)
            ),
            immediate_slots=tuple(
                ImmediateSlot(**v) for _, v in self._each(values, "immediate_slot", _SLOT)
            ),
            templates=tuple(
                self._template(v, p) for p, v in self._each(values, "template", _TEMPLATE)
            ),
            spaces=tuple(AddressSpace(**v) for _, v in self._each(values, "space", _SPACE)),
            sockets=tuple(self.sockets),
        )
        for problem in problems(found, self.operations):
            raise self.where.error(problem)
        return found

    def _each(
        self, values: Table, name: str, fields: Mapping[str, Field]
    ) -> Iterator[tuple[Where, Table]]:
        for i, table in enumerate(values[name]):
            place = Where(self.where.file, f"architecture.{name}[{i}]")
            yield place, read(table, fields, place)

    # -- buses and ports -------------------------------------------------------------------
    def _bus(self, v: Table, place: Where) -> Iterator[Bus]:
        names = _numbered(v["name"], v["count"])
        self.groups[v["name"]] = names
        self.groups |= {n: (n,) for n in names}
        immediate = ShortImmediate(v["immediate"], v["extension"]) if v["immediate"] else None
        guards = tuple(_guard(g, place) for g in v["guards"])
        for name in names:
            yield Bus(name, v["width"], guards, immediate, v["energy"])

    def _ports(
        self, owner: str, v: Table, place: Where, outputs: frozenset[str], both: str = ""
    ) -> tuple[Port, ...]:
        return tuple(
            self._port(owner, name, table, v["width"], place, name in outputs, both == name)
            for name, table in v["ports"].items()
        )

    def _port(
        self, owner: str, name: str, table: Any, width: int, place: Where, output: bool, both: bool
    ) -> Port:
        inner = Where(place.file, place.name(f"ports.{name}"))
        if not isinstance(table, dict):
            raise inner.error(f"{inner.path} is {table!r}; it must be a table")
        values = read(table, _PORT, inner)
        buses = tuple(b for group in values["reaches"] for b in self._group(group, inner))
        direction = values["direction"] or ("output" if output else "input")
        both = both or direction == "both"
        sockets = []
        for one in ("input", "output"):
            if both or one == direction:
                socket = f"{owner}_{name}" + (f"_{one}" if both else "")
                self.sockets.append(Socket(socket, one, buses))
                sockets.append(socket)
        triggers = values["triggers"]
        return Port(name, values["width"] or width, tuple(sockets), triggers, triggers)

    def _group(self, name: str, place: Where) -> tuple[str, ...]:
        if name not in self.groups:
            help = nearest(name, self.groups, "buses")
            raise place.error(f"{place.name('reaches')}: there is no bus '{name}'", help)
        return self.groups[name]

    # -- units -----------------------------------------------------------------------------
    def _unit(self, v: Table, place: Where) -> Iterator[FunctionUnit]:
        bindings = self._bindings(v, place)
        for name in _numbered(v["name"], v["count"]):
            ports = self._ports(name, v, place, self._outputs(bindings))
            yield FunctionUnit(name, ports, bindings, v["space"])

    def _control(self, v: Table, place: Where) -> ControlUnit:
        bindings = self._bindings(v, place)
        ports = self._ports(v["name"], v, place, self._outputs(bindings), v["return_port"])
        kept = ("delay_slots", "guard_latency", "return_port", "loop_depth", "loop_buffer")
        return ControlUnit(
            v["name"], ports, bindings, address_space=v["space"], **{k: v[k] for k in kept}
        )

    def _outputs(self, bindings: tuple[OperationBinding, ...]) -> frozenset[str]:
        return frozenset(
            bound.port
            for b in bindings
            for bound, operand in zip(
                b.operands, self.operations[b.operation].operands, strict=True
            )
            if operand.is_result
        )

    def _bindings(self, v: Table, place: Where) -> tuple[OperationBinding, ...]:
        for field in ("binds", "latency"):
            for name in v[field]:
                if name not in v["operations"]:
                    help = nearest(name, v["operations"], "operations")
                    raise place.error(
                        f"{place.name(field)}.{name}: not one of its operations", help
                    )
        return tuple(self._binding(name, v, place) for name in v["operations"])

    def _binding(self, name: str, v: Table, place: Where) -> OperationBinding:
        if name not in self.operations:
            help = nearest(name, self.operations, "operations")
            raise place.error(f"{place.name('operations')}: there is no operation '{name}'", help)
        record = self.operations[name]
        bind = v["binds"].get(name, v["bind"])
        latency = v["latency"].get(name, record.latency)
        if type(latency) is not int or latency < 1:
            raise place.error(f"{place.name('latency')}.{name} is no number of at least 1")
        operands = []
        for operand in record.operands:
            if operand.name not in bind:
                what = f"operand '{operand.name}' of {name} is bound to no port"
                raise place.error(f"{place.name('bind')}: {what}", nearest(operand.name, bind))
            start = latency - 1 if operand.is_result else 0
            operands.append(OperandBinding(operand.name, str(bind[operand.name]), start))
        return OperationBinding(name, tuple(operands))

    # -- registers and immediates ----------------------------------------------------------
    def _file(self, v: Table, place: Where) -> RegisterFile:
        ports = self._ports(v["name"], v, place, frozenset())
        kinds = [self._direction(p) for p in ports]
        values = v | {
            "ports": ports,
            "max_reads": v["max_reads"] or max(1, kinds.count("output")),
            "max_writes": v["max_writes"] or max(1, kinds.count("input")),
        }
        return RegisterFile(**values)

    def _immediate(self, v: Table, place: Where) -> ImmediateUnit:
        return ImmediateUnit(
            **v | {"ports": self._ports(v["name"], v, place, frozenset(v["ports"]))}
        )

    def _direction(self, port: Port) -> str:
        return next(s.direction for s in self.sockets if s.name == port.sockets[0])

    def _template(self, v: Table, place: Where) -> InstructionTemplate:
        pieces = tuple(
            ImmediatePiece(**read(p, _PIECE, Where(place.file, place.name(f"pieces[{i}]"))))
            for i, p in enumerate(v["pieces"])
        )
        return InstructionTemplate(v["name"], pieces)


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}{i}" for i in range(count)) if count else (name,)


def _guard(text: str, place: Where) -> Guard:
    file, _, index = text[1:].partition(".")
    if text[:1] not in ("?", "!") or not index.isdecimal():
        raise place.error(f"{place.name('guards')}: {text!r}; a guard is '?file.0' or '!file.0'")
    return Guard(file, int(index), text[0] == "!")
