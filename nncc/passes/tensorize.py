"""Schedule contractions around a machine operation and its register tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.expr import Load, loads
from nncc.ir.graph import Module
from nncc.ir.index import variables
from nncc.ir.nests import Band, Leaf, Local, Nest, Schedule
from nncc.machines.machine import Machine, Operation
from nncc.passes.base import Pass
from nncc.passes.contractions import Contraction, contractions, uses
from nncc.passes.emission.guards import guards
from nncc.passes.strides import stride

CHAINS = 8  # independent accumulators that hide the latency of a multiply-add
MOST_COLUMNS = 14
MOST_ROWS = 7  # rows of a row-major matrix may share one set of an 8-way cache
MOST_TAPS = 9  # copies of a register tile for kernel taps
SCALAR_ROWS = 4
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
        held: a reduction of at most so many vectors of weights is written out, so that the pass
            `hoist` can keep them in registers for all columns.
        node: only the nest of this name.
    """

    name: ClassVar[str] = "tensorize"
    columns: int = 0
    vectors: int = 0
    held: int = 0
    node: str = ""

    def run(self, module: Module, target: Machine) -> Module:
        nests = dict(module.nests)
        for name, nest in module.nests.items():
            if nest.schedule is None and self.node in ("", name):
                contraction = find_contraction(nest, target)
                if contraction is not None:
                    tile = register_tile(contraction, target, self.columns, self.vectors)
                    nests[name] = replace(nest, schedule=build_tree(contraction, tile, self.held))
        return module if nests == module.nests else replace(module, nests=nests)


def find_contraction(nest: Nest, machine: Machine) -> Contraction | None:
    """The first way to compute the nest's reduction that its layouts allow, if there is one."""
    found = [c for c in contractions(nest, machine) if _fits(c)]
    if machine.architecture is not None:  # it computes with vectors what its operations say
        found = [c for c in found if c.operation is not None or c.lanes == 1]
    if found and found[0].operation is None and found[0].lanes == 1:
        return max(found, key=_reuse)
    return found[0] if found else None


def _reuse(c: Contraction) -> tuple[int, int]:
    """Of scalar tiles the best runs along the innermost dimension, and has the most rows."""
    assert c.column is not None
    extent = c.dim(c.vector).extent
    return c.outputs.index(c.column), min(extent, SCALAR_ROWS) if isinstance(extent, int) else 1


def _fits(c: Contraction) -> bool:
    """Whether operands lie in memory as the lanes need them, and all statements run in lanes.

    Without an operation only a tile that reuses operands is worth its loops.
    """
    if c.operation is not None:
        return _in_memory_order(c, c.operation) and _finishes_in_lanes(c)
    if c.lanes == 1:
        bordered = any(c.vector in variables(g.condition) for g in guards(c.nest, c.statement))
        return c.column is not None and not bordered
    strides = [stride(c.nest, x, c.vector, c.lanes) for x in c.operands]
    if any(x not in (0, 1) for x in strides) or 1 not in strides or c.column is None:
        return False
    bordered = any(c.vector in variables(g.condition) for g in guards(c.nest, c.statement))
    return not bordered and _finishes_in_lanes(c)


def _finishes_in_lanes(c: Contraction) -> bool:
    """Whether the statements around the reduction run in lanes too, and write so."""
    accumulator = c.statement.targets[0].tensor
    for s in (*c.before, *c.after):
        written = [t for t in s.targets if t.tensor != accumulator]
        if any(stride(c.nest, t, c.vector, c.lanes) != 1 for t in written):
            return False
        read = [x for v in s.values for x in loads(v) if x.tensor != accumulator]
        if any(stride(c.nest, x, c.vector, c.lanes) not in (0, 1) for x in read):
            return False
    return True


def _in_memory_order(c: Contraction, operation: Operation) -> bool:
    """Whether each operand's lanes are neighbours in memory in the order of its type."""
    names = dict(c.dims)
    pattern = {x.tensor: x for x in loads(operation.semantics.statements[-1].values[0])}
    for param, load in zip(operation.semantics.params[1:], c.operands, strict=True):
        axes = [names[str(i)] for i in pattern[param.name].indices]
        shape = param.type.static_shape
        if len(axes) == 1 and stride(c.nest, load, axes[0], shape[0]) != 1:
            return False
        if len(axes) == 2:  # [lanes, group]: groups of neighbours, one group after the other
            layout = c.nest.param(load.tensor).layout
            if layout is None or stride(c.nest, load, axes[1], shape[1]) != 1:
                return False
            if tuple(layout.extents[-2:]) != shape:
                return False
    return True


def register_tile(
    contraction: Contraction, machine: Machine, columns: int = 0, vectors: int = 0
) -> tuple[int, int]:
    """(columns, vectors) of the register tile: columns*vectors + vectors + 1 registers are used.

    Measured (fp32, AVX-512, within noise of each other): 14 x 2, 7 x 3 and 6 x 4 reach the peak
    if the scalar operand's columns are a vector apart; rows of a row-major matrix can collide in
    the L1 cache, so there at most 7. Columns are spread evenly over the extent.
    """
    registers = machine.vector_registers - 1
    if contraction.lanes == 1:  # half of them: addresses and operands need some of the same file
        registers = (registers + 1) // 2 + SCALAR_ROWS
    m = contraction.dim(contraction.vector).extent
    count = -(-m // contraction.lanes) if isinstance(m, int) else 1
    packed = _packed_vectors(contraction)
    if contraction.column is None:
        return 1, vectors or _most_vectors(count, packed)
    extent = contraction.dim(contraction.column).extent
    rows = _is_row_major(contraction)
    wanted = 4 if rows or contraction.lanes == 1 else 2
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
        for load in c.operands
    )


def _is_vector(c: Contraction, load: Load) -> bool:
    """Whether lanes of the vector dimension are neighbours in `load`'s tensor, and packed."""
    layout = c.nest.param(load.tensor).layout
    return layout is not None and stride(c.nest, load, c.vector, c.lanes) == 1


def _packed_vectors(contraction: Contraction) -> int:
    """How many vectors stand together in the vector operand's packed layout; 0: not packed."""
    for load in contraction.operands:
        layout = contraction.nest.param(load.tensor).layout
        packed = layout.extents[-1] if layout is not None else None
        if isinstance(packed, int) and _is_vector(contraction, load):
            return max(1, packed // contraction.lanes)
    return 0


def build_tree(
    contraction: Contraction, tile: tuple[int, int], held: int = 0
) -> tuple[Schedule, ...]:
    """The schedule: outer dimensions, the register tile, reductions, epilogue."""
    c = contraction
    columns, vectors = tile
    statement = c.statement
    lanes = c.lanes

    def over_tile(leaf: Leaf) -> Schedule:
        alone = leaf.operation or lanes == 1
        inner: Schedule = leaf if alone else Band(c.vector, lanes, "vector", (leaf,))
        is_fixed = lanes * vectors == 1  # by the loop outside
        node: Schedule = inner if is_fixed else Band(c.vector, lanes, "unroll", (inner,))
        return Band(c.column, 1, "unroll", (node,)) if c.column and columns > 1 else node

    ahead = tuple((x.tensor, PREFETCH) for x in c.weights if _is_vector(c, x))
    operation = c.operation.name if c.operation else ""
    core = over_tile(Leaf(statement.name, operation, c.dims, ahead))
    for band in reversed(_reduction_bands(c, held // vectors)):
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
    return not any(uses(x, dim) for x in c.weights) and dim != c.statement.dims[0].name


def _reduction_bands(c: Contraction, held: int = 0) -> list[Band]:
    """Loops over the reduction in the order in which packed weights lie in memory.

    Blocks of channels outside, then kernel taps, each a loop of its own, then the channels of a
    block, the last ones unrolled; all unrolled if these are at most `held` steps of the operation.
    """
    channel = c.channel
    taps = [Band(n, 1, "serial", ()) for n in c.statement.reduction_dims if n != channel]
    if channel is None:
        return _unrolled(c, taps)
    step = c.group[1] if c.group else 1
    steps = [(b.dim, 1) for b in taps] + [(channel, step)]
    if _rounds(c, steps) <= held:
        return [Band(dim, by, "unroll", ()) for dim, by in steps]
    block = _block(c, channel)
    blocks: list[Band] = []
    if block > step and c.dim(channel).extent != block:
        blocks = [Band(channel, block, "serial", ())]
    if c.lanes == 1:  # a step is long enough
        return [Band(channel, 1, "serial", ()), *taps]
    inner = [Band(channel, UNROLL * step, "serial", ()), Band(channel, step, "unroll", ())]
    return blocks + taps + inner


def _rounds(c: Contraction, steps: list[tuple[str, int]]) -> float:
    """How often loops of these steps go round together; infinite if that is not known."""
    total = 1
    for dim, step in steps:
        extent = c.dim(dim).extent
        if not isinstance(extent, int):
            return float("inf")
        total *= -(-extent // step)
    return total


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


def _block(c: Contraction, channel: str) -> int:
    """Extent of the blocks in which an operand's layout keeps the channel; 1 if it does not."""
    for load in c.operands:
        layout = c.nest.param(load.tensor).layout
        if uses(load, channel) and layout is not None and stride(c.nest, load, channel, 4) == 1:
            extent = layout.extents[-1]
            if isinstance(extent, int):
                return extent
    return 1
