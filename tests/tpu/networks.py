"""Networks on simulated arrays, every level against the interpreter of the graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import strategies as st

from nncc.compilation import Compilation
from nncc.driver import build, lower
from nncc.ir.interpreter.loops import interpret
from nncc.ir.packing import pack, unpack
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.machines.systolic.sizes import resized
from nncc.ops import reference
from nncc.passes.plan import program
from tests.levels.float_networks import Case


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, int]:
    """Sizes of small arrays of any shape, with few accumulators and a short FIFO."""
    rows = draw(st.integers(1, 40))
    return {
        "rows": rows, "columns": draw(st.integers(1, 40)), "unified_bytes": rows << 16,
        "accumulator_rows": draw(st.sampled_from([1, 2, 7, 64, 600])),
        "weight_bytes": 1 << 30, "fifo_tiles": draw(st.integers(1, 5)),
        "queue_depth": draw(st.integers(1, 16)),
    }  # fmt: skip


def check(case: Case, array: dict[str, int], counted: Counter[str]) -> None:
    """Compiles a network for an array and runs it on its inputs."""
    machine = resized(load("tpu"), **array)
    n = next((x.shape[0] for x in case.inputs.values()), 1)
    sizes = dict.fromkeys(case.module.sizes, n)
    compilation = lower(case.module, machine, calib=case.calib, sizes=sizes)
    outputs = build(compilation).run(case.inputs)
    expected = reference.interpret(compilation.module, case.inputs).outputs
    for name, y in expected.items():
        assert np.array_equal(outputs[name], y), name
    targets = [s for s in compilation.segments if s.machine is machine]
    counted["networks"] += 1
    counted["with segments of the array"] += bool(targets)
    for s in targets:
        counted["functions"] += len(s.module.functions) - 2
        check_loops(s)


def check_loops(compilation: Compilation) -> None:
    """A segment's Loops by their interpreter against its graph, on random inputs."""
    rng = np.random.default_rng(1)
    source, machine = compilation.after[0], compilation.machine
    p = program(compilation.module)
    inputs = {}
    for name, t in p.signature.inputs:
        lo, hi = t.dtype.limits
        inputs[name] = rng.integers(lo, hi, t.static_shape, t.dtype.numpy, endpoint=True)
    run = run_loops(compilation, inputs, machine)
    expected = reference.interpret(source, inputs).outputs
    for name, y in expected.items():
        assert np.array_equal(run[name], y), name


def run_loops(
    compilation: Compilation, inputs: dict[str, np.ndarray], machine: Machine
) -> dict[str, np.ndarray]:
    """The outputs of `main`, interpreted; bytes of u8 are kept as i8, less 128."""
    p = program(compilation.module)
    arrays = [_flipped(pack(inputs[n], p.layouts[n])) for n, _ in p.signature.inputs]
    outputs = []
    for name, t in p.signature.outputs:
        extents = [e for e in p.layouts[name].extents if isinstance(e, int)]
        outputs.append(np.zeros(extents, t.dtype.numpy))
    memory = p.memory
    blocks = [p.weights_block(), *(np.zeros(n, np.uint8)
              for n in (memory.state_bytes, memory.arena_bytes))]  # fmt: skip
    records = {n: o.semantics for n, o in machine.operations.items()}
    interpret(p.functions, "main", [*arrays, *outputs, *blocks], records=records)
    return {
        name: unpack(_flipped(y), p.layouts[name], t.static_shape)
        for (name, t), y in zip(p.signature.outputs, outputs, strict=True)
    }


def _flipped(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array ^ np.uint8(128))
    return np.ascontiguousarray(array)
