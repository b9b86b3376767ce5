"""Leaves that a machine operation performs.

The operands that the operation's semantics name are loaded with the lanes that their types state:

    t[m] sum= x[c] * w[m,c]   with fma16(m: m)   →   t_0 = fma16(t_0, x_v, w_v)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nncc.diagnostics import PassError
from nncc.ir.expr import Apply, Expr, Load, Name, loads
from nncc.ir.index import Size, product
from nncc.ir.loops import Assign
from nncc.ir.nests import Leaf, Nest, Statement
from nncc.machines.machine import Operation
from nncc.passes.emission.guards import vanishes
from nncc.passes.emission.operation import match
from nncc.passes.emission.pieces import Address, Lanes, Place
from nncc.passes.emission.scope import Scope
from nncc.passes.emission.values import Values, spread


@dataclass(frozen=True, slots=True)
class _Operand:
    """An operand as it is loaded.

    Args:
        lanes: of its type.
        dim: the statement's dimension that runs over the lanes; "": all lanes are alike.
        block: whether the lanes also hold neighbours of another dimension; in memory they follow
            one another.
        skips: conditions without which the whole instance has no effect.
    """

    load: Load
    lanes: int
    dim: str
    block: bool
    skips: tuple[Size, ...]


class OperationWriter:
    """Writes the leaves with operations of a nest."""

    def __init__(self, nest: Nest, operations: Mapping[str, Operation], values: Values) -> None:
        self.nest = nest
        self.operations = operations
        self.values = values
        self._operands: dict[str, tuple[_Operand, ...]] = {}  # by statement; the target first

    def write(self, s: Statement, leaf: Leaf, place: Place, scope: Scope) -> None:
        """Adds one application of the operation to `scope`, unless it has no effect.

        Raises PassError if the machine's operation does not compute the statement.
        """
        if s.name not in self._operands:
            self._operands[s.name] = self._operands_of(s, leaf)
        operands = self._operands[s.name]
        if any(place.decide(c) is False for o in operands for c in o.skips):
            return
        accumulator, *args = (self._load(o, place, scope) for o in operands)
        if not isinstance(accumulator, Name):
            raise PassError(
                f"nest {self.nest.name}: the accumulator of '{leaf.operation}' is "
                f"'{s.targets[0].tensor}', which is not in registers",
                self.nest.location,
                help="put the leaf inside `local … in registers`",
            )
        dtype, lanes = accumulator.dtype, accumulator.lanes
        result = Apply(leaf.operation, (accumulator, *args), dtype, lanes)
        scope.add(Assign(accumulator.name, result))

    def _operands_of(self, s: Statement, leaf: Leaf) -> tuple[_Operand, ...]:
        operation = self.operations.get(leaf.operation)
        if operation is None:
            raise PassError(
                f"nest {self.nest.name}: the machine has no operation '{leaf.operation}'",
                self.nest.location,
            )
        found = match(operation, s, dict(leaf.dims))
        if found is None:
            raise PassError(
                f"nest {self.nest.name}: statement '{s.name}' is not what operation "
                f"'{leaf.operation}' computes",
                self.nest.location,
            )
        target = Load(s.targets[0].tensor, s.targets[0].indices, s.values[0].dtype)
        dims = dict(leaf.dims)
        operands: list[_Operand] = []
        for position, load in enumerate((target, *found)):
            shape = operation.semantics.params[position].type.static_shape
            varying = [dims[d] for d in _dims_of(operation, position)]
            skips = self.values.borders(load) if vanishes(s, load) else ()
            operands.append(
                _Operand(
                    load,
                    _number(product(shape)),
                    varying[0] if varying else "",
                    bool(varying) and product(shape) != shape[0],
                    skips,
                )
            )
        return tuple(operands)

    def _load(self, operand: _Operand, place: Place, scope: Scope) -> Expr:
        """An operand with the lanes of its type."""
        load, lanes = operand.load, operand.lanes
        if operand.block:  # from the bases of the pieces on
            scalar = place.in_lanes(None)
            first = self.values.addresses.address(load.tensor, load.indices, scalar)
            address = Address(first.indices, lanes, None)
            return self.values.load(load, address, scope)
        vector: Lanes | None = None
        if operand.dim:
            active = _number(place.pieces[operand.dim].extent)
            vector = Lanes(operand.dim, lanes, min(active, lanes))
        return spread(self.values.write(load, place.in_lanes(vector), scope), lanes)


def _dims_of(operation: Operation, position: int) -> tuple[str, ...]:
    """The operation's dimensions in the subscripts of one of its operands, in order."""
    statement = operation.semantics.statements[-1]
    name = operation.semantics.params[position].name
    if position == 0:
        indices = statement.targets[0].indices
    else:
        indices = next(x for x in loads(statement.values[0]) if x.tensor == name).indices
    return tuple(str(i) for i in indices)


def _number(size: Size) -> int:
    assert isinstance(size, int), "operands and pieces of operations have literal sizes"
    return size
