"""Quantization: the integer program is close to the float graph, and is what design asks for."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nncc.diagnostics import PassError
from nncc.frontend.dsl import read_nn
from nncc.frontend.onnx import load
from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.ops.integer import accumulator_bound
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE
from nncc.ops.verify import verify
from nncc.passes.fold import Fold
from nncc.passes.quantization.calibration import SyntheticCalibrationWarning
from nncc.passes.quantization.scales import Scale
from nncc.passes.quantize import Quantize, Report

DIGITS = Path(__file__).parents[2] / "examples/digits"


def run(module: Module, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    return interpret(module, inputs, evaluate).outputs


def quantized(text: str, x: np.ndarray, **options: object) -> tuple[Module, Module, Report]:
    """A network of one input x, folded, and quantized with x as data; both verify."""
    module = Fold()(read_nn(f"nncc 1\nsize N\n{text}"))
    reports: list[Report] = []
    result = Quantize(calib={"x": x}, on_report=reports.append, **options)(module)  # type: ignore[arg-type]
    verify(result)
    return module, result, reports[0]


def ops(module: Module) -> list[str]:
    return [n.op for n in module.graph.nodes]


def data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CONV = """
param w: f32[6,4,3,3] = random(seed=1, mean=0.0, std=0.3)
param b: f32[6] = random(seed=2, mean=0.0, std=0.3)
param d: f32[4,1,3,3] = random(seed=3, mean=0.0, std=0.3)
param p: f32[4,4,1,1] = random(seed=4, mean=0.0, std=0.3)
param k: f32[4,5] = random(seed=5, mean=0.0, std=0.5)
param row: f32[5] = random(seed=6, mean=0.0, std=0.5)
const six: f32[] = 6.0
const zero: f32[] = 0.0
const half: f32[] = 0.5
const axes: i64[2] = [2, 3]
const flat: i64[2] = [-1, 16]
graph main(x: f32[N,4,8,8]) -> (y) {
"""
NETWORKS = {
    "conv": ("y = Conv(x, w, b) {pads=[1,1,1,1]}", ["IntConv", "Requantize"]),
    "relu is a clamp": ("c = Conv(x, w, b) y = Relu(c)", ["IntConv", "Requantize"]),
    "clip is a clamp": ("c = Conv(x, w, b) y = Clip(c, zero, six)", ["IntConv", "Requantize"]),
    "minimum is a clamp": ("c = Conv(x, w, b) y = Min(c, half)", ["IntConv", "Requantize"]),
    "depthwise": ("c = Conv(x, d) {group=4} y = Relu(c)", ["IntConv", "Requantize"]),
    "grouped, strided": (
        "c = Conv(x, d) {group=4, strides=[2,2], dilations=[2,1]} y = Relu(c)",
        ["IntConv", "Requantize"],
    ),
    "sigmoid is a table": ("c = Conv(x, w, b) y = Sigmoid(c)", ["IntConv", "Requantize", "Lookup"]),
    "swish is one table": (
        "c = Conv(x, w, b) s = Sigmoid(c) y = Mul(c, s)", ["IntConv", "Requantize", "Lookup"],
    ),
    "a long function is one table": (
        "c = Conv(x, w) a = Mul(c, half) t = Tanh(a) u = Add(t, half) y = Mul(c, u)",
        ["IntConv", "Requantize", "Lookup"],
    ),
    "residual": (
        "a = Conv(x, p) c = Conv(x, p) s = Add(a, c) y = Relu(s)",
        ["IntConv", "Requantize", "IntConv", "Requantize", "IntAdd"],
    ),
    "pool and views": (
        "c = Conv(x, p) m = MaxPool(c) {kernel_shape=[2,2], strides=[2,2]} "
        "t = Transpose(m) {perm=[0,2,3,1]} y = Reshape(t, flat)",
        ["IntConv", "Requantize", "MaxPool", "Transpose", "Reshape"],
    ),
    "concat takes one scale": (
        "a = Conv(x, p) c = Conv(x, d) {group=4, pads=[1,1,1,1]} y = Concat(a, c) {axis=1}",
        ["IntConv", "Requantize", "IntConv", "Requantize", "Concat"],
    ),
    "concat rescales by a table": (
        "a = Conv(x, p) m = Relu(a) n = Neg(a) j = Concat(m, a) {axis=1} y = Concat(j, n) {axis=1}",
        ["IntConv", "Requantize", "Lookup", "Lookup", "Concat", "Lookup", "Concat"],
    ),
    "average pool with borders": (
        "c = Conv(x, p) y = AveragePool(c) {kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]}",
        ["IntConv", "Requantize", "IntAveragePool"],
    ),
    "global average": (
        "c = Conv(x, p) y = GlobalAveragePool(c)", ["IntConv", "Requantize", "IntGlobalAveragePool"]
    ),
    "mean and matrix": (
        "c = Conv(x, p) r = Relu(c) m = ReduceMean(r, axes) {keepdims=false} y = Gemm(m, k, row)",
        ["IntConv", "Requantize", "IntGlobalAveragePool", "Squeeze", "IntMatMul", "Requantize"],
    ),
    "product of activations": (
        "a = Conv(x, p) t = Transpose(a) {perm=[0,1,3,2]} y = MatMul(a, t)",
        ["IntConv", "Requantize", "Transpose", "IntMatMul", "Requantize"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    body, expected = NETWORKS[name]
    x = data(4, 4, 8, 8)
    module, result, report = quantized(f"{CONV}{body} }}", x)
    got = [op for op in ops(result) if op not in ("QuantizeLinear", "DequantizeLinear")]
    assert sorted(got) == sorted(expected)
    assert ops(result)[0] == "QuantizeLinear" and ops(result)[-1] == "DequantizeLinear"
    assert report.floats == ()
    assert report.sqnr["y"] > 25
    difference = run(module, x=x)["y"] - run(result, x=x)["y"]
    signal = run(module, x=x)["y"]
    assert np.isclose(report.sqnr["y"], 10 * np.log10((signal**2).sum() / (difference**2).sum()),
                      rtol=1e-3)  # fmt: skip


def test_what_has_no_integer_form_stays_float() -> None:
    body = "c = Conv(x, p) s = Softmax(c) {axis=1} y = Conv(s, w, b)"
    _, result, report = quantized(f"{CONV}{body} }}", data(2, 4, 8, 8))
    assert report.floats == (("s", "there is no integer op for it"),)
    assert ops(result) == [
        "QuantizeLinear", "IntConv", "Requantize", "DequantizeLinear", "Softmax",
        "QuantizeLinear", "IntConv", "Requantize", "DequantizeLinear",
    ]  # fmt: skip
    assert "s: there is no integer op for it" in str(report)


@pytest.mark.parametrize(
    ("body", "floats"),
    [
        (
            "c = Conv(x, p) g = Greater(c, half) f = Cast(g) {to=f32} y = Mul(c, f)",
            {"g": "it gives bool", "f": "its operands are floats", "y": "its operands are floats"},
        ),
        (
            "c = Conv(x, p) d2 = Cast(c) {to=f64} e = Abs(d2) y = Cast(e) {to=f32}",
            {"d2": "it computes in f64", "e": "it computes in f64", "y": "its operands are floats"},
        ),
    ],
)  # fmt: skip
def test_every_node_on_floats_is_reported(body: str, floats: dict[str, str]) -> None:
    _, _, report = quantized(f"{CONV}{body} }}", data(2, 4, 8, 8))
    assert report.integer == ("c",)
    assert dict(report.floats) == floats
    assert all(f"float: {name}: {reason}" in str(report) for name, reason in floats.items())


def test_shapes_are_not_on_floats() -> None:
    _, _, report = quantized(f"{CONV}c = Conv(x, p) y = Shape(c) }}", data(2, 4, 8, 8))
    assert report.floats == ()


@pytest.mark.parametrize("clamp", ["Max(c, six)", "Min(c, below)", "Clip(c, half, six)"])
def test_a_clamp_without_zero_is_a_table(clamp: str) -> None:
    text = CONV.replace("graph main", "const below: f32[] = -0.5\ngraph main")
    x = data(2, 4, 8, 8)
    module, result, report = quantized(f"{text}c = Conv(x, w, b) y = {clamp} }}", x)
    assert report.floats == () and ops(result).count("Lookup") == 1
    difference = np.abs(run(module, x=x)["y"] - run(result, x=x)["y"]).max()
    assert difference < 0.05 * np.abs(run(module, x=x)["y"]).max()


def test_definitions_stay_float() -> None:
    text = """
    param k: f32[4,4] = random(seed=5, mean=0.0, std=0.5)
    def twice(a: f32[N,C]) -> (b: f32[N,C]) { b[n,c] = 2.0 * a[n,c] }
    graph main(x: f32[N,4]) -> (y) { p = MatMul(x, k)  t = twice(p)  y = MatMul(t, k) }"""
    _, result, report = quantized(text, data(8, 4))
    assert report.floats == (("t", "it is defined by the user"),)
    assert ops(result).count("IntMatMul") == 2 and report.sqnr["y"] > 30


def test_nodes_that_are_asked_to_stay_float() -> None:
    body = "c = Conv(x, p) d2 = Conv(c, p) y = Conv(d2, p)"
    _, result, report = quantized(f"{CONV}{body} }}", data(2, 4, 8, 8), floats=("d2",))
    assert ops(result).count("IntConv") == 2 and ops(result).count("Conv") == 1
    assert report.floats == (("d2", "it was asked for"),)


def test_a_clamp_that_is_asked_to_stay_float_is_not_merged() -> None:
    body = "c = Conv(x, w, b) r = Relu(c) y = Conv(r, k2)"
    text = CONV.replace("graph main", "param k2: f32[3,6,1,1] = random(seed=7)\ngraph main")
    _, result, report = quantized(f"{text}{body} }}", data(2, 4, 8, 8), floats=("r",))
    assert report.floats == (("r", "it was asked for"),) and "Relu" in ops(result)


def test_unknown_nodes_cannot_stay_float() -> None:
    with pytest.raises(PassError, match="'conv' is to stay in floats") as raised:
        quantized(
            f"{CONV}conv1 = Conv(x, p) y = Relu(conv1) }}", data(2, 4, 8, 8), floats=("conv",)
        )
    assert "conv1" in raised.value.help


def test_accumulators_are_bounded() -> None:
    body = "y = Conv(x, w, b) {pads=[1,1,1,1]}"
    _, result, _ = quantized(f"{CONV}{body} }}", data(2, 4, 8, 8))
    conv = next(n for n in result.graph.nodes if n.op == "IntConv")
    w, b = (result.symbols[i].data.array for i in conv.inputs[1:])
    assert w.min() >= -127 and accumulator_bound(w, b, 0) < 2**31
    assert {result.symbols[i].kind for i in conv.inputs[1:]} == {"param"}


def test_zero_weights_and_large_biases() -> None:
    text = """
    param w: f32[3,2] = [0.0, 0.0, 1e-30, -1e-30, 1.0, 2.0]
    param b: f32[3] = [100.0, -3.0, 0.5]
    graph main(x: f32[N,2]) -> (y) { y = Gemm(x, w, b) {transB=true} }"""
    module, result, report = quantized(text, data(16, 2))
    assert report.sqnr["y"] > 30
    np.testing.assert_allclose(run(result, x=data(3, 2))["y"], run(module, x=data(3, 2))["y"],
                               atol=0.5)  # fmt: skip


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(bad: float) -> None:
    text = f"""
    param w: f32[2,2] = [1.0, 2.0, {bad}, 4.0]
    graph main(x: f32[N,2]) -> (y) {{ y = MatMul(x, w) }}"""
    with pytest.raises(PassError, match=r"'w' has -?(nan|inf) at \[1, 0\]"):
        quantized(text, data(3, 2))


def test_sums_that_are_too_long() -> None:
    text = """
    graph main(x: f32[N,140000], z: f32[N,140000]) -> (y) {
      t = Transpose(z) {perm=[1,0]}
      y = MatMul(x, t)
    }"""
    module = read_nn(f"nncc 1\nsize N\n{text}")
    calib = {"x": data(2, 140000), "z": data(2, 140000, seed=1)}
    with pytest.raises(PassError, match="accumulator may reach"):
        Quantize(calib=calib)(module)


@pytest.mark.parametrize(
    ("calib", "said"),
    [
        ({}, "lack input 'x'"),
        ({"x": np.zeros((3, 2))}, "the input is f32"),
        ({"x": np.zeros((3, 5), np.float32)}, r"shape \[3, 5\]"),
        ({"x": np.zeros((0, 2), np.float32)}, "less than one batch"),
        ({"x": np.zeros((3, 2), np.float32), "xx": np.zeros(1)}, "is no input"),
        ({"x": np.full((3, 2), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_data_that_do_not_fit(calib: dict[str, np.ndarray], said: str) -> None:
    module = read_nn("nncc 1\nsize N\ngraph main(x: f32[N,2]) -> (y) { y = Relu(x) }")
    with pytest.raises(PassError, match=said):
        Quantize(calib=calib)(module)


@pytest.mark.parametrize("options", [{"bits": 4}, {"percentile": 20.0}])
def test_wrong_options(options: dict[str, float]) -> None:
    module = read_nn("nncc 1\ngraph main(x: f32[2]) -> (y) { y = Relu(x) }")
    with pytest.raises(PassError):
        Quantize(**options)(module)  # type: ignore[arg-type]


def test_without_data_there_is_a_warning() -> None:
    module = read_nn(f"nncc 1\nsize N\n{CONV} y = Conv(x, w, b) }}")
    with pytest.warns(SyntheticCalibrationWarning, match="accuracy is not assured"):
        Quantize()(module)


def test_fixed_batches() -> None:
    """A model for 2 samples at a time uses 5 samples as two batches."""
    text = CONV.replace("x: f32[N,", "x: f32[2,") + "y = Conv(x, w, b) }"
    x = data(5, 4, 8, 8)
    x[4] = 1000.0  # not in a whole batch
    _, result, _ = quantized(text, x)
    assert result.symbols["x.scale"].data.array < 0.1


def test_fixed_and_symbolic_batches_are_cut_alike() -> None:
    text = """
    graph main(x: f32[N,3], z: f32[4,5]) -> (y, v) { y = Relu(x)  v = Abs(z) }"""
    module = read_nn(f"nncc 1\nsize N\n{text}")
    reports: list[Report] = []
    Quantize(calib={"x": data(10, 3), "z": data(10, 5)}, on_report=reports.append)(module)
    assert set(reports[0].sqnr) == {"y", "v"}


def test_percentiles_of_values_that_hardly_differ() -> None:
    x = np.full((4, 4, 8, 8), 1.0, np.float32)
    x[0, 0, 0, 0] = np.nextafter(np.float32(1), np.float32(2))
    _, result, _ = quantized(f"{CONV} y = Conv(x, p) }}", x, calibrator="percentile")
    assert np.isclose(float(result.symbols["x.scale"].data.array), 1 / 255)


@given(st.floats(-(2.0**99), 2.0**99, width=32), st.floats(0, 2.0**99, width=32))
def test_scales(lo: float, width: float) -> None:
    scale = Scale.of_range(lo, lo + width)
    assert -128 <= scale.zero <= 127
    assert scale.quantize(np.zeros(1))[0] == scale.zero  # zero is exact
    ends = np.array([min(lo, 0.0), max(lo + width, 0.0)], np.float32)
    error = np.abs(scale.dequantize(scale.quantize(ends)) - ends)
    assert (error <= scale.scale * 1.01 + 1e-30).all()


def test_percentiles_leave_out_what_is_rare() -> None:
    text = f"{CONV} y = Conv(x, p) }}"
    x = data(64, 4, 8, 8)
    x[0, 0, 0, 0] = 1000.0
    scales = {}
    for calibrator in ("minmax", "percentile"):
        _, result, _ = quantized(text, x, calibrator=calibrator, percentile=99.9)
        scales[calibrator] = float(result.symbols["x.scale"].data.array)
    assert scales["minmax"] > 3.5
    assert scales["percentile"] < 1.0


@cache
def digits() -> dict[str, np.ndarray]:
    with np.load(DIGITS / "digits.npz") as arrays:
        images = {
            k: (arrays[k][:, None] / np.float32(255)) for k in ("test_images", "calib_images")
        }
        return {**images, "labels": arrays["test_labels"]}


@pytest.mark.parametrize("calibrator", ["minmax", "percentile"])
def test_digits_lose_at_most_three(calibrator: str) -> None:
    module = Fold()(load(DIGITS / "digits.onnx"))
    images, labels = digits()["test_images"], digits()["labels"]
    reports: list[Report] = []
    pass_ = Quantize(calib={"image": digits()["calib_images"]}, calibrator=calibrator,  # type: ignore[arg-type]
                     on_report=reports.append)  # fmt: skip
    result = pass_(module)
    verify(result)
    assert reports[0].floats == () and reports[0].sqnr["logits"] > 30
    right = [
        int((run(m, image=images)["logits"].argmax(1) == labels).sum()) for m in (module, result)
    ]
    assert right[0] >= 975
    assert abs(right[0] - right[1]) <= 3


def test_mnist_conv_loses_at_most_three() -> None:
    """A network of another maker, whose inputs are pixels of 0..255 in batches of one."""
    found = importlib.util.find_spec("qonnx")
    assert found is not None and found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "data/onnx/mnist-conv/model.onnx"
    module = Fold()(load(path))
    result = Quantize(calib={"Input3": digits()["calib_images"][:100] * 255})(module)
    count = 200
    images, labels = digits()["test_images"][:count] * 255, digits()["labels"][:count]
    right = []
    for m in (module, result):
        outputs = [run(m, Input3=i[None])["Plus214_Output_0"] for i in images]
        right.append(int((np.concatenate(outputs).argmax(1) == labels).sum()))
    assert right[0] >= 0.95 * count
    assert abs(right[0] - right[1]) <= 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_networks(draw: st.DataObject) -> None:
    """Whatever the graph, the integer program verifies and is near the float graph."""
    pick = draw.draw
    lines, values = [], ["x"]
    for k in range(pick(st.integers(1, 7))):
        source, other = pick(st.sampled_from(values)), pick(st.sampled_from(values))
        form = pick(st.sampled_from((
            "Conv({s}, p)", "Conv({s}, d) {{group=4, pads=[1,1,1,1]}}", "Relu({s})",
            "Add({s}, {o})", "Sigmoid({s})", "Mul({s}, {o})", "Clip({s}, zero, six)",
            "MaxPool({s}) {{kernel_shape=[3,3], pads=[1,1,1,1]}}",
            "AveragePool({s}) {{kernel_shape=[3,3], pads=[1,1,1,1]}}", "Identity({s})",
            "Softmax({s}) {{axis=1}}", "Mul({s}, half)", "Transpose({s}) {{perm=[0,1,3,2]}}",
        )))  # fmt: skip
        lines.append(f"v{k} = " + form.format(s=source, o=other))
        values.append(f"v{k}")
    text = CONV + " ".join([*lines, f"y = Conv({values[-1]}, p) }}"])
    x = data(4, 4, 8, 8, seed=pick(st.integers(0, 9))) * pick(st.sampled_from((0.01, 1.0, 100.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, result, report = quantized(text, x.astype(np.float32))
    assert all(n.op in TABLE for n in result.graph.nodes)
    assert report.sqnr["y"] > 8
