"""Attributes of windows brought to one form: `auto_pad` becomes `pads`.

    Conv {auto_pad=SAME_UPPER, kernel_shape=[5,5]} on 28x28  →  Conv {pads=[2,2,2,2]}

Applies to whatever op has an attribute `auto_pad`; what is not said stays away, so that equal
nodes are equal.
"""

from __future__ import annotations

from nncc.frontend.onnx.versions.draft import Draft, NotExpressible, Scope
from nncc.ir.index import Size


def resolve(draft: Draft, scope: Scope) -> Draft:
    """The node with explicit pads. Raises NotExpressible where they depend on a named size."""
    how = draft.attrs.get("auto_pad")
    if how is None:
        return draft
    attrs = draft.without("auto_pad")
    if how == "NOTSET":
        return draft.changed(attrs=attrs)
    attrs.pop("pads", None)
    if how == "VALID":
        return draft.changed(attrs=attrs)
    if how not in ("SAME_UPPER", "SAME_LOWER"):
        raise NotExpressible(f"auto_pad={how} is not known")
    if draft.op == "ConvTranspose":
        raise NotExpressible(f"auto_pad={how} is not supported for ConvTranspose")
    extents = scope.type(draft.input(0)).shape[2:]
    kernel = attrs.get("kernel_shape")
    if kernel is None:
        kernel = scope.type(draft.input(1)).shape[2:]
    strides = attrs.get("strides") or (1,) * len(extents)
    dilations = attrs.get("dilations") or (1,) * len(extents)
    if not len(extents) == len(kernel) == len(strides) == len(dilations):
        raise NotExpressible(f"kernel_shape, strides or dilations are not of {len(extents)} axes")
    if not all(isinstance(n, int) and n > 0 for n in (*kernel, *strides, *dilations)):
        raise NotExpressible("kernel_shape, strides and dilations must be positive numbers")
    before, after = [], []
    for extent, k, s, d in zip(extents, kernel, strides, dilations, strict=True):
        total = _same_padding(extent, k, s, d, how)
        less, more = total // 2, total - total // 2
        before.append(less if how == "SAME_UPPER" else more)
        after.append(more if how == "SAME_UPPER" else less)
    return draft.changed(attrs={**attrs, "pads": (*before, *after)})


def _same_padding(extent: Size, kernel: int, stride: int, dilation: int, how: str) -> int:
    """Padding so that the output's extent is ceil(extent / stride)."""
    reach = dilation * (kernel - 1) + 1
    if stride == 1:
        return reach - 1
    if not isinstance(extent, int):
        raise NotExpressible(
            f"auto_pad={how}: the padding depends on the remainder of {extent} divided by "
            f"{stride}, which is not known; give the size a number, or the node pads"
        )
    return max((-(-extent // stride) - 1) * stride + reach - extent, 0)
