"""Between which numbers the value of a scalar expression certainly lies.

    limits(e, scope)        (lo, hi), both included

Known are constants, loads of constant buffers, and what follows from them; anything else has the
limits of its dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from nncc.backends.tta.memory import Region
from nncc.backends.tta.scope import Limits, Scope
from nncc.ir.expr import Apply, Const, Expr, Load, Name
from nncc.ir.types import DType

# monotone in each argument, so that the extremes are at corners
_MONOTONE: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "min": min,
    "max": max,
    "shl": lambda x, y: x << y,
    "shr": lambda x, y: x >> y,
}


def limits(e: Expr, scope: Scope) -> Limits:
    """The least and the greatest value of a scalar expression of integers."""
    whole = e.dtype.limits
    found = _limits(e, scope)
    if found is None or found[0] < whole[0] or found[1] > whole[1]:
        return int(whole[0]), int(whole[1])
    return found


def _limits(e: Expr, scope: Scope) -> Limits | None:
    if isinstance(e, Const):
        return int(e.value), int(e.value)
    if isinstance(e, Name):
        return scope.limits.get(e.name)
    if isinstance(e, Load):
        place = scope.places[e.tensor]
        return None if e.other is not None else _content_limits(place.region, e.dtype)
    if not isinstance(e, Apply) or any(a.lanes > 1 or not a.dtype.is_integer for a in e.args):
        return None
    if e.fn == "cast":
        return limits(e.args[0], scope)
    if e.fn not in _MONOTONE:
        return None
    (a, b), (c, d) = (limits(x, scope) for x in e.args)
    if e.fn in ("shl", "shr") and not 0 <= c <= d < e.dtype.bits:
        return None
    corners = [_MONOTONE[e.fn](x, y) for x in (a, b) for y in (c, d)]
    return min(corners), max(corners)


@lru_cache(maxsize=256)
def _content_limits(region: Region, dtype: DType) -> Limits | None:
    """Of the elements of a constant; None for what the program writes."""
    if not region.content or len(region.content) % dtype.numpy.itemsize:
        return None
    elements = np.frombuffer(region.content, dtype.numpy)
    return int(elements.min()), int(elements.max())
