"""Operations over registers, in loops and branches: what is selected, allocated and scheduled.

    p = Register("scalar")
    Loop(72, [Op("ld32", (p,), a, memory=Access("dmem", "x")), Op("add", (p, 4), p)])

A register is virtual until `nncc.backends.tta.allocate` gives it a place; it may be written more
than once. Integers are literals: 32-bit words, signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal as Choice

Kind = Choice["scalar", "vector"]

COPY = "copy"  # result = input; no operation of the machine but a move
GUARD = "guard"  # (word, register file, number): the word's lowest bit is what guards see
LITERAL = "literal"  # result = a number too long for the slot of a bus

_numbers = iter(range(1 << 60))


class Register:
    """A place for a value: virtual (`index` < 0), or number `index` of its register file.

    Args:
        kind: a word of 32 bits or a vector.
        is_short: made by spilling; its life is a few operations, it is never spilled itself.
    """

    __slots__ = ("index", "is_short", "kind", "number")

    def __init__(self, kind: Kind, *, is_short: bool = False, index: int = -1) -> None:
        self.kind: Kind = kind
        self.is_short = is_short
        self.index = index
        self.number = next(_numbers)

    def __repr__(self) -> str:
        letter = self.kind[0]
        return f"{letter}{self.index}" if self.index >= 0 else f"%{letter}{self.number}"


Operand = Register | int


@dataclass(frozen=True, slots=True)
class Access:
    """What a load or store touches: a memory, and a region of it; different regions are disjoint.

    `constant`: nothing ever writes there. `literal`: what stands there are numbers of the code,
    not a tensor.
    """

    space: str
    region: str
    constant: bool = False
    literal: bool = False


@dataclass(eq=False)
class Op:
    """`result = operation(inputs)`, inputs in the order of the operation's record."""

    operation: str
    inputs: tuple[Operand, ...]
    result: Register | None = None
    memory: Access | None = None
    source: str = ""

    @property
    def registers(self) -> tuple[Register, ...]:
        return tuple(i for i in self.inputs if isinstance(i, Register))

    def __repr__(self) -> str:
        text = f"{self.operation}({', '.join(map(str, self.inputs))})"
        return f"{self.result} = {text}" if self.result else text


@dataclass(eq=False)
class Loop:
    """The body `trips` times. A register must hold at least 1.

    Whether it is a hardware loop is decided before registers are allocated. If not, `counter`
    counts the rounds down, and the body ends with code that sets the lowest bit of `again` to 1
    if there is another round.
    """

    trips: int | Register
    body: list[Item]
    source: str = ""
    counter: Register = field(default_factory=lambda: Register("scalar"))
    in_hardware: bool = False
    again: Register | None = None


@dataclass(eq=False)
class Branch:
    """`then` if the lowest bit of `condition` is 1, else `otherwise`."""

    condition: Operand
    then: list[Item]
    otherwise: list[Item]
    source: str = ""


Item = Op | Loop | Branch


def walk(items: list[Item]) -> Iterator[Op]:
    """Every operation in the order of the text."""
    for item in items:
        if isinstance(item, Op):
            yield item
        elif isinstance(item, Loop):
            yield from walk(item.body)
        else:
            yield from walk(item.then)
            yield from walk(item.otherwise)


def text(items: list[Item], indent: str = "") -> str:
    """For people."""
    lines = []
    for item in items:
        if isinstance(item, Op):
            lines.append(f"{indent}{item}")
        elif isinstance(item, Loop):
            where = "hardware " if item.in_hardware else ""
            lines.append(f"{indent}{where}loop {item.trips} {{")
            lines.append(text(item.body, indent + "  "))
            lines.append(f"{indent}}}")
        else:
            lines.append(f"{indent}if {item.condition} {{")
            lines.append(text(item.then, indent + "  "))
            lines.append(f"{indent}}} else {{")
            lines.append(text(item.otherwise, indent + "  "))
            lines.append(f"{indent}}}")
    return "\n".join(lines)
