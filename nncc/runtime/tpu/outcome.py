"""What a run gives: outputs, statistics, spans, trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nncc.isa.tpu.instructions import DebugTag, InterruptHost, mnemonic
from nncc.isa.tpu.printer import instruction_text
from nncc.isa.tpu.program import Program
from nncc.machines.machine import Machine
from nncc.machines.systolic.sizes import array_of
from nncc.runtime.statistics import Statistics
from nncc.runtime.tpu.accounting import rates
from nncc.runtime.tpu.timing import NON_MATRIX, Span, Wait
from nncc.runtime.trace import Trace


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Args:
        outputs: the program's output buffers by name.
        spans: when units worked, in the order of the units' queues.
        waits: when the matrix unit waited, and why.
        marks: (cycle of issue, position) of debug tags and interrupts.
    """

    program: Program
    machine: Machine
    outputs: Mapping[str, np.ndarray]
    statistics: Statistics
    spans: tuple[Span, ...]
    waits: tuple[Wait, ...]
    marks: tuple[tuple[int, int], ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """Parts of all cycles, as in table 3 of the TPU's paper.

        `array active`, `weight stall`, `weight shift` and `non-matrix` make 1; `raw stall` and
        `input stall` are parts of `non-matrix`.
        """
        total = max(self.statistics.cycles, 1)
        stalls = self.statistics.stalls
        active = sum(layer.active for layer in self.statistics.layers)
        found = {"array active": active, **{c: stalls.get(c, 0) for c in _CAUSES}}
        found["non-matrix"] = sum(stalls.get(c, 0) for c in NON_MATRIX)
        return {name: cycles / total for name, cycles in found.items()}

    @property
    def interrupts(self) -> tuple[int, ...]:
        """Codes that the host got."""
        instructions = (self.program.instructions[p] for _, p in self.marks)
        return tuple(i.code for i in instructions if isinstance(i, InterruptHost))

    def cycles(self) -> dict[int, tuple[int, int]]:
        """When each instruction worked, by position: for listings."""
        return {s.position: (s.start, s.done) for s in self.spans}

    def add_to(self, trace: Trace) -> None:
        """Adds the run to a trace: units, waiting of the matrix unit, layers, marks, and bytes a
        cycle of the memories."""
        program = self.program
        line = trace.machine(self.statistics.machine, self.statistics.frequency_hz)
        for s in self.spans:
            i, origin = program.instructions[s.position], program.origin(s.position)
            details = {
                "instruction": s.position, "text": instruction_text(i), "node": origin.node,
                "tensor": origin.tensor, "tile": list(origin.tile), "complete": s.done,
            }  # fmt: skip
            name = f"{mnemonic(type(i))} {origin}".rstrip()
            line.span(str(s.unit), name, s.start, s.end - s.start, **details)
        for w in self.waits:
            details = {"instruction": w.position, "node": program.origin(w.position).node}
            line.span("matrix waits", w.cause, w.start, w.end - w.start, **details)
        for cycle, position in self.marks:
            i = program.instructions[position]
            track = "tags" if isinstance(i, DebugTag) else "interrupts"
            line.span(track, instruction_text(i), cycle, 1, instruction=position)
        for node, (start, end) in self._layers().items():
            line.span(f"layer {node}", node, start, end - start)
        for memory, cycle, rate in rates(program, self.spans, array_of(self.machine)):
            line.counter(f"{memory} bytes a cycle", cycle, rate)

    def _layers(self) -> dict[str, tuple[int, int]]:
        """From the first to the last cycle of each node's instructions."""
        found: dict[str, tuple[int, int]] = {}
        for s in self.spans:
            if node := self.program.origin(s.position).node:
                start, end = found.get(node, (s.start, s.done))
                found[node] = min(start, s.start), max(end, s.done)
        return found


_CAUSES = ("weight stall", "weight shift", "raw stall", "input stall")
