"""Windows over images of symbolic size: one program for every size that the window fits into."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest

import nncc
from nncc.diagnostics import NnccError
from nncc.frontend.onnx import load
from nncc.ops.reference import interpret
from tests.onnx.onnx_models import floats, model, node

SIZES = ((7, 8), (10, 13), (32, 9))
POOLS = {
    "2/2": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "3/2": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "3/2 ceil": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "5/3 ceil": {
        "kernel_shape": [5, 4], "strides": [3, 5], "ceil_mode": 1, "pads": [2, 1, 1, 2],
    },
    "dilated": {"kernel_shape": [3, 2], "strides": [2, 1], "dilations": [2, 3]},
    "same": {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"},
    "same lower ceil": {"kernel_shape": [2, 3], "auto_pad": "SAME_LOWER", "ceil_mode": 1},
    "valid": {"kernel_shape": [3, 3], "strides": [3, 2], "auto_pad": "VALID"},
}  # fmt: skip


def image_model(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    return model(list(nodes), {"x": ["N", 3, "H", "W"]}, {"y": None}, weights, opset=22, ir=10)


def agrees(m: onnx.ModelProto, sizes: tuple[tuple[int, int], ...] = SIZES) -> None:
    """One compiled program gives what the reference gives, for every size."""
    module, program = load(m), nncc.compile(m)
    for size in sizes:
        x = floats(2, 3, *size)
        expected = interpret(module, {"x": x}).outputs["y"]
        np.testing.assert_allclose(program.run({"x": x})["y"], expected, 1e-4, 1e-5)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools(op: str, name: str) -> None:
    agrees(image_model(node(op, "x", "y", **POOLS[name])))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("kernel", "ceil"), [(2, 0), (3, 0), (3, 1)])
def test_pools_of_pools(op: str, kernel: int, ceil: int) -> None:
    """H // 2 - 2 * (H // 4) and the like have to be seen to be at least 0."""
    window = {"kernel_shape": [kernel] * 2, "strides": [2, 2], "ceil_mode": ceil}
    values = ("x", "a", "b", "c", "y")
    steps = [node(op, i, o, **window) for i, o in pairwise(values)]
    agrees(image_model(*steps), ((33, 34), (64, 48), (41, 57)))


@pytest.mark.parametrize(
    "attrs",
    [{}, {"pads": [1] * 4}, {"strides": [2, 2]}, {"auto_pad": "SAME_LOWER"}, {"dilations": [2, 3]}],
)
def test_convolutions(attrs: dict[str, object]) -> None:
    agrees(image_model(node("Conv", "x w", "y", **attrs), w=floats(4, 3, 3, 3)))


def test_a_network_of_windows() -> None:
    nodes = (
        node("Conv", "x w", "a", strides=[2, 2], pads=[1] * 4),
        node("MaxPool", "a", "b", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Conv", "b v", "c"),
        node("AveragePool", "c", "d", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("GlobalAveragePool", "d", "y"),
    )
    m = image_model(*nodes, w=floats(4, 3, 3, 3), v=floats(4, 4, 3, 3, seed=1))
    agrees(m, ((33, 34), (64, 48), (41, 57)))


def test_views_of_symbolic_images() -> None:
    for n in (
        node("Slice", "x start end axis step", "y"),
        node("Slice", "x last first axis back", "y"),
        node("Tile", "x repeats", "y"),
    ):
        agrees(
            image_model(
                n, start=np.array([1]), end=np.array([1 << 40]), axis=np.array([3]),
                step=np.array([2]), last=np.array([-1]), first=np.array([-(1 << 40)]),
                back=np.array([-2]), repeats=np.array([1, 2, 3, 2]),
            )
        )  # fmt: skip


def test_bounds_that_the_model_computes() -> None:
    """x[..., :W-1], where W - 1 comes from Shape; and a tensor of x's shape."""
    crop = (
        node("Shape", "x", "w", start=3), node("Sub", "w one", "end"),
        node("Slice", "x zero end axis", "y"),
    )  # fmt: skip
    weights = {"one": np.array([1]), "zero": np.array([0]), "axis": np.array([3])}
    module, x = load(image_model(*crop, **weights)), floats(2, 3, 4, 5)
    assert str(module.graph.types["y"]) == "f32[N,3,H,W - 1]"
    np.testing.assert_array_equal(interpret(module, {"x": x}).outputs["y"], x[..., :-1])
    spread = (node("Shape", "x", "s"), node("Expand", "c s", "y"))
    agrees(image_model(*spread, c=floats(1)))


def test_sizes_that_the_window_does_not_fit_into() -> None:
    """Both extents would be -1: their product is a number of elements that looks right."""
    pool = node("AveragePool", "x", "a", kernel_shape=[4, 4], strides=[2, 2])
    program = nncc.compile(image_model(pool, node("GlobalMaxPool", "a", "y")))
    assert program.run({"x": floats(1, 3, 4, 5)})["y"].shape == (1, 3, 1, 1)
    for size in ((1, 1), (2, 2), (1, 9)):
        with pytest.raises(NnccError, match=f"too small: with N = 1, H = {size[0]}"):
            program.run({"x": floats(1, 3, *size)})
    alone = nncc.compile(image_model(node("MaxPool", "x", "y", kernel_shape=[4, 4])))
    with pytest.raises(NnccError, match="too small"):
        alone.run({"x": floats(1, 3, 3, 3)})


def test_padding_that_depends_on_the_size_is_refused() -> None:
    same = node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    with pytest.raises(NnccError, match="the padding depends on the remainder of H divided by 2"):
        load(image_model(same))
