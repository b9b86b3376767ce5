"""The digit network on arrays: all 1000 test images, every level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nncc
from nncc.driver import build, lower
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.ops import reference
from tests.tpu.networks import check_loops

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    with np.load(DIGITS / "digits.npz") as found:
        return dict(found)


def images(data: dict[str, np.ndarray], split: str) -> np.ndarray:
    """As the network wants them: f32[n,1,28,28] of 0..1."""
    return data[f"{split}_images"][:, None].astype(np.float32) / np.float32(255)


@pytest.mark.parametrize(
    "rows, columns, batch",
    [
        pytest.param(256, 256, 50, marks=pytest.mark.slow),
        (32, 32, 200),
        pytest.param(16, 16, 100, marks=pytest.mark.slow),
        pytest.param(24, 10, 125, marks=pytest.mark.slow),
    ],
)
def test_all_digits(data: dict[str, np.ndarray], rows: int, columns: int, batch: int) -> None:
    machine = resized(load("tpu"), rows=rows, columns=columns)
    calib = {"image": images(data, "calib")}
    compilation = lower(DIGITS / "digits.onnx", machine, calib=calib, sizes={"N": batch})
    net = build(compilation)
    test = images(data, "test")
    outputs = net.run({"image": test})["logits"]
    expected = reference.interpret(compilation.module, {"image": test}).outputs["logits"]
    assert len(outputs) == 1000
    assert np.array_equal(outputs, expected)
    assert {n.op for n in compilation.host_nodes} == {"QuantizeLinear", "DequantizeLinear"}
    right = np.mean(outputs.argmax(axis=1) == data["test_labels"])
    assert right > 0.95
    assert net.statistics is not None and net.statistics.cycles > 0


def test_loops_of_the_digits() -> None:
    machine = resized(load("tpu"), rows=8, columns=6, accumulator_rows=100)
    compilation = lower(DIGITS / "digits.onnx", machine, sizes={"N": 2})
    (segment,) = (s for s in compilation.segments if s.machine is machine)
    check_loops(segment)


def test_an_artifact_runs_as_before(tmp_path: Path) -> None:
    machine = load("tpu")
    net = nncc.compile(DIGITS / "digits.onnx", machine, precision="int8", sizes={"N": 3})
    x = np.random.default_rng(2).standard_normal((5, 1, 28, 28)).astype(np.float32)
    before = net.run({"image": x})
    net.save(tmp_path / "digits")
    after = nncc.load(tmp_path / "digits").run({"image": x})
    assert np.array_equal(before["logits"], after["logits"])
