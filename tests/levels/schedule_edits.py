"""Random edits of schedule trees: split a band, exchange two bands, unroll one.

    for m by 32 { … }   →   for m by 64 { for m by 32 { … } }           split
    for e { for r { … } }   →   for r { for e { … } }                    interchange
    for r { … }   →   unroll r { … }                                     unroll

An edit may be illegal: that is for the verifier and the legality check to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from nncc.ir.nests import Band, Leaf, Nest, Schedule

Tree = tuple[Schedule, ...]
Edit = Callable[[Band], Schedule]


def split(band: Band, factor: int) -> Schedule:
    """The band inside one over pieces of `factor` of its steps."""
    if band.kind == "vector" or not isinstance(band.step, int):
        return band
    return Band(band.dim, band.step * factor, "serial", (band,))


def interchange(band: Band) -> Schedule:
    """The band and the only one directly in it, the other way around."""
    if len(band.body) != 1 or not isinstance(band.body[0], Band):
        return band
    (inner,) = band.body
    if band.dim == inner.dim or "vector" in (band.kind, inner.kind):
        return band
    return replace(inner, body=(replace(band, body=inner.body),))


def unroll(band: Band) -> Schedule:
    """The band's iterations as copies."""
    return replace(band, kind="unroll") if band.kind == "serial" else band


def bands(tree: Tree) -> Iterator[Band]:
    """Every band of a tree, outermost first."""
    for node in tree:
        if isinstance(node, Band):
            yield node
        if not isinstance(node, Leaf):
            yield from bands(node.body)


def edited(nest: Nest, position: int, edit: Edit) -> Nest:
    """`nest` with `edit` of the band at `position` of those in its schedule."""
    assert nest.schedule is not None
    wanted = list(bands(nest.schedule))[position]

    def visit(tree: Tree) -> Tree:
        found: list[Schedule] = []
        for node in tree:
            if node is wanted:
                found.append(edit(wanted))
            elif isinstance(node, Leaf):
                found.append(node)
            else:
                found.append(replace(node, body=visit(node.body)))
        return tuple(found)

    return replace(nest, schedule=visit(nest.schedule))
