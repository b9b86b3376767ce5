"""List the targets, or describe one; a machine file is checked on the way."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nncc.commands.options import add_json

if TYPE_CHECKING:
    from nncc.machines.machine import Machine
    from nncc.machines.systolic.model import SystolicArray
    from nncc.machines.tta.model import Architecture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME|FILE")
    parser.add_argument("--pipeline", action="store_true", help="print its preset pipeline only")
    parser.add_argument("--file", action="store_true", help="print its file, to start another from")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from nncc.diagnostics import Location, NnccError, TargetError
    from nncc.machines import list_machines, load
    from nncc.passes.text import parse

    if args.name:
        machine = load(args.name)
        try:
            parse(machine.pipeline)
        except NnccError as error:
            raise TargetError(
                f"pipeline: {error.message}", Location(args.name), error.help
            ) from None
        if args.pipeline:
            print(machine.pipeline)
        elif args.file:
            print(machine.file[1], end="")
        else:
            print(json.dumps(record(machine), indent=1) if args.json else describe(machine))
        return 0
    if args.pipeline or args.file:
        option = "--pipeline" if args.pipeline else "--file"
        raise NnccError(f"{option} is that of one target", help="name a target before it")
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
    more: dict[str, Any] = {}
    if machine.architecture is not None:
        more["architecture"] = parts(machine.architecture)
    if machine.array is not None:
        more["array"] = asdict(machine.array)
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
        **more,
    }


def parts(a: Architecture) -> dict[str, Any]:
    """A transport-triggered machine for scripts."""
    from nncc.isa.tta.encoding import encoding_of

    return {
        "instruction_bits": encoding_of(a).width,
        "buses": {b.name: b.width for b in a.buses},
        "units": {u.name: [o.operation for o in u.operations] for u in a.unit.values()},
        "register_files": {f.name: [f.size, f.width] for f in a.files},
        "immediate_units": {u.name: [u.size, u.width] for u in a.immediates},
        "delay_slots": a.control.delay_slots,
        "guard_latency": a.control.guard_latency,
        "loop_depth": a.control.loop_depth,
        "loop_buffer": a.control.loop_buffer,
        "memories": {m.name: [m.size, m.banks] for m in a.memories},
    }


def describe(machine: Machine) -> str:
    """A machine as text: memories from the outermost, operations, pipeline."""
    title = machine.name + (f" ({machine.variant})" if machine.variant else "")
    lines = [title, " ".join(machine.doc.split()), "", "Memories:"]
    width = max(10, *(len(s.name) for s in machine.storage))
    for s in machine.storage:
        kind = "managed" if s.managed else "cached"
        lines.append(f"    {s.name:{width}} {_bytes(s.bytes):>10}  {kind}")
    for f in machine.spatial:
        lines.append(f"    {f.name} x {f.count} below {f.below}")
    if machine.array is None:
        lines.append(
            f"Vectors:    {machine.vector_registers} registers of {machine.vector_bytes} bytes"
        )
    lines += [
        *(_array(machine.array, machine.frequency_hz) if machine.array else ()),
        f"Operations: {', '.join(machine.operations) or 'none'}",
        *(_moves(machine.architecture) if machine.architecture else ()),
        f"Back end:   {machine.backend}",
        f"Pipeline:   {machine.pipeline}",
    ]
    return "\n".join(lines)


def _array(a: SystolicArray, frequency: float) -> list[str]:
    """The lines about a systolic array."""
    tile = a.tile_bytes / a.weight_bytes_per_second * frequency
    return [
        f"Array:      {a.rows} x {a.columns}, {2e-12 * a.peak_macs * frequency:.4g} TOPS at "
        f"{1e-6 * frequency:g} MHz; {a.accumulator_rows} accumulator rows of {a.columns} x i32",
        f"Weights:    FIFO of {a.fifo_tiles} tiles, one from memory in {tile:.2f} cycles",
        f"Rows:       {a.unified_rows} of {a.rows} bytes in the unified buffer, host link "
        f"{1e-9 * a.host_bytes_per_second:g} GB/s each way",
    ]


def _moves(a: Architecture) -> list[str]:
    """The lines about buses, units and registers of a transport-triggered machine."""
    from nncc.isa.tta.encoding import encoding_of

    widths = [b.width for b in a.buses]
    buses = ", ".join(f"{widths.count(w)} of {w} bits" for w in dict.fromkeys(widths))
    files = [(f.name, f.size, f.width) for f in a.files]
    files += [(u.name, u.size, u.width) for u in a.immediates]
    registers = ", ".join(f"{name} {size} x {width}" for name, size, width in files)
    c = a.control
    loops = f", {c.loop_depth} nested loops, buffer of {c.loop_buffer}" if c.loop_depth else ""
    lines = [
        f"Buses:      {buses}; an instruction has {encoding_of(a).width} bits",
        f"Registers:  {registers}",
        f"Control:    {c.delay_slots} delay slots, guard latency {c.guard_latency}{loops}",
        "Units:",
    ]
    return lines + [
        f"    {u.name:10} {', '.join(o.operation for o in u.operations)}" for u in a.unit.values()
    ]


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"
