"""Arrays from and to files: the data for running, calibrating and checking.

load_arrays("data.npz")      {"image": array}      the arrays by name
load_arrays("folder")        one array from each .npy file, named as the file
load_arrays("x.npy", ("image",))                   the only input needs no name
"""

from __future__ import annotations

import os
import tempfile
import tokenize
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from nncc.diagnostics import FrontendError, Location

Arrays = dict[str, np.ndarray]

# What numpy and zipfile raise on files that are not what they say; a header may ask for more
# memory than there is.
_BROKEN = (
    ValueError, EOFError, BadZipFile, zlib.error, NotImplementedError, tokenize.TokenError,
    MemoryError,
)  # fmt: skip


def load_arrays(path: str | Path, inputs: Sequence[str] = ()) -> Arrays:
    """The arrays in a file or folder. Raises FrontendError if there are none to be read."""
    path = Path(path)
    where = Location(str(path))
    try:
        if path.is_dir():
            found = {p.stem: _load_one(p) for p in sorted(path.glob("*.npy"))}
        elif path.suffix == ".npy":
            if len(inputs) != 1:
                raise FrontendError("holds one array without a name", where, "write an .npz file")
            found = {inputs[0]: _load_one(path)}
        else:
            with np.load(path, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise FrontendError("is no .npz file", where, "name a lone array .npy")
                found = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise FrontendError(f"cannot be read: {error.strerror or error}", where) from error
    except _BROKEN as error:
        raise FrontendError(f"holds no arrays: {error}", where) from error
    if not found:
        raise FrontendError("holds no arrays", where, "write one .npy file for each input")
    return found


def _load_one(path: Path) -> np.ndarray:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path.name} is not a single array")
    return array


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file, whole or not at all. Raises FrontendError if that cannot be done."""
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            # not by numpy.savez, which takes no array of the name `file`
            with os.fdopen(handle, "wb") as file, ZipFile(file, "w") as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        where = Location(str(path))
        raise FrontendError(f"cannot be written: {error.strerror or error}", where) from error
