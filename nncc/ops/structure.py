"""Ops that hold or call code: Group, Call and Run.

`fuse` collects nodes into Groups; `lower` turns each into a Nest and a Call of it. Where the
machine's operations need constants in another form than the nest, `perform` makes Runs of Calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from nncc.diagnostics import nearest
from nncc.ir.nests import Param
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
    attrs={"device": AttrDecl("string", required=True, doc="where it runs: `cpu`, …")},
    infer=_infer_group, no_nest="the pass `lower` makes the nest from the region's nodes",
)  # fmt: skip


def _infer_call(site: Site) -> Sequence[TensorType]:
    name = site.attr("callee")
    if name not in site.nests:
        raise site.error(f"there is no nest '{name}'", nearest(name, site.nests, "nests"))
    nest = site.nests[name]
    _check_bytes(site, "input", nest.inputs, site.inputs)
    if not site.outputs:
        return tuple(p.type for p in nest.outputs)
    _check_bytes(site, "output", nest.outputs, site.outputs)
    return site.outputs


def _check_bytes(
    site: Site, what: str, params: Sequence[Param], given: Sequence[TensorType | None]
) -> None:
    """Parameters have the dtype and the elements of their values, perhaps on fewer axes."""
    if len(params) != len(given):
        raise site.error(f"{len(given)} {what}s for a nest of {len(params)}")
    for param, type in zip(params, given, strict=True):
        formal = (param.type.dtype, param.type.elements)
        if type is None or formal != (type.dtype, type.elements):
            raise site.error(f"{what} {param.name} is {param.type} in the nest, given {type}")


op(
    "Call", "x* -> y*", domain="nncc",
    doc="What a nest of the module computes: inputs in the order of its `in` parameters, outputs "
    "in the order of its `out` parameters. A parameter's shape may be that of the value with "
    "neighbouring axes merged.",
    attrs={"callee": AttrDecl("string", required=True, doc="name of the nest")},
    infer=_infer_call, no_nest="it calls a nest",
)  # fmt: skip


def _infer_run(site: Site) -> Sequence[TensorType]:
    if not site.outputs:
        raise site.error("what a function gives does not follow from its operands: state its types")
    return site.outputs


op(
    "Run", "x* -> y*", domain="nncc",
    doc="What a Loops function of the module computes: inputs in the order of its `in` buffers, "
    "outputs in the order of its `out` buffers, each in the layout of the value.",
    attrs={
        "callee": AttrDecl("string", required=True, doc="name of the function"),
        "macs": AttrDecl("int", 0, doc="multiply-accumulates that the model asks for"),
    },
    infer=_infer_run, no_nest="it calls a function",
)  # fmt: skip
