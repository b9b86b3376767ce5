from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import nncc
from nncc import onnx_backend as backend


def model(x_shape: list[int | str | None]) -> onnx.ModelProto:
    """y = x @ w + 1, z = Relu(y)"""
    w = onnx.numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "w")
    one = onnx.numpy_helper.from_array(np.float32(1), "one")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "one"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", 1, x_shape)],
        [value("y", 1, [x_shape[0], 2]), value("z", 1, [x_shape[0], 2])],
        [w, one],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("shape", [["N", 3], [2, 3], [None, 3]], ids=str)
def test_prepare_and_run(shape: list[int | str | None]) -> None:
    prepared = backend.prepare(model(shape), "CPU")
    x = np.array([[1, 2, 3], [-4, 5, 6]], np.float32)
    expected = x[:, :2] + 1
    for inputs in ([x], {"x": x}, x):
        outputs = prepared.run(inputs)
        assert np.array_equal(outputs[0], expected) and np.array_equal(outputs.y, expected)
        assert np.array_equal(outputs[1], np.maximum(expected, 0))
    if shape[0] != 2:
        assert prepared.run([x[:1]])[0].shape == (1, 2)


def test_run_node_and_model() -> None:
    node = helper.make_node("Concat", ["a", "b"], ["c"], axis=0)
    a, b = np.ones((1, 2), np.float32), np.zeros((2, 2), np.float32)
    (c,) = backend.run_node(node, [a, b])
    assert np.array_equal(c, np.concatenate([a, b]))
    x = np.ones((1, 3), np.float32)
    assert np.array_equal(backend.run_model(model(["N", 3]), [x])[0], [[2, 2]])


def test_errors() -> None:
    assert backend.supports_device("CPU") and not backend.supports_device("CUDA")
    assert backend.supports_device("CPU:0") and backend.supports_device("TTA")
    with pytest.raises(nncc.NnccError, match="no device 'CUDA'"):
        backend.prepare(model(["N", 3]), "CUDA")
    with pytest.raises(nncc.NnccError, match="takes 1 inputs: x"):
        backend.prepare(model(["N", 3])).run([1, 2])
    det = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [3, 3])],
        [helper.make_tensor_value_info("y", 1, [])],
    )
    unsupported = helper.make_model(det, opset_imports=[helper.make_opsetid("", 17)])
    assert not backend.is_compatible(unsupported) and backend.is_compatible(model([2, 3]))


@pytest.mark.parametrize("device", ["TPU", "TTA"])
def test_accelerators_as_devices(device: str) -> None:
    """Integers are exact, floats quantized by random inputs, with a warning; or it is refused."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 100, (2, 5)).astype(np.int8) for _ in range(2))
    concat = helper.make_node("Concat", ["a", "b"], ["y"], axis=1)
    (y,) = backend.run_node(concat, [a, b], device)
    assert np.array_equal(y, np.concatenate([a, b], axis=1))

    w = onnx.numpy_helper.from_array(rng.standard_normal((5, 4)).astype(np.float32), "w")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [value("x", 1, ["N", 5])],
        [value("y", 1, ["N", 4])],
        [w],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.warns(UserWarning, match="accuracy is not assured"):
        prepared = backend.prepare(made, device)
    x = rng.standard_normal((3, 5)).astype(np.float32)
    expected = x @ onnx.numpy_helper.to_array(w)
    assert np.abs(prepared.run([x])[0] - expected).max() < 0.1 * np.abs(expected).max()

    det = helper.make_node("Det", ["x"], ["y"])
    with pytest.raises(nncc.NnccError, match="there is no such op"):
        backend.run_node(det, [np.eye(2, dtype=np.float32)], device)
