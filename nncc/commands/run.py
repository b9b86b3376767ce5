"""Run a model, or a folder that `nncc compile` made, on arrays.

Outputs are summed up on stdout, or written to a file with -o. Time is that of one call after a
first one; on simulated targets there are cycles, stalls, traffic and energy by layer instead.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.commands.options import (
    Observers,
    add_compilation,
    add_json,
    add_model,
    add_observers,
    add_threads,
    refuse_for_compiled,
)

if TYPE_CHECKING:
    import numpy as np

    from nncc.runtime.executable import Executable

_SHOWN = 10  # elements of an output that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "an .onnx or .nn file, or a compiled model's folder")
    parser.add_argument("--input", required=True, metavar="NPZ|DIR", help="arrays by input name")
    parser.add_argument("-o", "--output", metavar="NPZ", help="write the outputs there")
    parser.add_argument(
        "--trace", metavar="JSON", help="write what simulated machines did when, for Perfetto"
    )
    add_compilation(parser)
    add_threads(parser)
    add_observers(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from nncc.arrays import load_arrays, save_arrays
    from nncc.diagnostics import NnccError

    executable = loaded(args)
    arrays = load_arrays(args.input, [name for name, _ in executable.signature.inputs])
    if args.trace:
        from nncc.runtime.trace import Trace

        executable.trace = Trace()
    start = time.perf_counter()
    outputs = executable.run(arrays)
    seconds = time.perf_counter() - start
    statistics = executable.statistics
    if args.trace:
        if executable.trace is None or statistics is None:
            raise NnccError("there is no trace: no simulator took part", help="choose a target")
        executable.trace.write(args.trace)
    if statistics is None:  # native code: the time of a call after the first one
        executable.reset()
        start = time.perf_counter()
        executable.run(arrays)
        seconds = time.perf_counter() - start
    if args.output:
        save_arrays(args.output, outputs)
    if args.json:
        found = {name: _record(x) for name, x in outputs.items()}
        record: dict[str, Any] = {"seconds": seconds, "outputs": found}
        if statistics is not None:
            record["statistics"] = statistics.as_json()
        print(json.dumps(record, indent=1))
        return 0
    for name, x in outputs.items():
        first = ", ".join(f"{v:.6g}" for v in x.reshape(-1)[:_SHOWN].tolist())
        more = ", …" if x.size > _SHOWN else ""
        print(f"{name}: {x.dtype}{list(x.shape)} = {first}{more}")
    if statistics is None:
        print(f"{seconds * 1e3:.3f} ms")
    else:
        print(statistics)
        print(f"{seconds:.3f} s of simulation")
    return 0


def loaded(args: argparse.Namespace) -> Executable:
    """The compiled model that the arguments name: from its folder, or compiled now."""
    from nncc.driver import build, load_compiled

    if Path(args.model).is_dir():
        refuse_for_compiled(args)
        return load_compiled(args.model, threads=args.threads)
    from nncc.commands.options import lowered

    observers = Observers(args)
    compilation = lowered(args, observers.all)
    observers.finish()
    return build(compilation, threads=args.threads, name=Path(args.model).stem)


def _record(x: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(x.dtype), "shape": list(x.shape), "data": x.reshape(-1).tolist()}
