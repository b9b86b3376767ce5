"""Which rows and lanes an access reaches, as numbers.

A `Grid` enumerates some dims of a statement; along the others, the *pixels*, an access must be
affine. The access x[n, c, 2*e + r - 1, f] of a tensor in blocks of 16 channels, over the grid of
c and r, is at

    rows    (n, offset c // 16, 2*e + offset r - 1, f)      lanes    c % 16

with the offsets as arrays over the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.bounds import simplify
from nncc.ir.expr import Apply, Const, Expr, Load, Value
from nncc.ir.index import Size, affine, evaluate, substitute, var
from nncc.ir.nests import Dim, Param
from nncc.ir.scalar import FUNCTIONS
from nncc.passes.systolic.blocks import blocks_in

Array = np.ndarray[Any, Any]


class Grid:
    """All combinations of the values of some dims: one axis each, in order."""

    def __init__(self, dims: Sequence[Dim]) -> None:
        self.dims = tuple(dims)
        self.shape = tuple(_extent(d) for d in dims)
        self.variables: dict[str, Any] = {
            d.name: np.arange(_extent(d)).reshape([-1 if j == k else 1 for j in range(len(dims))])
            for k, d in enumerate(dims)
        }

    def evaluate(self, size: Size) -> Array:
        """An integer expression of the grid's dims; of length 1 along those not in it."""
        found = np.asarray(evaluate(size, self.variables))
        return found.reshape((1,) * (len(self.shape) - found.ndim) + found.shape)

    def full(self, x: Array) -> Array:
        return np.broadcast_to(x, self.shape)

    def value(self, e: Expr, constants: Mapping[str, Array]) -> Array:
        """A scalar expression of constants at all points. Raises PassError for other tensors."""
        if isinstance(e, Const):
            return np.full((1,) * len(self.shape), e.value, e.dtype.numpy)
        if isinstance(e, Value):
            return self.evaluate(e.size).astype(e.dtype.numpy)
        if isinstance(e, Load) and e.tensor in constants:
            return np.asarray(constants[e.tensor][tuple(self.evaluate(i) for i in e.indices)])
        if not isinstance(e, Apply):
            raise PassError("a constant is needed where the model computes a value")
        args = (self.value(a, constants) for a in e.args)
        return np.asarray(FUNCTIONS[e.fn].numpy(np, *args)).astype(e.dtype.numpy, copy=False)


def _extent(d: Dim) -> int:
    if d.lo != 0 or not isinstance(d.hi, int):
        raise PassError(f"dim {d.name} in {d.lo}..{d.hi} is not from 0 to a known size")
    return d.hi


@dataclass(frozen=True)
class Place:
    """Where an access goes.

    Args:
        factors: for each row dimension of the buffer, the factor of each pixel dim in it.
        offsets: the rest of each row dimension, over the grid; `lanes`: the last dimension.
        guards: (row dimension, extent) in which the access may leave the tensor, by pixel.
        inside: over the grid, where it is not outside of the tensor for all pixels.
    """

    factors: tuple[dict[str, int], ...]
    offsets: tuple[Array, ...]
    lanes: Array
    guards: tuple[tuple[int, int], ...]
    inside: Array


def place(
    param: Param, indices: Sequence[Size], grid: Grid, pixels: Sequence[Dim], *, guarded: bool
) -> Place:
    """Where `param[indices]` is. Raises PassError if that is no affine function of the pixels.

    Args:
        guarded: whether the access may be outside of the tensor.
    """
    if param.layout is None:
        raise PassError(f"{param.name}: {param.type} is not kept in rows")
    names = [d.name for d in pixels]
    limits = {d.name: (d.lo, d.hi - 1) for d in (*pixels, *grid.dims)}
    inside = np.ones((1,) * len(grid.shape), bool)
    guards: list[tuple[int, int]] = []
    if guarded:
        for k, (index, extent) in enumerate(zip(indices, param.type.shape, strict=True)):
            factors, rest = _affine(index, names, param)
            assert isinstance(extent, int)
            number = grid.evaluate(rest)
            ends = {d.name: _extent(d) - 1 for d in pixels}
            reach = [f * ends[n] for n, f in factors.items()]
            low, high = (number.min(), number.max()) if number.size else (0, 0)
            if low + sum(min(r, 0) for r in reach) >= 0 and (
                high + sum(max(r, 0) for r in reach) < extent
            ):
                continue
            if not factors:
                inside = inside & (number >= 0) & (number < extent)
                continue
            block = blocks_in(param.layout).get(k, 1)
            row = var(f"d{k}") // block
            if row not in param.layout.dims or extent % block:
                raise PassError(f"{param.name}: padding along axis {k}, which is cut in blocks")
            guards.append((param.layout.dims.index(row), extent // block))
    values = {f"d{k}": i for k, i in enumerate(indices)}
    rows: list[tuple[dict[str, int], Array]] = []
    for dim in param.layout.dims:
        index = substitute(dim, values)
        if affine(index, names) is None:
            index = simplify(index, limits)
        factors, rest = _affine(index, names, param)
        if any(f < 0 for f in factors.values()):
            raise PassError(f"{param.name}: rows in reverse order")
        rows.append((factors, grid.evaluate(rest)))
    (last, lanes), rows = rows[-1], rows[:-1]
    if last:
        raise PassError(f"{param.name}: the channel depends on the pixel")
    return Place(tuple(f for f, _ in rows), tuple(o for _, o in rows), lanes, tuple(guards), inside)


def _affine(index: Size, names: Sequence[str], param: Param) -> tuple[dict[str, int], Size]:
    form = affine(index, names)
    if form is None:
        raise PassError(f"{param.name}: the subscript {index} is not affine in the pixel")
    return form


@dataclass(frozen=True)
class Run:
    """Blocks that one loop goes over: vectors of offsets that grow by the same step."""

    start: tuple[int, ...]
    step: tuple[int, ...]
    count: int

    def at(self, variable: Size) -> list[Size]:
        """The vector of block number `variable`."""
        return [a + variable * b for a, b in zip(self.start, self.step, strict=True)]


def runs_of(vectors: Sequence[Sequence[int]]) -> list[Run]:
    """Vectors in as few runs of equal steps as greed finds, in order."""
    found: list[Run] = []
    for vector in vectors:
        v = tuple(int(x) for x in vector)
        if found:
            last = found[-1]
            end = tuple(
                a + (last.count - 1) * b for a, b in zip(last.start, last.step, strict=True)
            )
            step = tuple(x - e for x, e in zip(v, end, strict=True))
            if last.count == 1 or step == last.step:
                found[-1] = Run(last.start, step, last.count + 1)
                continue
        found.append(Run(v, (0,) * len(v), 1))
    return found
