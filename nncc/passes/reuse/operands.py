"""The operands of a statement: each tensor that it touches, as a product of axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nncc.ir.expr import loads
from nncc.ir.index import Element, Index, Size, elements, substitute, variables
from nncc.ir.nests import ASSIGN, Nest, Statement, sizes_of
from nncc.passes.reuse.points import Axis

# A joint axis of more positions than this is taken as touched whole.
_LARGEST_AXIS = 1 << 22


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor in a statement.

    Args:
        role: `read`; `write` (assigned); `update` (folded into).
        local: it is a local tensor of the nest, dead after its last use.
        axes: the elements that a tile touches are the product of these.
        exact: whether that is so; subscripts through other tensors count whole ranges.
    """

    tensor: str
    role: str
    local: bool
    bits: int
    axes: tuple[Axis, ...]
    exact: bool

    @property
    def dims(self) -> frozenset[str]:
        """The loop dimensions that select its elements."""
        return frozenset(d for axis in self.axes for d in axis.dims)


def operands(
    statement: Statement, nest: Nest, sizes: Mapping[str, int] | None = None
) -> tuple[Operand, ...]:
    """The operands of a statement, targets first.

    Args:
        sizes: numbers for the named sizes.

    Raises ValueError if a tensor that it touches has an extent without a number.
    """
    known = dict(sizes or {})
    accesses: dict[str, list[tuple[Size, ...]]] = {}
    for target in statement.targets:
        accesses.setdefault(target.tensor, []).append(target.indices)
    read: set[str] = set()
    for tensor, indices in _loads(statement):
        read.add(tensor)
        accesses.setdefault(tensor, []).append(indices)
    written = {t.tensor for t in statement.targets}
    box = _is_box(statement)
    found = []
    for tensor, of_tensor in accesses.items():
        param = nest.param(tensor)
        extents = (substitute(s, known) for s in param.type.shape)
        shape = tuple(s for s in extents if isinstance(s, int))
        if len(shape) < param.type.rank:
            raise ValueError(f"{tensor}: {param.type} has sizes without a number")
        subscripts = [tuple(substitute(i, known) for i in one) for one in of_tensor]
        axes, exact = _axes(list(dict.fromkeys(subscripts)), shape, statement)
        role = "read"
        if tensor in written:
            role = "write" if statement.combine == ASSIGN else "update"
        consistent = not (tensor in written and tensor in read)
        found.append(
            Operand(
                tensor,
                role,
                param.role == "local",
                param.type.dtype.bits,
                axes,
                exact and box and consistent,
            )
        )
    return tuple(found)


def _loads(statement: Statement) -> Iterator[tuple[str, tuple[Size, ...]]]:
    """What is read, by values and by subscripts, bounds and constraints."""
    for value in statement.values:
        yield from ((x.tensor, x.indices) for x in loads(value))
    for size in sizes_of(statement):
        yield from ((x.tensor, x.indices) for x in elements(size))


def _is_box(statement: Statement) -> bool:
    dims = {d.name for d in statement.dims}
    return not statement.where and not any(
        variables(d.lo) & dims or variables(d.hi) & dims for d in statement.dims
    )


def _axes(
    accesses: list[tuple[Size, ...]], shape: tuple[int, ...], statement: Statement
) -> tuple[tuple[Axis, ...], bool]:
    """Tensor dimensions in groups that share no loop dimension, and whether all is exact."""
    names = {d.name for d in statement.dims}
    exact = True
    groups: list[tuple[set[int], set[str]]] = []
    differing: set[int] = set()
    whole: set[int] = set()
    for k in range(len(shape)):
        subscripts = {access[k] for access in accesses}
        if any(_opaque(s) for s in subscripts):
            whole.add(k)
            exact = False
            continue
        if len(subscripts) > 1:
            differing.add(k)
        used = set().union(*(variables(s) for s in subscripts)) & names
        groups.append(({k}, used))
    axes = [Axis((), (), (shape[k],)) for k in whole]
    for members, used in _joined(groups, differing):
        ks = sorted(members)
        extents = tuple(shape[k] for k in ks)
        if len(ks) > 1 and math.prod(extents) > _LARGEST_AXIS:
            axes += [Axis((), (), (shape[k],)) for k in ks]
            exact = False
            continue
        subscripts_of = dict.fromkeys(tuple(access[k] for k in ks) for access in accesses)
        axes.append(Axis(tuple(sorted(used)), tuple(subscripts_of), extents))
    return tuple(axes), exact


def _opaque(size: Size) -> bool:
    """Whether a subscript reads a tensor, also inside divisions and the like."""
    return isinstance(size, Index) and any(isinstance(e, Element) for e in elements(size))


def _joined(
    groups: list[tuple[set[int], set[str]]], differing: set[int]
) -> list[tuple[set[int], set[str]]]:
    """Groups united where they share a loop, or where accesses differ in more than one of them."""
    joined: list[tuple[set[int], set[str]]] = []
    for members, used in groups:
        members, used = set(members), set(used)
        kept = []
        for other, theirs in joined:
            both_differ = bool(members & differing) and bool(other & differing)
            if both_differ or used & theirs:
                members |= other
                used |= theirs
            else:
                kept.append((other, theirs))
        joined = [*kept, (members, used)]
    return joined
