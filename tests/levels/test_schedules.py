"""Schedules edited by hand and at random: legal ones compute the same, others are refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc import isolation
from nncc.diagnostics import PassError, VerifyError
from nncc.driver import Compilation, compile, lower
from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Node
from nncc.ir.interpreter.graph import Run, interpret
from nncc.ir.nests import Nest
from nncc.ir.text import parse_nest, print_nest, write_module
from nncc.ir.verify_loops import verify_functions
from nncc.machines import load
from nncc.ops.reference import evaluate
from nncc.passes.emission.tree import emit_nest
from nncc.passes.poly import check_schedule
from nncc.tolerance import compare as first_difference
from tests.levels.float_networks import Case
from tests.levels.harness import machines, pipeline
from tests.levels.schedule_edits import bands, edited, interchange, split, unroll
from tests.levels.test_random_networks import ALL, FAST, SLOW

# -- at random ---------------------------------------------------------------------------------


def scheduled(case: Case, machine: str) -> Compilation:
    target = load(machine)
    steps = pipeline(target, quantize=case.calib is not None)
    return lower(case.module, target, pipeline=steps, calib=case.calib)


def random_edit(nest: Nest, data: st.DataObject) -> Nest:
    """The nest after one to three edits of its schedule."""
    for _ in range(data.draw(st.integers(1, 3))):
        assert nest.schedule is not None
        count = len(list(bands(nest.schedule)))
        if not count:
            return nest
        position = data.draw(st.integers(0, count - 1))
        factor = data.draw(st.integers(2, 4))
        kinds = {"split": lambda b, f=factor: split(b, f), "swap": interchange, "unroll": unroll}
        nest = edited(nest, position, kinds[data.draw(st.sampled_from(list(kinds)))])
    return nest


def legal(nest: Nest) -> bool:
    try:
        check_schedule(nest)
    except (PassError, VerifyError):
        return False
    return True


def runs_the_same(
    compilation: Compilation, nest: Nest, node: Node, run: Run, values: Mapping[str, np.ndarray]
) -> bool:
    """Whether the nest could be emitted; it must then compute what the graph says."""
    machine = compilation.machine
    try:
        function = emit_nest(nest, machine.operations)
    except PassError:  # for example: pieces to unroll whose number is not literal
        return False
    operations = {k: o.semantics for k, o in machine.operations.items()}
    verify_functions({function.name: function}, operations)
    module = replace(compilation.module, functions={nest.name: function})
    runner = isolation.interpreted(module, machine)
    for name, found in isolation.run_call(module, nest, node, values, run.sizes, runner).items():
        difference = first_difference(found, values[name], reduction=1000)
        assert difference is None, f"{name} {difference} under\n{print_nest(nest)}"
    return True


def edit_schedules(case: Case, machine: str, data: st.DataObject, counted: Counter[str]) -> None:
    compilation = scheduled(case, machine)
    module = compilation.before("emit")
    run = interpret(module, case.inputs, evaluate, keep=True)
    symbols = {k: s.data.array for k, s in module.symbols.items()}
    values = {**symbols, **case.inputs, **run.values}
    for node in module.graph.nodes:
        if "callee" not in node.attrs:
            continue
        nest = random_edit(module.nests[str(node.attrs["callee"])], data)
        text = print_nest(nest)
        assert parse_nest(text) == nest
        if not legal(nest):
            counted["illegal edits of schedules"] += 1
        elif runs_the_same(compilation, nest, node, run, values):
            counted["legal edits of schedules"] += 1


@settings(FAST, max_examples=10)
@given(case=ALL, machine=st.sampled_from(machines()), data=st.data())
def test_random_edits(case: Case, machine: str, data: st.DataObject, counted: Counter[str]) -> None:
    edit_schedules(case, machine, data, counted)


@pytest.mark.slow
@settings(SLOW)
@given(case=ALL, machine=st.sampled_from(machines()), data=st.data())
def test_many_random_edits(
    case: Case, machine: str, data: st.DataObject, counted: Counter[str]
) -> None:
    edit_schedules(case, machine, data, counted)


# -- by hand -----------------------------------------------------------------------------------

NETWORK = """nncc 1
size N
param w: f32[32,3,3,3] = random(seed=1, std=0.3)
param b: f32[32] = random(seed=2, std=0.3)
graph main(x: f32[N,3,12,12]) -> (y) {
  t = Conv(x, w, b) {pads=[1,1,1,1]}
  y = Relu(t)
}
"""

# The contraction of the network by hand, without layouts and machine operations.
NEST = """
nest conv(in x: f32[N,3,12,12], in w: f32[32,3,3,3], in b: f32[32], out y: f32[N,32,12,12],
          local t: f32[N,32,12,12]; N) {
  init: for n in 0..N, m in 0..32, e in 0..12, f in 0..12 { t[n,m,e,f] = b[m] }
  acc: for n in 0..N, m in 0..32, e in 0..12, f in 0..12, c in 0..3, r in 0..3, s in 0..3 {
    t[n,m,e,f] sum= (x[n,c,e + r - 1,f + s - 1] else 0.0) * w[m,c,r,s]
  }
  out: for n in 0..N, m in 0..32, e in 0..12, f in 0..12 { y[n,m,e,f] = max(t[n,m,e,f], 0.0) }
  schedule { SCHEDULE }
}
"""

LEGAL = {
    "whole": "init acc out",
    "shared": "parallel n { for m by 8 { init acc out } }",
    "rows": "for n { for e by 4 { for m { init for r { for s { for c { acc } } } out } } }",
    "reduction outside": "init for r { for c { for n { acc } } } for m { out }",
    "registers": "for n { for m { for e { for f { local t in registers { init acc out } } } } }",
    "stack": "parallel n { for m by 4 { for e { local t in stack { init for c { acc } out } } } }",
}
# What is wrong, and words of the message: the dependence and its two ends.
ILLEGAL = {
    "epilogue first": (
        "parallel n { for m { init out acc } }", ["flow dependence of out on acc", "through t"]
    ),
    "initialized too late": ("acc init out", ["dependence of acc on init", "through t"]),
    "initialized again": (
        "for n { for c { init acc } out }", ["no dimension c"],
    ),
    "parallel reduction": (
        "for n { init parallel c { acc } out }",
        ["dependence of acc on acc", "the parallel band over c carries it", "for example acc["],
    ),
    "pieces that end too soon": (
        "for n { for m by 8 { init acc } } for n { for m by 8 { local t in stack { out } } }",
        ["uses t outside"],
    ),
    "epilogue inside the reduction": (
        "for m { init acc } for e { for f { out } } for n { out }", ["scheduled twice"],
    ),
}  # fmt: skip


def conv(schedule: str) -> Nest:
    return parse_nest(NEST.replace("SCHEDULE", schedule))


@pytest.mark.parametrize("schedule", LEGAL.values(), ids=LEGAL)
def test_legal_schedules_compute_the_same(schedule: str, tmp_path: Path) -> None:
    nest = conv(schedule)
    check_schedule(nest)
    module = read_nn(NETWORK)
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    expected = interpret(module, {"x": x}, evaluate).outputs["y"]
    text = NETWORK[: NETWORK.index("graph")] + print_nest(nest) + (
        "\ngraph main(x: f32[N,3,12,12]) -> (y: f32[N,32,12,12]) {\n"
        '  y = Call(x, w, b) {callee="conv"}\n}\n'
    )  # fmt: skip
    path = tmp_path / "edited.nn"
    path.write_text(text, "utf-8")
    executable = compile(path, check=False)
    assert first_difference(executable.run({"x": x})["y"], expected, reduction=27) is None


@pytest.mark.parametrize(("schedule", "words"), ILLEGAL.values(), ids=ILLEGAL)
def test_illegal_schedules_are_refused(schedule: str, words: list[str]) -> None:
    with pytest.raises((PassError, VerifyError)) as raised:
        check_schedule(conv(schedule))
    for word in words:
        assert word in raised.value.render()


@pytest.mark.parametrize("machine", machines())
def test_a_printed_schedule_is_edited(machine: str, tmp_path: Path) -> None:
    """Text of the scheduled nests → other tile sizes in the text → native code."""
    source = read_nn(NETWORK)
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    expected = interpret(source, {"x": x}, evaluate).outputs["y"]
    path = tmp_path / "scheduled.nn"
    write_module(lower(source, machine).before("emit"), path)
    text = path.read_text("utf-8")
    for factor in (2, 3):
        larger = re.sub(r"for f by (\d+)", lambda m, k=factor: f"for f by {k * int(m[1])}", text)
        assert larger != text
        path.write_text(larger, "utf-8")
        found = compile(path, machine).run({"x": x})["y"]
        assert first_difference(found, expected, reduction=27) is None


def test_an_illegal_edit_of_a_printed_schedule_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scheduled.nn"
    write_module(lower(read_nn(NETWORK)).before("emit"), path)
    text = path.read_text("utf-8")
    path.write_text(re.sub(r"for (r|s|c)\b(?! in)", r"parallel \1", text), "utf-8")
    with pytest.raises(PassError, match="dependence"):
        compile(path)
