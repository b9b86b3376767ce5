"""Machine operations by their meaning: a function over arrays from an operation's nest.

    fma16 = operation_function(semantics)
    fma16(y, a, b)          # arrays of shape [instances, elements of the operand]

The nest has one reduction statement that folds into its first parameter, element by element:
`acc: for m in 0..16, k in 0..4 { y[m] sum= … }`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nncc.ir.expr import Expr, Load, transform
from nncc.ir.index import var
from nncc.ir.interpreter.boxes import Array, Box, evaluate_expression
from nncc.ir.nests import BUILTIN_COMBINES, Nest
from nncc.ir.scalar import FUNCTIONS

_INSTANCE = "operation instance"


def operation_function(semantics: Nest) -> Callable[..., Array]:
    """What an operation computes, for many instances at once.

    The function takes one array [instances or 1, elements] for each parameter, the accumulator
    first, and gives the new accumulator. Products are folded one after the other, starting with
    the accumulator's value.
    """
    statement = semantics.statements[-1]
    fold = FUNCTIONS[BUILTIN_COMBINES[statement.combine]].numpy
    value = transform(statement.values[0], _batched)
    reduced = set(statement.reduction_dims)
    ranges = {d.name: (int(d.lo), int(d.hi)) for d in statement.dims}  # type: ignore[arg-type]
    kept = [d for d in ranges if d not in reduced]

    def run(*operands: Array) -> Array:
        instances = max(len(x) for x in operands)
        tensors = {
            p.name: np.broadcast_to(x, (instances, x.shape[1])).reshape(
                instances, *p.type.static_shape
            )
            for p, x in zip(semantics.params, operands, strict=True)
        }
        box = Box({_INSTANCE: (0, instances), **ranges}, {}, tensors)
        products = np.broadcast_to(evaluate_expression(value, box), box.shape)
        order = [0, *(1 + k for k, d in enumerate(ranges) if d in kept)]
        order += [1 + k for k, d in enumerate(ranges) if d in reduced]
        steps = products.transpose(order).reshape(instances, operands[0].shape[1], -1)
        total = np.broadcast_to(operands[0], steps.shape[:2])
        for k in range(steps.shape[2]):
            total = fold(np, total, steps[:, :, k])
        return np.asarray(total)

    return run


def _batched(e: Expr) -> Expr:
    """A load with the instance as its first subscript."""
    return replace(e, indices=(var(_INSTANCE), *e.indices)) if isinstance(e, Load) else e
