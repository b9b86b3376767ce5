"""Programs of transport-triggered machines: instructions of moves, data, labels.

    Program((
        Instruction((Move("B1", Literal(3), PortRef("alu", "in2")),)),
        Instruction((Move("B1", RegisterRef("RF", 0, "rd"), PortRef("alu", "in1t", "add")),)),
        Instruction((Move("B1", PortRef("alu", "out1"), RegisterRef("RF", 1, "wr")),)),
    ))

A program is bound to a machine only by the names in it; `nncc.isa.tta.verify` checks them. The
ports of register files may be left out ("") until `allocate_ports` of that module fills them in.
Addresses of instructions are their positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nncc.machines.tta.model import Guard


@dataclass(frozen=True, slots=True)
class RegisterRef:
    """A register of a register file or, as a source, of an immediate unit."""

    file: str
    index: int
    port: str = ""

    def __str__(self) -> str:
        return f"{self.file}.{self.port}.{self.index}" if self.port else f"{self.file}.{self.index}"


@dataclass(frozen=True, slots=True)
class PortRef:
    """A port of a function unit or of the control unit.

    As a destination that triggers, it names the operation to start.
    """

    unit: str
    port: str
    operation: str = ""

    def __str__(self) -> str:
        return f"{self.unit}.{self.port}" + (f".{self.operation}" if self.operation else "")


@dataclass(frozen=True, slots=True)
class Literal:
    """A short immediate: the bus carries the value's lowest bits, -1 is all ones.

    What a bus can hold follows from the width and extension of its short immediates.
    """

    value: int

    def __str__(self) -> str:
        return str(self.value)


Source = RegisterRef | PortRef | Literal
Destination = RegisterRef | PortRef


@dataclass(frozen=True, slots=True)
class Move:
    """A transport on `bus`; with a guard it happens only if the guard holds."""

    bus: str
    source: Source
    destination: Destination
    guard: Guard | None = None

    def __str__(self) -> str:
        guard = f"{self.guard} " if self.guard else ""
        return f"{guard}{self.source} -> {self.destination}"


@dataclass(frozen=True, slots=True)
class LongImmediate:
    """`value` written to register `index` of an immediate unit, by the instruction itself."""

    unit: str
    index: int
    value: int


@dataclass(frozen=True, slots=True)
class Instruction:
    """What happens in one cycle.

    Args:
        moves: at most one a bus, in the order of the machine's buses.
        template: the form of the instruction if it holds long immediates: one for each unit that
            the template writes.
        source: the node of the user's model that it works for ("" for none).
        comment: for listings; no part of equality.
    """

    moves: tuple[Move, ...] = ()
    immediates: tuple[LongImmediate, ...] = ()
    template: str = ""
    source: str = ""
    comment: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Data:
    """Initial content of a memory from `address` on. Everything else there is undefined."""

    space: str
    address: int
    content: bytes


@dataclass(frozen=True)
class Program:
    """A program; it starts with instruction 0.

    Args:
        labels: names of instructions (their positions; one past the last is allowed) for text,
            listings and callers.
    """

    instructions: tuple[Instruction, ...]
    data: tuple[Data, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
