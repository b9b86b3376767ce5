"""Loops to LLVM IR: control flow, memory, and the machine code of register tiles."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nncc.backends.cpu.emit import STACK_BYTES, emit_llvm
from nncc.backends.cpu.target import assembly
from nncc.diagnostics import TargetError
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value, apply, broadcast, cast
from nncc.ir.index import Element, atom, maximum, minimum, var
from nncc.ir.loops import (
    Alloc,
    Assign,
    Buffer,
    Declare,
    For,
    Function,
    If,
    Let,
    Prefetch,
    Store,
    While,
)  # fmt: skip
from nncc.ir.types import boolean, f32, i8, i32, i64
from nncc.machines import load
from tests.cpu.native import VARIANTS, machine, run_both

i, j, n = var("i"), var("j"), var("n")


def test_loops_conditions_and_registers() -> None:
    """Collatz: the longest chain of each start, in nested control flow."""
    x, steps = Name("x", i64), Name("steps", i64)

    def const(v: int) -> Const:
        return Const(v, i64)

    halve = Assign("x", apply("shr", x, const(1)))
    grow = Assign("x", apply("add", apply("mul", x, const(3)), const(1)))
    odd = apply("eq", apply("and", x, const(1)), const(1))
    body = (
        For("i", 0, n, (
            Declare("x", Value(i + 1, i64)),
            Declare("steps", const(0)),
            While(apply("ne", x, const(1)), (
                If(odd, (grow,), (halve,)),
                Assign("steps", apply("add", steps, const(1))),
            )),
            If(apply("gt", steps, const(100)), (Assign("steps", const(-1)),)),
            Store("y", (i,), steps),
        ), kind="parallel"),
    )  # fmt: skip
    f = Function("collatz", (Buffer("y", i64, (n,), "out"),), ("n",), body)
    expected, given = run_both(f, machine("baseline"), [np.zeros(40, np.int64)], [40])
    np.testing.assert_array_equal(given[0], expected[0])
    assert given[0][26] == -1 and given[0][5] == 8


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_loops_that_may_not_run(length: int) -> None:
    total = Name("total", i32)
    count = cast(i32, Load("count", (), i64))
    body = (
        Declare("total", Const(5, i32)),
        For("i", 0, atom(Element("count", (), 0, 10)), (
            Assign("total", apply("add", apply("mul", total, Const(3, i32)), Value(i, i32))),
        )),
        Store("y", (), apply("add", total, count)),
    )  # fmt: skip
    buffers = (Buffer("count", i64, ()), Buffer("y", i32, (), "out"))
    arrays = [np.array(length, np.int64).reshape(1), np.zeros(1, np.int32)]
    expected, given = run_both(Function("f", buffers, (), body), machine("avx2"), arrays)
    np.testing.assert_array_equal(given[1], expected[1])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [f32, i8, boolean, i64], ids=str)
def test_borders_and_counts(dtype: type, variant: str) -> None:
    """Loads outside of a buffer, and masked loads and stores with counts known when running."""
    x = (np.random.default_rng(0).random((5, 19)) * 100).astype(dtype.numpy)
    one = Const(True if dtype is boolean else 3, dtype)
    shifted = Load("x", (i - 1, j - 2), dtype, broadcast(one, 8), lanes=8)
    single = Load("x", (i - 1, j - 2), dtype, one)
    body = (
        For("i", 0, 7, (
            For("j", 0, 23, (
                Store("y", (i, j), shifted, 23 - j),
                Store("z", (i, j), single),
            ), 8),
            For("j", 0, 19, (
                Store("w", (j,), Load("x", (minimum(i, 4), j), dtype, lanes=8, count=19 - j),
                      minimum(19 - j, n)),
            ), 8),
        )),
    )  # fmt: skip
    buffers = (
        Buffer("x", dtype, (5, 19)),
        Buffer("y", dtype, (7, 23), "out"),
        Buffer("z", dtype, (7, 23), "out"),
        Buffer("w", dtype, (19,), "out"),
    )
    outs = [np.zeros(s, dtype.numpy) for s in ((7, 23), (7, 23), 19)]
    for count in (1, 5, 8):
        f = Function("f", buffers, ("n",), body)
        expected, given = run_both(f, machine(variant), [x, *outs], [count])
        for a, b in zip(given, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    padded = np.pad(x, ((1, 1), (2, 2)), constant_values=np.asarray(one.value, x.dtype))
    np.testing.assert_array_equal(given[1], padded)


def test_index_arithmetic() -> None:
    k = var("k")
    values = (
        i // 3, (i - 7) // 3, (i - 7) % 3, i % 8, (i - 9) // 4, minimum(i, n), maximum(i - 5, 0),
        (i * n + 3) // n, (i - n) % n, i * i - 2 * i * n + 5, 8 * (i // 8) + i % 8,
        (2 * i - 11) // n,
    )  # fmt: skip
    stores = tuple(Store("y", (k, i), Value(v, i64)) for v in values)
    stores = tuple(Store("y", (e, i), s.value) for e, s in enumerate(stores))
    f = Function(
        "f",
        (Buffer("y", i64, (len(values), 20), "out"),),
        ("n",),
        (For("i", 0, 20, stores),),
    )
    for size in (1, 3, 8):
        y = np.zeros((len(values), 20), np.int64)
        expected, given = run_both(f, machine("baseline"), [y], [size])
        np.testing.assert_array_equal(given[0], expected[0])


def test_scratch_memory_and_unrolled_loops() -> None:
    """A transposition by way of the stack, with unrolled loops over ranges that depend."""
    scratch = Buffer("t", f32, (4, 4), "local", "stack")
    fill = For("i", 0, 4, (For("j", i, 4, (
        Store("t", (j, i), Load("x", (i, j), f32)), Store("t", (i, j), Load("x", (j, i), f32)),
    ), kind="unroll"),), kind="unroll")  # fmt: skip
    copy = For("i", 0, 4, (Store("y", (i, 0), Load("t", (i, 0), f32, lanes=4)),))
    f = Function(
        "f",
        (Buffer("x", f32, (4, 4)), Buffer("y", f32, (4, 4), "out")),
        (),
        (Prefetch("x", (100, 0)), Alloc(scratch, (fill, copy))),
    )
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    _, given = run_both(f, machine("avx2"), [x, np.zeros_like(x)])
    np.testing.assert_array_equal(given[1], x.T)


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("fn", ["reduce_add", "reduce_max", "reduce_min"])
def test_reductions_of_lanes(fn: str, lanes: int) -> None:
    for dtype in (f32, i32, i8):
        x = np.random.default_rng(lanes).standard_normal((6, lanes)) * 50
        x = x.astype(dtype.numpy)
        value = Apply(fn, (Load("x", (i, 0), dtype, lanes=lanes),), dtype, 1)
        buffers = (Buffer("x", dtype, (6, lanes)), Buffer("y", dtype, (6,), "out"))
        f = Function("f", buffers, (), (For("i", 0, 6, (Store("y", (i,), value),)),))
        expected, given = run_both(f, machine("avx2"), [x, np.zeros(6, dtype.numpy)])
        np.testing.assert_array_equal(given[1], expected[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_machine_operation_equals_its_semantics(variant: str) -> None:
    m, rng = machine(variant), np.random.default_rng(5)
    assert m.operations
    for name, operation in m.operations.items():
        params = operation.semantics.params
        lanes = [int(np.prod(p.type.static_shape)) for p in params]
        arrays, args = [], []
        for p, k in zip(params, lanes, strict=True):
            values = rng.integers(-128, 128, k) if p.type.dtype.is_integer else rng.random(k)
            arrays.append(values.astype(p.type.dtype.numpy))
            args.append(Load(p.name, (0,), p.type.dtype, lanes=k))
        result = Apply(name, tuple(args), params[0].type.dtype, lanes[0])
        buffers = [Buffer(p.name, p.type.dtype, (k,)) for p, k in zip(params, lanes, strict=True)]
        buffers.append(Buffer("result", result.dtype, (lanes[0],), "out"))
        arrays.append(np.zeros(lanes[0], result.dtype.numpy))
        f = Function("f", tuple(buffers), (), (Store("result", (0,), result),))
        expected, given = run_both(f, m, arrays)
        if result.dtype.is_float:
            np.testing.assert_allclose(given[-1], expected[-1], rtol=1e-6)
        else:
            np.testing.assert_array_equal(given[-1], expected[-1], name)


def test_large_or_unknown_allocations_are_refused() -> None:
    for shape, message in (((STACK_BYTES,), "bytes of stack"), ((n,), "not known when compiling")):
        body = (Alloc(Buffer("t", f32, shape, "local", "stack"), ()),)
        with pytest.raises(TargetError, match=f"'f': buffer 't'.*{message}"):
            emit_llvm({"f": Function("f", (), ("n",), body)}, load("cpu"))
    body = (Alloc(Buffer("t", f32, (1,), "local", "l2"), ()),)
    with pytest.raises(TargetError, match="no memory 'l2'"):
        emit_llvm({"f": Function("f", (), (), body)}, load("cpu"))


def convolution(columns: int, vectors: int, lanes: int, channels: int = 32) -> Function:
    """A 3x3 convolution of blocks of `lanes` channels, in tiles of columns x vectors registers.

    x[C/L, H, W, L], w[C/L, 3, 3, L, M], y[E, F, M]
    """
    e, f, b, r, s, c = map(var, "efbrsc")
    size = 2 * columns
    outputs = vectors * lanes
    tile = [(p, v) for p in range(columns) for v in range(vectors)]

    def register(p: int, v: int) -> Name:
        return Name(f"a{p}_{v}", f32, lanes)

    def product(p: int, v: int) -> Expr:
        point, weight = Name(f"x{p}", f32, lanes), Name(f"w{v}", f32, lanes)
        return apply("fma", point, weight, register(p, v))

    step = [
        Let(f"w{v}", Load("w", (b, r, s, c, v * lanes), f32, lanes=lanes)) for v in range(vectors)
    ]
    for p in range(columns):
        step.append(Let(f"x{p}", broadcast(Load("x", (b, e + r, f + s + p, c), f32), lanes)))
        step += [Assign(f"a{p}_{v}", product(p, v)) for v in range(vectors)]
    taps = For("r", 0, 3, (For("s", 0, 3, (For("c", 0, lanes, tuple(step)),)),))
    zero = broadcast(Const(0.0, f32), lanes)
    body = (
        *(Declare(f"a{p}_{v}", zero) for p, v in tile),
        For("b", 0, channels // lanes, (taps,)),
        *(Store("y", (e, f + p, v * lanes), apply("max", register(p, v), zero)) for p, v in tile),
    )
    buffers = (
        Buffer("x", f32, (channels // lanes, size + 2, size + 2, lanes)),
        Buffer("w", f32, (channels // lanes, 3, 3, lanes, outputs)),
        Buffer("y", f32, (size, size, outputs), "out"),
    )
    loops = For("e", 0, size, (For("f", 0, size, body, columns),), kind="parallel")
    return Function("conv", buffers, (), (loops,))


def blocks(text: str) -> list[list[str]]:
    """The instructions of each basic block of assembly text, up to its first jump."""
    found = []
    for block in re.split(r"^\S+:", text, flags=re.MULTILINE):
        lines = [line.strip() for line in block.splitlines() if line.startswith("\t")]
        jump = next((k for k, line in enumerate(lines) if line.startswith("j")), len(lines))
        found.append(lines[: jump + 1])
    return found


def products(block: list[str]) -> int:
    return sum("vfmadd" in line for line in block)


@pytest.mark.parametrize(
    ("variant", "columns", "vectors", "lanes"), [("avx512", 14, 2, 16), ("avx2", 6, 2, 8)]
)
def test_register_tile(variant: str, columns: int, vectors: int, lanes: int) -> None:
    m = machine(variant)
    f = convolution(columns, vectors, lanes)
    rng = np.random.default_rng(0)
    arrays = [rng.random(tuple(map(int, b.shape)), dtype=np.float32) for b in f.buffers]
    expected, given = run_both(f, m, arrays)
    np.testing.assert_allclose(given[2], expected[2], rtol=1e-4)

    text = assembly(emit_llvm({"conv": f}, m, exported=["conv"]), m)
    lines = max(blocks(text), key=products)
    assert products(lines) == columns * vectors
    assert not [line for line in lines if re.search(r"\(%rsp[,)]", line)]
    # besides products only the loads and the loop itself
    assert len(lines) <= columns * vectors + columns + vectors + 6
