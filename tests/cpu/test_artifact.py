"""Artifacts on disk, their use from Python and from C, and the cache of objects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nncc.backends.cpu import cache, compiler
from nncc.backends.cpu.target import object_code
from nncc.diagnostics import TargetError
from nncc.driver import lower
from nncc.frontend.dsl import read_nn
from nncc.machines import load
from nncc.passes.plan import program
from tests.cpu.models import WEIGHTS, WIDTH, compiled, planned_program, running_sum
from tests.cpu.native import undefined_symbols

VERSION = "1.2.3"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "sum"
    compiler.write_artifact(
        planned_program(running_sum(), "running sum"), load("cpu"), folder,
        version=VERSION, pipeline="emit, plan", texts={"graph.nn": "nncc 1\n"},
    )  # fmt: skip
    return folder


def test_loaded_artifact_equals_compiled_model(artifact: Path) -> None:
    net, other = compiler.load_artifact(artifact, version=VERSION), compiled(running_sum())
    for batch in (1, 7):
        x = np.random.default_rng(batch).standard_normal((batch, WIDTH)).astype(np.float32)
        a, b = net.run({"x": x}), other.run({"x": x})
        for name in ("y", "next"):
            np.testing.assert_array_equal(a[name], b[name])
        net.reset()
        other.reset()


def test_manifest_says_what_it_is(artifact: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["nncc"] == VERSION and manifest["pipeline"] == "emit, plan"
    names = {"running_sum.o", "running_sum.h", "running_sum.ll", "weights.bin", "graph.nn"}
    assert set(manifest["files"]) == names
    assert manifest["signature"]["inputs"][0]["shape"] == [[[1, ["N"]]], 10]
    assert {p.name for p in artifact.iterdir()} == names | {"manifest.json"}
    assert not [p for p in artifact.parent.iterdir() if p != artifact], "nothing is left beside it"


@pytest.mark.parametrize("name", ["running_sum.o", "weights.bin"])
def test_damaged_file_is_refused(artifact: Path, name: str) -> None:
    data = bytearray((artifact / name).read_bytes())
    data[len(data) // 2] ^= 1
    (artifact / name).write_bytes(data)
    with pytest.raises(TargetError, match="sha256 differs"):
        compiler.load_artifact(artifact, version=VERSION)
    (artifact / name).unlink()
    with pytest.raises(TargetError, match="is missing"):
        compiler.load_artifact(artifact, version=VERSION)


def change(artifact: Path, **values: object) -> None:
    path = artifact / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_other_versions_and_computers_are_refused(artifact: Path) -> None:
    with pytest.raises(TargetError, match=r"was written by nncc 1\.2\.3"):
        compiler.load_artifact(artifact, version="1.2.4")
    manifest = json.loads((artifact / "manifest.json").read_text())
    change(artifact, features=[*manifest["features"], "amx-movrs"])
    with pytest.raises(TargetError, match="lacks: amx-movrs"):
        compiler.load_artifact(artifact, version=VERSION)
    change(artifact, features=manifest["features"], triple="s390x-ibm-linux")
    with pytest.raises(TargetError, match="for s390x"):
        compiler.load_artifact(artifact, version=VERSION)
    change(artifact, triple=manifest["triple"], files={"../weights.bin": "0"})
    with pytest.raises(TargetError, match="outside of the artifact"):
        compiler.load_artifact(artifact, version=VERSION)
    change(artifact, files=manifest["files"], signature={"inputs": 3})
    with pytest.raises(TargetError, match="signature is wrong"):
        compiler.load_artifact(artifact, version=VERSION)
    signature = manifest["signature"]
    for wrong in ("avx", [1], None):
        change(artifact, signature=signature, features=wrong)
        with pytest.raises(TargetError, match="manifest is wrong"):
            compiler.load_artifact(artifact, version=VERSION)
    for name in ("other", "../sum/running_sum"):
        change(artifact, features=[], name=name)
        with pytest.raises(TargetError, match="lists no file"):
            compiler.load_artifact(artifact, version=VERSION)
    del manifest["files"]["weights.bin"]
    change(artifact, name=manifest["name"], files=manifest["files"])
    with pytest.raises(TargetError, match=r"lists no file 'weights\.bin'"):
        compiler.load_artifact(artifact, version=VERSION)
    (artifact / "manifest.json").write_text("{")
    with pytest.raises(TargetError, match="cannot be read"):
        compiler.load_artifact(artifact, version=VERSION)
    with pytest.raises(TargetError, match="no manifest"):
        compiler.load_artifact(artifact.parent, version=VERSION)


def test_artifacts_replace_artifacts_only(artifact: Path, tmp_path: Path) -> None:
    model = planned_program(running_sum())
    compiler.write_artifact(model, load("cpu"), artifact, version=VERSION)
    assert (artifact / "model.o").is_file() and not (artifact / "running_sum.o").exists()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(TargetError, match="no artifact of nncc"):
        compiler.write_artifact(model, load("cpu"), precious, version=VERSION)
    assert [p.name for p in precious.iterdir()] == ["thesis.tex"]
    # many other programs have a file of that name
    (precious / "manifest.json").write_text('{"name": "an extension of a browser"}')
    with pytest.raises(TargetError, match="no artifact of nncc"):
        compiler.write_artifact(model, load("cpu"), precious, version=VERSION)
    (artifact / "main.c").write_text("int main;")
    with pytest.raises(TargetError, match=r"no artifact of nncc, 'main\.c'"):
        compiler.write_artifact(model, load("cpu"), artifact, version=VERSION)
    assert (artifact / "main.c").read_text() == "int main;"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["precious", "sum"]


def test_a_folder_that_cannot_be_replaced_stays(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def fails(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails)
    before = (artifact / "manifest.json").read_text()
    with pytest.raises(TargetError, match="cannot be written: No space left"):
        compiler.write_artifact(planned_program(running_sum()), load("cpu"), artifact, version="1")
    assert (artifact / "manifest.json").read_text() == before
    assert list(artifact.parent.iterdir()) == [artifact]


C_PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "running_sum.h"

int main(void) {
  FILE *file = fopen("weights.bin", "rb");
  void *weights = aligned_alloc(64, running_sum_weights_bytes);
  if (!file || fread(weights, 1, running_sum_weights_bytes, file) == 0) return 1;
  const int64_t batches[] = {1, 7, 256};
  for (int b = 0; b < 3; b++) {
    const int64_t sizes[] = {batches[b]};
    int64_t shape[2];
    if (running_sum_output_shape(1, sizes, shape) != 2 || shape[0] != batches[b]) return 2;
    int64_t count = shape[0] * shape[1];
    float *x = malloc(4 * count), *y = malloc(4 * count), *next = malloc(4 * count);
    for (int64_t i = 0; i < count; i++) x[i] = (float)(i % 17);
    void *state = aligned_alloc(64, running_sum_state_bytes(sizes));
    void *arena = aligned_alloc(64, running_sum_arena_bytes(sizes));
    nncc_tensor in[] = {{x, 4 * count}}, out[] = {{y, 4 * count}, {next, 4 * count}};
    if (running_sum_reset(weights, state, sizes)) return 3;
    for (int call = 0; call < 2; call++)
      if (running_sum_run(weights, state, arena, in, out, sizes)) return 4;
    for (int64_t i = 0; i < count; i++) printf("%.9g %.9g\n", y[i], next[i]);
    in[0].bytes = 4;
    if (running_sum_run(weights, state, arena, in, out, sizes) != 2) return 5;
    const int64_t none[] = {0};
    if (running_sum_run(weights, state, arena, in, out, none) != 1) return 6;
  }
  return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_c_program_runs_the_object(artifact: Path) -> None:
    (artifact / "use.c").write_text(C_PROGRAM)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["cc", *flags, "use.c", "running_sum.o", "-o", "use"], cwd=artifact, check=True)
    done = subprocess.run(["./use"], cwd=artifact, check=True, capture_output=True, text=True)
    printed = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    x = np.concatenate([np.arange(n * WIDTH) % 17 for n in (1, 7, 256)]).astype(np.float32)
    a = x * np.tile(WEIGHTS, len(x) // WIDTH)
    y = a + a * np.tile(WEIGHTS, len(x) // WIDTH)
    np.testing.assert_allclose(printed[:, 0], y, rtol=1e-6)
    np.testing.assert_allclose(printed[:, 1], 0.5 + 2 * y, rtol=1e-5)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_header_is_c99_and_object_needs_no_library(artifact: Path) -> None:
    (artifact / "alone.c").write_text('#include "running_sum.h"\nint unused;\n')
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wno-unused", "-Werror", "-pedantic"]
    subprocess.run(["cc", *flags, "-c", "alone.c", "-o", "alone.o"], cwd=artifact, check=True)
    link = ["cc", "-nostdlib", "-shared", "-Wl,--no-undefined", "running_sum.o", "-o", "x.so"]
    subprocess.run(link, cwd=artifact, check=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_two_models_in_one_program(tmp_path: Path) -> None:
    """Names that differ in case only, and names of tensors that would end a comment."""
    folder = tmp_path / "both"
    folder.mkdir()
    text = "size N graph g(`a*/b /* c`: f32[N]) -> (y: f32[N]) { y = Exp(`a*/b /* c`) }"
    module = lower(read_nn(f"nncc 1\n{text}")).module
    for name in ("net", "Net"):
        compiler.write_artifact(
            program(module, name), load("cpu"), tmp_path / name, version=VERSION
        )
        for suffix in ("o", "h"):
            shutil.copy(tmp_path / name / f"{name}.{suffix}", folder)
    (folder / "both.c").write_text(
        '#include "net.h"\n#include "Net.h"\n'
        "int main(void) { int64_t n[] = {3};\n"
        "  return net_arena_bytes(n) != Net_arena_bytes(n) || net_inputs + Net_inputs != 2; }\n"
    )
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion"]
    link = ["both.c", "net.o", "Net.o", "-o", "both"]
    subprocess.run(["cc", *flags, *link], cwd=folder, check=True)
    subprocess.run(["./both"], cwd=folder, check=True)
    if shutil.which("c++"):
        flags = ["-x", "c++", "-std=c++98", "-Wall", "-Wextra", "-Werror", "-Wno-long-long"]
        subprocess.run(["c++", *flags, "-c", "both.c", "-o", "cxx.o"], cwd=folder, check=True)


def test_object_has_no_undefined_symbols(artifact: Path) -> None:
    assert not undefined_symbols((artifact / "running_sum.o").read_bytes())
    text = (
        "declare void @puts(ptr)\ndefine void @f() {\n  call void @puts(ptr null)\n  ret void\n}\n"
    )
    assert undefined_symbols(object_code(text, load("cpu"))) == ["puts"]


# -- the cache ---------------------------------------------------------------------------------
def test_cache_keeps_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNCC_CACHE", str(tmp_path / "objects"))
    made = []

    def make() -> bytes:
        made.append(1)
        return b"code"

    assert [cache.cached("a", make) for _ in range(3)] == [b"code"] * 3
    assert len(made) == 1
    file = tmp_path / "objects" / "a.o"
    for damaged in (b"", file.read_bytes()[:-1], b"x" * 50):
        file.write_bytes(damaged)
        assert cache.cached("a", make) == b"code"
    assert len(made) == 4
    assert os.listdir(file.parent) == ["a.o"]
    monkeypatch.setenv("NNCC_CACHE", "0")
    assert cache.folder() is None and cache.cached("a", make) == b"code"
    assert len(made) == 5


def test_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NNCC_CACHE", str(tmp_path / "file"))
    assert cache.cached("a", lambda: b"code") == b"code"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NNCC_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert cache.folder() is None and cache.cached("a", lambda: b"code") == b"code"


def test_keys_depend_on_every_part() -> None:
    assert len({cache.key("ab", "c"), cache.key("a", "bc"), cache.key("abc")}) == 3


def test_cache_removes_what_was_used_longest_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNCC_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "LIMIT", 500)
    names = [f"{k:064x}"[::-1] for k in (1, 2, 3)]  # none begins with 00
    for age, name in enumerate(names):
        cache.cached(name, lambda: b"x" * 100)
        os.utime(tmp_path / f"{name}.o", (1000 - age, 1000 - age))
    left = tmp_path / f"{names[0]}.o.abcd1234"  # a writer was killed
    left.write_bytes(b"x" * 100)
    os.utime(left, (1, 1))
    (tmp_path / "notes.o").write_bytes(b"x" * 1000)  # not a file of the cache
    cache.cached(names[2], lambda: b"")  # the oldest is used again
    cache.cached("00" + "1" * 62, lambda: b"y" * 100)
    kept = {p.name for p in tmp_path.iterdir()}
    assert kept == {"notes.o", *(f"{n}.o" for n in (names[0], names[2], "00" + "1" * 62))}
