"""Whether a program can run on a machine, as far as that is seen without running it.

    verify(program, machine)                    raises VerifyError with everything that is wrong

Fields fit their encoding, rows, lanes, tiles and addresses are there where no stride plays a part,
constants and buffers are inside their memories and apart, the program ends with its only Halt.
What depends on configuration and on the order of units, the simulator finds.
"""

from __future__ import annotations

from collections.abc import Iterator

from nncc.diagnostics import Diagnostic, Location, VerifyError
from nncc.isa.tpu.instructions import (
    Halt,
    Instruction,
    MatrixMultiply,
    ReadHostMemory,
    ReadWeights,
    Requantize,
    WindowSum,
    WriteHostMemory,
    range_problem,
)
from nncc.isa.tpu.program import Program
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import UNIFIED_BUFFER, WEIGHT_MEMORY, SystolicArray
from nncc.machines.systolic.sizes import array_of


def verify(program: Program, machine: Machine) -> None:
    """Raises VerifyError, with one line a problem."""
    a = array_of(machine)
    found = [
        Diagnostic(f"instruction {k}: {problem}", Location(node=program.origin(k).node))
        for k, i in enumerate(program.instructions)
        if (problem := range_problem(i) or _instruction_problem(i, a))
    ]
    found += [Diagnostic(problem) for problem in _program_problems(program)]
    found += [Diagnostic(problem) for problem in _data_problems(program, a)]
    _refuse(found)


def verify_data(program: Program, machine: Machine) -> None:
    """Raises VerifyError if constants or buffers do not fit the machine."""
    _refuse([Diagnostic(problem) for problem in _data_problems(program, array_of(machine))])


def _refuse(found: list[Diagnostic]) -> None:
    if found:
        raise VerifyError("\n".join(d.render() for d in found))


def _instruction_problem(i: Instruction, a: SystolicArray) -> str:
    for field in ("row", "source", "other", "parameters", "table"):
        if getattr(i, field, 0) >= a.unified_rows:
            return f"{field} {getattr(i, field)} is out of range: there are 0..{a.unified_rows - 1}"
    if getattr(i, "accumulator", 0) >= a.accumulator_rows:
        most = a.accumulator_rows - 1
        return f"accumulator {i.accumulator} is out of range: there are 0..{most}"  # type: ignore[attr-defined]
    if isinstance(i, ReadWeights) and i.tile >= a.weight_tiles:
        return f"tile {i.tile} is out of range: there are 0..{a.weight_tiles - 1}"
    if isinstance(i, ReadHostMemory | WriteHostMemory) and i.row + i.rows > a.unified_rows:
        return f"row {i.row + i.rows - 1} is out of range: there are 0..{a.unified_rows - 1}"
    if isinstance(i, MatrixMultiply):
        return ""
    source = a.columns if isinstance(i, Requantize) else a.rows
    target = a.columns if isinstance(i, WindowSum) else a.rows
    for field, most in (("source_lane", source), ("lane", target)):
        if hasattr(i, "lanes") and getattr(i, field, 0) + i.lanes > most:
            return f"lanes {getattr(i, field, 0)}..{getattr(i, field, 0) + i.lanes - 1} of {most}"
    return ""


def _program_problems(program: Program) -> Iterator[str]:
    count = len(program.instructions)
    if program.origins and len(program.origins) != count:
        yield f"there are {len(program.origins)} origins for {count} instructions"
    halts = [k for k, i in enumerate(program.instructions) if isinstance(i, Halt)]
    if halts != [count - 1]:
        yield "the last instruction and no other must be Halt"


def _data_problems(program: Program, a: SystolicArray) -> Iterator[str]:
    units = {
        WEIGHT_MEMORY: (a.tile_bytes, a.weight_tiles),
        UNIFIED_BUFFER: (a.rows, a.unified_rows),
    }
    for memory, (size, most) in units.items():
        areas = [
            (d.address, d.address + -(-len(d.content) // size), f"constants at {d.address}")
            for d in program.data
            if d.memory == memory
        ]
        yield from _overlaps(areas, most, memory)
    for d in program.data:
        if d.memory not in units:
            yield f"constants are in {' or '.join(units)}, not in {d.memory}"
    areas = [(b.address, b.address + b.bytes, f"buffer '{b.name}'") for b in program.buffers]
    yield from _overlaps(areas, a.host_bytes, "host")
    names = [b.name for b in program.buffers]
    for name in dict.fromkeys(n for n in names if names.count(n) > 1):
        yield f"there are two buffers '{name}'"


def _overlaps(areas: list[tuple[int, int, str]], most: int, memory: str) -> Iterator[str]:
    before, last = 0, ""
    for start, end, what in sorted(areas):
        if start < 0 or end > most:
            yield f"{what} of {memory}: {start}..{end - 1} is not in 0..{most - 1}"
        if last and start < before:
            yield f"{what} of {memory} overlaps {last}"
        before, last = max(before, end), what
