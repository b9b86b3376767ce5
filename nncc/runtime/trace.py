"""What simulated machines did when, as a Chrome trace, which https://ui.perfetto.dev shows.

    trace = Trace()
    line = trace.machine("tpu", frequency_hz=7e8)      one run: it begins where the trace ends
    line.span("matrix unit", "conv1", 1200, 800)       track, name, first cycle, cycles
    line.counter("accumulators", 1200, 64)             a value from this cycle on
    trace.write("t.json")

Machines are processes of the trace, their units, buses and memories are its threads. Times are
microseconds of the machine, one run after the other, in whole nanoseconds: readers cut them to
those, and neighbouring spans would overlap if each were cut on its own.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Trace:
    """Events of any number of runs. `end` is the time, in µs, at which the last one ended."""

    end: float = 0.0
    _events: list[dict[str, Any]] = field(default_factory=list)
    _processes: dict[str, int] = field(default_factory=dict)
    _tracks: dict[tuple[int, str], int] = field(default_factory=dict)

    def machine(self, name: str, frequency_hz: float) -> Timeline:
        """For the events of one run of a machine; its cycle 0 is where the trace ends now."""
        return Timeline(self, self._process(name), self.end, 1e6 / frequency_hz)

    def as_json(self) -> dict[str, Any]:
        """The trace in Chrome's format."""
        return {"traceEvents": list(self._events), "displayTimeUnit": "ns"}

    def write(self, path: str | Path) -> None:
        """Writes the trace as a JSON file."""
        Path(path).write_text(json.dumps(self.as_json()) + "\n", encoding="utf-8")

    def _process(self, name: str) -> int:
        if name not in self._processes:
            pid = self._processes[name] = len(self._processes) + 1
            self._events.append(_named("process_name", name, pid))
        return self._processes[name]

    def _track(self, process: int, name: str) -> int:
        key = (process, name)
        if key not in self._tracks:
            tid = self._tracks[key] = len(self._tracks) + 1
            self._events.append({**_named("thread_name", name, process), "tid": tid})
        return self._tracks[key]

    def _add(self, event: dict[str, Any], end: float) -> None:
        self._events.append(event)
        self.end = max(self.end, end)


@dataclass(frozen=True)
class Timeline:
    """One run of a machine in a trace: cycles count from its beginning."""

    trace: Trace
    process: int
    start: float
    microseconds_per_cycle: float

    def span(self, track: str, name: str, first: int, cycles: int, **args: object) -> None:
        """Something that a unit, a bus or a memory (`track`) did for some cycles.

        Args:
            args: what a click on the event shows besides.
        """
        begin, end = (_nanoseconds(self._time(c)) for c in (first, first + cycles))
        event: dict[str, Any] = {
            "ph": "X", "name": name, "pid": self.process,
            "tid": self.trace._track(self.process, track), "ts": _microseconds(begin),
            "dur": _microseconds(end - begin),
        }  # fmt: skip
        if args:
            event["args"] = args
        self.trace._add(event, self._time(first + cycles))

    def counter(self, name: str, cycle: int, value: float) -> None:
        """A value that holds from a cycle on."""
        at = _microseconds(_nanoseconds(self._time(cycle)))
        event = {"ph": "C", "name": name, "pid": self.process, "ts": at, "args": {name: value}}
        self.trace._add(event, self._time(cycle))

    def _time(self, cycle: int) -> float:
        """When a cycle begins, in µs."""
        return self.start + cycle * self.microseconds_per_cycle


def _nanoseconds(time: float) -> int:
    """The whole nanoseconds of a time in µs; a picosecond for what floats lose."""
    return math.floor(time * 1000 + 1e-3)


def _microseconds(nanoseconds: int) -> float:
    """Nanoseconds as a number that is not less when a reader multiplies it by 1000."""
    found = nanoseconds / 1000
    return found if found * 1000 >= nanoseconds else math.nextafter(found, math.inf)


def _named(kind: str, name: str, process: int) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "args": {"name": name}}
