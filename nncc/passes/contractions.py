"""Nests that a register tile computes: which machine operation, which dim in lanes, what is reused.

    t[n,m,e,f] sum= x[n,c,e+r,f+s] * w[m,c,r,s]
    →
    Contraction(operation=fma16, dims=(("m", "m"),), vector="m", lanes=16)
      .column == "f"      .weights == (w[m,c,r,s],)      .channel == "c"

`layout` asks before layouts are chosen, and chooses them for the best of the ways to compute the
nest; `tensorize` takes the first way that the layouts allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

from nncc.ir.expr import Apply, Load, loads
from nncc.ir.index import Element, affine, variables
from nncc.ir.nests import ASSIGN, Access, Dim, Nest, Statement
from nncc.machines.machine import Machine, Operation
from nncc.passes.emission.operation import match

LANE_BYTES = 4  # of the f32 and i32 elements whose number fills a vector


@dataclass(frozen=True)
class Contraction:
    """A nest whose main statement is a machine operation, or reuses operands as one would.

    Args:
        operation: None if the statement is computed with plain vector functions.
        statement: the reduction; the others prepare or finish what it folds into.
        operands: what it loads, in the order of the operation's inputs.
        dims: pairs (dimension of the operation, dimension of the statement).
        vector: the output dimension that runs over lanes; `lanes`: of the accumulator.
    """

    nest: Nest
    operation: Operation | None
    statement: Statement
    operands: tuple[Load, ...]
    dims: tuple[tuple[str, str], ...]
    vector: str
    lanes: int

    def dim(self, name: str) -> Dim:
        return next(d for d in self.statement.dims if d.name == name)

    @property
    def before(self) -> tuple[Statement, ...]:
        return self.nest.statements[: self.nest.statements.index(self.statement)]

    @property
    def after(self) -> tuple[Statement, ...]:
        return self.nest.statements[self.nest.statements.index(self.statement) + 1 :]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The dimensions that are not reduced."""
        reduced = self.statement.reduction_dims
        return tuple(d.name for d in self.statement.dims if d.name not in reduced)

    @property
    def outer(self) -> tuple[str, ...]:
        """Output dimensions other than the vector and the column."""
        return tuple(d for d in self.outputs if d not in (self.vector, self.column))

    @property
    def group(self) -> tuple[str, int] | None:
        """The reduction dimension inside the operation and its size, if there is one."""
        reduced = self.statement.reduction_dims
        for theirs, ours in self.dims:
            if self.operation and ours in reduced:
                semantic = self.operation.semantics.statements[-1]
                return ours, next(int(str(d.extent)) for d in semantic.dims if d.name == theirs)
        return None

    @cached_property
    def column(self) -> str | None:
        """The innermost output dimension along which an operand in lanes is reused."""
        in_lanes = [x for x in self.operands if uses(x, self.vector)]
        for name in reversed(self.outputs):
            moves = name != self.vector and any(uses(x, name) for x in self.operands)
            if moves and any(not uses(x, name) for x in in_lanes):
                return name
        return None

    @property
    def weights(self) -> tuple[Load, ...]:
        """The operands that vary over the lanes and are used again in each column."""
        return tuple(
            x
            for x in self.operands
            if uses(x, self.vector) and not (self.column and uses(x, self.column))
        )

    @property
    def is_depthwise(self) -> bool:
        """Whether every operand varies over the lanes: one filter for each channel."""
        return all(uses(x, self.vector) for x in self.operands)

    @property
    def channel(self) -> str | None:
        """The reduction dimension inside the operation, else the first of channels."""
        if self.group:
            return self.group[0]
        return next((d for d in self.statement.reduction_dims if self.is_channel(d)), None)

    def is_channel(self, name: str) -> bool:
        """Whether every operand has a dimension as an axis, alone or behind whole groups of it.

        c in x[n, c, e + r] * w[m, c, r] and in x[n, 8*g + c, e + r] * w[4*g + m, c, r], not r.
        """
        extent = self.dim(name).extent
        for x in self.operands:
            index = axis_of(x, name, extent if isinstance(extent, int) else 0)
            if index is None or any(
                not uses(y, d) for d in variables(x.indices[index]) - {name} for y in self.operands
            ):
                return False
        return True


def uses(access: Load | Access, dim: str) -> bool:
    """Whether a subscript of an access has a dimension."""
    return any(dim in variables(i) for i in access.indices)


def axis_of(access: Load | Access | Element, dim: str, step: int) -> int | None:
    """The axis over which `dim` runs from a multiple of `step` on, if it is in no other one.

    With a step of 0 nothing may stand beside the dimension.
    """
    axes = [k for k, i in enumerate(access.indices) if dim in variables(i)]
    if len(axes) != 1:
        return None
    form = affine(access.indices[axes[0]], variables(access.indices[axes[0]]))
    if form is None or form[0].pop(dim) != 1 or not isinstance(form[1], int):
        return None
    beside = [c for c in (*form[0].values(), form[1]) if c]
    return None if any(step == 0 or c % step for c in beside) else axes[0]


def contractions(nest: Nest, machine: Machine) -> Iterator[Contraction]:
    """Ways to compute the nest's reduction: by operations in the machine's order, then plainly."""
    statement = _reduction(nest)
    if statement is None:
        return
    reduced = statement.reduction_dims
    outputs = [d.name for d in statement.dims if d.name not in reduced]
    for operation in machine.operations.values():
        accumulator = operation.semantics.params[0].type
        semantic = operation.semantics.statements[-1]
        inner = semantic.reduction_dims
        outer = [d.name for d in semantic.dims if d.name not in inner]
        if len(outer) != 1:
            continue
        lanes = accumulator.static_shape[0]
        for vector in outputs:
            if axis_of(statement.targets[0], vector, lanes) is None:
                continue
            for chosen in permutations(reduced, len(inner)):
                dims = ((outer[0], vector), *zip(inner, chosen, strict=True))
                operands = match(operation, statement, dict(dims))
                if operands is not None:
                    yield Contraction(nest, operation, statement, operands, dims, vector, lanes)
    operands = loads(statement.values[0])
    for vector in outputs if len(operands) > 1 else ():
        lanes = max(1, machine.vector_bytes // LANE_BYTES)
        is_scalar = lanes <= 1
        while lanes > 1 and axis_of(statement.targets[0], vector, lanes) is None:
            lanes //= 2
        if lanes > 1 or is_scalar:
            yield Contraction(nest, None, statement, operands, (), vector, lanes)


def _reduction(nest: Nest) -> Statement | None:
    """The first reduction into a local, if all other statements run over its outputs."""
    for s in nest.statements:
        if s.combine == ASSIGN or len(s.targets) != 1:
            continue
        if nest.param(s.targets[0].tensor).role != "local":
            continue
        outputs = {d for d in s.dims if d.name not in s.reduction_dims}
        same = all(set(other.dims) == outputs for other in nest.statements if other is not s)
        items = all(isinstance(item, Statement) for item in nest.body)
        return s if same and items else None
    return None


def best_contraction(nest: Nest, machine: Machine, constants: frozenset[str]) -> Contraction | None:
    """The way to compute a sum of products of two tensors for which layouts are to be chosen.

    Lanes run over an axis of the weights: of two operands that could both be the weights, a
    constant one is, else the second. An axis of theirs alone is preferred to one of both operands
    (depthwise), and an inner one to an outer one.

    Args:
        constants: parameters that are symbols of the module.
    """

    def rank(c: Contraction) -> tuple[bool, int, bool, int]:
        weights = c.weights
        is_constant = any(x.tensor in constants for x in weights)
        position = max(loads(c.statement.values[0]).index(x) for x in weights)
        return not is_constant, -position, c.is_depthwise, -c.outputs.index(c.vector)

    found = [c for c in contractions(nest, machine) if _is_product(c)]
    best = min(found, key=rank, default=None)
    if best is None or any(x.tensor in constants for x in best.weights):
        return best
    # beside constant weights without an axis for lanes, an axis of the activation is no better
    return None if any(x.tensor in constants for x in best.operands) else best


def _is_product(c: Contraction) -> bool:
    """Whether `c` sums products of two tensors along axes that layouts can keep together."""
    value = c.statement.values[0]
    if c.statement.combine != "sum" or len(c.operands) != 2:
        return False
    if not isinstance(value, Apply) or value.fn != "mul":
        return False
    in_lanes = [x for x in c.operands if uses(x, c.vector)]
    if not c.weights or any(axis_of(x, c.vector, c.lanes) is None for x in in_lanes):
        return False
    if c.group is None:
        return True
    return c.is_channel(c.group[0]) and all(axis_of(x, *c.group) is not None for x in c.operands)
