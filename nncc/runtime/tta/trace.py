"""What happened in each cycle, as a trace that Perfetto and Chrome open.

    trace = Trace(program, machine)
    Interpreter(program, machine, trace.observe).run()
    Path("t.json").write_text(trace.json())

One row a source node ("layer"), unit, bus, and one for cycles in which the machine was locked. A
cycle is shown as a microsecond. Of a long run, the first `limit` events are kept.
"""

from __future__ import annotations

import json
from typing import Any

from nncc.isa.tta.program import Program
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine
from nncc.runtime.tta.decoded import DecodedMove, spelled

LAYERS, LOCKED = "layers", "locked"


class Trace:
    """The events of a run.

    Args:
        limit: how many are kept; `dropped` counts the others.
    """

    def __init__(self, program: Program, machine: Machine, limit: int = 1_000_000) -> None:
        a = architecture_of(machine)
        self.program = program
        self.limit = limit
        self.dropped = 0
        rows = [LAYERS, *a.unit, *(b.name for b in a.buses), LOCKED]
        self.rows = {name: k for k, name in enumerate(rows)}
        self.events: list[dict[str, Any]] = []
        self.layer: dict[str, Any] | None = None

    def observe(
        self, cycle: int, position: int, moves: tuple[DecodedMove, ...], locked: int
    ) -> None:
        """Takes a cycle: an `Interpreter`'s observer."""
        source = self.program.instructions[position].source
        if self.layer is None or self.layer["name"] != source:
            self.layer = self._event(LAYERS, source, cycle, 0, position)
        if self.layer is not None:
            self.layer["dur"] = cycle + 1 + locked - self.layer["ts"]
        for m in moves:
            origin = m.literal if m.source is None else spelled(m.source)
            self._event(m.bus, f"{origin} -> {spelled(m.destination)}", cycle, 1, position)
            if m.trigger is not None:
                name = m.trigger.operation.name
                self._event(m.trigger.unit, name, cycle, max(1, m.trigger.latency), position)
        if locked:
            self._event(LOCKED, "bank conflict", cycle + 1, locked, position)

    def _event(
        self, row: str, name: str, cycle: int, duration: int, position: int
    ) -> dict[str, Any] | None:
        if len(self.events) >= self.limit:
            self.dropped += 1
            return None
        event = {
            "ph": "X",
            "name": name,
            "ts": cycle,
            "dur": duration,
            "pid": 0,
            "tid": self.rows[row],
            "args": {"instruction": position},
        }
        self.events.append(event)
        return event

    def json(self) -> str:
        """The trace in Chrome's format of trace events."""
        names = [
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": k, "args": {"name": name}}
            for name, k in self.rows.items()
        ]
        order = [
            {"ph": "M", "name": "thread_sort_index", "pid": 0, "tid": k, "args": {"sort_index": k}}
            for k in self.rows.values()
        ]
        content = {"traceEvents": [*names, *order, *self.events], "displayTimeUnit": "ns"}
        return json.dumps(content)
