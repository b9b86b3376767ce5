"""Whether a node is one at all: what its op's schema says of operands and attributes.

    Add(x)                      "Add lacks its operand B"
    Concat(x) {axis=1.0}        "attribute axis is a float, not an int"

Everything later (version steps, padding, the op table) relies on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import onnx
from onnx import AttributeProto, NodeProto

from nncc.frontend.onnx.versions.draft import NotExpressible


@dataclass(frozen=True)
class Schema:
    """What a version of an op asks for.

    Args:
        version: its `since_version`.
        required: position and name of the operands that must be given.
        most_inputs, most_outputs: how many there may be.
        kinds: the kind of each attribute, a number of AttributeProto.
        needed: the attributes that must be given.
    """

    version: int
    required: tuple[tuple[int, str], ...]
    most_inputs: int
    most_outputs: int
    kinds: Mapping[str, int]
    needed: tuple[str, ...]


@lru_cache(maxsize=1024)
def schema_of(op: str, opset: int) -> Schema:
    """The schema of an op of ONNX in an opset. Raises NotExpressible if there is none."""
    try:
        found = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError as e:
        raise NotExpressible(f"opset {opset} has no such op") from e
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    required = tuple(
        (k, p.name)
        for k, p in enumerate(found.inputs)
        if p.option != optional and k < found.min_input
    )
    return Schema(
        found.since_version,
        required,
        found.max_input,
        found.max_output,
        {name: int(a.type.value) for name, a in found.attributes.items()},  # type: ignore[attr-defined]
        tuple(name for name, a in found.attributes.items() if a.required),
    )


def fault(node: NodeProto, schema: Schema) -> str:
    """What makes a node ill-formed, as a sentence; empty if nothing does."""
    op = node.op_type
    inputs, outputs = without_absent_end(node.input), without_absent_end(node.output)
    for position, name in schema.required:
        if position >= len(inputs) or not inputs[position]:
            return f"{op} lacks its operand {name}"
    if len(inputs) > schema.most_inputs:
        return f"{op} takes {schema.most_inputs} operands, not {len(inputs)}"
    if len(outputs) > schema.most_outputs:
        return f"{op} has {schema.most_outputs} outputs, not {len(outputs)}"
    if not outputs:
        return f"{op} has no output"
    given = {a.name: a for a in node.attribute}
    if len(given) < len(node.attribute):
        return f"{op} has an attribute twice"
    for name in schema.needed:
        if name not in given:
            return f"{op} lacks attribute {name}"
    for name, attribute in given.items():
        kind = schema.kinds.get(name)
        if kind is not None and attribute.type != kind:
            stated, wanted = (_kind_name(k) for k in (attribute.type, kind))
            return f"{op}: attribute {name} is of kind {stated}, not {wanted}"
    return ""


def without_absent_end(names: Iterable[str]) -> tuple[str, ...]:
    """The names of operands without absent ones at the end."""
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return tuple(kept)


def _kind_name(kind: int) -> str:
    return str(AttributeProto.AttributeType.Name(kind)).lower()
