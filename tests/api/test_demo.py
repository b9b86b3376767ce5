"""The demonstration that `make demo` runs, on fewer digits."""

from __future__ import annotations

import re

import numpy as np
import pytest

from examples.digits import demo
from nncc.driver import build, lower


def test_accelerators(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SIMULATED", {"tpu": 20, "tta": 1})
    with np.load(demo.HERE / "digits.npz") as data:
        images, labels = demo.pixels(data["test_images"][:40]), data["test_labels"][:40]
        calib = {"image": demo.pixels(data["calib_images"])}
    expected = build(lower(demo.MODEL, calib=calib)).run({"image": images})["logits"]
    demo.on_accelerators(images, labels, calib, expected)
    out = capsys.readouterr().out
    assert re.search(r"logits equal to the CPU's +40 of 40 +40 of 40\n", out)
    assert all(f"\n  {memory} " in out for memory in ("dmem", "pmem", "weight_memory", "host"))
    monkeypatch.setattr(demo, "SIMULATED", {"tpu": 20})
    with pytest.raises(SystemExit, match="do not agree"):
        demo.on_accelerators(images, labels, calib, expected + 1)
