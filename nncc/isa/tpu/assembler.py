"""Assembly text to programs.

    .buffer in "image" i8[1,28,28,1] 0          role, name, type, address in the host's memory
    .buffer out "y" i8[64,8] 784
    .macs "conv1" 156800                        multiply-accumulates that a node needs
    .data unified_buffer 1024                   constants from a row (or tile) on
      hex 00ff12
    .origin "conv1" "y" 0 1                     what the next instructions work for: node, tensor,
      read_weights tile=0                       tile
      matrix_multiply row=0 accumulator=0 width=64 next_tile
      set_configuration register=in_1 value=28
      sync waiting=activation on=matrix
      halt

An instruction is a name and its fields, `name=value`, or just `name` for flags; fields with a
default may be left out (see `nncc.isa.tpu.instructions`). Numbers are decimal or 0x….
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token

from nncc.diagnostics import nearest
from nncc.ir.types import DTYPES
from nncc.isa.source import Node, SourceReader
from nncc.isa.tpu.instructions import (
    INSTRUCTIONS,
    Instruction,
    Register,
    SetConfiguration,
    Sync,
    Unit,
    fields_of,
    mnemonic,
    range_problem,
)
from nncc.isa.tpu.program import NO_ORIGIN, ROLES, Data, HostBuffer, Origin, Program
from nncc.isa.tpu.verify import verify
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import UNIFIED_BUFFER, WEIGHT_MEMORY

_KINDS = {mnemonic(kind): kind for kind in INSTRUCTIONS}
_UNITS = {u.name.lower(): u for u in Unit}
_NAMES: dict[tuple[type[Instruction], str], Mapping[str, Enum]] = {
    (SetConfiguration, "register"): {r.name.lower(): r for r in Register},
    (Sync, "waiting"): _UNITS,
    (Sync, "on"): _UNITS,
}
_WORDS = {
    "NUMBER": "a number", "NAME": "a name", "STRING": "a text in quotes", "HEX": "hex and bytes",
    "_NL": "the end of the line", "$END": "the end of the text",
}  # fmt: skip


@cache
def _lark() -> Lark:
    grammar = (files(__package__) / "assembly.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", maybe_placeholders=False, propagate_positions=True)


def assemble(text: str, machine: Machine, *, file: str = "<assembly>") -> Program:
    """The program that `text` describes, verified for the machine.

    Raises FrontendError at a place of the text, VerifyError for what only the whole shows.
    """
    program = _Assembler(text, file).program()
    verify(program, machine)
    return program


class _Assembler(SourceReader):
    def __init__(self, text: str, file: str) -> None:
        super().__init__(text, file)
        self.instructions: list[Instruction] = []
        self.origins: list[Origin] = []
        self.origin: Origin | None = None
        self.data: list[tuple[str, int, bytearray]] = []
        self.buffers: list[HostBuffer] = []
        self.macs: dict[str, int] = {}

    def program(self) -> Program:
        for item in self._parsed(_lark(), _WORDS).children:
            getattr(self, f"_{item.data}")(item)
        origins = self.origins if self.origin is not None else []
        return Program(
            tuple(self.instructions),
            tuple(origins),
            tuple(Data(memory, address, bytes(content)) for memory, address, content in self.data),
            tuple(self.buffers),
            self.macs,
        )

    # -- directives ------------------------------------------------------------------------

    def _buffer(self, item: Node) -> None:
        role, name, dtype, *shape, address = item.children
        if role not in ROLES:
            raise self._error(f"'{role}' is no role", role, nearest(role, ROLES, "roles"))
        if dtype not in DTYPES:
            raise self._error(f"'{dtype}' is no dtype", dtype, nearest(dtype, DTYPES, "dtypes"))
        extents = tuple(self._whole(s) for s in shape)
        place = self._whole(address)
        found = HostBuffer(self._text(name), str(role), place, DTYPES[dtype], extents)  # type: ignore[arg-type]
        self.buffers.append(found)

    def _macs(self, item: Node) -> None:
        node, count = item.children
        if self._text(node) in self.macs:
            raise self._error("this node has a number of MACs already", node)
        self.macs[self._text(node)] = self._whole(count)

    def _data(self, item: Node) -> None:
        memory, address = item.children
        known = (WEIGHT_MEMORY, UNIFIED_BUFFER)
        if memory not in known:
            help = nearest(memory, known, "memories")
            raise self._error(f"'{memory}' holds no constants", memory, help)
        self.data.append((str(memory), self._whole(address), bytearray()))

    def _hex(self, item: Node) -> None:
        (digits,) = item.children
        if not self.data:
            raise self._error("bytes stand below .data", digits)
        content = digits.split()[1]
        if len(content) % 2:
            raise self._error("a byte has two digits", digits)
        self.data[-1][2].extend(bytes.fromhex(content))

    def _origin(self, item: Node) -> None:
        node, tensor, *tile = item.children
        if self.origin is None:  # what stood before has none
            self.origins = [NO_ORIGIN] * len(self.instructions)
        numbers = tuple(int(t, 0) for t in tile)
        self.origin = Origin(self._text(node), self._text(tensor), numbers)

    # -- instructions ----------------------------------------------------------------------

    def _instruction(self, item: Node) -> None:
        name, *given = item.children
        if name not in _KINDS:
            help = nearest(name, _KINDS, "instructions")
            raise self._error(f"there is no instruction '{name}'", name, help)
        kind = _KINDS[name]
        known = {f.name: f for f in fields_of(kind)}
        values: dict[str, Any] = {}
        for field in given:
            label = field.children[0]
            if label not in known:
                help = nearest(label, known, "fields") if known else ""
                raise self._error(f"{name} has no field '{label}'", label, help)
            if label in values:
                raise self._error(f"{label} is there twice", label)
            values[str(label)] = self._value(kind, field, bool(known[label].metadata))
        missing = [n for n, f in known.items() if n not in values and _required(f)]
        if missing:
            raise self._error(f"{name} needs {', '.join(missing)}", name)
        instruction = kind(**values)
        if problem := range_problem(instruction):
            wrong = next((f for f in given if problem.startswith(f"{f.children[0]} is")), name)
            raise self._error(problem, wrong)
        self.instructions.append(instruction)
        if self.origin is not None:
            self.origins.append(self.origin)

    def _value(self, kind: type[Instruction], field: Node, number: bool) -> Any:
        label, *rest = field.children
        names = _NAMES.get((kind, str(label)))
        if names is None and not number:  # a flag
            if rest:
                raise self._error(f"{label} is a flag and has no value", rest[0])
            return True
        if not rest:
            raise self._error(f"{label} needs a value", label)
        (value,) = rest
        if names is None:
            if value.type != "NUMBER":
                raise self._error(f"{label} is a number, not '{value}'", value)
            return int(value, 0)
        if value not in names:
            help = nearest(value, names, "names")
            raise self._error(f"{label} cannot be '{value}'", value, help)
        return names[value]

    def _whole(self, token: Token) -> int:
        found = int(token, 0)
        if found < 0:
            raise self._error("this is a number of at least 0", token)
        return found

    def _text(self, token: Token) -> str:
        try:
            return str(json.loads(token))
        except ValueError:
            raise self._error("this text has an escape that JSON does not know", token) from None


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING
