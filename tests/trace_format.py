"""A strict reader of traces in Chrome's Trace Event Format, as Perfetto imports it.

    tracks = check_trace(json_text)                 {("tta", "vmac"): [Slice, …], …}

Checked: plain JSON (no NaN), the fields that each phase needs with their types, numbers that are
finite and not negative, names for every process and thread, each once, counters whose values are
numbers, and slices of a thread that lie one after the other or inside of each other, in whole
nanoseconds, to which Perfetto cuts times.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

TOP = {"traceEvents", "displayTimeUnit", "otherData", "metadata"}
METADATA = {
    "process_name": ("name", str),
    "thread_name": ("name", str),
    "process_labels": ("labels", str),
    "process_sort_index": ("sort_index", int),
    "thread_sort_index": ("sort_index", int),
}
FIELDS = {
    "M": {"ph", "name", "pid", "tid", "args"},
    "X": {"ph", "name", "pid", "tid", "ts", "dur", "args", "cat", "cname"},
    "C": {"ph", "name", "pid", "tid", "ts", "args", "cat", "id"},
}


@dataclass(frozen=True)
class Slice:
    """A slice in nanoseconds."""

    name: str
    start: int
    end: int


class FormatError(Exception):
    """The trace is not as the format wants it."""


def need(condition: bool, message: str, event: Any = "") -> None:
    if not condition:
        raise FormatError(f"{message}: {event}")


def check_trace(text: str) -> dict[tuple[str, str], list[Slice]]:
    """The slices of each track, by the names of process and thread. Raises FormatError."""

    def no_constant(name: str) -> None:
        raise FormatError(f"{name} is not JSON")

    data = json.loads(text, parse_constant=no_constant)
    need(isinstance(data, dict) and isinstance(data.get("traceEvents"), list), "no traceEvents")
    need(set(data) <= TOP, "unknown fields", set(data) - TOP)
    need(data.get("displayTimeUnit", "ms") in ("ms", "ns"), "displayTimeUnit is ms or ns")
    events = data["traceEvents"]
    for event in events:
        _check_event(event)
    processes = _names(events, "process_name", lambda e: e["pid"])
    threads = _names(events, "thread_name", lambda e: (e["pid"], e["tid"]))
    tracks: dict[tuple[str, str], list[Slice]] = {}
    for event in events:
        need(event["pid"] in processes, "a process without a name", event)
        if event["ph"] != "X":
            continue
        need((event["pid"], event["tid"]) in threads, "a thread without a name", event)
        start, duration = (math.floor(event[k] * 1000) for k in ("ts", "dur"))
        track = processes[event["pid"]], threads[event["pid"], event["tid"]]
        tracks.setdefault(track, []).append(Slice(event["name"], start, start + duration))
    for track, slices in tracks.items():
        _check_nesting(track, slices)
    return tracks


def _check_event(event: Any) -> None:
    need(isinstance(event, dict), "an event is an object", event)
    phase = event.get("ph")
    need(phase in FIELDS, "an unknown phase", event)
    need(set(event) <= FIELDS[phase], "unknown fields", event)
    need(isinstance(event.get("name"), str) and event["name"] != "", "a name is missing", event)
    for field in ("pid", *(("tid",) if phase == "X" else ())):
        need(type(event.get(field)) is int, f"{field} is an integer", event)
    if phase == "M":
        need(event["name"] in METADATA, "unknown metadata", event)
        field, kind = METADATA[event["name"]]
        need(type(event.get("args", {}).get(field)) is kind, f"args.{field} is missing", event)
        need("tid" in event or event["name"].startswith("process"), "tid is missing", event)
        return
    for field in ("ts", *(("dur",) if phase == "X" else ())):
        _check_number(event.get(field), field, event)
        need(event[field] >= 0, f"{field} is negative", event)
    args = event.get("args", {})
    need(isinstance(args, dict), "args is an object", event)
    if phase == "C":
        need(len(args) > 0, "a counter without a value", event)
        for name, value in args.items():
            _check_number(value, name, event)


def _check_number(value: Any, name: str, event: Any) -> None:
    need(type(value) in (int, float) and math.isfinite(value), f"{name} is no number", event)


def _names(events: list[Any], kind: str, key: Any) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for event in events:
        if event["ph"] == "M" and event["name"] == kind:
            need(key(event) not in found, "named twice", event)
            found[key(event)] = event["args"]["name"]
    return found


def _check_nesting(track: tuple[str, str], slices: list[Slice]) -> None:
    around: list[Slice] = []
    for s in sorted(slices, key=lambda s: (s.start, -s.end)):
        while around and around[-1].end <= s.start:
            around.pop()
        if around:
            need(s.end <= around[-1].end, f"{track}: slices overlap", (around[-1], s))
        around.append(s)
