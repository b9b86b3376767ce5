"""What is known of every dimension at a place in the schedule tree.

While the tree is walked from the root, each dimension shrinks: at first it ranges over its
whole extent, below `for m by 32` over a piece of 32 that begins at `32*m_t`, below a further
`for m` it is one point. Loop variables count pieces from 0, so that bases are `step*variable`
and the divisions of blocked layouts cancel in `nncc.ir.bounds`.

Copies of an unrolled body ask the same questions again: of a subscript only the pieces of its own
dimensions matter. So places that differ in pieces and lanes only share their `Answers`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from nncc.ir.bounds import Range, bounds, nonnegative, simplify
from nncc.ir.index import Size, substitute, var, variables

LANE = "lane"  # the variable that runs over the lanes of a vector


LogicalRange = tuple[tuple[Size, ...], tuple[Size, ...]]
Key = tuple[Hashable, ...]
Offset = tuple[int, ...]


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


@dataclass(frozen=True, slots=True)
class Address:
    """Where an access goes at a place.

    Args:
        indices: physical subscripts, of the first lane if lanes differ.
        lanes: 1 if all lanes share the element.
        count: how many lanes are inside the buffer; None: all.
    """

    indices: tuple[Size, ...]
    lanes: int
    count: Size | None


@dataclass(frozen=True, slots=True)
class Held:
    """What a register of a local tensor holds: element `offset + lane*steps` in each lane.

    Offsets count from the start of the tensor's piece. Of `lanes`, the first `active` are used;
    without steps all lanes share one element.
    """

    offset: Offset
    steps: Offset
    lanes: int
    active: int

    @property
    def elements(self) -> Iterator[Offset]:
        for lane in range(self.active):
            yield tuple(o + lane * s for o, s in zip(self.offset, self.steps, strict=True))


@dataclass(frozen=True, slots=True)
class Answers:
    """What has been found out at places that differ in pieces and lanes only."""

    sizes: dict[Key, Size] = field(default_factory=dict)
    decisions: dict[Key, bool | None] = field(default_factory=dict)
    addresses: dict[Key, Address] = field(default_factory=dict)
    held: dict[Key, Held] = field(default_factory=dict)
    known: dict[int, Mapping[str, Range]] = field(default_factory=dict)


@lru_cache(maxsize=1 << 14)
def names_of(*sizes: Size) -> tuple[str, ...]:
    """The variables in any of `sizes`, in order of their names."""
    return tuple(sorted(frozenset[str]().union(*map(variables, sizes))))


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
        answers: of all places with the same ranges, facts and origins.
    """

    pieces: Mapping[str, Piece]
    ranges: Mapping[str, Range] = field(default_factory=dict)
    facts: frozenset[Size] = frozenset()
    vector: Lanes | None = None
    scalar: bool = False
    origins: Mapping[str, LogicalRange] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers, repr=False, compare=False)

    def at(self, dim: str, piece: Piece) -> Place:
        pieces = {**self.pieces, dim: piece}
        return Place(  # as `replace` does, in half the time
            pieces, self.ranges, self.facts, self.vector, self.scalar, self.origins, self.answers
        )

    def in_lanes(self, vector: Lanes | None) -> Place:
        """With this vectorized dimension, or none."""
        if vector == self.vector:
            return self
        return Place(
            self.pieces, self.ranges, self.facts, vector, self.scalar, self.origins, self.answers
        )

    def lane_by_lane(self) -> Place:
        """Where vector bands are written lane by lane."""
        return replace(self, scalar=True)

    def within(self, variable: str, lo: Size, hi: Size) -> Place:
        """Inside a loop whose variable is in lo..hi (hi excluded)."""
        return replace(self, ranges={**self.ranges, variable: (lo, hi - 1)}, answers=Answers())

    def knowing(self, *facts: Size) -> Place:
        known = self.facts | {f for f in facts if not isinstance(f, int)}
        return replace(self, facts=known, answers=Answers())

    def holding(self, origins: Mapping[str, LogicalRange]) -> Place:
        """Where pieces of further local tensors are alive."""
        return replace(self, origins={**self.origins, **origins}, answers=Answers())

    def key(self, names: tuple[str, ...]) -> Key:
        """Where the dimensions among `names` begin: two places of the same key and the same
        `answers` give a size over these variables the same value."""
        pieces, vector = self.pieces, self.vector
        bases = [pieces[n].base if n in pieces else None for n in names]
        if vector is not None and vector.dim in names:
            return (vector.dim, vector.lanes, *bases)
        return tuple(bases)

    def size(self, size: Size) -> Size:
        """`size` with every dimension at the base of its piece, lanes as the variable LANE."""
        if isinstance(size, int):
            return size
        key = (size, self.key(names_of(size)))
        found = self.answers.sizes.get(key)
        if found is None:
            found = self.answers.sizes[key] = self._size(size)
        return found

    def _size(self, size: Size) -> Size:
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
        names = names_of(condition)
        extents = tuple(self.pieces[n].extent if n in self.pieces else None for n in names)
        key = (condition, self.key(names), extents)
        decisions = self.answers.decisions
        if key not in decisions:
            decisions[key] = self._decide(condition)
        return decisions[key]

    def _decide(self, condition: Size) -> bool | None:
        if self.facts and self.size(condition) in self.facts and not self.open_dims(condition):
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

    @property
    def _known(self) -> Mapping[str, Range]:
        lanes = self.vector.lanes if self.vector else 0
        if lanes not in self.answers.known:
            of_lanes = {LANE: (0, lanes - 1)} if lanes else {}
            self.answers.known[lanes] = {**self.ranges, **of_lanes}
        return self.answers.known[lanes]
