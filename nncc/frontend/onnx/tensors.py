"""ONNX tensors and types to nncc's and back.

TensorProto (raw, typed or external data)  ⇄  Tensor (checked against its dims, not copied)
elem_type (an int of TensorProto.DataType)  ⇄  DType
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto, numpy_helper

from nncc.frontend.onnx.source import Source, external_file
from nncc.ir import types
from nncc.ir.tensor import Tensor
from nncc.ir.types import DType, TensorType

DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: types.f32,
    TensorProto.DOUBLE: types.f64,
    TensorProto.FLOAT16: types.f16,
    TensorProto.BFLOAT16: types.bf16,
    TensorProto.INT64: types.i64,
    TensorProto.INT32: types.i32,
    TensorProto.INT16: types.i16,
    TensorProto.INT8: types.i8,
    TensorProto.UINT64: types.u64,
    TensorProto.UINT32: types.u32,
    TensorProto.UINT16: types.u16,
    TensorProto.UINT8: types.u8,
    TensorProto.BOOL: types.boolean,
}
ELEM_TYPES: dict[DType, int] = {d: e for e, d in DTYPES.items()}

# One tensor may not be larger: nothing that runs needs it, and no memory is taken for less.
MAX_BYTES = 1 << 40


def elem_type_name(elem_type: int) -> str:
    """`float8e4m3fn` for a DataType number, for messages."""
    known = elem_type in TensorProto.DataType.values()
    return TensorProto.DataType.Name(elem_type).lower() if known else f"type number {elem_type}"


def tensor_of(proto: TensorProto, source: Source) -> Tensor:
    """A tensor over the proto's own bytes, or over its external file, which is mapped when used.

    Raises FrontendError if the data are not what the dims say, KeyError if nncc has no such
    dtype.
    """
    dtype = DTYPES[proto.data_type]
    shape = tuple(proto.dims)
    what = f"tensor '{proto.name}' ({dtype}[{','.join(map(str, shape))}])"
    if any(d < 0 for d in shape):
        raise source.error(f"{what} has a negative dimension")
    size = math.prod(shape) * dtype.bits // 8
    if size > MAX_BYTES:
        raise source.error(f"{what} would take {size / 1e12:.1f} TB")
    if proto.data_location == TensorProto.EXTERNAL:
        return Tensor(_mapped(proto, source, size, what), TensorType(dtype, shape))
    if not proto.HasField("raw_data"):
        return _from_fields(proto, source, math.prod(shape), what)
    raw = proto.raw_data
    if len(raw) != size:
        raise source.error(f"{what} needs {size} bytes, the model holds {len(raw)}")
    return Tensor(np.frombuffer(raw, dtype.numpy).reshape(shape))


def _mapped(proto: TensorProto, source: Source, size: int, what: str) -> Callable[[], np.ndarray]:
    path, offset, length = external_file(source, proto)
    held = path.stat().st_size - offset if length is None else length
    if held < size or (length is not None and length != size):
        raise source.error(f"{what} needs {size} bytes, its external data has {held}")
    dtype, shape = DTYPES[proto.data_type].numpy, tuple(proto.dims)
    if not size:
        return lambda: np.zeros(shape, dtype)
    return lambda: np.memmap(path, dtype, "r", offset, shape)


def _from_fields(proto: TensorProto, source: Source, elements: int, what: str) -> Tensor:
    """Data in the typed fields. They hold one entry an element, so that a count is a check."""
    fields = (
        proto.float_data, proto.int32_data, proto.int64_data, proto.double_data, proto.uint64_data
    )  # fmt: skip
    held = max(len(f) for f in fields)
    if held != elements:
        raise source.error(f"{what} needs {elements} elements, the model holds {held}")
    return Tensor(numpy_helper.to_array(proto))


def proto_of(tensor: Tensor, name: str) -> TensorProto:
    """The tensor with its data as raw bytes (little endian, as ONNX asks)."""
    array = tensor.array
    little = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    return TensorProto(
        name=name,
        data_type=ELEM_TYPES[tensor.type.dtype],
        dims=array.shape,
        raw_data=little.tobytes(),
    )
