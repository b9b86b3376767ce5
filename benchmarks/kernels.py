"""GFLOP/s of single layers and their share of the machine's peak, beside onnxruntime.

Ours is the kernel by itself, called again and again on the same memory: median CPU time.
onnxruntime's is that of the layer's node in its profile, which is time on the clock: the lowest
tenth, as other processes take turns. It takes the widest vectors that the CPU has, and so is no
peer of a narrower target. The peak is that of the target, measured before and after each layer, as
the CPU's frequency changes. Work is counted without taps of filters that lie in the padding: a
kernel that computes them anyway shows a lower share.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nncc
from benchmarks.layers import BEFORE, LAYERS, WEIGHT, Layer
from benchmarks.measure import Peak, aligned, median_seconds, native, pin
from nncc.driver import lower
from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Module
from nncc.machines import load
from nncc.machines.machine import Machine

RUNS = 50  # profiled runs of onnxruntime
OTHERS = (BEFORE, "Reorder")  # its nodes around the layer


def run(only: str, seconds: float, target: str = "cpu") -> int:
    """Prints one line a layer.

    Args:
        only: part of the label of the layers to measure.
        seconds: of measuring each kernel.
        target: whose code to measure; onnxruntime stands beside that of `cpu` only.
    """
    pin()
    machine = load(target)
    peak = Peak(machine)
    print(f"{machine.name}, {machine.variant}; taps in the padding are not counted as work")
    columns = ["MFLOP", "ours µs", "GFLOP/s", "of peak"]
    if target == "cpu":
        columns += ["ort µs", "of peak", "ours/ort"]
    print(f"{'layer':20}" + "".join(f"{c:>10}" for c in columns))
    for layer in LAYERS:
        if only in layer.label:
            module = read_nn(layer.text)
            call, before = kernel(module, machine), peak.gflops()
            ours = median_seconds(call, seconds)
            limit = max(before, peak.gflops())
            theirs = in_onnxruntime(module) if target == "cpu" else None
            print(_line(layer, ours, theirs, limit), flush=True)
    return 0


def _line(layer: Layer, ours: float, theirs: float | None, limit: float) -> str:
    work = 2e-9 * layer.macs
    cells = [
        f"{1e3 * work:.1f}", f"{1e6 * ours:.1f}", f"{work / ours:.1f}",
        f"{work / ours / limit:.0%}",
    ]  # fmt: skip
    if theirs is not None:
        cells += [
            f"{1e6 * theirs:.1f}", f"{work / theirs / limit:.0%}", f"{ours / theirs:.2f}x"
        ]  # fmt: skip
    return f"{layer.label:20}" + "".join(f"{c:>10}" for c in cells)


def kernel(module: Module, machine: Machine) -> Callable[[], object]:
    """A call of the native function of the nest that reads the layer's weight."""
    lowered = lower(module, machine).before("plan")
    callee = next(str(n.attrs["callee"]) for n in lowered.graph.nodes if WEIGHT in n.inputs)
    function = lowered.functions[callee]
    rng = np.random.default_rng(1)
    arrays = []
    for buffer in function.buffers:
        shape = [int(e) for e in buffer.shape]  # type: ignore[arg-type]
        array = aligned(shape, np.dtype(buffer.dtype.numpy))
        if buffer.access == "in":
            array[...] = rng.standard_normal(shape)
        arrays.append(array)
    return native(function, machine, arrays)


def in_onnxruntime(module: Module) -> float:
    """Seconds of the layer's node in onnxruntime, one thread."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        nncc.save(module, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        (entry,) = session.get_inputs()
        feeds = {entry.name: np.random.default_rng(1).standard_normal(entry.shape, np.float32)}
        for _ in range(RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    found: dict[str, list[float]] = {}
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if event["cat"] == "Node" and name != event["name"] and not name.startswith(OTHERS):
            found.setdefault(name, []).append(event["dur"] * 1e-6)
    if len(found) != 1:
        raise SystemExit(f"onnxruntime has no single node for the layer: {sorted(found)}")
    (times,) = found.values()
    return statistics.quantiles(times, n=10)[0]
