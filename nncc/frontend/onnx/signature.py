"""The types of a model's inputs, and the named sizes that they introduce.

    images: FLOAT, dims [dim_param "batch size", 3, unnamed, 224]
    →  f32[batch_size,3,images_2,224], sizes batch_size and images_2

A name that is no identifier is made into one; two inputs that share a `dim_param` share the
size; a dimension without a name gets one of its own.
"""

from __future__ import annotations

import math
import re

import onnx

from nncc.frontend.onnx.source import Source
from nncc.frontend.onnx.tensors import DTYPES, MAX_BYTES, elem_type_name
from nncc.frontend.onnx.versions.draft import NotExpressible
from nncc.ir.index import Size, var
from nncc.ir.types import TensorType


class Sizes:
    """The named sizes of a model, in the order in which they appear."""

    def __init__(self) -> None:
        self._by_param: dict[str, str] = {}
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def named(self, param: str) -> Size:
        """The size that stands for a `dim_param`."""
        if param not in self._by_param:
            self._by_param[param] = self._fresh(param)
        return var(self._by_param[param])

    def unnamed(self, value: str, position: int) -> Size:
        """A size of its own for a dimension without a name."""
        return var(self._fresh(f"{value}_{position}"))

    def _fresh(self, wish: str) -> str:
        base = re.sub(r"\W", "_", wish, flags=re.ASCII)
        base = base if base[:1].isalpha() else f"d_{base.lstrip('_')}"
        name, count = base, 1
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names[name] = None
        return name


def input_type(value: onnx.ValueInfoProto, source: Source, sizes: Sizes) -> TensorType:
    """The type of a graph input.

    Raises FrontendError for a rank that is not stated, a negative or an absurd extent, and
    NotExpressible if nncc has no such type.
    """
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "untyped").removesuffix("_type")
        raise NotExpressible(f"{what} values are not supported")
    tensor = value.type.tensor_type
    if tensor.elem_type not in DTYPES:
        raise NotExpressible(f"dtype {elem_type_name(tensor.elem_type)} is not supported")
    if not tensor.HasField("shape"):
        raise source.error(
            f"input '{value.name}' does not state its rank",
            help="export the model with a shape; dimensions may be symbolic",
        )
    shape = tuple(_extent(d, value.name, k, source, sizes) for k, d in enumerate(tensor.shape.dim))
    type = TensorType(DTYPES[tensor.elem_type], shape)
    # A named size is at least 1, so the known extents are a lower bound.
    check_size(type, f"input '{value.name}'", source)
    return type


def check_size(type: TensorType, what: str, source: Source, node: str = "") -> None:
    """Raises FrontendError if a tensor's known extents alone make it absurdly large."""
    least = math.prod(d for d in type.shape if isinstance(d, int)) * type.dtype.bits // 8
    if least > MAX_BYTES:
        raise source.error(f"{what} is {type}: {least / 1e12:.1f} TB", node)


def _extent(
    dim: onnx.TensorShapeProto.Dimension, value: str, position: int, source: Source, sizes: Sizes
) -> Size:
    if dim.HasField("dim_value"):
        if dim.dim_value == -1:  # what some exporters write for "unknown"
            return sizes.unnamed(value, position)
        if dim.dim_value < 0:
            raise source.error(f"input '{value}' has extent {dim.dim_value} in dim {position}")
        return int(dim.dim_value)
    if dim.dim_param:
        return sizes.named(dim.dim_param)
    return sizes.unnamed(value, position)
