from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import nncc
from nncc.driver import build, lower, steps_for
from nncc.machines import load as load_machine
from nncc.passes.text import spell_pipeline


def test_compile_and_run_any_batch(digits_model: Path, digits: dict[str, np.ndarray]) -> None:
    net = nncc.compile(digits_model)
    answers = net.run({"image": digits["test"]})["logits"].argmax(axis=1)
    assert np.mean(answers == digits["labels"]) == 0.987
    for batch in (1, 7):
        out = net.run({"image": digits["test"][:batch]})["logits"]
        assert np.array_equal(out.argmax(axis=1), answers[:batch])
    assert net.report["kernels"] > 0 and net.report["passes"][0]["pass"] == "fold"


def test_quantized_digits(digits_model: Path, digits: dict[str, np.ndarray]) -> None:
    net = nncc.compile(digits_model, calib={"image": digits["calib"]})
    answers = net.run({"image": digits["test"]})["logits"].argmax(axis=1)
    assert abs(int(np.sum(answers == digits["labels"])) - 987) <= 3
    assert "quantize" in net.report["pipeline"] and "integers" in net.report["notes"]["quantize"]


def test_run_into(small_model: Path, small_input: np.ndarray) -> None:
    net = nncc.compile(small_model)
    out = np.empty((4, 10), np.float32)
    net.run_into({"x": small_input}, {"y": out})
    assert np.array_equal(out, net.run({"x": small_input})["y"])


def test_saved_and_loaded(small_model: Path, small_input: np.ndarray, tmp_path: Path) -> None:
    net = nncc.compile(small_model)
    net.save(tmp_path / "out")
    again = nncc.load(tmp_path / "out")
    assert isinstance(again, nncc.Executable)
    assert np.array_equal(again.run({"x": small_input})["y"], net.run({"x": small_input})["y"])
    with pytest.raises(nncc.TargetError, match="came from an artifact"):
        again.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_passes_as_objects(digits_model: Path, digits: dict[str, np.ndarray]) -> None:
    module = nncc.load(digits_model)
    assert isinstance(module, nncc.Module)
    folded = nncc.passes.Fold()(module)
    assert not any(n.op == "BatchNormalization" for n in folded.graph.nodes)
    quantized = nncc.passes.Quantize(bits=8, calib={"image": digits["calib"][:20]})(folded)
    assert any(n.op == "IntConv" for n in quantized.graph.nodes)
    net = nncc.compile(quantized)
    assert net.run({"image": digits["test"][:3]})["logits"].shape == (3, 10)


@pytest.mark.parametrize("pass_name", ["dce", "fuse", "layout", "lower", "vectorize", "plan"])
def test_every_level_is_saved_and_entered_again(
    pass_name: str, small_model: Path, small_input: np.ndarray, tmp_path: Path
) -> None:
    """`-p` goes on from whatever a file holds, and the preset does what is left."""
    compilation = lower(small_model)
    expected = build(compilation).run({"x": small_input})["y"]
    names = [s.name for s in compilation.steps]
    position = names.index(pass_name) + 1
    nncc.save(compilation.after[position - 1], tmp_path / "level.nn")
    again = nncc.load(tmp_path / "level.nn")
    assert again == compilation.after[position - 1]
    rest = spell_pipeline(compilation.steps[position:])
    net = nncc.compile(tmp_path / "level.nn", pipeline=rest)
    assert np.array_equal(net.run({"x": small_input})["y"], expected)
    net = nncc.compile(tmp_path / "level.nn")
    assert np.allclose(net.run({"x": small_input})["y"], expected, rtol=1e-4, atol=1e-5)


def test_saved_as_onnx(small_model: Path, small_input: np.ndarray, tmp_path: Path) -> None:
    nncc.save(nncc.load(small_model), tmp_path / "small.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"))
    net = nncc.compile(tmp_path / "small.onnx")
    expected = nncc.compile(small_model).run({"x": small_input})["y"]
    assert np.allclose(net.run({"x": small_input})["y"], expected, rtol=1e-5, atol=1e-6)


def test_where_quantize_goes(digits_model: Path) -> None:
    module, cpu = nncc.load(digits_model), load_machine("cpu")
    names = [s.name for s in steps_for(module, cpu, precision="int8")]
    assert names.index("quantize") == names.index("legalize") - 1
    with pytest.raises(nncc.PassError, match="does not quantize"):
        steps_for(module, cpu, "fold, cse", calib={})


def test_quantizing_without_data_warns(small_model: Path) -> None:
    with pytest.warns(UserWarning, match="accuracy is not assured"):
        nncc.compile(small_model, precision="int8")


def test_calibration_from_files(small_model: Path, small_input: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=small_input)
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "x.npy", small_input)
    nets = [
        nncc.compile(small_model, calib=calib)
        for calib in ({"x": small_input}, tmp_path / "calib.npz", tmp_path / "folder")
    ]
    results = [net.run({"x": small_input})["y"] for net in nets]
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_errors(small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(nncc.TargetError, match="threads=2"):
        nncc.compile(small_model, threads=2)
    with pytest.raises(nncc.TargetError, match="has no back end"):
        nncc.compile(small_model, "example_npu", pipeline="fold")
    with pytest.raises(nncc.PassError, match="no main function"):
        nncc.compile(small_model, pipeline="fold, cse")
    with pytest.raises(nncc.FrontendError, match="no kind of module"):
        nncc.save(nncc.load(small_model), tmp_path / "x.txt")
    with pytest.raises(nncc.FrontendError, match="cannot be written"):
        nncc.save(nncc.load(small_model), tmp_path / "missing" / "x.nn")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.nn"]


SCAN = """
nncc 1
size N
nest running(in x: f32[N,8], out y: f32[N,8]; N) {
  first: for i in 0..N { y[i,0] = x[i,0] }
  scan k in 1..8 { next: for i in 0..N { y[i,k] = y[i, k - 1] + x[i,k] } }
  schedule { parallel i { first } SCHEDULE }
}
graph sums(x: f32[N,8]) -> (y: f32[N,8]) { y: f32[N,8] = Call(x) {callee="running"} }
"""


@pytest.mark.parametrize(
    "order", ["for k { parallel i { next } }", "parallel i { for k { next } }"]
)
def test_a_schedule_by_hand(order: str, tmp_path: Path) -> None:
    (tmp_path / "scan.nn").write_text(SCAN.replace("SCHEDULE", order))
    x = np.arange(24, dtype=np.float32).reshape(3, 8)
    net = nncc.compile(tmp_path / "scan.nn")
    assert np.array_equal(net.run({"x": x})["y"], np.cumsum(x, axis=1))


SHIFT = """
nncc 1
nest shift(in x: f32[8], out y: f32[7], local t: f32[8]) {
  double: for i in 0..8 { t[i] = x[i] + x[i] }
  move: for i in 0..7 { y[i] = t[i + 1] }
  schedule { SCHEDULE }
}
graph shifted(x: f32[8]) -> (y: f32[7]) { y: f32[7] = Call(x) {callee="shift"} }
"""


def test_an_illegal_schedule_is_refused(tmp_path: Path) -> None:
    """The dependence that it breaks is named."""
    path = tmp_path / "shift.nn"
    path.write_text(SHIFT.replace("SCHEDULE", "for i { double } for i { move }"))
    x = np.arange(8, dtype=np.float32)
    assert np.array_equal(nncc.compile(path).run({"x": x})["y"], 2 * x[1:])
    path.write_text(SHIFT.replace("SCHEDULE", "for i { move } for i { double }"))
    with pytest.raises(nncc.PassError) as raised:
        nncc.compile(path)
    assert all(word in raised.value.message for word in ("shift", "double", "move"))
