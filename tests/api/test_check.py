from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nncc
from nncc import isolation
from nncc.check import batches, check, random_inputs
from nncc.driver import Compilation, build, lower
from nncc.ir.expr import Const, apply
from nncc.ir.graph import Module
from nncc.ir.index import var
from nncc.ir.loops import Alloc, For, Function, If, Stmt, Store, While
from nncc.ir.types import TensorType, bf16, f32, i8
from nncc.tolerance import compare, tolerance


def test_all_levels_agree(small_model: Path, small_input: np.ndarray) -> None:
    compilation = lower(small_model)
    checked = check(compilation, build(compilation), {"x": small_input})
    assert checked.samples == 4 and checked.calls == 1
    assert checked.floats["native"] == checked.floats["loops"] == 1
    assert checked.floats["nests"] >= 3 and not checked.integers


def test_progress_names_level_and_node(small_model: Path, small_input: np.ndarray) -> None:
    compilation = lower(small_model)
    shown: list[str] = []
    check(compilation, build(compilation), {"x": small_input[:1]}, shown.append)
    nodes = len(compilation.before("fuse").graph.nodes)
    assert f"check: graph {nodes}/{nodes} " in shown[nodes - 1]
    levels = [s.split()[1] for s in shown]
    assert list(dict.fromkeys(levels)) == ["graph", "nests", "loops", "native"]
    calls = [s for s in shown if s.startswith("check: loops")]
    assert calls[-1].startswith(f"check: loops {len(calls)}/{len(calls)} ")
    assert all(s.endswith("(1 sample)") for s in shown)


def test_integers_are_exact(small_model: Path, small_input: np.ndarray) -> None:
    compilation = lower(small_model, calib={"x": small_input})
    checked = check(compilation, build(compilation))
    assert checked.integers["nests"] >= 2


STATEFUL = """
nncc 1
size N
const half: f32[] = 0.5
state s: f32[N,4] = 0.0
graph smooth(x: f32[N,4]) -> (y: f32[N,4]) {
  a = Mul(s, half)
  y = Add(a, x)
  update s = y
}
"""


def test_state_is_followed_over_calls(tmp_path: Path) -> None:
    (tmp_path / "smooth.nn").write_text(STATEFUL)
    compilation = lower(tmp_path / "smooth.nn")
    assert check(compilation, build(compilation)).calls == 3


def _spoiled(f: Function) -> Function:
    """The function with all floats that it stores turned around."""

    def statement(s: Stmt) -> Stmt:
        if isinstance(s, Store) and s.value.dtype.is_float:
            return replace(
                s, value=apply("mul", s.value, Const(-1.0, s.value.dtype, s.value.lanes))
            )
        if isinstance(s, For | While | Alloc):
            return replace(s, body=tuple(map(statement, s.body)))
        if isinstance(s, If):
            then, otherwise = (tuple(map(statement, b)) for b in (s.then, s.otherwise))
            return replace(s, then=then, otherwise=otherwise)
        return s

    return replace(f, body=tuple(map(statement, f.body)))


def _with_wrong(compilation: Compilation, nest: str) -> Compilation:
    module = compilation.module
    functions = {**module.functions, nest: _spoiled(module.functions[nest])}
    return replace(
        compilation, after=(*compilation.after[:-1], replace(module, functions=functions))
    )


def test_the_wrong_tensor_is_named(
    small_model: Path, small_input: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong function of Loops is found at the level where it appears, with its result's name."""
    right = lower(small_model)
    nest = next(n.attrs["callee"] for n in right.module.graph.nodes if n.name == "conv")
    output = next(n.outputs[0] for n in right.module.graph.nodes if n.name == "conv")
    wrong = _with_wrong(right, str(nest))
    with pytest.raises(nncc.CheckError) as raised:
        check(wrong, build(right), {"x": small_input})
    assert f"loops differs from the graph: tensor '{output}' at [0,0,0," in raised.value.message
    # a back end that makes wrong code of right Loops
    native = isolation.native
    monkeypatch.setattr(isolation, "native", lambda _, machine: native(wrong.module, machine))
    with pytest.raises(nncc.CheckError, match=f"native differs .* tensor '{output}' at "):
        check(right, build(wrong), {"x": small_input})


def test_a_module_without_a_graph_has_no_reference(small_model: Path, tmp_path: Path) -> None:
    compilation = lower(small_model)
    nncc.save(compilation.before("emit"), tmp_path / "nests.nn")
    again = lower(tmp_path / "nests.nn")
    with pytest.raises(nncc.PassError, match="nothing to compare with"):
        check(again, build(again))


def test_batches(small_model: Path) -> None:
    graph = nncc.load(small_model).graph
    data = {"x": np.zeros((1100, 3, 6, 6), np.float32)}
    assert [len(b["x"]) for b in batches(graph, data)] == [1024, 76]
    large = replace(graph, types={**graph.types, "t": TensorType(f32, (var("N"), 1 << 20))})
    assert [len(b["x"]) for b in batches(large, {"x": data["x"][:130]})] == [63, 63, 4]
    fixed = replace(
        graph, types={**graph.types, "x": replace(graph.types["x"], shape=(2, 3, 6, 6))}
    )
    assert [len(b["x"]) for b in batches(fixed, {"x": data["x"][:7]})] == [2, 2, 2]


def test_random_inputs_fit(small_model: Path) -> None:
    module = nncc.load(small_model)
    assert isinstance(module, Module)
    inputs = random_inputs(module)
    assert inputs["x"].shape == (2, 3, 6, 6) and inputs["x"].dtype == np.float32


def test_compare() -> None:
    r = np.array([1.0, -2.0, np.nan, np.inf, 0.0], np.float32)
    assert compare(r, r) is None
    assert compare(r + np.float32(1e-7), r) is None
    wrong = r.copy()
    wrong[4] = 1e-3
    difference = compare(wrong, r)
    assert difference is not None and difference.index == (4,) and difference.count == 1
    for k, value in ((2, 0.0), (3, 1e30), (0, np.nan)):
        wrong = r.copy()
        wrong[k] = value
        assert compare(wrong, r) is not None
    assert compare(np.array([3], np.int8), np.array([4], np.int8)) is not None


def test_tolerance_grows_with_the_root_of_the_length() -> None:
    assert tolerance(i8, 1000) == 0
    assert tolerance(f32) < tolerance(f32, 10_000) < 10 * tolerance(f32, 100)
    assert tolerance(bf16) == tolerance(f32) * 2**16
