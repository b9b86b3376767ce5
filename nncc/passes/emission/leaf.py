"""The code of one statement at a place where all its dimensions are fixed, or lanes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from nncc.ir.expr import Apply, Const, Expr, Load, Name, apply, transform
from nncc.ir.index import Size
from nncc.ir.loops import Assign, Declare, If, Let, Store
from nncc.ir.nests import (
    ASSIGN,
    BUILTIN_COMBINES,
    Access,
    Leaf,
    Nest,
    Statement,
    builtin_identity,
)
from nncc.machines.machine import Operation
from nncc.passes.emission.addresses import Addresses, NotVectorizable
from nncc.passes.emission.guards import is_identity
from nncc.passes.emission.operation_leaf import OperationWriter
from nncc.passes.emission.pieces import Place
from nncc.passes.emission.scope import Scope
from nncc.passes.emission.values import Values, conjunction, spread

REDUCE_LANES = {"sum": "reduce_add", "max": "reduce_max", "min": "reduce_min"}


class LeafWriter:
    """Writes the instances of a nest's statements.

    A leaf with a machine operation becomes that operation (see `OperationWriter`).
    """

    def __init__(
        self, nest: Nest, operations: Mapping[str, Operation], addresses: Addresses
    ) -> None:
        self.nest = nest
        self.addresses = addresses
        self.values = Values(nest, addresses)
        self.operation = OperationWriter(nest, operations, self.values)
        self.lanes: Name | None = None  # the register that whole vectors are folded into

    def write(self, s: Statement, leaf: Leaf, place: Place, scope: Scope) -> None:
        """Adds the code of one instance (or one vector of instances) of `s` to `scope`."""
        self.values.enter(s.name, dict(leaf.prefetch))
        undecided: list[Size] = []
        for c in s.where:
            holds = place.decide(c)
            if holds is False:
                return
            if holds is None:
                undecided.append(place.size(c))
        test = conjunction(undecided)
        if test is None:
            self._write(s, leaf, place, scope)
            return
        inner = scope.inner()
        self._write(s, leaf, place, inner)
        scope.add(If(test, tuple(inner.statements)))

    @contextmanager
    def folding(
        self, s: Statement, lanes: int, place: Place, scope: Scope
    ) -> Generator[None, None, None]:
        """While vectors of reduction `s` are written: each lane folds for itself, until the end.

        t_lanes = 0   for … { t_lanes = t_lanes + x }   t = t + reduce_add(t_lanes)
        """
        (target,), dtype = s.targets, s.values[0].dtype
        identity = Const(builtin_identity(s.combine, dtype), dtype, lanes)
        self.lanes = Name(self.addresses.names.fresh(f"{target.tensor}_lanes"), dtype, lanes)
        scope.add(Declare(self.lanes.name, identity))
        try:
            yield
            folded = Apply(REDUCE_LANES[s.combine], (self.lanes,), dtype, 1)
        finally:
            self.lanes = None
        new = apply(BUILTIN_COMBINES[s.combine], self._get(target, place), folded)
        self._put(target, new, place, scope)

    def _write(self, s: Statement, leaf: Leaf, place: Place, scope: Scope) -> None:
        if leaf.operation:
            self.operation.write(s, leaf, place, scope)
            return
        values = [self.values.write(v, place, scope) for v in s.values]
        if len(values) == 1:
            self._update(s.targets[0], s.combine, values[0], place, scope)
            return
        self._tuple_update(s, values, place, scope)

    def _update(
        self, target: Access, combine: str, value: Expr, place: Place, scope: Scope
    ) -> None:
        if combine == ASSIGN:
            self._put(target, value, place, scope)
            return
        if is_identity(combine, value):
            return
        old = self._get(target, place)
        if value.lanes > 1 and old.lanes == 1:
            assert place.vector is not None
            if combine not in REDUCE_LANES or place.vector.active != place.vector.lanes:
                raise NotVectorizable
            if self.lanes is not None:
                new = apply(BUILTIN_COMBINES[combine], self.lanes, value)
                scope.add(Assign(self.lanes.name, new))
                return
            value = Apply(REDUCE_LANES[combine], (value,), value.dtype, 1)
        elif value.lanes == 1 and place.vector and old.lanes == 1:
            raise NotVectorizable  # each lane would fold the same value
        new = apply(BUILTIN_COMBINES[combine], old, spread(value, old.lanes))
        self._put(target, new, place, scope)

    def _tuple_update(self, s: Statement, values: list[Expr], place: Place, scope: Scope) -> None:
        """A combine over tuples: all components are computed before any is written."""
        if place.vector:
            raise NotVectorizable
        if s.combine == ASSIGN:
            results = values
        else:
            combine = next(c for c in self.nest.combines if c.name == s.combine)
            names: dict[str, Expr] = {}
            for k, (t, v) in enumerate(zip(s.targets, values, strict=True)):
                names[f"a{k}"], names[f"b{k}"] = self._get(t, place), v
            results = [_bind(v, names) for v in combine.values]
        kept: list[Expr] = []
        for v in results:
            name = self.addresses.names.fresh("new")
            scope.add(Let(name, v))
            kept.append(Name(name, v.dtype, v.lanes))
        for t, v in zip(s.targets, kept, strict=True):
            self._put(t, v, place, scope)

    def _get(self, target: Access, place: Place) -> Expr:
        if target.tensor in self.addresses.registers:
            return self.addresses.register(target.tensor, target.indices, place)
        address = self.addresses.address(target.tensor, target.indices, place)
        dtype = self.nest.param(target.tensor).type.dtype
        return Load(target.tensor, address.indices, dtype, None, address.lanes, address.count)

    def _put(self, target: Access, value: Expr, place: Place, scope: Scope) -> None:
        if target.tensor in self.addresses.registers:
            register = self.addresses.register(target.tensor, target.indices, place)
            if value.lanes > register.lanes:
                raise NotVectorizable
            scope.add(Assign(register.name, spread(value, register.lanes)))
            return
        address = self.addresses.address(target.tensor, target.indices, place)
        if value.lanes > address.lanes:
            raise NotVectorizable
        value = spread(value, address.lanes)
        scope.add(Store(target.tensor, address.indices, value, address.count))


def _bind(e: Expr, names: Mapping[str, Expr]) -> Expr:
    return transform(e, lambda x: names[x.name] if isinstance(x, Name) else x)
