"""Schedule nests that are no contraction: elementwise, reductions, pooling, rows, transposes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.expr import Load, Value, loads, walk
from nncc.ir.graph import Module
from nncc.ir.index import Size, elements, product, substitute, var, variables
from nncc.ir.nests import (
    ASSIGN,
    Access,
    Band,
    Dim,
    Item,
    Leaf,
    Local,
    Nest,
    Scan,
    Schedule,
    Statement,
    walk_statements,
)
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.emission.guards import guards
from nncc.passes.strides import stride

FOLDS = frozenset({"sum", "max", "min"})  # combines that lanes can be folded with at the end
LONG = 16  # vectors of a row whose reduction gains from two sums
STACK_BYTES = 1 << 16  # a piece of a local tensor up to this size lives on the stack


@dataclass(frozen=True)
class Vectorize(Pass):
    """Give every nest without a schedule its loops, with a contiguous dimension in lanes.

    for n, m { y[n,m] = max(x[n,m], 0) }  →  for n { vector m by 16 { relu } }

    Loops that all statements share, and through which no value flows from one iteration to
    another, go outside; local tensors live in registers or on the stack inside them.

    Args:
        node: only the nest of this name.
    """

    name: ClassVar[str] = "vectorize"
    node: str = ""

    def run(self, module: Module, target: Machine) -> Module:
        nests = dict(module.nests)
        for name, nest in module.nests.items():
            if nest.schedule is None and self.node in ("", name):
                nests[name] = replace(nest, schedule=build_tree(nest, target))
        return module if nests == module.nests else replace(module, nests=nests)


def build_tree(nest: Nest, machine: Machine) -> tuple[Schedule, ...]:
    """The schedule of `nest` for the machine's vectors."""
    lanes = max(1, machine.vector_bytes // 4)
    return _Builder(nest, lanes, whole=machine.architecture is not None).tree()


class _Builder:
    """Args:
    whole: whether vectors are loaded and stored whole only, at multiples of their length, and
        not folded into one lane.
    """

    def __init__(self, nest: Nest, lanes: int, *, whole: bool) -> None:
        self.nest = nest
        self.lanes, self.whole = lanes, whole
        self.all_dims = {s.name: (*scans, *s.dims) for s, scans in walk_statements(nest.body)}

    def tree(self) -> tuple[Schedule, ...]:
        locals_ = tuple(p.name for p in self.nest.locals)
        if any(isinstance(item, Scan) for item in self.nest.body):
            return self.items(self.nest.body)
        statements = self.nest.statements
        shared = [d for d in self._common(statements) if self._aligned(d.name, statements)]
        vector = self._shared_vector(shared, statements)
        if vector is None:
            body = tuple(self.alone(s, shared) for s in statements)
        else:
            body = tuple(self._rest(s, shared) for s in statements)
        names = {d.name for d in shared}
        body = self._place(locals_, names, body)
        if vector is not None:
            body = (Band(vector, self.lanes, "vector", body),)
        order = self._order(shared, vector, statements)
        for k, (name, step) in reversed(list(enumerate(order))):
            body = (Band(name, step, "parallel" if k == 0 else "serial", body),)
        return body

    def _order(
        self, shared: list[Dim], vector: str | None, statements: tuple[Statement, ...]
    ) -> list[tuple[str, int]]:
        """The loops around everything, with steps: in the order of the text, but tiled

        - over a blocked layout: block by block, as it lies in memory;
        - where what is read and what is written are contiguous in different dimensions: square by
          square, so that lines of both stay in the cache until all of them is used.
        """
        names = {d.name for d in shared}
        is_box = not any(_range_names(d) & names for d in shared)
        kept = {p.name: p for p in self.nest.params if p.role != "local"}
        accesses = [a for a in _accesses(statements) if a.tensor in kept]
        written = [a for a in accesses if kept[a.tensor].role == "out"]
        is_blocked = any(kept[t.tensor].layout is not None for t in written)
        accesses = written if vector else accesses
        lines = [
            d.name
            for d in shared
            if not (isinstance(d.extent, int) and d.extent <= self.lanes)
            and any(self._stride(a, d.name) == 1 for a in accesses)
        ]
        if self.lanes == 1 or not is_box or not lines or (len(lines) == 1 and not is_blocked):
            return [(d.name, 1) for d in shared if d.name != vector]
        lines.sort(key=lambda d: any(self._stride(t, d) == 1 for t in written))  # written innermost
        outer = [(d.name, self.lanes if d.name in lines else 1) for d in shared]
        inner = [(d, 1) for d in lines if d != vector]
        return outer + inner

    @staticmethod
    def _rest(s: Statement, shared: list[Dim]) -> Schedule:
        """A statement inside loops over `shared`, with its other dimensions as loops."""
        node: Schedule = Leaf(s.name)
        for d in reversed([d for d in s.dims if d not in shared]):
            node = Band(d.name, 1, "serial", (node,))
        return node

    def items(self, items: Iterable[Item]) -> tuple[Schedule, ...]:
        """Statements one by one, scans as loops around theirs."""
        return tuple(
            Band(i.dim.name, 1, "serial", self.items(i.body))
            if isinstance(i, Scan)
            else self.alone(i, [])
            for i in items
        )

    def alone(self, s: Statement, outer: list[Dim]) -> Schedule:
        """One statement inside loops over `outer`: its own loops, vectorized if possible."""
        fixed = {d.name for d in outer}
        rest = [d for d in s.dims if d.name not in fixed]
        vector = next((d.name for d in reversed(rest) if self._vectorizes(s, d)), None)
        node: Schedule = Leaf(s.name)
        if vector is not None:
            node = Band(vector, self._step(s, vector), "vector", (node,))
        for d in reversed([d for d in rest if d.name != vector]):
            node = Band(d.name, 1, "serial", (node,))
        return node

    # -- local tensors ---------------------------------------------------------------------
    def _place(
        self, tensors: tuple[str, ...], shared: set[str], body: tuple[Schedule, ...]
    ) -> tuple[Schedule, ...]:
        """Locals around `body`, which is inside loops over the dimensions `shared`."""
        registers: list[str] = []
        stack: list[str] = []
        for name in tensors:
            if not self._has_fixed_piece(name, shared):
                continue
            open_dims = [d for d in self._dims_of(name) if d.name not in shared]
            extent: Size = product(d.extent for d in open_dims)
            size = self.nest.param(name).type.dtype.bits // 8
            if not open_dims:
                registers.append(name)
            elif isinstance(extent, int) and extent * size * self.lanes <= STACK_BYTES:
                stack.append(name)
        if stack:
            body = (Local(tuple(stack), "stack", body),)
        if registers:
            body = (Local(tuple(registers), "registers", body),)
        return body

    def _has_fixed_piece(self, tensor: str, shared: set[str]) -> bool:
        """Whether an iteration of loops over `shared` uses a part of `tensor` whose size is fixed.

        Not where elements of tensors choose it, nor where a shared dimension stands in an axis
        together with anything else; and not if elements of `tensor` choose others: subscripts
        know no pieces.
        """
        accesses = list(_accesses(self.nest.statements))
        chosen = {e.tensor for a in accesses for i in a.indices for e in elements(i)}
        own = [a.indices for a in accesses if a.tensor == tensor]
        if tensor in chosen or any(elements(i) for indices in own for i in indices):
            return False
        for axis in map(set, zip(*own, strict=True)):
            used = frozenset[str]().union(*map(variables, axis)) & shared
            if used and (len(axis) > 1 or axis != {var(d) for d in used}):
                return False
        return True

    def _dims_of(self, tensor: str) -> list[Dim]:
        """Dimensions over which the statements that write or read `tensor` subscript it."""
        found: dict[str, Dim] = {}
        for s in self.nest.statements:
            for access in _accesses((s,)):
                if access.tensor == tensor:
                    used = frozenset[str]().union(*(variables(i) for i in access.indices))
                    found |= {d.name: d for d in s.dims if d.name in used}
        return list(found.values())

    # -- which dimensions can be shared, and which can be lanes ----------------------------
    @staticmethod
    def _common(statements: tuple[Statement, ...]) -> list[Dim]:
        """Dimensions that all have, but none whose range needs one that stays inside."""
        first, *others = statements
        found: list[Dim] = []
        inside: set[str] = set()
        for d in first.dims:
            if all(d in s.dims for s in others) and not _range_names(d) & inside:
                found.append(d)
            else:
                inside.add(d.name)
        return found

    def _aligned(self, dim: str, statements: tuple[Statement, ...]) -> bool:
        """Whether every tensor that the nest writes is accessed at `dim` itself along an axis.

        Then no value flows between iterations of a loop over `dim` around all statements.
        """
        written = {t.tensor for s in statements for t in s.targets}
        for tensor in written:
            axes: set[int] | None = None
            for access in _accesses(statements):
                if access.tensor == tensor:
                    here = {k for k, i in enumerate(access.indices) if i == var(dim)}
                    axes = here if axes is None else axes & here
            if not axes:
                return False
        return True

    def _shared_vector(self, shared: list[Dim], statements: tuple[Statement, ...]) -> str | None:
        """A dimension that all statements can run in lanes together."""
        names = {d.name for d in shared}
        registers = {
            p.name
            for p in self.nest.locals
            if all(d.name in names for d in self._dims_of(p.name))
            and self._has_fixed_piece(p.name, names)
        }
        outputs = [t for s in statements for t in s.targets if t.tensor not in registers]
        for d in reversed(shared):
            if self.lanes == 1 or d.extent == 1:
                continue
            if all(self._runs_in_lanes(s, d, registers) for s in statements) and any(
                self._stride(t, d.name) == 1 for t in outputs
            ):
                return d.name
        return None

    def _runs_in_lanes(self, s: Statement, d: Dim, registers: Set[str] = frozenset()) -> bool:
        """Whether lanes over `d` read neighbours or one value, and no border or range needs `d`.

        Tensors in `registers` hold a value for each lane, wherever `d` stands in their subscripts.
        """
        if any(d.name in variables(g.condition) for g in guards(self.nest, s)):
            return False
        if any(d.name in _range_names(other) for other in s.dims):
            return False
        if self.whole and not all(self._is_whole(a, d) for a in _accesses((s,))):
            return False
        for v in s.values:
            if any(isinstance(x, Value) and d.name in variables(x.size) for x in walk(v)):
                return False
        return all(
            a.tensor in registers or self._stride(a, d.name) in (0, 1) for a in _accesses((s,))
        )

    def _vectorizes(self, s: Statement, d: Dim) -> bool:
        if self.lanes == 1 or d.extent == 1 or not self._runs_in_lanes(s, d):
            return False
        written = [self._stride(t, d.name) for t in s.targets]
        if d.name in s.reduction_dims:
            if self.whole:
                return False
            reads = [x for v in s.values for x in loads(v)]
            return s.combine in FOLDS and any(self._stride(x, d.name) == 1 for x in reads)
        return s.combine in (ASSIGN, *FOLDS) and all(w == 1 for w in written)

    def _step(self, s: Statement, dim: str) -> int:
        """Lanes over `dim`: two vectors for a long reduction, each a sum of its own.

        Measured: rows of 768 take a tenth less time than with one sum, rows of 128 more.
        """
        extent = next(d.extent for d in s.dims if d.name == dim)
        wide = 2 * self.lanes
        if dim not in s.reduction_dims or not isinstance(extent, int) or extent < LONG * self.lanes:
            return self.lanes
        in_lanes = all(
            self.nest.param(a.tensor).role == "local" or stride(self.nest, a, dim, wide) in (0, 1)
            for a in _accesses((s,))
        )
        return wide if in_lanes and extent % wide < self.lanes else self.lanes

    def _is_whole(self, access: Load | Access, d: Dim) -> bool:
        """Whether steps of a vector's length along `d` begin at multiples of it, and hold it."""
        p = self.nest.param(access.tensor)
        if p.role == "local" or self._stride(access, d.name) != 1:
            return True
        if p.layout is None:
            if not isinstance(d.extent, int) or d.extent % self.lanes:
                return False
            last, extent = access.indices[-1], p.type.shape[-1]
        else:
            values = {f"d{k}": i for k, i in enumerate(access.indices)}
            last, extent = substitute(p.layout.dims[-1], values), p.layout.extents[-1]
        first = substitute(last, {d.name: d.lo})
        return all(isinstance(x, int) and x % self.lanes == 0 for x in (first, extent))

    def _stride(self, access: Load | Access, dim: str) -> int | None:
        if self.nest.param(access.tensor).role == "local":
            # its piece is a dense array of the order of its axes
            varying = [k for k, i in enumerate(access.indices) if dim in variables(i)]
            if not varying:
                return 0
            last = len(access.indices) - 1
            return 1 if varying == [last] and access.indices[last] == var(dim) else None
        return stride(self.nest, access, dim, self.lanes)


def _range_names(d: Dim) -> frozenset[str]:
    """The variables that say where a dimension begins and ends."""
    return variables(d.lo) | variables(d.hi)


def _accesses(statements: Iterable[Statement]) -> Iterator[Load | Access]:
    for s in statements:
        yield from s.targets
        for v in s.values:
            yield from loads(v)
