"""Ops that hold or call code: Group and Call.

`fuse` collects nodes into Groups; `lower` turns each into a Nest and a Call of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from nncc.diagnostics import nearest
from nncc.ir.types import TensorType
from nncc.ops.table import AttrDecl, Site, op


def _infer_group(site: Site) -> Sequence[TensorType]:
    (body,) = site.node.regions
    if len(body.inputs) != len(site.inputs):
        raise site.error(f"{len(site.inputs)} inputs for a region of {len(body.inputs)}")
    for name, given in zip(body.inputs, site.inputs, strict=True):
        if body.types[name] != given:
            raise site.error(f"input {name} of the region is {body.types[name]}, given {given}")
    return tuple(body.types[o] for o in body.outputs)


op(
    "Group", "x* -> y*", domain="nncc", regions=1,
    doc="What its region computes, as one unit: it becomes one loop nest. The node's inputs are "
    "the region's inputs, in order.",
    attrs={"device": AttrDecl("string", "cpu", doc="where it runs")},
    infer=_infer_group, no_nest="the pass `lower` makes the nest from the region's nodes",
)  # fmt: skip


def _infer_call(site: Site) -> Sequence[TensorType]:
    name = site.attr("callee")
    if name not in site.nests:
        raise site.error(f"there is no nest '{name}'", nearest(name, site.nests, "nests"))
    nest = site.nests[name]
    if len(nest.inputs) != len(site.inputs):
        raise site.error(f"{len(site.inputs)} inputs for a nest of {len(nest.inputs)}")
    for param, given in zip(nest.inputs, site.inputs, strict=True):
        assert given is not None
        if not _is_same_data(param.type, given):
            raise site.error(f"parameter {param.name} is {param.type}, given {given}")
    types = tuple(p.type for p in nest.outputs)
    if not site.outputs:
        return types
    for param, given in zip(nest.outputs, site.outputs, strict=True):
        if not _is_same_data(param.type, given):
            raise site.error(f"parameter {param.name} is {param.type}, the value is {given}")
    return site.outputs


def _is_same_data(formal: TensorType, given: TensorType) -> bool:
    """Whether a value can be the parameter: a nest may see its axes merged, never other data."""
    return formal.dtype is given.dtype and formal.elements == given.elements


op(
    "Call", "x* -> y*", domain="nncc",
    doc="What a nest of the module computes: inputs in the order of its `in` parameters, outputs "
    "in the order of its `out` parameters. A parameter's shape may be that of the value with "
    "neighbouring axes merged.",
    attrs={"callee": AttrDecl("string", required=True, doc="name of the nest")},
    infer=_infer_call, no_nest="it calls a nest",
)  # fmt: skip
