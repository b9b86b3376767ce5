"""From a `Program` of Loops to one of instructions, and to something that runs.

executable = compile_program(program, machine)
write_artifact(program, machine, "out/digits", version=…)
executable = load_artifact("out/digits", version=…)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nncc.backends.tpu.order import Stream, Unwritten
from nncc.backends.tpu.pieces import Pieces
from nncc.backends.tpu.places import Full, Places, calls, literal
from nncc.backends.tpu.residence import Residence
from nncc.backends.tpu.select import Selector
from nncc.backends.tpu.transfers import Transfers
from nncc.backends.tpu.walk import steps
from nncc.diagnostics import TargetError
from nncc.ir.nests import Layout
from nncc.ir.packing import pack, unpack
from nncc.ir.program import Program, Signature
from nncc.isa.tpu import decode, disassemble, encode, listing, verify
from nncc.isa.tpu import program as isa
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import SystolicArray
from nncc.machines.systolic.sizes import array_of
from nncc.runtime import artifact
from nncc.runtime.artifact import signature_json
from nncc.runtime.executable import Executable, check_threads
from nncc.runtime.simulated import Simulated
from nncc.runtime.sizes import from_json, to_json
from nncc.runtime.statistics import Layer, Statistics
from nncc.runtime.tpu import simulate
from nncc.runtime.trace import Trace

STATIC_SIZES = True
CODE_FILE = "program.tpu"


def instructions(program: Program, machine: Machine) -> isa.Program:
    """The instructions of a program. Raises TargetError if it does not fit the machine.

    Where the unified buffer is too small for the memory plan, tensors wait on the host.
    """
    array = array_of(machine)
    places = Places(program, array)
    try:
        result = _selected(program, places, places.planned())
    except Full:
        constants = constant_rows(program, array)
        places = Places(program, array, max(array.unified_rows - constants, 0))
        result = _selected(program, places, places.moved())
    verify(result, machine)
    return result


def _selected(program: Program, places: Places, plan: Residence) -> isa.Program:
    """The instructions, with tensors where a plan puts them. Raises Full."""
    places.check()
    used = [places.calls[k] for k in sorted(plan.large)]
    in_pieces = [name for call in used for name in (*call.reads, *call.writes)]
    transfers = Transfers(places, [*in_pieces, *(m.tensor for moves in plan.moves for m in moves)])
    stream = Stream(places.array, len(transfers.buffers))
    selector = Selector(places, stream, transfers.written)
    is_planned = not places.scratch
    for number, call in enumerate(calls(program)):
        places.at = plan.rows[number]
        for m in plan.moves[number]:
            transfers.move(stream, m, "" if is_planned else call.source)
        if number in plan.large:
            pieces = Pieces(places.calls[number], places, stream, selector, transfers)
            pieces.run(steps(program, number, call, places))
            continue
        for name in places.calls[number].writes:
            transfers.begin(name, places.at[name])
        for step in steps(program, number, call, places):
            selector.add(step)
            places.check()
        selector.finish()
    for m in plan.moves[-1]:
        transfers.move(stream, m, "")
    code, origins = stream.finished()
    buffers = tuple(transfers.buffers.values())
    return isa.Program(code, origins, tuple(places.data), buffers, dict(program.macs))


def stays(program: Program, machine: Machine) -> bool:
    """Whether inputs come and outputs go once, and no other tensor moves to the host and back."""
    array = array_of(machine)
    places, constants = Places(program, array), constant_rows(program, array)
    if places.first + constants <= array.unified_rows:
        return True
    plan = Places(program, array, max(array.unified_rows - constants, 0)).moved()
    moved = [m.tensor for moves in plan.moves for m in moves]
    return not plan.large and sorted(moved) == sorted(places.host)


def constant_rows(program: Program, array: SystolicArray) -> int:
    """Rows that constants take, found by going through the program without writing it."""
    places = Places(program, array)
    selector = Selector(places, Unwritten(array, 0))
    places.at = dict.fromkeys(places.sizes(), 0)
    for number, call in enumerate(calls(program)):
        for step in steps(program, number, call, places):
            selector.add(step)
    return places.rows - places.first


@dataclass(frozen=True)
class _Ends:
    """How the host's arrays become rows and back."""

    layouts: Mapping[str, Layout]

    def to_rows(self, array: np.ndarray, name: str, lanes: int) -> np.ndarray:
        """[rows, lanes] of i8 from a logical array."""
        layout = self.layouts[name]
        physical = pack(array, layout)
        rows = physical.reshape(-1, physical.shape[-1])[:, :lanes]
        if array.dtype == np.uint8:
            rows = rows ^ np.uint8(128)
        return np.ascontiguousarray(rows).view(np.int8)

    def from_rows(self, rows: np.ndarray, name: str, array: np.ndarray) -> None:
        """Fills a logical array."""
        layout = self.layouts[name]
        extents = [literal(e) for e in layout.extents]
        physical = np.zeros((int(np.prod(extents[:-1])), extents[-1]), array.dtype)
        found = rows.view(np.uint8) ^ np.uint8(128) if array.dtype == np.uint8 else rows
        physical[:, : rows.shape[1]] = found
        array[...] = unpack(physical.reshape(extents), layout, array.shape)


def _executable(
    code: isa.Program,
    machine: Machine,
    signature: Signature,
    ends: _Ends,
    report: Mapping[str, Any],
) -> Executable:
    lanes = {b.name: b.shape[1] for b in code.buffers}

    def run(
        sizes: Mapping[str, int],
        inputs: list[np.ndarray],
        outputs: list[np.ndarray],
        trace: Trace | None,
    ) -> Statistics:
        given = {
            name: ends.to_rows(array, name, lanes[name])
            for (name, _), array in zip(signature.inputs, inputs, strict=True)
        }
        outcome = simulate(code, machine, given)
        for (name, _), array in zip(signature.outputs, outputs, strict=True):
            ends.from_rows(outcome.outputs[name], name, array)
        if trace is not None:
            outcome.add_to(trace)
        return outcome.statistics

    return Simulated(signature, report, run)


def compile_program(
    program: Program,
    machine: Machine,
    *,
    threads: int = 1,
    report: Mapping[str, Any] | None = None,
) -> Executable:
    """The program on the simulator. Raises TargetError if it does not fit the machine."""
    check_threads(threads)
    code, facts = _compiled(program, machine)
    ends = _Ends(program.layouts)
    return _executable(code, machine, program.signature, ends, {**(report or {}), **facts})


def levels(program: Program, machine: Machine) -> dict[str, Callable[[], str]]:
    """Assembly and listing, made when asked for."""
    return {
        "asm": lambda: disassemble(instructions(program, machine)),
        "listing": lambda: timed_listing(instructions(program, machine), machine),
    }


def timed_listing(code: isa.Program, machine: Machine) -> str:
    """The listing with the cycles of a run, which are the same for all inputs, and totals."""
    zeros = {b.name: np.zeros(b.shape, b.dtype.numpy) for b in code.buffers if b.role == "in"}
    outcome = simulate(code, machine, zeros, products=False)
    totals = {layer.name: _total(layer) for layer in outcome.statistics.layers}
    return listing(code, outcome.cycles(), totals)


def _total(layer: Layer) -> str:
    """What a layer takes, in a line."""
    moved = ", ".join(
        f"{name} {use.read_bytes}/{use.written_bytes}"
        for name, use in layer.memories.items()
        if use.read_bytes or use.written_bytes
    )
    return (
        f"{layer.cycles} cycles, {layer.macs} MACs, {1e-6 * layer.energy_pj:.4g} µJ; "
        f"bytes read/written: {moved}"
    )


def _compiled(program: Program, machine: Machine) -> tuple[isa.Program, dict[str, Any]]:
    start = time.perf_counter()
    code = instructions(program, machine)
    facts = {
        "target": machine.name,
        "variant": machine.variant,
        "instructions": len(code.instructions),
        "code_bytes": len(encode(code, machine)),
        "weights_bytes": program.memory.weights_bytes,
        "arena_bytes": str(program.memory.arena_bytes),
        "scratch_bytes": sum(b.bytes for b in code.buffers if b.role == "temporary"),
        "emit_seconds": time.perf_counter() - start,
    }
    return code, facts


def write_artifact(
    program: Program,
    machine: Machine,
    folder: str | Path,
    *,
    version: str,
    pipeline: str = "",
    texts: Mapping[str, str] | None = None,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Writes the program as a folder: binary, assembly, listing, machine and manifest."""
    code, facts = _compiled(program, machine)
    files: dict[str, artifact.Content] = {
        CODE_FILE: encode(code, machine),
        "asm.txt": disassemble(code),
        "listing.txt": timed_listing(code, machine),
        **artifact.machine_file(machine),
        **(texts or {}),
    }
    manifest = {
        "name": program.name,
        "backend": machine.backend,
        "target": machine.name,
        "variant": machine.variant,
        "pipeline": pipeline,
        "signature": signature_json(program.signature),
        "layouts": {n: _layout_json(layout) for n, layout in program.layouts.items()},
        "report": {**(report or {}), **facts},
    }
    artifact.write_artifact(folder, manifest, files, version=version)


def load_artifact(folder: str | Path, *, version: str, threads: int = 1) -> Executable:
    """What `write_artifact` wrote. Raises TargetError if it is damaged."""
    check_threads(threads)
    opened = artifact.open_artifact(folder, version=version)
    machine = artifact.machine_of(opened)
    try:
        report = dict(opened.manifest["report"])
        layouts = {str(n): _layout_from(d) for n, d in opened.manifest["layouts"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TargetError(f"the manifest is wrong: {error!r}") from error
    code = decode(opened.read(CODE_FILE), machine)
    return _executable(code, machine, opened.signature(), _Ends(layouts), report)


def _layout_json(layout: Layout) -> dict[str, Any]:
    return {"dims": [to_json(d) for d in layout.dims], "extents": list(layout.extents)}


def _layout_from(data: Any) -> Layout:
    dims = tuple(from_json(d) for d in data["dims"])
    return Layout(dims, tuple(int(e) for e in data["extents"]))
