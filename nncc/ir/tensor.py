"""Constant data: an array with content equality, loaded from its file when first used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property

import numpy as np

from nncc.ir.types import TensorType, dtype_of


class Tensor:
    """An immutable tensor value.

    Args:
        array: the data, or a function that gives it (called once, when needed). It is not
            copied if it is C-contiguous: whoever gives it does not change it any more.
        type: static type; required if `array` is a function.
        digest: the `digest` of the data where it is known already, so that comparing does not
            load it; whoever states it answers for it.
    """

    def __init__(
        self,
        array: np.ndarray | Callable[[], np.ndarray],
        type: TensorType | None = None,
        digest: str = "",
    ) -> None:
        self._source = array
        if digest:
            self.__dict__["digest"] = digest
        if type is None:
            assert isinstance(array, np.ndarray)
            type = TensorType(dtype_of(array.dtype), array.shape)
        self.type = type

    @cached_property
    def array(self) -> np.ndarray:
        """The data, C-contiguous and read-only."""
        data = self._source if isinstance(self._source, np.ndarray) else self._source()
        if data.shape != self.type.static_shape or data.dtype != self.type.dtype.numpy:
            raise ValueError(f"data is {data.dtype}{list(data.shape)}, the type says {self.type}")
        # ascontiguousarray would turn rank 0 into rank 1
        data = data.view() if data.flags.c_contiguous else data.copy(order="C")
        data.flags.writeable = False  # of the view: the caller's array stays as it is
        return data

    def filling(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of that shape whose elements are all the one of this tensor."""
        if shape == self.type.shape:
            return self
        type = TensorType(self.type.dtype, shape)
        return Tensor(lambda: np.full(shape, self.array.reshape(()), type.dtype.numpy), type)

    @cached_property
    def digest(self) -> str:
        """sha256 of the bytes in C order, little endian."""
        return hashlib.sha256(self.array.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Tensor) and self.type == other.type and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.type, self.digest))

    def __repr__(self) -> str:
        return f"Tensor({self.type})"
