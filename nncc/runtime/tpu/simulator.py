"""Running a program: `simulate(program, machine, {"image": array})`.

What a program means is what its instructions do one after the other, in the order of the text
(`execute`): for a *legal* program every order that its synchronization allows gives the same. A
program is legal if any two instructions of different units that use the same row, one of them
writing it, are ordered: by Sync, SyncHost, or a chain of them (host buffers likewise, as a
whole). Weights are ordered by the FIFO. Time plays no part in this: a program that is legal stays
so with other latencies and bandwidths. A row counts as a whole, whatever lanes are used.

What stops the simulator with a SimError that names cycle, instruction and source node: unordered
accesses; addresses, lanes and tiles out of range; reading lanes, tiles or host bytes that were
never written; a target with the same row twice, or one that is a source of the same
instruction at another point; an empty FIFO; an accumulator that overflows; a deadlock; no Halt.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncc.diagnostics import SimError
from nncc.isa.tpu.instructions import (
    DebugTag,
    Halt,
    InterruptHost,
    SyncHost,
    range_problem,
)
from nncc.isa.tpu.printer import instruction_text
from nncc.isa.tpu.program import Program
from nncc.isa.tpu.verify import verify_data
from nncc.machines.machine import Machine
from nncc.runtime.faults import fault
from nncc.runtime.tpu.accounting import Books
from nncc.runtime.tpu.execute import Memories
from nncc.runtime.tpu.outcome import Outcome
from nncc.runtime.tpu.points import points_of
from nncc.runtime.tpu.rows import Violation
from nncc.runtime.tpu.timing import StrictTiming, Timing


def simulate(
    program: Program,
    machine: Machine,
    inputs: Mapping[str, np.ndarray],
    *,
    strict: bool = False,
    products: bool = True,
) -> Outcome:
    """Runs a program to its Halt.

    Args:
        inputs: an array for each input buffer, of its physical shape.
        strict: time without overlap (see `StrictTiming`).
        products: whether the array multiplies. Without, sums are zeros and outputs are wrong, but
            times, bytes and energy are the same, much sooner.

    Raises SimError if the program does what its machine forbids, VerifyError if its constants or
    buffers do not fit the machine, CheckError if the inputs do not fit.
    """
    verify_data(program, machine)
    memories = Memories(program, machine, inputs, products=products)
    timing = StrictTiming(machine) if strict else Timing(machine)
    books = Books(program, machine)
    marks = []
    sized = zip(program.instructions, points_of(program), strict=True)
    for position, (instruction, points) in enumerate(sized):
        try:
            if problem := range_problem(instruction):
                raise Violation(problem)
            memories.execute(instruction)
            timing.issue(position, instruction, points)
            if isinstance(instruction, SyncHost | Halt):
                timing.wait()
            if isinstance(instruction, Halt):
                outputs = memories.host.outputs()
                break
        except Violation as v:
            raise _fault(program, timing.now, position, str(v)) from None
        if instruction.unit is not None:
            books.enter(position, instruction, points)
        elif isinstance(instruction, DebugTag | InterruptHost):
            marks.append((timing.now, position))
    else:
        raise _fault(program, timing.now, len(program.instructions), "the program has no Halt")
    spans = tuple(timing.spans)
    statistics = books.statistics(spans, timing.waits, timing.end)
    return Outcome(program, machine, outputs, statistics, spans, tuple(timing.waits), tuple(marks))


def _fault(program: Program, cycle: int, position: int, message: str) -> SimError:
    text = node = ""
    if position < len(program.instructions):
        text = instruction_text(program.instructions[position])
        node = program.origin(position).node
    return fault(message, cycle=cycle, position=position, text=text, node=node)
