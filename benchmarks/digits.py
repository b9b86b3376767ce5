"""Accuracy and time of two digit classifiers in float and in int8, on 1000 digits.

The digits network of examples/digits, and mnist_conv of the ONNX test models where the package
qonnx, which carries it, is installed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import nncc
from benchmarks.measure import median_seconds, pin
from examples.digits.demo import HERE, pixels
from nncc.driver import load_module
from nncc.runtime.executable import Executable

BATCHES = (1, 7, 256)


@dataclass(frozen=True)
class Classifier:
    """A model and what its input is.

    Args:
        scale: pixels of 0..1 are multiplied by it.
        batches: whether it takes more than one image at a time.
    """

    name: str
    path: Path
    scale: float
    batches: bool


def run(seconds: float) -> int:
    """Prints one line a model and precision: right answers of 1000, µs an image by batch.

    Args:
        seconds: of measuring for each time.
    """
    pin()
    data = np.load(HERE / "digits.npz")
    labels = data["test_labels"]
    columns = "".join(f"{f'batch {b}':>12}" for b in BATCHES)
    print(f"{'model':12}{'':14}{'right':>8}{columns}   (µs an image)")
    for model in classifiers():
        images, samples = (
            pixels(data[k]) * np.float32(model.scale) for k in ("test_images", "calib_images")
        )
        entry = load_module(model.path).graph.inputs[0]
        plain = nncc.compile(model.path)
        nets = {"float32": plain, "int8": nncc.compile(model.path, calib={entry: samples})}
        for precision, net in nets.items():
            answers = classify(net, entry, images if model.batches else images[:, None])
            cells = [f"{np.sum(answers == labels):8d}"]
            for batch in BATCHES:
                if batch > 1 and not model.batches:
                    cells.append(f"{'-':>12}")
                    continue
                time = seconds_of(net, entry, images[:batch], seconds)
                cells.append(f"{1e6 * time / batch:12.2f}")
            print(f"{model.name:12}{precision:14}" + "".join(cells), flush=True)
        for batch, time in in_onnxruntime(model, entry, images, seconds).items():
            print(f"{'':12}{'onnxruntime':14}{'':8}" if batch == 1 else "", end="")
            print(f"{1e6 * time / batch:12.2f}", end="")
        print(flush=True)
    return 0


def classifiers() -> list[Classifier]:
    """The models that are there."""
    found = [Classifier("digits", HERE / "digits.onnx", 1.0, True)]
    package = importlib.util.find_spec("qonnx")
    if package is not None and package.submodule_search_locations:
        folder = Path(package.submodule_search_locations[0]) / "data/onnx/mnist-conv"
        found.append(Classifier("mnist_conv", folder / "model.onnx", 255.0, False))
    return found


def classify(net: Executable, entry: str, images: np.ndarray) -> np.ndarray:
    """The answers for images; an axis in front of the batch: one call for each."""
    if images.ndim == 4:
        (logits,) = net.run({entry: images}).values()
        return np.asarray(logits.argmax(axis=1))
    return np.concatenate([classify(net, entry, image) for image in images])


def seconds_of(net: Executable, entry: str, images: np.ndarray, seconds: float) -> float:
    """Median CPU time of a call."""
    inputs = {entry: images}
    outputs = net.run(inputs)
    return median_seconds(lambda: net.run_into(inputs, outputs), seconds)


def in_onnxruntime(
    model: Classifier, entry: str, images: np.ndarray, seconds: float
) -> dict[int, float]:
    """Median CPU time of a call of onnxruntime, one thread, by batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(model.path), options, providers=["CPUExecutionProvider"]
    )
    found = {}
    for batch in BATCHES if model.batches else BATCHES[:1]:
        feeds = {entry: images[:batch]}
        found[batch] = median_seconds(partial(session.run, None, feeds), seconds)
    return found
