"""Named sizes from arrays: what a call binds, and the checks of its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nncc.diagnostics import CheckError
from nncc.ir.index import Size, affine, evaluate, variables
from nncc.ir.types import TensorType

Array = np.ndarray[Any, Any]


def bind_sizes(
    arguments: Iterable[tuple[str, TensorType, Array]], sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The named sizes that make each type fit its array.

    Args:
        arguments: (name, type, array) of each argument.
        sizes: sizes that are known already.

    Raises CheckError if dtypes or shapes do not fit, or an extent is so complicated that the size
    in it does not follow.

    >>> bind_sizes([("x", TensorType(f32, (var("N") + 1, 8)), np.zeros((3, 8), np.float32))])
    {'N': 2}
    """
    bound = dict(sizes or {})
    open_extents: list[tuple[str, TensorType, Array, Size, int]] = []
    for name, type, array in arguments:
        if array.dtype != type.dtype.numpy or array.ndim != type.rank:
            raise _misfit(name, type, array)
        shape = zip(type.shape, array.shape, strict=True)
        open_extents += [(name, type, array, extent, actual) for extent, actual in shape]
    # plain names first: they may be what a more complicated extent needs
    open_extents.sort(key=lambda item: len(str(item[3])))
    for _, _, _, extent, actual in open_extents:
        _solve(extent, actual, bound)
    for name, type, array, extent, actual in open_extents:
        if unknown := variables(extent) - bound.keys():
            raise CheckError(
                f"'{name}' is {type}: size {', '.join(sorted(unknown))} does not follow from a "
                f"shape of {list(array.shape)}"
            )
        if evaluate(extent, bound) != actual:
            raise _misfit(name, type, array, bound)
    for size, value in bound.items():
        if value < 1:
            raise CheckError(f"size {size} is {value}; it must be at least 1")
    return bound


def _solve(extent: Size, actual: int, bound: dict[str, int]) -> None:
    """Binds the one unknown size of an affine extent."""
    unknown = variables(extent) - bound.keys()
    if len(unknown) != 1:
        return
    parts = affine(extent, unknown)
    if parts is None:
        return
    (name,) = unknown
    factors, rest = parts
    free = actual - evaluate(rest, bound)
    if free % factors[name] == 0:
        bound[name] = free // factors[name]


def _misfit(
    name: str, type: TensorType, array: Array, sizes: Mapping[str, int] | None = None
) -> CheckError:
    used = {v for extent in type.shape for v in variables(extent)}
    known = ", ".join(f"{k}={v}" for k, v in (sizes or {}).items() if k in used)
    where = f" with {known}" if known else ""
    error = CheckError(f"'{name}' is {array.dtype}{list(array.shape)}, not {type}{where}")
    error.exit_status = 2  # the caller's input, not a comparison
    return error
