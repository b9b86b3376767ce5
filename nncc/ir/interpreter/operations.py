"""Machine operations by their meaning: a function over arrays from an operation's nest.

    fma16 = operation_function(semantics)
    fma16(y, a, b)          # arrays of shape [instances, elements of the operand]

The nest has one statement: a reduction that folds into its first parameter, element by element
(`acc: for m in 0..16, k in 0..4 { y[m] sum= … }`), or an assignment to all elements of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nncc.ir.expr import Apply, Const, Expr, Load, Value
from nncc.ir.index import Size, evaluate
from nncc.ir.nests import ASSIGN, BUILTIN_COMBINES, Dim, Nest
from nncc.ir.scalar import FUNCTIONS

Array = np.ndarray[Any, Any]
Operands = Mapping[str, Array]


def operation_function(semantics: Nest) -> Callable[..., Array]:
    """What an operation computes, for many instances at once.

    The function takes one array [instances or 1, elements] for each parameter, the accumulator
    first, and gives the new accumulator. Products are folded one after the other, starting with
    the accumulator's value. The function of an assignment takes its inputs alone.
    """
    statement = semantics.statements[-1]
    if statement.combine == ASSIGN:
        return _assignment(semantics)
    fold = FUNCTIONS[BUILTIN_COMBINES[statement.combine]].numpy
    names = tuple(p.name for p in semantics.params)
    shapes = {p.name: p.type.static_shape for p in semantics.params}
    reduced = statement.reduction_dims
    kept = [d for d in statement.dims if d.name not in reduced]
    folded = [d for d in statement.dims if d.name in reduced]

    # every combination of the kept and of the folded dimensions: arrays [kept, 1] and [1, folded]
    rows, steps = _grid(kept), _grid(folded)
    count = (rows.shape[1], steps.shape[1])
    point = {d.name: r[:, None] for d, r in zip(kept, rows, strict=True)}
    point |= {d.name: s[None, :] for d, s in zip(folded, steps, strict=True)}
    target = _positions(statement.targets[0].indices, shapes[names[0]], point)[:, 0]
    value = _function(statement.values[0], shapes, point)

    def run(*operands: Array) -> Array:
        products = value(dict(zip(names, operands, strict=True)))
        instances = max(len(products), len(operands[0]))
        products = np.broadcast_to(products, (instances, *count))
        accumulator = operands[0][:, target]
        for k in range(count[1]):
            accumulator = fold(np, accumulator, products[:, :, k])
        result = np.empty_like(accumulator)
        result[:, target] = accumulator
        return result

    return run


def _assignment(semantics: Nest) -> Callable[..., Array]:
    """What an operation computes whose result has no old value."""
    statement = semantics.statements[-1]
    shapes = {p.name: p.type.static_shape for p in semantics.params}
    result, *inputs = (p.name for p in semantics.params)
    grid = _grid(statement.dims)
    point = {d.name: g[:, None] for d, g in zip(statement.dims, grid, strict=True)}
    target = _positions(statement.targets[0].indices, shapes[result], point)[:, 0]
    value = _function(statement.values[0], shapes, point)
    elements = math.prod(shapes[result])

    def run(*operands: Array) -> Array:
        found = value(dict(zip(inputs, operands, strict=True)))
        output = np.zeros((len(found), elements), found.dtype)
        output[:, target] = found[:, :, 0]
        return output

    return run


def _grid(dims: Sequence[Dim]) -> Array:
    """The values of `dims` in all combinations, in row-major order: [dims, combinations]."""
    ranges = [np.arange(evaluate(d.lo, {}), evaluate(d.hi, {})) for d in dims]
    count = math.prod(len(r) for r in ranges)
    return np.array(np.meshgrid(*ranges, indexing="ij"), np.int64).reshape(len(dims), count)


def _positions(
    indices: tuple[Size, ...], shape: tuple[int, ...], point: Mapping[str, Any]
) -> Array:
    """Row-major positions of an access, for every point: an array [kept or 1, folded or 1]."""
    position: Any = np.zeros((1, 1), np.int64)
    for index, extent in zip(indices, shape, strict=True):
        position = position * extent + evaluate(index, point)
    return np.asarray(position)


def _function(
    e: Expr, shapes: Mapping[str, tuple[int, ...]], point: Mapping[str, Any]
) -> Callable[[Operands], Array]:
    """`e` as a function of the operands, to an array [instances, kept or 1, folded or 1]."""
    if isinstance(e, Const):
        literal = np.full((1, 1, 1), np.asarray(e.value).astype(e.dtype.numpy))
        return lambda operands: literal
    if isinstance(e, Load):
        positions = _positions(e.indices, shapes[e.tensor], point)
        return lambda operands: operands[e.tensor][:, positions]
    if isinstance(e, Value):
        number = np.asarray(evaluate(e.size, point), e.dtype.numpy)
        number = number.reshape((1,) * (3 - number.ndim) + number.shape)
        return lambda operands: number
    assert isinstance(e, Apply), "operations compute with operands and literals"
    args = [_function(a, shapes, point) for a in e.args]
    numpy, dtype = FUNCTIONS[e.fn].numpy, e.dtype.numpy
    return lambda operands: np.asarray(numpy(np, *(a(operands) for a in args))).astype(
        dtype, copy=False
    )
