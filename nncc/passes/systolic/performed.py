"""What the operations on memory of a program move, counted in the Loops that perform them.

    predicted(program, machine)["conv1"]["weight_memory"]      (bytes read, bytes written)

An operand of an operation's record that the dims of its box select streams past, row by row. Any
other is held: the weights in the array as long as no other tile is asked for (see
`reuse.fetches`), parameters and tables for one instruction. Which memory an operand is in, the
record's `places` say. Nothing here knows the instructions; `nncc.machines.systolic.boxes` says how
many rows one of them can reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from nncc.diagnostics import PassError
from nncc.ir.bounds import bounds
from nncc.ir.expr import Apply, Expr, Load
from nncc.ir.index import Size, affine, elements, evaluate, maximum, variables, weighted_sum
from nncc.ir.loops import Alloc, Buffer, Call, For, Function, If, Perform, Stmt
from nncc.ir.nests import ASSIGN, Access
from nncc.ir.program import MAIN, Program
from nncc.ir.types import boolean
from nncc.machines.machine import Machine, Operation
from nncc.machines.systolic.boxes import instructions
from nncc.machines.systolic.model import HOST, UNIFIED_BUFFER, WEIGHT_FIFO, WEIGHT_MEMORY
from nncc.machines.systolic.sizes import array_of
from nncc.passes.reuse.rounds import Around, rounds_of, summed

Bytes = dict[str, tuple[int, int]]  # by memory: read, written
BOX = ("a", "b")


def predicted(program: Program, machine: Machine) -> dict[str, Bytes]:
    """Bytes read from and written to each memory, by layer; "" is what comes and goes.

    Every tensor is taken to stay in the unified buffer. Raises PassError where the Loops do not
    say how often something happens.
    """
    found: dict[str, Bytes] = {"": {}}
    for role, tensors in (("in", program.signature.inputs), ("out", program.signature.outputs)):
        for name, t in tensors:
            layout = program.layouts[name]
            rows = prod(int(str(e)) for e in layout.extents[:-1])
            ranges = {f"d{k}": (0, e - 1) for k, e in enumerate(t.shape)}
            _, last = bounds(layout.dims[-1], ranges)  # lanes without an element stay there
            _add_all(found[""], host_traffic(role, rows, int(str(last)) + 1, machine))
    for s in program.functions[MAIN].body:
        assert isinstance(s, Call)
        _add_all(found.setdefault(s.source, {}), moved(program.functions[s.callee], machine))
    return found


def host_traffic(role: str, rows: int, lanes: int, machine: Machine) -> Bytes:
    """What an input (`in`) or output (`out`) of so many rows moves; `lanes` go to the host."""
    if role == "in":
        return {HOST: (rows * lanes, 0), UNIFIED_BUFFER: (0, rows * array_of(machine).rows)}
    return {HOST: (0, rows * lanes), UNIFIED_BUFFER: (rows * lanes, 0)}


def moved(function: Function, machine: Machine) -> Bytes:
    """What one call of a function moves. Raises PassError."""
    walk = _Walk(machine, {b.name: b for b in function.buffers})
    walk.block(function.body, _Place())
    for site in walk.weights(function.body):
        walk.weight(site)
    return walk.bytes


def _add_all(into: Bytes, more: Mapping[str, tuple[int, int]]) -> None:
    for memory, (read, written) in more.items():
        old = into.get(memory, (0, 0))
        into[memory] = old[0] + read, old[1] + written


@dataclass(frozen=True)
class _Place:
    """Where a statement stands: the loops around it, the innermost of which hold nothing else."""

    loops: tuple[Around, ...] = ()
    conditions: tuple[Expr, ...] = ()
    alone: int = 0


@dataclass(frozen=True)
class _Site:
    """A tile of weights, and the loops of which every round asks for it anew."""

    size: int
    tile: Size
    loops: tuple[Around, ...] = ()
    conditions: tuple[Expr, ...] = ()


@dataclass
class _Walk:
    machine: Machine
    buffers: dict[str, Buffer]
    bytes: Bytes = field(default_factory=dict)

    def add(self, memory: str, read: int = 0, written: int = 0) -> None:
        _add_all(self.bytes, {memory: (read, written)})

    def block(self, body: Sequence[Stmt], place: _Place) -> None:
        alone = place.alone if len(body) == 1 else 0
        place = replace(place, alone=alone)
        for s in body:
            if isinstance(s, For):
                loop = Around(s.variable, s.lo, s.hi, s.step)
                inside = replace(place, loops=(*place.loops, loop), alone=place.alone + 1)
                self.block(s.body, inside)
            elif isinstance(s, If):
                for holds, branch in ((s.condition, s.then), (_not(s.condition), s.otherwise)):
                    inside = replace(place, conditions=(*place.conditions, holds), alone=0)
                    self.block(branch, inside)
            elif isinstance(s, Alloc):
                self.buffers[s.buffer.name] = s.buffer
                self.block(s.body, replace(place, alone=0))
            elif isinstance(s, Perform):
                self.perform(s, place)
            else:
                raise PassError(f"nothing is known of {type(s).__name__} on memory")

    # -- what streams past -----------------------------------------------------------------
    def perform(self, s: Perform, place: _Place) -> None:
        record = self.machine.operations[s.operation]
        own = _dims_of(record)
        sides = {d.name: maximum(d.hi - d.lo, 0) for d in s.dims}
        operands = dict(zip([p.name for p in record.semantics.params[1:]], s.operands, strict=True))
        held: list[tuple[str, Load]] = []
        for name, memory in record.places:
            size = record.semantics.param(name).type.dtype.bits // 8
            count = [sides[d] for d in sides if d in own[name]]
            if name == record.semantics.params[0].name:
                total = size * summed(place.loops, count, place.conditions)
                self.add(memory, total if s.combine != ASSIGN and _folds(record) else 0, total)
                continue
            load = operands[name]
            assert isinstance(load, Load)
            if set(BOX) & own[name]:
                self.add(memory, size * summed(place.loops, count, place.conditions))
            elif memory != WEIGHT_FIFO:
                held.append((memory, load))
        if held:
            boxes = self.boxes(s, record, own, place)
            for memory, load in held:
                self.add(memory, boxes * self.row_bytes(load))

    @staticmethod
    def is_held(load: Load, record: Operation, own: Mapping[str, set[str]], s: Perform) -> bool:
        """Whether an instruction reads an operand once, for all of its box."""
        names = [p.name for p in record.semantics.params[1:]]
        return any(
            o is load and not set(BOX) & own[n] for n, o in zip(names, s.operands, strict=True)
        )

    def row_bytes(self, load: Load) -> int:
        """Bytes that are moved together: a row of parameters, a table, a tile of weights."""
        buffer = self.buffers[load.tensor]
        shape = [int(str(e)) for e in buffer.shape]
        return prod(shape[1:] or shape) * buffer.dtype.bits // 8

    # -- instructions ----------------------------------------------------------------------
    def boxes(
        self, s: Perform, record: Operation, own: Mapping[str, set[str]], place: _Place
    ) -> int:
        """How many instructions an operation is: rounds of loops around it alone are joined."""
        loads = [o for o in s.operands if isinstance(o, Load)]
        held = [x for x in loads if self.is_held(x, record, own, s)]
        rows: list[Access | Load] = [s.target, *(x for x in loads if x not in held)]
        # instructions are alike in lanes, and in what they hold
        changing = [x.indices[-1] for x in rows] + [i for x in held for i in x.indices]
        changing = [i for i in changing if not elements(i)]
        cut = len(place.loops) - place.alone
        for k in range(cut, len(place.loops)):
            if any(place.loops[k].variable in variables(i) for i in changing):
                cut = k + 1
        outer, inner = place.loops[:cut], place.loops[cut:]
        variables_ = (*(x.variable for x in inner), *BOX)
        strides = [self.strides(x.tensor, x.indices, variables_) for x in rows]
        sides = {d.name: d.hi - d.lo for d in s.dims if d.name in BOX}
        lengths: list[Size] = [*(-((x.lo - x.hi) // x.step) for x in inner), *sides.values()]
        steps = [*(x.step for x in inner), 1, 1]
        deciding = frozenset[str]().union(*(variables(x) for x in lengths))
        own_loops = _needed(outer, deciding)
        rest = [x for x in outer if x not in own_loops]
        points = rounds_of(own_loops)
        count = len(next(iter(points.values()))) if points else 1
        known: dict[tuple[int, ...], int] = {}
        total = 0
        for k in range(count):
            at = {name: int(values[k]) for name, values in points.items()}
            now = tuple(evaluate(x, at) for x in lengths)
            if now not in known:
                loops = [
                    (n, tuple(by[v] * step for by in strides))
                    for n, v, step in zip(now, variables_, steps, strict=True)
                ]
                known[now] = instructions(loops) if min(now) > 0 else 0
            total += known[now]
        return total * summed(rest, (), place.conditions)

    def strides(self, tensor: str, indices: Sequence[Size], names: Sequence[str]) -> dict[str, int]:
        """By how many rows a step of each variable is further on."""
        parts: list[tuple[Size, int]] = []
        rows = 1
        shape = self.buffers[tensor].shape
        for index, extent in zip(reversed(indices[:-1]), reversed(shape[:-1]), strict=True):
            parts.append((index, rows))
            rows *= int(str(extent))
        form = affine(weighted_sum(parts), names)
        if form is None:
            raise PassError(f"the subscripts of {tensor} are not affine in the box")
        return {n: form[0].get(n, 0) for n in names}

    # -- weights ---------------------------------------------------------------------------
    def weights(self, body: Iterable[Stmt]) -> list[_Site]:
        """The tiles of weights that are asked for one after the other; equal neighbours are one."""
        found: list[_Site] = []
        for s in body:
            for site in self.sites(s):
                if not found or found[-1] != site:
                    found.append(site)
        return found

    def sites(self, s: Stmt) -> list[_Site]:
        if isinstance(s, For):
            inside = self.weights(s.body)
            if (
                len(inside) == 1
                and not inside[0].loops
                and s.variable not in variables(inside[0].tile)
            ):
                return inside  # it stays in the array
            loop = Around(s.variable, s.lo, s.hi, s.step)
            return [replace(x, loops=(loop, *x.loops)) for x in inside]
        if isinstance(s, If):
            then, otherwise = self.weights(s.then), self.weights(s.otherwise)
            if then == otherwise:
                return then
            other = _not(s.condition)
            return [
                *(replace(x, conditions=(*x.conditions, s.condition)) for x in then),
                *(replace(x, conditions=(*x.conditions, other)) for x in otherwise),
            ]
        if isinstance(s, Alloc):
            return self.weights(s.body)
        if not isinstance(s, Perform):
            return []
        record = self.machine.operations[s.operation]
        names = [p.name for p in record.semantics.params[1:]]
        return [
            _Site(self.row_bytes(load), load.indices[0])
            for name, load in zip(names, s.operands, strict=True)
            if isinstance(load, Load) and dict(record.places).get(name) == WEIGHT_FIFO
        ]

    def weight(self, site: _Site) -> None:
        total = site.size * summed(site.loops, (), site.conditions)
        self.add(WEIGHT_MEMORY, total)
        self.add(WEIGHT_FIFO, total, total)


def _dims_of(record: Operation) -> dict[str, set[str]]:
    """The dims of a record that select each of its operands."""
    (statement,) = record.semantics.statements
    found: dict[str, set[str]] = {}
    accesses: list[tuple[str, tuple[Size, ...]]] = [
        (t.tensor, t.indices) for t in statement.targets
    ]
    pending: list[Expr] = list(statement.values)
    while pending:
        e = pending.pop()
        if isinstance(e, Load):
            accesses.append((e.tensor, e.indices))
            accesses += [(x.tensor, x.indices) for i in e.indices for x in elements(i)]
        elif isinstance(e, Apply):
            pending += e.args
    for tensor, indices in accesses:
        own = {i for i in indices if not elements(i)}
        found.setdefault(tensor, set()).update(*(variables(i) for i in own))
    return found


def _folds(record: Operation) -> bool:
    return record.semantics.statements[0].combine != ASSIGN


def _needed(loops: Sequence[Around], names: frozenset[str]) -> list[Around]:
    """The loops over these variables, and those that decide over their bounds."""
    wanted = set(names)
    found: list[Around] = []
    for loop in reversed(loops):
        if loop.variable in wanted:
            wanted |= variables(loop.lo) | variables(loop.hi)
            found.insert(0, loop)
    return found


def _not(condition: Expr) -> Expr:
    return Apply("not", (condition,), boolean)
