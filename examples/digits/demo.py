"""Compile the digits network for the CPU, for a systolic array and for a transport-triggered
processor, and run it on 1000 real digits on each.

python -m examples.digits.demo
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import nncc
from nncc.check import check
from nncc.driver import Compilation, build, lower
from nncc.machines import load
from nncc.runtime.executable import Executable
from nncc.runtime.statistics import Statistics, total

HERE = Path(__file__).parent
MODEL = HERE / "digits.onnx"
CHECKED = 32  # test images on which every level of the compiler is compared
REPETITIONS = 200
# The accelerators, and how many images their programs take at a time.
SIMULATED = {"tpu": 100, "tta": 1}
STEP = 50  # images of a simulation after which progress is told


@dataclass(frozen=True)
class Simulation:
    """What a simulated target answered, and what that cost."""

    compiled: Executable
    logits: np.ndarray
    statistics: Statistics
    compile_seconds: float
    seconds: float


def main() -> None:
    """Prints two screens: the network on this computer, and on two simulated accelerators."""
    data = np.load(HERE / "digits.npz")
    images, labels = pixels(data["test_images"]), data["test_labels"]
    calib = {"image": pixels(data["calib_images"])}
    print(f"nncc {nncc.__version__}: a network that reads handwritten digits\n")
    integer_logits = on_this_computer(images, labels, calib)
    on_accelerators(images, labels, calib, integer_logits)
    print(f"\none digit:\n{picture(data['test_images'][0])}\n")
    print(f"all of them say {integer_logits[0].argmax()}; it is {labels[0]}")


# -- native code -------------------------------------------------------------------------------
def on_this_computer(
    images: np.ndarray, labels: np.ndarray, calib: dict[str, np.ndarray]
) -> np.ndarray:
    """Float and integer programs on the CPU; gives the logits of the integer program."""
    started = time.perf_counter()
    plain = lower(MODEL)
    float32 = build(plain, name="digits_f32")
    compiled = time.perf_counter()
    quantized = lower(MODEL, calib=calib)
    int8 = build(quantized, name="digits_int8")
    print(f"compiled to float32 in {compiled - started:.2f} s")
    print(f"compiled to int8    in {time.perf_counter() - compiled:.2f} s, by 200 sample images\n")

    nets = (float32, int8)
    logits = [net.run({"image": images})["logits"] for net in nets]
    answers = [x.argmax(axis=1) for x in logits]
    row("this computer", "float32", "int8")
    row("right of 1000 test digits", *(f"{np.mean(a == labels):.1%}" for a in answers))
    row("kernels", *(str(net.report["kernels"]) for net in nets))
    row("machine code, bytes", *(str(net.report["code_bytes"]) for net in nets))
    row("weights, bytes", *(str(net.report["weights_bytes"]) for net in nets))
    for batch in (1, 64):
        times = [per_image(net, images[:batch]) for net in nets]
        row(f"µs an image, batch {batch}", *(f"{t:.1f}" for t in times))
    same = int(np.sum(answers[0] == answers[1]))
    print(f"\nfloat32 and int8 give the same answer for {same} of {len(images)} digits\n")
    print(f"every level of the compiler, compared on {CHECKED} digits:")
    for name, compilation, net in (("float32", plain, float32), ("int8", quantized, int8)):
        print(f"  {name:8} {compare(compilation, net, images[:CHECKED])}")
    return logits[1]


def per_image(net: Executable, images: np.ndarray) -> float:
    """Median time of a call in microseconds, divided by the number of images."""
    inputs = {"image": images}
    outputs = {"logits": np.empty((len(images), 10), np.float32)}
    return 1e6 * median_seconds(lambda: net.run_into(inputs, outputs)) / len(images)


def median_seconds(call: Callable[[], object]) -> float:
    """Of REPETITIONS calls, after a first one."""
    call()
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def compare(compilation: Compilation, net: Executable, images: np.ndarray) -> str:
    """What the check of all levels says. Raises CheckError if they differ."""
    return str(check(compilation, net, {"image": images}))


# -- simulators --------------------------------------------------------------------------------
def on_accelerators(
    images: np.ndarray, labels: np.ndarray, calib: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    """The integer program on the simulated targets; `expected` are the CPU's logits."""
    print("\nthe integer program on simulated accelerators:")
    for name in SIMULATED:
        print(f"  {name}: {load(name).doc}")
    runs = {name: simulate(name, images, calib) for name in SIMULATED}
    found = list(runs.values())
    print()
    row("", *runs)
    row("right of 1000 test digits",
        *(f"{np.mean(r.logits.argmax(axis=1) == labels):.1%}" for r in found))  # fmt: skip
    equal = [int(np.sum((r.logits == expected).all(axis=1))) for r in found]
    row("logits equal to the CPU's", *(f"{n} of {len(images)}" for n in equal))
    all_statistics = [r.statistics for r in found]
    count = len(images)
    row("images at a time", *map(str, SIMULATED.values()))
    row("cycles an image", *(f"{s.cycles / count:.0f}" for s in all_statistics))
    row("µs an image", *(f"{1e6 * s.seconds / count:.1f}" for s in all_statistics))
    row("multiply-adds an image", *(f"{s.macs / count:.0f}" for s in all_statistics))
    row("utilization of peak", *(f"{s.utilization:.1%}" for s in all_statistics))
    row("µJ an image", *(f"{1e-6 * s.energy_pj / count:.2f}" for s in all_statistics))
    row("compiled in seconds", *(f"{r.compile_seconds:.1f}" for r in found))
    row("simulated in seconds", *(f"{r.seconds:.1f}" for r in found))
    for name, run in runs.items():
        print(f"\nbytes an image on {name}:")
        for memory, use in run.statistics.memories.items():
            read, written = use.read_bytes / count, use.written_bytes / count
            print(f"  {memory:20} {read:10.0f} read {written:10.0f} written")
    if any(n != len(images) for n in equal):
        raise SystemExit("the targets do not agree")


def simulate(name: str, images: np.ndarray, calib: dict[str, np.ndarray]) -> Simulation:
    """Compiles for a target and runs all images, with a line about how far it is."""
    size = SIMULATED[name]
    started = time.perf_counter()
    net = build(lower(MODEL, name, calib=calib, sizes={"N": size}), name=f"digits_{name}")
    compiled = time.perf_counter()
    parts, runs = [], []
    step = max(size, STEP)
    for first in range(0, len(images), step):
        parts.append(net.run({"image": images[first : first + step]})["logits"])
        assert net.statistics is not None, "a simulator took part"
        runs.append(net.statistics)
        done, seconds = first + len(parts[-1]), time.perf_counter() - compiled
        progress(f"  {name}: {done} of {len(images)} images, {seconds:.0f} s")
    progress("")
    seconds = time.perf_counter() - compiled
    return Simulation(net, np.concatenate(parts), total(runs), compiled - started, seconds)


def progress(text: str) -> None:
    """Replaces the last line on a terminal; elsewhere nothing is said."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


# -- text --------------------------------------------------------------------------------------
def pixels(images: np.ndarray) -> np.ndarray:
    """uint8[n,28,28] of 0..255 as the network wants them: f32[n,1,28,28] of 0..1."""
    return (images[:, None] / np.float32(255)).astype(np.float32)


def row(what: str, *columns: str) -> None:
    """One line of a table."""
    print(f"{what:26}" + "".join(f"{c:>14}" for c in columns))


def picture(image: np.ndarray) -> str:
    """A digit in characters: two rows of pixels a line."""
    shades = " .:-=+*#%@"
    rows = image[::2].astype(int) * (len(shades) - 1) // 255
    lines = ["".join(shades[v] for v in r).rstrip() for r in rows]
    return "\n".join(f"    {line}" for line in lines if line)


if __name__ == "__main__":
    main()
