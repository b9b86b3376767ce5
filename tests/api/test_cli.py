from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from nncc import driver
from nncc.cli import main
from nncc.machines import load

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def nncc(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a command in a folder of its own: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str | Path) -> tuple[int, str, str]:
        status = main([str(a) for a in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def data(tmp_path: Path, small_input: np.ndarray) -> Path:
    np.savez(tmp_path / "x.npz", x=small_input)
    return tmp_path / "x.npz"


# -- commands that work ------------------------------------------------------------------------
def test_compile_run_show(nncc: Run, small_model: Path, data: Path, tmp_path: Path) -> None:
    status, out, err = nncc("compile", small_model, "--check", data, "--time-passes")
    assert status == 0
    assert "checked: graph = nests = loops = native: " in out and "small.nncc: " in out
    assert err.splitlines()[0].split() == ["time", "isl", "pass"] and "total" in err
    status, out, _ = nncc("run", "small.nncc", "--input", data, "-o", "y.npz")
    assert status == 0 and out.startswith("y: float32[4, 10] = ") and " ms" in out
    status, out, _ = nncc("run", small_model, "--input", data, "--json")
    found = json.loads(out)["outputs"]["y"]
    y = np.array(found["data"], np.float32).reshape(found["shape"])
    assert np.array_equal(y, np.load(tmp_path / "y.npz")["y"])
    for level, expected in SHOWN.items():
        for model in ("small.nncc", str(small_model)):
            status, out, _ = nncc("show", model, f"--{level}", "conv")
            assert status == 0 and expected in out, (level, model)


SHOWN = {
    "graph": 'Group(x, w) {device="cpu"}',
    "nests": "nest conv(",
    "schedule": "parallel n {",
    "loops": "function conv(",
    "llvm": "define internal",
    "asm": "conv:",
}


def test_show_memory(nncc: Run, small_model: Path) -> None:
    status, out, _ = nncc("show", small_model, "--memory")
    assert status == 0 and out.splitlines()[-1].startswith("weights ")
    status, out, _ = nncc("show", small_model, "--memory", "w")
    assert len(out.splitlines()) == 1 and out.split()[0] == "weights"


def test_show_finds_names_of_all_kinds(nncc: Run, tmp_path: Path) -> None:
    (tmp_path / "odd.nn").write_text(
        "nncc 1\nsize N\n"
        'graph g(x: f32[N,8]) -> (`/a b/ü:0`: f32[N,8]) { `/a b/ü:0` = Exp(x) at "/a \\"b\\"" }\n'
    )
    assert nncc("compile", "odd.nn", "-o", "odd")[0] == 0
    for level in SHOWN:
        for name in ("/a b/ü:0", '/a "b"'):
            for model in ("odd.nn", "odd"):
                status, out, err = nncc("show", model, f"--{level}", name)
                assert status == 0 and out, (level, name, err)


@pytest.mark.parametrize("level", ["llvm", "asm", "memory", "loops"])
def test_show_tells_the_names_that_there_are(nncc: Run, small_model: Path, level: str) -> None:
    status, _, err = nncc("show", small_model, f"--{level}", "??")
    known = err.partition("names: ")[2].strip().split(", ")
    assert status == 2 and len(known) > 2
    for name in known:
        assert nncc("show", small_model, f"--{level}", name)[0] == 0, name
    assert not {n for n in known if n.startswith(("loop", "done", "entry", ".L"))}


def test_show_of_a_scheduled_file(nncc: Run, small_model: Path) -> None:
    assert nncc("opt", small_model, "-p", "fuse, layout, lower, tensorize", "-o", "n.nn")[0] == 0
    status, out, _ = nncc("show", "n.nn", "--schedule", "conv")
    assert status == 0 and "with fma" in out


def test_opt(nncc: Run, small_model: Path, tmp_path: Path) -> None:
    status, out, _ = nncc("opt", small_model, "-p", "fold, dce")
    assert status == 0 and out.startswith("nncc 1\n") and "Conv(x, w)" in out
    assert nncc("opt", small_model, "-o", "small.onnx", "--opset", "19")[0] == 0
    assert onnx.load(tmp_path / "small.onnx").opset_import[0].version == 19
    status, out, err = nncc("opt", small_model, "-p", "fold, cse", "--print-after", "cse")
    assert out.startswith("# after cse\n") and out.count("nncc 1") == 2 and not err


def test_quantized(nncc: Run, small_model: Path, data: Path) -> None:
    status, out, err = nncc("compile", small_model, "--calib", data, "-o", "out", "--check")
    assert status == 0 and not err
    assert "nodes in integers" in out and "SQNR" in out and "integer tensors equal" in out
    status, out, err = nncc("compile", small_model, "--precision", "int8", "-o", "out")
    assert status == 0 and "warning: " in err and "accuracy is not assured" in err


def test_opt_tells_how_far_qdq_is(nncc: Run, small_model: Path, data: Path) -> None:
    status, out, _ = nncc(
        "opt", small_model, "-p", "fold, quantize", "--calib", data, "-o", "small8.onnx"
    )
    assert status == 0
    assert "written as QDQ" in out and "largest deviation" in out
    onnx.checker.check_model(onnx.load("small8.onnx"), full_check=True)


def test_compile_json(nncc: Run, small_model: Path) -> None:
    status, out, _ = nncc("compile", small_model, "-o", "out", "--json", "--verify-each")
    record = json.loads(out)
    assert status == 0 and record["output"] == "out" and record["code_bytes"] > 0


def test_json_is_all_of_stdout(nncc: Run, small_model: Path) -> None:
    status, out, err = nncc("compile", small_model, "--json", "--print-after", "fold")
    assert status == 0 and json.loads(out) and err.startswith("# after fold")


def test_every_array_can_be_written(nncc: Run, tmp_path: Path) -> None:
    (tmp_path / "m.nn").write_text(
        "nncc 1\nsize N\ngraph g(x: f32[N]) -> (file: f32[N]) { file = Neg(x) }\n"
    )
    np.savez(tmp_path / "x.npz", x=np.float32([1, 2]))
    status, _, err = nncc("run", "m.nn", "--input", "x.npz", "-o", "y.npz")
    assert status == 0, err
    assert np.load(tmp_path / "y.npz")["file"].tolist() == [-1, -2]


@pytest.mark.parametrize(
    "option", [["--target", "cpu-avx2"], ["--precision", "int8"], ["-p", "fold"], ["--no-host"]]
)
def test_options_of_compilation_are_refused_for_compiled_models(
    nncc: Run, small_model: Path, data: Path, option: list[str]
) -> None:
    assert nncc("compile", small_model, "-o", "out")[0] == 0
    for command in (["run", "out", "--input", data], ["show", "out"]):
        status, _, err = nncc(*command, *option)
        assert status == 2 and "this is a compiled one" in err
    status, _, err = nncc("run", "out", "--input", data, "--threads", "2")
    assert status == 2 and "threads=2" in err


def test_doctor(nncc: Run, small_model: Path, tmp_path: Path) -> None:
    status, out, _ = nncc("doctor", small_model)
    assert status == 0 and "everything can be compiled" in out and "100.0% of the MACs" in out
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        onnx.helper.make_node("Nonsense", ["c"], ["d"], name="odd", domain="my"),
        onnx.helper.make_node("Det", ["c"], ["e"], name="det"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", 1, [1, 3, 8, 8]), value("w", 1, [4, 3, 1, 1])],
        [value("d", 1, None), value("e", 1, None)],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("my", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets), tmp_path / "odd.onnx")
    status, out, _ = nncc("doctor", "odd.onnx")
    assert status == 1 and "2 cannot be compiled" in out
    assert "node 'odd': my.Nonsense" in out and "node 'det': Det (opset 17, f32)" in out
    status, out, _ = nncc("doctor", "odd.onnx", "--json")
    record = json.loads(out)
    assert record["macs"] == record["supported_macs"] == 64 * 12
    status, _, err = nncc("compile", "odd.onnx")
    assert status == 2 and "node 'odd'" in err and "node 'det'" in err


def test_tables(nncc: Run) -> None:
    status, out, _ = nncc("passes")
    assert status == 0 and out.splitlines()[1].startswith("fold")
    status, out, _ = nncc("passes", "tensorize")
    assert "columns: an integer (default 0)" in out
    status, out, _ = nncc("targets", "tpu", "--file")
    assert status == 0 and out == load("tpu").file[1]
    status, _, err = nncc("targets", "--file")
    assert status == 2 and "--file is that of one target" in err
    status, out, _ = nncc("ops")
    assert any(line.split()[:4] == ["Conv", "ai.onnx", "22", "nest"] for line in out.splitlines())
    status, out, _ = nncc("ops", "Conv")
    assert "Conv: x, w, b? -> y" in out and "strides: ints, each 1 by default" in out
    assert {r["name"] for r in json.loads(nncc("ops", "--json")[1])} >= {"Conv", "Requantize"}
    status, out, _ = nncc("targets")
    assert out.splitlines()[0].startswith("cpu ")
    status, out, _ = nncc("targets", "cpu", "--pipeline")
    assert out.startswith("fold, cse") and len(out.splitlines()) == 1
    assert json.loads(nncc("targets", "cpu", "--json")[1])["backend"] == "cpu"
    assert "Memories:" in nncc("targets", "cpu")[1]


def test_every_pass_is_described(nncc: Run) -> None:
    from nncc import passes

    for name in passes.names():
        status, out, _ = nncc("passes", name)
        assert status == 0 and ("→" in out or "->" in out or "⟶" in out), name


# -- input that is wrong -----------------------------------------------------------------------
def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


WRONG = [
    (["compile", "missing.onnx"], "missing.onnx: cannot be read: No such file"),
    (["compile", "missing.nn"], "missing.nn: cannot read it: No such file"),
    (["compile", "."], "is a folder, not a model"),
    (["compile", "empty.onnx"], "empty.onnx"),
    (["compile", "text.onnx"], "text.onnx"),
    (["compile", "cut.onnx"], "cut.onnx"),
    (["compile", "binary.nn"], "this is not a text in UTF-8"),
    (["compile", "wrong.nn"], "wrong.nn:2:1"),
    (["compile", "small.nn", "-p", "fodl"], "did you mean 'fold'?"),
    (["compile", "small.nn", "-p", "tensorize{colums=3}"], "did you mean 'columns'?"),
    (["compile", "small.nn", "-p", "tensorize{columns=x}"], "x is not an integer"),
    (["compile", "small.nn", "-p", "tile[cnov]{m=4}"], ""),
    (["compile", "small.nn", "--target", "cpv"], "unknown target 'cpv'"),
    (["compile", "small.nn", "--target", "no.toml"], "there is no machine file no.toml"),
    (["compile", "small.nn", "--target", "bad.toml"], "bad.toml"),
    (["compile", "small.nn", "--target", "example_npu"], ""),
    (["compile", "small.nn", "--threads", "0"], "threads=0"),
    (["compile", "small.nn", "--threads", "x"], "argument --threads: invalid int value"),
    (["compile", "small.nn", "--calib", "missing.npz"], "missing.npz: cannot be read"),
    (["compile", "small.nn", "--calib", "text.onnx"], "text.onnx: holds no arrays"),
    (["compile", "small.nn", "--calib", "other.npz"], "'z'"),
    (["compile", "small.nn", "--check", "other.npz"], "input 'x' is missing"),
    (["compile", "small.nn", "--check", "shape.npz"], "'x' is float32[4, 3, 5, 6]"),
    (["compile", "small.nn", "--print-after", "fodl"], "cannot print after 'fodl'"),
    (["compile", "small.nn", "--chekc"], "unrecognized arguments"),
    (["compile", "small.nn", "-o", "x.npz"], "there is something here"),
    (["compile"], "the following arguments are required"),
    (["complie", "small.nn"], "did you mean 'compile'?"),
    (["run", "small.nn", "--input", "other.npz"], "there is no input 'z'"),
    (["run", "small.nn", "--input", "shape.npz"], "input 'x'"),
    (["run", "small.nn", "--input", "dtype.npz"], "input 'x' has dtype float64"),
    (["run", "empty", "--input", "x.npz"], "this is no artifact"),
    (["run", "small.nn", "--input", "x.npz", "-o", "no/y.npz"], "no/y.npz: cannot be written"),
    (["compile", "small.nn", "-o", "."], "this is the current folder"),
    (["compile", "small.nn", "-o", "empty/../.."], "this is the current folder, or around it"),
    (["compile", "small.nn", "-o", "x.npz/out"], "the artifact cannot be written"),
    (["targets", "--pipeline"], "--pipeline is that of one target"),
    (["opt", "small.nn", "-o", "out.txt"], "'.txt' is no kind of module"),
    (["opt", "small.nn", "-o", "no/out.nn"], "cannot be written"),
    (["opt", "small.nn", "--opset", "17"], "--opset is for an .onnx file"),
    (["opt", "small.nn", "-o", "out.onnx", "--opset", "999"], "999"),
    (["show", "small.nn", "nothing"], "there is nothing named 'nothing'"),
    (["show", "small.nn", "--schedule", "cnov"], "did you mean 'conv'?"),
    (["passes", "fodl"], "did you mean 'fold'?"),
    (["ops", "Cnov"], "did you mean 'Conv'"),
    (["targets", "cpv"], "unknown target 'cpv'"),
    ([], "the following arguments are required: COMMAND"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG, ids=[" ".join(a) or "none" for a, _ in WRONG])
def test_wrong_input(
    argv: list[str], message: str, nncc: Run, small_model: Path, digits_model: Path, tmp_path: Path
) -> None:
    """One clear error, status 2, and nothing is written."""
    x = np.zeros((4, 3, 6, 6), np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "other.npz", z=x)
    np.savez(tmp_path / "shape.npz", x=x[:, :, :5])
    np.savez(tmp_path / "dtype.npz", x=x.astype(np.float64))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("this is no model\n" * 10)
    (tmp_path / "cut.onnx").write_bytes(digits_model.read_bytes()[:20_000])
    (tmp_path / "binary.nn").write_bytes(b"nncc 1\n\xff\xfe")
    (tmp_path / "wrong.nn").write_text("nncc 1\n)\n")
    (tmp_path / "bad.toml").write_text("name = [")
    before = files(tmp_path)
    status, out, err = nncc(*argv)
    assert status == 2, err
    assert err.startswith("error: ") and message in err
    assert "Traceback" not in err and not out
    assert files(tmp_path) == before


def test_a_failed_check_is_status_1(
    nncc: Run, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nncc import check
    from nncc.tolerance import Difference

    def differs(*_: object) -> Difference:
        return Difference((0, 0), 1.0, 2.0, 1, 20)

    monkeypatch.setattr(check, "compare", differs)
    before = files(tmp_path)
    status, _, err = nncc("compile", small_model, "--check")
    assert status == 1 and "differs from the graph: tensor" in err and "at [0,0] is 1.0" in err
    assert files(tmp_path) == before


def test_a_bug_writes_a_reproducer(
    nncc: Run, toys: None, small_model: Path, tmp_path: Path
) -> None:
    status, out, err = nncc("opt", small_model, "-p", "fold, crash")
    assert status == 70 and not out
    assert "bug in nncc: pass 'crash' failed" in err and "Traceback" not in err
    (path,) = tmp_path.glob("nncc-bug-*.zip")
    assert str(path) in err
    with zipfile.ZipFile(path) as archive:
        assert {"command.txt", "versions.txt", "traceback.txt", "module.nn"} <= set(
            archive.namelist()
        )
        archive.extractall(tmp_path / "bug")
    assert (
        driver.load(tmp_path / "bug" / "module.nn")
        == driver.lower(small_model, pipeline="fold").module
    )
    assert "Traceback" in nncc("opt", small_model, "-p", "crash", "--debug")[2]


def test_interrupted(
    nncc: Run, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "build", interrupt)
    before = files(tmp_path)
    status, _, err = nncc("compile", small_model)
    assert status == 130 and err.strip() == "interrupted" and files(tmp_path) == before


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m nncc.cli ops | head -1",
        shell=True, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(driver.__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout.startswith("op ") and not done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_disk_is_not_a_bug(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nncc.cli", "ops"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(driver.__file__).parents[1])},
        )  # fmt: skip
    assert done.returncode == 2 and done.stderr == "error: No space left on device\n"
    assert not files(tmp_path)


def test_version_and_help(nncc: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, expected in (
        (["--version"], "nncc 0."),
        (["--help"], "usage: nncc"),
        (["compile", "--help"], "usage: nncc compile"),
    ):
        with pytest.raises(SystemExit) as stopped:
            nncc(*argv)
        assert stopped.value.code == 0 and capsys.readouterr().out.startswith(expected)
