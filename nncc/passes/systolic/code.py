"""The parts of a function of operations on memory, shared by all kinds of nests."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.bounds import Range, simplify
from nncc.ir.expr import Const, Expr, Load, loads
from nncc.ir.index import Size, elements, product, substitute, variables
from nncc.ir.loops import Buffer, Function, Perform, Stmt
from nncc.ir.nests import ASSIGN, Access, Dim, Nest, Param, Statement
from nncc.ir.types import DType, i8, i32, i64
from nncc.machines.systolic.boxes import LONGEST
from nncc.machines.systolic.model import UNIFIED_BUFFER, SystolicArray
from nncc.passes.systolic.places import Array, Grid
from nncc.passes.systolic.tiling import BOX, Piece, Tiling
from nncc.passes.systolic.unify import Match, literal

FREE = np.iinfo(np.int32)


@dataclass(frozen=True)
class Code:
    """A function, and the constants that it reads besides the nest's tensors.

    Args:
        tensors: the nest's parameters that are its first `in` buffers, in order.
        constants: (name of the buffer, array) of the `in` buffers after them.
        macs: multiply-accumulates that the nest asks for.
    """

    function: Function
    tensors: tuple[str, ...]
    constants: tuple[tuple[str, Array], ...]
    macs: int = 0


def rows_buffer(name: str, p: Param, access: str) -> Buffer:
    """A tensor of the nest in the unified buffer: bytes of u8 are kept as i8, less 128."""
    if p.layout is None or p.type.dtype.bits != 8:
        raise PassError(f"{p.name}: {p.type} is not kept in rows of bytes")
    return Buffer(name, i8, p.layout.extents, access, UNIFIED_BUFFER)  # type: ignore[arg-type]


def constant_buffer(name: str, array: Array, space: str = UNIFIED_BUFFER) -> Buffer:
    """A constant of bytes or int32."""
    dtype: DType = i8 if array.dtype == np.int8 else i32
    return Buffer(name, dtype, array.shape, "in", space)


def channel_dims(s: Statement, y: Param, nest: Nest, known: Container[str]) -> tuple[Dim, ...]:
    """The dims of a statement that choose the lane of what it writes, or elements of constants.

    Args:
        known: names of parameters that are constants.
    """
    if y.layout is None:
        raise PassError(f"{y.name}: {y.type} is not kept in rows")
    values = {f"d{k}": i for k, i in enumerate(s.targets[0].indices)}
    ranges: dict[str, Range] = {d.name: (d.lo, d.hi - 1) for d in s.dims}
    used = set(variables(simplify(substitute(y.layout.dims[-1], values), ranges)))
    for other in nest.statements:
        for value in other.values:
            for load in loads(value):
                if load.tensor in known and not any(elements(i) for i in load.indices):
                    used |= {v for i in load.indices for v in variables(i)}
    return tuple(d for d in s.dims if d.name in used)


def is_filled(p: Param) -> bool:
    """Whether all lanes of a tensor's rows hold something, those without an element too."""
    return p.layout is not None and p.layout.fill is not None


def rows_of_a_box(array: SystolicArray) -> int:
    """The most rows of what uses no accumulators: its tensors fit into the unified buffer."""
    return max(min(LONGEST, array.unified_rows // 8), 1)


def box_dims(tiling: Tiling) -> tuple[Dim, ...]:
    """The box of an operation over all of a tile's piece."""
    return tuple(whole(b, p) for b, p in zip(BOX, tiling.box, strict=True))


def whole(name: str, p: Piece) -> Dim:
    """All of a piece as a side of a box."""
    return Dim(name, p.start, p.stop)


def integer(value: int, dtype: DType) -> Const:
    """A literal."""
    return Const(int(value), dtype)


def requantized(
    tiling: Tiling, target: Access, t: Load, parameters: Sequence[Load], limits: Sequence[Expr],
    lanes: int,
) -> tuple[Stmt, ...]:  # fmt: skip
    """Accumulators to rows, for one tile."""
    dims = (*box_dims(tiling), Dim("l", 0, lanes))
    operands = (t, *parameters, *limits)
    return tiling.rows((Perform("requantize", dims, target, ASSIGN, operands),))


def filled(tiling: Tiling, target: Access, lanes: int) -> tuple[Stmt, ...]:
    """Lanes that no channel has, so that all of a row can be read."""
    dims = (*box_dims(tiling), Dim("l", 0, lanes))
    return tiling.rows((Perform("fill_rows", dims, target, ASSIGN, (integer(0, i8),)),))


def limits_of(match: Match) -> tuple[Expr, Expr, Expr]:
    """z, lo and hi of a rescaled result as it is stored. Raises PassError if no byte holds them."""
    offset = 128 if match.unsigned else 0
    numbers = [literal(match, name) - offset for name in ("z", "lo", "hi")]
    if any(not -128 <= n <= 127 for n in numbers):
        raise PassError(f"zero point and limits {numbers} are no bytes")
    return tuple(integer(n, i64) for n in numbers)  # type: ignore[return-value]


def rescaling(
    match: Match, grid: Grid, constants: Mapping[str, Array], bias: Array
) -> tuple[Array, Array, Array]:
    """bias, m and s of a requantization over the grid. Raises PassError outside of their range."""
    own, m, s = (
        grid.value(match.operands[name], constants).astype(np.int64) for name in ("bias", "m", "s")
    )
    bias = own + bias
    if bias.size and (bias.min() < FREE.min or bias.max() > FREE.max):
        raise PassError("the bias leaves int32 when the zero point is folded into it")
    if m.size and (m.min() < FREE.min or m.max() > FREE.max):
        raise PassError("a multiplier is no int32")
    if s.size and (s.min() < 1 or s.max() > 62):
        raise PassError("a shift is not in 1..62")
    return bias, m, s


def function(nest: Nest, buffers: Sequence[Buffer], body: Sequence[Stmt]) -> Function:
    """A function named after the nest."""
    return Function(nest.name, tuple(buffers), (), tuple(body), nest.location)


def volume(dims: Sequence[Dim]) -> int:
    """How many points a statement has."""
    total: Size = product(d.extent for d in dims)
    assert isinstance(total, int)
    return total


def blocks_of(offsets: Sequence[Array], shape: Sequence[int]) -> tuple[Array, Array]:
    """The distinct vectors of offsets, sorted, and for each point which one it has.

    Args:
        offsets: one array for each component, over a grid of that shape.
    """
    count = int(np.prod(shape))
    if not offsets:
        return np.zeros((1, 0), np.int64), np.zeros(count, np.int64)
    stacked = np.stack([np.broadcast_to(o, shape).reshape(-1) for o in offsets], axis=1)
    found, which = np.unique(stacked, axis=0, return_inverse=True)
    return found, which.reshape(-1)
