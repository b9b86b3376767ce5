"""Steps upward: (op, version) → the function that makes a node of that version from an older one.

Most of them move attributes into inputs, as ONNX did over time. Each function gets a draft of
the version before and returns the drafts that replace it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nncc.frontend.onnx.versions.draft import Draft, NotExpressible, Scope
from nncc.ir.index import product

Step = Callable[[Draft, Scope], list[Draft]]

# float32's largest value, to which Clip-6 clips by default: no bound at all.
_NO_BOUND = float(np.finfo(np.float32).max)


def _ints(draft: Draft, name: str) -> np.ndarray | None:
    value = draft.attrs.get(name)
    return None if value is None else np.array(value, np.int64)


def attrs_to_inputs(version: int, *names: str) -> Step:
    """Integer lists `names` become the inputs after the first, in this order."""

    def step(draft: Draft, scope: Scope) -> list[Draft]:
        inputs = [draft.input(0)]
        for name in names:
            value = _ints(draft, name)
            hint = f"{draft.output(0)}.{name}"
            inputs.append("" if value is None else scope.add_constant(value, hint))
        return [
            draft.changed(version=version, inputs=_trimmed(inputs), attrs=draft.without(*names))
        ]

    return step


def _trimmed(inputs: list[str]) -> tuple[str, ...]:
    """Without absent inputs at the end."""
    while inputs and not inputs[-1]:
        inputs.pop()
    return tuple(inputs)


def _float_input(draft: Draft, scope: Scope, value: float, name: str) -> str:
    dtype = scope.type(draft.input(0)).dtype.numpy
    return scope.add_constant(np.array(value, dtype), f"{draft.output(0)}.{name}")


def _clip(draft: Draft, scope: Scope) -> list[Draft]:
    low = float(draft.attrs.get("min", -_NO_BOUND))
    high = float(draft.attrs.get("max", _NO_BOUND))
    inputs = [
        draft.input(0),
        "" if low <= -_NO_BOUND else _float_input(draft, scope, low, "min"),
        "" if high >= _NO_BOUND else _float_input(draft, scope, high, "max"),
    ]
    return [draft.changed(version=11, inputs=_trimmed(inputs), attrs={})]


def _pad(draft: Draft, scope: Scope) -> list[Draft]:
    pads = scope.add_constant(np.array(draft.attrs["pads"], np.int64), f"{draft.output(0)}.pads")
    value = draft.attrs.get("value", 0.0)
    inputs = [draft.input(0), pads, _float_input(draft, scope, value, "value") if value else ""]
    return [
        draft.changed(version=11, inputs=_trimmed(inputs), attrs=draft.without("pads", "value"))
    ]


def _slice(draft: Draft, scope: Scope) -> list[Draft]:
    if "axes" not in draft.attrs:
        draft = draft.changed(attrs={**draft.attrs, "axes": range(len(draft.attrs["starts"]))})
    return attrs_to_inputs(10, "starts", "ends", "axes")(draft, scope)


def _dropout(draft: Draft, scope: Scope) -> list[Draft]:
    # The ratio matters in training only, where it became an input.
    return [draft.changed(version=12, attrs={})]


def _batch_normalization_9(draft: Draft, scope: Scope) -> list[Draft]:
    if draft.attrs.get("spatial", 1) != 1:
        raise NotExpressible("statistics for each element (spatial=0) are not supported")
    return [draft.changed(version=9, attrs=draft.without("spatial"))]


def _batch_normalization_14(draft: Draft, scope: Scope) -> list[Draft]:
    # Before 14, running statistics were asked for by naming their outputs.
    if any(draft.outputs[1:]):
        raise NotExpressible("its training outputs are used; nncc compiles inference only")
    return [draft.changed(version=14, outputs=draft.outputs[:1])]


def _softmax(draft: Draft, scope: Scope) -> list[Draft]:
    """Before 13 the dimensions from `axis` on were one: softmax([d0..da-1, da*..*dn])."""
    axis = draft.attrs.get("axis", 1)
    shape = scope.type(draft.input(0)).shape
    axis += len(shape) if axis < 0 else 0
    tail = shape[axis:]
    if len(tail) == 1 or product(tail[1:]) == 1:
        return [draft.changed(version=13, attrs={"axis": axis})]
    if sum(not isinstance(s, int) for s in tail) > 1:
        raise NotExpressible(f"softmax over several dimensions of symbolic size ({tail})")

    def reshape(source: str, target: str, dims: list[int]) -> Draft:
        where = scope.add_constant(np.array(dims, np.int64), f"{target}.shape")
        return Draft("Reshape", (source, where), (target,), {}, 13)

    flat, normal = scope.fresh(f"{draft.output(0)}.flat"), scope.fresh(f"{draft.output(0)}.normal")
    restored = [s if isinstance(s, int) else -1 for s in tail]
    return [
        reshape(draft.input(0), flat, [0] * axis + [-1]),
        Draft(draft.op, (flat,), (normal,), {"axis": -1}, 13),
        reshape(normal, draft.output(0), [0] * axis + restored),
    ]


def _split_18(draft: Draft, scope: Scope) -> list[Draft]:
    if draft.input(1):
        return [draft.changed(version=18)]
    shape, axis = scope.type(draft.input(0)).shape, draft.attrs.get("axis", 0)
    for extent in shape[axis:][:1]:  # none where the axis is out of range, which is refused later
        if isinstance(extent, int) and extent % len(draft.outputs):
            raise NotExpressible(f"{len(draft.outputs)} parts of {extent} are not equal")
    return [draft.changed(version=18, attrs={**draft.attrs, "num_outputs": len(draft.outputs)})]


# ReduceSum moved its axes earlier, with version 13.
REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")

RAISING: dict[tuple[str, int], Step] = {
    ("BatchNormalization", 9): _batch_normalization_9,
    ("BatchNormalization", 14): _batch_normalization_14,
    ("Clip", 11): _clip,
    ("Dropout", 12): _dropout,
    ("LogSoftmax", 13): _softmax,
    ("Pad", 11): _pad,
    ("ReduceSum", 13): attrs_to_inputs(13, "axes"),
    ("Slice", 10): _slice,
    ("Softmax", 13): _softmax,
    ("Split", 13): attrs_to_inputs(13, "split"),
    ("Split", 18): _split_18,
    ("Squeeze", 13): attrs_to_inputs(13, "axes"),
    ("Unsqueeze", 13): attrs_to_inputs(13, "axes"),
    **{(name, 18): attrs_to_inputs(18, "axes") for name in REDUCTIONS},
}
