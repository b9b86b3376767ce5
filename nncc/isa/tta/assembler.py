"""Assembly text to programs, in OpenASIP's move syntax.

    program = assemble(text, load("tta_minimal"))

    CODE ;
    main:
      3 -> alu.in2 ;                        # one slot a bus, separated by commas
      RF.0 -> alu.in1t.add ;                # file[.port].register, unit.port[.operation]
      ?bool.0 alu.add.3 -> RF.1 ;           # guard; the third operand of the unit's add
      ... ; . . . ;                         # an empty slot, an empty instruction
    DATA data 64 ;
    table: DA 8 0x00000001 -2 ;             # bytes, initial values; data labels are addresses

Long immediates stand in the slots that carry them, the value in one of them: `[imm.0=70000]`,
`[imm.0]`; pieces in slots of their own follow the last bus. `label+4` and `label=12` are values;
the latter's number must be the label's. Numbers are decimal (sign-extended), 0x… or 0b…
(zero-extended). Of directives, `:source "node" ;` is nncc's own: what follows belongs to that
node of the user's model; `:procedure`, `:global` and `:extern` are read and not needed.
What is not supported: bridges, instruction annotations in braces, floats, sizes of strings.
Slots that are missing at the end are empty.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Tree

from nncc.diagnostics import nearest
from nncc.isa.source import Node, SourceReader
from nncc.isa.tta.program import (
    Data,
    Destination,
    Instruction,
    Literal,
    LongImmediate,
    Move,
    PortRef,
    Program,
    RegisterRef,
    Source,
)
from nncc.isa.tta.verify import (
    allocate_ports,
    architecture_of,
    literal_range,
    long_range,
    verify,
)
from nncc.machines.machine import Machine
from nncc.machines.tta.model import (
    AddressSpace,
    Architecture,
    Bus,
    Guard,
    InstructionTemplate,
)

_DIRECTIVES = ("source", "procedure", "global", "extern")
_WORDS = {
    "CODE": "CODE",
    "DATA": "DATA",
    "DA": "DA",
    "NUMBER": "a number",
    "NAME": "a name",
    "PLACE": "a register or port such as RF.0 or alu.in1t.add",
    "GUARD": "a guard such as ?bool.0",
    "STRING": "a text in quotes",
    "EMPTY": "'. . .'",
    "SIZE": "a size such as 2:",
    "OFFSET": "an offset such as +4",
    "$END": "the end of the text",
}


@cache
def _lark() -> Lark:
    grammar = (files(__package__) / "assembly.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", maybe_placeholders=True, propagate_positions=True)


def assemble(text: str, machine: Machine, *, file: str = "<assembly>") -> Program:
    """The program that `text` describes, ports allocated and verified for the machine.

    Raises FrontendError at a place of the text, VerifyError for what only the whole shows.
    """
    assembler = _Assembler(text, architecture_of(machine), machine, file)
    program = allocate_ports(assembler.program(), machine)
    verify(program, machine)
    return program


class _Assembler(SourceReader):
    def __init__(self, text: str, a: Architecture, machine: Machine, file: str) -> None:
        super().__init__(text, file)
        self.a, self.machine = a, machine
        self.labels: dict[str, int] = {}
        self.addresses: dict[str, int] = {}

    def program(self) -> Program:
        tree = self._parsed(_lark(), _WORDS)
        instructions = []
        source = ""
        areas = self._areas(tree)
        for line in (x for area in areas["code"] for x in area.children[2:]):
            if line.data == "directive":
                source = self._directive(line, source)
            elif line.data == "instruction":
                instructions.append(self._instruction(line, source))
        data = tuple(self._data(area, start) for area, start in areas["data"])
        return Program(tuple(instructions), tuple(d for d in data if d.content), dict(self.labels))

    # -- areas and labels ------------------------------------------------------------------
    def _areas(self, tree: Node) -> dict[str, list[Any]]:
        """The areas of code, and those of data with their first addresses; labels are bound."""
        found: dict[str, list[Any]] = {"code": [], "data": []}
        position = 0
        ends: dict[str, int] = {}
        for area in tree.children:
            if area.data == "code":
                start = area.children[1]
                if start is not None and _number(start) != position:
                    raise self._error(f"code continues at {position}, not at {start}", start)
                found["code"].append(area)
                for line in area.children[2:]:
                    if line.data == "label":
                        self._bind(line.children[0], position)
                        self.labels[str(line.children[0])] = position
                    position += line.data == "instruction"
            else:
                _, name, start = area.children[:3]
                address = self._area_start(name, start, ends)
                found["data"].append((area, address))
                for line in area.children[3:]:
                    if line.data == "label":
                        self._bind(line.children[0], address)
                    else:
                        address += self._size(line.children[1], self.a.space[str(name)])
                ends[str(name)] = address
        return found

    def _area_start(self, name: Token, start: Token | None, ends: dict[str, int]) -> int:
        memories = {m.name: m for m in self.a.memories}
        if name not in memories:
            help = nearest(str(name), memories, "memories")
            raise self._error(f"there is no memory {name}", name, help)
        if start is not None:
            return _number(start)
        return ends.get(str(name), memories[str(name)].min_address)

    def _size(self, token: Token, memory: AddressSpace) -> int:
        """The bytes of a chunk of data."""
        size = _number(token)
        if not 0 <= size <= memory.size:
            raise self._error(f"{size} bytes do not fit {memory.name} of {memory.size}", token)
        return size

    def _bind(self, name: Token, value: int) -> None:
        if name in self.addresses:
            raise self._error(f"there are two labels '{name}'", name)
        self.addresses[str(name)] = value

    def _directive(self, line: Node, source: str) -> str:
        name, value = line.children
        if name not in _DIRECTIVES:
            help = nearest(str(name), _DIRECTIVES, "directives")
            raise self._error(f"there is no directive :{name}", name, help)
        if name != "source":
            return source
        if value is None or value.type != "STRING":
            raise self._error('the node stands in quotes: :source "conv1" ;', name)
        return self._string(value)

    def _string(self, token: Token) -> str:
        if token[0] == "'":
            return str(token[1:-1])
        try:
            return str(json.loads(str(token), strict=False))
        except json.JSONDecodeError as error:
            raise self._error(f"not a text: {error.msg}", token) from None

    # -- values ----------------------------------------------------------------------------
    def _value(self, node: Node) -> int:
        first, *rest = node.children
        if first.type == "NUMBER":
            return _number(first)
        if first not in self.addresses:
            help = nearest(str(first), self.addresses, "labels") if self.addresses else ""
            raise self._error(f"there is no label '{first}'", first, help)
        value = self.addresses[str(first)]
        if node.data == "named" and _number(rest[0]) != value:
            raise self._error(f"label '{first}' is {value}, not {rest[0]}", rest[0])
        offset = rest[0] if node.data == "value" and rest else None
        return value + (0 if offset is None else _number(offset))

    def _data(self, area: Node, start: int) -> Data:
        chunks = [self._chunk(x) for x in area.children[3:] if x.data == "chunk"]
        return Data(str(area.children[1]), start, b"".join(chunks))

    def _chunk(self, node: Node) -> bytes:
        _, size_token, *initials = node.children
        size = _number(size_token)
        content = b""
        for one in initials:
            if isinstance(one, Token):
                content += self._string(one).encode("latin-1", "replace")
                continue
            explicit, value_node = one.children
            content += self._initial(explicit, value_node, size, len(initials) == 1)
        if len(content) > size:
            raise self._error(f"{len(content)} bytes of values for {size}", size_token)
        return content.ljust(size, b"\0")

    def _initial(self, explicit: Token | None, node: Node, size: int, single: bool) -> bytes:
        value, first = self._value(node), node.children[0]
        digits = _hex_digits(first)
        if explicit is not None:
            width = int(explicit.rstrip(": \t"))
        else:
            width = size if single or not digits else -(-digits // 2)
        if not 1 <= width <= size:
            raise self._error(f"a value of {width} bytes does not fit {size}", first)
        if not -(1 << (8 * width - 1)) <= value < 1 << (8 * width):
            raise self._error(f"{value} does not fit {width} bytes", first)
        return (value & ((1 << (8 * width)) - 1)).to_bytes(width, "little")

    # -- instructions ----------------------------------------------------------------------
    def _instruction(self, node: Node, source: str) -> Instruction:
        slots: Node
        slots, *outside = node.children
        moves: list[Move] = []
        pieces: dict[str, tuple[RegisterRef, Node]] = {}  # by the bus whose slot they fill
        for k, slot in enumerate(slots.children if isinstance(slots, Tree) else ()):
            if k >= len(self.a.buses):
                raise self._error(f"the machine has {len(self.a.buses)} buses", slot)
            bus = self.a.buses[k]
            if slot.data == "move":
                moves.append(self._move(slot, bus))
            elif slot.data == "piece":
                pieces[bus.name] = (self._register(slot.children[0]), slot)
        extra = [(self._register(piece.children[0]), piece) for piece in outside]
        if not pieces and not extra:
            return Instruction(tuple(moves), source=source)
        template = self._template(pieces, extra, node)
        found = tuple(
            self._immediate(unit, template, [*pieces.values(), *extra]) for unit in template.units
        )
        return Instruction(tuple(moves), found, template.name, source)

    def _register(self, token: Node) -> RegisterRef:
        place = self._place(token, reading=True)
        if not isinstance(place, RegisterRef) or place.file not in self.a.immediate:
            raise self._error(f"'{token}' is no register of an immediate unit", token)
        return place

    def _template(
        self,
        pieces: dict[str, tuple[RegisterRef, Node]],
        extra: list[tuple[RegisterRef, Node]],
        node: Node,
    ) -> InstructionTemplate:
        wanted = {(bus, p.file) for bus, (p, _) in pieces.items()}
        outside = sorted(p.file for p, _ in extra)
        for template in self.a.templates:
            on_buses = {(p.slot, p.unit) for p in template.pieces if p.slot in self.a.bus}
            rest = [p for p in template.pieces if p.slot not in self.a.bus]
            if on_buses == wanted and sorted({p.unit for p in rest}) == outside:
                return template
        raise self._error("no template has long immediates in these slots", node)

    def _immediate(
        self,
        unit: str,
        template: InstructionTemplate,
        pieces: list[tuple[RegisterRef, Node]],
    ) -> LongImmediate:
        own = [(place, slot) for place, slot in pieces if place.file == unit]
        values = [slot.children[1] for _, slot in own if slot.children[1] is not None]
        if len(values) != 1 or len({place.index for place, _ in own}) != 1:
            raise self._error(f"the value of {unit} stands in one of its slots", own[0][1])
        value = self._value(values[0])
        fitting = long_range(self.a, template.name, unit)
        value = _normal(value, fitting, template.width(unit), self.a.immediate[unit].width)
        if value not in fitting:
            what = f"{value} is not in {fitting[0]}..{fitting[-1]}"
            raise self._error(what, own[0][1])
        return LongImmediate(unit, own[0][0].index, value)

    def _move(self, node: Node, bus: Bus) -> Move:
        guard_token, source_node, target = node.children
        guard = None
        if guard_token is not None:
            file, _, index = guard_token[1:].partition(".")
            guard = Guard(file, int(index), guard_token[0] == "!")
        if isinstance(source_node, Token):
            source: Source = self._place(source_node, reading=True)
        else:
            source = self._literal(source_node, bus)
        destination: Destination = self._place(target, reading=False)
        return Move(bus.name, source, destination, guard)

    def _literal(self, node: Node, bus: Bus) -> Literal:
        value, fitting = self._value(node), literal_range(bus)
        if bus.immediate is None:
            raise self._error(f"bus {bus.name} has no immediates", node)
        value = _normal(value, fitting, bus.immediate.width, bus.width)
        if value not in fitting:
            what = f"immediates of bus {bus.name} are {fitting[0]}..{fitting[-1]}"
            raise self._error(f"{value} does not fit: {what}", node, self._immediate_help())
        return Literal(value)

    def _immediate_help(self) -> str:
        units = ", ".join(self.a.immediate)
        return f"long immediates go through {units}: [{units.split(',')[0]}.0=…]" if units else ""

    # -- places ----------------------------------------------------------------------------
    def _place(self, token: Token, *, reading: bool) -> RegisterRef | PortRef:
        owner, *rest = str(token).split(".")
        if owner in self.a.file or owner in self.a.immediate:
            index = rest[-1]
            if not index.isdecimal():
                raise self._error(f"'{token}': the last part is a register's number", token)
            return RegisterRef(owner, int(index), rest[0] if len(rest) == 2 else "")
        unit = self.a.unit.get(owner)
        if unit is None:
            names = [*self.a.unit, *self.a.file, *self.a.immediate]
            help = nearest(owner, names, "units and register files")
            raise self._error(f"there is no unit or register file '{owner}'", token, help)
        name = rest[0]
        if len(rest) == 2 and rest[1].isdecimal() and name in unit.operation:
            binding = unit.operation[name]
            number = int(rest[1])
            if not 1 <= number <= len(binding.operands):
                what = f"operation {name} has operands 1..{len(binding.operands)}"
                raise self._error(what, token)
            port = binding.operands[number - 1].port
            starts = not reading and unit.port[port].triggers
            return PortRef(owner, port, name if starts else "")
        if name not in unit.port:
            known = [*unit.port, *unit.operation]
            help = nearest(name, known, "ports and operations")
            raise self._error(f"{owner} has no port '{name}'", token, help)
        operation = rest[1] if len(rest) == 2 else ""
        if operation and operation not in unit.operation:
            help = nearest(operation, unit.operation, "operations")
            raise self._error(f"{owner} has no operation '{operation}'", token, help)
        if not operation and not reading and unit.port[name].triggers and len(unit.operation) == 1:
            operation = next(iter(unit.operation))
        if reading or not unit.port[name].triggers:
            operation = ""  # allowed there for the reader, without meaning
        return PortRef(owner, name, operation)


def _number(token: str) -> int:
    """A number, or an offset with its sign."""
    return int(
        str(token).replace(" ", "").replace("\t", ""), 0 if "x" in token or "b" in token else 10
    )


def _hex_digits(token: Token) -> int:
    """How many hexadecimal digits a number is written with; 0 for decimals and labels."""
    text = str(token).lstrip("-")
    if token.type != "NUMBER" or text[:2] not in ("0x", "0b"):
        return 0
    digits = len(text) - 2
    return digits if text[1] == "x" else -(-digits // 4)


def _normal(value: int, fitting: range, width: int, full: int) -> int:
    """The number in `fitting` with the same bits, where immediates are as wide as their target."""
    if width == full and value not in fitting and -(1 << (full - 1)) <= value < 1 << full:
        value %= 1 << full
        return value if value in fitting else value - (1 << full)
    return value
