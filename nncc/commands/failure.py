"""What the user sees when a command fails: the error, its exit status, and, for a bug, a file.

The reproducer of a bug is a zip with the command, the versions, the traceback and, where a pass
failed, the module that it was given.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

from nncc.diagnostics import Location, NnccError

BUG = 70
_PACKAGES = ("numpy", "onnx", "llvmlite", "islpy", "lark", "safetensors", "ml_dtypes")


def report(error: Exception, argv: Sequence[str]) -> int:
    """Prints the error, writes a reproducer if it is a bug, and returns the exit status."""
    if "--debug" in argv:
        traceback.print_exception(error)
    if isinstance(error, OSError):
        error = _of_the_system(error)
    status = error.exit_status if isinstance(error, NnccError) else BUG
    if isinstance(error, NnccError):
        complain(error.render())
    else:
        complain(f"bug in nncc: {type(error).__name__}: {error}")
    if status == BUG:
        print(f"  a reproducer is in {write_reproducer(error, argv)}", file=sys.stderr)
        print("  help: report it with this file; --debug shows the traceback", file=sys.stderr)
    return status


def _of_the_system(error: OSError) -> NnccError:
    """For what is not nncc's fault: a full disk, a folder that may not be written, …"""
    return NnccError(error.strerror or str(error), Location(str(error.filename or "")))


def complain(text: str, kind: str = "error") -> None:
    """Prints `error: text` to stderr, in colour on a terminal."""
    colour = {"error": "31", "warning": "33"}[kind]
    label = f"\x1b[1;{colour}m{kind}:\x1b[0m" if is_terminal(sys.stderr) else f"{kind}:"
    print(f"{label} {text}", file=sys.stderr)


def is_terminal(stream: TextIO) -> bool:
    """Whether colour and progress may be written to a stream."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def write_reproducer(error: Exception, argv: Sequence[str]) -> Path:
    """Writes the zip into the current folder, or a temporary one, and returns its path."""
    trace = "".join(traceback.format_exception(error))
    name = f"nncc-bug-{hashlib.sha256(trace.encode()).hexdigest()[:8]}.zip"
    folder = Path.cwd() if os.access(".", os.W_OK) else Path(tempfile.mkdtemp())
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("command.txt", "\n".join(["nncc", *argv]) + "\n")
        archive.writestr("versions.txt", _versions())
        archive.writestr("traceback.txt", trace)
        step, module = getattr(error, "step", None), getattr(error, "module", None)
        if step is not None:
            archive.writestr("pass.txt", f"{step!r}\n")
        if module is not None:
            _add_module(archive, module)
    return folder / name


def _add_module(archive: zipfile.ZipFile, module: object) -> None:
    from nncc.driver import save
    from nncc.ir.graph import Module

    assert isinstance(module, Module)
    with tempfile.TemporaryDirectory() as folder:
        try:
            save(module, Path(folder) / "module.nn")
        except Exception as failure:  # a module that is too broken to print is a finding, too
            archive.writestr("module.txt", f"cannot be printed: {failure!r}\n")
        for path in sorted(Path(folder).iterdir()):
            archive.write(path, path.name)


def _versions() -> str:
    from nncc import __version__

    lines = [f"nncc {__version__}", f"python {platform.python_version()}", platform.platform()]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed")
    return "\n".join(lines) + "\n"
