"""Scalar expressions of a nest as Loops code at a place.

Loads from inputs are named once a block and found again (`Scope.known`); a value that all lanes
share has one lane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nncc.ir.expr import Apply, Const, Expr, Load, Value, apply, broadcast, cast
from nncc.ir.index import Size, maximum, minimum, variables
from nncc.ir.loops import Prefetch
from nncc.ir.nests import Nest
from nncc.ir.types import i64
from nncc.passes.emission.addresses import Addresses, NotVectorizable
from nncc.passes.emission.guards import load_conditions
from nncc.passes.emission.pieces import LANE, Address, Place
from nncc.passes.emission.scope import Scope


class Values:
    """Writes the values of one statement after the other: see `enter`."""

    def __init__(self, nest: Nest, addresses: Addresses) -> None:
        self.nest = nest
        self.addresses = addresses
        self.statement = ""
        self.ahead: Mapping[str, int] = {}
        self._borders: dict[tuple[str, Load], tuple[Size, ...]] = {}

    def enter(self, statement: str, ahead: Mapping[str, int]) -> None:
        """What comes belongs to `statement`; loads of the tensors in `ahead` also prefetch."""
        self.statement = statement
        self.ahead = ahead

    def borders(self, load: Load) -> tuple[Size, ...]:
        """What must be checked before `load` may read."""
        if load.other is None:
            return ()
        key = (self.statement, load)
        if key not in self._borders:
            statement = next(s for s in self.nest.statements if s.name == self.statement)
            self._borders[key] = load_conditions(self.nest, statement, load)
        return self._borders[key]

    def write(self, e: Expr, place: Place, scope: Scope) -> Expr:
        """`e` at `place`, as Loops code; it has 1 lane where all lanes share it."""
        if isinstance(e, Const):
            return e
        if isinstance(e, Value):
            size = place.size(e.size)
            if LANE in variables(size):
                raise NotVectorizable
            return Const(size, e.dtype) if isinstance(size, int) else Value(size, e.dtype)
        if isinstance(e, Load):
            return self._load(e, place, scope)
        assert isinstance(e, Apply), "a verified nest has no other expressions"
        args = tuple(self.write(a, place, scope) for a in e.args)
        lanes = max(a.lanes for a in args)
        if e.fn == "cast":
            return cast(e.dtype, args[0])
        return apply(e.fn, *(spread(a, lanes) for a in args))

    def _load(self, e: Load, place: Place, scope: Scope) -> Expr:
        if e.tensor in self.addresses.registers:
            return self.addresses.register(e.tensor, e.indices, place)
        undecided: list[Size] = []
        if e.other is not None:
            for c in self.borders(e):
                holds = place.decide(c)
                if holds is False:
                    return self.write(e.other, place, scope)
                if holds is None:
                    undecided.append(place.size(c))
        test = conjunction(undecided)
        if test is None:
            address = self.addresses.address(e.tensor, e.indices, place)
            return self.load(e, address, scope)
        return self._bordered(e, test, place, scope)

    def _bordered(self, e: Load, test: Expr, place: Place, scope: Scope) -> Expr:
        """A load that may be outside: of the nearest element inside, if its lanes allow."""
        assert e.other is not None
        shape = self.nest.param(e.tensor).type.shape
        nearest = tuple(
            maximum(0, minimum(i, x - 1)) if place.decide(i) is None or place.decide(x - 1 - i)
            is None else i
            for i, x in zip(e.indices, shape, strict=True)
        )  # fmt: skip
        address = self.addresses.address(e.tensor, nearest, place)
        inside = self.load(e, address, scope)
        other = self.write(e.other, place, scope)
        lanes = max(inside.lanes, other.lanes)
        return apply("select", *(spread(x, lanes) for x in (test, inside, other)))

    def load(self, e: Load, address: Address, scope: Scope) -> Expr:
        """What `e` reads at `address`, under a name if nothing can change it."""
        load = Load(e.tensor, address.indices, e.dtype, None, address.lanes, address.count)
        if self.addresses.params[e.tensor].role != "in":
            return load  # it may be written between two reads
        if known := scope.known(load):
            return known
        if distance := self.ahead.get(e.tensor):
            *row, last = address.indices
            scope.add(Prefetch(e.tensor, (*row, last + distance * 8 // e.dtype.bits)))
        return scope.name(load, self.addresses.names.fresh(f"{e.tensor}_v"), load)


def conjunction(conditions: list[Size]) -> Expr | None:
    """Whether all of `conditions` are >= 0, as code; None if there are none.

    Raises NotVectorizable if lanes differ in it.
    """
    test: Expr | None = None
    for c in conditions:
        if LANE in variables(c):
            raise NotVectorizable
        one = apply("ge", Value(c, i64), Const(0, i64))
        test = one if test is None else apply("and", test, one)
    return test


def spread(e: Expr, lanes: int) -> Expr:
    """`e` in each of `lanes`."""
    if isinstance(e, Const):
        return replace(e, lanes=lanes)
    return broadcast(e, lanes)
