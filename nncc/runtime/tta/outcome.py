"""What simulators of transport-triggered machines give: state, faults, counts.

snapshot = simulator.snapshot()                everything that a program can see or change
fault(program, machine, place, cycle, "…")     the SimError of a program that did wrong
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nncc.diagnostics import SimError
from nncc.isa.tta.printer import instruction_text
from nncc.isa.tta.program import Program
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine
from nncc.runtime.faults import fault as place_of_fault
from nncc.runtime.tta.decoded import Key


@dataclass(frozen=True)
class Snapshot:
    """The state between two cycles. What was never written is absent.

    Args:
        position: the instruction that comes next; `time`: instructions that ran, which are the
            cycles without stalls.
        values: registers and ports as the next cycle reads them; `guards`: the lowest bits of
            registers as the next cycle's guards see them.
        coming: results on their way: (cycle in which they arrive, port) -> value.
        jump: (time after which it is taken, target) of a jump whose delay slots run.
        loops: (first, last instruction, iterations left) of active loops, the innermost last.
        memory: content of each memory with zeros for what was never written, and a byte of 0 or 1
            for each of its bytes that says whether it was.
    """

    position: int
    time: int
    stalls: int
    finished: bool
    values: Mapping[Key, int]
    guards: Mapping[Key, int]
    coming: Mapping[tuple[int, Key], int]
    jump: tuple[int, int] | None
    loops: tuple[tuple[int, int, int], ...]
    memory: Mapping[str, tuple[bytes, bytes]]


def fault(program: Program, machine: Machine, position: int, cycle: int, message: str) -> SimError:
    """The error of a program that did what its machine forbids, with its place."""
    if position >= len(program.instructions):
        return place_of_fault(message, cycle=cycle, position=position)
    instruction = program.instructions[position]
    text = instruction_text(instruction, architecture_of(machine), short=True)
    return place_of_fault(
        message, cycle=cycle, position=position, text=text, node=instruction.source
    )
