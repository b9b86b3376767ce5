"""The nests of a packed convolution, its constants, and its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np

from nncc.ir.expr import Apply, Expr, Load, loads, transform
from nncc.ir.index import Size, substitute, var
from nncc.ir.nests import (
    ASSIGN,
    BUILTIN_COMBINES,
    Access,
    Band,
    Dim,
    Layout,
    Leaf,
    Local,
    Nest,
    Param,
    Schedule,
    Statement,
)
from nncc.ir.types import TensorType
from nncc.passes.emission.guards import is_identity
from nncc.passes.nest_parts import fresh, plain
from nncc.passes.packing.packing import Packing, rounds

Array = np.ndarray[Any, Any]

WRITTEN_OUT = 32  # operations of a sum up to which its loops are written out


def view(p: Packing, name: str) -> Nest:
    """The result as others know it; its elements stand where they are."""
    names = {k: f"i{k}" for k in sorted(p.order)}
    dims = tuple(Dim(name, 0, p.y.type.shape[k]) for k, name in names.items())
    places = tuple(var(names[k]) if k in names else 0 for k in range(p.y.type.rank))
    source = Load("x", tuple(places[k] for k in p.order), p.dense.dtype)
    body = Statement("view", dims, (Access("y", places),), ASSIGN, (source,))
    params = Param("x", p.dense), Param("y", p.y.type, "out", p.layout)
    return Nest(name, (), params, (body,))


def constant(p: Packing, param: Param, array: Array) -> Array:
    """What the packed nest reads instead of one of the convolution's constants."""
    array = array.reshape(param.type.static_shape)
    return weights(p, array) if param.name == p.c.w.tensor else np.tile(array, p.pixels)


def weights(p: Packing, w: Array) -> Array:
    """[place in the window, depth…, word, lane, place in the word]."""
    c = p.c
    names = [plain(i) for i in c.w.indices]
    w = w[tuple(0 if n is None else slice(None) for n in names)]
    left = [n for n in names if n is not None]
    w = w.transpose([left.index(d.name) for d in (c.filters, *c.depth, c.taps)])
    found = np.zeros((p.step, *w.shape[1:-1], p.words, p.lanes, p.group), w.dtype)
    for q, pixel, tap in product(range(p.step), range(p.pixels), range(p.taps)):
        word, place = divmod(p.step * pixel + q + tap, p.group)
        lanes = slice(pixel * p.filters, (pixel + 1) * p.filters)
        found[q, ..., word, lanes, place] = np.moveaxis(w[..., tap], 0, -1)
    # rows of a window read the same: each from a place of its own, in the order of the loops
    return np.broadcast_to(found, (*p.steps.values(), *found.shape)).copy()


@dataclass(frozen=True)
class Dims:
    """Dimensions of the packed nest.

    Args:
        rows: of the result; `piece`: its vectors in a row; `lane`: of a vector.
        inner: place in the window by row; `q`: in a row of the window.
        word: groups of neighbours; `place`: in a group; `depth`: what is summed besides.
    """

    rows: tuple[Dim, ...]
    piece: Dim
    lane: Dim
    inner: Mapping[str, Dim]
    q: Dim
    depth: tuple[Dim, ...]
    word: Dim
    place: Dim

    @staticmethod
    def of(p: Packing) -> Dims:
        taken = {d.name for d in p.c.sum.dims}
        lane, piece, word, place, q = (fresh(n, taken) for n in ("l", "g", "j", "k", "q"))
        inner = {n: Dim(fresh(f"{n}_in", taken), 0, step) for n, step in p.steps.items()}
        rows = tuple(replace(d, hi=rounds(d) // p.steps[d.name]) for d in p.c.rows)
        return Dims(
            rows, Dim(piece, 0, p.pieces), Dim(lane, 0, p.lanes), inner, Dim(q, 0, p.step),
            p.c.depth, Dim(word, 0, p.words), Dim(place, 0, p.group),
        )  # fmt: skip

    @property
    def outer(self) -> tuple[Dim, ...]:
        return (*self.rows, self.piece)

    @property
    def window(self) -> tuple[Dim, ...]:
        return (*self.inner.values(), self.q)

    @property
    def reduced(self) -> tuple[Dim, ...]:
        return (*self.depth, self.word, self.place)


def packed_nest(p: Packing, name: str) -> Nest:
    """The convolution and its pooling over packed operands; it writes `Packing.dense`."""
    dims = Dims.of(p)
    statements = _statements(p, dims)
    params = tuple(_param(p, old, statements) for old in p.c.nest.params)
    tree = _schedule(p, dims, statements)
    return replace(p.c.nest, name=name, params=params, body=statements, schedule=(tree,))


def _statements(p: Packing, dims: Dims) -> tuple[Statement, ...]:
    c = p.c
    total = c.sum.targets[0].tensor
    across = (*dims.outer, *dims.window, dims.lane)
    target = _places(across)

    def at(places: tuple[Size, ...], e: Expr) -> Expr:
        def rule(e: Expr) -> Expr:
            if not isinstance(e, Load):
                return e
            return replace(e, indices=places if e.tensor == total else _places((dims.lane,)))

        return transform(e, rule)

    operands = _operands(p, dims)
    first = at(target, c.first.values[0])
    products = transform(c.sum.values[0], lambda e: operands.get(e, e))
    outer = _places(dims.outer)
    each = [
        at((*outer, *chosen, var(dims.lane.name)), c.last.values[0])
        for chosen in product(*(range(rounds(d)) for d in dims.window))
    ]
    written = (*dims.outer, dims.lane)
    y = Access(p.y.name, _places(written))
    t = (Access(total, target),)
    return (
        replace(c.first, dims=across, targets=t, values=(first,)),
        replace(c.sum, dims=(*across, *dims.reduced), targets=t, values=(products,)),
        replace(c.last, dims=written, targets=(y,), values=(_combined(p, each),)),
    )


def _places(dims: tuple[Dim, ...]) -> tuple[Size, ...]:
    return tuple(var(d.name) for d in dims)


def _operands(p: Packing, dims: Dims) -> dict[Expr, Expr]:
    """The two loads of the products, by those of the convolution."""
    c = p.c
    moved = {d.name: p.steps[d.name] * var(d.name) + var(dims.inner[d.name].name) for d in c.rows}
    rows = zip(c.x.indices[:-1], p.border.before[:-1], strict=True)
    start = p.step * p.pixels * var(dims.piece.name)
    start = start + p.group * var(dims.word.name) + var(dims.place.name)
    x = (*(substitute(i, moved) + n for i, n in rows), start)
    w = (*dims.window, *dims.depth, dims.word, dims.lane, dims.place)
    return {
        c.x: Load(c.x.tensor, x, c.x.dtype),
        c.w: Load(c.w.tensor, _places(w), c.w.dtype),
    }


def _combined(p: Packing, each: list[Expr]) -> Expr:
    """The values of a window as one."""
    if p.window is None:
        return each[0]
    fn = BUILTIN_COMBINES[p.window.combine]
    is_needed = not is_identity(p.window.combine, p.window.start)
    value, *others = [p.window.start, *each] if is_needed else each
    for e in others:
        value = Apply(fn, (value, e), e.dtype)
    return value


def _param(p: Packing, old: Param, statements: tuple[Statement, ...]) -> Param:
    def typed(shape: tuple[Size, ...]) -> Param:
        return replace(old, type=TensorType(old.type.dtype, shape), layout=None)

    first, total, last = statements
    if old.name == p.c.x.tensor:
        return p.border.padded
    if old.role == "local":
        return typed(tuple(d.extent for d in first.dims))
    if old.role == "out":
        return replace(typed(tuple(d.extent for d in last.dims)), name=p.y.name)
    if old.name != p.c.w.tensor:
        return typed((p.lanes,))
    extents = {d.name: d.extent for d in total.dims}
    (load,) = (x for x in loads(total.values[0]) if x.tensor == old.name)
    shape = tuple(extents[str(i)] for i in load.indices)
    return replace(typed(shape), layout=Layout(_axes(len(shape)), shape))


def _axes(rank: int) -> tuple[Size, ...]:
    return tuple(var(f"d{k}") for k in range(rank))


def _schedule(p: Packing, dims: Dims, statements: tuple[Statement, ...]) -> Schedule:
    first, total, last = statements
    semantic = p.c.operation.semantics.statements[-1]
    (inner,) = semantic.reduction_dims
    (over,) = (d.name for d in semantic.dims if d.name != inner)
    lane, place = dims.lane.name, dims.place.name

    def each(node: Schedule) -> Schedule:
        for d in reversed(dims.window):
            node = Band(d.name, 1, "unroll", (node,))
        return node

    def in_lanes(s: Statement) -> Schedule:
        return Band(lane, p.lanes, "vector", (Leaf(s.name),))

    leaf = Leaf(total.name, p.c.operation.name, ((over, lane), (inner, place)))
    core: Schedule = Band(lane, p.lanes, "unroll", (leaf,))
    core = Band(place, p.group, "unroll", (core,))
    loops = dims.reduced[:-1]
    kind: Literal["unroll", "serial"] = (
        "unroll" if prod(map(rounds, loops)) <= WRITTEN_OUT else "serial"
    )
    for d in reversed(loops):
        core = Band(d.name, 1, kind, (core,))
    core = each(core)  # outside: sums go from operation to operation, not by registers
    local = next(x.name for x in p.c.nest.locals)
    node: Schedule = Local((local,), "registers", (each(in_lanes(first)), core, in_lanes(last)))
    for d in sorted(dims.outer, key=rounds, reverse=True):  # the longest loop overlaps best
        node = Band(d.name, 1, "serial", (node,))
    return node
