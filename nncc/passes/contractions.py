"""Sums of products in nests: which operand is the activation, which the weights, what each dim is.

t[n,m,e,f] sum= x[n,c,e+r,f+s] * w[m,c,r,s]
→
Contraction(activation=x[…], weights=w[…], lanes="m", channel="c", taps=("r", "s"))
"""

from __future__ import annotations

from dataclasses import dataclass

from nncc.ir.expr import Apply, Expr, Load, loads
from nncc.ir.index import variables
from nncc.ir.nests import Nest, Statement
from nncc.machines.machine import Machine
from nncc.passes.emission.operation import match
from nncc.passes.nest_parts import plain


@dataclass(frozen=True)
class Contraction:
    """A statement that sums products of elements of two tensors.

    Args:
        lanes: the output dim that indexes the weights, whose neighbours a vector holds.
        channel: the reduction dim that stands alone in subscripts of both operands.
        taps: the other reduction dims.
        depthwise: `lanes` indexes the activation too: there is one filter for each channel.
    """

    statement: Statement
    activation: Load
    weights: Load
    lanes: str
    channel: str | None
    taps: tuple[str, ...]
    depthwise: bool

    def extent(self, dim: str) -> object:
        return next(d.extent for d in self.statement.dims if d.name == dim)


def contraction(nest: Nest, constants: frozenset[str]) -> Contraction | None:
    """The first contraction of the nest, if there is one.

    Args:
        constants: parameters that are symbols of the module: of two operands that could both
            be the weights, a constant one is.
    """
    for s in nest.statements:
        if s.combine != "sum" or len(s.values) != 1:
            continue
        value = s.values[0]
        if not isinstance(value, Apply) or value.fn != "mul":
            continue
        operands = [_only_load(a) for a in value.args]
        if operands[0] is None or operands[1] is None:
            continue
        pairs = [(operands[0], operands[1]), (operands[1], operands[0])]
        pairs.sort(key=lambda pair: pair[1].tensor not in constants)
        for activation, weights in pairs:
            found = _roles(s, activation, weights)
            if found is not None:
                return found
    return None


def _only_load(e: Expr) -> Load | None:
    found = loads(e)
    return found[0] if len(found) == 1 else None


def _roles(s: Statement, activation: Load, weights: Load) -> Contraction | None:
    reduced = s.reduction_dims
    target = [n for i in s.targets[0].indices if (n := plain(i)) is not None]
    plain_in = {x: {plain(i) for i in x.indices} for x in (activation, weights)}
    used = {x: frozenset[str]().union(*(variables(i) for i in x.indices))
            for x in (activation, weights)}  # fmt: skip
    free = [d for d in target if d in plain_in[weights] and d not in used[activation]]
    shared = [d for d in target if d in plain_in[weights] and d in plain_in[activation]]
    channels = [d for d in reduced if d in plain_in[weights] and d in plain_in[activation]]
    channel = channels[0] if channels else None
    if free:
        lanes, depthwise = free[-1], False
    elif shared and all(d in shared or d in reduced for d in used[weights]):
        lanes, depthwise = shared[-1], True
    else:
        return None
    taps = tuple(d for d in reduced if d != channel)
    return Contraction(s, activation, weights, lanes, channel, taps, depthwise)


def operation_shape(found: Contraction, machine: Machine) -> tuple[int, int]:
    """(lanes, group) of the machine's first operation that the contraction is.

    `group` neighbours of the channel are summed inside the operation; 1 if it sums none.
    (0, 1) if the machine has no such operation.
    """
    for operation in machine.operations.values():
        semantic = operation.semantics.statements[-1]
        accumulator = operation.semantics.params[0].type
        inner = semantic.reduction_dims
        outer = [d.name for d in semantic.dims if d.name not in inner]
        if len(outer) != 1 or len(inner) > 1 or accumulator.rank != 1:
            continue
        if inner and found.channel is None:
            continue
        dims = {outer[0]: found.lanes}
        if inner and found.channel is not None:
            dims[inner[0]] = found.channel
        if match(operation, found.statement, dims) is not None:
            group = next((d.extent for d in semantic.dims if d.name in inner), 1)
            lanes = accumulator.static_shape[0]
            return lanes, group if isinstance(group, int) else 1
    return 0, 1
