"""What is known of integer expressions when their variables lie in ranges.

    bounds(size, {"e": (0, 6)})      smallest and largest value
    simplify(size, ranges)           without the divisions, minima, … that the ranges decide
    nonnegative(size)                whether it is >= 0 for all named sizes >= 1

Divisors are taken to be at least 1 (`nncc.ir.verify_nests` proves that they are).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce

from nncc.ir.index import (
    COMBINE,
    Atom,
    Element,
    Index,
    Monomial,
    Size,
    Term,
    atom,
    elements,
    maximum,
    minimum,
    polynomial,
    product,
    substitute,
    var,
    variables,
    weighted_sum,
)

Range = tuple[Size, Size]


def bounds(size: Size, ranges: Mapping[str, Range]) -> Range:
    """Smallest and largest value (both included) when each variable is in its range.

    Ranges are inclusive pairs; a variable without one stands for itself (a named size).
    Exact for polynomials that are affine in the ranged variables with each variable
    occurring once; otherwise an enclosure.

    >>> bounds(2 * var("e") + var("r") - 1, {"e": (0, 6), "r": (0, 2)})
    (-1, 13)
    """
    if isinstance(size, int):
        return size, size
    if ranges.keys().isdisjoint(variables(size)) and not elements(size):
        return size, size
    ends = [(_monomial_bounds(m, ranges), c) for m, c in size.terms]
    lo = weighted_sum((a, c) if c > 0 else (b, c) for (a, b), c in ends)
    hi = weighted_sum((b, c) if c > 0 else (a, c) for (a, b), c in ends)
    return lo, hi


def _monomial_bounds(m: Monomial, ranges: Mapping[str, Range]) -> Range:
    if not m:
        return 1, 1
    if len(m) == 1:
        return _atom_bounds(m[0], ranges)
    lo: Size = 1
    hi: Size = 1
    for a in m:
        x, y = _atom_bounds(a, ranges)
        if isinstance(lo, int) and isinstance(x, int) and lo >= 0 and x >= 0:
            lo, hi = lo * x, hi * y
            continue
        corners = [p * q for p in (lo, hi) for q in (x, y)]
        lo, hi = reduce(minimum, corners), reduce(maximum, corners)
    return lo, hi


def _atom_bounds(a: Atom, ranges: Mapping[str, Range]) -> Range:
    if isinstance(a, str):
        if a in ranges:
            lo, hi = ranges[a]
            return lo, hi
        return var(a), var(a)
    if isinstance(a, Element):
        return bounds(a.lo, ranges)[0], bounds(a.hi - 1, ranges)[1]
    x, y = bounds(a.a, ranges), bounds(a.b, ranges)
    if a.fn == "//" and isinstance(a.b, int):
        return x[0] // a.b, x[1] // a.b
    if a.fn == "%" and isinstance(a.b, int):
        if isinstance(x[0], int) and isinstance(x[1], int) and x[0] // a.b == x[1] // a.b:
            return x[0] % a.b, x[1] % a.b
        return remainders(a.a, a.b)
    if a.fn == "//":
        corners = [p // q for p in x for q in y]
        return reduce(minimum, corners), reduce(maximum, corners)
    if a.fn == "%":
        return 0, y[1] - 1
    return COMBINE[a.fn](x[0], y[0]), COMBINE[a.fn](x[1], y[1])


def remainders(size: Size, divisor: int) -> tuple[int, int]:
    """Smallest and largest value of size % divisor, whatever the variables are.

    >>> remainders(6 * var("g") + 2 * var("m") + 1, 16)
    (1, 15)
    >>> remainders(4 * var("g"), 16)
    (0, 12)
    """
    terms = () if isinstance(size, int) else size.terms
    step = math.gcd(divisor, *(c for m, c in terms if m))
    first = sum(c for m, c in terms if not m) % step
    return first, divisor - step + first


def simplify(size: Size, ranges: Mapping[str, Range]) -> Size:
    """`size` without the divisions, remainders, minima and maxima that `ranges` decide.

    >>> simplify((16 * var("b") + var("v")) // 16, {"v": (0, 15)})
    b
    >>> simplify((4 * var("g") + var("v")) % 16, {"v": (0, 3)})
    v + (4*g) % 16
    """
    if isinstance(size, int) or (
        size.is_plain and not any(_is_point(ranges.get(v)) for v in variables(size))
    ):
        return size
    return weighted_sum((product(_simplify_atom(a, ranges) for a in m), c) for m, c in size.terms)


def _is_point(limits: Range | None) -> bool:
    return limits is not None and limits[0] == limits[1]


def _simplify_atom(a: Atom, ranges: Mapping[str, Range]) -> Size:
    if isinstance(a, str):
        limits = ranges.get(a)
        return limits[0] if limits is not None and _is_point(limits) else atom(a)
    if isinstance(a, Element):
        return atom(Element(a.tensor, tuple(simplify(i, ranges) for i in a.indices), a.lo, a.hi))
    x, y = simplify(a.a, ranges), simplify(a.b, ranges)
    lo, hi = bounds(x, ranges)
    if a.fn in ("//", "%") and isinstance(y, int) and isinstance(x, Index):
        if isinstance(lo, int) and isinstance(hi, int) and lo // y == hi // y:
            return lo // y if a.fn == "//" else x - (lo // y) * y
        whole, rest = _without_small_part(x, y, ranges)
        if rest != 0:
            return whole // y if a.fn == "//" else whole % y + rest
    elif a.fn in ("min", "max"):
        lo, hi = bounds(x - y, ranges)
        if isinstance(hi, int) and hi <= 0:
            return x if a.fn == "min" else y
        if isinstance(lo, int) and lo >= 0:
            return y if a.fn == "min" else x
    return COMBINE[a.fn](x, y)


def _without_small_part(x: Index, d: int, ranges: Mapping[str, Range]) -> tuple[Size, Size]:
    """x == whole + rest where rest never carries: whole // d == x // d, whole % d + rest == x % d.

    In 4*g + m with m in 0..3 it is m, if 4 divides d.
    """
    ordered = sorted(x.terms, key=lambda term: abs(term[1]))
    for k in range(len(ordered) - 1, 0, -1):
        rest, whole = polynomial(dict(ordered[:k])), polynomial(dict(ordered[k:]))
        step = math.gcd(d, *(c for _, c in ordered[k:]))
        lo, hi = bounds(rest, ranges)
        if isinstance(lo, int) and isinstance(hi, int) and lo >= 0 and hi < step:
            return whole, rest
    return x, 0


def nonnegative(size: Size) -> bool:
    """Whether `size` is certainly >= 0 when every variable (a named size) is at least 1.

    Sound, not complete.

    >>> nonnegative(var("N") * 2 - 2), nonnegative(var("N") - 2)
    (True, False)
    >>> nonnegative(var("N") - 2 * (var("N") // 2))
    True
    >>> nonnegative(var("N") // 2 - 2 * (var("N") // 4))
    True
    >>> nonnegative(3 - var("N") % 4)
    True
    """
    # With v = 1 + v', v' >= 0, a polynomial without negative coefficients is non-negative.
    return _nonnegative(substitute(size, {v: var(v) + 1 for v in variables(size)}))


def _nonnegative(size: Size) -> bool:
    """As `nonnegative`, for variables that are at least 0."""
    if isinstance(size, int):
        return size >= 0
    for m, c in size.terms:
        only = m[0] if len(m) == 1 else ""
        if c < 0 and isinstance(only, Term) and only.fn == "//" and isinstance(only.b, int):
            # b * (a // b) <= a for b > 0, and an integer above -1 is not negative
            rest = size - c * atom(only)
            return _nonnegative(rest * only.b + only.a * c + (only.b - 1))
        if c < 0 and isinstance(only, Term) and only.fn == "%":
            # a % b <= b - 1 for b > 0, and a % b <= a for a >= 0
            rest = size - c * atom(only)
            if _nonnegative(only.a) and _nonnegative(rest + c * only.a):
                return True
            most = remainders(only.a, only.b)[1] if isinstance(only.b, int) else only.b - 1
            return _nonnegative(rest + c * most)
    negative = [m for m, c in size.terms if not _term_nonnegative(m, c)]
    wanted = frozenset[str]().union(*(variables(atom(a)) for m in negative for a in m))
    for m, c in size.terms if negative else ():
        only = m[0] if len(m) == 1 else ""
        if c < 0 or not isinstance(only, Term) or only.fn != "//" or not isinstance(only.b, int):
            continue
        if wanted & variables(atom(only)):
            # b * (a // b) > a - b for b > 0: what may outweigh a negative term
            rest = size - c * atom(only)
            return _nonnegative(rest * only.b + (only.a - only.b + 1) * c + (only.b - 1))
    return not negative


def _term_nonnegative(m: Monomial, c: int) -> bool:
    return c >= 0 and all(isinstance(a, str) or _atom_nonnegative(a) for a in m)


def _atom_nonnegative(a: Atom) -> bool:
    if isinstance(a, Element):
        return _nonnegative(a.lo)
    if isinstance(a, Term) and a.fn == "%":
        return True
    if isinstance(a, Term) and a.fn == "max":
        return _nonnegative(a.a) or _nonnegative(a.b)
    return isinstance(a, Term) and _nonnegative(a.a) and _nonnegative(a.b)
