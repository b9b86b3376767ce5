"""How often something in loops happens: sums over all rounds, loop by loop where they allow it.

    for e in 0..8 { for r in max(1 - e, 0)..min(9 - e, 3) { for c in 0..64 { … } } }
    summed([Around("e", 0, 8), Around("r", …), Around("c", 0, 64)])  ==  22 * 64

Loops that neither bounds nor factors nor conditions connect are independent: the sum over all of
them is a product of sums over groups, and only the rounds of a group are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nncc.diagnostics import PassError
from nncc.ir.expr import Apply, Const, Expr, Value, walk
from nncc.ir.index import Size, evaluate, variables
from nncc.ir.scalar import FUNCTIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Points = dict[str, NDArray[np.int64]]

MOST_ROUNDS = 1 << 24  # of connected loops


@dataclass(frozen=True)
class Around:
    """A loop around something: `variable` in lo..hi, hi excluded."""

    variable: str
    lo: Size
    hi: Size
    step: int = 1


def summed(
    loops: Sequence[Around], factors: Sequence[Size] = (), conditions: Sequence[Expr] = ()
) -> int:
    """The sum, over all rounds in which the conditions hold, of the product of the factors.

    Args:
        loops: outermost first; their bounds use variables of earlier ones.

    Raises PassError where data decide, or if too many rounds depend on each other.
    """
    total = 1
    for group in _groups(loops, factors, conditions):
        own = [loop for loop in loops if loop.variable in group]
        points = rounds_of(own)
        count = _ones(points)
        for f in factors:
            if variables(f) <= group and not isinstance(f, int):
                count = count * evaluate(f, points)  # type: ignore[arg-type]
        for c in conditions:
            if (used := _variables(c)) and used <= group:
                count = count * _value(c, points)
        total *= int(count.sum())
    for f in factors:
        total *= f if isinstance(f, int) else 1
    return total if all(_value(c, {}) for c in conditions if not _variables(c)) else 0


def rounds_of(loops: Sequence[Around]) -> Points:
    """The values of the variables in every round, in order."""
    import numpy as np

    points: Points = {}
    size = 1
    for loop in loops:
        lo, hi = (
            np.broadcast_to(np.asarray(evaluate(x, points), np.int64), (size,))  # type: ignore[arg-type]
            for x in (loop.lo, loop.hi)
        )
        count = np.maximum(-(-(hi - lo) // loop.step), 0)
        size = int(count.sum())
        if size > MOST_ROUNDS:
            raise PassError(f"more than {MOST_ROUNDS} rounds of loops depend on each other")
        points = {name: np.repeat(values, count) for name, values in points.items()}
        before = np.repeat(np.cumsum(count) - count, count)
        points[loop.variable] = np.repeat(lo, count) + (np.arange(size) - before) * loop.step
    return points


def _ones(points: Points) -> Any:
    import numpy as np

    size = next((len(values) for values in points.values()), 1)
    return np.ones(size, np.int64)


def _groups(
    loops: Sequence[Around], factors: Iterable[Size], conditions: Iterable[Expr]
) -> list[frozenset[str]]:
    """The variables, in groups that something connects."""
    known = {loop.variable for loop in loops}
    connected = [{x.variable, *variables(x.lo), *variables(x.hi)} for x in loops]
    connected += [set(variables(f)) for f in factors] + [set(_variables(c)) for c in conditions]
    groups: list[frozenset[str]] = []
    for names in connected:
        if not names:
            continue
        if not names <= known:
            raise PassError(f"the loops do not say what {', '.join(sorted(names - known))} is")
        touching = [g for g in groups if not g.isdisjoint(names)]
        groups = [*(g for g in groups if g not in touching), frozenset(names).union(*touching)]
    return groups


def _variables(e: Expr) -> frozenset[str]:
    return frozenset[str]().union(*(variables(x.size) for x in walk(e) if isinstance(x, Value)))


def _value(e: Expr, points: Points) -> Any:
    if isinstance(e, Const):
        return e.value
    if isinstance(e, Value):
        return evaluate(e.size, points)  # type: ignore[arg-type]
    if not isinstance(e, Apply):
        raise PassError("how often this happens depends on data")
    import numpy as np

    return FUNCTIONS[e.fn].numpy(np, *(np.asarray(_value(a, points)) for a in e.args))
