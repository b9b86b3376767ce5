"""Trained networks on real digits: accuracy, and every level equal on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nncc.check import check
from nncc.driver import Compilation, build, lower
from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.ops.reference import evaluate
from nncc.runtime.executable import Executable
from tests.levels.harness import machines, verify

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
ON_LOOPS = 128  # digits that the fast tests run in the interpreter of Loops


@cache
def arrays() -> Mapping[str, np.ndarray]:
    """The digits, as images f32[count,1,28,28] with pixels 0..1."""
    with np.load(DIGITS / "digits.npz") as data:
        images = {
            k: data[k][:, None].astype(np.float32) / 255 for k in ("test_images", "calib_images")
        }
        return {**images, "labels": data["test_labels"]}


@cache
def compiled(precision: str, machine: str = "cpu") -> tuple[Compilation, Executable]:
    calib = {"image": arrays()["calib_images"]} if precision == "int8" else None
    compilation = lower(DIGITS / "digits.onnx", machine, calib=calib)
    return compilation, build(compilation)


def outputs(module: Module, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The one output of a module at the level of graph or nests."""
    (value,) = interpret(module, inputs, evaluate).outputs.values()
    return value


def correct(scores: np.ndarray) -> int:
    return int(np.count_nonzero(scores.argmax(1) == arrays()["labels"]))


def test_accuracy_of_digits() -> None:
    image = arrays()["test_images"]
    right = {p: correct(compiled(p)[1].run({"image": image})["logits"]) for p in ("fp32", "int8")}
    assert right["fp32"] >= 975
    assert abs(right["int8"] - right["fp32"]) <= 3


def test_every_level_gives_the_same_for_all_digits() -> None:
    compilation, executable = compiled("int8")
    inputs = {"image": arrays()["test_images"]}
    native = executable.run(inputs)["logits"]
    for step in ("legalize", "fuse", "emit"):  # quantized, legalized; nests
        np.testing.assert_array_equal(outputs(compilation.before(step), inputs), native)
    some = {"image": inputs["image"][:ON_LOOPS]}
    checked = check(compilation, executable, some)
    assert checked.samples == ON_LOOPS and sum(checked.integers.values()) > 0


@pytest.mark.parametrize("machine", machines()[1:])
def test_native_code_of_every_variant_gives_the_same(machine: str) -> None:
    inputs = {"image": arrays()["test_images"]}
    compilation, executable = compiled("int8", machine)
    verify(compilation)
    expected = compiled("int8")[1].run(inputs)["logits"]
    np.testing.assert_array_equal(executable.run(inputs)["logits"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("machine", machines())
def test_loops_give_the_same_for_all_digits(machine: str, precision: str) -> None:
    checked = check(*compiled(precision, machine), {"image": arrays()["test_images"]})
    assert checked.samples == 1000


def test_one_object_runs_every_batch() -> None:
    compilation, executable = compiled("int8")
    for batch in (1, 7, 256):
        inputs = {"image": arrays()["test_images"][:batch]}
        native = executable.run(inputs)["logits"]
        assert native.shape == (batch, 10)
        np.testing.assert_array_equal(native, outputs(compilation.before("legalize"), inputs))


# -- a network of others -----------------------------------------------------------------------


@cache
def mnist_conv(precision: str) -> tuple[Compilation, Executable]:
    """A convolutional network that the package qonnx carries: pixels 0..255, batches of one."""
    found = find_spec("qonnx")
    assert found is not None and found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "data/onnx/mnist-conv/model.onnx"
    calib = {"Input3": arrays()["calib_images"] * 255} if precision == "int8" else None
    compilation = lower(path, calib=calib)
    return compilation, build(compilation)


def one_by_one(executable: Executable) -> np.ndarray:
    images = arrays()["test_images"] * 255
    found = [executable.run({"Input3": images[k : k + 1]}) for k in range(len(images))]
    return np.concatenate([next(iter(f.values())) for f in found])


def test_accuracy_of_mnist_conv() -> None:
    right = {p: correct(one_by_one(mnist_conv(p)[1])) for p in ("fp32", "int8")}
    assert right["fp32"] >= 975
    assert abs(right["int8"] - right["fp32"]) <= 3


def test_every_level_of_mnist_conv_gives_the_same() -> None:
    compilation, executable = mnist_conv("int8")
    images = arrays()["test_images"] * 255
    native = one_by_one(executable)
    graph = compilation.before("legalize")
    for k, expected in enumerate(native):
        image = {"Input3": images[k : k + 1]}
        np.testing.assert_array_equal(outputs(graph, image)[0], expected, err_msg=f"digit {k}")
    check(compilation, executable, {"Input3": images[:2]})
