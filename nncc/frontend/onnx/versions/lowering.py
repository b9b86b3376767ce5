"""Steps downward: (op, version) → the function that writes such a node in the version before.

Used by the exporter, and by the importer for ops whose table entry is older than the model.
Where an operand became an input, going back needs its value at compile time.
"""

from __future__ import annotations

from collections.abc import Callable

from nncc.frontend.onnx.versions.draft import Draft, NotExpressible, Scope
from nncc.frontend.onnx.versions.raising import REDUCTIONS
from nncc.ir.index import ceildiv

Step = Callable[[Draft, Scope], list[Draft]]


def _axes_to_attr(version: int) -> Step:
    def step(draft: Draft, scope: Scope) -> list[Draft]:
        if draft.attrs.get("noop_with_empty_axes"):
            raise NotExpressible("noop_with_empty_axes came with version 18")
        attrs = draft.without("noop_with_empty_axes")
        if draft.input(1):
            axes = scope.constant(draft.input(1))
            if axes is None:
                raise NotExpressible("its axes are not known at compile time")
            attrs["axes"] = tuple(int(a) for a in axes)
            scope.absorb(draft.input(1), f"{draft.output(0)}.axes")
        return [draft.changed(version=version, inputs=draft.inputs[:1], attrs=attrs)]

    return step


def _split_18(draft: Draft, scope: Scope) -> list[Draft]:
    count = draft.attrs.get("num_outputs")
    if count is None:
        return [draft.changed(version=13)]
    axis = draft.attrs.get("axis", 0)
    extent = scope.type(draft.input(0)).shape[axis]
    if not isinstance(extent, int) or extent % count:
        raise NotExpressible(f"num_outputs={count} parts of {extent} are not equal")
    return [draft.changed(version=13, attrs=draft.without("num_outputs"))]


def _pad_18(draft: Draft, scope: Scope) -> list[Draft]:
    if draft.input(3):
        raise NotExpressible("its operand axes came with version 18")
    return [draft.changed(version=13)]


def _pool_22(version: int) -> Step:
    """Version 22 says that a last window that starts behind the tensor does not count; before,
    the specification counted it, and implementations disagree."""

    def step(draft: Draft, scope: Scope) -> list[Draft]:
        if draft.attrs.get("ceil_mode"):
            kernel = draft.attrs["kernel_shape"]
            rank = len(kernel)
            pads = draft.attrs.get("pads", (0,) * 2 * rank)
            strides = draft.attrs.get("strides", (1,) * rank)
            dilations = draft.attrs.get("dilations", (1,) * rank)
            x, y = scope.type(draft.input(0)).shape[2:], scope.type(draft.output(0)).shape[2:]
            for k in range(rank):
                free = x[k] + pads[k] + pads[k + rank] - dilations[k] * (kernel[k] - 1) - 1
                if y[k] != ceildiv(free, strides[k]) + 1:
                    raise NotExpressible("its rule for the last window came with version 22")
        return [draft.changed(version=version)]

    return step


LOWERING: dict[tuple[str, int], Step] = {
    ("AveragePool", 22): _pool_22(19),
    ("MaxPool", 22): _pool_22(12),
    ("Pad", 18): _pad_18,
    ("Split", 18): _split_18,
    **{(name, 18): _axes_to_attr(13) for name in REDUCTIONS},
}
