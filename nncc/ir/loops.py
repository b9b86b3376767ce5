"""The Loops level: imperative code over buffers, the only thing that back ends read.

A `Function` has buffers (arguments and allocations) and a body of statements. Loop variables
and sizes are 64-bit integers and appear in `Size` expressions; everything else is a typed
scalar or vector expression (`nncc.ir.expr`), in which `Load` addresses a buffer by its physical
dimensions.

    function conv1(x: f32[N,1,28,28], w: f32[25,16], y: f32[N,1,24,24,16]; N) {
      parallel n in 0..N {
        for e in 0..24 {
          …
          declare a0: f32x16 = broadcast(0.0)
          for r in 0..5 { for s in 0..5 {
            let b: f32x16 = w[5*r + s, 0 : 16]
            a0 = fma16(a0, broadcast(x[n, 0, e + r, f + s]), b)
          } }
          y[n, 0, e, f, 0 : 16] = max(a0, broadcast(0.0))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from nncc.diagnostics import NOWHERE, Location
from nncc.ir.expr import Expr
from nncc.ir.index import Size, ceildiv, product
from nncc.ir.nests import Access, Dim
from nncc.ir.types import DType


@dataclass(frozen=True, slots=True)
class Buffer:
    """A region of memory, read and written as a row-major array of `shape`.

    Args:
        space: the memory that holds it: `host` for arguments, otherwise a storage of the
            machine (`stack` on the CPU).
        alignment: of the first element, in bytes.
        access: what the function may do with an argument: `in` buffers are never written and
            overlap no other buffer; `out` buffers are written; allocations are `local`.
    """

    name: str
    dtype: DType
    shape: tuple[Size, ...]
    access: Literal["in", "out", "local"] = "in"
    space: str = "host"
    alignment: int = 64

    @property
    def bytes(self) -> Size:
        return ceildiv(product(self.shape) * self.dtype.bits, 8)


@dataclass(frozen=True, slots=True)
class For:
    """`for variable in lo..hi step step`, hi excluded; `kind` parallel: independent iterations.

    An `unroll` loop has literal bounds; a back end writes its body out.
    """

    variable: str
    lo: Size
    hi: Size
    body: tuple[Stmt, ...]
    step: int = 1
    kind: Literal["serial", "parallel", "unroll"] = "serial"


@dataclass(frozen=True, slots=True)
class If:
    """`condition` is a scalar bool."""

    condition: Expr
    then: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...] = ()


@dataclass(frozen=True, slots=True)
class While:
    """Repeats while the scalar bool `condition`, evaluated before each round, holds."""

    condition: Expr
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Let:
    """Names a value that does not change; visible to the end of the enclosing block."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Declare:
    """A register: a named scalar or vector that `Assign` changes; visible like a Let."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign:
    """Sets a declared register."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Store:
    """`buffer[indices] = value`; a vector goes to consecutive elements of the last dimension.

    With `count` only the first `count` lanes are written.
    """

    buffer: str
    indices: tuple[Size, ...]
    value: Expr
    count: Size | None = None


@dataclass(frozen=True, slots=True)
class Alloc:
    """A buffer that exists while `body` runs; its content is undefined at first.

    Whatever access `buffer` was made with, that of an allocation is `local`.
    """

    buffer: Buffer
    body: tuple[Stmt, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "buffer", replace(self.buffer, access="local"))


@dataclass(frozen=True, slots=True)
class View:
    """An argument of a call: `buffer` from byte `offset` on."""

    buffer: str
    offset: Size = 0


@dataclass(frozen=True, slots=True)
class Call:
    """Calls another function of the module with buffers and sizes; `source` names the node."""

    callee: str
    arguments: tuple[View, ...]
    sizes: tuple[Size, ...] = ()
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Prefetch:
    """A hint that `buffer[indices]` is read soon; it may be outside the buffer."""

    buffer: str
    indices: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Perform:
    """An operation of the machine on memory, at every point of a box of its own dimensions.

        perform matmul for A in 0..7, B in 0..7, k in 0..24, m in 0..32 {
          t[e + A, B, m] sum= x[n, 0, A + r - 1, B + s - 1, k], w[0,0,r,s,k,m]
        }

    The operation's record is a nest of one statement. Its instances at these points run with
    the elements that stand here in the place of its operands; `dims` are the statement's
    dimensions by their names, each with the part of its range that is used (perhaps none).

    Args:
        combine: that of the record's statement; or `=` for a reduction that starts anew, as if
            the target held the neutral element of the combine before.
        operands: for each input of the record what it stands for: a load, or (for inputs of
            rank 0) any scalar in which `dims` do not occur.
    """

    operation: str
    dims: tuple[Dim, ...]
    target: Access
    combine: str
    operands: tuple[Expr, ...]


Stmt = For | If | While | Let | Declare | Assign | Store | Alloc | Call | Prefetch | Perform


@dataclass(frozen=True)
class Function:
    """Loops code with its arguments. `sizes` are passed at run time, each at least 1."""

    name: str
    buffers: tuple[Buffer, ...]
    sizes: tuple[str, ...]
    body: tuple[Stmt, ...]
    location: Location = field(default=NOWHERE, compare=False)


def walk_statements(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement in the order of the text."""
    for s in body:
        yield s
        if isinstance(s, For | While | Alloc):
            yield from walk_statements(s.body)
        elif isinstance(s, If):
            yield from walk_statements(s.then)
            yield from walk_statements(s.otherwise)
