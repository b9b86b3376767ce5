"""Sliding windows in numpy, for the references of convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def windows(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    outside: int | float = 0,
    extents: Sequence[int] | None = None,
) -> np.ndarray:
    """The windows of x[n,c,…] as a view w[n,c,e…,r…] of the padded tensor.

    `extents`, if given, are the numbers of window positions; windows may then reach beyond
    the padding, where they read `outside` too.
    """
    spatial = len(kernel)
    strides = strides or (1,) * spatial
    pads = pads or (0,) * (2 * spatial)
    dilations = dilations or (1,) * spatial
    border = [(0, 0), (0, 0)]
    for k in range(spatial):
        behind = pads[k + spatial]
        if extents is not None:
            reach = (extents[k] - 1) * strides[k] + dilations[k] * (kernel[k] - 1) + 1
            behind = max(behind, reach - x.shape[2 + k] - pads[k])
        border.append((pads[k], behind))
    padded = np.pad(x, border, constant_values=outside)
    reach_shape = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
    axes = tuple(range(2, 2 + spatial))
    view = np.lib.stride_tricks.sliding_window_view(padded, reach_shape, axes)
    steps = [slice(None), slice(None)]
    for k in range(spatial):
        stop = None if extents is None else (extents[k] - 1) * strides[k] + 1
        steps.append(slice(0, stop, strides[k]))
    steps += [slice(None, None, d) for d in dilations]
    return view[tuple(steps)]


def correlate(
    x: np.ndarray,
    w: np.ndarray,
    outside: int = 0,
    *,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
) -> np.ndarray:
    """y[n,m,e…] = sum of windows of x times w, by groups, in the dtype of x.

    `kernel_shape` is redundant and not looked at.
    """
    spatial = x.ndim - 2
    view = windows(x, w.shape[2:], strides, pads, dilations, outside)
    batch, channels = x.shape[:2]
    positions = view.shape[2 : 2 + spatial]
    taps = int(np.prod(w.shape[1:]))
    # [n, g, c, e…, r…] -> [g, n*e…, c*r…]: one matrix product for each group
    grouped = view.reshape(batch, group, channels // group, *view.shape[2:])
    order = (1, 0, *range(3, 3 + spatial), 2, *range(3 + spatial, 3 + 2 * spatial))
    columns = grouped.transpose(order).reshape(group, -1, taps)
    filters = w.reshape(group, -1, taps).transpose(0, 2, 1)
    y = np.matmul(columns, filters).reshape(group, batch, *positions, -1)
    return np.asarray(np.moveaxis(y, (0, -1), (1, 2)).reshape(batch, w.shape[0], *positions))
