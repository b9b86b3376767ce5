"""Architectures from OpenASIP's architecture definition files (ADF, version 1.8).

    architecture = read_adf(text, operations, where)

Read are `bus` (with one segment), `socket`, `function-unit`, `register-file`, `immediate-unit`
(with its templates), `immediate-slot`, `address-space` and `global-control-unit`; of version 1.7,
too, where it has nothing else. Not supported, and refused: bridges, several segments, guards on
ports, operand reads after the trigger, ports used for several cycles, pipeline resources, register
files that are reserved or volatile, big-endian machines, operations that nncc does not know
(`operations.toml` beside this file). An operand is bound by its number, in the order of the
operation's record. A short immediate of width 0 means that the bus has none.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from nncc.diagnostics import TargetError, nearest
from nncc.machines.fields import Where
from nncc.machines.machine import Operation
from nncc.machines.tta.check import problems
from nncc.machines.tta.model import (
    AddressSpace,
    Architecture,
    Bus,
    ControlUnit,
    Extension,
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

_KNOWN = frozenset(
    (
        "little-endian",
        "big-endian",
        "bus",
        "socket",
        "function-unit",
        "register-file",
        "immediate-unit",
        "address-space",
        "immediate-slot",
        "global-control-unit",
    )
)
VERSIONS = ("1.7", "1.8")


def read_adf(text: str, operations: Mapping[str, Operation], where: Where) -> Architecture:
    """The architecture in an ADF. Raises TargetError that names the element."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise where.error(f"not XML: {error}") from None
    return _Reader(root, operations, where).architecture()


class _Reader:
    def __init__(self, root: Element, operations: Mapping[str, Operation], where: Where) -> None:
        self.root, self.operations, self.where = root, operations, where

    def architecture(self) -> Architecture:
        if self.root.tag != "adf":
            raise self.where.error(f"the root element is <{self.root.tag}>, not <adf>")
        version = self.root.get("version", "")
        if version not in VERSIONS:
            known = " and ".join(VERSIONS)
            raise self.where.error(f"<adf version={version!r}>; this nncc reads versions {known}")
        for element in self.root:
            if element.tag not in _KNOWN:
                help = nearest(element.tag, _KNOWN, "supported elements")
                raise self.where.error(f"<{element.tag}> is not supported", help)
        if self.root.find("big-endian") is not None:
            raise self.where.error("<big-endian/>: machines are little-endian here")
        control = self.root.find("global-control-unit")
        if control is None:
            raise self.where.error("<global-control-unit> is missing")
        found = Architecture(
            buses=tuple(self._bus(e) for e in self.root.findall("bus")),
            sockets=tuple(self._socket(e) for e in self.root.findall("socket")),
            units=tuple(self._unit(e) for e in self.root.findall("function-unit")),
            files=tuple(self._file(e) for e in self.root.findall("register-file")),
            control=self._control(control),
            spaces=tuple(self._space(e) for e in self.root.findall("address-space")),
            immediates=tuple(self._immediate(e) for e in self.root.findall("immediate-unit")),
            immediate_slots=tuple(
                ImmediateSlot(self._name(e), self._slot_width(self._name(e)))
                for e in self.root.findall("immediate-slot")
            ),
            templates=self._templates(),
        )
        for problem in problems(found, self.operations):
            raise self.where.error(problem)
        return found

    # -- elements --------------------------------------------------------------------------
    def _error(self, element: Element, message: str, help: str = "") -> TargetError:
        name = element.get("name")
        place = f"<{element.tag} name={name!r}>" if name else f"<{element.tag}>"
        return self.where.error(f"{place}: {message}", help)

    def _name(self, element: Element) -> str:
        name = element.get("name")
        if not name:
            raise self._error(element, "the name is missing")
        return name

    def _text(self, element: Element, tag: str, default: str | None = None) -> str:
        children = element.findall(tag)
        if len(children) > 1:
            raise self._error(element, f"<{tag}> is there {len(children)} times")
        if not children:
            if default is None:
                raise self._error(element, f"<{tag}> is missing")
            return default
        return (children[0].text or "").strip()

    def _integer(self, element: Element, tag: str, default: int | None = None) -> int:
        text = self._text(element, tag, None if default is None else str(default))
        try:
            return int(text, 0)
        except ValueError:
            raise self._error(element, f"<{tag}> is {text!r}; it must be an integer") from None

    def _extension(self, element: Element) -> Extension:
        text = self._text(element, "extension", "zero")
        if text == "zero":
            return "zero"
        if text == "sign":
            return "sign"
        raise self._error(element, f"<extension> is {text!r}; it must be one of 'zero', 'sign'")

    def _bus(self, e: Element) -> Bus:
        segments = e.findall("segment")
        if len(segments) > 1:
            raise self._error(e, "several segments are not supported")
        short = e.find("short-immediate")
        width = self._integer(short, "width", 0) if short is not None else 0
        immediate = None
        if short is not None and width:
            immediate = ShortImmediate(width, self._extension(short))
        guards = tuple(g for x in e.findall("guard") if (g := self._guard(e, x)))
        return Bus(self._name(e), self._integer(e, "width"), guards, immediate)

    def _guard(self, bus: Element, e: Element) -> Guard | None:
        condition = next(iter(e), None)
        if condition is None or condition.tag == "always-true":
            return None
        kinds = {"simple-expr": False, "inverted-expr": True}
        register = condition.find("bool")
        if condition.tag not in kinds or register is None:
            raise self._error(bus, "guards are on registers here (<simple-expr> or inverse)")
        name = self._text(register, "name")
        return Guard(name, self._integer(register, "index"), kinds[condition.tag])

    def _socket(self, e: Element) -> Socket:
        reads, writes = e.findall("reads-from"), e.findall("writes-to")
        if reads and writes:
            raise self._error(e, "it reads and writes; a socket has one direction")
        buses = tuple(self._text(x, "bus") for x in reads or writes)
        for x in reads or writes:
            bus, segment = self._text(x, "bus"), self._text(x, "segment", "")
            known = self._segments(bus)
            if segment and known and segment not in known:
                raise self._error(e, f"bus {bus} has no segment '{segment}'")
        return Socket(self._name(e), "output" if writes else "input", buses)

    def _segments(self, bus: str) -> set[str]:
        """The segments of a bus; none of one that does not exist."""
        found = [e for e in self.root.findall("bus") if e.get("name") == bus]
        return {s.get("name", "") for e in found for s in e.findall("segment")}

    def _port(self, e: Element, width: int = 0) -> Port:
        sockets = tuple((x.text or "").strip() for x in e.findall("connects-to"))
        return Port(
            self._name(e),
            width or self._integer(e, "width"),
            tuple(s for s in sockets if s),
            e.find("triggers") is not None,
            e.find("sets-opcode") is not None,
        )

    def _unit(self, e: Element) -> FunctionUnit:
        space = self._text(e, "address-space", "")
        bindings = tuple(self._binding(e, x) for x in e.findall("operation"))
        return FunctionUnit(self._name(e), self._ports(e), bindings, space)

    def _ports(self, e: Element) -> tuple[Port, ...]:
        ports = [*e.findall("port"), *e.findall("special-port")]
        return tuple(self._port(p) for p in ports if p.find("connects-to") is not None)

    def _binding(self, unit: Element, e: Element) -> OperationBinding:
        name = self._text(e, "name").lower()
        record = self.operations.get(name)
        if record is None:
            help = nearest(name, self.operations, "known operations")
            raise self._error(unit, f"nncc does not know operation '{name}'", help)
        binds = e.findall("bind")
        ports = {b.get("name", ""): (b.text or "").strip() for b in binds}
        if len(ports) != len(binds):
            raise self._error(unit, f"operation {name}: an operand is bound twice")
        starts = self._starts(unit, e, record)
        operands = []
        for number, operand in enumerate(record.operands, 1):
            key = str(number)
            if key not in ports:
                raise self._error(unit, f"operation {name}: operand {key} is bound to no port")
            if operand.is_result and key not in starts:
                raise self._error(unit, f"operation {name}: <writes name={key!r}> is missing")
            operands.append(OperandBinding(operand.name, ports[key], starts.get(key, 0)))
        if len(ports) != len(operands):
            raise self._error(unit, f"operation {name} has {len(operands)} operands")
        return OperationBinding(name, tuple(operands))

    def _starts(self, unit: Element, e: Element, record: Operation) -> dict[str, int]:
        """The first cycles in which an operation reads and writes its operands, by number."""
        pipeline = e.find("pipeline")
        kinds = {
            str(n): "writes" if o.is_result else "reads" for n, o in enumerate(record.operands, 1)
        }
        starts: dict[str, int] = {}
        for use in pipeline if pipeline is not None else ():
            place, key = f"operation {record.name}", use.get("name", "")
            if use.tag not in ("reads", "writes"):
                raise self._error(unit, f"{place}: <{use.tag}> is not supported")
            if kinds.get(key) != use.tag or key in starts:
                uses = ", ".join(f"<{kind} name='{n}'>" for n, kind in kinds.items())
                raise self._error(unit, f"{place}: <{use.tag} name={key!r}>; it has {uses}, once")
            if self._integer(use, "cycles", 1) != 1:
                raise self._error(unit, f"{place}: a port is used for one cycle here")
            starts[key] = self._integer(use, "start-cycle")
        return starts

    def _file(self, e: Element) -> RegisterFile:
        kind = self._text(e, "type", "normal")
        if kind != "normal":
            raise self._error(e, f"<type> is {kind!r}; it must be 'normal'")
        width = self._integer(e, "width")
        ports = tuple(self._port(p, width) for p in e.findall("port"))
        return RegisterFile(
            self._name(e),
            self._integer(e, "size"),
            width,
            ports,
            self._integer(e, "max-reads", 1),
            self._integer(e, "max-writes", 1),
        )

    def _immediate(self, e: Element) -> ImmediateUnit:
        width = self._integer(e, "width")
        ports = tuple(self._port(p, width) for p in e.findall("port"))
        return ImmediateUnit(
            self._name(e), self._integer(e, "size"), width, ports, self._extension(e)
        )

    def _space(self, e: Element) -> AddressSpace:
        first, last = self._integer(e, "min-address"), self._integer(e, "max-address")
        return AddressSpace(self._name(e), self._integer(e, "width"), first, last)

    def _templates(self) -> tuple[InstructionTemplate, ...]:
        """The forms of instructions that hold long immediates; every unit lists its share."""
        pieces: dict[str, list[ImmediatePiece]] = {}
        for unit in self.root.findall("immediate-unit"):
            for template in unit.findall("template"):
                own = pieces.setdefault(self._name(template), [])
                for slot in template.findall("slot"):
                    name, width = self._text(slot, "name"), self._integer(slot, "width")
                    own.append(ImmediatePiece(name, width, self._name(unit)))
        # the template without immediates is the plain form of an instruction
        return tuple(InstructionTemplate(name, tuple(p)) for name, p in pieces.items() if p)

    def _slot_width(self, name: str) -> int:
        """The widest piece in an immediate slot: an ADF gives the slot no width of its own."""
        widths = [
            self._integer(slot, "width")
            for slot in self.root.iter("slot")
            if self._text(slot, "name") == name
        ]
        return max(widths, default=1)

    def _control(self, e: Element) -> ControlUnit:
        return ControlUnit(
            self._name(e),
            self._ports(e),
            tuple(self._binding(e, x) for x in e.findall("ctrl-operation")),
            delay_slots=self._integer(e, "delay-slots"),
            guard_latency=self._integer(e, "guard-latency") + self._file_guard_latency(),
            return_port=self._text(e, "return-address", ""),
            address_space=self._text(e, "address-space", ""),
        )

    def _file_guard_latency(self) -> int:
        """What register files add to the latency of guards: the same for all that guards see."""
        seen = {name.text for name in self.root.iterfind("bus/guard/*/bool/name")}
        files = [e for e in self.root.findall("register-file") if e.get("name") in seen]
        latencies = {self._integer(e, "guard-latency", 0) for e in files}
        if len(latencies) > 1:
            raise self._error(files[0], "register files differ in <guard-latency>")
        return latencies.pop() if latencies else 0
