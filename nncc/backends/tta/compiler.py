"""From a `Program` to code of a transport-triggered machine and its run on a simulator.

    compiled = compile_code(program, machine)       .program: nncc.isa.tta.program.Program
    executable = compile_program(program, machine)

Programs have no named sizes and no state.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nncc.backends.tta.allocate import allocate
from nncc.backends.tta.control import with_counters
from nncc.backends.tta.link import link
from nncc.backends.tta.lower import lowered
from nncc.backends.tta.memory import Blocks, Memory
from nncc.backends.tta.model import Model
from nncc.backends.tta.optimize import optimize
from nncc.backends.tta.own import Own, own_traffic
from nncc.backends.tta.select import Patterns
from nncc.backends.tta.words import Words
from nncc.diagnostics import TargetError
from nncc.ir.program import MAIN, Program
from nncc.isa.tta import program as isa
from nncc.isa.tta.binary import decode, encode
from nncc.isa.tta.printer import disassemble, listing
from nncc.isa.tta.verify import allocate_ports, verify
from nncc.machines.machine import Machine
from nncc.runtime import artifact
from nncc.runtime.executable import Executable, check_threads
from nncc.runtime.simulated import Simulated
from nncc.runtime.tta.model import Places, SimulatedModel

STATIC_SIZES = True
BINARY = "program.tta"


@dataclass(frozen=True)
class Code:
    """A model as a program, and where a caller puts inputs and finds outputs.

    Args:
        used: bytes of each memory.
        own: what the code itself moves: literal vectors, vectors in memory, spilled registers.
        by_lanes: vector expressions that became scalar loops, by node; see `lower.Lowered`.
    """

    program: isa.Program
    places: Places
    used: Mapping[str, int]
    own: Own
    by_lanes: Mapping[str, int]


def compile_code(
    program: Program, machine: Machine, sizes: Mapping[str, int] | None = None, root: str = MAIN
) -> Code:
    """The code of a model; its named sizes, if there are any, have these values.

    Raises TargetError for what the machine cannot do or hold.
    """
    if program.memory.state_bytes != 0:
        raise TargetError("the model has state, which stays on the host")
    sizes = dict(sizes or {})
    model = Model(machine)
    memory = Memory(machine, model.a)
    blocks = Blocks(program, memory, sizes)
    code = lowered(program.functions, root, blocks, machine, memory, sizes)
    words = Words(machine, Patterns(machine))
    items = optimize(code.items, model, words)
    items = with_counters(items, model, words)
    allocation = allocate(items, model, memory)
    memory.check()
    found = allocate_ports(link(allocation, model, _data(memory)), machine)
    verify(found, machine)
    count = len(program.signature.inputs)
    starts = [r.addresses[memory.data] for r in blocks.arguments.values()]
    end = memory.ends[memory.data] - model.a.space[memory.data].min_address
    used = {s.name: memory.ends[s.name] - s.min_address for s in model.a.memories}
    places = Places(memory.data, tuple(starts[:count]), tuple(starts[count:]), end)
    tensors = frozenset(r.name for r in memory.regions if r.is_tensor)
    own = own_traffic(allocation.items, tensors, machine)
    return Code(found, places, used, own, code.by_lanes)


def _data(memory: Memory) -> tuple[isa.Data, ...]:
    """Constants, with zeros behind them (vectors at their ends read these too), and the zeros that
    the memory of intermediate tensors has at first."""
    found = []
    for r in memory.regions:
        for space, address in r.addresses.items():
            if r.content:
                size = -(-len(r.content) // memory.alignment) * memory.alignment
                found.append(isa.Data(space, address, r.content.ljust(size, b"\0")))
    start, end = memory.cleared
    if end > start:
        found.append(isa.Data(memory.data, start, bytes(end - start)))
    return tuple(sorted(found, key=lambda d: (d.space, d.address)))


def compile_program(
    program: Program,
    machine: Machine,
    *,
    threads: int = 1,
    report: Mapping[str, Any] | None = None,
) -> Executable:
    """The model on the simulator of its machine. Raises TargetError if it does not fit."""
    check_threads(threads)
    code, facts, _ = _compiled(program, machine)
    run = SimulatedModel(code.program, machine, code.places)
    return Simulated(program.signature, {**(report or {}), **facts}, run)


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
    """Writes the model as a folder: binary, assembly, listing, the machine's file, manifest."""
    code, facts, bits = _compiled(program, machine)
    files: dict[str, artifact.Content] = {
        **artifact.machine_file(machine),
        BINARY: bits,
        "asm.txt": disassemble(code.program, machine),
        "listing.txt": listing(code.program, machine),
        **(texts or {}),
    }
    manifest = {
        "name": program.name, "backend": "tta", "target": machine.name,
        "variant": machine.variant, "pipeline": pipeline,
        "signature": artifact.signature_json(program.signature),
        "places": code.places.as_json(), "report": {**(report or {}), **facts},
    }  # fmt: skip
    artifact.write_artifact(folder, manifest, files, version=version)


def load_artifact(folder: str | Path, *, version: str, threads: int = 1) -> Executable:
    """The model of an artifact on the simulator. Raises TargetError if it is damaged."""
    check_threads(threads)
    opened = artifact.open_artifact(folder, version=version)
    machine = artifact.machine_of(opened)
    places = Places.from_json(opened.manifest.get("places"))
    report = opened.manifest.get("report")
    if not isinstance(report, dict):
        raise TargetError("the manifest has no report")
    program = decode(opened.read(BINARY), machine)
    run = SimulatedModel(program, machine, places)
    return Simulated(opened.signature(), report, run)


def levels(program: Program, machine: Machine) -> Mapping[str, Callable[[], str]]:
    """Assembly that can be assembled again, and a listing for people."""
    return {
        "asm": lambda: disassemble(_compiled(program, machine)[0].program, machine),
        "listing": lambda: listing(_compiled(program, machine)[0].program, machine),
    }


_Compiled = tuple[Code, dict[str, Any], bytes]

# by the identities of program and machine, as long as the program lives
_compiled_codes: dict[tuple[int, int], tuple[Machine, _Compiled]] = {}


def _compiled(program: Program, machine: Machine) -> _Compiled:
    """Code, facts and binary of a program: made once, for it is built, written and shown."""
    key = id(program), id(machine)
    if key not in _compiled_codes:
        _compiled_codes[key] = machine, _made(program, machine)
        weakref.finalize(program, _compiled_codes.pop, key, None)
    return _compiled_codes[key][1]


def _made(program: Program, machine: Machine) -> _Compiled:
    start = time.perf_counter()
    code = compile_code(program, machine)
    bits = encode(code.program, machine)
    facts = {
        "target": machine.name,
        "variant": machine.variant,
        "instructions": len(code.program.instructions),
        "code_bytes": len(bits) - sum(len(d.content) for d in code.program.data),
        "weights_bytes": program.memory.weights_bytes,
        "arena_bytes": str(program.memory.arena_bytes),
        "memory_bytes": dict(code.used),
        "lane_by_lane": dict(code.by_lanes),
        "own_bytes": {s: {m: list(b) for m, b in by.items()} for s, by in code.own.items()},
        "codegen_seconds": time.perf_counter() - start,
    }
    return code, facts, bits
