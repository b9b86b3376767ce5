"""Compile the digits network in float and in int8, and run both on real digits.

python -m examples.digits.demo
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nncc
from nncc.check import check
from nncc.driver import Compilation, build, lower
from nncc.runtime.executable import Executable

HERE = Path(__file__).parent
CHECKED = 32  # test images on which every level of the compiler is compared
REPETITIONS = 200


def main() -> None:
    """Prints one screen: what was compiled, how well it works, how fast it is."""
    data = np.load(HERE / "digits.npz")
    images, labels = pixels(data["test_images"]), data["test_labels"]
    model = HERE / "digits.onnx"
    print(f"nncc {nncc.__version__}: a network that reads handwritten digits, for this computer\n")

    started = time.perf_counter()
    plain = lower(model)
    float32 = build(plain, name="digits_f32")
    compiled = time.perf_counter()
    quantized = lower(model, calib={"image": pixels(data["calib_images"])})
    int8 = build(quantized, name="digits_int8")
    print(f"compiled to float32 in {compiled - started:.2f} s")
    print(f"compiled to int8    in {time.perf_counter() - compiled:.2f} s, by 200 sample images\n")

    answers = [net.run({"image": images})["logits"].argmax(axis=1) for net in (float32, int8)]
    print(f"{'':26}{'float32':>12}{'int8':>12}")
    row("right of 1000 test digits", *(f"{np.mean(a == labels):.1%}" for a in answers))
    row("kernels", *(str(net.report["kernels"]) for net in (float32, int8)))
    row("machine code, bytes", *(str(net.report["code_bytes"]) for net in (float32, int8)))
    row("weights, bytes", *(str(net.report["weights_bytes"]) for net in (float32, int8)))
    for batch in (1, 64):
        times = [per_image(net, images[:batch]) for net in (float32, int8)]
        row(f"µs an image, batch {batch}", *(f"{t:.1f}" for t in times))
    same = int(np.sum(answers[0] == answers[1]))
    print(f"\nfloat32 and int8 give the same answer for {same} of {len(images)} digits\n")

    print(f"every level of the compiler, compared on {CHECKED} digits:")
    for name, compilation, net in (("float32", plain, float32), ("int8", quantized, int8)):
        print(f"  {name:8} {compare(compilation, net, images[:CHECKED])}")
    print(f"\none digit:\n{picture(data['test_images'][0])}")
    print(f"\nfloat32 says {answers[0][0]}, int8 says {answers[1][0]}; it is {labels[0]}")


def pixels(images: np.ndarray) -> np.ndarray:
    """uint8[n,28,28] of 0..255 as the network wants them: f32[n,1,28,28] of 0..1."""
    return (images[:, None] / np.float32(255)).astype(np.float32)


def row(what: str, float32: str, int8: str) -> None:
    """One line of the table."""
    print(f"{what:26}{float32:>12}{int8:>12}")


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


def picture(image: np.ndarray) -> str:
    """A digit in characters: two rows of pixels a line."""
    shades = " .:-=+*#%@"
    rows = image[::2].astype(int) * (len(shades) - 1) // 255
    lines = ["".join(shades[v] for v in r).rstrip() for r in rows]
    return "\n".join(f"    {line}" for line in lines if line)


if __name__ == "__main__":
    main()
