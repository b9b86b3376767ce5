"""Every scalar function, for every dtype it takes, as scalar and as vector, on every variant."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nncc.backends.cpu.functions import EMIT
from nncc.ir.expr import Apply, Const, Expr, Load, apply, broadcast, cast
from nncc.ir.index import var
from nncc.ir.loops import Buffer, For, Function, Store
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import DTYPES, DType, boolean, f32, f64
from tests.cpu.native import VARIANTS, machine, run_both, run_native

LENGTH = 48
APPROXIMATE = {"exp", "log", "sin", "cos", "tanh", "erf", "pow", "fma"}


def values(dtype: DType, rng: np.random.Generator, small: bool = False) -> np.ndarray:
    """Ordinary and special values of a format."""
    if dtype is boolean:
        return rng.random(LENGTH) < 0.5
    if dtype.is_float:
        x = rng.standard_normal(LENGTH) * 4
        x[:8] = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 3.0]
        x[8:12] = [np.nan, np.inf, -np.inf, 1e-6]
        return x.astype(dtype.numpy)
    lo, hi = dtype.limits
    x = rng.integers(lo, hi, LENGTH, dtype=dtype.numpy, endpoint=True)
    x[:6] = [lo, hi, 0, 1, 2, 3]
    return (x % 8).astype(dtype.numpy) if small else x


def program(
    fn: str, operands: list[DType], result: DType, lanes: int, constants: dict[int, object]
) -> Function:
    """`y[i : lanes] = fn(x0[i : lanes], …)` over LENGTH elements."""
    i = var("i")

    def operand(k: int, dtype: DType) -> Expr:
        if k in constants:
            return broadcast(Const(constants[k], dtype), lanes)
        return Load(f"x{k}", (i,), dtype, lanes=lanes)

    args = tuple(operand(k, d) for k, d in enumerate(operands))
    value = Apply("cast", args, result, lanes) if fn == "cast" else apply(fn, *args)
    buffers = [Buffer(f"x{k}", d, (LENGTH,)) for k, d in enumerate(operands)]
    buffers.append(Buffer("y", result, (LENGTH,), "out"))
    body = (For("i", 0, LENGTH, (Store("y", (i,), value),), lanes),)
    return Function("f", tuple(buffers), (), body)


def dtypes_of(fn: str) -> list[DType]:
    return [d for d in DTYPES.values() if FUNCTIONS[fn].takes(d)]


def close(expected: np.ndarray, given: np.ndarray, fn: str, dtype: DType) -> None:
    if not dtype.is_float:
        np.testing.assert_array_equal(given, expected)
        return
    a, b = expected.astype(np.float64), given.astype(np.float64)
    if fn not in APPROXIMATE:
        np.testing.assert_array_equal(b, a)
        return
    relative = {"f64": 1e-14, "f32": 1e-6, "f16": 2e-3, "bf16": 2e-2}[dtype.name]
    cancelled = 16 if fn == "fma" else 0.01  # one rounding or two
    np.testing.assert_allclose(b, a, rtol=relative, atol=relative * cancelled)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fn", [name for name in FUNCTIONS if name != "cast"])
def test_function_equals_interpreter(fn: str, variant: str) -> None:
    m = machine(variant)
    rng = np.random.default_rng(1)
    f = FUNCTIONS[fn]
    for dtype in dtypes_of(fn):
        operands = [dtype] * f.arity
        if f.rule == "select":
            operands[0] = boolean
        result = boolean if f.rule == "compare" else dtype
        small = {1} if fn in ("pow", "shl", "shr") else set()
        arrays = [values(d, rng, k in small) for k, d in enumerate(operands)]
        arrays.append(np.zeros(LENGTH, result.numpy))
        for lanes in (1, 16):
            code = program(fn, operands, result, lanes, {})
            expected, given = run_both(code, m, arrays)
            close(expected[-1], given[-1], fn, result)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("source", DTYPES)
def test_casts(source: str, variant: str) -> None:
    m, rng = machine(variant), np.random.default_rng(2)
    a = DTYPES[source]
    for b in DTYPES.values():
        x = values(a, rng)
        if a.is_float and not b.is_float:
            # floats must be in the range of the integer
            limit = 100 if b.kind == "int" else 0
            x = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=100.0, neginf=-limit)
            x = (np.abs(x) if b.kind == "uint" else x).astype(a.numpy)
        if a.is_integer and b.name == "f16":
            x = (x % 100).astype(a.numpy)  # rounded twice otherwise: through f32
        if a is f64 and b.bits == 16:
            x = x.astype(np.float32).astype(np.float64)
        arrays = [x, np.zeros(LENGTH, b.numpy)]
        for lanes in (1, 16):
            expected, given = run_both(program("cast", [a], b, lanes, {}), m, arrays)
            ours, theirs = given[1], expected[1]
            if b.is_float:  # numpy does not know that a bfloat16 may be no number
                ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
            np.testing.assert_array_equal(ours, theirs, f"{a} to {b}, {lanes} lanes")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fn", ["div", "floordiv", "mod", "shl", "shr", "min", "max", "pow"])
@pytest.mark.parametrize("constant", [3, 1, 7])
def test_constant_operands(fn: str, constant: int, variant: str) -> None:
    m, rng = machine(variant), np.random.default_rng(3)
    for name in ("i8", "u8", "i32", "u32", "i64", "u64"):
        d = DTYPES[name]
        arrays = [values(d, rng), np.zeros(LENGTH, d.numpy), np.zeros(LENGTH, d.numpy)]
        expected, given = run_both(program(fn, [d, d], d, 16, {1: constant}), m, arrays)
        np.testing.assert_array_equal(given[-1], expected[-1], f"{fn} {d}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_relu_keeps_nan(variant: str) -> None:
    m = machine(variant)
    x = values(f32, np.random.default_rng(0))
    for constant in ({0: 0.0}, {1: 0.0}):
        arrays = [x, x, np.zeros(LENGTH, np.float32)]
        expected, given = run_both(program("max", [f32, f32], f32, 16, constant), m, arrays)
        np.testing.assert_array_equal(given[-1], expected[-1])
        assert np.isnan(given[-1][8])


def ulps(result: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units in the last place of the result's format."""
    rounded = exact.astype(result.dtype)
    finite = np.isfinite(rounded) & np.isfinite(exact)
    np.testing.assert_array_equal(result[~np.isfinite(rounded)], rounded[~np.isfinite(rounded)])
    unit = np.spacing(np.abs(rounded[finite])).astype(exact.dtype)
    return float(np.max(np.abs(result[finite].astype(exact.dtype) - exact[finite]) / unit))


LIMITS = {"exp": 2, "log": 2, "sin": 3, "cos": 3, "erf": 3, "tanh": 4, "sqrt": 0.51}
RANGES = {"exp": (-103, 88.7), "log": (1e-30, 1e30), "sin": (-1e4, 1e4), "cos": (-1e4, 1e4),
          "erf": (-4, 4), "tanh": (-9.5, 9.5), "sqrt": (0, 1e20)}  # fmt: skip


def sweep(fn: str, dtype: DType) -> np.ndarray:
    lo, hi = RANGES[fn]
    linear = np.linspace(lo, hi, 40_000)
    near_zero = np.geomspace(1e-12, max(hi, 1e-3), 8000)
    signs = [near_zero] if lo >= 0 else [near_zero, -near_zero[near_zero < -lo]]
    x = np.concatenate([linear, *signs]).astype(dtype.numpy)
    return x[: len(x) // 16 * 16]


def exact(fn: str, x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.longdouble)
    if fn != "erf":
        return np.asarray(getattr(np, fn)(wide))
    return np.array([math.erf(v) for v in x.astype(np.float64)], np.longdouble)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fn", LIMITS)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_accuracy(fn: str, dtype: DType, variant: str) -> None:
    x = sweep(fn, dtype)
    i = var("i")
    value = apply(fn, Load("x", (i,), dtype, lanes=16))
    code = Function(
        "f",
        (Buffer("x", dtype, (len(x),)), Buffer("y", dtype, (len(x),), "out")),
        (),
        (For("i", 0, len(x), (Store("y", (i,), value),), 16),),
    )
    y = np.zeros_like(x)
    run_native(code, machine(variant), [x, y])
    with np.errstate(all="ignore"):
        assert ulps(y, exact(fn, x)) <= LIMITS[fn]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_power_accuracy_and_special_values(dtype: DType, variant: str) -> None:
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(-8, 8, 16_000)).astype(dtype.numpy)
    y = rng.uniform(-10, 10, 16_000).astype(dtype.numpy)
    special = np.array([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, np.inf, -np.inf, np.nan, 3.0, -3.0,
                        -1.5, 1e-40, 7.0, -0.5])  # fmt: skip
    x = np.concatenate([x, np.repeat(special, 16).astype(dtype.numpy)])
    y = np.concatenate([y, np.tile(special, 16).astype(dtype.numpy)])
    i = var("i")
    value = apply("pow", *(Load(n, (i,), dtype, lanes=16) for n in "xy"))
    buffers = [Buffer(n, dtype, (len(x),)) for n in "xy"]
    buffers.append(Buffer("z", dtype, (len(x),), "out"))
    code = Function("f", tuple(buffers), (), (For("i", 0, len(x), (Store("z", (i,), value),), 16),))
    z = np.zeros_like(x)
    run_native(code, machine(variant), [x, y, z])
    with np.errstate(all="ignore"):
        assert ulps(z, np.power(x.astype(np.longdouble), y.astype(np.longdouble))) <= 3


def test_every_scalar_function_has_a_rule() -> None:
    assert set(EMIT) | {"cast"} == set(FUNCTIONS)


def test_cast_of_constant_folds_nothing_away() -> None:
    x = values(f32, np.random.default_rng(4))
    i = var("i")
    value = apply("add", Load("x0", (i,), f32, lanes=16), cast(f32, broadcast(Const(2, f64), 16)))
    buffers = (Buffer("x0", f32, (LENGTH,)), Buffer("y", f32, (LENGTH,), "out"))
    code = Function("f", buffers, (), (For("i", 0, LENGTH, (Store("y", (i,), value),), 16),))
    expected, given = run_both(code, machine("baseline"), [x, np.zeros(LENGTH, np.float32)])
    np.testing.assert_array_equal(given[1], expected[1])
