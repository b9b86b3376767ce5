"""Models that other tools have quantized: QDQ pairs and ops of quantized tensors.

On the CPU they are what ONNX says; machines with integers only run their integer program, near to
it by a stated deviation, and equal on every target.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.case import node as suite
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from nncc import onnx_backend
from nncc.diagnostics import UnsupportedError
from nncc.driver import build, lower
from nncc.frontend.onnx import load, save
from nncc.ir.graph import Module
from nncc.machines import load as machine
from nncc.machines.systolic.sizes import resized
from nncc.passes.fold import Fold
from nncc.passes.integerize import Integerize, Report
from nncc.passes.quantize import Quantize
from tests.onnx.onnx_models import floats, model, node
from tests.onnx.onnx_running import run, run_onnx

U8 = TensorProto.UINT8


def network() -> onnx.ModelProto:
    """Convolutions, a residual sum, both kinds of pools, tables, and a classifier."""
    nodes = [
        node("Conv", "x w0 b0", "c0", "stem", pads=[1, 1, 1, 1]),
        node("Relu", "c0", "r0", "stem_relu"),
        node("MaxPool", "r0", "p0", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p0 w1 b1", "c1", "middle", pads=[1, 1, 1, 1]),
        node("Add", "c1 p0", "a1", "residual"),
        node("Sigmoid", "a1", "s1", "gate"),
        node("Conv", "s1 w2", "c2", "depthwise", pads=[1, 1, 1, 1], group=4),
        node("Concat", "c2 s1", "k", "join", axis=1),
        node("LeakyRelu", "k", "l", "leaky"),
        node("AveragePool", "l", "v", "average", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", "v", "g", "mean"),
        node("Flatten", "g", "f", "flat"),
        node("Gemm", "f w3 b3", "y", "classifier", transB=1),
    ]
    weights = {
        "w0": floats(4, 3, 3, 3, seed=1) / 3, "b0": floats(4, seed=2),
        "w1": floats(4, 4, 3, 3, seed=3) / 3, "b1": floats(4, seed=4),
        "w2": floats(4, 1, 3, 3, seed=5), "w3": floats(5, 8, seed=6), "b3": floats(5, seed=7),
    }  # fmt: skip
    return model(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 5]}, weights)


class Data(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches = iter([{"x": floats(8, 3, 8, 8, seed=11)}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


KINDS = {
    "qdq": (QuantFormat.QDQ, QuantType.QUInt8, False),
    "qdq-signed": (QuantFormat.QDQ, QuantType.QInt8, True),
    "operators": (QuantFormat.QOperator, QuantType.QUInt8, True),
    "operators-signed": (QuantFormat.QOperator, QuantType.QInt8, False),
}


@pytest.fixture(params=KINDS, scope="module")
def quantized(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    """The network as onnxruntime's tool quantizes it."""
    folder: Path = tmp_path_factory.mktemp("quantized")
    form, activations, per_channel = KINDS[request.param]
    onnx.save(network(), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "made.onnx", Data(), quant_format=form,
        activation_type=activations, weight_type=QuantType.QInt8, per_channel=per_channel,
    )  # fmt: skip
    return onnx.load(folder / "made.onnx")


def integerized(given: onnx.ModelProto) -> tuple[Module, Report]:
    reports: list[Report] = []
    module = Integerize(on_report=reports.append)(load(given))
    return module, reports[0]


def output_step(given: onnx.ModelProto) -> float:
    """The scale of the last quantized value."""
    scales = [n.input[1] for n in given.graph.node if n.op_type == "DequantizeLinear"]
    return float(
        next(onnx.numpy_helper.to_array(t) for t in given.graph.initializer if t.name == scales[-1])
    )


def test_cpu_is_what_onnx_says(quantized: onnx.ModelProto) -> None:
    x = floats(6, 3, 8, 8, seed=12)
    (ours,) = build(lower(load(quantized))).run({"x": x}).values()
    (theirs,) = run_onnx(quantized, {"x": x})
    # a tie that is rounded to the other side moves what follows by a step or two
    assert np.abs(ours - theirs).max() <= 2.01 * output_step(quantized)
    assert (ours != theirs).mean() < 0.25


def test_integer_program_is_near(quantized: onnx.ModelProto) -> None:
    module, report = integerized(quantized)
    assert not report.floats, str(report)
    ops = {n.op for n in module.graph.nodes}
    assert ops >= {"IntConv", "IntAdd", "Lookup", "IntMatMul", "Requantize", "MaxPool"}
    assert {t.dtype.name for t in module.graph.types.values()} == {"f32", "i8", "i32"}
    x = floats(6, 3, 8, 8, seed=12)
    (ours,), (theirs,) = run(module, {"x": x}), run_onnx(quantized, {"x": x})
    assert np.abs(ours - theirs).max() <= 2.01 * output_step(quantized)
    found = report.differences["y"]
    assert found.count == 10 and found.largest <= 2.01 * output_step(quantized)
    assert f"y: largest deviation {found.largest:.6g} of {found.reach:.6g}" in str(report)


def test_driver_takes_it_over_where_integers_are_wanted(quantized: onnx.ModelProto) -> None:
    x = floats(4, 3, 8, 8, seed=12)
    expected = run(integerized(quantized)[0], {"x": x})[0]
    asked = lower(load(quantized), precision="int8")
    alone = lower(load(quantized), pipeline="integerize", calib={"x": x})
    assert "on 4 given samples" in alone.notes["integerize"]
    assert "quantize" not in asked.notes  # there is nothing left to calibrate
    np.testing.assert_array_equal(build(asked).run({"x": x})["y"], expected)
    np.testing.assert_array_equal(run(alone.module, {"x": x})[0], expected)


def test_weights_stay_the_integers_that_they_are(quantized: onnx.ModelProto) -> None:
    module, _ = integerized(quantized)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.graph.initializer}
    given = [w for w in stored.values() if w.dtype == np.int8 and w.ndim > 1]
    assert len(given) == 4
    found = [module.symbols[n.inputs[1]].data.array for n in contractions(module)]
    for w in given:
        assert any(w.shape == f.shape and np.array_equal(np.maximum(w, -127), f) for f in found)


def contractions(module: Module) -> list:
    return [n for n in module.graph.nodes if n.op in ("IntConv", "IntMatMul")]


@pytest.mark.parametrize("name", ["tpu", "tta"])
def test_targets_equal_the_integer_program(
    quantized: onnx.ModelProto, name: str, request: pytest.FixtureRequest
) -> None:
    if name == "tta" and request.node.callspec.params["quantized"] != "operators":
        pytest.skip("it takes seconds to compile, and the program is much the same")
    module, _ = integerized(quantized)
    x = floats(2, 3, 8, 8, seed=13)
    small = {"rows": 16, "columns": 16, "unified_bytes": 16 << 14}
    target = resized(machine("tpu"), **small) if name == "tpu" else machine(name)
    compilation = lower(load(quantized), target, sizes={"N": 2})
    assert {n.op for n in compilation.host_nodes} == {"QuantizeLinear", "DequantizeLinear"}
    assert compilation.notes["integerize"].startswith("came quantized: ")
    (ours,) = build(compilation).run({"x": x}).values()
    np.testing.assert_array_equal(ours, run(module, {"x": x})[0])


def test_nncc_s_own_export_comes_back(tmp_path: Path) -> None:
    """Scales of the exported model are relative; the program that they give is the same."""
    onnx.save(network(), tmp_path / "float.onnx")
    x = floats(16, 3, 8, 8, seed=11)
    program = Quantize(calib={"x": x})(Fold()(load(tmp_path / "float.onnx")))
    save(program, tmp_path / "made.onnx")
    module, report = integerized(onnx.load(tmp_path / "made.onnx"))
    assert not report.floats, str(report)
    assert "Lookup" in {n.op for n in module.graph.nodes}  # in ONNX it is a Gather
    (ours,), (theirs,) = run(program, {"x": x}), run(module, {"x": x})
    assert np.abs(ours - theirs).max() <= 0.05 * np.abs(ours).max()


def test_what_is_not_quantized_stays_in_floats() -> None:
    """A sum of which the model quantizes one operand, and a softmax; both are told."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Conv", "d w", "c", "conv"),
        node("Softmax", "c", "m", "softmax", axis=1),
        node("QuantizeLinear", "m t z", "mq"),
        node("DequantizeLinear", "mq t z", "y"),
    ]
    weights = {
        "w": floats(2, 2, 1, 1), "s": np.float32(0.02), "t": np.float32(1 / 256),
        "z": np.int8(-3),
    }  # fmt: skip
    given = load(model(nodes, {"x": [1, 2, 3, 3]}, {"y": [1, 2, 3, 3]}, weights))
    reports: list[Report] = []
    module = Integerize(on_report=reports.append)(given)
    assert module is given and not reports  # nothing computes in integers
    compilation = lower(given, "tta")
    assert {n.node for n in compilation.host_nodes} >= {"conv", "softmax"}


def test_two_readers_with_scales_of_their_own() -> None:
    """The one with a scale for each channel has no integer form, and what it reads keeps floats."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Conv", "d w", "c", "conv"),
        node("QuantizeLinear", "c s z", "y"),
        node("QuantizeLinear", "c t zt", "u", axis=1),
    ]
    weights = {
        "w": floats(3, 2, 1, 1), "s": np.float32(0.5), "z": np.int8(0),
        "t": np.array([0.02, 0.03, 0.04], np.float32), "zt": np.zeros(3, np.int8),
    }  # fmt: skip
    shape, kind = [1, 3, 4, 4], TensorProto.INT8
    made = model(nodes, {"x": [1, 2, 4, 4]}, {"y": shape, "u": shape}, weights,
                 dtypes={"y": kind, "u": kind})  # fmt: skip
    x = floats(1, 2, 4, 4, seed=5)
    assert Integerize()(load(made)).graph == load(made).graph  # nothing else computes
    for ours, theirs in zip(run(load(made), {"x": x}), run_onnx(made, {"x": x}), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_unquantized_readers_keep_a_value_in_floats() -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Conv", "d w", "c", "conv"),
        node("Relu", "c", "y"),
        node("QuantizeLinear", "c s z", "cq"),
        node("DequantizeLinear", "cq s z", "u"),
        node("MaxPool", "u", "p", "pool", kernel_shape=[1, 1]),
    ]
    weights = {"w": floats(2, 2, 1, 1), "s": np.float32(0.02), "z": np.uint8(7)}
    shape = [1, 2, 3, 3]
    made = model(nodes, {"x": shape}, {"y": shape, "p": shape}, weights)
    module, report = integerized(made)
    assert dict(report.floats)["conv"] == "the model does not quantize its result 'c'"
    x = floats(*shape)
    for ours, theirs in zip(run(module, {"x": x}), run_onnx(made, {"x": x}), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bytes_in_and_out() -> None:
    """Inputs and outputs of 8 bits, without floats at either end."""
    nodes = [
        node("DequantizeLinear", "x s z", "d"),
        node("Sigmoid", "d", "g"),
        node("QuantizeLinear", "g t z", "y"),
        node("MaxPool", "y", "p", kernel_shape=[2, 2]),
    ]
    weights = {"s": np.float32(0.05), "t": np.float32(1 / 255), "z": np.uint8(0)}
    made = model(
        nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 4, 4], "p": [1, 2, 3, 3]}, weights,
        dtypes={"x": U8, "y": U8, "p": U8},
    )  # fmt: skip
    x = np.arange(32, dtype=np.uint8).reshape(1, 2, 4, 4) * 8
    module, report = integerized(made)
    assert report.differences["p"].largest <= 1
    wanted = run_onnx(made, {"x": x})
    compiled = build(lower(made, "tta", host=False))
    for name, theirs in zip(("y", "p"), wanted, strict=True):
        assert np.abs(compiled.run({"x": x})[name].astype(int) - theirs).max() <= 1
    assert [y.dtype for y in run(module, {"x": x})] == [np.uint8, np.uint8]


SUITE = {
    "test_convinteger_with_padding": "convinteger",
    "test_convinteger_without_padding": "convinteger",
    "test_matmulinteger": "matmulinteger",
    "test_qlinearconv": "qlinearconv",
    "test_qlinearmatmul_2D_int8_float32": "qlinearmatmul",
    "test_qlinearmatmul_3D_uint8_float32": "qlinearmatmul",
    "test_dynamicquantizelinear": "dynamicquantizelinear",
}


@pytest.mark.parametrize("name", SUITE)
def test_conformance_suite(name: str) -> None:
    """Some of them give zero points as inputs."""
    import_module(f"onnx.backend.test.case.node.{SUITE[name]}")  # which adds its cases to the list
    case = next(c for c in suite._NodeTestCases if c.name == name)
    compiled = onnx_backend.prepare(case.model)
    for inputs, outputs in case.data_sets:
        for ours, theirs in zip(compiled.run(list(inputs)), outputs, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("zero", [None, 0, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_integer_products(zero: int | None, dtype: type) -> None:
    """Constant zero points make one integer contraction, in the dtypes of onnxruntime."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.integers(-127, 127, (6, 4), np.int8)}
    if zero is not None:
        weights["z"] = dtype(zero)
    made = model(
        [node("MatMulInteger", f"x w{' z' if zero is not None else ''}", "y")],
        {"x": [3, 6]}, {"y": [3, 4]}, weights,
        dtypes={"x": helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), "y": TensorProto.INT32},
    )  # fmt: skip
    x = rng.integers(0, 127, (3, 6)).astype(dtype)
    module = load(made)
    assert [n.op for n in module.graph.nodes] == ["IntMatMul"]
    np.testing.assert_array_equal(run(module, {"x": x})[0], run_onnx(made, {"x": x})[0])


def test_zero_points_by_row_and_column() -> None:
    """In products of stacks of matrices they have the rank of the operands."""
    rng = np.random.default_rng(0)
    shapes = {"b": (2, 4, 3), "az": (2, 4, 1), "bz": (2, 1, 3)}
    weights = {k: rng.integers(0, 255, shape, np.uint8) for k, shape in shapes.items()}
    made = model([node("MatMulInteger", "x b az bz", "y")], {"x": [2, 4, 4]}, {"y": [2, 4, 3]},
                 weights, dtypes={"x": U8, "y": TensorProto.INT32})  # fmt: skip
    x = rng.integers(0, 255, (2, 4, 4), np.uint8)
    b, az, bz = (weights[k].astype(np.int32) for k in ("b", "az", "bz"))
    np.testing.assert_array_equal(run(load(made), {"x": x})[0], (x - az) @ (b - bz))


def test_scales_by_row_and_column() -> None:
    """Square matrices do not tell which axis a scale belongs to: of the left one it is the row."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 255, (4, 4), np.uint8) for _ in range(2))
    weights = {
        "b": b, "as": np.array([0.1, 0.2, 0.3, 0.4], np.float32), "az": np.arange(4).astype("u1"),
        "bs": np.array([0.01, 0.02, 0.03, 0.04], np.float32), "bz": np.full(4, 100, np.uint8),
        "ys": np.float32(3), "yz": np.uint8(100),
    }  # fmt: skip
    made = model([node("QLinearMatMul", "x as az b bs bz ys yz", "y")], {"x": [4, 4]},
                 {"y": [4, 4]}, weights, dtypes={"x": U8, "y": U8})  # fmt: skip
    left = (a - np.arange(4.0)[:, None]) * weights["as"][:, None]
    wanted = np.clip(np.rint(left @ ((b - 100.0) * weights["bs"]) / 3) + 100, 0, 255)
    assert np.abs(run(load(made), {"x": a})[0] - wanted).max() <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (node("QLinearAdd", "x s z x s", "y", domain="com.microsoft"), "it lacks operand 7"),
        (
            node("QLinearGlobalAveragePool", "x s z s z", "y", domain="com.microsoft",
                 channels_last=1),
            "channels_last=1 is not supported",
        ),
        (node("NhwcMaxPool", "x", "y", domain="com.microsoft"), "com.microsoft is not supported"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.op_type,
)  # fmt: skip
def test_what_cannot_be_read_is_told(wrong: onnx.NodeProto, message: str) -> None:
    weights = {"s": np.float32(1), "z": np.uint8(0)}
    made = model([wrong], {"x": [1, 1, 2, 2]}, {"y": None}, weights, dtypes={"x": U8},
                 domains=["com.microsoft"])  # fmt: skip
    with pytest.raises(UnsupportedError, match=message):
        load(made)


def test_float_models_are_left_alone() -> None:
    module = load(model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]}))
    assert Integerize()(module) is module
