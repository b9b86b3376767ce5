"""Measuring on a computer that does other things too.

Times are CPU time of this process, so that what else runs is not counted; it still takes away
caches and clock, hence medians, and peers take turns.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from nncc.backends.cpu import target
from nncc.backends.cpu.emit import emit_llvm
from nncc.backends.cpu.jit import Library
from nncc.ir.loops import Function
from nncc.ir.text import parse_function
from nncc.machines.machine import Machine

BATCH_SECONDS = 2e-3  # calls are timed together until they take so long
CHAINS = 12  # independent sums: more than latency times throughput of a multiply-add


def pin() -> None:
    """Keeps this process on one CPU."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def median_seconds(call: Callable[[], object], seconds: float, least: int = 5) -> float:
    """Median CPU time of a call, in batches of BATCH_SECONDS, over about `seconds`."""
    call()
    start = time.process_time()
    call()
    once = max(time.process_time() - start, 1e-7)
    count = max(1, round(BATCH_SECONDS / once))
    times: list[float] = []
    until = time.process_time() + seconds
    while len(times) < least or time.process_time() < until:
        start = time.process_time()
        for _ in range(count):
            call()
        times.append((time.process_time() - start) / count)
    return statistics.median(times)


def native(
    function: Function, machine: Machine, arrays: Sequence[np.ndarray]
) -> Callable[[], object]:
    """A call of one Loops function, compiled by itself, on arrays for its buffers in order."""
    text = emit_llvm({function.name: function}, machine, exported=[function.name])
    library = Library(target.object_code(text, machine), [function.name])
    address = library[function.name]
    entry = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays))(address)
    pointers = [a.ctypes.data for a in arrays]

    def call(keep: object = (library, arrays)) -> None:
        entry(*pointers)

    return call


def aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array of ones at an address that is a multiple of 64, as buffers of nncc are."""
    count = int(np.prod(shape))
    block = np.empty(count * dtype.itemsize + 64, np.uint8)
    start = -block.ctypes.data % 64
    array = block[start : start + count * dtype.itemsize].view(dtype).reshape(shape)
    array[...] = 1
    return array


class Peak:
    """The most floating-point operations a second: vector multiply-adds that wait for nothing."""

    def __init__(self, machine: Machine) -> None:
        lanes = machine.vector_bytes // 4
        names = [f"fma{lanes}v", f"muladd{lanes}v", "fma1", "muladd1"]
        operation = next(n for n in names if n in machine.operations)
        lanes = 1 if operation.endswith("1") else lanes
        rounds = 1 << 14
        chains = range(CHAINS)
        first = f"x[0 : {lanes}]" if lanes > 1 else "x[0]"
        kind = f"f32x{lanes}" if lanes > 1 else "f32"
        declares = "\n".join(f"declare a{k}: {kind} = b" for k in chains)
        steps = "\n".join(f"a{k} = {operation}(a{k}, b, b)" for k in chains)
        total = " + ".join(f"a{k}" for k in chains)
        stored = f"y[0 : {lanes}]" if lanes > 1 else "y[0]"
        text = f"""
            function peak(in x: f32[{lanes}], out y: f32[{lanes}]) {{
              let b: {kind} = {first}
              {declares}
              for i in 0..{rounds} {{ {steps} }}
              {stored} = {total}
            }}"""
        ones = [aligned((lanes,), np.dtype(np.float32)) for _ in range(2)]
        self._call = native(parse_function(text), machine, ones)
        self._operations = 2 * lanes * CHAINS * rounds

    def gflops(self) -> float:
        """As measured now, in about a twentieth of a second."""
        return self._operations / median_seconds(self._call, 0.05) / 1e9
