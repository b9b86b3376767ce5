"""A transformer's layer: what the array does of it, and what the report says of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.networks import transformer
from nncc.driver import build, lower
from nncc.machines import load
from nncc.ops import reference

SIZES = {
    "TOKENS": 16, "WIDTH": 64, "HEADS": 4, "HEAD_WIDTH": 16, "LAYERS": 1, "INNER": 128,
    "WORDS": 100, "POSITIONS": 32,
}  # fmt: skip


def test_products_of_two_tensors_go_to_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SIZES.items():
        monkeypatch.setattr(transformer, name, value)
    path = tmp_path / "bert.nn"
    path.write_text(transformer.bert_base())
    rng = np.random.default_rng(0)
    feeds = {
        "input_ids": rng.integers(0, 100, (1, 16)),
        "attention_mask": np.ones((1, 16), np.int64),
        "token_type_ids": rng.integers(0, 2, (1, 16)),
    }
    compilation = lower(path, load("tpu"), calib=feeds)
    nodes = {n.node: n for n in compilation.host_nodes}
    for name in ("scores", "mixed"):
        node = nodes[f"encoder.0.attention.{name}.acc"]
        assert node.op == "IntMatMul" and "no product of a tensor and a constant" in node.reason
        assert 0.02 < node.macs_share < 0.04
    assert any("Softmax" in n.op for n in nodes.values())
    assert sum(n.macs_share for n in nodes.values()) < 0.2
    executable = build(compilation)
    outputs = executable.run(feeds)
    expected = reference.interpret(compilation.module, feeds).outputs
    for name, y in expected.items():  # LayerNormalization of the host is in floats
        assert np.allclose(outputs[name], y, rtol=1e-5, atol=1e-5)
    statistics = executable.statistics
    assert statistics is not None
    layers = {layer.name: layer.macs for layer in statistics.layers}
    for name in ("query", "key", "value"):
        assert layers[f"encoder.0.attention.{name}.product.q"] == 16 * 64 * 64
    for name in ("intermediate", "output"):
        assert layers[f"encoder.0.{name}.product.q"] == 16 * 64 * 128
