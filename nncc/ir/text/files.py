"""Modules as files: a text, and a safetensors file beside it for the large tensors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nncc.ir.graph import Module
from nncc.ir.tensor import Tensor
from nncc.ir.text.print_graph import in_file, print_with


def write_module(module: Module, path: str | Path) -> None:
    """Writes `module` to the text file `path` and its data to `<path's stem>.safetensors`.

    Each file is written under another name and then renamed, data first: a reader never sees
    half a file, and a text never names data that is not there.
    """
    path = Path(path)
    data_path = path.with_suffix(".safetensors")
    refer = in_file(data_path.name)
    arrays: dict[str, np.ndarray] = {}

    def store(key: str, tensor: Tensor) -> str:
        arrays[key] = tensor.array
        return refer(key, tensor)

    text = print_with(module, store)
    if arrays:
        _replace(data_path, lambda p: _save(arrays, p))
    _replace(path, lambda p: p.write_text(text, "utf-8", newline="\n"))


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
