"""Loops code of a scheduled nest.

The schedule tree is walked from the root with a `Place` that says what is left of each
dimension. A band becomes a loop over pieces (cut at borders, see `guards`; a remainder that does
not fill a piece is written out after the loop), copies of its body (`unroll`), or lanes
(`vector`). A local tensor becomes registers, one for each element of its piece, or an array.
A leaf becomes the statement's code at its place (see `leaf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from nncc.diagnostics import PassError
from nncc.ir.expr import Const
from nncc.ir.index import Size, ceildiv, var
from nncc.ir.loops import Alloc, Assign, Buffer, Declare, For, Function, If, Stmt
from nncc.ir.nests import (
    Band,
    Dim,
    Item,
    Leaf,
    Local,
    Nest,
    Param,
    Scan,
    Schedule,
    Statement,
    walk_schedule,
    walk_statements,
)
from nncc.machines.machine import Operation
from nncc.passes.emission.elements import with_physical_elements
from nncc.passes.emission.guards import cut
from nncc.passes.emission.leaf import LeafWriter, NotVectorizable
from nncc.passes.emission.pieces import Lanes, Piece, Place
from nncc.passes.emission.scope import Scope


def emit_nest(nest: Nest, operations: Mapping[str, Operation]) -> Function:
    """The Loops function of `nest`: its parameters in order, then locals that need memory.

    Args:
        nest: with its schedule; None stands for the order of the text.
        operations: the machine operations that leaves may name.

    Raises:
        PassError: if the schedule cannot be carried out, naming the nest and the band.
    """
    return _Writer(with_physical_elements(nest), operations).function()


def default_schedule(items: tuple[Item, ...]) -> tuple[Schedule, ...]:
    """The tree that stands for the order of the text."""
    return tuple(
        Band(i.dim.name, 1, "serial", default_schedule(i.body))
        if isinstance(i, Scan)
        else Leaf(i.name)
        for i in items
    )


def buffer_of(param: Param) -> Buffer:
    """The physical buffer of a nest's parameter."""
    shape = param.layout.extents if param.layout else param.type.shape
    return Buffer(param.name, param.type.dtype, shape, access=param.role)


class _Writer:
    def __init__(self, nest: Nest, operations: Mapping[str, Operation]) -> None:
        self.nest = nest
        self.operations = operations
        self.statements: dict[str, Statement] = {}
        self.dims: dict[str, tuple[Dim, ...]] = {}
        for s, scans in walk_statements(nest.body):
            self.statements[s.name] = s
            self.dims[s.name] = (*scans, *s.dims)
        self.taken: set[str] = {p.name for p in nest.params} | set(nest.sizes)

    def function(self) -> Function:
        tree = self.nest.schedule
        if tree is None:
            tree = default_schedule(self.nest.body)
        placed = {t for n in walk_schedule(tree) if isinstance(n, Local) for t in n.tensors}
        scope = Scope()
        self.leaves = LeafWriter(self.nest, self.operations, self.fresh)
        self.block(tree, Place({}), scope)
        buffers = [buffer_of(p) for p in self.nest.params if p.name not in placed]
        return Function(
            self.nest.name,
            tuple(buffers),
            self.nest.sizes,
            tuple(scope.statements),
            location=self.nest.location,
        )

    def fresh(self, stem: str) -> str:
        """A name that nothing else in the function has."""
        name, k = stem, 1
        while name in self.taken:
            k += 1
            name = f"{stem}_{k}"
        self.taken.add(name)
        return name

    # -- the walk --------------------------------------------------------------------------
    def block(self, tree: tuple[Schedule, ...], place: Place, scope: Scope) -> None:
        for node in tree:
            if isinstance(node, Leaf):
                self.leaf(node, place, scope)
            elif isinstance(node, Local):
                self.local(node, place, scope)
            else:
                self.band(node, place, scope)

    def leaf(self, leaf: Leaf, place: Place, scope: Scope) -> None:
        statement = self.statements[leaf.statement]
        if place.scalar:  # without its operation, which works on vectors
            leaf = Leaf(leaf.statement)
        consumed = {d for _, d in leaf.dims}
        place = self.enter(place, statement.name)
        for d in self.dims[statement.name]:
            fixed = place.pieces[d.name].is_point or d.name in consumed
            if not fixed and not (place.vector and place.vector.dim == d.name):
                kind: Literal["unroll", "serial"] = "unroll" if place.scalar else "serial"
                self.band(Band(d.name, 1, kind, (leaf,)), place, scope)
                return
        self.leaves.write(statement, leaf, place, scope)

    def enter(self, place: Place, statement: str) -> Place:
        """`place` with the dimensions that no enclosing band has touched at full extent."""
        for d in self.dims[statement]:
            if d.name not in place.pieces:
                place = place.at(d.name, Piece(place.size(d.lo), place.size(d.hi - d.lo)))
        return place

    def band(self, band: Band, place: Place, scope: Scope) -> None:
        below = tuple(
            self.statements[n.statement] for n in walk_schedule(band.body) if isinstance(n, Leaf)
        )
        for s in below:
            place = self.enter_dim(place, s, band)
        piece = place.pieces[band.dim]
        if band.kind == "vector":
            self.vector(band, place, scope)
            return
        count = ceildiv(piece.extent, band.step)
        if count == 1:
            self.block(band.body, place, scope)
        elif band.kind == "unroll":
            for k in range(self.static(count, band)):
                self.piece(band, place, k, scope)
        else:
            self.loop(band, below, place, count, scope)

    def enter_dim(self, place: Place, statement: Statement, band: Band) -> Place:
        if band.dim in place.pieces:
            return place
        for d in self.dims[statement.name]:
            if d.name == band.dim:
                return place.at(d.name, Piece(place.size(d.lo), place.size(d.hi - d.lo)))
        raise PassError(
            f"nest {self.nest.name}: the band over '{band.dim}' holds statement "
            f"'{statement.name}', which has no such dimension",
            self.nest.location,
        )

    def static(self, size: Size, band: Band) -> int:
        if isinstance(size, int):
            return size
        raise PassError(
            f"nest {self.nest.name}: cannot {band.kind} '{band.dim}': {size} pieces are not a "
            "literal number",
            self.nest.location,
            help="tile the dimension first, so that a literal piece is left",
        )

    def piece(self, band: Band, place: Place, k: int, scope: Scope) -> None:
        """The body for piece number `k`, written out."""
        outer = place.pieces[band.dim]
        extent: Size = band.step
        if isinstance(outer.extent, int):
            extent = min(self.static(band.step, band), outer.extent - k * band.step)  # type: ignore[type-var]
        base = outer.base + k * band.step
        self.block(band.body, place.at(band.dim, Piece(base, extent)), scope)

    def loop(
        self,
        band: Band,
        below: tuple[Statement, ...],
        place: Place,
        count: Size,
        scope: Scope,
    ) -> None:
        outer = place.pieces[band.dim]
        how = cut(self.nest, place, band, below, count, self.enter)
        if how.clamp is not None:
            self.clamped(band, place, how.clamp, how.facts, scope)
            return
        first, last = how.first, how.last
        full = outer.extent // band.step  # pieces that are whole
        partial = count - full
        if isinstance(first, int) and isinstance(count, int):
            assert isinstance(last, int) and isinstance(full, int)
            for k in range(first):
                self.piece(band, place, k, scope)
            stop = max(first, min(last, full))
            self.pieces(band, place, first, stop, scope)
            for k in range(stop, count):
                self.piece(band, place, k, scope)
            return
        self.pieces(band, place, 0, full, scope)
        if partial != 0:
            self.remainder(band, place, full, scope)

    def pieces(self, band: Band, place: Place, first: Size, last: Size, scope: Scope) -> None:
        """A loop over the whole pieces first..last."""
        if first == last:
            return
        if isinstance(last, int) and last - first == 1 and isinstance(first, int):
            self.piece(band, place, first, scope)
            return
        outer = place.pieces[band.dim]
        variable = self.fresh(band.dim if band.step == 1 else f"{band.dim}_t")
        inner = place.within(variable, first, last).at(
            band.dim, Piece(outer.base + var(variable) * band.step, band.step)
        )
        self.write_for(band, variable, first, last, inner, scope)

    def write_for(
        self, band: Band, variable: str, lo: Size, hi: Size, place: Place, scope: Scope
    ) -> None:
        body = scope.inner()
        self.block(band.body, place, body)
        kind: Literal["parallel", "serial"] = "serial"
        if band.kind == "parallel":
            kind = "parallel"
        if body.statements:
            scope.add(For(variable, lo, hi, tuple(body.statements), kind=kind))

    def clamped(
        self,
        band: Band,
        place: Place,
        limits: tuple[Size, Size],
        conditions: tuple[Size, ...],
        scope: Scope,
    ) -> None:
        lo, hi = limits
        variable = self.fresh(band.dim)
        inner = place.within(variable, lo, hi).at(band.dim, Piece(var(variable), 1))
        inner = inner.knowing(*(inner.size(c) for c in conditions))
        self.write_for(band, variable, lo, hi, inner, scope)

    def remainder(self, band: Band, place: Place, full: Size, scope: Scope) -> None:
        """What a symbolic extent leaves after its whole pieces: one at a time."""
        outer = place.pieces[band.dim]
        start = full * band.step
        variable = self.fresh(band.dim)
        inner = place.within(variable, start, outer.extent).at(
            band.dim, Piece(outer.base + var(variable), 1)
        )
        self.write_for(band, variable, start, outer.extent, inner, scope)

    # -- vectors ---------------------------------------------------------------------------
    def vector(self, band: Band, place: Place, scope: Scope) -> None:
        piece = place.pieces[band.dim]
        lanes = self.static(band.step, band)
        if place.scalar:
            self.band(replace(band, step=1, kind="unroll"), place, scope)
            return
        if isinstance(piece.extent, int) and piece.extent <= lanes:
            self.lanes_of(band, place, piece.extent, lanes, scope)
            return
        loop = Band(band.dim, lanes, "serial", (band,))
        self.loop(loop, (), place, ceildiv(piece.extent, lanes), scope)

    def lanes_of(self, band: Band, place: Place, active: int, lanes: int, scope: Scope) -> None:
        """At most `lanes` iterations at once; one after the other where that is impossible."""
        inner = replace(place, vector=Lanes(band.dim, lanes, active))
        trial = scope.copy()
        taken = set(self.taken)
        try:
            self.block(band.body, inner, trial)
        except NotVectorizable:
            self.taken = taken
            self.band(replace(band, step=1, kind="serial"), place, scope)
            return
        scope.replace(trial)

    # -- local tensors ---------------------------------------------------------------------
    def local(self, node: Local, place: Place, scope: Scope) -> None:
        for tensor in node.tensors:
            for s in self.statements.values():
                if any(t.tensor == tensor for t in s.targets):
                    place = self.enter(place, s.name)
        origins = {t: self.leaves.local_range(t, place) for t in node.tensors}
        place = replace(place, origins={**place.origins, **origins})
        if node.space == "registers":
            self.registers(node, place, scope)
            return
        inner = scope.inner()
        self.block(node.body, place, inner)
        body = tuple(inner.statements)
        for tensor in node.tensors:
            buffer = self.leaves.piece_buffer(tensor, place, node.space)
            body = (Alloc(buffer, body),)
        for statement in body:
            scope.add(statement)

    def registers(self, node: Local, place: Place, scope: Scope) -> None:
        """Emits the body, then turns the first assignment of each register into its Declare."""
        self.leaves.enter_registers(node.tensors)
        inner = scope.copy()
        start = len(inner.statements)
        taken = set(self.taken)
        try:
            self.block(node.body, place, inner)
        except NotVectorizable:
            # One statement alone has no vector form, and registers have one form for all.
            if place.vector or place.scalar:
                raise
            self.taken = taken
            self.registers(node, replace(place, scalar=True), scope)
            return
        registers = self.leaves.leave_registers(node.tensors)
        written = inner.statements[start:]
        declared: set[str] = set()
        nested = _assigned_inside(written)
        result: list[Stmt] = []
        for position, s in enumerate(written):
            first = isinstance(s, Assign) and s.name in registers and s.name not in declared
            if isinstance(s, Assign) and first and nested.get(s.name, position) >= position:
                declared.add(s.name)
                s = Declare(s.name, s.value)
            result.append(s)
        undeclared = [r for r in registers if r not in declared]
        zeros: list[Stmt] = [
            Declare(r, Const(0.0 if t.dtype.is_float else 0, t.dtype, t.lanes))
            for r, t in registers.items()
            if r in undeclared
        ]
        inner.statements[start:] = [*zeros, *result]
        scope.replace(inner)


def _assigned_inside(statements: list[Stmt]) -> dict[str, int]:
    """Position of the first compound statement that assigns each register inside it."""
    found: dict[str, int] = {}

    def visit(body: tuple[Stmt, ...], position: int) -> None:
        for s in body:
            if isinstance(s, Assign):
                found.setdefault(s.name, position)
            elif isinstance(s, For | Alloc):
                visit(s.body, position)
            elif isinstance(s, If):
                visit(s.then, position)
                visit(s.otherwise, position)

    for k, s in enumerate(statements):
        if isinstance(s, For | Alloc):
            visit(s.body, k)
        elif isinstance(s, If):
            visit(s.then, k)
            visit(s.otherwise, k)
    return found
