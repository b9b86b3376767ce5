"""Arithmetic on shapes that are known up to named sizes: what `Op.shape_rule` needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nncc.ir.index import Index, Size

if TYPE_CHECKING:
    from nncc.ops.table import Site


def quotient(a: Size, b: Size) -> Size | None:
    """a / b if b divides a as a polynomial over named sizes, else None.

    >>> quotient(12 * var("N") + 12, var("N") + 1)
    12
    """
    if b == 0:
        return None
    if isinstance(b, int) and isinstance(a, int):
        return a // b if a % b == 0 else None
    divisor = [((), b)] if isinstance(b, int) else list(b.terms)
    result: Size = 0
    while a != 0:
        monomial, factor = ((), a) if isinstance(a, int) else a.terms[0]
        rest = list(monomial)
        for atom in divisor[0][0]:
            if atom not in rest:
                return None
            rest.remove(atom)
        if factor % divisor[0][1]:
            return None
        term: Size = factor // divisor[0][1]
        if rest:
            term = term * Index(((tuple(rest), 1),))
        result = result + term
        a = a - term * b
    return result


def arithmetic(fn: Callable[[Size, Size], Size | None]) -> Callable[[Site], np.ndarray | None]:
    """The shape rule of a binary op on integer tensors; no value where `fn` gives None."""

    def rule(site: Site) -> np.ndarray | None:
        a, b = site.constants
        if a is None or b is None or "f" in (a.dtype.kind, b.dtype.kind):
            return None
        result = np.asarray(np.frompyfunc(fn, 2, 1)(a.astype(object), b.astype(object)), object)
        return None if any(v is None for v in result.reshape(-1)) else result

    return rule
