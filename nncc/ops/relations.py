"""How the axes of an op's output depend on the axes of its inputs, read off its index notation.

    relations(site of Conv(x, w, b))
      y.1 of w.0: same          output channel m is filter m
      y.0 of x.0: same          batch
      y.2 of x.2: strided       e*stride + r - pad
      x.1: reduced              channels are summed away

No op is named here: whatever has a nest has relations. Layout, pruning and quantization for each
channel follow channels through a graph by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nncc.ir.expr import Load, loads
from nncc.ir.index import Size, affine, substitute, var, variables
from nncc.ir.nests import Nest, Statement
from nncc.ops.table import Site, get

Kind = Literal["same", "sliced", "joined", "strided", "split", "mixed"]


@dataclass(frozen=True, slots=True)
class Relation:
    """Axis `axis` of output `output` is made from axis `of_axis` of input `input`.

    Args:
        output, input: names of the nest's parameters (see `nncc.ops.table.bind`).
        kind: `same`: index i of one is index i of the other, and extents are equal.
            `sliced`: i of the output is offset + step*i of the input (Slice, Split).
            `joined`: offset + i of the output is i of the input (Concat).
            `strided`: i of the output is made from a window of the input at step*i + offset.
            `split`: the axes divide one range between them (Reshape, groups of channels).
            `mixed`: they depend on each other in another way (gathers, several of the above).
        offset, step: as described; 0 and 1 elsewhere.
    """

    output: str
    axis: int
    input: str
    of_axis: int
    kind: Kind
    offset: Size = 0
    step: int = 1


@dataclass(frozen=True)
class Relations:
    """All relations of one op.

    Args:
        related: the pairs of axes that depend on each other.
        reduced: (input, axis) that an output element takes every index of. Such an axis may also
            be `same` as one of the output (Softmax).
        broadcast: (output, axis, input): every index of the output's axis reads the same of the
            input.
    """

    related: tuple[Relation, ...]
    reduced: frozenset[tuple[str, int]]
    broadcast: frozenset[tuple[str, int, str]]

    def of(self, output: str, axis: int) -> tuple[Relation, ...]:
        """The relations of one output axis."""
        return tuple(r for r in self.related if (r.output, r.axis) == (output, axis))

    def preserved(self, input: str, axis: int) -> tuple[tuple[str, int], ...]:
        """Output axes that are an axis of the input, index by index, independently."""
        if (input, axis) in self.reduced:
            return ()
        return tuple(
            (r.output, r.axis)
            for r in self.related
            if (r.input, r.of_axis, r.kind) == (input, axis, "same")
        )


def relations(site: Site) -> Relations:
    """The relations of an op at a site. Raises VerifyError if the op has no nest."""
    nest = get(site.node).nest
    if nest is None:
        raise site.error("the op has no index notation to read relations from")
    return nest_relations(nest(site))


@dataclass(frozen=True)
class _Read:
    """An input element that a statement's target depends on, through locals.

    `indices` are expressions over the dims of the statement that writes the output.
    """

    tensor: str
    indices: tuple[Size, ...]
    extents: Mapping[str, Size]  # of every dim in the indices, reduced ones included


def nest_relations(nest: Nest) -> Relations:
    """The relations between the outputs and inputs of a nest."""
    found: dict[tuple[str, int, str, int], set[Relation]] = {}
    free: dict[tuple[str, int, str], bool] = {}
    reduced: set[tuple[str, int]] = set()
    for s in nest.statements:
        target = s.targets[0]
        if nest.param(target.tensor).role != "out":
            continue
        for read in _reads(nest, s, frozenset({target.tensor})):
            shape = nest.param(read.tensor).type.shape
            for j, index in enumerate(read.indices):
                axes = [k for k, i in enumerate(target.indices) if variables(i) & variables(index)]
                for k in axes:
                    key = (target.tensor, k, read.tensor, j)
                    found.setdefault(key, set()).add(_relation(nest, s, key, read))
                if not axes and _spans(index, shape[j], read.extents):
                    reduced.add((read.tensor, j))
            for k, i in enumerate(target.indices):
                used = any(variables(i) & variables(index) for index in read.indices)
                key3 = (target.tensor, k, read.tensor)
                free[key3] = free.get(key3, True) and not used
    related = tuple(_merged(key, kinds) for key, kinds in sorted(found.items()))
    return Relations(
        related,
        frozenset(reduced),
        frozenset(key for key, alone in free.items() if alone),
    )


def _merged(key: tuple[str, int, str, int], kinds: set[Relation]) -> Relation:
    """One relation for a pair of axes: several different ones are `mixed`."""
    return next(iter(kinds)) if len(kinds) == 1 else Relation(*key, "mixed")


def _reads(nest: Nest, s: Statement, seen: frozenset[str]) -> list[_Read]:
    """The inputs that a statement reads, those behind locals too."""
    found: list[_Read] = []
    extents = {d.name: d.extent for d in s.dims}
    # a window of one element is no window
    units: dict[str, Size] = {
        d.name: 0 for d in s.dims if d.extent == 1 and d.name not in _dims_of(s)
    }
    for load in (x for value in s.values for x in loads(value)):
        if load.tensor in seen:
            continue
        if nest.param(load.tensor).role == "in":
            indices = tuple(substitute(i, units) for i in load.indices)
            found.append(_Read(load.tensor, indices, extents))
        else:
            found += _through(nest, load, extents, seen)
    return found


def _through(
    nest: Nest, load: Load, extents: Mapping[str, Size], seen: frozenset[str]
) -> list[_Read]:
    """What a local's element was made from, in terms of the reader's dims."""
    found: list[_Read] = []
    for writer in nest.statements:
        target = writer.targets[0]
        if target.tensor != load.tensor:
            continue
        # the writer's own dims get new names; where it writes at a plain dim, the reader's index
        names: dict[str, Size] = {d.name: var(f"{writer.name}.{d.name}") for d in writer.dims}
        inner = {f"{writer.name}.{d.name}": d.extent for d in writer.dims}
        for written, index in zip(target.indices, load.indices, strict=True):
            if not isinstance(written, int) and variables(written) == {str(written)}:
                names[str(written)] = index
        for read in _reads(nest, writer, seen | {target.tensor}):
            indices = tuple(substitute(i, names) for i in read.indices)
            found.append(_Read(read.tensor, indices, {**extents, **inner, **read.extents}))
    return found


def _spans(index: Size, extent: Size, extents: Mapping[str, Size]) -> bool:
    """Whether an index goes over its whole axis as dims run that the output does not have."""
    if isinstance(index, int):
        return extent == 1
    return extents.get(str(index)) == extent


def _relation(nest: Nest, s: Statement, key: tuple[str, int, str, int], read: _Read) -> Relation:
    """How axis k of the output and axis j of an input depend on each other."""
    output, k, input, j = key
    written, index = s.targets[0].indices[k], read.indices[j]
    extents = (nest.param(output).type.shape[k], nest.param(input).type.shape[j])
    if written == index and extents[0] == extents[1]:
        return Relation(*key, "same")
    dims = frozenset(d.name for d in s.dims)
    left = affine(written, dims)
    right = affine(index, frozenset(read.extents) | dims)
    if left is None or right is None or len(left[0]) != 1:
        return Relation(*key, "split" if left and right else "mixed")
    ((dim, factor),) = left[0].items()
    (factors, offset), base = right, left[1]
    if factor != 1:
        return Relation(*key, "split")
    step = factors[dim]
    if len(factors) > 1:
        kept = _dims_of(s) & factors.keys()
        if len(kept) > 1:
            return Relation(*key, "split")
        return Relation(*key, "strided", offset, step)
    if base != 0:
        return Relation(*key, "joined" if (step, offset) == (1, 0) else "mixed", base)
    if (step, offset) == (1, 0) and read.extents.get(dim) == extents[1]:
        return Relation(*key, "joined")
    return Relation(*key, "sliced", offset, step)


def _dims_of(s: Statement) -> frozenset[str]:
    """The dims of a statement that its target has: those that are not reduced."""
    return frozenset[str]().union(*(variables(i) for i in s.targets[0].indices))
