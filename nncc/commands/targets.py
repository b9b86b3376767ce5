"""List the targets, or describe one; a machine file is checked on the way."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from nncc.commands.options import add_json

if TYPE_CHECKING:
    from nncc.machines.machine import Machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME|FILE")
    parser.add_argument("--pipeline", action="store_true", help="print its preset pipeline only")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from nncc.diagnostics import TargetError
    from nncc.machines import list_machines, load

    if args.name:
        machine = load(args.name)
        if args.pipeline:
            print(machine.pipeline)
        else:
            print(json.dumps(record(machine), indent=1) if args.json else describe(machine))
        return 0
    rows = []
    for name in list_machines():
        try:
            rows.append((name, load(name).doc))
        except TargetError as error:
            rows.append((name, f"not on this computer: {error.message}"))
    if args.json:
        print(json.dumps([{"name": n, "doc": d} for n, d in rows], indent=1))
        return 0
    width = max(len(name) for name, _ in rows)
    for name, doc in rows:
        print(f"{name:{width}}  {' '.join(doc.split())}")
    return 0


def record(machine: Machine) -> dict[str, Any]:
    """A machine for scripts."""
    return {
        "name": machine.name,
        "variant": machine.variant,
        "backend": machine.backend,
        "pipeline": machine.pipeline,
        "frequency_hz": machine.frequency_hz,
        "vector_bytes": machine.vector_bytes,
        "vector_registers": machine.vector_registers,
        "storage": [
            {"name": s.name, "bytes": s.bytes, "managed": s.managed, "above": s.above}
            for s in machine.storage
        ],
        "operations": sorted(machine.operations),
        "features": sorted(machine.features),
        "doc": machine.doc,
    }


def describe(machine: Machine) -> str:
    """A machine as text: memories from the outermost, operations, pipeline."""
    title = machine.name + (f" ({machine.variant})" if machine.variant else "")
    lines = [title, " ".join(machine.doc.split()), "", "Memories:"]
    for s in machine.storage:
        kind = "managed" if s.managed else "cached"
        lines.append(f"    {s.name:10} {_bytes(s.bytes):>10}  {kind}")
    for f in machine.spatial:
        lines.append(f"    {f.name} x {f.count} below {f.below}")
    lines += [
        f"Vectors:    {machine.vector_registers} registers of {machine.vector_bytes} bytes",
        f"Operations: {', '.join(machine.operations) or 'none'}",
        f"Back end:   {machine.backend}",
        f"Pipeline:   {machine.pipeline}",
    ]
    return "\n".join(lines)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"
