"""Nests that copy bytes onto themselves: another shape or layout of the same memory."""

from __future__ import annotations

from nncc.ir.expr import Load
from nncc.ir.index import Size
from nncc.ir.layout import physical_index
from nncc.ir.nests import ASSIGN, Nest, Param


def is_view(nest: Nest) -> bool:
    """Whether a nest's output has every element where its one input has it.

    y[0,c,e,f] = x[e,f,c] with y: i8[1,8,14,14] @ (d0, d2, d3, d1 : 1, 14, 16, 8), x: i8[14,16,8]

    A call of such a nest needs no code: the output is the input's memory. The input may have
    elements that the output has not, not the other way around, unless the output's layout says
    what these are.
    """
    if len(nest.inputs) != 1 or len(nest.outputs) != 1 or len(nest.statements) != 1:
        return False
    (s,), (x,), (y,) = nest.statements, nest.inputs, nest.outputs
    value = s.values[0]
    if s.combine != ASSIGN or s.where or not isinstance(value, Load) or value.other is not None:
        return False
    if _fill(y) is not None and _fill(y) != _fill(x):
        return False
    return _flat(x, value.indices) == _flat(y, s.targets[0].indices) and _size(x) == _size(y)


def _fill(p: Param) -> int | float | None:
    return None if p.layout is None else p.layout.fill


def _flat(p: Param, indices: tuple[Size, ...]) -> Size:
    """The number of an element in the order of memory."""
    total: Size = 0
    for index, extent in zip(physical_index(p.layout, indices), _extents(p), strict=True):
        total = total * extent + index
    return total


def _size(p: Param) -> Size:
    total: Size = 1
    for extent in _extents(p):
        total = total * extent
    return total


def _extents(p: Param) -> tuple[Size, ...]:
    return p.type.shape if p.layout is None else p.layout.extents
