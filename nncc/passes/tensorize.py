"""Schedule contractions around a machine operation and its register tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import ClassVar

from nncc.ir.expr import Load, loads
from nncc.ir.graph import Module
from nncc.ir.index import variables
from nncc.ir.nests import (
    ASSIGN,
    Band,
    Dim,
    Leaf,
    Local,
    Nest,
    Schedule,
    Statement,
)
from nncc.machines.machine import Machine, Operation
from nncc.passes.base import Pass
from nncc.passes.emission.guards import guards
from nncc.passes.emission.operation import match
from nncc.passes.strides import stride

CHAINS = 8  # independent accumulators that hide the latency of a multiply-add
MOST_COLUMNS = 14
MOST_ROWS = 7  # rows of a row-major matrix may share one set of an 8-way cache
MOST_TAPS = 9  # copies of a register tile for kernel taps
UNROLL = 2  # steps of the innermost reduction loop written out (measured: 4 gains nothing)
PREFETCH = 1 << 14  # bytes by which loads of weights run ahead (measured: 4 to 64 KB are alike)


@dataclass(frozen=True)
class Tensorize(Pass):
    """Give every contraction the loops of a register tile around a machine operation.

    for m, e, f, c, r, s { t[m,e,f] sum= x[c,e+r,f+s] * w[m,c,r,s] }
    →
    for m by 32 { for e { for f by 14 { local t in registers {
      … for r { for s { for c { unroll f, m by 16 { acc with fma16(m: m) } } } } … } } } }

    A nest is a contraction if one of its statements is what an operation of the machine computes
    and the others only prepare or finish its target. Nests that have a schedule, and nests that
    are no contraction, stay as they are.

    Args:
        columns: size of the register tile in the unrolled dimension (0: by the shape).
        vectors: vectors of outputs in the register tile (0: by the shape).
        node: only the nest of this name.
    """

    name: ClassVar[str] = "tensorize"
    columns: int = 0
    vectors: int = 0
    node: str = ""

    def run(self, module: Module, target: Machine) -> Module:
        nests = dict(module.nests)
        for name, nest in module.nests.items():
            if nest.schedule is None and self.node in ("", name):
                contraction = find_contraction(nest, target)
                if contraction is not None:
                    tile = register_tile(contraction, target, self.columns, self.vectors)
                    nests[name] = replace(nest, schedule=build_tree(contraction, tile))
        return module if nests == module.nests else replace(module, nests=nests)


@dataclass(frozen=True)
class Contraction:
    """A nest whose main statement is a machine operation, or reuses operands as one would.

    Args:
        operation: None if the statement is computed with plain vector functions.
        statement: the reduction; `before` and `after` are the others in order.
        dims: pairs (dimension of the operation, dimension of the statement).
        vector: the output dimension that runs over lanes; `lanes`: of the accumulator.
        group: the reduction dimension inside the operation and its size, if there is one.
        column: the output dimension that the register tile unrolls (None: there is none).
    """

    nest: Nest
    operation: Operation | None
    statement: Statement
    before: tuple[Statement, ...]
    after: tuple[Statement, ...]
    dims: tuple[tuple[str, str], ...]
    vector: str
    lanes: int
    group: tuple[str, int] | None
    column: str | None

    def dim(self, name: str) -> Dim:
        return next(d for d in self.statement.dims if d.name == name)

    @property
    def outer(self) -> tuple[str, ...]:
        """Output dimensions other than the vector and the column."""
        inner = {self.vector, self.column, *self.statement.reduction_dims}
        return tuple(d.name for d in self.statement.dims if d.name not in inner)


def find_contraction(nest: Nest, machine: Machine) -> Contraction | None:
    """The nest's reduction with the first operation of the machine that it is, if it is one."""
    if any(not isinstance(item, Statement) for item in nest.body):
        return None
    for position, statement in enumerate(nest.statements):
        if statement.combine == ASSIGN or len(statement.targets) != 1:
            continue
        if nest.param(statement.targets[0].tensor).role != "local":
            continue
        before, after = nest.statements[:position], nest.statements[position + 1 :]
        outputs = {d.name: d for d in statement.dims if d.name not in statement.reduction_dims}
        others = (*before, *after)
        if any({d.name: d for d in s.dims} != outputs for s in others):
            return None
        for operation in machine.operations.values():
            for dims in _assignments(operation, statement):
                found = _contraction(nest, operation, statement, before, after, dims)
                if found is not None:
                    return found
        return _plain_contraction(nest, statement, before, after, machine)
    return None


def _assignments(
    operation: Operation, statement: Statement
) -> Iterator[tuple[tuple[str, str], ...]]:
    """Ways to map the operation's dimensions to the statement's; none for a scalar operation."""
    ours = [d.name for d in operation.semantics.statements[-1].dims]
    for chosen in permutations([d.name for d in statement.dims], len(ours)):
        if chosen:
            yield tuple(zip(ours, chosen, strict=True))


def _contraction(
    nest: Nest,
    operation: Operation,
    statement: Statement,
    before: tuple[Statement, ...],
    after: tuple[Statement, ...],
    dims: tuple[tuple[str, str], ...],
) -> Contraction | None:
    operands = match(operation, statement, dict(dims))
    if operands is None:
        return None
    accumulator = operation.semantics.params[0]
    lanes = accumulator.type.static_shape[0] if accumulator.type.rank else 1
    semantic = operation.semantics.statements[-1]
    vector = next(ours for theirs, ours in dims if theirs not in semantic.reduction_dims)
    extents = {d.name: d.extent for d in semantic.dims}
    groups = [(ours, extents[theirs]) for theirs, ours in dims if theirs in semantic.reduction_dims]
    if not _in_memory_order(nest, operation, operands, dims, vector, lanes):
        return None
    if not _finishes_in_lanes(nest, statement, (*before, *after), vector, lanes):
        return None
    group = (groups[0][0], int(groups[0][1])) if groups else None  # type: ignore[arg-type]
    column = _column(nest, statement, operands, vector)
    return Contraction(
        nest, operation, statement, before, after, dims, vector, lanes, group, column
    )  # fmt: skip


def _plain_contraction(
    nest: Nest,
    statement: Statement,
    before: tuple[Statement, ...],
    after: tuple[Statement, ...],
    machine: Machine,
) -> Contraction | None:
    """A reduction that no operation does, but that reuses an operand along a column."""
    lanes = machine.vector_bytes // 4
    operands = loads(statement.values[0])
    if lanes < 2 or len(operands) < 2 or len(statement.values) != 1:
        return None
    outputs = [d.name for d in statement.dims if d.name not in statement.reduction_dims]
    for vector in outputs:
        strides = [stride(nest, x, vector, lanes) for x in operands]
        if any(x not in (0, 1) for x in strides) or 1 not in strides:
            continue
        bordered = [g for g in guards(nest, statement) if vector in variables(g.condition)]
        column = _column(nest, statement, operands, vector)
        if bordered or column is None:
            continue
        if _finishes_in_lanes(nest, statement, (*before, *after), vector, lanes):
            return Contraction(
                nest, None, statement, before, after, (), vector, lanes, None, column
            )  # fmt: skip
    return None


def _finishes_in_lanes(
    nest: Nest,
    statement: Statement,
    others: tuple[Statement, ...],
    vector: str,
    lanes: int,
) -> bool:
    """Whether the statements around the reduction run in lanes over `vector`, and write so."""
    accumulator = statement.targets[0].tensor
    for s in others:
        written = [t for t in s.targets if t.tensor != accumulator]
        if any(stride(nest, t, vector, lanes) != 1 for t in written):
            return False
        read = [x for v in s.values for x in loads(v) if x.tensor != accumulator]
        if any(stride(nest, x, vector, lanes) not in (0, 1) for x in read):
            return False
    return True


def _in_memory_order(
    nest: Nest,
    operation: Operation,
    operands: tuple[Load, ...],
    dims: tuple[tuple[str, str], ...],
    vector: str,
    lanes: int,
) -> bool:
    """Whether each operand's lanes are neighbours in memory in the order of its type."""
    names = dict(dims)
    pattern = {x.tensor: x for x in loads(operation.semantics.statements[-1].values[0])}
    for param, load in zip(operation.semantics.params[1:], operands, strict=True):
        axes = [names[str(i)] for i in pattern[param.name].indices]
        shape = param.type.static_shape
        if len(axes) == 1 and stride(nest, load, axes[0], shape[0]) != 1:
            return False
        if len(axes) == 2:  # [lanes, group]: groups of neighbours, one group after the other
            layout = nest.param(load.tensor).layout
            if layout is None or stride(nest, load, axes[1], shape[1]) != 1:
                return False
            if tuple(layout.extents[-2:]) != shape:
                return False
    return True


def _column(
    nest: Nest, statement: Statement, operands: tuple[Load, ...], vector: str
) -> str | None:
    """The innermost output dimension along which the vector operand is reused."""
    reused = [x for x in operands if any(vector in variables(i) for i in x.indices)]
    outputs = [d.name for d in statement.dims if d.name not in statement.reduction_dims]
    for name in reversed(outputs):
        if name == vector:
            continue
        moving = [x for x in operands if any(name in variables(i) for i in x.indices)]
        if moving and any(x not in moving for x in reused):
            return name
    return None


def register_tile(
    contraction: Contraction, machine: Machine, columns: int = 0, vectors: int = 0
) -> tuple[int, int]:
    """(columns, vectors) of the register tile: columns*vectors + vectors + 1 registers are used.

    Measured (fp32, AVX-512, within noise of each other): 14 x 2, 7 x 3 and 6 x 4 reach the peak
    if the scalar operand's columns are a vector apart; rows of a row-major matrix can collide in
    the L1 cache, so there at most 7. Columns are spread evenly over the extent.
    """
    registers = machine.vector_registers - 1
    m = contraction.dim(contraction.vector).extent
    count = -(-m // contraction.lanes) if isinstance(m, int) else 1
    packed = _packed_vectors(contraction)
    if contraction.column is None:
        return 1, vectors or _most_vectors(count, packed)
    extent = contraction.dim(contraction.column).extent
    rows = _is_row_major(contraction)
    wanted = 4 if rows else 2
    if isinstance(extent, int) and extent < CHAINS // wanted:
        wanted = CHAINS // max(1, extent)
    v = vectors or _most_vectors(min(count, wanted), packed)
    most = max(1, min((registers - v) // v, MOST_ROWS if rows else MOST_COLUMNS))
    if columns:
        return columns, v
    if not isinstance(extent, int):
        return most, v
    return -(-extent // -(-extent // most)), v


def _most_vectors(limit: int, packed: int) -> int:
    """The largest number of vectors up to `limit` (at most 8) that divides a packed block."""
    return max(v for v in (1, 2, 4, 8) if v == 1 or (v <= limit and packed % v == 0))


def _is_row_major(c: Contraction) -> bool:
    """Whether neighbours in the column dimension are a whole row apart in memory."""
    return any(
        c.nest.param(load.tensor).layout is None
        and any(c.column in variables(i) for i in load.indices[:-1])
        for load in loads(c.statement.values[0])
    )


def _is_vector(c: Contraction, load: Load) -> bool:
    """Whether lanes of the vector dimension are neighbours in `load`'s tensor, and packed."""
    layout = c.nest.param(load.tensor).layout
    return layout is not None and stride(c.nest, load, c.vector, c.lanes) == 1


def _packed_vectors(contraction: Contraction) -> int:
    """How many vectors stand together in the vector operand's packed layout; 0: not packed."""
    for load in loads(contraction.statement.values[0]):
        layout = contraction.nest.param(load.tensor).layout
        packed = layout.extents[-1] if layout is not None else None
        if isinstance(packed, int) and _is_vector(contraction, load):
            return max(1, packed // contraction.lanes)
    return 0


def build_tree(contraction: Contraction, tile: tuple[int, int]) -> tuple[Schedule, ...]:
    """The schedule: outer dimensions, the register tile, reductions, epilogue."""
    c = contraction
    columns, vectors = tile
    statement = c.statement
    lanes = c.lanes

    def over_tile(leaf: Leaf) -> Schedule:
        inner: Schedule = leaf if leaf.operation else Band(c.vector, lanes, "vector", (leaf,))
        node: Schedule = Band(c.vector, lanes, "unroll", (inner,))
        return Band(c.column, 1, "unroll", (node,)) if c.column else node

    ahead = tuple((x.tensor, PREFETCH) for x in _weights(c) if _is_vector(c, x))
    operation = c.operation.name if c.operation else ""
    core = over_tile(Leaf(statement.name, operation, c.dims, ahead))
    for band in reversed(_reduction_bands(c)):
        core = replace(band, body=(core,))
    body: tuple[Schedule, ...] = (
        *(over_tile(Leaf(s.name)) for s in c.before),
        core,
        *(over_tile(Leaf(s.name)) for s in c.after),
    )
    locals_ = tuple(p.name for p in c.nest.locals)
    node: Schedule = Local(locals_, "registers", body)
    if c.column:
        node = Band(c.column, columns, "serial", (node,))
    outer = list(c.outer)
    first = [d for d in outer if not _shares_weights(c, d)]
    rest = [d for d in outer if d not in first]
    for name in reversed(rest):
        node = Band(name, 1, "serial", (node,))
    node = Band(c.vector, lanes * vectors, "serial", (node,))
    packed = _packed_vectors(c) * lanes
    if packed > lanes * vectors:  # pieces of a packed block, so that block borders are known
        node = Band(c.vector, packed, "serial", (node,))
    for name in reversed(first):
        node = Band(name, 1, "parallel", (node,))
    return (node,)


def _shares_weights(c: Contraction, dim: str) -> bool:
    """Whether the weights are the same for all of `dim`.

    The outermost such dimension (the batch) stays outside; spatial ones go inside the vector
    dimension's loop, so that a tile of weights is used for the whole image.
    """
    varies = any(dim in variables(i) for load in _weights(c) for i in load.indices)
    return not varies and dim != c.statement.dims[0].name


def _weights(c: Contraction) -> tuple[Load, ...]:
    """The operands that vary over the lanes and are used again in each column."""
    return tuple(
        x
        for x in loads(c.statement.values[0])
        if any(c.vector in variables(i) for i in x.indices)
        and not any(c.column in variables(i) for i in x.indices)
    )


def _reduction_bands(c: Contraction) -> list[Band]:
    """Loops over the reduction in the order in which packed weights lie in memory.

    Blocks of channels outside, then kernel taps, each a loop of its own, then the channels of a
    block, the last ones unrolled.
    """
    names = list(c.statement.reduction_dims)
    grouped = c.group[0] if c.group else None
    channel = grouped or _channel(c, names)
    taps = [Band(n, 1, "serial", ()) for n in names if n != channel]
    if channel is None:
        return _unrolled(c, taps)
    step = c.group[1] if c.group else 1
    block = _block(c, channel)
    blocks: list[Band] = []
    if block > step and c.dim(channel).extent != block:
        blocks = [Band(channel, block, "serial", ())]
    inner = [Band(channel, UNROLL * step, "serial", ()), Band(channel, step, "unroll", ())]
    return blocks + taps + inner


def _unrolled(c: Contraction, taps: list[Band]) -> list[Band]:
    """Taps without channels (depthwise): as many inner ones unrolled as share loads at low cost.

    Neighbouring taps read the same vectors. Measured: 3x3 gains from 51 to 89 % of peak with both
    loops unrolled, 5x5 from 63 to 94 % with the inner one.
    """
    copies = 1
    for k in reversed(range(len(taps))):
        extent = c.dim(taps[k].dim).extent
        if not isinstance(extent, int) or copies * extent > MOST_TAPS:
            break
        copies *= extent
        taps[k] = replace(taps[k], kind="unroll")
    return taps


def _channel(c: Contraction, names: list[str]) -> str | None:
    """The reduction dimension that no subscript adds to another: channels, not kernel taps."""
    for name in names:
        subscripts = [i for x in loads(c.statement.values[0]) for i in x.indices]
        if all(variables(i) == {name} for i in subscripts if name in variables(i)):
            return name
    return None


def _block(c: Contraction, channel: str) -> int:
    """Extent of the blocks in which an operand's layout keeps the channel; 1 if it does not."""
    for load in loads(c.statement.values[0]):
        layout = c.nest.param(load.tensor).layout
        varies = any(channel in variables(i) for i in load.indices)
        if varies and layout is not None and stride(c.nest, load, channel, 4) == 1:
            extent = layout.extents[-1]
            if isinstance(extent, int):
                return extent
    return 1
