"""One module through every level: the graph, the nests, Loops and native code agree.

    compare(module, {"x": images}, calib={"x": images})      AssertionError or CheckError if not

The comparison of the levels is `nncc.check`, which users get as `--check`; what this adds is the
start (the graph that quantization made, before the target's own graph passes), and that every
schedule on the way is one that the legality check accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from nncc.check import check, total_reduction
from nncc.diagnostics import TargetError
from nncc.driver import Compilation, build, lower
from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.ir.verify_graph import verify_graph
from nncc.ir.verify_loops import verify_functions
from nncc.ir.verify_nests import verify_nest
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.ops.reference import evaluate
from nncc.passes.poly import check_schedule
from nncc.runtime.executable import Executable
from nncc.tolerance import compare as first_difference

Arrays = Mapping[str, np.ndarray]

# Ways to compile: what the preset does, and without the two passes that join and pack the most.
OPTIONS = {
    "preset": {},
    "no-layout": {"layout": "enable=false"},
    "no-fuse": {"fuse": "enable=false"},
}


@cache
def machines() -> tuple[str, ...]:
    """The variants of the CPU that this computer can run, the widest first."""
    found = []
    for variant in ("avx512", "avx2", "baseline", "scalar"):
        try:
            load(f"cpu-{variant}")
        except TargetError:
            continue
        found.append(f"cpu-{variant}")
    return tuple(found)


def pipeline(machine: Machine, options: str = "preset", quantize: bool = False) -> str:
    """The machine's pipeline, with the options of one of `OPTIONS`."""
    steps = []
    for step in machine.pipeline.split(", "):
        if step == "legalize" and quantize and "quantize" not in machine.pipeline:
            steps.append("quantize")
        given = OPTIONS[options].get(step)
        steps.append(f"{step}{{{given}}}" if given else step)
    return ", ".join(steps)


def compare(
    module: Module,
    inputs: Arrays,
    *,
    calib: Arrays | None = None,
    machine: str = "cpu",
    options: str = "preset",
) -> tuple[Compilation, Executable]:
    """Compiles a module (quantized first if there is `calib`) and compares all its levels."""
    target = load(machine)
    steps = pipeline(target, options, quantize=calib is not None)
    compilation = lower(module, target, pipeline=steps, calib=calib)
    verify(compilation)
    graph_passes_keep_values(compilation, inputs)
    executable = build(compilation)
    check(compilation, executable, inputs)
    return compilation, executable


def verify(compilation: Compilation) -> None:
    """Every level is well-formed, and every schedule keeps its nest's dependences."""
    if compilation.segments:
        for segment in compilation.segments:
            verify(segment)
        return
    verify_graph(compilation.before("fuse"))
    for nest in compilation.before("emit").nests.values():
        verify_nest(nest)
        check_schedule(nest)
    operations = {k: o.semantics for k, o in compilation.machine.operations.items()}
    verify_functions(compilation.module.functions, operations)


def graph_passes_keep_values(compilation: Compilation, inputs: Arrays) -> None:
    """Legalizing for the target changes no output of the (quantized) graph."""
    source, target = compilation.before("legalize"), compilation.before("fuse")
    expected = interpret(source, inputs, evaluate)
    found = interpret(target, inputs, evaluate)
    for name, value in expected.outputs.items():
        difference = first_difference(
            found.outputs[name], value, total_reduction(target, expected.sizes)
        )
        assert difference is None, f"after the graph passes, {name} {difference}"
