"""Broken, unsafe and unsupported models: one clear error that names file and node."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nncc.diagnostics import FrontendError, NnccError, UnsupportedError
from nncc.frontend.onnx import load, save
from tests.onnx.onnx_models import I64, floats, model, node

RELU = model([node("Relu", "x", "y", name="act")], {"x": [2]}, {"y": [2]})


def refusal(source: onnx.ModelProto | bytes | Path | str) -> str:
    """The error's text, which must name the file."""
    with pytest.raises(NnccError) as caught:
        load(source)
    text = str(caught.value)
    name = str(source) if isinstance(source, (Path, str)) else "<"
    assert text.startswith(name), text
    assert caught.value.exit_status == 2
    return text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "has no graph"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX model"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"nncc 1\n", "end in .nn"),
        (b"hello world, this is text", "not an ONNX model"),
        (RELU.SerializeToString()[:-7], "cut off"),
        (RELU.SerializeToString()[: len(RELU.SerializeToString()) // 2], "cut off"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert said in refusal(path)


def test_no_file_and_folders(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.onnx")
    assert "folder" in refusal(tmp_path)


def test_every_cut_is_refused_or_harmless() -> None:
    """A model cut anywhere never raises anything but an NnccError."""
    whole = model(
        [node("Conv", "x w", "t", name="c"), node("Relu", "t", "y", name="r")],
        {"x": [1, 2, 5, 5]}, {"y": [1, 3, 3, 3]}, {"w": floats(3, 2, 3, 3)},
    ).SerializeToString()  # fmt: skip
    for length in range(0, len(whole), 5):
        with pytest.raises(NnccError):
            load(whole[:length])


def test_damaged_bytes_raise_only_our_errors() -> None:
    """Bytes flipped, removed and inserted all over a real model."""
    whole = (Path(__file__).parents[2] / "examples/digits/digits.onnx").read_bytes()
    rng = random.Random(0)
    refused = 0
    for k in range(400):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(4000 if k % 2 else len(data))
            if k % 3 == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif k % 3 == 1:
                data[at : at + rng.randrange(1, 30)] = b""
            else:
                data[at:at] = rng.randbytes(rng.randrange(1, 20))
        try:
            load(bytes(data))
        except NnccError as e:
            assert str(e).startswith("<bytes>")
            refused += 1
    assert refused > 200


def test_names_that_are_no_text() -> None:
    broken = RELU.SerializeToString().replace(b"act", b"a\xfft")
    assert "the name b'a\\xfft' in it is not UTF-8" in refusal(broken)


ODD_OPERANDS = {
    "Expand-f32": (node("Expand", "x s", "y", name="n"), np.float32([2.5]), "shape is f32"),
    "Reshape-f32": (node("Reshape", "x s", "y", name="n"), np.float32([2]), "shape is f32"),
    "Reshape-zero": (node("Reshape", "x s", "y", name="n", allowzero=1), np.array([0, -1]),
                     "cannot be reshaped"),
    "Expand-negative": (node("Expand", "o s", "y", name="n"), np.array([-2]), "at least 1"),
    "ConstantOfShape": (node("ConstantOfShape", "s", "y", name="n"), np.array([-2]), "at least 1"),
    "ConstantOfShape-huge": (node("ConstantOfShape", "s", "y", name="n"),
                             np.array([1 << 30, 1 << 30]), "TB"),
    "Range": (node("Range", "s s s", "y", name="n"), np.array([1, 2]), "not a scalar"),
    "Gather": (node("Gather", "x s", "y", name="n"), np.zeros(0, np.int64), "at least 1"),
    "same": (node("MaxPool", "p", "y", name="n", auto_pad="SAME_UPPER", kernel_shape=[2]),
             np.array([1]), "kernel_shape, strides or dilations"),
    "unequal": (node("Split", "p", "y z t", name="n", axis=-1), np.array([1]), "3 parts of 4"),
    "pad": (node("Pad", "p pads o", "y", name="n"), np.array([1]), "value must be known"),
    "stride": (node("MaxPool", "p", "y", name="n", auto_pad="SAME_UPPER", kernel_shape=[2, 2],
                    strides=[0, 1]), np.array([1]), "must be positive"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_OPERANDS)
def test_odd_operands(case: str) -> None:
    n, s, said = ODD_OPERANDS[case]
    inputs = {"x": [1, 1, 2], "o": [1], "p": [1, 1, 4, 4]}
    text = refusal(model([n], inputs, {"y": None}, {"s": s, "pads": np.zeros(8, np.int64)}))
    assert said in text and "node 'n'" in text


def test_a_long_range_takes_no_memory() -> None:
    weights = {"a": np.array(0), "b": np.array(1 << 35), "c": np.array(1)}
    m = model([node("Range", "a b c", "y")], {}, {"y": None}, weights, dtypes={"y": I64})
    assert load(m).graph.types["y"].shape == (1 << 35,)


@pytest.mark.parametrize(("opset", "ok"), [(6, False), (7, True), (28, True), (29, False)])
def test_opsets(opset: int, ok: bool) -> None:
    m = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]}, opset=opset)
    if ok:
        assert load(m).graph.nodes[0].op == "Relu"
    else:
        assert f"uses opset {opset}; nncc reads 7 to" in refusal(m)


def test_no_opset() -> None:
    m = onnx.ModelProto()
    m.CopyFrom(RELU)
    del m.opset_import[:]
    assert "which version" in refusal(m)


def test_cycles_name_the_nodes() -> None:
    nodes = [node("Add", "x b", "a", name="first"), node("Relu", "a", "b", name="second")]
    text = refusal(model(nodes, {"x": [2]}, {"b": [2]}))
    assert "circle" in text and "first" in text and "second" in text


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([node("Relu", "nothing", "y", name="n")], "reads 'nothing', which nothing makes"),
        ([node("Relu", "x", "y"), node("Neg", "x", "y", name="n")], "made twice"),
        ([node("Relu", "x", "z")], "output 'y' is made by no node"),
        ([node("Add", "x", "y", name="n")], "lacks its operand B"),
        ([node("MaxPool", "x", "y", name="n")], "lacks attribute kernel_shape"),
        ([node("Relu", "x", "", name="n"), node("Neg", "x", "y")], "Relu has no output"),
        ([node("Relu", "x x", "y", name="n")], "Relu takes 1 operands, not 2"),
        ([node("Softmax", "x", "y", name="n", axis=1.0)], "axis is of kind float, not int"),
        (
            [node("Constant", "", "c", name="n", value_float=1), node("Relu", "x", "y")],
            "value_float is of kind int, not float",
        ),
    ],
)
def test_broken_graphs(nodes: list[onnx.NodeProto], said: str) -> None:
    text = refusal(model(nodes, {"x": [2]}, {"y": [2]}))
    assert said in text
    assert "node 'n'" in text or "output" in text


@pytest.mark.parametrize(
    ("n", "shape", "said"),
    [
        (node("MatMul", "x w", "y", name="bad"), [2, 5], "MatMul: "),
        (node("Add", "x i", "y", name="bad"), [2, 4], "Add: "),
        (node("Conv", "x w", "y", name="bad"), [1, 1, 4, 4], "Conv: "),
    ],
)
def test_operands_that_do_not_fit(n: onnx.NodeProto, shape: list[int], said: str) -> None:
    m = model([n], {"x": shape}, {"y": None}, {"w": floats(4, 3), "i": np.arange(4)})
    text = refusal(m)
    assert said in text and "node 'bad'" in text


def test_declared_outputs_must_not_contradict() -> None:
    wrong_type = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]}, dtypes={"y": 7})
    assert "is declared int64, its node gives f32" in refusal(wrong_type)
    wrong_shape = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [3]})
    assert "is declared [3], its node gives f32[2]" in refusal(wrong_shape)


def tensor_model(tensor: TensorProto) -> onnx.ModelProto:
    m = model([node("Add", "x w", "y")], {"x": [2]}, {"y": None})
    m.graph.initializer.append(tensor)
    return m


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (TensorProto(name="w", data_type=1, dims=[2], raw_data=b"1234"), "needs 8 bytes"),
        (TensorProto(name="w", data_type=1, dims=[2], float_data=[1, 2, 3]), "needs 2 elements"),
        (TensorProto(name="w", data_type=1, dims=[-2]), "negative"),
        (TensorProto(name="w", data_type=1, dims=[1 << 40, 1 << 20]), "TB"),
        (TensorProto(name="w", data_type=1, dims=[1 << 36]), "needs 68719476736 elements"),
        (TensorProto(name="w", data_type=17, dims=[2], raw_data=b"12"), "float8e4m3fn"),
        (TensorProto(name="w", data_type=8, dims=[1], string_data=[b"a"]), "string"),
    ],
)
def test_bad_tensors(tensor: TensorProto, said: str) -> None:
    assert said in refusal(tensor_model(tensor))


def test_absurd_inputs() -> None:
    assert "TB" in refusal(model([node("Relu", "x", "y")], {"x": [1 << 50]}, {"y": None}))
    assert "extent -5" in refusal(model([node("Relu", "x", "y")], {"x": [-5]}, {"y": None}))
    weights = {"shape": np.array([1 << 30, 1 << 30])}
    m = model([node("Expand", "x shape", "y", name="big")], {"x": [1]}, {"y": None}, weights)
    assert "node 'big'" in refusal(m) and "TB" in refusal(m)


def test_inputs_without_rank() -> None:
    m = model([node("Relu", "x", "y")], {"x": []}, {"y": None})
    m.graph.input[0].type.tensor_type.ClearField("shape")
    assert "does not state its rank" in refusal(m)


def external(folder: Path, location: str, **fields: int) -> Path:
    """A model in `folder` with one tensor of 8 bytes at `location`."""
    tensor = TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "m.onnx"
    path.write_bytes(tensor_model(tensor).SerializeToString())
    return path


def test_external_data_that_leaves_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(8))
    (folder / "link.bin").symlink_to(secret)
    (folder / "inside").symlink_to(tmp_path)
    (folder / "good.bin").write_bytes(bytes(8))
    for location in ("../secret.bin", str(secret), "a/../../secret.bin", "", "\0"):
        assert "not a path inside" in refusal(external(folder, location))
    for location in ("link.bin", "inside/secret.bin"):
        assert "leads out of the model's folder" in refusal(external(folder, location))
    assert load(external(folder, "good.bin")).symbols["w"].data.array.tolist() == [0, 0]


def test_external_data_that_is_missing_or_short(tmp_path: Path) -> None:
    assert "no file 'none.bin'" in refusal(external(tmp_path, "none.bin"))
    (tmp_path / "short.bin").write_bytes(bytes(6))
    assert "has 6" in refusal(external(tmp_path, "short.bin"))
    assert "6 bytes" in refusal(external(tmp_path, "short.bin", offset=4, length=8))
    os.mkfifo(tmp_path / "pipe")
    assert "no file" in refusal(external(tmp_path, "pipe"))
    data = external(tmp_path, "short.bin").read_bytes()
    assert "give its path" in refusal(data)


def test_everything_unsupported_is_reported_at_once() -> None:
    m = model(
        [
            node("NonMaxSuppression", "x x", "a", name="nms"),
            node("Relu", "a", "b", name="fine"),
            node("STFT", "x i", "c", name="stft"),
            node("Pad", "x p", "d", name="pad", mode="reflect"),
            helper.make_node("Fancy", ["x"], ["y"], "fancy", domain="com.example"),
        ],
        {"x": [1, 2, 4]}, {"y": None}, {"i": np.array(1), "p": np.array([0, 0, 1, 0, 0, 1])},
        domains=["com.example"],
    )  # fmt: skip
    with pytest.raises(UnsupportedError) as caught:
        load(m)
    text = str(caught.value)
    for part in (
        "node 'nms': NonMaxSuppression (opset 17, f32): there is no such op in nncc",
        "node 'stft': STFT (opset 17, f32, i64)",
        "node 'pad': Pad: mode=reflect",
        "node 'fancy': com.example.Fancy",
    ):
        assert part in text
    assert "fine" not in text
    assert len(caught.value.diagnostics) == 4


def test_models_of_another_domain_only() -> None:
    n = helper.make_node("Binarizer", ["x"], ["y"], "n", domain="ai.onnx.ml")
    m = model([n], {"x": [2]}, {"y": None}, domains=["ai.onnx.ml"])
    del m.opset_import[0]
    with pytest.raises(UnsupportedError, match=r"node 'n': ai\.onnx\.ml\.Binarizer"):
        load(m)


def test_functions_that_call_themselves() -> None:
    loop = helper.make_function(
        "mine", "Loopy", ["a"], ["b"], [helper.make_node("Loopy", ["a"], ["b"], domain="mine")],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    n = helper.make_node("Loopy", ["x"], ["y"], "n", domain="mine")
    m = model([n], {"x": [2]}, {"y": None}, functions=[loop], domains=["mine"])
    assert "defined by itself" in refusal(m)


def test_bad_metadata() -> None:
    m = onnx.ModelProto()
    m.CopyFrom(RELU)
    for text in (
        "{",
        '{"states": {"v": {"output": "y"}}}',
        '{"kinds": {"w": "other"}}',
        '{"a": 1}',
    ):
        del m.metadata_props[:]
        m.metadata_props.add(key="nncc", value=text)
        assert "metadata" in refusal(m)


def test_nothing_is_written_where_saving_fails(tmp_path: Path) -> None:
    with pytest.raises(FrontendError, match="opset 5 cannot be written"):
        save(load(RELU), tmp_path / "m.onnx", opset=5)
    with pytest.raises(FrontendError, match="cannot be written"):
        save(load(RELU), tmp_path / "no" / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_sequence_map_is_unsupported() -> None:
    """onnx itself crashes when it is asked for the body of this op."""
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["a"], ["b"])],
        "body",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [2])],
        [onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [2])],
    )
    kind = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [2])
    )
    node = onnx.helper.make_node("SequenceMap", ["s"], ["t"], body=body)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_value_info("s", kind)],
        [onnx.helper.make_value_info("t", kind)],
    )
    opset = onnx.helper.make_opsetid("", 17)
    with pytest.raises(NnccError):
        load(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8))
