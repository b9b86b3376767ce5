"""The commands, for targets beside the host: machine files, artifacts, reports, statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import nncc
from nncc import cli
from nncc.diagnostics import NnccError, TargetError
from nncc.driver import build, load_compiled, lower
from nncc.frontend.dsl import read_nn
from nncc.machines import loader
from nncc.machines.machine import Machine
from nncc.runtime.batched import Batched
from nncc.runtime.chain import Chain
from tests.segments.devices import FLOATS, INTEGERS, device

SMALL = """nncc 1
size N
param w: f32[8,3,3,3] = random(seed=1, mean=0.0, std=0.3)
param v: f32[10,8] = random(seed=2, mean=0.0, std=0.3)
state s: f32[N,10] = 0.5
graph small(x: f32[N,3,6,6]) -> (y: f32[N,10]) {
  c = Conv(x, w) {pads=[1,1,1,1]} at "conv"
  r = Relu(c) at "relu"
  p = GlobalAveragePool(r) at "pool"
  f = Flatten(p) at "flat"
  g = Gemm(f, v) {transB=1} at "fc"
  a = Add(g, s) at "sum"
  y = Softmax(a) at "soft"
  update s = a
}
"""

Run = Callable[..., SimpleNamespace]


@pytest.fixture
def nn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder with a model, data, and the file of a machine `npu.toml`
    that lacks Gemm and Softmax."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.nn").write_text(SMALL)
    x = np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    (tmp_path / "npu.toml").write_text(machine_text("cpu", ("Gemm", "Softmax")))

    def run(*argv: object) -> SimpleNamespace:
        status = cli.main([str(a) for a in argv])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run


def machine_text(backend: str, lacks: tuple[str, ...]) -> str:
    text = (Path(loader.__file__).parent / "cpu.toml").read_text()
    text = text.replace('name = "cpu"', 'name = "npu"', 1)
    text = text.replace('backend = "cpu"', f'backend = "{backend}"', 1)
    dtypes = [*INTEGERS, *FLOATS]
    text += f'\n[[supports]]\nop = "*"\ndtypes = {json.dumps(dtypes)}\n'
    return text + "".join(f'\n[[supports]]\nop = "{op}"\ndtypes = []\n' for op in lacks)


def test_compile_run_show(nn: Run, tmp_path: Path) -> None:
    done = nn("compile", "small.nn", "--target", "npu.toml", "--check", "x.npz", "-o", "small")
    assert done.status == 0, done.err
    assert done.out.startswith(
        "on the host: 2 nodes (Gemm 1, Softmax 1), 1.0% of the MACs, 7.2% of the bytes\n"
    )
    assert (
        "checked: graph = nests = loops = simulated and native in 4 segments, and in a chain: "
        in done.out
    )
    assert "4 segments (kernels: npu 2, cpu 1, npu 1, cpu 1), " in done.out
    assert sorted(p.name for p in (tmp_path / "small").iterdir() if p.is_dir()) == [
        "0_npu", "1_cpu", "2_npu", "3_cpu"
    ]  # fmt: skip
    outputs = []
    for model in (["small"], ["small.nn", "--target", "npu.toml"], ["small.nn"]):
        done = nn("run", *model, "--input", "x.npz", "-o", "y.npz")
        assert done.status == 0 and " ms" in done.out
        outputs.append(np.load("y.npz")["y"])
    assert np.array_equal(outputs[0], outputs[1])
    np.testing.assert_allclose(outputs[0], outputs[2], rtol=1e-5)
    for model in (["small"], ["small.nn", "--target", "npu.toml"]):
        for level in ("graph", "nests", "schedule", "loops", "llvm", "asm"):
            done = nn("show", model[0], "fc", f"--{level}", *model[1:])
            assert done.status == 0 and "fc" in done.out and "conv" not in done.out
        done = nn("show", *model)
        assert done.out.startswith("# segment 0: npu\n") and "\n# segment 3: cpu\n" in done.out
        done = nn("show", *model, "--listing")
        assert done.status == 2 and "no level 'listing'" in done.err and "asm" in done.err
    assert 'device="npu"' in nn("show", "small").out


def test_a_float_model_for_a_machine_of_integers(nn: Run, tmp_path: Path) -> None:
    """Without calibration data it is compiled by random ones, with a warning; rescaling nodes have
    the names of those that they belong to, and none of their work."""
    text = machine_text("cpu", ("Softmax",)).replace("legalize", "quantize, legalize")
    text = text.replace(json.dumps([*INTEGERS, *FLOATS]), json.dumps(INTEGERS))
    (tmp_path / "int.toml").write_text(text)
    done = nn("compile", "small.nn", "--target", "int.toml", "--check", "--json")
    assert done.status == 0, done.err
    assert "uses random inputs: accuracy is not assured" in done.err
    report = json.loads(done.out)
    assert {h["op"] for h in report["host"]} >= {"QuantizeLinear", "DequantizeLinear", "Softmax"}
    assert {h["macs_share"] for h in report["host"]} == {0.0}
    assert sum(h["bytes_share"] for h in report["host"]) < 1
    done = nn("doctor", "small.nn", "--target", "int.toml", "--no-host")
    assert done.status == 1 and "covered     100.0% of the MACs" in done.out


def test_the_report_for_scripts(nn: Run) -> None:
    done = nn("compile", "small.nn", "--target", "npu.toml", "--json")
    report = json.loads(done.out)
    assert [h["node"] for h in report["host"]] == ["fc", "soft"]
    assert len(report["segments"]) == 4
    done = nn("doctor", "small.nn", "--target", "npu.toml", "--json")
    assert done.status == 0
    found = json.loads(done.out)["host"]
    assert [(h["node"], h["op"]) for h in found] == [("fc", "Gemm"), ("soft", "Softmax")]
    assert found[0]["macs"] == 80 and found[0]["reason"] == "the target does not compute this op"
    done = nn("doctor", "small.nn", "--target", "npu.toml")
    assert re.search(
        r"fc \(Gemm\): 1\.0% of the MACs, 6\.0% of the bytes; the target does", done.out
    )


def test_without_the_host_everything_is_named_at_once(nn: Run) -> None:
    for command in ("compile", "doctor"):
        done = nn(command, "small.nn", "--target", "npu.toml", "--no-host")
        assert done.status in (1, 2)
        text = done.out + done.err
        assert "fc" in text and "soft" in text and text.count("the host may not be used") == 2


def test_sizes(nn: Run) -> None:
    assert nn("compile", "small.nn", "--size", "N=4", "-o", "four").status == 0
    assert nn("run", "four", "--input", "x.npz").status == 0
    assert nn("compile", "small.nn", "--size", "N=3", "-o", "three").status == 0
    done = nn("run", "three", "--input", "x.npz")
    assert done.status == 2 and "[4, 3, 6, 6], not [3, 3, 6, 6]" in done.err
    for wrong, words in (
        ("N", "not understood"), ("N=0", "not understood"), ("M=1", "no size 'M'"),
    ):  # fmt: skip
        for target in ("cpu", "npu.toml"):
            done = nn("compile", "small.nn", "--target", target, "--size", wrong)
            assert done.status == 2 and words in done.err
    done = nn("compile", "small.nn", "--size", "N=1", "--size", "N=2")
    assert done.status == 2 and "given twice" in done.err


def test_observers_see_all_segments(nn: Run) -> None:
    done = nn(
        "compile", "small.nn", "--target", "npu.toml", "--verify-each", "--time-passes",
        "--print-after", "legalize,emit",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.out.count("# after emit") == 4 and done.out.count("# after legalize") == 1
    assert done.err.count("  emit") == 4
    done = nn("compile", "small.nn", "--target", "npu.toml", "--print-after", "emitt")
    assert done.status == 2 and "emit" in done.err


def test_a_legalized_file_is_gone_on_with(nn: Run) -> None:
    first = "fold,cse,dce,legalize"
    assert nn("opt", "small.nn", "--target", "npu.toml", "-p", first, "-o", "l.nn").status == 0
    done = nn("compile", "l.nn", "--target", "npu.toml", "-o", "l", "--check")
    assert done.status == 0 and "4 segments" in done.out


# -- artifacts ---------------------------------------------------------------------------------
def test_artifacts_keep_state_and_names(tmp_path: Path) -> None:
    module = read_nn(SMALL)
    machine = device((*INTEGERS, *FLOATS), lacks=("Gemm",))
    net = nncc.compile(module, machine)
    net.save(tmp_path / "a")
    net.save(tmp_path / "a")  # over itself
    loaded = load_compiled(tmp_path / "a")
    assert isinstance(loaded, Chain) and loaded.signature == net.signature
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(loaded.run({"x": x})["y"], net.run({"x": x})["y"])
    assert loaded.report == json.loads(json.dumps(net.report))
    with pytest.raises(TargetError, match="came from an artifact"):
        loaded.save(tmp_path / "b")
    (tmp_path / "a" / "0_npu" / "mine.txt").write_text("keep")
    with pytest.raises(TargetError, match=r"mine\.txt"):
        net.save(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "1_cpu" / "weights.bin").write_bytes(b"x"),
        lambda folder: (folder / "1_cpu" / "weights.bin").unlink(),
        lambda folder: (folder / "1_cpu" / "manifest.json").write_text("{}"),
        lambda folder: (folder / "1_cpu" / "manifest.json").unlink(),
        lambda folder: (folder / "state_0.bin").write_bytes(b"1234"),
        lambda folder: edit(folder, "segments", [{"part": "../x", "backend": "cpu"}]),
        lambda folder: edit(folder, "segments", [{"part": "0_npu", "backend": "os"}]),
        lambda folder: edit(folder, "parts", {"../x": "0"}),
        lambda folder: edit(folder, "parts", 3),
        lambda folder: edit(folder, "backend", "../os"),
        lambda folder: edit(folder, "states", 3),
        lambda folder: edit(folder, "nncc", "0"),
    ],
)
def test_damaged_artifacts_are_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    machine = device((*INTEGERS, *FLOATS), lacks=("Gemm",))
    nncc.compile(read_nn(SMALL), machine).save(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(TargetError):
        load_compiled(tmp_path / "a")


def edit(folder: Path, key: str, value: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, key: value}))


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    compilation = lower(read_nn(SMALL), device((*INTEGERS, *FLOATS), lacks=("Gemm",)))
    net = build(compilation)
    assert isinstance(net, Chain)

    def fail(folder: Path) -> None:
        raise TargetError("the disk is full")

    net.parts[1].writer = fail
    with pytest.raises(TargetError, match="disk is full"):
        net.save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


# -- simulators --------------------------------------------------------------------------------
def test_statistics_and_trace(nn: Run, toy: Machine, tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(machine_text("toy", ("Softmax",)))
    done = nn("run", "small.nn", "--target", "toy.toml", "--input", "x.npz", "--trace", "t.json")
    assert done.status == 0, done.err
    assert "npu: 1200 cycles" in done.out and "stalls: waiting" in done.out
    assert "buffer: " in done.out and "conv" in done.out and "of simulation" in done.out
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X", "C"}
    done = nn(
        "run", "small.nn", "--target", "toy.toml", "--input", "x.npz", "--json", "--size", "N=2"
    )
    assert json.loads(done.out)["statistics"]["cycles"] == 600
    done = nn("run", "small.nn", "--input", "x.npz", "--trace", "t.json")
    assert done.status == 2 and "no simulator took part" in done.err


def test_artifacts_of_a_simulated_target(nn: Run, toy: Machine, tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(machine_text("toy", ("Softmax",)))
    done = nn("compile", "small.nn", "--target", "toy.toml", "--size", "N=2", "-o", "a")
    assert done.status == 0, done.err
    loaded = load_compiled(tmp_path / "a")
    assert isinstance(loaded, Chain) and isinstance(loaded.parts[0], Batched)
    assert loaded.parts[0].fixed.sizes == {"N": 2} and loaded.parts[0].fixed.split == "N"
    loaded.run({"x": np.load("x.npz")["x"]})
    assert loaded.statistics is not None and loaded.statistics.cycles == 200
    for model in (["a"], ["small.nn", "--target", "toy.toml"]):
        done = nn("show", *model, "--listing")
        assert done.status == 0 and done.out.startswith("# segment 0: npu\n-- conv\n")
        done = nn("show", model[0], "conv", "--listing", *model[1:])
        assert done.out == "-- conv\n  0 run conv\n"


def test_a_machine_without_a_file_cannot_be_saved(toy: Machine, tmp_path: Path) -> None:
    net = nncc.compile(read_nn(SMALL), replace(toy, file=("", "")))
    with pytest.raises(NnccError, match="has no file to save"):
        net.save(tmp_path / "a")
