"""Compiled objects kept on disk, found by what they were made from.

The folder is `$NNCC_CACHE`, else `$XDG_CACHE_HOME/nncc`, else `~/.cache/nncc`; `NNCC_CACHE=0`
switches the cache off. A file is the sha256 of the object and then the object: a file that was
damaged is not used. Files are written beside and renamed, so that writers do not disturb each
other. A folder that cannot be written is no error, nor is a user without one: the object is then
made again each time. What is kept is run: the folder must be one that no stranger can write to.

When the files are more than `LIMIT` bytes, those that were used longest ago are removed. That is
looked after in one of 256 writes, those of names that begin with `00`.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LIMIT = 1 << 30  # bytes
_DIGEST_BYTES = 32
_FILE = re.compile(r"[0-9a-f]{64}\.o(\.\w+)?")  # an object, or one that a writer left unfinished


def folder() -> Path | None:
    """Where objects are kept; None if the cache is off or there is no place for it."""
    chosen = os.environ.get("NNCC_CACHE", "")
    if chosen == "0":
        return None
    if chosen:
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "nncc"
    try:
        return Path.home() / ".cache" / "nncc"
    except RuntimeError:  # neither $HOME nor a user who is known to the system
        return None


def key(*parts: str) -> str:
    """The name of an object made from these texts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def cached(name: str, make: Callable[[], bytes]) -> bytes:
    """The object of that name, made by `make()` if it is not kept."""
    base = folder()
    if base is None:
        return make()
    path = base / f"{name}.o"
    if (found := _read(path)) is not None:
        return found
    made = make()
    with suppress(OSError):
        _write(path, made)
        if name.startswith("00"):
            _trim(base)
    return made


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(code).digest() != digest:
        return None
    with suppress(OSError):
        os.utime(path)  # it was used now
    return code


def _write(path: Path, code: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _trim(base: Path) -> None:
    """Removes the files that were used longest ago, if there are more than `LIMIT` bytes."""
    files = []
    for entry in os.scandir(base):
        if _FILE.fullmatch(entry.name):
            with suppress(FileNotFoundError):  # by another process, meanwhile
                found = entry.stat()
                files.append((found.st_mtime_ns, found.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= LIMIT:
            break
        with suppress(FileNotFoundError):
            os.unlink(path)
        total -= size
