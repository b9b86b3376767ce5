"""How large the work of each instruction of a program is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nncc.isa.tpu.instructions import (
    INITIAL,
    PoolMax,
    ReadHostMemory,
    Register,
    SetConfiguration,
    WindowSum,
    WriteHostMemory,
)
from nncc.isa.tpu.program import Program


@dataclass(frozen=True, slots=True)
class Points:
    """Points of an instruction's box (or rows that it moves), and of its window."""

    box: int = 1
    window: int = 1


def points_of(program: Program) -> Iterator[Points]:
    """The points of one instruction after the other."""
    configuration = list(INITIAL)
    for i in program.instructions:
        if isinstance(i, SetConfiguration):
            configuration[i.register] = i.value
        if isinstance(i, ReadHostMemory | WriteHostMemory):
            yield Points(i.rows)
            continue
        box = getattr(i, "height", 1) * getattr(i, "width", 1)
        window = 1
        if isinstance(i, PoolMax | WindowSum):
            window = configuration[Register.WINDOW_HEIGHT] * configuration[Register.WINDOW_WIDTH]
        yield Points(box, window)
