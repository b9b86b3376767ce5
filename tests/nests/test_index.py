"""Integer expressions: every rule of the simplifier and every proved bound, at random points.

An expression is drawn twice at once: as a `Size`, which simplifies itself, and as Python text,
which does not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.ir.bounds import bounds, nonnegative, simplify
from nncc.ir.index import (
    Element,
    Index,
    Size,
    affine,
    atom,
    ceildiv,
    elements,
    evaluate,
    floordiv,
    maximum,
    minimum,
    modulo,
    replace_elements,
    substitute,
    var,
    variables,
)

SIZES, DIMS = ("N", "M"), ("i", "j", "k")
TABLE = np.array([3, -2, 0, 5, 1, -4, 2])
Drawn = tuple[Size, str]

LEAVES = st.one_of(
    st.integers(-20, 20).map(lambda n: (n, f"({n})")),
    st.sampled_from(SIZES + DIMS + DIMS).map(lambda name: (var(name), name)),
)
DIVISORS = st.one_of(
    st.integers(1, 17).map(lambda n: (n, str(n))),
    st.sampled_from(SIZES).map(lambda name: (var(name), name)),
    st.sampled_from(DIMS).map(lambda name: (maximum(var(name), 1), f"max({name}, 1)")),
)


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> Drawn:
    """A random expression; divisors are positive: numbers, named sizes, maxima."""
    kind = draw(st.integers(0, 9)) if depth else 0
    if kind == 0:
        return draw(LEAVES)
    a, x = draw(expressions(depth - 1))
    if kind == 1:  # an element of a table, which lies in -4..6
        return atom(Element("t", (a % len(TABLE),), -4, 6)), f"int(t[({x}) % {len(TABLE)}])"
    b, y = draw(DIVISORS if kind >= 7 else expressions(depth - 1))
    return {
        2: lambda: (a + b, f"({x} + {y})"),
        3: lambda: (a - b, f"({x} - {y})"),
        4: lambda: (a * b, f"({x} * {y})"),
        5: lambda: (minimum(a, b), f"min({x}, {y})"),
        6: lambda: (maximum(a, b), f"max({x}, {y})"),
        7: lambda: (floordiv(a, b), f"({x} // {y})"),
        8: lambda: (modulo(a, b), f"({x} % {y})"),
        9: lambda: (ceildiv(a, b), f"(-(-{x} // {y}))"),
    }[kind]()


POINTS = st.fixed_dictionaries(
    {n: st.integers(1, 40) for n in SIZES} | {d: st.integers(-30, 30) for d in DIMS}
)


def exact(text: str, point: dict[str, int]) -> int:
    return eval(text, {"t": TABLE, **point})


def value(size: Size, point: dict[str, int]) -> int:
    return int(evaluate(size, point, {"t": TABLE}))


@settings(max_examples=500, deadline=None)
@given(expressions(), POINTS)
def test_simplifying_changes_no_value(drawn, point):
    size, text = drawn
    assert value(size, point) == exact(text, point)
    assert variables(size) <= point.keys()
    assert isinstance(size, int) or len(variables(size)) + len(elements(size)) > 0


@settings(max_examples=200, deadline=None)
@given(expressions(), st.lists(POINTS, min_size=2, max_size=5))
def test_many_points_at_once(drawn, points):
    size, text = drawn
    together = {n: np.array([p[n] for p in points]) for n in points[0]}
    found = np.broadcast_to(evaluate(size, together, {"t": TABLE}), len(points))
    assert found.tolist() == [exact(text, p) for p in points]


@settings(max_examples=300, deadline=None)
@given(expressions(2), st.dictionaries(st.sampled_from(DIMS), expressions(2)), POINTS)
def test_substitution(drawn, values, point):
    size, text = drawn
    moved = point | {n: exact(x, point) for n, (_, x) in values.items()}
    found = substitute(size, {n: s for n, (s, _) in values.items()})
    assert value(found, point) == exact(text, moved)


@st.composite
def inside(draw: st.DrawFn) -> tuple[dict[str, tuple[Size, Size]], dict[str, int]]:
    """Ranges of some dimensions, whose ends may be named sizes, and a point in them."""
    point = draw(POINTS)
    ranges: dict[str, tuple[Size, Size]] = {}
    for d in draw(st.lists(st.sampled_from(DIMS), unique=True)):
        lo, extra = draw(st.integers(-9, 9)), draw(st.integers(0, 20))
        symbolic = draw(st.sampled_from((*SIZES, "")))
        ranges[d] = (lo, lo + extra + (var(symbolic) if symbolic else 0))
        point[d] = draw(st.integers(lo, value(ranges[d][1], point)))
    return ranges, point


@settings(max_examples=500, deadline=None)
@given(expressions(), inside())
def test_ranges_prove_no_wrong_thing(drawn, place):
    (size, text), (ranges, point) = drawn, place
    expected = exact(text, point)
    lo, hi = bounds(size, ranges)
    assert value(lo, point) <= expected <= value(hi, point)
    assert not (variables(lo) | variables(hi)) & ranges.keys()
    assert not elements(lo) and not elements(hi)
    assert value(simplify(size, ranges), point) == expected


@settings(max_examples=500, deadline=None)
@given(expressions(), POINTS)
def test_what_is_proved_nonnegative_is(drawn, point):
    size, text = drawn
    positive = {n: abs(v) or 1 for n, v in point.items()}
    if nonnegative(size):
        assert exact(text, positive) >= 0


@settings(max_examples=500, deadline=None)
@given(expressions(), st.sets(st.sampled_from(DIMS)), POINTS)
def test_affine_forms(drawn, names, point):
    size, text = drawn
    parts = affine(size, names)
    if parts is None:
        assert not isinstance(size, int)
        assert variables(size) & names
        return
    factors, rest = parts
    assert factors.keys() <= names
    assert not variables(rest) & names
    assert sum(c * point[n] for n, c in factors.items()) + value(rest, point) == exact(text, point)


@settings(max_examples=300, deadline=None)
@given(expressions(), POINTS)
def test_every_element_is_found_and_replaced(drawn, point):
    size, text = drawn
    found = replace_elements(size, lambda e: replace(e, tensor="u"))
    assert {e.tensor for e in elements(found)} <= {"u"}
    assert int(evaluate(found, point, {"u": TABLE})) == exact(text, point)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=4, max_size=4), st.integers(1, 40), inside())
def test_digits_of_a_number(factors, divisor, place):
    ranges, point = place
    a, b, c, d = factors
    number = a * b * var("i") + a * var("j") + c * var("k") - d
    expected = value(number, point)
    assert value(simplify(number // divisor, ranges), point) == expected // divisor
    assert value(simplify(number % divisor, ranges), point) == expected % divisor


i, n = var("i"), var("N")


def test_equal_expressions_are_equal():
    same = [
        (2 * (n + 1) - n, n + 2),
        ((i + n) * (i - n), i * i - n * n),
        ((16 * n + i) // 16, n + i // 16),
        ((16 * n + i) % 16, i % 16),
        (i // 4 // 8, i // 32),
        ((i - 7) // 2, (i + 1) // 2 - 4),
        (i // -3, (-i) // 3),
        (minimum(i + 3, i), i),
        (maximum(n, i), maximum(i, n)),
        (ceildiv(n + 8, 8), 1 + ceildiv(n, 8)),
    ]
    for a, b in same:
        assert a == b, (a, b)
        assert hash(a) == hash(b)
    assert n - n == 0
    assert isinstance(n - n, int)
    assert isinstance(i * 0, int)


@pytest.mark.parametrize(
    "wrong", [lambda: i // 0, lambda: i % 0, lambda: i % -2, lambda: 1 % (n * 0)]
)
def test_wrong_divisors(wrong):
    with pytest.raises(ZeroDivisionError):
        wrong()


@pytest.mark.parametrize(
    ("size", "proved"),
    [
        (n - 1, True), (n - 2, False), (n * n - n, True), (i * n - 1, True), (n - i, False),
        (n - 2 * (n // 2), True), (n - 2 * (n // 2) - 1, False), ((n - 1) // 4, True),
        (maximum(i - n, 0), True), (minimum(n, i) - 1, False), (n % 7, True), (-(n % 7), False),
        (8 * ceildiv(n, 8) - n, True), (n - 8 * ceildiv(n, 8), False),
        (atom(Element("t", (0,), 0, n)), True), (atom(Element("t", (0,), -1, n)), False),
    ],
)  # fmt: skip
def test_proofs(size: Index, proved: bool):
    assert nonnegative(size) == proved


def test_bounds_are_exact_where_each_variable_occurs_once():
    ranges = {"i": (0, n - 1), "j": (-2, 3)}
    assert bounds(3 * i - 2 * var("j") + n, ranges) == (n - 6, 4 * n + 1)
    assert bounds(var("j") // 2, ranges) == (-1, 1)
    assert bounds(var("j") % 8, {"j": (9, 12)}) == (1, 4)
    assert bounds(var("j") % 8, ranges) == (0, 7)
    assert bounds(var("j") * var("k"), {"j": (-2, 3), "k": (-5, 4)}) == (-15, 12)
    assert simplify(minimum(i, n), ranges) == i
    assert simplify((16 * i + var("j") - 16) // 16, {"j": (16, 31)}) == i
