"""Scalar expressions evaluated over a box of index values at once, with numpy.

A `Box` is a range for each dimension of a statement. An expression over the box is an array
with one axis for each dimension, of length 1 where the expression does not depend on it:

    box n in 0..2, e in 0..3        x[n, e + 1]  ->  array of shape (2, 3)
                                    w[e]         ->  array of shape (1, 3)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from nncc.diagnostics import CheckError
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Reduce, Value
from nncc.ir.index import Size, affine, elements, evaluate
from nncc.ir.scalar import FUNCTIONS

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Box:
    """Ranges `lo..hi` (hi excluded) of the dimensions, and what else index expressions read.

    Args:
        ranges: by dimension, in the order of the axes.
        values: named sizes and the dimensions of scans around the statement.
        tensors: every tensor of the nest.
        mask: bool array over the box, False where the statement has no instance; None: nowhere.
        checked: whether the mask is known, so that subscripts elsewhere are mistakes.
    """

    ranges: Mapping[str, tuple[int, int]]
    values: Mapping[str, int]
    tensors: Mapping[str, Array]
    mask: Array | None = None
    checked: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(hi - lo for lo, hi in self.ranges.values())

    @cached_property
    def names(self) -> Mapping[str, Any]:
        """The value of every variable: an int, or an array along its dimension's axis."""
        names: dict[str, Any] = dict(self.values)
        for axis, (name, (lo, hi)) in enumerate(self.ranges.items()):
            shape = [1] * len(self.ranges)
            shape[axis] = hi - lo
            names[name] = np.arange(lo, hi, dtype=np.int64).reshape(shape)
        return names

    def size(self, size: Size) -> Any:
        """An index expression over the box: an int or an integer array."""
        if not elements(size):
            return evaluate(size, self.names)
        used = {e.tensor: _Subscripts(e.tensor, self) for e in elements(size)}
        return evaluate(size, self.names, used)

    def halves(self, dim: str) -> tuple[Box, Box]:
        """This box cut in two along `dim`, without its mask."""
        lo, hi = self.ranges[dim]
        middle = (lo + hi) // 2
        first, second = {**self.ranges, dim: (lo, middle)}, {**self.ranges, dim: (middle, hi)}
        return replace(self, ranges=first, mask=None), replace(self, ranges=second, mask=None)


class _Subscripts:
    """An integer tensor as a subscript: int64, and clipped where no instance reads it.

    Instances outside a triangular domain are evaluated too and masked afterwards; their
    subscripts may be anything.
    """

    def __init__(self, name: str, box: Box) -> None:
        self.name, self.box = name, box

    def __getitem__(self, where: tuple[Any, ...]) -> Array:
        array, mask = self.box.tensors[self.name], self.box.mask
        shape = array.shape
        clipped = tuple(np.clip(i, 0, n - 1) for i, n in zip(where, shape, strict=True))
        for i, c, n in zip(where, clipped, shape, strict=True):
            if self.box.checked and np.any(i != c if mask is None else (i != c) & mask):
                raise CheckError(
                    f"a subscript of {self.name} goes over {np.min(i)}..{np.max(i) + 1}, "
                    f"outside the tensor {list(shape)}: it has 0..{n}"
                )
        return np.asarray(array[clipped], np.int64)


def evaluate_expression(e: Expr, box: Box, names: Mapping[str, Array] | None = None) -> Array:
    """`e` over the box. `names` holds the operands of a declared combine."""
    if isinstance(e, Const):
        return np.asarray(e.value, e.dtype.numpy)
    if isinstance(e, Value):
        return np.asarray(box.size(e.size)).astype(e.dtype.numpy)
    if isinstance(e, Load):
        return load(e, box)
    if isinstance(e, Name) and names is not None:
        return names[e.name]
    if isinstance(e, Apply):
        args = [evaluate_expression(a, box, names) for a in e.args]
        result = np.asarray(FUNCTIONS[e.fn].numpy(np, *args))
        return result.astype(e.dtype.numpy, copy=False)
    what = "a reduction inside an expression" if isinstance(e, Reduce) else f"name {e.name}"
    raise TypeError(f"a nest's statement holds no {what}")


def load(e: Load, box: Box) -> Array:
    """The elements of a tensor that a load reads over the box."""
    found = _strided(e, box)
    return found if found is not None else _gathered(e, box)


def _strided(e: Load, box: Box) -> Array | None:
    """An affine access as a view of the tensor, or of a padded copy; None if it is not one."""
    tensor = box.tensors[e.tensor]
    if not e.indices:
        return tensor
    forms = [affine(i, box.ranges) for i in e.indices]
    starts: list[int] = []
    pads: list[tuple[int, int]] = []
    parts: list[slice] = []
    steps: dict[str, int] = dict.fromkeys(box.ranges, 0)
    padded = 1
    for form, extent in zip(forms, tensor.shape, strict=True):
        if form is None or extent == 0:
            return None
        factors, rest = form
        start = int(box.size(rest)) + sum(c * box.ranges[d][0] for d, c in factors.items())
        reach = [c * (box.ranges[d][1] - box.ranges[d][0] - 1) for d, c in factors.items()]
        lo, hi = start + sum(min(r, 0) for r in reach), start + sum(max(r, 0) for r in reach)
        inside_lo, inside_hi = min(max(lo, 0), extent - 1), max(min(hi, extent - 1), 0)
        if (lo < 0 or hi >= extent) and e.other is None:
            return None  # masked instances, or a mistake: the gather tells which
        if lo >= extent or hi < 0:
            return None
        parts.append(slice(inside_lo, inside_hi + 1))
        pads.append((inside_lo - lo, hi - inside_hi))
        starts.append(start - lo)
        padded *= hi - lo + 1
    source = tensor[tuple(parts)]
    if any(p != (0, 0) for p in pads):
        assert e.other is not None
        other = evaluate_expression(e.other, box)
        if other.size != 1 or padded > 2 * (tensor.size + int(np.prod(box.shape))):
            return None
        source = np.pad(source, pads, constant_values=other.reshape(()))
    for form, stride in zip(forms, source.strides, strict=True):
        assert form is not None
        for d, c in form[0].items():
            steps[d] += c * stride
    # a dimension that the access does not use has length 1, not stride 0
    used = {d for form in forms if form is not None for d in form[0]}
    shape = [hi - lo if d in used else 1 for d, (lo, hi) in box.ranges.items()]
    origin = source[tuple(slice(s, None) for s in starts)]
    return np.lib.stride_tricks.as_strided(origin, shape, list(steps.values()), writeable=False)


def _gathered(e: Load, box: Box) -> Array:
    """Any access, element by element."""
    tensor = box.tensors[e.tensor]
    indices = [np.asarray(box.size(i)) for i in e.indices]
    inside: Any = np.True_
    for index, extent in zip(indices, tensor.shape, strict=True):
        inside = inside & (index >= 0) & (index < extent)
    if e.other is None and not np.all(inside if box.mask is None else inside | ~box.mask):
        where = ",".join(str(i) for i in e.indices)
        raise CheckError(f"{e.tensor}[{where}] is outside the tensor {list(tensor.shape)}")
    if tensor.size == 0:
        read = np.zeros((1,) * len(box.ranges), tensor.dtype)
    else:
        clipped = (np.clip(i, 0, n - 1) for i, n in zip(indices, tensor.shape, strict=True))
        read = np.asarray(tensor[tuple(clipped)])
    if e.other is None or np.all(inside):
        return read
    return np.where(inside, read, evaluate_expression(e.other, box))
