"""Functions that a planned model calls besides those of its nests: copies and first values.

nncc.copy(x, y; n)          n bytes of y are those of x
nncc.fill.STATE(y; n)       n elements of y are the first value of a state
"""

from __future__ import annotations

from nncc.ir.expr import Const, Load
from nncc.ir.graph import Symbol
from nncc.ir.index import var
from nncc.ir.loops import Buffer, For, Function, Store
from nncc.ir.types import DType, u8

COPY = "nncc.copy"
FILL = "nncc.fill"


def copy_function() -> Function:
    """Copies n bytes."""
    n, i, lanes = var("n"), var("i"), 64
    whole = n // lanes * lanes
    buffers = (Buffer("x", u8, (n,), "in", alignment=1), Buffer("y", u8, (n,), "out", alignment=1))
    body = (
        For("i", 0, whole, (Store("y", (i,), Load("x", (i,), u8, lanes=lanes)),), lanes),
        For("i", whole, n, (Store("y", (i,), Load("x", (i,), u8)),)),
    )
    return Function(COPY, buffers, ("n",), body)


def fill_function(name: str, symbol: Symbol) -> Function:
    """Sets n elements to a state's first value."""
    dtype: DType = symbol.type.dtype
    value = Const(symbol.data.array.item(), dtype)
    body = (For("i", 0, var("n"), (Store("y", (var("i"),), value),)),)
    buffer = Buffer("y", dtype, (var("n"),), "out", alignment=1)
    return Function(name, (buffer,), ("n",), body)
