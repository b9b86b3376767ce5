"""What is known of every dimension at a place in the schedule tree.

While the tree is walked from the root, each dimension shrinks: at first it ranges over its
whole extent, below `for m by 32` over a piece of 32 that begins at `32*m_t`, below a further
`for m` it is one point. Loop variables count pieces from 0, so that bases are `step*variable`
and the divisions of blocked layouts cancel in `nncc.ir.index`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from nncc.ir.index import (
    Range,
    Size,
    bounds,
    nonnegative,
    simplify,
    substitute,
    var,
    variables,
)

LANE = "lane"  # the variable that runs over the lanes of a vector


LogicalRange = tuple[tuple[Size, ...], tuple[Size, ...]]


@dataclass(frozen=True, slots=True)
class Piece:
    """`base <= dim < base + extent`."""

    base: Size
    extent: Size

    @property
    def is_point(self) -> bool:
        return self.extent == 1


@dataclass(frozen=True, slots=True)
class Lanes:
    """The dimension that runs over vector lanes, of which the first `active` count."""

    dim: str
    lanes: int
    active: int


@dataclass(frozen=True)
class Place:
    """A place in the schedule tree.

    Args:
        pieces: of every dimension of the nest.
        ranges: inclusive range of each loop variable in scope.
        facts: sizes that are known to be >= 0 here.
        vector: the vectorized dimension, if the place is inside a vector band.
        scalar: whether vector bands below are written lane by lane.
        origins: for each local tensor that is allocated around this place, the lowest and highest
            logical indices of the piece that is alive.
    """

    pieces: Mapping[str, Piece]
    ranges: Mapping[str, Range] = field(default_factory=dict)
    facts: frozenset[Size] = frozenset()
    vector: Lanes | None = None
    scalar: bool = False
    origins: Mapping[str, LogicalRange] = field(default_factory=dict)
    _decided: dict[Size, bool | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def at(self, dim: str, piece: Piece) -> Place:
        return replace(self, pieces={**self.pieces, dim: piece})

    def within(self, variable: str, lo: Size, hi: Size) -> Place:
        """Inside a loop whose variable is in lo..hi (hi excluded)."""
        return replace(self, ranges={**self.ranges, variable: (lo, hi - 1)})

    def knowing(self, *facts: Size) -> Place:
        return replace(self, facts=self.facts | {f for f in facts if not isinstance(f, int)})

    def size(self, size: Size) -> Size:
        """`size` with every dimension at the base of its piece, lanes as the variable LANE."""
        values: dict[str, Size] = {}
        for v in variables(size):
            if v in self.pieces:
                values[v] = self.pieces[v].base
                if self.vector and v == self.vector.dim:
                    values[v] = self.pieces[v].base + var(LANE)
        return simplify(substitute(size, values), self._known)

    def span(self, size: Size) -> Range:
        """Smallest and largest value of `size` over what the pieces leave open here.

        The loop variables in scope stay in the result.
        """
        values: dict[str, Size] = {}
        ranges: dict[str, Range] = {}
        for v in variables(size):
            if v in self.pieces:
                piece = self.pieces[v]
                values[v] = piece.base
                if not piece.is_point:
                    values[v] = piece.base + var(v)
                    ranges[v] = (0, piece.extent - 1)
        return bounds(substitute(size, values), ranges)

    def extremes(self, size: Size) -> Range:
        """Smallest and largest value of `size` over the pieces and all enclosing loops."""
        lo, hi = self.span(size)
        known = self._known
        while (variables(lo) | variables(hi)) & known.keys():
            lo, hi = bounds(lo, known)[0], bounds(hi, known)[1]
        return lo, hi

    def decide(self, condition: Size) -> bool | None:
        """Whether `condition >= 0` always (True), never (False) or sometimes holds here."""
        if condition not in self._decided:
            self._decided[condition] = self._decide(condition)
        return self._decided[condition]

    def _decide(self, condition: Size) -> bool | None:
        if self.facts and self.size(condition) in self.facts and self._is_fixed(condition):
            return True
        lo, hi = self.extremes(condition)
        if nonnegative(lo):
            return True
        if nonnegative(-hi - 1):
            return False
        return None

    def open_dims(self, size: Size) -> frozenset[str]:
        """Dimensions in `size` that are not yet fixed to a point."""
        return frozenset(
            v for v in variables(size) if v in self.pieces and not self.pieces[v].is_point
        )

    def _is_fixed(self, size: Size) -> bool:
        return not self.open_dims(size)

    @cached_property
    def _known(self) -> dict[str, Range]:
        known = dict(self.ranges)
        if self.vector:
            known[LANE] = (0, self.vector.lanes - 1)
        return known
