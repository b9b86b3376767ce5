"""A float that becomes an integer may be rounded the other way, if its tolerance explains it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import nncc
from nncc.check import check
from nncc.driver import Compilation, build, lower
from nncc.frontend.dsl import read_nn
from nncc.ir.expr import Const, apply
from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.ir.loops import Alloc, For, Function, If, Stmt, Store, While
from nncc.ops.reference import evaluate
from nncc.rounding import Followed, follow

TEXT = """nncc 1
size N
const one: i64[1] = [1]
const scale: f32[] = 0.1
const zero: i8[] = 3
const table: i8[256] = random(seed=1, lo=-128, hi=127)
"""
SUMS = "graph main(x: f32[N,64]) -> (y) { s = ReduceSum(x, one)  "
QUANTIZED = SUMS + "y = QuantizeLinear(s, scale, zero) }"


def module(graph: str) -> Module:
    text = TEXT.replace(
        "random(seed=1, lo=-128, hi=127)",
        str([int(v) for v in np.random.default_rng(1).permutation(256) - 128]),
    )
    return read_nn(text + graph)


def followed(graph: str, x: np.ndarray, **found: list[int]) -> Followed:
    """What the reference takes over of values [rows,1]."""
    values = {n: np.array(v, np.int8)[:, None] for n, v in found.items()}
    return follow(module(graph), {"x": x}, {}, values, 64)


def rows(*sums: float) -> np.ndarray:
    """A row of 64 elements for each sum, and one with a large sum, which gives the range."""
    x = np.zeros((len(sums) + 1, 64), np.float32)
    x[:-1, 0] = sums
    x[-1, 0] = 10.0
    return x


def test_an_element_beside_the_middle_is_explained() -> None:
    got = followed(QUANTIZED, rows(0.25, 0.25, 0.251, 0.2), y=[6, 5, 6, 5, 103])
    assert got.elements == 1  # of the first two rows one is what the reference gives, too
    assert got.run.outputs["y"][:, 0].tolist() == [6, 5, 6, 5, 103]


@pytest.mark.parametrize(
    ("sums", "wrong"),
    [((0.25,), 7), ((0.25,), 4), ((0.26,), 5), ((0.24,), 6), ((0.2,), 6), ((0.2,), 4)],
    ids=["beyond", "below", "above the middle", "below the middle", "one more", "one less"],
)
def test_other_integers_are_not(sums: tuple[float, ...], wrong: int) -> None:
    got = followed(QUANTIZED, rows(*sums), y=[wrong, 103])
    assert got.elements == 0
    assert got.run.outputs["y"][0, 0] != wrong


@pytest.mark.parametrize(
    "graph",
    [
        "graph main(x: f32[N,1]) -> (y) { y = QuantizeLinear(x, scale, zero) }",
        "graph main(x: f32[N,1]) -> (y) { t = Transpose(x) {perm=[1,0]}"
        " u = Transpose(t) {perm=[1,0]} y = QuantizeLinear(u, scale, zero) }",
        "const half: f32[] = 0.05 graph main(x: f32[N,1]) -> (y) {"
        " q = QuantizeLinear(x, half, zero) d = DequantizeLinear(q, half, zero)"
        " y = QuantizeLinear(d, scale, zero) }",
    ],
    ids=["input", "views", "dequantized"],
)
def test_exact_operands_explain_nothing(graph: str) -> None:
    x = np.array([[0.25], [0.15], [10.0]], np.float32)
    exact = interpret(module(graph), {"x": x}, evaluate).outputs["y"]
    for step in (-1, 1):
        got = followed(graph, x, y=(exact[:, 0] + step).tolist())
        assert got.elements == 0
        np.testing.assert_array_equal(got.run.outputs["y"], exact)


def test_an_integer_that_is_not_shown_is_explained_by_what_follows() -> None:
    graph = SUMS + "q = QuantizeLinear(s, scale, zero)  y = Lookup(q, table) }"
    table = module(graph).symbols["table"].data.array
    for q in (5, 6):
        assert (
            followed(graph, rows(0.25), y=[table[q + 128], table[231]]).run.outputs["y"][0]
            == (table[q + 128])
        )
    assert followed(graph, rows(0.25), y=[table[7 + 128], table[231]]).elements == 0


# -- all levels --------------------------------------------------------------------------------

NETWORK = (
    SUMS + "q = QuantizeLinear(s, scale, zero)  t = Lookup(q, table)  y = Concat(t, q) {axis=1} }"
)


def differing_rows(compilation: Compilation) -> np.ndarray:
    """Rows whose sums, in the order of the native code, become other integers."""
    x = np.random.default_rng(0).standard_normal((400_000, 64)).astype(np.float32)
    expected = interpret(compilation.source, {"x": x}, evaluate).outputs["y"]
    found = build(compilation).run({"x": x})["y"]
    differ = (found != expected).any(axis=1)
    return np.concatenate([x[differ], x[:50]])


def test_check_accepts_what_rounding_explains() -> None:
    compilation = lower(module(NETWORK))
    x = differing_rows(compilation)
    assert len(x) > 50
    checked = check(compilation, build(compilation), {"x": x})
    assert checked.rounded >= len(x) - 50
    assert "rounded differently, within tolerance" in str(checked)


def _one_more(f: Function) -> Function:
    """The function with every int8 that it stores raised by one."""

    def statement(s: Stmt) -> Stmt:
        if isinstance(s, Store) and s.value.dtype.name == "i8":
            one = Const(1, s.value.dtype, s.value.lanes)
            return replace(s, value=apply("add", s.value, one))
        if isinstance(s, For | While | Alloc):
            return replace(s, body=tuple(map(statement, s.body)))
        if isinstance(s, If):
            then, otherwise = (tuple(map(statement, b)) for b in (s.then, s.otherwise))
            return replace(s, then=then, otherwise=otherwise)
        return s

    return replace(f, body=tuple(map(statement, f.body)))


def test_check_refuses_other_differences() -> None:
    right = lower(module(QUANTIZED))
    functions = {n: _one_more(right.module.functions[n]) for n in right.module.nests}
    wrong = replace(right.module, functions={**right.module.functions, **functions})
    spoiled = replace(right, after=(*right.after[:-1], wrong))
    x = differing_rows(right)
    with pytest.raises(nncc.CheckError, match="loops differs from the graph: tensor 'y' at"):
        check(spoiled, build(right), {"x": x})
    with pytest.raises(nncc.CheckError, match="native differs from the graph: tensor 'y' at"):
        check(right, build(spoiled), {"x": x})
