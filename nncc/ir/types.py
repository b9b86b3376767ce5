"""Number formats and tensor types.

A `DType` is a record of bits and meaning, not a numpy dtype: formats that numpy has no
word for (bf16, packed int4, block formats) are records like any other. Sizes in memory are
counted in bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from nncc.ir.index import Size, ceildiv, product

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["float", "int", "uint", "bool"]


@dataclass(frozen=True, slots=True)
class DType:
    """A number format.

    Args:
        name: spelling in text (`f32`, `i8`, `u8`, `bool`).
        kind: how the bits are read.
        bits: of one element in a dense array (bool: 8, one byte an element).
        numpy_name: the numpy or ml_dtypes type that encodes and decodes it.
        accumulator: name of the format in which sums of products are kept.
    """

    name: str
    kind: Kind
    bits: int
    numpy_name: str
    accumulator: str

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def numpy(self) -> np.dtype:
        """The numpy dtype of one decoded element (ml_dtypes is loaded when it is needed)."""
        return _numpy_dtype(self.numpy_name)

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of an integer format."""
        if self.kind == "bool":
            return 0, 1
        if self.kind == "uint":
            return 0, (1 << self.bits) - 1
        if self.kind == "int":
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        raise ValueError(f"{self.name} is not an integer format")


@cache
def _numpy_dtype(name: str) -> np.dtype:
    import numpy as np

    if name == "bfloat16":
        import ml_dtypes

        found: np.dtype = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(name)


f64 = DType("f64", "float", 64, "float64", "f64")
f32 = DType("f32", "float", 32, "float32", "f32")
f16 = DType("f16", "float", 16, "float16", "f32")
bf16 = DType("bf16", "float", 16, "bfloat16", "f32")
i64 = DType("i64", "int", 64, "int64", "i64")
i32 = DType("i32", "int", 32, "int32", "i32")
i16 = DType("i16", "int", 16, "int16", "i32")
i8 = DType("i8", "int", 8, "int8", "i32")
u64 = DType("u64", "uint", 64, "uint64", "u64")
u32 = DType("u32", "uint", 32, "uint32", "u32")
u16 = DType("u16", "uint", 16, "uint16", "u32")
u8 = DType("u8", "uint", 8, "uint8", "i32")
boolean = DType("bool", "bool", 8, "bool", "i32")

DTYPES: dict[str, DType] = {
    d.name: d for d in (f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean)
}


def dtype_of(array_dtype: np.dtype) -> DType:
    """The record of a numpy dtype. Raises KeyError if nncc has none."""
    for d in DTYPES.values():
        if d.numpy_name == array_dtype.name:
            return d
    raise KeyError(array_dtype.name)


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element format and logical shape; each extent is an int or a size expression."""

    dtype: DType
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(s) for s in self.shape)}]"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Size:
        return product(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(s, int) for s in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints. Raises ValueError if an extent is symbolic."""
        if not self.is_static:
            raise ValueError(f"{self} has symbolic sizes")
        return tuple(int(s) for s in self.shape)  # type: ignore[arg-type]

    @property
    def bytes(self) -> Size:
        """Size of a dense array in bytes (sub-byte formats are packed, rounded up)."""
        return ceildiv(self.elements * self.dtype.bits, 8)
