"""What models become: names, sizes, symbols, versions, functions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nncc.frontend.onnx import load
from nncc.ir.index import var
from nncc.ops.table import TABLE
from tests.onnx.onnx_models import I64, F, floats, model, node
from tests.onnx.onnx_running import run, run_onnx


def both(m: onnx.ModelProto, **inputs: np.ndarray) -> None:
    """Asserts that the imported model gives what onnxruntime gives."""
    for ours, theirs in zip(run(load(m), inputs), run_onnx(m, inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_names_sizes_and_kinds() -> None:
    m = model(
        [node("Add", "x:0 w", "0", name="first"), node("Reshape", "0 shape", "y")],
        {"x:0": ["batch size", 2, None]},
        {"y": ["batch size", None]},
        {"w": floats(2, 1), "shape": np.array([0, -1])},
    )
    module = load(m)
    assert module.sizes == ("batch_size", "x_0_2")
    assert module.graph.types["y"].shape == (var("batch_size"), 2 * var("x_0_2"))
    assert module.symbols["w"].kind == "param"
    assert module.symbols["shape"].kind == "const"
    assert [n.name for n in module.graph.nodes] == ["first", "y"]
    assert module.graph.nodes[0].outputs == ("0",)


def test_one_dim_param_is_one_size() -> None:
    m = model([node("Add", "a b", "y")], {"a": ["N", 3], "b": ["N", 3]}, {"y": ["N", 3]})
    assert load(m).sizes == ("N",)


def test_initializers_may_be_inputs_too() -> None:
    m = model([node("Add", "x w", "y")], {"x": [2], "w": [2]}, {"y": [2]}, {"w": floats(2)}, ir=3)
    module = load(m)
    assert module.graph.inputs == ("x",)
    assert module.symbols["w"].kind == "param"


def test_constant_nodes_are_symbols() -> None:
    value = numpy_helper.from_array(floats(3))
    m = model(
        [
            node("Constant", "", "c", value=value),
            node("Constant", "", "d", value_float=2.0),
            node("Mul", "x c", "t"),
            node("Mul", "t d", "y"),
        ],
        {"x": [3]},
        {"y": [3]},
    )
    module = load(m)
    assert len(module.graph.nodes) == 2
    assert module.symbols["c"].kind == module.symbols["d"].kind == "const"
    both(m, x=floats(3, seed=1))


def test_nodes_out_of_order_are_sorted() -> None:
    m = model([node("Neg", "t", "y"), node("Relu", "x", "t")], {"x": [3]}, {"y": [3]})
    assert [n.op for n in load(m).graph.nodes] == ["Relu", "Neg"]


def test_attributes_at_their_default_are_absent() -> None:
    m = model(
        [node("Conv", "x w", "y", strides=[1, 1], dilations=[1, 1], group=1, auto_pad="NOTSET")],
        {"x": [1, 2, 5, 5]},
        {"y": [1, 3, 3, 3]},
        {"w": floats(3, 2, 3, 3)},
    )
    assert load(m).graph.nodes[0].attrs == {}


@pytest.mark.parametrize("how", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
def test_auto_pad(op: str, how: str) -> None:
    weights = {"w": floats(2, 2, 3, 2)} if op == "Conv" else {}
    n = node(op, "x w" if op == "Conv" else "x", "y", auto_pad=how, strides=[2, 3],
             kernel_shape=[3, 2])  # fmt: skip
    shape = [1, 2, *((4, 3) if how != "VALID" else (3, 3))]
    m = model([n], {"x": [1, 2, 7, 8]}, {"y": shape}, weights)
    assert "auto_pad" not in load(m).graph.nodes[0].attrs
    both(m, x=floats(1, 2, 7, 8))


OLD_FORMS = {
    "Softmax-1": (node("Softmax", "x", "y"), 9, {}, (2, 3, 4)),
    "Softmax-11 over two axes": (node("Softmax", "x", "y", axis=1), 11, {}, (2, 3, 4)),
    "LogSoftmax-11 last axis": (node("LogSoftmax", "x", "y", axis=2), 12, {}, (2, 3, 4)),
    "Clip-6": (node("Clip", "x", "y", min=-0.5, max=0.25), 7, {}, (2, 3)),
    "Clip-6 one bound": (node("Clip", "x", "y", min=0.0), 10, {}, (2, 3)),
    "ReduceMean-11": (node("ReduceMean", "x", "y", axes=[1], keepdims=0), 11, {}, (2, 3)),
    "ReduceMax-13 of all": (node("ReduceMax", "x", "y"), 13, {}, (2, 3)),
    "ReduceSum-11": (node("ReduceSum", "x", "y", axes=[-1]), 12, {}, (2, 3)),
    "Squeeze-11": (node("Squeeze", "x", "y", axes=[1]), 11, {}, (2, 1, 3)),
    "Unsqueeze-1": (node("Unsqueeze", "x", "y", axes=[0, 2]), 9, {}, (2, 3)),
    "Pad-2": (node("Pad", "x", "y", pads=[0, 1, 2, 0], value=1.5), 9, {}, (2, 3)),
    "Slice-1": (node("Slice", "x", "y", starts=[1, 0], ends=[9, -1]), 9, {}, (3, 4)),
    "Split-2": (node("Split", "x", "y z", axis=1, split=[1, 3]), 11, {}, (2, 4)),
    "Split-11 in equal parts": (node("Split", "x", "y z", axis=1), 12, {}, (2, 4)),
    "Dropout-7": (node("Dropout", "x", "y", ratio=0.3), 9, {}, (2, 3)),
    "Gemm-7": (
        node("Gemm", "x w b", "y", transB=1), 7,
        {"w": floats(4, 3), "b": floats(4, seed=2)}, (2, 3),
    ),
    "BatchNormalization-7": (
        node("BatchNormalization", "x s b m v", "y"), 8,
        {"s": floats(3), "b": floats(3, seed=1), "m": floats(3, seed=2),
         "v": abs(floats(3, seed=3))}, (2, 3, 4),
    ),
    "BatchNormalization-9": (
        node("BatchNormalization", "x s b m v", "y", epsilon=0.1), 9,
        {"s": floats(3), "b": floats(3, seed=1), "m": floats(3, seed=2),
         "v": abs(floats(3, seed=3))}, (2, 3, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", OLD_FORMS)
def test_old_versions_are_raised(form: str) -> None:
    n, opset, weights, shape = OLD_FORMS[form]
    outputs = dict.fromkeys(n.output)
    m = model([n], {"x": shape}, outputs, weights, opset=opset)
    module = load(m)
    assert all(n.op in TABLE for n in module.graph.nodes)
    both(m, x=floats(*shape, seed=9))


def test_newer_versions_are_lowered() -> None:
    n = node("Cast", "x", "y", to=I64, saturate=1)  # version 28; the table works in 13
    m = model([n], {"x": [3]}, {"y": [3]}, opset=28, ir=12, dtypes={"y": I64})
    assert np.array_equal(run(load(m), {"x": np.float32([1, 2.5, -3])})[0], [1, 2, -3])


def test_every_version_of_every_op_is_covered() -> None:
    from nncc.frontend.onnx.versions.lowering import LOWERING
    from nncc.frontend.onnx.versions.raising import RAISING
    from nncc.frontend.onnx.versions.unchanged import UNCHANGED

    history: dict[str, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, set()).add(schema.since_version)
    steps = {(n, v) for n, versions in UNCHANGED.items() for v in versions}
    assert steps.isdisjoint(RAISING.keys() - LOWERING.keys())
    steps |= RAISING.keys()
    needed = set()
    for op in TABLE.values():
        if op.domain != "ai.onnx":
            continue
        versions = sorted(history[op.name])
        assert op.since in versions
        oldest = max((v for v in versions if v <= 7), default=versions[0])
        needed |= {(op.name, v) for v in versions if v > oldest}
    assert needed - steps == set()
    assert {s for s in steps if s[0] in TABLE} == steps


def test_shapes_are_followed_through_nodes() -> None:
    """What torch writes for x.view(x.size(0), -1) and for a reshape by computed sizes."""
    m = model(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Unsqueeze", "n axis", "n1"),
            node("Concat", "n1 rest", "shape", axis=0),
            node("Reshape", "x shape", "y"),
        ],
        {"x": ["N", 2, 6]},
        {"y": None},
        {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([3, 4])},
    )
    module = load(m)
    assert module.graph.types["y"].shape == (var("N"), 3, 4)
    both(m, x=floats(5, 2, 6))


def test_local_functions_are_inlined() -> None:
    square = helper.make_function(
        "mine", "ScaledSquare", ["a"], ["c"],
        [node("Mul", "a a", "t"), helper.make_node("LeakyRelu", ["t"], ["c"])],
        [helper.make_opsetid("", 17)], ["alpha"],
    )  # fmt: skip
    reference = onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=1)  # a float
    square.node[1].attribute.append(reference)
    use = [
        helper.make_node("ScaledSquare", ["x"], ["t"], "one", domain="mine", alpha=0.5),
        helper.make_node("ScaledSquare", ["t"], ["y"], "two", domain="mine", alpha=0.5),
    ]
    m = model(use, {"x": [3]}, {"y": [3]}, functions=[square], domains=["mine"])
    module = load(m)
    assert [n.op for n in module.graph.nodes] == ["Mul", "LeakyRelu"] * 2
    assert module.graph.nodes[1].attrs == {"alpha": 0.5}
    assert {n.location.node for n in module.graph.nodes} == {"one", "two"}
    both(m, x=floats(3))


@pytest.mark.parametrize(
    ("n", "opset"),
    [
        (node("Mish", "x", "y"), 18),
        (node("ReduceL2", "x axes", "y"), 18),
        (node("ReduceSumSquare", "x axes", "y", keepdims=0), 18),
        (node("MeanVarianceNormalization", "x", "y", axes=[1]), 13),
        (node("Shrink", "x", "y", lambd=0.3), 18),
    ],
)
def test_function_bodies_of_the_specification(n: onnx.NodeProto, opset: int) -> None:
    assert n.op_type not in TABLE
    weights = {"axes": np.array([1])} if len(n.input) > 1 else {}
    m = model([n], {"x": [2, 3]}, {"y": None}, weights, opset=opset, ir=9)
    both(m, x=floats(2, 3))


def test_external_data_is_mapped(tmp_path: Path) -> None:
    w = floats(4, 300)
    m = model([node("MatMul", "x w", "y")], {"x": [2, 4]}, {"y": [2, 300]}, {"w": w})
    onnx.save_model(m, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin",
                    size_threshold=0)  # fmt: skip
    module = load(tmp_path / "m.onnx")
    assert np.array_equal(module.symbols["w"].data.array, w)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "bool", "int64"])
def test_typed_fields_and_raw_data_are_equal(dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    typed = helper.make_tensor("w", element, array.shape, array.flatten().tolist())
    for proto in (typed, numpy_helper.from_array(array, "w")):
        m = model([node("Identity", "w", "y")], {}, {"y": [2, 3]}, dtypes={"y": element})
        m.graph.initializer.append(proto)
        assert np.array_equal(load(m).symbols["w"].data.array, array)


def test_mnist_conv() -> None:
    found = importlib.util.find_spec("qonnx")
    assert found is not None and found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "data/onnx/mnist-conv"
    m = onnx.load(folder / "model.onnx")
    x = floats(1, 1, 28, 28)
    (ours,) = run(load(folder / "model.onnx"), {"Input3": x})
    (theirs,) = run_onnx(m, {"Input3": x})
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_floats_of_attributes_stand_as_short_decimals() -> None:
    m = model([node("LeakyRelu", "x", "y", alpha=0.3)], {"x": [2]}, {"y": [2]})
    assert load(m).graph.nodes[0].attrs["alpha"] == 0.3
    assert F == onnx.TensorProto.FLOAT
