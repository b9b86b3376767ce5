"""Time and isl calls of each pass, from a model's file to its code."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks.networks import model_file


def run(model: str) -> int:
    """Prints a line a step: reading the file, each pass, and making code without a cache.

    Args:
        model: name of an example network, or a path.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NNCC_CACHE"] = "0"
        path = model_file(model, Path(folder))
        from nncc.driver import build, load_module, lower

        started = time.perf_counter()
        module = load_module(path)
        read = time.perf_counter()
        compilation = lower(module)
        lowered = time.perf_counter()
        executable = build(compilation)
        built = time.perf_counter()
    report = executable.report
    print(f"{path.name}: {report['kernels']} kernels, {report['code_bytes']} bytes of code")
    print(f"{'step':14}{'ms':>10}{'isl calls':>11}")
    for step, seconds, calls in (
        ("import", read - started, ""),
        *((p["pass"], p["seconds"], p["isl_calls"]) for p in report["passes"]),
        ("LLVM IR", report["emit_seconds"], ""),
        ("machine code", report["codegen_seconds"], ""),
        ("linking, data", built - lowered - report["emit_seconds"] - report["codegen_seconds"], ""),
        ("total", built - started, sum(p["isl_calls"] for p in report["passes"])),
    ):
        print(f"{step:14}{1e3 * seconds:10.1f}{calls:>11}")
    return 0
