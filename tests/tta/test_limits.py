"""What is known of values shortens their code; what has no operation on vectors is reported."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import nncc
from nncc import cli
from nncc.backends.tta import compiler
from nncc.backends.tta.limits import limits
from nncc.backends.tta.memory import Place, Region
from nncc.backends.tta.scope import Scope
from nncc.backends.tta.simplify import simplified
from nncc.driver import build, lower
from nncc.ir.expr import Apply, Const, Load, Name, apply, cast
from nncc.ir.index import maximum, minimum, var
from nncc.ir.loops import For, Let
from nncc.ir.nests import Access, Dim, Layout, Nest, Param, Statement
from nncc.ir.types import TensorType, i8, i32, i64
from nncc.machines import load
from nncc.ops.integer import quantize_multiplier
from nncc.passes.views import is_view
from tests.levels.float_networks import Case
from tests.nests.random_networks import Network
from tests.tta.operations import Operations
from tests.tta.test_codegen import compiled


def scope() -> Scope:
    found = Scope()
    content = np.array([35, 40, 33], np.int32)
    found.places["s"] = Place(Region("s", 12, content.tobytes()), 0, i32, (3,))
    found.places["x"] = Place(Region("x", 12), 0, i32, (3,))
    found.limits["k"] = (-5, 7)
    return found


V = var("i")
S = Load("s", (0,), i32)
K = Name("k", i32)


@pytest.mark.parametrize(
    ("e", "wanted"),
    [
        (S, (33, 40)),
        (Load("x", (0,), i32), i32.limits),
        (cast(i64, K), (-5, 7)),
        (Apply("cast", (S,), i8), (33, 40)),
        (Apply("cast", (apply("mul", S, S),), i8), i8.limits),  # it wraps
        (apply("sub", K, S), (-45, -26)),
        (apply("mul", K, K), (-35, 49)),
        (apply("min", K, Const(2, i32)), (-5, 2)),
        (apply("shl", Const(1, i64), cast(i64, S)), (1 << 33, 1 << 40)),
        (apply("shr", Const(-8, i64), cast(i64, S)), (-1, -1)),
        (apply("shl", Const(1, i32), S), i32.limits),  # by more than the word has
        (apply("add", Name("unknown", i32), K), i32.limits),
    ],
)
def test_limits(e, wanted):
    assert limits(e, scope()) == tuple(wanted)


@pytest.mark.parametrize(
    "value", [0, 1, -1, 1 << 62, -(1 << 62), (1 << 40) + 12345, -(1 << 35) - 1]
)
@pytest.mark.parametrize("places", [32, 33, 47, 62, 63])
@pytest.mark.parametrize("fn", ["shl", "shr"])
def test_shifts_of_pairs_that_are_known_to_be_far(value, places, fn):
    operations = Operations(load("tta_minimal"))
    e = apply(fn, Name("a", i64), Name("n", i64))
    run = operations.expression(e, {"a": i64, "n": i64}, limits={"n": (32, 63)})
    plain = operations.expression(e, {"a": i64, "n": i64})
    wanted = value >> places if fn == "shr" else (value << places) % (1 << 64)
    wanted -= 1 << 64 if wanted >= 1 << 63 else 0
    assert run({"a": value, "n": places}) == plain({"a": value, "n": places}) == wanted
    assert run.operations < plain.operations // 2


@pytest.mark.parametrize(
    ("lo", "hi", "parts"),
    [
        (maximum(1 - V, 0), minimum(17 - V, 3), [(0, 1, 1, 3), (1, 15, 0, 3), (15, 16, 0, 2)]),
        (0, minimum(V, 5), [(0, 5, 0, V), (5, 16, 0, 5)]),
        (maximum(5 - 2 * V, 0), 9, [(0, 3, 5 - 2 * V, 9), (3, 16, 0, 9)]),
    ],
)
def test_loops_are_cut_where_bounds_change(lo, hi, parts):
    """Once at each place, also where both sides are equal there."""
    inner = For("j", lo, hi, (Let("a", Const(1, i32)),))
    found = simplified((For("i", 0, 16, (inner,)),), {}, overlap=False)
    assert [(p.lo, p.hi, p.body[0].lo, p.body[0].hi) for p in found] == parts


def matmul(outputs: int) -> Case:
    """A matrix product with its rescaling."""
    rng = np.random.default_rng(0)
    net = Network(0)
    x = net.input("x", 1, 32, dtype=i8)
    w = net.constant(rng.integers(-9, 9, (32, outputs), np.int8))
    pairs = [net.constant(np.full(outputs, v, np.int32)) for v in quantize_multiplier(0.01)]
    y = net.add("Requantize", net.add("IntMatMul", x, w), *pairs, z=0)
    return Case.given(net.module(y), {"x": np.ones((1, 32), np.int8)})


@pytest.mark.parametrize(("outputs", "some"), [(32, False), (10, True)])
def test_what_runs_lane_by_lane_is_reported(outputs, some, tmp_path, capsys):
    case = matmul(outputs)
    code, _, _ = compiled(case, load("tta"))
    assert bool(code.by_lanes) == some
    nncc.save(case.module, tmp_path / "m.nn")
    command = ["compile", tmp_path / "m.nn", "--target", "tta", "-o", tmp_path / "m"]
    assert cli.main([str(a) for a in command]) == 0
    said = capsys.readouterr().out
    assert ("vectors that 'tta' has no operation for go lane by lane: requantize" in said) == some


def test_a_program_is_compiled_once(tmp_path, monkeypatch):
    calls = []
    real = compiler.compile_code
    monkeypatch.setattr(compiler, "compile_code", lambda *a: calls.append(a) or real(*a))
    nncc.save(matmul(8).module, tmp_path / "m.nn")
    machine = load("tta_minimal")
    executable = build(lower(tmp_path / "m.nn", machine))
    executable.save(tmp_path / "a")
    executable.save(tmp_path / "b")
    assert len(calls) == 1
    executable = build(lower(tmp_path / "m.nn", machine))
    executable.save(tmp_path / "a")
    assert len(calls) == 2
    calls.clear()  # they hold programs
    del executable
    gc.collect()
    assert not [m for m, _ in compiler._compiled_codes.values() if m is machine]


def _nest(x: Param, y: Param, source: tuple, dims: tuple[int, ...]) -> Nest:
    ranges = tuple(Dim(f"i{k}", 0, e) for k, e in enumerate(dims))
    target = Access("y", tuple(var(d.name) for d in ranges))
    return Nest(
        "n", (), (x, y), (Statement("s", ranges, (target,), "=", (Load("x", source, i8),)),)
    )


def test_views():
    c, e, f = (var(f"i{k}") for k in range(3))
    d = [var(f"d{k}") for k in range(3)]
    x = Param("x", TensorType(i8, (14, 16, 8)))
    y = Param("y", TensorType(i8, (8, 14, 14)), "out", Layout((d[1], d[2], d[0]), (14, 16, 8)))
    assert is_view(_nest(x, y, (e, f, c), (8, 14, 14)))
    assert not is_view(_nest(x, y, (e, f + 1, c), (8, 14, 14)))
    narrow = Layout((d[1], d[2], d[0]), (14, 14, 8))
    other = Param("y", y.type, "out", narrow)
    assert not is_view(_nest(x, other, (e, f, c), (8, 14, 14)))
    filled = Param("y", y.type, "out", Layout((d[1], d[2], d[0]), (14, 16, 8), 0))
    assert not is_view(_nest(x, filled, (e, f, c), (8, 14, 14)))
