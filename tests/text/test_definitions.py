"""Definitions in index notation become nests that compute what they say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from nncc.diagnostics import VerifyError
from nncc.ir.definition import check_definition, instantiate, output_types
from nncc.ir.index import var
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.text import parse_definition, parse_nest, print_definition, print_nest
from nncc.ir.types import DTYPES, TensorType, dtype_of, f32, i64
from nncc.ir.verify_nests import verify_nest

B = var("B")


def instance(text: str, *inputs: TensorType, **attrs):
    definition = parse_definition(text)
    assert parse_definition(print_definition(definition)) == definition
    check_definition(definition)
    nest = instantiate(definition, inputs, attrs)
    verify_nest(nest)
    assert parse_nest(print_nest(nest)) == nest
    types = output_types(definition, inputs, attrs)
    assert types == tuple(p.type for p in nest.outputs)
    return nest


def run(text: str, *arrays: np.ndarray, **attrs) -> list[np.ndarray]:
    nest = instance(text, *(TensorType(dtype_of(a.dtype), a.shape) for a in arrays), **attrs)
    names = [p.name for p in nest.inputs]
    found = interpret_nest(nest, dict(zip(names, arrays, strict=True)), {})
    return [found[p.name] for p in nest.outputs]


def rand(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


CONV = """
def conv2d(x: f32[N,C,H,W], w: f32[M,C,R,S], b: f32[M]; stride: int = 1, pad: int = 0)
    -> (y: f32[N, M, (H + 2*pad - R)//stride + 1, (W + 2*pad - S)//stride + 1]) {
  y[n,m,e,f] = b[m] + sum(c,r,s)(
    (x[n, c, stride*e + r - pad, stride*f + s - pad] else 0.0) * w[m,c,r,s])
}
"""


def test_convolution(golden: Callable[[str], None]) -> None:
    types = (TensorType(f32, (B, 3, 9, 9)), TensorType(f32, (8, 3, 3, 3)), TensorType(f32, (8,)))
    golden(print_nest(instance(CONV, *types, stride=2, pad=1)))
    x, w, b = rand(2, 3, 7, 8), rand(4, 3, 3, 2), rand(4)
    (y,) = run(CONV, x, w, b, stride=2, pad=1)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), (2, 3))[:, :, ::2, ::2]
    expected = np.einsum("ncefrs,mcrs->nmef", windows, w) + b[:, None, None]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_several_reductions_in_one_expression(golden: Callable[[str], None]) -> None:
    text = """
    def normalize(x: f32[N,C]; epsilon: float = 0.0) -> (y: f32[N,C]) {
      y[n,c] = (x[n,c] - sum(k)(x[n,k]) / value(f32, C))
               / sqrt(sum(k)(x[n,k] * x[n,k]) + epsilon + max(i,j)(x[i,j]))
    }
    """
    golden(print_nest(instance(text, TensorType(f32, (B, 5)))))
    x = rand(3, 5)
    (y,) = run(text, x, epsilon=0.5)
    square = (x * x).sum(1, keepdims=True)
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(square + 0.5 + x.max())
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_nested_reductions() -> None:
    text = """
    def f(x: f32[N,C], w: f32[C,D]) -> (y: f32[N]) {
      y[n] = sum(c)(x[n,c] * max(d)(w[c,d] + x[n,c]))
    }
    """
    x, w = rand(3, 4), rand(4, 5)
    expected = (x * (w[None] + x[:, :, None]).max(2)).sum(1)
    np.testing.assert_allclose(run(text, x, w)[0], expected, rtol=1e-5)


def test_online_softmax_as_a_tuple_combine() -> None:
    text = """
    def softmax(x: f32[N,C]) -> (y: f32[N,C]) {
      combine online(f32, f32) =
        (max(a0, b0), a1 * exp(a0 - max(a0, b0)) + b1 * exp(b0 - max(a0, b0)))
        identity (-1e30, 0.0)
      local m: f32[N]
      local z: f32[N]
      m[n], z[n] online= x[n,c], 1.0
      y[n,c] = exp(x[n,c] - m[n]) / z[n]
    }
    """
    x = rand(3, 6)
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(run(text, x)[0], e / e.sum(1, keepdims=True), rtol=1e-5)


def test_argmax() -> None:
    text = """
    def argmax(x: f32[N,C]) -> (v: f32[N], i: i64[N]) {
      combine larger(f32, i64) =
        (select(b0 > a0, b0, a0), select(b0 > a0, b1, a1)) identity (-inf, 0)
      v[n], i[n] larger= x[n,c], value(i64, c)
    }
    """
    x = rand(4, 6)
    v, i = run(text, x)
    np.testing.assert_array_equal(v, x.max(1))
    np.testing.assert_array_equal(i, x.argmax(1))


def test_recurrence_in_a_scan(golden: Callable[[str], None]) -> None:
    text = """
    def iir(x: f32[T], a: f32[K]; gain: float) -> (y: f32[T]) {
      scan t in 0..T { y[t] = gain * x[t] - sum(k)(a[k] * (y[t - k - 1] else 0.0)) }
    }
    """
    golden(print_nest(instance(text, TensorType(f32, (B,)), TensorType(f32, (2,)), gain=2.0)))
    x, a = rand(9), np.array([0.5, -0.25], np.float32)
    expected = np.zeros(9, np.float32)
    for t in range(9):
        past = sum(a[k] * expected[t - k - 1] for k in range(2) if t - k - 1 >= 0)
        expected[t] = 2 * x[t] - past
    np.testing.assert_allclose(run(text, x, a, gain=2.0)[0], expected, rtol=1e-5)


def test_subscripts_from_integer_tensors() -> None:
    text = """
    def bag(table: f32[V,D], ids: i64[N,L]) -> (y: f32[N,D]) {
      y[n,d] = sum(l)(table[ids[n,l] in 0..V, d])
    }
    """
    table, ids = rand(7, 3), np.array([[1, 6], [0, 0], [5, 2]])
    np.testing.assert_allclose(run(text, table, ids)[0], table[ids].sum(1), rtol=1e-6)


def test_ragged_ranges() -> None:
    text = """
    def rows(x: f32[P], start: i64[M]) -> (y: f32[M - 1]) {
      y[i] = 0.0
      for p in (start[i] in 0..P + 1)..(start[i + 1] in 0..P + 1) { y[i] sum= x[p] }
    }
    """
    x, start = rand(6), np.array([0, 2, 2, 6])
    expected = [x[a:b].sum() for a, b in pairwise(start)]
    np.testing.assert_allclose(run(text, x, start)[0], expected, rtol=1e-6)


def test_where_cuts_the_domain() -> None:
    text = """
    def lower(x: f32[N,N]) -> (y: f32[N]) {
      for j in 0..N where j <= i { y[i] sum= x[i,j] }
    }
    """
    x = rand(4, 4)
    np.testing.assert_allclose(run(text, x)[0], np.tril(x).sum(1), rtol=1e-5)


def test_sizes_of_the_caller_do_not_capture_dims() -> None:
    text = "def twice(x: f32[N]) -> (y: f32[N]) { y[n] = x[n] + x[n] }"
    nest = instance(text, TensorType(f32, (var("n"),)))
    assert nest.sizes == ("n",)
    assert nest.statements[0].dims[0].name == "n_"


@pytest.mark.parametrize(
    ("text", "shapes", "attrs", "message"),
    [
        ("def f(x: f32[N], w: f32[N]) -> (y: f32[N]) { y[i] = x[i] * w[i] }", [(3,), (4,)], {},
         "f: w is f32[4], but it must be f32[N], where N is 3"),
        ("def f(x: f32[N]) -> (y: f32[N - 5]) { y[i] = x[i] }", [(3,)], {},
         "f: y would have the extent N - 5 = -2"),
        ("def f(x: f32[N]) -> (y: f32[N]) { y[i] = x[i] }", [(3, 3)], {},
         "f: x is f32[3,3], it must be f32[N]"),
        ("def f(x: f32[N]; a: int) -> (y: f32[N]) { y[i] = x[i] }", [(3,)], {},
         "f needs the attribute 'a'"),
        ("def f(x: f32[N]; a: int) -> (y: f32[N]) { y[i] = x[i] }", [(3,)], {"a": 1.5},
         "f: attribute 'a' is 1.5, not of type int"),
        ("def f(x: f32[N]; gain: float = 1.0) -> (y: f32[N]) { y[i] = x[i] }", [(3,)],
         {"gian": 1.0}, "f has no attribute 'gian'"),
        ("def f(x: f32[N]; s: int) -> (y: f32[N//s]) { y[i] = x[i] }", [(3,)], {"s": 0},
         "f: the shape of y divides by zero"),
        ("def f(x: f32[N]; s: int) -> (y: f32[N]) { y[i] = x[i // s] }", [(3,)], {"s": 0},
         "f: an index divides by zero"),
        ("def f(x: f32[N], w: f32[M]) -> (y: f32[]) { y[] = sum(k)(x[k] * w[k]) }",
         [(3,), (4,)], {}, "'k' ranges over 0..3 in 'x' and over 0..4 in 'w'"),
        ("def f(x: f32[N]) -> (y: f32[]) { y[] = sum(k)(x[2*k]) }", [(4,)], {},
         "the range of 'k' does not follow"),
        ("def f(x: f32[N]) -> (y: f32[N]) { y[2*i] = x[i] }", [(4,)], {},
         "the range of 'i' does not follow from the subscript 2*i"),
        ("def f(x: f32[N]) -> (y: f32[N]) { y[i] = x[j] }", [(4,)], {}, "there is no dim 'j' here"),
        ("def f(x: f32[N]) -> (y: f32[N]) { y[i] = sum(i)(x[i]) }", [(4,)], {},
         "'i' is already a dim or size: it cannot be reduced over"),
        ("def f(x: f32[2*N]) -> (y: f32[N]) { y[i] = x[i] }", [(4,)], {},
         "the size N does not follow from the inputs' shapes"),
    ],
)  # fmt: skip
def test_wrong_uses(text: str, shapes: list[tuple[int, ...]], attrs: dict, message: str) -> None:
    with pytest.raises(VerifyError) as raised:
        types = tuple(TensorType(f32, s) for s in shapes)
        definition = parse_definition(text)
        output_types(definition, types, attrs)
        instantiate(definition, types, attrs)
    assert message in raised.value.render()


def test_dtypes_must_fit() -> None:
    definition = parse_definition("def f(x: f32[N]) -> (y: f32[N]) { y[i] = x[i] }")
    for dtype in DTYPES.values():
        if dtype is f32:
            continue
        with pytest.raises(VerifyError, match="it must be f32"):
            output_types(definition, (TensorType(dtype, (3,)),), {})
    assert output_types(definition, (TensorType(f32, (B,)),), {}) == (TensorType(f32, (B,)),)


def test_labels_are_kept() -> None:
    nest = instance(
        "def f(x: i64[N]) -> (y: i64[]) { total: y[] = sum(i)(x[i]) }", TensorType(i64, (B,))
    )
    assert [s.name for s in nest.statements] == ["y_init", "total"]
