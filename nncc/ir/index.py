"""Integer expressions over named sizes and loop variables.

Extents, strides, offsets, loop bounds and subscripts are all `Size`: a Python int, or an
`Index`, a polynomial with integer coefficients in canonical form, so that equal expressions
compare equal. An `Index` is never constant: arithmetic that ends in a constant gives an int.

    >>> n, c = var("n"), var("c")
    >>> 2 * (n + 1) - n
    n + 2
    >>> (16 * n + c) // 16          # whole multiples leave the division
    n + c // 16
    >>> n - n
    0

Atoms of a polynomial are variables (str), floor divisions, remainders, minima and maxima,
and elements of integer tensors (`Element`). What follows when variables lie in ranges stands
in `nncc.ir.bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Union

Size = Union[int, "Index"]


@dataclass(frozen=True, slots=True)
class Term:
    """A composite atom: `fn` is `//`, `%`, `min` or `max`, applied to two sizes."""

    fn: str
    a: Size
    b: Size

    def __str__(self) -> str:
        if self.fn in ("min", "max"):
            return f"{self.fn}({self.a}, {self.b})"
        return f"{_factor(self.a)} {self.fn} {_factor(self.b)}"


@dataclass(frozen=True, slots=True)
class Element:
    """An element of an integer tensor used as a subscript or bound: `(idx[i,j] in lo..hi)`.

    Its value lies in `lo..hi` (hi excluded), a bound that the author declares.
    """

    tensor: str
    indices: tuple[Size, ...]
    lo: Size
    hi: Size

    def __str__(self) -> str:
        indices = ",".join(str(i) for i in self.indices)
        return f"({self.tensor}[{indices}] in {self.lo}..{self.hi})"


Atom = str | Term | Element
Monomial = tuple[Atom, ...]


def _factor(size: Size) -> str:
    """Text of a size where a single factor is needed."""
    single = None if isinstance(size, int) else _single(size)
    infix = isinstance(single, Term) and single.fn in ("//", "%")
    simple = isinstance(size, int) or (single is not None and not infix)
    return str(size) if simple else f"({size})"


def _key(monomial: Monomial) -> tuple[int, tuple[tuple[bool, str], ...]]:
    """Terms are ordered by falling degree, variables before composite atoms, then by name."""
    if len(monomial) == 1 and type(monomial[0]) is str:
        return (-1, ((False, monomial[0]),))
    return (-len(monomial), tuple((not isinstance(a, str), str(a)) for a in monomial))


def _term_key(term: tuple[Monomial, int]) -> tuple[int, tuple[tuple[bool, str], ...]]:
    return _key(term[0])


class Index:
    """A polynomial that is not constant. Build it with `var` and arithmetic."""

    __slots__ = ("_hash", "_variables", "is_plain", "terms")
    terms: tuple[tuple[Monomial, int], ...]
    is_plain: bool  # no composite atoms: a polynomial of variables

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self._variables: frozenset[str] | None = None
        self.is_plain = all(type(a) is str for m, _ in terms for a in m)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Index) and self._hash == other._hash and self.terms == other.terms
        )

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            bare = len(monomial) == 1 and coefficient == 1
            factors = [
                f"({a})" if isinstance(a, Term) and a.fn in ("//", "%") and not bare else str(a)
                for a in monomial
            ]
            if abs(coefficient) != 1 or not monomial:
                factors.insert(0, str(abs(coefficient)))
            sign = "-" if coefficient < 0 else "+"
            text += f" {sign} " if text else sign.replace("+", "")
            text += "*".join(factors)
        return text

    # -- arithmetic ------------------------------------------------------------------------
    def __add__(self, other: Size) -> Size:
        return weighted_sum(((self, 1), (other, 1)))

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        return weighted_sum(((self, 1), (other, -1)))

    def __rsub__(self, other: Size) -> Size:
        return weighted_sum(((other, 1), (self, -1)))

    def __neg__(self) -> Size:
        return weighted_sum(((self, -1),))

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, int):
            return self if other == 1 else weighted_sum(((self, other),))
        terms: dict[Monomial, int] = {}
        for ma, ca in self.terms:
            for mb, cb in other.terms:
                m = tuple(sorted(ma + mb, key=str))
                terms[m] = terms.get(m, 0) + ca * cb
        return polynomial(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return modulo(self, other)

    def __rmod__(self, other: Size) -> Size:
        return modulo(other, self)

    # -- questions -------------------------------------------------------------------------
    @property
    def constant(self) -> int:
        """The constant term."""
        return self.terms[-1][1] if not self.terms[-1][0] else 0

    def coefficient(self, name: str) -> int:
        """The integer factor of variable `name` as a term of its own (0 if there is none)."""
        return next((c for m, c in self.terms if m == (name,)), 0)


def polynomial(terms: Mapping[Monomial, int]) -> Size:
    """The sum of coefficient * monomial; an int if nothing else is left."""
    kept = [(m, c) for m, c in terms.items() if c]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    if len(kept) > 1:
        kept.sort(key=_term_key)
    return Index(tuple(kept))


def weighted_sum(summands: Iterable[tuple[Size, int]]) -> Size:
    """The sum of size * factor over pairs (size, factor)."""
    terms: dict[Monomial, int] = {}
    for size, factor in summands:
        if isinstance(size, int):
            terms[()] = terms.get((), 0) + size * factor
        else:
            for m, c in size.terms:
                terms[m] = terms.get(m, 0) + c * factor
    return polynomial(terms)


def var(name: str) -> Index:
    """The variable or named size `name`."""
    return Index((((name,), 1),))


def atom(a: Atom) -> Index:
    """An atom as an expression."""
    return Index((((a,), 1),))


def product(sizes: Iterable[Size]) -> Size:
    """The product of `sizes`; 1 if there are none."""
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


def _split(a: Index, d: int) -> tuple[Size, Size]:
    """a == d*q + r where q takes every term that d divides and r's constant is in 0..d."""
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for m, c in a.terms:
        if m and c % d:
            rest[m] = c
        else:
            quotient[m] = c // d
            if c % d:
                rest[m] = c % d
    return polynomial(quotient), polynomial(rest)


def floordiv(a: Size, b: Size) -> Size:
    """a // b, rounded towards minus infinity. Raises ZeroDivisionError if b is 0."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if a == 0 or a == b:
        return 0 if a == 0 else 1
    if isinstance(b, int):
        if b < 0:
            return floordiv(-a, -b)
        if b == 0:
            raise ZeroDivisionError(f"{a} // 0")
        assert isinstance(a, Index)
        quotient, rest = _split(a, b)
        if isinstance(rest, int):
            return quotient + rest // b
        inner = _single(rest)
        if isinstance(inner, Term) and inner.fn == "//" and isinstance(inner.b, int):
            return quotient + floordiv(inner.a, inner.b * b)  # (x // p) // q == x // (p*q)
        return quotient + atom(Term("//", rest, b))
    return atom(Term("//", a, b))


def modulo(a: Size, b: Size) -> Size:
    """a % b with the sign of b. Raises ZeroDivisionError if b is 0."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if b == 1 or a == 0 or a == b:
        return 0
    if isinstance(b, int):
        if b <= 0:
            raise ZeroDivisionError(f"{a} % {b}: the divisor of an index must be positive")
        assert isinstance(a, Index)
        _, rest = _split(a, b)
        if isinstance(rest, int):
            return rest % b
        return atom(Term("%", rest, b))
    return atom(Term("%", a, b))


def _single(size: Size) -> Atom | None:
    """The atom of an expression that is just that atom."""
    if isinstance(size, Index) and len(size.terms) == 1:
        monomial, coefficient = size.terms[0]
        if coefficient == 1 and len(monomial) == 1:
            return monomial[0]
    return None


def ceildiv(a: Size, b: Size) -> Size:
    """a / b, rounded towards plus infinity."""
    return -((-a) // b)


def minimum(a: Size, b: Size) -> Size:
    """The smaller one, decided now if their difference is constant."""
    return _extremum("min", a, b)


def maximum(a: Size, b: Size) -> Size:
    """The larger one, decided now if their difference is constant."""
    return _extremum("max", a, b)


def _extremum(fn: str, a: Size, b: Size) -> Size:
    difference = a - b
    if isinstance(difference, int):
        return a if (difference <= 0) == (fn == "min") else b
    first, second = sorted((a, b), key=str)
    return atom(Term(fn, first, second))


def variables(size: Size) -> frozenset[str]:
    """Every variable in `size`, also inside divisions and subscripts."""
    if isinstance(size, int):
        return frozenset()
    if size._variables is None:
        size._variables = _find_variables(size)
    return size._variables


def _find_variables(size: Index) -> frozenset[str]:
    found: set[str] = set()
    for m, _ in size.terms:
        for a in m:
            if isinstance(a, str):
                found.add(a)
            elif isinstance(a, Term):
                found |= variables(a.a) | variables(a.b)
            else:
                found |= variables(a.lo) | variables(a.hi)
                for i in a.indices:
                    found |= variables(i)
    return frozenset(found)


def elements(size: Size) -> tuple[Element, ...]:
    """Every tensor element in `size`, also inside divisions and subscripts."""
    return tuple(a for a in _composites(size) if isinstance(a, Element))


def divisors(size: Size) -> tuple[Size, ...]:
    """Everything in `size` that something is divided by; remainders count."""
    return tuple(a.b for a in _composites(size) if isinstance(a, Term) and a.fn in ("//", "%"))


def _composites(size: Size) -> list[Term | Element]:
    """Every composite atom, also inside others."""
    if isinstance(size, int) or size.is_plain:
        return []
    found: list[Term | Element] = []
    for m, _ in size.terms:
        for a in m:
            if isinstance(a, str):
                continue
            found.append(a)
            for inner in (a.a, a.b) if isinstance(a, Term) else a.indices:
                found += _composites(inner)
    return found


def replace_elements(size: Size, rule: Callable[[Element], Atom]) -> Size:
    """`size` with every tensor element replaced by `rule` of it, those in its subscripts first."""
    if isinstance(size, int) or not elements(size):
        return size
    return weighted_sum((product(_replace_elements(a, rule) for a in m), c) for m, c in size.terms)


def _replace_elements(a: Atom, rule: Callable[[Element], Atom]) -> Size:
    if isinstance(a, str):
        return atom(a)
    if isinstance(a, Element):
        indices = tuple(replace_elements(i, rule) for i in a.indices)
        lo, hi = replace_elements(a.lo, rule), replace_elements(a.hi, rule)
        return atom(rule(Element(a.tensor, indices, lo, hi)))
    return COMBINE[a.fn](replace_elements(a.a, rule), replace_elements(a.b, rule))


def substitute(size: Size, values: Mapping[str, Size]) -> Size:
    """`size` with variables replaced; the result is simplified."""
    if isinstance(size, int) or values.keys().isdisjoint(variables(size)):
        return size
    return weighted_sum((_substitute_monomial(m, values), c) for m, c in size.terms)


def _substitute_monomial(m: Monomial, values: Mapping[str, Size]) -> Size:
    if len(m) == 1:
        return _substitute_atom(m[0], values)
    return product(_substitute_atom(a, values) for a in m)


def _substitute_atom(a: Atom, values: Mapping[str, Size]) -> Size:
    if isinstance(a, str):
        return values.get(a, atom(a))
    if isinstance(a, Element):
        indices = tuple(substitute(i, values) for i in a.indices)
        lo, hi = substitute(a.lo, values), substitute(a.hi, values)
        return atom(Element(a.tensor, indices, lo, hi))
    return COMBINE[a.fn](substitute(a.a, values), substitute(a.b, values))


COMBINE = {"//": floordiv, "%": modulo, "min": minimum, "max": maximum}


def evaluate(size: Size, values: Mapping[str, int], tensors: Mapping[str, object] = {}) -> int:
    """The value of `size` under `values`.

    Values may also be numpy integer arrays: the result is then their broadcast. `tensors`
    holds the arrays that `Element` atoms read. Raises KeyError for an unknown name.
    """
    if isinstance(size, int):
        return size
    total = 0
    for m, c in size.terms:
        term: int = c
        for a in m:
            term = term * _evaluate_atom(a, values, tensors)
        total = total + term
    return total


def _evaluate_atom(a: Atom, values: Mapping[str, int], tensors: Mapping[str, object]) -> int:
    if isinstance(a, str):
        return values[a]
    if isinstance(a, Element):
        where = tuple(evaluate(i, values, tensors) for i in a.indices)
        return tensors[a.tensor][where]  # type: ignore[index, no-any-return]
    x, y = evaluate(a.a, values, tensors), evaluate(a.b, values, tensors)
    if a.fn == "//":
        return x // y
    if a.fn == "%":
        return x % y
    if isinstance(x, int) and isinstance(y, int):
        return min(x, y) if a.fn == "min" else max(x, y)
    import numpy as np

    return (np.minimum if a.fn == "min" else np.maximum)(x, y)


def affine(size: Size, names: Iterable[str]) -> tuple[dict[str, int], Size] | None:
    """`size` as sum of integer factors times `names`, plus a rest free of them; else None.

    >>> affine(2 * var("e") + var("r") + var("N"), ["e", "r"])
    ({'e': 2, 'r': 1}, N)
    """
    names = frozenset(names)
    factors: dict[str, int] = {}
    rest: dict[Monomial, int] = {}
    if isinstance(size, int):
        return {}, size
    for m, c in size.terms:
        if len(m) == 1 and isinstance(m[0], str) and m[0] in names:
            factors[m[0]] = c
        elif any(variables(atom(a)) & names for a in m):
            return None
        else:
            rest[m] = c
    return factors, polynomial(rest)
