"""Compiled models as folders: a manifest and the files that it lists.

    manifest.json    what the model is, what it needs, and the sha256 of every other file
    weights.bin      all constants, packed, each at a multiple of 64 bytes
    …                code and texts, as the back end wants

A model in segments has an artifact for each in a folder inside of it; the outer manifest has the
sha256 of the inner ones, so that all hashes hang together.

A folder is written under another name beside its place and then renamed: it is there completely
or not at all. A folder that holds anything else stays as it is. `open_artifact` checks format,
version and hashes; nothing is executed before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nncc.diagnostics import Location, TargetError
from nncc.ir.program import Signature
from nncc.ir.types import DTYPES, TensorType
from nncc.machines.machine import HOST, Machine
from nncc.runtime.sizes import from_json, to_json

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS_FILE = "weights.bin"

Content = bytes | str | np.ndarray[Any, Any]


@dataclass(frozen=True)
class Artifact:
    """An artifact that was opened and checked: its folder and what its manifest says."""

    folder: Path
    manifest: Mapping[str, Any]

    def read(self, name: str) -> bytes:
        """The content of a file of the artifact. Raises TargetError if it has no such file."""
        return self._path(name).read_bytes()

    def weights(self) -> np.ndarray[Any, Any]:
        """The weights as uint8, mapped from the file: pages are read when they are used."""
        path = self._path(WEIGHTS_FILE)
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, "r")

    def _path(self, name: str) -> Path:
        """Where a file is that was checked: one that the manifest does not list was not."""
        if name not in self.manifest["files"]:
            raise TargetError(f"the manifest lists no file '{name}'", Location(str(self.folder)))
        return self.folder / name

    def signature(self) -> Signature:
        """Names, types and sizes of the model. Raises TargetError if the manifest is wrong."""
        try:
            return signature_from(self.manifest["signature"])
        except (KeyError, TypeError, ValueError) as error:
            raise TargetError(f"the manifest's signature is wrong: {error}") from error


def write_artifact(
    folder: str | Path,
    manifest: Mapping[str, Any],
    files: Mapping[str, Content],
    *,
    version: str,
    parts: Mapping[str, Callable[[Path], None]] = MappingProxyType({}),
) -> None:
    """Writes a new artifact; an artifact that was in its place is replaced, if it is nothing else.

    Args:
        manifest: what it shall say; format, version and hashes are added.
        files: contents by name.
        version: of nncc.
        parts: by name, what writes an artifact into a folder inside of this one.

    Raises TargetError if there is something else in its place, or if it cannot be written.
    """
    where = Location(str(folder))
    try:
        folder = Path(folder).resolve()
        if reason := _occupied(folder):
            raise TargetError(f"{reason}; it stays", where, help="name another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            _fill(beside / "new", manifest, files, version, parts)
            _replace(folder, beside)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TargetError(f"the artifact cannot be written: {reason}", where) from error


def _replace(folder: Path, beside: Path) -> None:
    """Puts `beside/new` in the place of `folder`, which stays if that fails."""
    old = beside / "old"
    if folder.exists():  # a folder cannot be renamed over a full one
        os.rename(folder, old)
    try:
        os.rename(beside / "new", folder)
    except BaseException:
        if old.exists():
            os.rename(old, folder)
        raise


def _occupied(folder: Path) -> str:
    """Why a folder may not be replaced; "" if it is not there, empty, or an artifact alone."""
    if not folder.exists():
        return ""
    if Path.cwd().is_relative_to(folder):
        return "this is the current folder, or around it"
    if not folder.is_dir():
        return "there is something here that is no artifact of nncc"
    found = {p.name for p in folder.iterdir()}
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        parts = [*manifest.get("parts", ())]
        own = {MANIFEST, *manifest["files"], *parts} if "nncc" in manifest else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        own, parts = set(), []
    if foreign := sorted(found - own):
        return f"there is something here that is no artifact of nncc, '{foreign[0]}'"
    return next(filter(None, (_occupied(folder / p) for p in parts)), "")


def _fill(
    folder: Path,
    manifest: Mapping[str, Any],
    files: Mapping[str, Content],
    version: str,
    parts: Mapping[str, Callable[[Path], None]],
) -> None:
    folder.mkdir()
    hashes: dict[str, str] = {}
    for name, content in files.items():
        data = _bytes(content)
        (folder / name).write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    full = {"format": FORMAT, "nncc": version, **manifest, "files": hashes}
    if parts:
        full["parts"] = {}
        for name, write in parts.items():
            write(folder / name)
            full["parts"][name] = _sha256(folder / name / MANIFEST)
    (folder / MANIFEST).write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")


def _bytes(content: Content) -> bytes | memoryview:
    if isinstance(content, str):
        return content.encode()
    return content if isinstance(content, bytes) else content.data


def open_artifact(folder: str | Path, *, version: str) -> Artifact:
    """Reads the manifest and checks everything that it promises.

    Raises TargetError if this is no artifact, if another version of nncc wrote it, or if a file
    is missing or is not what was written.
    """
    folder = Path(folder)
    where = Location(str(folder))
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise TargetError("this is no artifact: it has no manifest", where) from error
    except ValueError as error:
        raise TargetError(f"the manifest cannot be read: {error}", where) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise TargetError("the manifest lists no files", where)
    if manifest.get("format") != FORMAT or manifest.get("nncc") != version:
        raise TargetError(
            f"the artifact has format {manifest.get('format')} and was written by nncc "
            f"{manifest.get('nncc')}; this is format {FORMAT} and nncc {version}",
            where,
            help="compile the model again",
        )
    for name, expected in manifest["files"].items():
        if not _is_plain(name):
            raise TargetError(f"the manifest names a file outside of the artifact: {name}", where)
        _check_file(folder / name, expected)
    parts = manifest.get("parts", {})
    if not isinstance(parts, dict):
        raise TargetError("the manifest's parts are wrong", where)
    for name, expected in parts.items():
        if not _is_plain(name):
            raise TargetError(f"the manifest names a part outside of the artifact: {name}", where)
        _check_file(folder / name / MANIFEST, expected)
    return Artifact(folder, manifest)


def _is_plain(name: str) -> bool:
    """Whether it names something in the folder itself."""
    return Path(name).name == name and name not in ("", "..")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path, expected: str) -> None:
    try:
        found = _sha256(path)
    except OSError as error:
        raise TargetError("a file of the artifact is missing", Location(str(path))) from error
    if found != expected:
        raise TargetError(
            "the file is not what was written: its sha256 differs",
            Location(str(path)),
            help="compile the model again",
        )


def back_end_of(folder: str | Path) -> str:
    """The back end that wrote an artifact; that of the CPU does not say so, nor does what is none.

    Nothing is checked: that is for the one that loads it.
    """
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return HOST
    found = manifest.get("backend", HOST) if isinstance(manifest, dict) else HOST
    return found if isinstance(found, str) else HOST


def machine_file(machine: Machine) -> dict[str, str]:
    """The file of a machine for an artifact, as name and text.

    Raises TargetError without one, or if the machine was changed since it was read.
    """
    suffix, text = machine.file
    reason = "was made in Python: it has no file to save"
    if suffix:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"machine{suffix}").write_text(text, encoding="utf-8")
            found = _machine_in(Path(folder) / f"machine{suffix}", machine.name)
        if replace(found, doc=machine.doc) == machine:
            return {f"machine{suffix}": text}
        reason = "is not what is in its file: it was changed in Python"
    raise TargetError(
        f"machine '{machine.name}' {reason}", help="write it as a machine file, and load that"
    )


def machine_of(opened: Artifact) -> Machine:
    """The machine whose file is in an artifact. Raises TargetError if there is none."""
    for name in opened.manifest["files"]:
        if name.startswith("machine."):
            return _machine_in(opened.folder / name, str(opened.manifest.get("target")))
    raise TargetError("the artifact has no machine file", Location(str(opened.folder)))


def _machine_in(path: Path, name: str) -> Machine:
    """The machine in a file, under a name: some formats have none, and call it like the file."""
    from nncc.machines import load

    return replace(load(path), name=name)


def signature_json(signature: Signature) -> dict[str, Any]:
    """A signature as the manifest holds it."""

    def tensors(named: tuple[tuple[str, TensorType], ...]) -> list[Any]:
        return [
            {"name": n, "dtype": t.dtype.name, "shape": [to_json(e) for e in t.shape]}
            for n, t in named
        ]

    return {
        "inputs": tensors(signature.inputs),
        "outputs": tensors(signature.outputs),
        "sizes": list(signature.sizes),
    }


def signature_from(data: Any) -> Signature:
    """The signature that `signature_json` wrote. Raises KeyError, TypeError or ValueError."""
    return Signature(_tensors(data["inputs"]), _tensors(data["outputs"]), tuple(data["sizes"]))


def _tensors(data: Any) -> tuple[tuple[str, TensorType], ...]:
    return tuple(
        (
            str(d["name"]),
            TensorType(DTYPES[d["dtype"]], tuple(from_json(e) for e in d["shape"])),
        )
        for d in data
    )
