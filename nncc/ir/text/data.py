"""The content of tensors in text: inline, in a safetensors file beside the text, or by a rule.

Written:
    2.0    [1.0, 2.0]                        up to 16 elements stand inline, row-major
    file("net.safetensors", sha256="…")      more stand in the file, under the symbol's name (a
                                             tensor that is an attribute: under its sha256)
    bytes("0100807f")                        instead of a list where there are unusual NaNs
    sha256("…")                              only the identity: printed without a data file

Read besides:
    0.0                                      for a tensor of any shape: every element
    random(seed=7, mean=0.0, std=0.05)       normally distributed; `random_array` has the rule

Files are loaded when the data is first used; their content must have the stated sha256.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lark import Token

from nncc.diagnostics import FrontendError, Location, nearest
from nncc.ir.tensor import Tensor
from nncc.ir.text import syntax as s
from nncc.ir.text.names import read_number
from nncc.ir.text.read_nests import place
from nncc.ir.types import TensorType

MAX_RULE_BYTES = 1 << 34  # a tensor that a few characters of text ask for is at most 16 GiB


class DataReader:
    """Makes tensors of what a text says about their content.

    Args:
        file: the text's name, for errors.
        folder: where the text stands; its data files are there or below. None: a text that is
            not in a folder, which cannot refer to files.
    """

    def __init__(self, file: str, folder: Path | None) -> None:
        self.file = file
        self.folder = folder
        self._paths: dict[str, Path] = {}

    def tensor(self, data: s.Data, t: TensorType, key: str) -> Tensor:
        """The tensor that `data` describes; `key` is its name in a data file.

        Raises Problem, and FrontendError later, when a file's content is found to be wrong.
        """
        if not t.is_static:
            raise s.Problem(data.at, f"data of {t} needs a shape without named sizes")
        if data.kind == "number":
            return self._filled(data.at, t)
        if data.kind == "list":
            return self._listed(data.at, t)
        if data.kind == "random":
            return self._random(data, t, key)
        if data.kind == "bytes":
            return self._bytes(data.at, t)
        sha256 = data.at if data.sha256 is None else data.sha256
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise s.Problem(sha256, "a sha256 is 64 digits of 0-9 and a-f")
        if data.kind == "sha256":
            return Tensor(_missing(key, place(self.file, data.at)), t, str(sha256))
        path = self._path(data.at)
        load = _Load(path, key or str(sha256), t, str(sha256), place(self.file, data.at))
        return Tensor(load, t, str(sha256))

    def _filled(self, at: Token, t: TensorType) -> Tensor:
        value = self._elements(at, [at], t)
        _check_size(at, t)
        return Tensor(value).filling(t.static_shape)

    def _listed(self, at: Token, t: TensorType) -> Tensor:
        texts = re.findall(r"[^\s,\[\]]+", at)
        if len(texts) != t.elements:
            raise s.Problem(at, f"{t} has {t.elements} elements, but the list has {len(texts)}")
        return Tensor(self._elements(at, texts, t).reshape(t.static_shape))

    def _bytes(self, at: Token, t: TensorType) -> Tensor:
        try:
            array = np.frombuffer(bytes.fromhex(at), t.dtype.numpy)
            return Tensor(array.reshape(t.static_shape))
        except ValueError:
            raise s.Problem(at, f"these are not the bytes of {t}") from None

    def _elements(self, at: Token, texts: list[str] | list[Token], t: TensorType) -> np.ndarray:
        values = [read_number(x) for x in texts]
        for x, v in zip(texts, values, strict=True):
            if isinstance(v, bool) != (t.dtype.kind == "bool"):
                raise s.Problem(at, f"{x} is not an element of {t}")
            if isinstance(v, float) and not t.dtype.is_float:
                raise s.Problem(at, f"{x} is not an element of {t}")
        try:
            with np.errstate(over="ignore"):
                array = np.array(values, t.dtype.numpy)
        except OverflowError:
            lo, hi = t.dtype.limits
            raise s.Problem(at, f"the elements of {t} are in {lo}..{hi}") from None
        if t.dtype.is_float:
            for x, v, element in zip(texts, values, array, strict=True):
                if np.isinf(element) and not math.isinf(v):
                    raise s.Problem(at, f"{x} does not fit {t.dtype}")
        return array

    def _random(self, data: s.Data, t: TensorType, key: str) -> Tensor:
        options: dict[str, float] = {"mean": 0.0, "std": 1.0}
        for o in data.options:
            value = o.value
            if o.name not in ("seed", "mean", "std") or not isinstance(value, Token):
                raise s.Problem(o.name, "random takes seed, mean and std")
            number = read_number(value) if value.type == "NUMBER" else ""
            fits = int if o.name == "seed" else (int, float)
            if isinstance(number, bool) or not isinstance(number, fits) or not _is_f32(number):
                raise s.Problem(value, f"{value} is not a {o.name}")
            if o.name == "seed" and number < 0:
                raise s.Problem(value, "a seed is at least 0")
            options[str(o.name)] = number
        if "seed" not in options:
            raise s.Problem(data.at, "random needs a seed", "as in random(seed=1, std=0.05)")
        if not t.dtype.is_float:
            raise s.Problem(data.at, f"random numbers are floats, not {t.dtype}")
        _check_size(data.at, t)
        seed, mean, std = int(options["seed"]), options["mean"], options["std"]
        return Tensor(lambda: random_array(key, t, seed, mean, std), t)

    def _path(self, at: Token) -> Path:
        """The data file that a text names. Raises Problem if it is elsewhere or missing."""
        name = str(at)
        if name in self._paths:
            return self._paths[name]
        if self.folder is None:
            raise s.Problem(at, "this text stands in no folder, so it cannot refer to a file")
        folder = self.folder.resolve()
        try:
            path = (folder / name).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise s.Problem(at, f"'{name}' is not a path: {error}") from None
        if Path(name).is_absolute() or not path.is_relative_to(folder):
            raise s.Problem(at, f"'{name}' leaves the folder of the text")
        if not path.is_file():
            raise s.Problem(at, f"there is no file '{name}' in '{self.folder}'")
        return self._paths.setdefault(name, path)


def random_array(name: str, t: TensorType, seed: int, mean: float, std: float) -> np.ndarray:
    """Weights by the rule of `random(seed=…, mean=…, std=…)` for the symbol `name`.

    `numpy.random.default_rng([seed, crc32(name)])`, with the name in UTF-8; its
    `standard_normal` in float32 in C order; times std, plus mean, in float32; then converted.
    """
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = generator.standard_normal(t.static_shape, np.float32)
    scaled = normal * np.float32(std) + np.float32(mean)
    return np.asarray(scaled, np.float32).astype(t.dtype.numpy)


def _check_size(at: Token, t: TensorType) -> None:
    if int(t.bytes) > MAX_RULE_BYTES:  # type: ignore[arg-type]
        raise s.Problem(at, f"{t} takes {int(t.bytes) / 2**30:.0f} GiB")  # type: ignore[arg-type]


def _is_f32(number: float) -> bool:
    """Whether it is a finite number of f32, in which weights are drawn."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float32(number)))


class _Load:
    """Loads a tensor from its file, when called, and checks it."""

    def __init__(self, path: Path, key: str, t: TensorType, sha256: str, at: Location) -> None:
        self.path, self.key, self.type, self.sha256, self.at = path, key, t, sha256, at

    def __call__(self) -> np.ndarray:
        from safetensors import SafetensorError, safe_open

        known: list[str] = []
        try:
            with safe_open(self.path, "np") as f:
                known = list(f.keys())
                array: np.ndarray = f.get_tensor(self.key)
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            help = nearest(self.key, known, "tensors there") if len(known) < 100 else ""
            raise FrontendError(
                f"'{self.path.name}' has no readable tensor '{self.key}': {error}",
                self.at,
                help if known and self.key not in known else "",
            ) from None
        if array.shape != self.type.static_shape or array.dtype != self.type.dtype.numpy:
            found = f"{array.dtype}{list(array.shape)}"
            raise FrontendError(
                f"'{self.key}' in '{self.path.name}' is {found}, the text says {self.type}", self.at
            )
        if Tensor(array).digest != self.sha256:
            raise FrontendError(
                f"'{self.key}' in '{self.path.name}' is not the data that the text was written "
                "with: its sha256 differs",
                self.at,
                "the file was changed or belongs to another text",
            )
        return array


def _missing(key: str, at: Location) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        raise FrontendError(
            f"the data of '{key}' is not with this text, only its sha256",
            at,
            "a text with data is made by write_module",
        )

    return load
