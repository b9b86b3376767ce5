"""What happens in each cycle, as spans of a trace: layers, units, buses, memories, locked cycles.

    watch = Watch(trace.machine("tta", frequency_hz), program)
    simulator = Interpreter(program, machine, watch.observe)
    while not watch.full and not simulator.finished: simulator.step()
    watch.finish(cycles)

What is the same in neighbouring cycles is one span. A long run is cut after `CYCLES` cycles or
`SPANS` spans, and the trace says so: a span of the track "trace" covers what is left out.
"""

from __future__ import annotations

from nncc.isa.tta.program import Program
from nncc.runtime.trace import Timeline
from nncc.runtime.tta.decoded import DecodedMove, spelled

CYCLES = 200_000
SPANS = 400_000
LAYERS, LOCKED, TRACE = "layers", "locked", "trace"
NO_LAYER = "no layer"


class Watch:
    """Turns the cycles of an interpreter, whose observer it is, into spans of a timeline.

    Args:
        cycles, spans: how many of them it takes at most, but for what the last cycle adds.
    """

    def __init__(
        self, line: Timeline, program: Program, *, cycles: int = CYCLES, spans: int = SPANS
    ) -> None:
        self.line, self.program = line, program
        self.cycles, self.spans = cycles, spans
        self.end = 0  # the first cycle that was not seen
        self._open: dict[str, tuple[str, int, int]] = {}  # by track: name, first cycle, end
        self._written = 0

    @property
    def full(self) -> bool:
        """Whether it takes no further cycles."""
        return self.end >= self.cycles or self._written >= self.spans

    def observe(
        self, cycle: int, position: int, moves: tuple[DecodedMove, ...], locked: int
    ) -> None:
        """Takes a cycle, if it is not full."""
        if self.full:
            return
        self.end = cycle + 1 + locked
        source = self.program.instructions[position].source or NO_LAYER
        self._span(LAYERS, source, cycle, 1 + locked)
        accesses: dict[str, list[str]] = {}
        for m in moves:
            origin = str(m.literal) if m.source is None else spelled(m.source)
            self._span(m.bus, f"{origin} -> {spelled(m.destination)}", cycle, 1)
            if m.trigger is None:
                continue
            operation = m.trigger.operation.name
            self._span(m.trigger.unit, operation, cycle, 1)
            if m.trigger.space is not None:
                accesses.setdefault(m.trigger.space.name, []).append(operation)
        for memory, operations in accesses.items():
            self._span(memory, " + ".join(operations), cycle, 1 + locked)
        if locked:
            self._span(LOCKED, "bank conflict", cycle + 1, locked)

    def finish(self, cycles: int) -> None:
        """Writes what is open; of a run of `cycles`, says what was left out."""
        for track in tuple(self._open):
            self._close(track)
        if cycles > self.end:
            name = f"cut: {cycles - self.end} of {cycles} cycles are not in this trace"
            self.line.span(TRACE, name, self.end, cycles - self.end)

    def _span(self, track: str, name: str, first: int, cycles: int) -> None:
        held = self._open.get(track)
        if held is not None and held[0] == name and held[2] == first:
            self._open[track] = name, held[1], first + cycles
            return
        if held is not None:
            self._close(track)
        self._open[track] = name, first, first + cycles

    def _close(self, track: str) -> None:
        name, first, end = self._open.pop(track)
        self.line.span(track, name, first, end - first)
        self._written += 1
