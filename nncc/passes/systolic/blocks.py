"""Rows that hold several pixels.

Where a tensor has few channels, a row of the unified buffer can hold a block of pixels beside each
other. With blocks of 4 x 8 pixels of 3 channels on an array of 256 rows:

    x[n,c,h,w] is in row (n, h//4, w//8), lane 24*(h%4) + 3*(w%8) + c

A statement that writes or reads such rows counts the pixels of a block by dims of their own,

    y[n,m,e,f]    →    y[n, m, 4*e + ei, 8*f + fi]     for ei in 0..4, fi in 0..8

so that the row is affine in e and f, and the lane depends on m, ei and fi alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import gcd, lcm

from nncc.diagnostics import PassError
from nncc.ir.expr import Load
from nncc.ir.index import Index, Size, Term, affine, substitute, var
from nncc.ir.nests import Access, Dim, Layout, Nest, Statement
from nncc.passes.nest_parts import fresh, map_sizes, map_statements


def in_blocks(
    shape: Sequence[Size], blocks: Mapping[int, int], lanes: int, fill: int | None = None
) -> Layout:
    """The layout with that many neighbours of each axis, and all of axis 1, in a row of `lanes`.

    >>> str(in_blocks((1, 3, 8, 8), {3: 4}, 16).dims[-1])
    'd1 + 3*(d3 % 4)'
    """
    d = [var(f"d{k}") for k in range(len(shape))]
    channels = shape[1]
    assert isinstance(channels, int)
    lane: Size = d[1]
    step = channels
    for axis in sorted(blocks, reverse=True):
        lane = lane + step * (d[axis] % blocks[axis])
        step *= blocks[axis]
    assert step <= lanes, "a block fits into a row"
    outer = [k for k in range(len(shape)) if k != 1]
    dims = [d[k] // blocks.get(k, 1) for k in outer]
    extents = [-(-shape[k] // blocks.get(k, 1)) for k in outer]
    return Layout((*dims, lane), (*extents, lanes), fill)


def blocks_in(layout: Layout | None) -> dict[int, int]:
    """How many neighbours of each axis a row of such a layout holds; {} for any other layout."""
    if layout is None or not isinstance(layout.dims[-1], Index) or len(layout.dims[-1].terms) < 2:
        return {}
    found = {}
    for dim in layout.dims[:-1]:
        if not isinstance(dim, Index) or len(dim.terms) != 1 or dim.terms[0][1] != 1:
            continue
        (atom, *others), _ = dim.terms[0]
        if not others and isinstance(atom, Term) and atom.fn == "//" and isinstance(atom.b, int):
            name = str(atom.a)
            if name[1:].isdigit():
                found[int(name[1:])] = atom.b
    return found


def with_block_dims(
    nest: Nest, out: Statement, others: Iterable[Load] = ()
) -> tuple[Nest, frozenset[str]]:
    """The nest with the pixels in a block counted by dims of their own, and the names of those.

    Args:
        out: the statement that writes the result; its dims are cut.
        others: loads whose tensors may hold blocks, too.

    Raises PassError where blocks are not side by side in the iteration.
    """
    dims = {d.name: d for d in out.dims}
    cuts: dict[str, int] = {}
    found: list[Access | Load] = [out.targets[0], *others]
    for access in found:
        for axis, block in blocks_in(nest.param(access.tensor).layout).items():
            form = affine(access.indices[axis], dims)
            if form is None:
                raise PassError(f"{access.tensor}: the subscript along axis {axis} is not affine")
            for name, factor in form[0].items():
                cuts[name] = lcm(cuts.get(name, 1), block // gcd(block, factor))
    cuts = {name: count for name, count in cuts.items() if count > 1}
    for name, count in cuts.items():
        extent = dims[name].hi
        if dims[name].lo != 0 or not isinstance(extent, int) or extent % count:
            raise PassError(f"{out.name}: {name} in 0..{extent} is not in blocks of {count}")
    taken = {d.name for s in nest.statements for d in s.dims} | {p.name for p in nest.params}
    inner = {name: fresh(f"{name}i", taken) for name in cuts}
    single = {name for name, count in cuts.items() if dims[name].hi == count}
    values = {
        name: var(inner[name]) + (0 if name in single else count * var(name))
        for name, count in cuts.items()
    }

    def cut(s: Statement) -> Statement:
        own = [d for d in s.dims if d.name in cuts]
        found = map_sizes(s, lambda size: substitute(size, values))
        outer = tuple(Dim(d.name, 0, d.hi // cuts[d.name]) if d.name in cuts else d
                      for d in s.dims if d.name not in single)  # fmt: skip
        within = (Dim(inner[d.name], 0, cuts[d.name]) for d in own)
        return replace(found, dims=(*outer, *within))

    if not cuts:
        return nest, frozenset()
    return map_statements(nest, cut), frozenset(inner.values())


def block_phases(nest: Nest, out: Statement) -> Iterator[Nest]:
    """The nest for each pixel of a block, in the order of the lanes; itself without blocks."""
    cut, inner = with_block_dims(nest, out)
    sides = {d.name: d.hi for s in cut.statements for d in s.dims if d.name in inner}
    for pixel in product(*(range(side) for side in sides.values() if isinstance(side, int))):
        yield map_statements(cut, partial(_fixed, numbers=dict(zip(sides, pixel, strict=True))))


def _fixed(s: Statement, numbers: Mapping[str, int]) -> Statement:
    """A statement with numbers in the place of dims."""
    s = replace(s, dims=tuple(d for d in s.dims if d.name not in numbers))
    return map_sizes(s, lambda size: substitute(size, numbers))
