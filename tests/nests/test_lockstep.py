"""Serial loops that the interpreter of Loops runs in lockstep: only where nothing changes by it."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nncc.ir.interpreter import loops
from nncc.ir.interpreter.independence import independent
from nncc.ir.loops import For, Function, walk_statements
from nncc.ir.text import parse_function

HEAD = "function f(in i: i32[24], in x: i32[24,4], out y: i32[48,4], out z: i32[96]) "

# body of a loop over v in 0..6 step 2 -> whether its iterations have nothing in common
LOOPS = {
    "y[v, 0] = x[v, 0]": True,
    "y[v, 0] = x[v, 0] y[v + 1, 0] = x[v, 1]": True,
    "y[v, 0] = x[v, 0] y[v + 2, 0] = x[v, 1]": False,
    "y[v, 0] = y[v + 1, 0]": True,
    "y[v, 0] = y[v + 2, 0]": False,
    "y[v, 0] = x[v, 0] y[2*v, 1] = x[v, 1]": False,
    "y[3, 0] = x[v, 0]": False,
    "for j in 0..2 { y[v + j, 0] = x[v, 0] }": True,
    "for j in 0..3 { y[v + j, 0] = x[v, 0] }": False,
    "for j in 0..min(2, 6 - v) { y[v + j, 0] = x[v, 0] }": True,
    "for j in 0..v + 1 { y[v + j, 0] = x[v, 0] }": False,
    "for j in 0..4 { y[v, j] = y[v, 3 - j] }": True,
    "y[v // 2, 0] = x[v, 0]": False,  # not seen
    "z[4*v : 8] = load8": True,
    "z[4*v : 16] = load16": False,
    "y[v, 0 : 8] = load8": True,  # two rows
    "y[v, 1 : 8] = load8": False,  # three of them
    "y[v, 0 : 16] = load16": False,
    "y[i[v] in 0..9, 0] = x[v, 0]": False,
    "declare r: i32 = 0 r = x[v, 0] y[v, 0] = r": True,
    "s = x[v, 0] y[v, 0] = s": False,
    "alloc t: i32[4] in stack { t[0] = x[v, 0] y[v, 0] = t[0] }": False,
}


def function(body: str) -> Function:
    for lanes in (8, 16):
        body = body.replace(
            f"load{lanes}", f"z[4*v : {lanes}]" if "z[" in body else f"x[v, 0 : {lanes}]"
        )
    return parse_function(
        f"{HEAD} {{ declare s: i32 = 0 for v in 0..6 step 2 {{ {body} }} y[23, 3] = s }}"
    )


def run(f: Function, serial: bool, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 9, b.shape).astype(np.int32) for b in f.buffers]
    with monkeypatch.context() as patch:
        if serial:
            patch.setattr(loops, "independent", lambda loop, shapes: False)
        loops.interpret({f.name: f}, f.name, arrays)
    return arrays


@pytest.mark.parametrize("body", LOOPS)
def test_which_loops_are_independent(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    f = function(body)
    loop = next(s for s in walk_statements(f.body) if isinstance(s, For))
    shapes = {b.name: tuple(map(int, b.shape)) for b in f.buffers}
    assert independent(loop, shapes) == LOOPS[body]
    for a, b in zip(run(f, True, monkeypatch), run(f, False, monkeypatch), strict=True):
        assert np.array_equal(a, b)


@st.composite
def functions(draw: st.DrawFn) -> Function:
    """Two or three loops around stores of what is loaded nearby."""
    depth = draw(st.integers(1, 3))
    names = "uvw"[:depth]

    def subscript(extent: int) -> str:
        a, b, c = (draw(st.integers(0, 3)) for _ in range(3))
        parts = f"{a}*u", f"{b}*v", f"{c}*w"
        return " + ".join((*parts[:depth], str(draw(st.integers(0, extent)))))

    def access() -> str:
        return draw(st.sampled_from((f"z[{subscript(20)}]", f"y[{subscript(3)}, {names[-1]}]")))

    stores = [
        f"{access()} = {access()} + {draw(st.sampled_from(('1', access())))}"
        for _ in range(draw(st.integers(1, 3)))
    ]
    body = " ".join(re.sub(r"\+ 1$", "+ i32(1)", s) for s in stores)
    for name in reversed(names):
        lo, step = draw(st.integers(0, 1)), draw(st.integers(1, 2))
        body = f"for {name} in {lo}..{lo + draw(st.integers(1, 3))} step {step} {{ {body} }}"
    return parse_function(f"{HEAD} {{ {body} }}")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(f=functions())
def test_lockstep_changes_nothing(f: Function, counted: Counter[str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for a, b in zip(run(f, True, monkeypatch), run(f, False, monkeypatch), strict=True):
            assert np.array_equal(a, b)
    shapes = {b.name: tuple(map(int, b.shape)) for b in f.buffers}
    found = [s for s in walk_statements(f.body) if isinstance(s, For)]
    counted["loops in lockstep"] += sum(independent(s, shapes) for s in found)
    counted["serial loops"] += sum(not independent(s, shapes) for s in found)
