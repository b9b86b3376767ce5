"""Matrix products, in floats and in integers.

    y[n,m] = sum(k) a[n,k] * b[k,m]

Rows, columns and the reduced axis are n, m, k; batches are g.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncc.ir.index import Index, Size
from nncc.ir.nests import Nest
from nncc.ir.types import DTYPES, DType, TensorType, i32
from nncc.ops.inference import FLOATS, broadcast, one_dtype, require
from nncc.ops.integer import accumulator_bound, coarse_bound, largest_distance
from nncc.ops.notation import Notation, Scalar, broadcast_indices, cast, const
from nncc.ops.samples import Draw, sample
from nncc.ops.table import AttrDecl, Sample, Site, op


def _product_shape(site: Site, a: Sequence[Size], b: Sequence[Size]) -> tuple[Size, ...]:
    """numpy.matmul's shape: rank 1 is a row of a or a column of b, batches broadcast."""
    if not a or not b:
        raise site.error("operands of a matrix product must have rank 1 or more")
    rows = a if len(a) > 1 else (1, *a)
    columns = b if len(b) > 1 else (*b, 1)
    if rows[-1] != columns[-2]:
        raise site.error(f"inner sizes differ: {rows[-1]} and {columns[-2]}")
    batch = broadcast(site, [rows[:-2], columns[:-2]]) if len(rows) + len(columns) > 4 else ()
    return (*batch, *rows[-2:-1][: len(a) > 1], *columns[-1:][: len(b) > 1])


def _product_parts(
    notation: Notation, a: Sequence[Size], b: Sequence[Size], rank: int
) -> tuple[tuple[Index, ...], tuple[Size, ...], tuple[Size, ...], dict[Index, Size]]:
    """Indices of y, of a and of b, and the reduced dim."""
    n, m, k = notation.dims("n m k")
    matrix = (n,) * (len(a) > 1) + (m,) * (len(b) > 1)
    count = rank - len(matrix)
    batch = notation.dims("g" if count == 1 else " ".join(f"g{j}" for j in range(count)))
    left = (*broadcast_indices(a[:-2], batch), n, k) if len(a) > 1 else (k,)
    right = (*broadcast_indices(b[:-2], batch), k, m) if len(b) > 1 else (k,)
    return (*batch, *matrix), left, right, {k: a[-1]}


def _infer_matmul(site: Site) -> Sequence[TensorType]:
    require(site, "a", dtypes=FLOATS + " i64 i32 u64 u32")
    dtype = one_dtype(site, "a", "b")
    return (TensorType(dtype, _product_shape(site, site.input("a").shape, site.input("b").shape)),)


def _matmul_nest(site: Site) -> Nest:
    notation = Notation(site)
    a, b, y = notation.tensors("a", "b", "y")
    where, left, right, over = _product_parts(notation, a.shape, b.shape, y.type.rank)
    wide = DTYPES[a.dtype.accumulator]
    found = notation.accumulate(y.at(where), cast(wide, a.at(left)) * cast(wide, b.at(right)), over)
    if found.dtype is not y.dtype:
        notation.assign(y.at(where), cast(y.dtype, found))
    return notation.build()


def product_shapes(d: Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of two operands of a matrix product, batches and rank 1 included."""
    n, m, k = d.whole(1, 4), d.whole(1, 4), d.whole(1, 5)
    batch = d.shape(d.whole(0, 2), 1, 3)
    a = (*d.broadcastable(batch), n, k)
    b = (*(d.broadcastable(batch) if d.flag() else batch), k, m)
    return (a if d.whole(0, 4) else (k,)), (b if d.whole(0, 4) else (k,))


def _sample_matmul(d: Draw) -> Sample:
    a, b = product_shapes(d)
    dtype = d.choice("f32", "f32", "i32")
    return Sample((d.array(a, dtype), d.array(b, dtype)))


op(
    "MatMul", "a b -> y", since=13,
    doc="The product of matrices; leading axes are batches and broadcast, as in numpy.matmul.",
    infer=_infer_matmul, nest=_matmul_nest, traits={"contraction"}, sample=sample(_sample_matmul),
)  # fmt: skip


def _infer_gemm(site: Site) -> Sequence[TensorType]:
    a = require(site, "a", dtypes=FLOATS + " i64 i32 u64 u32", rank=2)
    b = require(site, "b", rank=2)
    dtype = one_dtype(site, "a", "b", "c")
    if dtype.is_integer and (site.attr("alpha"), site.attr("beta")) != (1.0, 1.0):
        raise site.error("alpha and beta of integer operands must be 1")
    rows = a.shape[::-1] if site.attr("transA") else a.shape
    columns = b.shape[::-1] if site.attr("transB") else b.shape
    shape = _product_shape(site, rows, columns)
    c = site.optional("c")
    if c is not None and broadcast(site, [c.shape, shape]) != shape:
        raise site.error(f"operand c, {c}, does not broadcast to {TensorType(dtype, shape)}")
    return (TensorType(dtype, shape),)


def _gemm_nest(site: Site) -> Nest:
    notation = Notation(site)
    a, b, y = notation.tensors("a", "b", "y")
    alpha, beta = site.attr("alpha"), site.attr("beta")
    wide = DTYPES[a.dtype.accumulator]
    n, m, k = notation.dims("n m k")
    left = a[k, n] if site.attr("transA") else a[n, k]
    right = b[m, k] if site.attr("transB") else b[k, m]
    inner = a.shape[0] if site.attr("transA") else a.shape[1]
    product = cast(wide, left) * cast(wide, right)

    added: Scalar | None = None
    if notation.optional("c"):
        added = cast(wide, notation.operand("c", (n, m)))
        added = added if beta == 1.0 else added * beta
    if alpha == 1.0:
        found = notation.accumulate(y[n, m], product, {k: inner}, added)
        if found.dtype is not y.dtype:
            notation.assign(y[n, m], cast(y.dtype, found))
        return notation.build()
    total = notation.local("t", wide, y.shape)[n, m]
    notation.reduce("sum", total, product, {k: inner})
    scaled = total * alpha
    notation.assign(y[n, m], cast(y.dtype, scaled + added if added else scaled))
    return notation.build()


def _gemm_reference(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: bool = False,
    transB: bool = False,
) -> tuple[np.ndarray, ...]:
    y = np.matmul(a.T if transA else a, b.T if transB else b)
    y = y if alpha == 1.0 else np.asarray(alpha, a.dtype) * y
    if c is not None:
        y = y + (c if beta == 1.0 else np.asarray(beta, a.dtype) * c)
    return (y.astype(a.dtype),)


def _sample_gemm(d: Draw) -> Sample:
    n, m, k = d.whole(1, 4), d.whole(1, 4), d.whole(1, 5)
    attrs: dict[str, Any] = {"transA": d.flag(), "transB": d.flag()}
    attrs |= d.choice({}, {"alpha": 0.5}, {"beta": 2.0}, {"alpha": 0.25, "beta": 0.5})
    a = d.floats((k, n) if attrs["transA"] else (n, k))
    b = d.floats((m, k) if attrs["transB"] else (k, m))
    c = d.floats(d.broadcastable((n, m))) if d.flag() else None
    return Sample((a, b, c), attrs)


op(
    "Gemm", "a b c? -> y", since=13,
    doc="alpha * A * B + beta * c, with A and B perhaps transposed.",
    attrs={
        "alpha": AttrDecl("float", 1.0), "beta": AttrDecl("float", 1.0),
        "transA": AttrDecl("bool", False), "transB": AttrDecl("bool", False),
    },
    infer=_infer_gemm, nest=_gemm_nest, reference=_gemm_reference, traits={"contraction"},
    sample=sample(_sample_gemm),
)  # fmt: skip


def _swap(shape: tuple[Size, ...], transposed: bool) -> tuple[Size, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if transposed else shape


def _infer_int_matmul(site: Site) -> Sequence[TensorType]:
    a, b = require(site, "a", dtypes="i8 u8"), require(site, "b", dtypes="i8 u8")
    if site.attr("transB") and b.rank < 2:
        raise site.error(f"transB needs a matrix, b is {b}")
    for name, type in (("za", a), ("zb", b)):
        if not type.dtype.limits[0] <= site.attr(name) <= type.dtype.limits[1]:
            raise site.error(f"{name}={site.attr(name)} is no value of {type.dtype}")
    shape = _product_shape(site, a.shape, _swap(b.shape, site.attr("transB")))
    bias = site.optional("bias")
    if bias is not None:
        require(site, "bias", dtypes="i32")
        if broadcast(site, [bias.shape, shape]) != shape:
            raise site.error(f"the bias, {bias}, does not broadcast to {TensorType(i32, shape)}")
    return (TensorType(i32, shape),)


def _int_matmul_nest(site: Site) -> Nest:
    notation = Notation(site)
    a, b, y = notation.tensors("a", "b", "y")
    transposed = site.attr("transB")
    where, left, right, over = _product_parts(
        notation, a.shape, _swap(b.shape, transposed), y.type.rank
    )
    value = _shifted(a.at(left), site.attr("za"), i32) * _shifted(
        b.at(_swap(right, transposed)), site.attr("zb"), i32
    )
    bias = notation.optional("bias")
    start = bias.at(broadcast_indices(bias.shape, where)) if bias else const(0, i32)
    notation.reduce("sum", y.at(where), value, over, start)
    return notation.build()


def _int_matmul_accumulator(site: Site, array: Callable[[str], np.ndarray | None]) -> int:
    """Coarsely by the number of terms; by the weights themselves where that is not enough."""
    a, b = site.input("a"), site.input("b")
    za, zb, bias = site.attr("za"), site.attr("zb"), array("bias")
    if not isinstance(a.shape[-1], int):
        raise site.error(f"the summed size {a.shape[-1]} must be a number")
    reach = [largest_distance(t.dtype.limits, z) for t, z in ((a, za), (b, zb))]
    bound = coarse_bound(a.shape[-1], reach[0], reach[1], bias)
    if bound < 1 << 31 or (w := array("b")) is None or w.ndim != 2 or zb:
        return bound
    filters = w if site.attr("transB") else w.T
    return accumulator_bound(filters, bias, za, a.dtype.limits)


def _shifted(x: Scalar, zero_point: int, dtype: DType) -> Scalar:
    wide = cast(dtype, x)
    return wide - zero_point if zero_point else wide


def _int_matmul_reference(
    a: np.ndarray,
    b: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    za: int = 0,
    zb: int = 0,
    transB: bool = False,
) -> tuple[np.ndarray, ...]:
    right = np.swapaxes(b, -1, -2) if transB else b
    # sums of integers below 2^53 are exact in float64, whose product is many times faster
    y = np.matmul(a.astype(np.float64) - za, right.astype(np.float64) - zb).astype(np.int64)
    return (np.asarray(y if bias is None else y + bias, np.int32),)


def _sample_int_matmul(d: Draw) -> Sample:
    a, b = product_shapes(d)
    transposed = len(b) > 1 and d.flag()
    b = (*b[:-2], b[-1], b[-2]) if transposed else b
    bias = d.ints(b[-2:-1] if transposed else b[-1:], "i32", -500, 500)
    attrs = {"za": d.whole(0, 50), "zb": d.choice(0, 3), "transB": transposed}
    operands = (d.ints(a, d.choice("i8", "u8"), -128, 255), d.ints(b, "i8", -127, 127))
    return Sample((*operands, bias if len(b) > 1 and d.flag() else None), attrs)


op(
    "IntMatMul", "a b bias? -> y", domain="nncc",
    doc="Matrix product of integers: y = bias + sum (a - za) * (b - zb) in int32. With transB "
    "the last two axes of b are exchanged. As for IntConv, za may be folded into the bias.",
    attrs={
        "za": AttrDecl("int", 0, doc="zero point of a"),
        "zb": AttrDecl("int", 0, doc="zero point of b"),
        "transB": AttrDecl("bool", False),
    },
    infer=_infer_int_matmul, nest=_int_matmul_nest, reference=_int_matmul_reference,
    accumulator=_int_matmul_accumulator,
    traits={"contraction"}, sample=sample(_sample_int_matmul),
)  # fmt: skip
