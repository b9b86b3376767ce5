"""The code of one statement at a place where all its dimensions are fixed, or lanes.

Loads from inputs are named once a block and found again (`Scope.known`); a value that all lanes
share is broadcast. A leaf with a machine operation becomes that operation: the operands that its
semantics name are loaded with the lanes that their types state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from nncc.diagnostics import PassError
from nncc.ir.expr import (
    Apply,
    Const,
    Expr,
    Load,
    Name,
    Value,
    apply,
    broadcast,
    cast,
    loads,
    transform,
)
from nncc.ir.index import (
    Size,
    maximum,
    minimum,
    nonnegative,
    substitute,
    var,
    variables,
)
from nncc.ir.loops import Assign, Buffer, If, Let, Prefetch, Store
from nncc.ir.nests import ASSIGN, BUILTIN_COMBINES, Access, Leaf, Nest, Statement
from nncc.ir.types import i64
from nncc.machines.machine import Operation
from nncc.passes.emission.guards import is_identity, load_conditions, vanishes
from nncc.passes.emission.operation import match
from nncc.passes.emission.pieces import LANE, Lanes, LogicalRange, Place
from nncc.passes.emission.scope import Scope

REDUCE_LANES = {"sum": "reduce_add", "max": "reduce_max", "min": "reduce_min"}


class NotVectorizable(Exception):
    """The statement has no vector form at this place; the caller takes the lanes one by one."""


class LeafWriter:
    """Writes the instances of a nest's statements; `fresh` makes names that nothing else has."""

    def __init__(
        self, nest: Nest, operations: Mapping[str, Operation], fresh: Callable[[str], str]
    ) -> None:
        self.nest = nest
        self.operations = operations
        self.fresh = fresh
        # local tensor -> offset of an element in its piece -> the register that holds it
        self.registers: dict[str, dict[tuple[int, ...], Name]] = {}
        self.borders: dict[Load, tuple[Size, ...]] = {}  # what a bordered load must check
        for s in nest.statements:
            for load in (x for v in s.values for x in loads(v) if x.other is not None):
                self.borders[load] = load_conditions(nest, s, load)
        self.leaf = Leaf("")  # the one being written
        # (tensor, logical subscripts) -> physical ones, over the dimensions of the nest
        self._subscripts: dict[tuple[str, tuple[Size, ...]], tuple[Size, ...]] = {}

    # -- local tensors ---------------------------------------------------------------------
    def enter_registers(self, tensors: tuple[str, ...]) -> None:
        for t in tensors:
            self.registers[t] = {}

    def leave_registers(self, tensors: tuple[str, ...]) -> dict[str, Name]:
        """The registers that were made for `tensors`, by name."""
        made: dict[str, Name] = {}
        for t in tensors:
            made |= {r.name: r for r in self.registers.pop(t).values()}
        return made

    def piece_buffer(self, tensor: str, place: Place, space: str) -> Buffer:
        """The array for the piece of a local tensor that is alive at `place`."""
        low, high = place.origins[tensor]
        shape = tuple(h - lo + 1 for lo, h in zip(low, high, strict=True))
        return Buffer(tensor, self.nest.param(tensor).type.dtype, shape, "local", space)

    def local_range(self, tensor: str, place: Place) -> LogicalRange:
        """Lowest and highest logical indices that are written of `tensor` below `place`."""
        origin = replace(place, vector=None)
        ends: list[tuple[Size, Size]] = []
        for s in self.nest.statements:
            for t in s.targets:
                if t.tensor == tensor:
                    spans = [origin.span(i) for i in t.indices]
                    ends = [
                        (minimum(a, c), maximum(b, d))
                        for (a, b), (c, d) in zip(ends or spans, spans, strict=True)
                    ]
        return tuple(a for a, _ in ends), tuple(b for _, b in ends)

    def _register(self, tensor: str, indices: tuple[Size, ...], place: Place) -> Name:
        low, _ = place.origins[tensor]
        offsets: list[int] = []
        lanes = 1
        for index, origin in zip(indices, low, strict=True):
            at = place.size(index)
            if LANE in variables(at):
                assert place.vector is not None
                lanes = place.vector.lanes
                at = substitute(at, {LANE: 0})
            offset = at - origin
            if not isinstance(offset, int):
                raise PassError(
                    f"nest {self.nest.name}: '{tensor}' cannot live in registers: element "
                    f"[{','.join(str(i) for i in indices)}] is chosen at run time by {offset}",
                    self.nest.location,
                    help="unroll the loops inside its scope, or place it in a memory",
                )
            offsets.append(offset)
        key = tuple(offsets)
        made = self.registers[tensor]
        if key not in made:
            name = self.fresh("_".join([tensor, *(str(o) for o in offsets)]))
            made[key] = Name(name, self.nest.param(tensor).type.dtype, lanes)
        if made[key].lanes != lanes:
            raise NotVectorizable
        return made[key]

    # -- addresses -------------------------------------------------------------------------
    def _physical(self, tensor: str, indices: tuple[Size, ...], place: Place) -> tuple[Size, ...]:
        """Physical subscripts at `place`, with LANE where lanes differ."""
        if tensor in place.origins:
            low, _ = place.origins[tensor]
            return tuple(place.size(i) - o for i, o in zip(indices, low, strict=True))
        key = (tensor, indices)
        if key not in self._subscripts:
            layout = self.nest.param(tensor).layout
            values = {f"d{k}": i for k, i in enumerate(indices)}
            self._subscripts[key] = (
                indices if layout is None else tuple(substitute(d, values) for d in layout.dims)
            )
        return tuple(place.size(i) for i in self._subscripts[key])

    def _extents(self, tensor: str, place: Place) -> tuple[Size, ...]:
        param = self.nest.param(tensor)
        if tensor in place.origins:
            return self.piece_buffer(tensor, place, "").shape
        return param.layout.extents if param.layout else param.type.shape

    def _vector_access(
        self, tensor: str, physical: tuple[Size, ...], place: Place
    ) -> tuple[tuple[Size, ...], Size | None, bool]:
        """(subscripts of the first lane, active lanes or None for all, whether lanes differ)."""
        if not any(LANE in variables(p) for p in physical):
            return physical, None, False
        assert place.vector is not None
        first = tuple(substitute(p, {LANE: 0}) for p in physical)
        if any(LANE in variables(p) for p in physical[:-1]) or physical[-1] - first[-1] != var(
            LANE
        ):
            raise NotVectorizable
        vector = place.vector
        if vector.active == vector.lanes:
            return first, None, True
        room = self._extents(tensor, place)[-1] - vector.lanes
        _, highest = replace(place, pieces={}, vector=None).extremes(first[-1])
        padded = self.nest.param(tensor).layout is not None and nonnegative(room - highest)
        return first, None if padded else vector.active, True

    # -- expressions -----------------------------------------------------------------------
    def value(self, e: Expr, place: Place, scope: Scope) -> Expr:
        """`e` at `place`, as Loops code; it has 1 lane where all lanes share it."""
        if isinstance(e, Const):
            return e
        if isinstance(e, Value):
            size = place.size(e.size)
            if LANE in variables(size):
                raise NotVectorizable
            return Const(size, e.dtype) if isinstance(size, int) else Value(size, e.dtype)
        if isinstance(e, Load):
            return self._load(e, place, scope)
        assert isinstance(e, Apply), "a verified nest has no other expressions"
        args = tuple(self.value(a, place, scope) for a in e.args)
        return _apply(e, args)

    def _load(self, e: Load, place: Place, scope: Scope) -> Expr:
        if e.tensor in self.registers:
            return self._register(e.tensor, e.indices, place)
        undecided: list[Size] = []
        if e.other is not None:
            for c in self.borders[e]:
                holds = place.decide(c)
                if holds is False:
                    return self.value(e.other, place, scope)
                if holds is None:
                    undecided.append(place.size(c))
        if any(LANE in variables(c) for c in undecided):
            raise NotVectorizable
        if not undecided:
            return self._inside(e, place, scope)
        return self._bordered(e, undecided, place, scope)

    def _bordered(self, e: Load, conditions: list[Size], place: Place, scope: Scope) -> Expr:
        """A load that may be outside: of the nearest element inside, if its lanes allow."""
        assert e.other is not None
        shape = self.nest.param(e.tensor).type.shape
        nearest = tuple(
            maximum(0, minimum(i, x - 1)) if place.decide(i) is None or place.decide(x - 1 - i)
            is None else i
            for i, x in zip(e.indices, shape, strict=True)
        )  # fmt: skip
        inside = self._inside(replace(e, indices=nearest, other=None), place, scope)
        other = self.value(e.other, place, scope)
        test: Expr | None = None
        for c in conditions:
            one = apply("ge", Value(c, i64), Const(0, i64))
            test = one if test is None else apply("and", test, one)
        assert test is not None
        lanes = max(inside.lanes, other.lanes)
        return apply("select", *(_spread(x, lanes) for x in (test, inside, other)))

    def _inside(self, e: Load, place: Place, scope: Scope) -> Expr:
        physical = self._physical(e.tensor, e.indices, place)
        first, count, varies = self._vector_access(e.tensor, physical, place)
        lanes = place.vector.lanes if varies and place.vector else 1
        return self._named_load(e.tensor, first, e, lanes, count, place, scope)

    def _named_load(
        self,
        tensor: str,
        first: tuple[Size, ...],
        e: Load,
        lanes: int,
        count: Size | None,
        place: Place,
        scope: Scope,
    ) -> Expr:
        load = Load(tensor, first, e.dtype, None, lanes, count)
        if self.nest.param(tensor).role != "in":
            return load  # it may be written between two reads
        if known := scope.known(load):
            return known
        if distance := dict(self.leaf.prefetch).get(tensor):
            further = distance * 8 // e.dtype.bits
            scope.add(Prefetch(tensor, (*first[:-1], first[-1] + further)))
        return scope.name(load, self.fresh(f"{tensor}_v"), load)

    # -- statements ------------------------------------------------------------------------
    def write(self, s: Statement, leaf: Leaf, place: Place, scope: Scope) -> None:
        """Adds the code of one instance (or one vector of instances) of `s` to `scope`."""
        self.leaf = leaf
        test: Expr | None = None
        for c in s.where:
            holds = place.decide(c)
            if holds is False:
                return
            if holds is None:
                if LANE in variables(place.size(c)):
                    raise NotVectorizable
                one = apply("ge", Value(place.size(c), i64), Const(0, i64))
                test = one if test is None else apply("and", test, one)
        if test is None:
            self._write(s, leaf, place, scope)
            return
        inner = scope.inner()
        self._write(s, leaf, place, inner)
        scope.add(If(test, tuple(inner.statements)))

    def _write(self, s: Statement, leaf: Leaf, place: Place, scope: Scope) -> None:
        if leaf.operation:
            self._operation(s, leaf, place, scope)
            return
        values = [self.value(v, place, scope) for v in s.values]
        if len(values) == 1:
            self._update(s.targets[0], s.combine, values[0], place, scope)
            return
        self._tuple_update(s, values, place, scope)

    def _update(
        self, target: Access, combine: str, value: Expr, place: Place, scope: Scope
    ) -> None:
        if combine == ASSIGN:
            self._put(target, value, place, scope)
            return
        if is_identity(combine, value):
            return
        old = self._get(target, place)
        if value.lanes > 1 and old.lanes == 1:
            assert place.vector is not None
            if combine not in REDUCE_LANES or place.vector.active != place.vector.lanes:
                raise NotVectorizable
            value = Apply(REDUCE_LANES[combine], (value,), value.dtype, 1)
        elif value.lanes == 1 and place.vector and old.lanes == 1:
            raise NotVectorizable  # each lane would fold the same value
        new = apply(BUILTIN_COMBINES[combine], old, _spread(value, old.lanes))
        self._put(target, new, place, scope)

    def _tuple_update(self, s: Statement, values: list[Expr], place: Place, scope: Scope) -> None:
        """A combine over tuples: all components are computed before any is written."""
        if place.vector:
            raise NotVectorizable
        if s.combine == ASSIGN:
            results = values
        else:
            combine = next(c for c in self.nest.combines if c.name == s.combine)
            names: dict[str, Expr] = {}
            for k, (t, v) in enumerate(zip(s.targets, values, strict=True)):
                names[f"a{k}"], names[f"b{k}"] = self._get(t, place), v
            results = [_bind(v, names) for v in combine.values]
        kept: list[Expr] = []
        for v in results:
            name = self.fresh("new")
            scope.add(Let(name, v))
            kept.append(Name(name, v.dtype, v.lanes))
        for t, v in zip(s.targets, kept, strict=True):
            self._put(t, v, place, scope)

    def _get(self, target: Access, place: Place) -> Expr:
        if target.tensor in self.registers:
            return self._register(target.tensor, target.indices, place)
        physical = self._physical(target.tensor, target.indices, place)
        first, count, varies = self._vector_access(target.tensor, physical, place)
        lanes = place.vector.lanes if varies and place.vector else 1
        dtype = self.nest.param(target.tensor).type.dtype
        return Load(target.tensor, first, dtype, None, lanes, count)

    def _put(self, target: Access, value: Expr, place: Place, scope: Scope) -> None:
        if target.tensor in self.registers:
            register = self._register(target.tensor, target.indices, place)
            if value.lanes > register.lanes:
                raise NotVectorizable
            scope.add(Assign(register.name, _spread(value, register.lanes)))
            return
        physical = self._physical(target.tensor, target.indices, place)
        first, count, varies = self._vector_access(target.tensor, physical, place)
        if not varies:
            if value.lanes > 1:
                raise NotVectorizable
            scope.add(Store(target.tensor, first, value))
            return
        assert place.vector is not None
        scope.add(Store(target.tensor, first, _spread(value, place.vector.lanes), count))

    # -- machine operations ----------------------------------------------------------------
    def _operation(self, s: Statement, leaf: Leaf, place: Place, scope: Scope) -> None:
        operation = self.operations.get(leaf.operation)
        if operation is None:
            raise PassError(
                f"nest {self.nest.name}: the machine has no operation '{leaf.operation}'",
                self.nest.location,
            )
        found = match(operation, s, dict(leaf.dims))
        if found is None:
            raise PassError(
                f"nest {self.nest.name}: statement '{s.name}' is not what operation "
                f"'{leaf.operation}' computes",
                self.nest.location,
            )
        if any(self._skips(s, load, place) for load in found):
            return
        accumulator = self._operand(
            operation, 0, Load(s.targets[0].tensor, s.targets[0].indices, s.values[0].dtype),
            leaf, place, scope,
        )  # fmt: skip
        if not isinstance(accumulator, Name):
            raise PassError(
                f"nest {self.nest.name}: the accumulator of '{leaf.operation}' is "
                f"'{s.targets[0].tensor}', which is not in registers",
                self.nest.location,
                help="put the leaf inside `local … in registers`",
            )
        args: list[Expr] = [accumulator]
        for k, load in enumerate(found, start=1):
            args.append(self._operand(operation, k, load, leaf, place, scope))
        lanes = accumulator.lanes
        result = Apply(operation.name, tuple(args), accumulator.dtype, lanes)
        scope.add(Assign(accumulator.name, result))

    def _skips(self, s: Statement, load: Load, place: Place) -> bool:
        """Whether `load` is outside its tensor here, and the instance therefore has no effect."""
        return (
            load.other is not None
            and vanishes(s, load)
            and any(place.decide(c) is False for c in self.borders[load])
        )

    def _operand(
        self,
        operation: Operation,
        position: int,
        load: Load,
        leaf: Leaf,
        place: Place,
        scope: Scope,
    ) -> Expr:
        """Operand `position` with the lanes of its type."""
        param = operation.semantics.params[position]
        lanes = 1
        for extent in param.type.static_shape:
            lanes *= extent
        dims = dict(leaf.dims)
        varying = [dims[d] for d in _dims_of(operation, position)]
        if not varying:
            e = self.value(load, replace(place, vector=None), scope)
        else:
            # the first varying dimension runs over the lanes; the others are neighbours in memory
            outer = varying[0]
            steps = lanes // param.type.static_shape[0]
            active = place.pieces[outer].extent
            assert isinstance(active, int)
            if steps == 1:
                inner = replace(place, vector=Lanes(outer, lanes, min(active, lanes)))
                e = self.value(load, inner, scope)
            else:
                e = self._block_load(load, lanes, place, scope)
        return _spread(e, lanes)

    def _block_load(self, load: Load, lanes: int, place: Place, scope: Scope) -> Expr:
        """`lanes` neighbours in the order of memory, from the bases of the pieces on."""
        first = self._physical(load.tensor, load.indices, replace(place, vector=None))
        return self._named_load(load.tensor, first, load, lanes, None, place, scope)


def _dims_of(operation: Operation, position: int) -> tuple[str, ...]:
    """The operation's dimensions in the subscripts of one of its operands, in order."""
    statement = operation.semantics.statements[-1]
    name = operation.semantics.params[position].name
    if position == 0:
        indices = statement.targets[0].indices
    else:
        indices = next(x for x in loads(statement.values[0]) if x.tensor == name).indices
    return tuple(str(i) for i in indices)


def _spread(e: Expr, lanes: int) -> Expr:
    if isinstance(e, Const):
        return replace(e, lanes=lanes)
    return broadcast(e, lanes)


def _apply(e: Apply, args: tuple[Expr, ...]) -> Expr:
    lanes = max(a.lanes for a in args)
    spread = tuple(_spread(a, lanes) for a in args)
    if e.fn == "cast":
        return cast(e.dtype, spread[0])
    return apply(e.fn, *spread)


def _bind(e: Expr, names: Mapping[str, Expr]) -> Expr:
    return transform(e, lambda x: names[x.name] if isinstance(x, Name) else x)
