"""Random Loops functions: native code equals the interpreter, integers to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    map_indices,
)  # fmt: skip
from nncc.ir.index import Size, substitute, var
from nncc.ir.interpreter.loops import interpret
from nncc.ir.loops import Alloc, Assign, Buffer, Declare, For, Function, If, Let, Stmt, Store
from nncc.ir.types import DTYPES, DType, boolean, f32, i8
from tests.cpu.native import machine, run_both

EXTENT = 24  # of every buffer; random subscripts are wrapped into it
INTEGERS = tuple(DTYPES[d] for d in ("i8", "u8", "i16", "i32", "u32", "i64"))
EXACT = ("add", "sub", "mul", "min", "max")  # on floats, too
BITWISE = ("and", "or", "xor", "shl", "shr", "div", "floordiv", "mod")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


class Maker:
    """Draws statements; knows what is bound at the place."""

    def __init__(self, draw: st.DrawFn, lanes: int) -> None:
        self.draw = draw
        self.lanes = lanes
        self.dtypes = (*draw(st.lists(st.sampled_from(INTEGERS), min_size=1, max_size=2)), f32)
        self.variables = ["N"]
        self.names: list[Name] = []
        self.registers: list[Name] = []
        self.count = 0
        self.parallel = False

    def fresh(self, hint: str) -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def one(self, *options: str) -> str:
        return self.draw(st.sampled_from(options))

    def number(self, lo: int, hi: int) -> int:
        return self.draw(st.integers(lo, hi))

    # -- integers --------------------------------------------------------------------------
    def size(self) -> Size:
        total: Size = self.number(-9, 9)
        for v in self.draw(st.lists(st.sampled_from(self.variables), max_size=3)):
            total = total + self.number(-3, 5) * var(v)
        shape = self.one("plain", "plain", "div", "mod")
        divisor = self.number(1, 7)
        return {"plain": total, "div": total // divisor, "mod": total % divisor}[shape]

    def subscript(self, lanes: int) -> Size:
        return self.size() % (EXTENT - lanes + 1)

    # -- expressions -----------------------------------------------------------------------
    def value(self, dtype: DType, lanes: int, depth: int) -> Expr:
        kind = self.one("leaf", "apply", "apply", "select", "cast") if depth else "leaf"
        if kind == "apply":
            fns = EXACT if dtype.is_float else EXACT + BITWISE
            fn = self.one(*fns)
            return apply(
                fn, self.value(dtype, lanes, depth - 1), self.value(dtype, lanes, depth - 1)
            )
        if kind == "select":
            chosen = (self.value(dtype, lanes, depth - 1) for _ in range(2))
            return apply("select", self.condition(lanes, depth - 1), *chosen)
        if kind == "cast" and not dtype.is_float:
            other = self.draw(st.sampled_from([d for d in self.dtypes if not d.is_float]))
            return cast(dtype, self.value(other, lanes, depth - 1))
        return self.leaf(dtype, lanes)

    def leaf(self, dtype: DType, lanes: int) -> Expr:
        bound = [n for n in self.names if (n.dtype, n.lanes) == (dtype, lanes)]
        kind = self.one("const", "value", "load", *(["name"] * 3 if bound else []))
        if kind == "name":
            return self.draw(st.sampled_from(bound))
        if kind == "const":
            lo, hi = (-8, 8) if dtype.is_float else dtype.limits
            return broadcast(Const(self.number(lo, hi), dtype), lanes)
        if kind == "value":
            return broadcast(Value(self.size(), dtype), lanes)
        return self.load(dtype, lanes)

    def load(self, dtype: DType, lanes: int) -> Expr:
        kind = self.one("inside", "inside", "count", "outside")
        name = f"{dtype}.in"
        if kind == "count" and lanes > 1:
            limit = self.size() % (lanes + 1)
            return Load(name, (self.subscript(lanes),), dtype, None, lanes, limit)
        if kind == "outside":
            other = broadcast(Const(1, dtype), lanes)
            return Load(name, (self.size(),), dtype, other, lanes)
        return Load(name, (self.subscript(lanes),), dtype, lanes=lanes)

    def condition(self, lanes: int, depth: int) -> Expr:
        dtype = self.draw(st.sampled_from(self.dtypes))
        depth = max(depth, 0)
        operands = (self.value(dtype, lanes, depth) for _ in range(2))
        return apply(self.one(*COMPARE), *operands)

    # -- statements ------------------------------------------------------------------------
    def body(self, depth: int) -> tuple[Stmt, ...]:
        names, registers = list(self.names), list(self.registers)
        statements: list[Stmt] = []
        for _ in range(self.number(1, 3)):
            statements += self.statement(depth)
        self.names, self.registers = names, registers
        return tuple(statements)

    def statement(self, depth: int) -> list[Stmt]:
        compound = ("for", "unroll", "if", "alloc") if depth else ()
        kind = self.one("let", "declare", "assign", "store", *compound)
        dtype = self.draw(st.sampled_from(self.dtypes))
        lanes = self.draw(st.sampled_from((1, self.lanes)))
        if kind in ("let", "declare"):
            value = self.value(dtype, lanes, 2)
            name = Name(self.fresh("v"), dtype, lanes)
            self.names.append(name)
            if kind == "let":
                return [Let(name.name, value)]
            self.registers.append(name)
            return [Declare(name.name, value)]
        if kind == "assign" and self.registers:
            name = self.draw(st.sampled_from(self.registers))
            return [Assign(name.name, self.value(name.dtype, name.lanes, 2))]
        if kind == "for":
            return [self.loop(depth)]
        if kind == "unroll":
            return [self.loop(depth, unroll=True)]
        if kind == "if":
            condition = self.condition(1, 1)
            return [If(condition, self.body(depth - 1), self.body(depth - 1))]
        if kind == "alloc":
            return [self.scratch(dtype, lanes)]
        value = self.value(dtype, lanes, 2)
        if self.one("whole", "reduced") == "reduced" and lanes > 1:
            return [
                Store(f"{dtype}.out", (self.subscript(1),), Apply("reduce_max", (value,), dtype))
            ]
        all_lanes = lanes == 1 or self.one("all", "some") == "all"
        count = None if all_lanes else self.size() % (lanes + 1)
        return [Store(f"{dtype}.out", (self.subscript(lanes),), value, count)]

    def loop(self, depth: int, unroll: bool = False) -> Stmt:
        name = self.fresh("i")
        step = self.number(1, 3)
        lo, hi = self.number(-2, 2), self.number(0, 5)
        end: Size = hi if unroll or self.one("literal", "size") == "literal" else var("N") + hi - 3
        self.variables.append(name)
        body = self.body(depth - 1)
        self.variables.remove(name)
        return For(name, lo, end, body, step, "unroll" if unroll else "serial")

    def scratch(self, dtype: DType, lanes: int) -> Stmt:
        name = self.fresh("t")
        buffer = Buffer(name, dtype, (EXTENT,), "local", "stack")
        at = self.subscript(lanes)
        fill = Store(name, (at,), self.value(dtype, lanes, 1))
        read = Store(
            f"{dtype}.out", (self.subscript(lanes),), Load(name, (at,), dtype, lanes=lanes)
        )
        return Alloc(buffer, (fill, read))


@st.composite
def functions(draw: st.DrawFn) -> Function:
    maker = Maker(draw, draw(st.sampled_from((2, 4, 8, 16))))
    body = maker.body(3)
    dtypes = dict.fromkeys(maker.dtypes)
    buffers = [Buffer(f"{d}.in", d, (EXTENT,)) for d in dtypes]
    buffers += [Buffer(f"{d}.out", d, (EXTENT,), "out") for d in dtypes]
    return Function("random", tuple(buffers), ("N",), body)


def arrays_for(f: Function, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = []
    for b in f.buffers:
        if b.dtype.is_float:
            arrays.append(rng.integers(-40, 40, EXTENT).astype(np.float32) / 4)
        else:
            lo, hi = b.dtype.limits
            arrays.append(rng.integers(lo, hi, EXTENT, b.dtype.numpy, endpoint=True))
    return arrays


@pytest.mark.parametrize("variant", ["avx512", "avx2", "baseline"])
def test_native_equals_interpreter(variant: str) -> None:
    m = machine(variant)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(functions(), st.integers(1, 6), st.integers(0, 9))
    def check(f: Function, n: int, seed: int) -> None:
        expected, given_arrays = run_both(f, m, arrays_for(f, seed), [n])
        for b, a, e in zip(f.buffers, given_arrays, expected, strict=True):
            np.testing.assert_array_equal(a, e, b.name)

    check()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(functions(), st.integers(1, 4), st.integers(1, 7))
def test_lockstep_equals_one_after_the_other(f: Function, n: int, instances: int) -> None:
    """A parallel loop, each iteration with its own part of the outputs, in the interpreter."""
    p = var("p")

    def own(s: Stmt) -> Stmt:
        if isinstance(s, Store) and s.buffer.endswith(".out"):
            return replace(s, indices=(p, *s.indices))
        if isinstance(s, For | Alloc):
            return replace(s, body=tuple(map(own, s.body)))
        if isinstance(s, If):
            return replace(s, then=tuple(map(own, s.then)), otherwise=tuple(map(own, s.otherwise)))
        return s

    # subscripts depend on the iteration, so that instances take different ways
    body = tuple(own(s) for s in renamed(f.body))
    buffers = tuple(
        replace(b, shape=(instances, EXTENT)) if b.access == "out" else b for b in f.buffers
    )
    results = []
    for kind in ("serial", "parallel"):
        loop = For("p", 0, instances, body, kind=kind)  # type: ignore[arg-type]
        g = Function("g", buffers, ("N",), (loop,))
        arrays = arrays_for(f, 1)
        arrays = [
            np.zeros((instances, EXTENT), a.dtype) if b.access == "out" else a
            for a, b in zip(arrays, buffers, strict=True)
        ]
        interpret({"g": g}, "g", arrays, [n])
        results.append(arrays)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def renamed(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """The body with N + p for N in subscripts and values, but not in the bounds of loops."""

    def size(s: Size) -> Size:
        return substitute(s, {"N": var("N") + var("p")})

    def one(s: Stmt) -> Stmt:
        if isinstance(s, Let | Declare | Assign):
            return replace(s, value=map_indices(s.value, size))
        if isinstance(s, Store):
            count = None if s.count is None else size(s.count)
            indices = tuple(map(size, s.indices))
            return replace(s, indices=indices, value=map_indices(s.value, size), count=count)
        if isinstance(s, If):
            condition = map_indices(s.condition, size)
            return If(condition, renamed(s.then), renamed(s.otherwise))
        if isinstance(s, For):
            return replace(s, hi=size(s.hi), body=renamed(s.body))
        assert isinstance(s, Alloc)
        return Alloc(s.buffer, renamed(s.body))

    return tuple(map(one, body))


def test_bool_is_a_dtype_of_its_own() -> None:
    """Masks are stored as bytes and used as conditions of vectors."""
    i = var("i")
    mask = apply("lt", Load("x", (i,), f32, lanes=8), broadcast(Const(0.0, f32), 8))
    body = (
        For("i", 0, EXTENT, (Store("m", (i,), mask),), 8),
        For("i", 0, EXTENT, (
            Store("y", (i,), apply("select", Load("m", (i,), boolean, lanes=8),
                                   broadcast(Const(-1.0, f32), 8),
                                   Load("x", (i,), f32, lanes=8))),
        ), 8),
    )  # fmt: skip
    buffers = (
        Buffer("x", f32, (EXTENT,)),
        Buffer("m", boolean, (EXTENT,), "out"),
        Buffer("y", f32, (EXTENT,), "out"),
    )
    x = np.linspace(-3, 3, EXTENT, dtype=np.float32)
    arrays = [x, np.zeros(EXTENT, bool), np.zeros_like(x)]
    expected, given_arrays = run_both(Function("f", buffers, (), body), machine("avx2"), arrays)
    np.testing.assert_array_equal(given_arrays[1], x < 0)
    np.testing.assert_array_equal(given_arrays[2], np.where(x < 0, -1, x))
    np.testing.assert_array_equal(given_arrays[2], expected[2])


@pytest.mark.parametrize("variant", ["avx512", "avx2", "baseline"])
def test_a_load_before_the_buffer_in_a_loop_of_one_iteration(variant: str) -> None:
    """The loop's variable is a literal then, which says on which side it is outside."""
    value = Load("x", (var("i"),), i8, Const(1, i8))
    body = (For("i", -1, 0, (For("j", 0, 1, (Store("y", (0,), value),)),)),)
    buffers = (Buffer("x", i8, (24,)), Buffer("y", i8, (24,), "out"))
    f = Function("f", buffers, (), body)
    expected, found = run_both(f, machine(variant), [np.zeros(24, np.int8)] * 2, [])
    assert expected[1][0] == found[1][0] == 1
