"""The example networks: structure, size, text, and native code beside onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import nncc
from benchmarks.networks import EXAMPLES, feeds_of
from examples.networks.generate import NETWORKS
from nncc.check import total_reduction
from nncc.driver import build, lower
from nncc.ir.graph import Module
from nncc.ir.text import parse_module, print_module
from nncc.ops.cost import parameters, total_macs
from nncc.tolerance import compare


@dataclass(frozen=True)
class Published:
    """Counts of the published model.

    Args:
        parameters: with scale and shift of each normalized channel; folding leaves one bias of
            the two.
        normalized: channels of all BatchNormalizations.
        macs: of convolutions, matrix products and fully connected layers, for one image of
            224x224 or 128 tokens.
    """

    parameters: int
    normalized: int
    macs: int


PUBLISHED = {
    "resnet18": Published(11_689_512, 4_800, 1_814_073_344),
    "resnet50": Published(25_557_032, 26_560, 4_089_184_256),
    "vgg16": Published(138_357_544, 0, 15_470_264_320),
    "mobilenet_v2": Published(3_504_872, 17_056, 300_774_272),
    "squeezenet1_1": Published(1_235_496, 0, 349_151_936),
    "efficientnet_b0": Published(5_288_548, 21_008, 385_814_752),
    "bert_base": Published(109_482_240, 0, 11_174_215_680),
}
FAST = {"squeezenet1_1", "mobilenet_v2"}
EVERY = [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in PUBLISHED]


def network(name: str) -> Module:
    module = nncc.load(EXAMPLES / f"{name}.nn")
    assert isinstance(module, Module)
    return module


def test_there_are_no_others() -> None:
    assert set(PUBLISHED) == set(NETWORKS) == {p.stem for p in EXAMPLES.glob("*.nn")}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_files_are_what_the_generator_writes(name: str) -> None:
    assert NETWORKS[name]() == (EXAMPLES / f"{name}.nn").read_text("utf-8")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name: str) -> None:
    module, published = network(name), PUBLISHED[name]
    assert parameters(module) == published.parameters - published.normalized
    assert total_macs(module, {}) == published.macs


@pytest.mark.parametrize("name", EVERY)
def test_reads_what_it_prints(name: str) -> None:
    module = network(name)
    text = print_module(module)
    again = parse_module(text)
    assert print_module(again) == text
    assert again == module


@pytest.mark.parametrize("name", EVERY)
def test_native_code_equals_onnxruntime_on_the_export(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    nncc.save(network(name), path)
    feeds = feeds_of(path)
    compilation = lower(path)
    found = build(compilation).run(feeds)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    assert outputs == list(found)
    reduction = total_reduction(compilation.before("emit"), {})
    for output, expected in zip(outputs, session.run(outputs, feeds), strict=True):
        assert np.isfinite(expected).all()
        assert expected.std() > 0.1  # weights by the rule neither vanish nor blow up
        assert np.abs(expected).max() < 1e3
        assert compare(found[output], expected, reduction) is None
