from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nncc import passes
from tests.api import toy_passes


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy passes are known for the time of a test."""
    monkeypatch.setattr(passes, "_registered", {})
    for cls in toy_passes.ALL:
        passes.register(cls)
    yield


DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="session")
def digits_model() -> Path:
    return DIGITS / "digits.onnx"


@pytest.fixture(scope="session")
def digits() -> dict[str, np.ndarray]:
    """Images (f32, 0..1) and labels of the test digits, and images to calibrate by."""
    data = np.load(DIGITS / "digits.npz")

    def pixels(name: str) -> np.ndarray:
        return (data[name][:, None] / np.float32(255)).astype(np.float32)

    return {
        "test": pixels("test_images"),
        "labels": data["test_labels"],
        "calib": pixels("calib_images"),
    }


SMALL = """
nncc 1
size N
param w: f32[8,3,3,3] = random(seed=1, mean=0.0, std=0.3)
param v: f32[10,8] = random(seed=2, mean=0.0, std=0.3)
graph small(x: f32[N,3,6,6]) -> (y: f32[N,10]) {
  c = Conv(x, w) {pads=[1,1,1,1]} at "conv"
  r = Relu(c) at "relu"
  p = GlobalAveragePool(r) at "pool"
  f = Flatten(p) at "flat"
  y = Gemm(f, v) {transB=1} at "fc"
}
"""


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """A small network in the nncc language."""
    path = tmp_path / "small.nn"
    path.write_text(SMALL)
    return path


@pytest.fixture
def small_input() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)
