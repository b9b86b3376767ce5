"""Networks on simulated arrays, every level against the interpreter of the graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import strategies as st

from nncc.backends.tpu.compiler import constant_rows
from nncc.backends.tpu.order import Unwritten
from nncc.backends.tpu.pieces import Pieces
from nncc.backends.tpu.places import Places, calls
from nncc.backends.tpu.select import Selector
from nncc.backends.tpu.transfers import Transfers
from nncc.backends.tpu.walk import steps
from nncc.compilation import Compilation
from nncc.diagnostics import TargetError
from nncc.driver import build, lower
from nncc.ir.interpreter.loops import interpret
from nncc.ir.packing import pack, unpack
from nncc.ir.verify_loops import verify_functions
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.machines.systolic.sizes import array_of, resized
from nncc.ops import reference
from nncc.passes.plan import program
from nncc.passes.systolic.blocks import blocks_in
from tests.levels.float_networks import Case


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, int]:
    """Sizes of arrays of any shape, some with few accumulators, slow links or long latencies."""
    rows = draw(st.sampled_from([1, 2, 3, 5, 8, 12, 16, 24, 40, 64, 64, 128, 128]))
    return {
        "rows": rows,
        "columns": draw(st.sampled_from([1, 2, 4, 7, 16, 32, 40, 64, 100])),
        "unified_bytes": rows << 16,
        "accumulator_rows": draw(st.sampled_from([1, 2, 7, 64, 600])),
        "weight_bytes": 1 << 30,
        "fifo_tiles": draw(st.integers(1, 5)),
        "queue_depth": draw(st.integers(1, 16)),
        "issue_stages": draw(st.sampled_from([0, 4, 9])),
        "activation_latency": draw(st.sampled_from([0, 8, 50])),
        "weight_latency": draw(st.sampled_from([0, 0, 77])),
        "host_latency": draw(st.sampled_from([0, 700])),
        "weight_bytes_per_second": draw(st.sampled_from([1 << 20, 34 * 10**9, 10**12])),
        "host_bytes_per_second": draw(st.sampled_from([1 << 24, 14 * 10**9])),
    }


def check(case: Case, array: dict[str, int], part: int, counted: Counter[str]) -> None:
    """Compiles a network for an array and runs it on its inputs.

    Args:
        part: how much of the unified buffer is there: 0 all; 1 what the largest layer needs;
            2 half of that, if it is enough; 3 what the largest operation needs; 4 a quarter of
            that, which is refused unless operations get smaller, too.
    """
    machine = resized(load("tpu"), **array)
    n = next((x.shape[0] for x in case.inputs.values()), 1)
    sizes = dict.fromkeys(case.module.sizes, n)
    compilation = lower(case.module, machine, calib=case.calib, sizes=sizes)
    if part and (most := most_rows(compilation, machine)):
        least = least_rows(compilation, machine)
        rows = {1: most, 2: max(most // 2, least), 3: least, 4: max(least // 4, 1)}[part]
        machine = resized(machine, unified_bytes=array["rows"] * rows)
        compilation = lower(case.module, machine, calib=case.calib, sizes=sizes)
    needed, there = least_rows(compilation, machine), array_of(machine).unified_rows
    if needed > there:
        assert part == 4
        with pytest.raises(TargetError, match=r"needs \d+ rows of the unified buffer at once"):
            build(compilation)
        counted["refused for want of rows"] += 1
        return
    net = build(compilation)
    outputs = net.run(case.inputs)
    expected = reference.interpret(compilation.module, case.inputs).outputs
    for name, y in expected.items():
        if y.dtype.kind == "f":  # what the host computes in floats is not exact
            assert np.allclose(outputs[name], y, rtol=1e-5, atol=1e-6 * np.abs(y).max()), name
        else:
            assert np.array_equal(outputs[name], y), name
    targets = [s for s in compilation.segments if s.machine is machine]
    counted["networks"] += 1
    counted["with segments of the array"] += bool(targets)
    counted["with tensors on the host"] += any(
        segment.get("scratch_bytes") for segment in net.report["segments"]
    )
    for s in targets:
        counted["functions"] += len(s.module.functions) - 2
        layouts = s.module.graph.layouts.values()
        counted["with rows of several pixels"] += any(blocks_in(layout) for layout in layouts)
        if counted["networks"] % 3 == 1:  # the interpreter is slow
            check_loops(s)


def most_rows(compilation: Compilation, machine: Machine) -> int:
    """Rows that the layer with the largest tensors needs, constants of its segment included."""
    found = [0]
    for s in compilation.segments:
        if s.machine is machine:
            p = program(s.module)
            places = Places(p, array_of(machine))
            sizes, constants = places.sizes(), constant_rows(p, array_of(machine))
            calls = [dict.fromkeys((*c.reads, *c.writes)) for c in places.calls]
            found += [constants + sum(sizes[n] for n in names) for names in calls]
    return max(found)


def least_rows(compilation: Compilation, machine: Machine) -> int:
    """Rows that the operation which reaches most of them needs, constants included."""
    found = [0]
    for s in compilation.segments:
        if s.machine is machine:
            p, array = program(s.module), array_of(machine)
            places, constants = Places(p, array), constant_rows(p, array)
            stream = Unwritten(array, 0)
            selector, transfers = Selector(places, stream), Transfers(places, places.sizes())
            for k, call in enumerate(calls(p)):
                pieces = Pieces(places.calls[k], places, stream, selector, transfers)
                for step in steps(p, k, call, places):
                    spans = pieces.spans(step).values()
                    found.append(constants + sum(end - first for first, end in spans))
    return max(found)


def check_loops(compilation: Compilation) -> None:
    """A segment's Loops are well-formed and do what its graph does, on random inputs."""
    rng = np.random.default_rng(1)
    source, machine = compilation.after[0], compilation.machine
    records = {n: o.semantics for n, o in machine.operations.items()}
    verify_functions(compilation.module.functions, records)
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
