"""Artifacts of simulated machines: they hold the machine, and nothing damaged or foreign is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nncc
from nncc.diagnostics import TargetError
from nncc.driver import load_compiled
from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Module
from nncc.machines import load, loader
from nncc.machines.machine import Machine
from nncc.machines.systolic.sizes import resized
from nncc.runtime.sizes import from_json

MACHINES = Path(loader.__file__).parent
SMALL_ADF = Path(__file__).parents[1] / "tta" / "data" / "small.adf"
NETWORK = """nncc 1
size N
const w: i8[5,4,3,3] = [{values}]
const m: i32[5] = [1073741824, 1073741824, 1073741824, 1073741824, 2147483647]
const s: i32[5] = [36, 37, 38, 39, 40]
graph net(x: i8[N,4,5,5]) -> (y) {{
  a = IntConv(x, w) {{pads=[1,1,1,1]}} at "conv"
  y = Requantize(a, m, s) at "conv"
}}
"""


def network() -> Module:
    rng = np.random.default_rng(1)
    return read_nn(NETWORK.format(values=", ".join(map(str, rng.integers(-99, 99, 180)))))


def small_tpu(folder: Path) -> Machine:
    return resized(load("tpu"), rows=8, columns=3, accumulator_rows=40, activation_latency=3)


def tpu_in_a_file(folder: Path) -> Machine:
    text = (MACHINES / "tpu.toml").read_text()
    text = text.replace("rows = 256\ncolumns = 256", "rows = 16\ncolumns = 8")
    return in_a_file(folder / "mine.toml", text.replace('name = "tpu"', 'name = "mine"'))


def tta_in_a_file(folder: Path) -> Machine:
    text = (MACHINES / "tta_minimal.toml").read_text()
    return in_a_file(folder / "mine.toml", text.replace('name = "tta_minimal"', 'name = "mine"'))


def tta_in_an_adf(folder: Path) -> Machine:
    return in_a_file(folder / "mine.adf", SMALL_ADF.read_text())


def in_a_file(path: Path, text: str) -> Machine:
    path.write_text(text)
    return load(path)


MAKERS = (small_tpu, tpu_in_a_file, tta_in_a_file)


@pytest.mark.parametrize("make", MAKERS)
def test_an_artifact_needs_no_other_file(make: Callable[[Path], Machine], tmp_path: Path) -> None:
    (tmp_path / "machines").mkdir()
    machine = make(tmp_path / "machines")
    net = nncc.compile(network(), machine, sizes={"N": 2})
    net.save(tmp_path / "a")
    for file in (tmp_path / "machines").iterdir():
        file.unlink()
    loaded = load_compiled(tmp_path / "a")
    x = np.random.default_rng(2).integers(-128, 128, (3, 4, 5, 5)).astype(np.int8)
    assert np.array_equal(loaded.run({"x": x})["y"], net.run({"x": x})["y"])
    assert loaded.statistics is not None and net.statistics is not None
    assert loaded.statistics.as_json() == net.statistics.as_json()
    assert loaded.statistics.machine == machine.name
    assert loaded.statistics.fillers == 1


def test_a_file_of_another_format_keeps_the_name(tmp_path: Path) -> None:
    from nncc.runtime.artifact import machine_file, machine_of, open_artifact, write_artifact

    machine = tta_in_an_adf(tmp_path)
    assert machine.name == "mine"
    write_artifact(tmp_path / "a", {"target": "mine"}, machine_file(machine), version="1")
    assert machine_of(open_artifact(tmp_path / "a", version="1")).name == "mine"


def test_a_machine_that_was_changed_in_python_is_not_saved(tmp_path: Path) -> None:
    net = nncc.compile(network(), replace(load("tpu"), frequency_hz=1e6))
    with pytest.raises(TargetError, match="is not what is in its file: it was changed in Python"):
        net.save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module", params=MAKERS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    nncc.compile(network(), request.param(folder)).save(folder / "a")
    return folder / "a"


def edit(folder: Path, key: str, value: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, key: value}))


def inner(folder: Path) -> Path:
    (found,) = (p for p in folder.iterdir() if p.is_dir())
    return found


def binary(folder: Path) -> Path:
    (found,) = inner(folder).glob("program.*")
    return found


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def rehash(folder: Path) -> None:
    """Makes all hashes fit what is there: as if it had been written so."""
    from hashlib import sha256

    part = inner(folder)
    manifest = json.loads((part / "manifest.json").read_text())
    files = {n: sha256((part / n).read_bytes()).hexdigest() for n in manifest["files"]}
    edit(part, "files", files)
    edit(folder, "parts", {part.name: sha256((part / "manifest.json").read_bytes()).hexdigest()})


def foreign(folder: Path) -> None:
    """Another program in the place of this one."""
    binary(folder).write_bytes(b"\x7fELF" + bytes(1000))
    rehash(folder)


def other_machine(folder: Path) -> None:
    """A machine file that is right by itself, but is not the one of this program."""
    path = inner(folder) / "machine.toml"
    other = {"tpu": "queue_depth = 16", "tta": "delay_slots = 3"}
    text = path.read_text()
    (found,) = (o for o in other.values() if o in text)
    path.write_text(text.replace(found, found[:-1].rstrip("1") + "5"))
    rehash(folder)


def no_machine(folder: Path) -> None:
    (inner(folder) / "machine.toml").unlink()
    manifest = json.loads((inner(folder) / "manifest.json").read_text())
    edit(inner(folder), "files", {n: h for n, h in manifest["files"].items() if "machine" not in n})
    rehash(folder)


def part_key(value: object, *keys: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for key in keys:
            edit(inner(folder), key, value)
        rehash(folder)

    return change


DAMAGES: dict[str, Callable[[Path], object]] = {
    "sha256 differs": lambda folder: truncate(binary(folder)),
    "is missing": lambda folder: binary(folder).unlink(),
    "manifest cannot be read": lambda folder: truncate(folder / "manifest.json"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "was written by nncc 0": lambda folder: edit(folder, "nncc", "0"),
    "has format 9": lambda folder: edit(folder, "format", 9),
    "names a file outside": lambda folder: edit(folder, "files", {"..": "0"}),
    "names a part outside": lambda folder: edit(folder, "parts", {"..": "0"}),
    "the magic is missing": foreign,
    "another machine than": other_machine,
    "has no machine file": no_machine,
    "there is no back end 'gpu'": lambda folder: edit(
        folder, "segments",
        [{"part": inner(folder).name, "backend": "gpu", "fixed": None}],
    ),
    "signature is wrong": part_key({"inputs": 3}, "signature"),
    "manifest's places are wrong|manifest is wrong": part_key(3, "layouts", "places"),
    "manifest has no report|manifest is wrong": part_key(3, "report"),
}  # fmt: skip


@pytest.mark.parametrize("message", DAMAGES)
def test_what_is_damaged_or_foreign_is_refused(saved: Path, tmp_path: Path, message: str) -> None:
    import shutil

    shutil.copytree(saved, tmp_path / "a")
    DAMAGES[message](tmp_path / "a")
    with pytest.raises(TargetError) as error:
        load_compiled(tmp_path / "a")
    assert any(m in str(error.value) for m in message.split("|"))


@pytest.mark.parametrize(
    "data",
    [None, "N", True, 1.5, [3], [[1]], [[1, [[]]]], [[1, [["//", 3, 0]]]], [[1, [["+", 1, 2]]]]],
)
def test_what_is_no_size_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"is no|not enough values"):
        from_json(data)
