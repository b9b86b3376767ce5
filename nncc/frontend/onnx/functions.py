"""Ops that are defined by other nodes: model-local functions, and ONNX's own function bodies.

    function Twice(x) -> y { y = Add(x, x) }      node  b = Twice(a)  named "n"
    →  b = Add(a, a)                              values inside become "n/<name>"

Given a node and the body of its op, gives the nodes that stand for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import FunctionProto, NodeProto

# Ops may be defined by ops that are defined by ops; more levels than this is a recursion.
MAX_DEPTH = 16


def definition(
    node: NodeProto, opset: int, input_types: Sequence[onnx.TypeProto]
) -> FunctionProto | None:
    """The body that the ONNX specification gives for a node's op, if it has one.

    None also for a node with graphs of its own (SequenceMap): onnx ends the process when it is
    asked for such a body without the types of sequences, which nncc has none of.
    """
    if any(a.HasField("g") for a in node.attribute):
        return None
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, "")  # its stubs lack functions
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= opset]
        text = schema.get_function_with_opset_version(max(versions)) if versions else b""
    elif schema.has_context_dependent_function:
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        types = [t.SerializeToString() for t in input_types]
        text = (
            schema.get_context_dependent_function_with_opset_version(
                max(versions), node.SerializeToString(), types
            )
            if versions
            else b""
        )
    else:
        return None
    if not text:
        return None
    body = FunctionProto()
    body.ParseFromString(text)
    _add_schema_defaults(body, schema)
    return body


def _add_schema_defaults(body: FunctionProto, schema: Any) -> None:
    """Bodies from the specification leave default attributes to the schema: state them."""
    stated = {a.name for a in body.attribute_proto}
    for name, attribute in schema.attributes.items():
        if name not in stated and attribute.default_value.name:
            body.attribute_proto.append(attribute.default_value)


def instantiate(
    body: FunctionProto, node: NodeProto, fresh: Callable[[str], str]
) -> list[NodeProto]:
    """Copies of the body's nodes with the node's values and attributes put in.

    `fresh` makes a name that the model does not use yet from a wish.
    """
    prefix = node.name or next((o for o in node.output if o), node.op_type)
    names: dict[str, str] = dict(zip(body.input, node.input, strict=False))
    names.update((i, "") for i in body.input[len(node.input) :])
    names.update((f, a) for f, a in zip(body.output, node.output, strict=False) if a)
    given = {a.name: a for a in node.attribute}
    defaults = {a.name: a for a in body.attribute_proto}

    def rename(name: str) -> str:
        if name and name not in names:
            names[name] = fresh(f"{prefix}/{name}")
        return names.get(name, "")

    copies = []
    for inner in body.node:
        copy = NodeProto()
        copy.CopyFrom(inner)
        copy.name = prefix
        for k, name in enumerate(inner.input):
            copy.input[k] = rename(name)
        for k, name in enumerate(inner.output):
            copy.output[k] = rename(name)
        del copy.attribute[:]
        copy.attribute.extend(_attributes(inner, given, defaults))
        copies.append(copy)
    return copies


def _attributes(
    inner: NodeProto,
    given: dict[str, onnx.AttributeProto],
    defaults: dict[str, onnx.AttributeProto],
) -> list[onnx.AttributeProto]:
    """The inner node's attributes; references are replaced by the outer node's, or left out."""
    result = []
    for a in inner.attribute:
        if not a.ref_attr_name:
            result.append(a)
            continue
        actual = given.get(a.ref_attr_name) or defaults.get(a.ref_attr_name)
        if actual is not None:
            copy = onnx.AttributeProto()
            copy.CopyFrom(actual)
            copy.name = a.name
            result.append(copy)
    return result
