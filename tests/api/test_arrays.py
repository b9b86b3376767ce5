"""Arrays from and to files: broken files are one clear error."""

from __future__ import annotations

import io

import numpy as np
import pytest

from nncc.arrays import load_arrays, save_arrays
from nncc.diagnostics import FrontendError

X = np.random.default_rng(0).random((20, 20))


def test_there_and_back(tmp_path) -> None:
    arrays = {"x": X, "file": np.arange(3), "a/b": np.float32(2).reshape(())}
    save_arrays(tmp_path / "x.npz", arrays)
    found = load_arrays(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    np.save(tmp_path / "one.npy", X)
    np.testing.assert_array_equal(load_arrays(tmp_path / "one.npy", ("image",))["image"], X)
    assert load_arrays(tmp_path).keys() == {"one"}


@pytest.mark.parametrize("kind", ["npz", "compressed", "npy"])
def test_broken_files(kind, tmp_path) -> None:
    whole = io.BytesIO()
    if kind == "npy":
        np.save(whole, X)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(whole, x=X)
    rng = np.random.default_rng(1)
    path = tmp_path / f"x.{kind[:3] if kind != 'compressed' else 'npz'}"
    refused = 0
    for k in range(300):
        data = bytearray(whole.getvalue())
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(min(len(data), 200) if k % 2 else len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if k % 3 == 0 else data)
        try:
            load_arrays(path, ("x",))
        except FrontendError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


def test_more_than_there_is_memory_for(tmp_path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**10)}
    )
    (tmp_path / "x.npy").write_bytes(header.getvalue())
    with pytest.raises(FrontendError, match="holds no arrays"):
        load_arrays(tmp_path / "x.npy", ("x",))
