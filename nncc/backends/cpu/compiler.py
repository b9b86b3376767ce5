"""From a `Program` to something that runs: in this process, or as an artifact on disk.

executable = compile_program(program, machine)
write_artifact(program, machine, "out/digits", version=…)
executable = load_artifact("out/digits", version=…)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nncc.backends.cpu import cache, target
from nncc.backends.cpu.checks import Failures
from nncc.backends.cpu.emit import emit_llvm
from nncc.backends.cpu.entry import STATUS, emit_entry, exported_names
from nncc.backends.cpu.header import header, identifier
from nncc.backends.cpu.jit import Library
from nncc.diagnostics import TargetError
from nncc.ir.layout import is_row_major
from nncc.ir.program import ALIGNMENT, Program, largest_size
from nncc.machines.machine import Machine
from nncc.runtime import artifact
from nncc.runtime.artifact import WEIGHTS_FILE, Content, signature_json
from nncc.runtime.executable import Executable, check_threads
from nncc.runtime.native import Native, NativeCode
from nncc.runtime.sizes import from_json, to_json

STATIC_SIZES = False


def levels(program: Program, machine: Machine) -> dict[str, Callable[[], str]]:
    """LLVM IR and assembly, made when asked for."""
    return {
        "llvm": lambda: llvm_text(program, machine),
        "asm": lambda: assembly_text(program, machine),
    }


def llvm_text(program: Program, machine: Machine) -> str:
    """The LLVM IR of a whole model."""
    return _written(program, machine)[0]


def _written(program: Program, machine: Machine) -> tuple[str, dict[int, str]]:
    """The LLVM IR and what its run may fail with, by status."""
    for name, t in program.signature.inputs + program.signature.outputs:
        if not is_row_major(program.layouts.get(name), t.shape):
            raise TargetError(f"'{name}' is passed to or from callers: it can only be row-major")
    failures = Failures()
    functions = emit_llvm(program.functions, machine, failures=failures)
    entry = emit_entry(program, failures.functions)
    return f"{functions}\n\n{entry}\n", failures.texts


def assembly_text(program: Program, machine: Machine) -> str:
    """The assembly of a whole model."""
    return target.assembly(llvm_text(program, machine), machine)


def compile_program(
    program: Program,
    machine: Machine,
    *,
    threads: int = 1,
    report: Mapping[str, Any] | None = None,
) -> Executable:
    """The model, linked into this process.

    Args:
        threads: how many run a call; only 1 is possible so far.
        report: facts to hand on as `Executable.report`; those of this step are added.

    Raises TargetError if this computer cannot run code for `machine`.
    """
    check_threads(threads)
    target.check_host(target.known(machine.features))
    program = _named(program)
    code, _, failures, facts = _compiled(program, machine)
    weights = _aligned_copy(program.weights_block())
    memory = program.memory
    native = _link(
        program.name, code, weights, memory.state_bytes, memory.arena_bytes,
        largest_size(program), failures,
    )  # fmt: skip
    return Native(program.signature, native, {**(report or {}), **facts})


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
    """Writes the model as a folder: object, header, weights, LLVM IR and manifest.

    Args:
        version: of nncc; `pipeline`: the passes that made the program, as text.
        texts: further files, by name (the text of each level).

    Raises TargetError if the folder cannot be written.
    """
    program = _named(program)
    code, text, failures, facts = _compiled(program, machine)
    files: dict[str, Content] = {
        f"{program.name}.o": code,
        f"{program.name}.h": header(program, failures),
        f"{program.name}.ll": text,
        WEIGHTS_FILE: program.weights_block(),
        **(texts or {}),
    }
    manifest = {
        "name": program.name,
        "target": machine.name,
        "variant": machine.variant,
        "triple": target.host_triple(),
        "features": sorted(target.known(machine.features)),
        "pipeline": pipeline,
        "signature": signature_json(program.signature),
        "state_bytes": to_json(program.memory.state_bytes),
        "arena_bytes": to_json(program.memory.arena_bytes),
        "largest_size": largest_size(program),
        "failures": {str(status): text for status, text in failures.items()},
        "report": {**(report or {}), **facts},
    }
    artifact.write_artifact(folder, manifest, files, version=version)


def load_artifact(folder: str | Path, *, version: str, threads: int = 1) -> Executable:
    """The model of an artifact, linked into this process; its weights are mapped from the file.

    Raises TargetError if it is damaged, of another version, or for another computer.
    """
    check_threads(threads)
    opened = artifact.open_artifact(folder, version=version)
    manifest = opened.manifest
    try:
        name, triple = manifest["name"], manifest["triple"]
        features = _features(manifest["features"])
        state, arena = from_json(manifest["state_bytes"]), from_json(manifest["arena_bytes"])
        largest, report = int(manifest["largest_size"]), dict(manifest["report"])
        failures = {int(k): str(text) for k, text in dict(manifest["failures"]).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise TargetError(f"the manifest is wrong: {error!r}") from error
    if triple != target.host_triple():
        raise TargetError(f"the code is for {triple}; this computer is {target.host_triple()}")
    target.check_host(features)
    signature = opened.signature()
    native = _link(
        name, opened.read(f"{name}.o"), opened.weights(), state, arena, largest, failures
    )
    return Native(signature, native, report)


def _features(listed: object) -> frozenset[str]:
    """Raises TypeError for what is no list of names."""
    if not isinstance(listed, list) or not all(isinstance(f, str) for f in listed):
        raise TypeError(f"features: {listed!r}")
    return frozenset(listed)


def _named(program: Program) -> Program:
    """The program under a name that C knows as an identifier."""
    return replace(program, name=identifier(program.name))


def _compiled(
    program: Program, machine: Machine
) -> tuple[bytes, str, dict[int, str], dict[str, Any]]:
    """Object code, its LLVM IR, what its run may fail with, and facts about it."""
    start = time.perf_counter()
    text, failures = _written(program, machine)
    emitted = time.perf_counter()
    features = target.feature_text(machine.features)
    name = cache.key(text, target.host_triple(), features, target.code_version())
    code = cache.cached(name, lambda: target.object_code(text, machine))
    facts = {
        "target": machine.name,
        "variant": machine.variant,
        "functions": len(program.functions),
        "llvm_lines": text.count("\n"),
        "code_bytes": len(code),
        "weights_bytes": program.memory.weights_bytes,
        "arena_bytes": str(program.memory.arena_bytes),
        "state_bytes": str(program.memory.state_bytes),
        "emit_seconds": emitted - start,
        "codegen_seconds": time.perf_counter() - emitted,
    }
    return code, text, failures, facts


def _link(
    name: str, code: bytes, weights: np.ndarray, state: Any, arena: Any, largest: int,
    failures: Mapping[int, str],
) -> NativeCode:  # fmt: skip
    run, reset = exported_names(name)
    library = Library(code, (run, reset))
    texts = {**STATUS, **failures}
    return NativeCode(library[run], library[reset], library, weights, state, arena, largest, texts)


def _aligned_copy(block: np.ndarray) -> np.ndarray:
    """The same bytes at an address that is a multiple of ALIGNMENT."""
    if block.ctypes.data % ALIGNMENT == 0:
        return block
    room = np.empty(block.size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    aligned = room[start : start + block.size]
    aligned[:] = block
    return aligned
