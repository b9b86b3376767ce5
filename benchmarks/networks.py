"""Latency of whole networks, batch 1, one thread, beside onnxruntime."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

NETWORKS = (
    "squeezenet1_1", "mobilenet_v2", "efficientnet_b0", "resnet18", "resnet50", "vgg16", "bert_base",
)  # fmt: skip
EXAMPLES = Path(__file__).parent.parent / "examples" / "networks"


def run(models: list[str], seconds: float, rounds: int, int8: bool) -> int:
    """Prints one line a network: each peer's median in ms, and ours over onnxruntime's."""
    peers = ["nncc", "ort"] + (["nncc-int8"] if int8 else [])
    print(f"{'network':18}" + "".join(f"{p + ' ms':>14}" for p in peers) + "   nncc/ort   error")
    with tempfile.TemporaryDirectory() as folder:
        for name in models or NETWORKS:
            path = model_file(name, Path(folder))
            found: dict[str, list[float]] = {p: [] for p in peers}
            errors: list[float] = []
            for k in range(rounds):
                for peer in peers:
                    dump = str(Path(folder) / f"{peer}.npz") if k == 0 else ""
                    found[peer].append(in_process(peer, path, seconds, dump))
            errors.append(_error(Path(folder) / "nncc.npz", Path(folder) / "ort.npz"))
            medians = {p: statistics.median(v) for p, v in found.items()}
            row = "".join(f"{medians[p]:14.3f}" for p in peers)
            ratio = medians["nncc"] / medians["ort"]
            print(f"{path.stem:18}{row}{ratio:10.2f}x   {errors[0]:.1e}", flush=True)
    return 0


def model_file(name: str, folder: Path) -> Path:
    """The .onnx file of `name`: a path, or an example network written as ONNX into `folder`."""
    if name.endswith(".onnx"):
        return Path(name)
    import nncc

    path = folder / f"{name}.onnx"
    if not path.exists():
        nncc.save(nncc.load(EXAMPLES / f"{name}.nn"), path)
    return path


def in_process(peer: str, path: Path, seconds: float, dump: str) -> float:
    """Median ms of one run of `peer`, in a fresh process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    command = [sys.executable, "-m", "benchmarks.networks", peer, str(path), str(seconds), dump]
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    if done.returncode:
        raise SystemExit(f"{peer} on {path.name} failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def _error(ours: Path, theirs: Path) -> float:
    """Largest difference over the range of the peer's output."""
    a, b = np.load(ours), np.load(theirs)
    worst = 0.0
    for key in b.files:
        x, y = a[key].astype(np.float64), b[key].astype(np.float64)
        worst = max(worst, float(np.abs(x - y).max() / max(1e-30, np.abs(y).max())))
    return worst


def feeds_of(path: Path) -> dict[str, np.ndarray]:
    """Random inputs of a model: floats standard normal, ids below 1000, masks of ones."""
    import onnx

    rng = np.random.default_rng(2026)
    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {i.name for i in graph.initializer}
    feeds: dict[str, np.ndarray] = {}
    for i in graph.input:
        if i.name in weights:
            continue
        shape = [d.dim_value or 1 for d in i.type.tensor_type.shape.dim]
        if i.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            feeds[i.name] = rng.standard_normal(shape, dtype=np.float32)
        elif "mask" in i.name:
            feeds[i.name] = np.ones(shape, np.int64)
        else:
            feeds[i.name] = rng.integers(0, 2 if "type" in i.name else 1000, shape)
    return feeds


def prepare(
    peer: str, path: Path, feeds: dict[str, np.ndarray]
) -> tuple[Callable[[], object], Callable[[], dict[str, np.ndarray]]]:
    """(one timed run, the outputs by name) of a peer, ready to be called."""
    if peer == "ort":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        names = [o.name for o in session.get_outputs()]
        for name in names:
            binding.bind_output(name)
        return (
            lambda: session.run_with_iobinding(binding),
            lambda: dict(zip(names, (o.numpy() for o in binding.get_outputs()), strict=True)),
        )
    import nncc

    precision = "int8" if peer == "nncc-int8" else None
    program = nncc.compile(path, precision=precision)
    return lambda: program.run(feeds), lambda: program.run(feeds)


def _worker(peer: str, path: Path, seconds: float, dump: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    feeds = feeds_of(path)
    once, outputs = prepare(peer, path, feeds)
    for _ in range(3):
        once()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    if dump:
        np.savez(dump, **outputs())
    print(json.dumps(statistics.median(times) * 1e3))


if __name__ == "__main__":
    _worker(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
