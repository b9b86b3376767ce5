"""Latency of whole networks, batch 1, one thread, beside onnxruntime.

Each measurement is a fresh process, as runtimes keep threads and caches; peers take turns. Times
are CPU time: medians of a process, then the median over the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import median_seconds, pin
from benchmarks.unsigned import write_unsigned

NETWORKS = (
    "squeezenet1_1", "mobilenet_v2", "efficientnet_b0", "resnet18", "resnet50", "vgg16",
    "bert_base",
)  # fmt: skip
EXAMPLES = Path(__file__).parent.parent / "examples" / "networks"
CALIBRATION = "fold, cse, dce, quantize"

Feeds = dict[str, np.ndarray]


def run(models: list[str], seconds: float, rounds: int, int8: bool) -> int:
    """Prints one line a network: the peers' times, ours over onnxruntime's, the deviation.

    Args:
        models: names of examples/networks, or .onnx files; none: all of NETWORKS.
        seconds: of measuring in each process; `rounds`: processes for each peer.
        int8: also the model quantized by random inputs: compiled, and as QDQ in onnxruntime. The
            last two columns compare ours with our float32: time, and largest difference.
    """
    title = f"{'network':18}{'nncc ms':>10}{'ort ms':>10}{'nncc/ort':>10}{'deviation':>11}"
    quantized = (
        f"{'nncc int8':>12}{'ort int8':>10}{'nncc/ort':>10}{'int8/fp32':>11}{'deviation':>11}"
    )
    print(title + (quantized if int8 else ""))
    for name in models or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            print(_line(name, Path(folder), seconds, rounds, int8), flush=True)
    return 0


def _line(name: str, folder: Path, seconds: float, rounds: int, int8: bool) -> str:
    path = model_file(name, folder)
    files = {"nncc": ("nncc", path), "ort": ("ort", path)}
    if int8:
        ours, theirs = _quantized(path, folder)
        files |= {"nncc int8": ("nncc", ours), "ort int8": ("ort", theirs)}
    feeds = folder / "feeds.npz"
    np.savez(feeds, **feeds_of(path))  # type: ignore[arg-type]
    found: dict[str, list[float]] = {p: [] for p in files}
    for _ in range(rounds):
        for peer, (runtime, model) in files.items():
            results = folder / f"{peer}.npz"
            found[peer].append(_in_process(runtime, model, feeds, results, seconds))
    ms = {p: 1e3 * statistics.median(v) for p, v in found.items()}
    outputs = {p: dict(np.load(folder / f"{p}.npz")) for p in files}
    cells = (
        f"{path.stem:18}{ms['nncc']:10.2f}{ms['ort']:10.2f}{ms['nncc'] / ms['ort']:9.2f}x"
        f"{deviation(outputs['nncc'], outputs['ort']):11.1e}"
    )
    if int8:
        cells += (
            f"{ms['nncc int8']:12.2f}{ms['ort int8']:10.2f}{ms['nncc int8'] / ms['ort int8']:9.2f}x"
            f"{ms['nncc int8'] / ms['nncc']:10.2f}x"
            f"{deviation(outputs['nncc int8'], outputs['nncc']):11.1e}"
        )
    return cells


def model_file(name: str, folder: Path) -> Path:
    """The .onnx file of `name`: a path, or an example network written as ONNX into `folder`."""
    if name.endswith(".onnx"):
        return Path(name)
    import nncc
    from nncc.driver import load_module

    path = folder / f"{name}.onnx"
    nncc.save(load_module(EXAMPLES / f"{name}.nn"), path)
    return path


def _quantized(path: Path, folder: Path) -> tuple[Path, Path]:
    """The model quantized by a random input: in the nncc language, and as ONNX for onnxruntime.

    The latter has activations in uint8, which is faster there, unless a node has no such form.
    """
    import nncc
    from nncc.driver import lower

    module = lower(path, pipeline=CALIBRATION, calib=feeds_of(path, seed=1)).module
    files = folder / "quantized.nn", folder / "quantized.onnx"
    for file in files:
        nncc.save(module, file)
    unsigned = folder / "unsigned.onnx"
    return files[0], unsigned if write_unsigned(files[1], unsigned) else files[1]


def _in_process(runtime: str, model: Path, feeds: Path, results: Path, seconds: float) -> float:
    """Median seconds of one run, in a fresh process; the outputs are written to `results`."""
    # a limit on OpenBLAS's threads makes numpy start slower, and concerns no peer
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    arguments = [runtime, str(model), str(feeds), str(results), str(seconds)]
    command = [sys.executable, "-m", "benchmarks.networks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    if done.returncode:
        raise SystemExit(f"{runtime} on {model.name} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def deviation(found: Feeds, expected: Feeds) -> float:
    """The largest difference over the range of its output."""
    worst = 0.0
    for name, array in expected.items():
        x, y = found[name].astype(np.float64), array.astype(np.float64)
        worst = max(worst, float(np.abs(x - y).max() / max(1e-30, np.abs(y).max())))
    return worst


def feeds_of(path: Path, seed: int = 2026) -> Feeds:
    """Random inputs of a model: floats standard normal, ids below 1000, masks of ones."""
    from nncc.driver import load_module

    rng = np.random.default_rng(seed)
    graph = load_module(path).graph
    feeds: Feeds = {}
    for name in graph.inputs:
        shape = [extent if isinstance(extent, int) else 1 for extent in graph.types[name].shape]
        if graph.types[name].dtype.is_float:
            feeds[name] = rng.standard_normal(shape, dtype=np.float32)
        elif "mask" in name:
            feeds[name] = np.ones(shape, np.int64)
        else:
            feeds[name] = rng.integers(0, 2 if "type" in name else 1000, shape)
    return feeds


def prepare(runtime: str, path: Path, feeds: Feeds) -> tuple[Callable[[], object], Feeds]:
    """(a run that writes into the same memory each time, the outputs of one run)."""
    if runtime == "ort":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
        names = [o.name for o in session.get_outputs()]
        results = dict(zip(names, session.run(names, feeds), strict=True))
        for name, value in results.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
        return lambda: session.run_with_iobinding(binding), results
    import nncc

    program = nncc.compile(path)
    results = program.run(feeds)
    outputs = {n: np.empty_like(v) for n, v in results.items()}
    return lambda: program.run_into(feeds, outputs), results


def _worker(runtime: str, model: Path, feeds: Path, results: Path, seconds: float) -> None:
    pin()
    once, outputs = prepare(runtime, model, dict(np.load(feeds)))
    np.savez(results, **outputs)  # type: ignore[arg-type]
    print(json.dumps(median_seconds(once, seconds)))


if __name__ == "__main__":
    peer, network, given, written = sys.argv[1], *map(Path, sys.argv[2:5])
    _worker(peer, network, given, written, float(sys.argv[5]))
