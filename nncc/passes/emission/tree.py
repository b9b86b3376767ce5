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
from nncc.ir.expr import loads
from nncc.ir.index import Size, ceildiv, var, variables
from nncc.ir.loops import Alloc, Buffer, For, Function
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
from nncc.passes.emission.addresses import Addresses, NotVectorizable
from nncc.passes.emission.declare import declared
from nncc.passes.emission.elements import with_physical_elements
from nncc.passes.emission.guards import cut
from nncc.passes.emission.leaf import REDUCE_LANES, LeafWriter
from nncc.passes.emission.pieces import Lanes, Piece, Place
from nncc.passes.emission.scope import Names, Scope

Mark = tuple[tuple[int, int], int, dict[str, tuple[int, int]]]


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
        self.statements: dict[str, Statement] = {}
        self.dims: dict[str, tuple[Dim, ...]] = {}
        for s, scans in walk_statements(nest.body):
            self.statements[s.name] = s
            self.dims[s.name] = (*scans, *s.dims)
        self.names = Names([*(p.name for p in nest.params), *nest.sizes])
        self.addresses = Addresses(nest, self.names)
        self.leaves = LeafWriter(nest, operations, self.addresses)

    def function(self) -> Function:
        tree = self.nest.schedule
        if tree is None:
            tree = default_schedule(self.nest.body)
        placed = {t for n in walk_schedule(tree) if isinstance(n, Local) for t in n.tensors}
        scope = Scope()
        self.block(tree, Place({}), scope)
        buffers = [buffer_of(p) for p in self.nest.params if p.name not in placed]
        return Function(
            self.nest.name,
            tuple(buffers),
            self.nest.sizes,
            tuple(scope.statements),
            location=self.nest.location,
        )

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
        for d in self.dims[statement.name]:
            place = self.enter(place, d)
            fixed = place.pieces[d.name].is_point or d.name in consumed
            if not fixed and not (place.vector and place.vector.dim == d.name):
                kind: Literal["unroll", "serial"] = "unroll" if place.scalar else "serial"
                self.band(Band(d.name, 1, kind, (leaf,)), place, scope)
                return
        self.leaves.write(statement, leaf, place, scope)

    def enter(self, place: Place, d: Dim) -> Place:
        """`place` with all of a dimension, if no band around has touched it."""
        if d.name in place.pieces:
            return place
        around = {x.name for dims in self.dims.values() for x in dims}
        needed = (variables(d.lo) | variables(d.hi)) & around
        for name in sorted(needed):
            if place.vector and place.vector.dim == name:
                raise NotVectorizable  # each lane would have a range of its own
            if name in place.pieces and place.pieces[name].is_point:
                continue
            raise PassError(
                f"nest {self.nest.name}: the range {d.lo}..{d.hi} of '{d.name}' depends on "
                f"'{name}', which the loops around do not fix",
                self.nest.location,
                help=f"put a loop over '{name}' of step 1 around the one over '{d.name}'",
            )
        return place.at(d.name, Piece(place.size(d.lo), place.size(d.hi - d.lo)))

    def widen(self, place: Place, statement: str) -> Place:
        """`place` with the largest range of each dimension that no band has touched."""
        for d in self.dims[statement]:
            if d.name in place.pieces:
                continue
            if place.open_dims(d.lo) | place.open_dims(d.hi):
                lo = place.span(d.lo)[0]
                place = place.at(d.name, Piece(lo, place.span(d.hi)[1] - lo))
            else:
                place = self.enter(place, d)
        return place

    def band(self, band: Band, place: Place, scope: Scope) -> None:
        below = tuple(
            self.statements[n.statement] for n in walk_schedule(band.body) if isinstance(n, Leaf)
        )
        if not below:
            return
        if band.dim not in place.pieces:
            place = self.enter(place, self.shared_dim(band, below))
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

    def shared_dim(self, band: Band, below: tuple[Statement, ...]) -> Dim:
        """The dimension of the outermost band over it, which is the same for all below."""
        found: dict[Dim, str] = {}
        for s in below:
            dim = next((d for d in self.dims[s.name] if d.name == band.dim), None)
            if dim is None:
                raise PassError(
                    f"nest {self.nest.name}: the band over '{band.dim}' holds statement "
                    f"'{s.name}', which has no such dimension",
                    self.nest.location,
                )
            found.setdefault(dim, s.name)
        if len(found) > 1:
            ranges = ", ".join(f"{d.lo}..{d.hi} in '{name}'" for d, name in found.items())
            raise PassError(
                f"nest {self.nest.name}: the band over '{band.dim}' holds statements with "
                f"different ranges of it: {ranges}",
                self.nest.location,
                help="give each of them a band of its own",
            )
        return next(iter(found))

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
        how = cut(self.nest, place, band, below, count, self.widen)
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
        variable = self.names.fresh(band.dim if band.step == 1 else f"{band.dim}_t")
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
        variable = self.names.fresh(band.dim)
        inner = place.within(variable, lo, hi).at(band.dim, Piece(var(variable), 1))
        inner = inner.knowing(*(inner.size(c) for c in conditions))
        self.write_for(band, variable, lo, hi, inner, scope)

    def remainder(self, band: Band, place: Place, full: Size, scope: Scope) -> None:
        """What a symbolic extent leaves after its whole pieces: one at a time."""
        outer = place.pieces[band.dim]
        start = full * band.step
        variable = self.names.fresh(band.dim)
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
        count = ceildiv(piece.extent, lanes)
        folded = self.folded(band, place)
        if folded is None:
            self.loop(loop, (), place, count, scope)
            return
        with self.leaves.folding(folded, lanes, place, scope):
            self.loop(loop, (), place, count, scope)

    def folded(self, band: Band, place: Place) -> Statement | None:
        """The reduction over all of a vector band into one element, if it holds nothing else."""
        (leaf, *others) = band.body
        if others or not isinstance(leaf, Leaf) or leaf.operation:
            return None
        s = self.statements[leaf.statement]
        if s.combine not in REDUCE_LANES or band.dim not in s.reduction_dims:
            return None
        if any(x.tensor == s.targets[0].tensor for x in loads(s.values[0])):
            return None
        others_fixed = all(
            d.name == band.dim or (d.name in place.pieces and place.pieces[d.name].is_point)
            for d in self.dims[s.name]
        )
        return s if others_fixed else None

    def lanes_of(self, band: Band, place: Place, active: int, lanes: int, scope: Scope) -> None:
        """At most `lanes` iterations at once; one after the other where that is impossible."""
        mark = self.mark(scope)
        try:
            self.block(band.body, place.in_lanes(Lanes(band.dim, lanes, active)), scope)
        except NotVectorizable:
            self.reset(scope, mark)
            self.band(replace(band, step=1, kind="serial"), place, scope)

    # -- trials ----------------------------------------------------------------------------
    def mark(self, scope: Scope) -> Mark:
        """Where a trial begins, for `reset` to take it back."""
        return scope.mark(), self.names.mark(), self.addresses.mark()

    def reset(self, scope: Scope, mark: Mark) -> None:
        block, names, registers = mark
        scope.reset(block)
        self.names.reset(names)
        self.addresses.reset(registers)

    # -- local tensors ---------------------------------------------------------------------
    def local(self, node: Local, place: Place, scope: Scope) -> None:
        wide = place
        for tensor in node.tensors:
            for s in self.statements.values():
                if any(t.tensor == tensor for t in s.targets):
                    wide = self.widen(wide, s.name)
        place = place.holding({t: self.addresses.local_range(t, wide) for t in node.tensors})
        if node.space == "registers":
            self.registers(node, place, scope)
            return
        inner = scope.inner()
        self.block(node.body, place, inner)
        body = tuple(inner.statements)
        for tensor in node.tensors:
            buffer = self.addresses.piece_buffer(tensor, place, node.space)
            body = (Alloc(buffer, body),)
        for statement in body:
            scope.add(statement)

    def registers(self, node: Local, place: Place, scope: Scope) -> None:
        """Emits the body, then turns the first assignment of each register into its Declare."""
        mark = self.mark(scope)
        self.addresses.enter_registers(node.tensors)
        start = len(scope.statements)
        try:
            self.block(node.body, place, scope)
        except NotVectorizable:
            # One statement alone has no vector form, and registers have one form for all.
            if place.vector or place.scalar:
                raise
            self.reset(scope, mark)
            self.registers(node, place.lane_by_lane(), scope)
            return
        registers = self.addresses.leave_registers(node.tensors)
        scope.statements[start:] = declared(scope.statements[start:], registers)
