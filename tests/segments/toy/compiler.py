"""The interface of back ends, done with native code, invented counts and no named sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nncc.backends.cpu import compiler as cpu
from nncc.diagnostics import TargetError
from nncc.ir.program import Program
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.runtime import artifact
from nncc.runtime.executable import Executable
from nncc.runtime.simulated import Simulated
from nncc.runtime.statistics import Layer, MemoryUse, Statistics
from nncc.runtime.trace import Trace

STATIC_SIZES = True
CYCLES = 100  # of every call
MACHINE = "toy"


def native(machine: Machine) -> Machine:
    """The machine whose code is run in the toy's place."""
    return replace(load("cpu"), name=machine.name)


def compile_program(
    program: Program,
    machine: Machine,
    *,
    threads: int = 1,
    report: Mapping[str, Any] | None = None,
) -> Executable:
    assert not program.signature.sizes, "the toy knows no named sizes"
    assert program.memory.state_bytes == 0, "segments have no state"
    facts = {**(report or {}), "target": machine.name, "variant": machine.variant}
    inner = cpu.compile_program(program, native(machine), threads=threads, report=facts)
    return simulated(inner, machine)


def simulated(inner: Executable, machine: Machine) -> Executable:
    layers = tuple(sorted(set(inner.report["calls"].values()))) or ("",)

    def simulate(sizes, inputs, outputs, trace: Trace | None) -> Statistics:
        names = [n for n, _ in inner.signature.inputs], [n for n, _ in inner.signature.outputs]
        inner.run_into(
            dict(zip(names[0], inputs, strict=True)), dict(zip(names[1], outputs, strict=True))
        )
        if trace is not None:
            line = trace.machine(machine.name, machine.frequency_hz)
            for k, name in enumerate(layers):
                line.span("unit", name, k * CYCLES, CYCLES, layer=name)
            line.counter("depth", 0, 3)
        found = tuple(
            Layer(
                n, CYCLES, 50, 10, {"waiting": 5}, {"buffer": MemoryUse(8, 4, 2.0)}, {"unit": 1.0}
            )
            for n in layers
        )
        return Statistics(
            machine.name, machine.frequency_hz, CYCLES * len(layers), 4, found, {"unit": 50}
        )

    return Simulated(inner.signature, {**inner.report, "target": machine.name}, simulate)


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
    built = compile_program(program, machine, report=report)
    files = {
        **artifact.machine_file(machine),
        "program.bin": cpu._written(program, native(machine))[0].encode(),
        **{f"{name}.txt": text() for name, text in levels(program, machine).items()},
        **(texts or {}),
    }
    manifest = {
        "name": program.name, "backend": "toy", "target": machine.name,
        "variant": machine.variant, "pipeline": pipeline,
        "signature": artifact.signature_json(program.signature), "report": built.report,
    }  # fmt: skip
    artifact.write_artifact(folder, manifest, files, version=version)


def load_artifact(folder: str | Path, *, version: str, threads: int = 1) -> Executable:
    """Loads the counts only: a toy has no code of its own."""
    opened = artifact.open_artifact(folder, version=version)
    machine = artifact.machine_of(opened)
    if "program.bin" not in opened.manifest["files"]:
        raise TargetError("there is no program")
    signature, report = opened.signature(), dict(opened.manifest["report"])

    def simulate(sizes, inputs, outputs, trace: Trace | None) -> Statistics:
        for out in outputs:
            out[...] = 0
        return Statistics(machine.name, machine.frequency_hz, CYCLES, 4, ())

    return Simulated(signature, report, simulate)


def levels(program: Program, machine: Machine) -> dict[str, Callable[[], str]]:
    def listing() -> str:
        return "\n".join(f"-- {name}\n  0 run {name}" for name in sorted(program.functions))

    return {"listing": listing}
