"""Attributes of nodes: AttributeProto ⇄ Python values ⇄ what the op table declares.

alpha: FLOAT 0.00999999977  ⇄  0.01        a float32 stands as its shortest decimal
to: INT 1                   ⇄  f32         where the table says that it is a dtype
keepdims: INT 0             ⇄  False       where the table says that it is a bool
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import AttributeProto, helper

from nncc.frontend.onnx.source import Source
from nncc.frontend.onnx.tensors import DTYPES, ELEM_TYPES, elem_type_name, proto_of, tensor_of
from nncc.frontend.onnx.versions.draft import NotExpressible
from nncc.ir.graph import AttrValue
from nncc.ir.tensor import Tensor
from nncc.ir.types import DType
from nncc.ops.table import AttrDecl


def python_value(proto: AttributeProto, source: Source) -> Any:
    """The attribute as int, float, str, Tensor or a tuple of them.

    Raises NotExpressible if it is of a kind that nncc does not have.
    """
    kind = AttributeProto.AttributeType.Name(proto.type)
    if kind == "FLOAT":
        return shortest(proto.f)
    if kind == "INT":
        return proto.i
    if kind == "STRING":
        return proto.s.decode("utf-8", "replace")
    if kind == "TENSOR":
        if proto.t.data_type not in DTYPES:
            raise NotExpressible(f"dtype {elem_type_name(proto.t.data_type)} is not supported")
        return tensor_of(proto.t, source)
    if kind == "FLOATS":
        return tuple(shortest(f) for f in proto.floats)
    if kind == "INTS":
        return tuple(proto.ints)
    if kind == "STRINGS":
        return tuple(s.decode("utf-8", "replace") for s in proto.strings)
    raise NotExpressible(f"attribute {proto.name} is a {kind.lower()}, which is not supported")


def shortest(value: float) -> float:
    """The shortest decimal that is the same float32."""
    return float(str(np.float32(value)))


def typed(value: Any, declared: AttrDecl) -> AttrValue:
    """A Python value as the op table wants it. Raises NotExpressible if it is of another kind."""
    if declared.kind == "dtype" and value in DTYPES:
        return DTYPES[value]
    if declared.kind == "bool" and value in (0, 1):
        return bool(value)
    expected: dict[str, Any] = {"int": int, "float": float, "string": str, "tensor": Tensor}
    if isinstance(value, expected.get(declared.kind, ())):
        return value  # type: ignore[no-any-return]
    if declared.kind in ("ints", "floats", "strings") and isinstance(value, (tuple, range)):
        item = expected[declared.kind.removesuffix("s")]
        if all(isinstance(v, item) for v in value):
            return tuple(value)
    raise NotExpressible(f"{value!r} is not of kind {declared.kind}")


def untyped(value: AttrValue) -> Any:
    """What `typed` made, as a Python value again: dtypes and bools become ints."""
    if isinstance(value, DType):
        return ELEM_TYPES[value]
    return int(value) if isinstance(value, bool) else value


def to_proto(name: str, value: Any, kind: Any) -> AttributeProto:
    """The attribute as ONNX has it; `kind` is the schema's, needed to write an empty list."""
    if isinstance(value, Tensor):
        return helper.make_attribute(name, proto_of(value, name))
    number = AttributeProto.AttributeType.Value(kind.name)
    return helper.make_attribute(name, value, attr_type=number)
