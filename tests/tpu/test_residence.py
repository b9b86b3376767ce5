"""Tensors that do not all fit into the unified buffer: where they are, and what moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nncc
from nncc.backends.tpu.compiler import instructions
from nncc.backends.tpu.residence import Used, residence
from nncc.diagnostics import TargetError
from nncc.driver import build, lower
from nncc.ir.graph import Module
from nncc.ir.types import i8
from nncc.machines import load
from nncc.machines.systolic.sizes import array_of, resized
from nncc.ops import reference
from nncc.passes.plan import program
from tests.nests.random_networks import Network
from tests.tpu.networks import least_rows, most_rows


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Used], dict[str, int], int]:
    """Calls that read what earlier ones wrote, and as much room as the largest call needs."""
    sizes = {"in": draw(st.integers(1, 9))}
    calls = []
    for k in range(draw(st.integers(1, 9))):
        reads = draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3, unique=True))
        sizes[f"t{k}"] = draw(st.integers(1, 9))
        calls.append(Used(f"node{k}", tuple(reads), (f"t{k}",)))
    least = max(sum(sizes[n] for n in (*c.reads, *c.writes)) for c in calls)
    return calls, sizes, least + draw(st.integers(0, 9))


@given(problems())
def test_every_call_finds_its_tensors(problem: tuple[list[Used], dict[str, int], int]) -> None:
    """Rows as numbered contents: every move and call finds what the last writer left there."""
    calls, sizes, room = problem
    wanted = frozenset({calls[-1].writes[0], calls[0].writes[0]})
    plan = residence(calls, sizes, room, frozenset({"in"}), wanted)
    rows: list[object] = [None] * room
    host = {"in": "in"}

    def held(name: str, row: int) -> bool:
        return all(rows[row + k] == (name, k) for k in range(sizes[name]))

    def put(name: str, row: int) -> None:
        assert row >= 0 and row + sizes[name] <= room
        rows[row : row + sizes[name]] = [(name, k) for k in range(sizes[name])]

    for k, moves in enumerate(plan.moves):
        for m in moves:
            if m.direction == "read":
                assert m.tensor in host
                put(m.tensor, m.row)
            else:
                assert held(m.tensor, m.row)
                host[m.tensor] = m.tensor
        if k < len(calls):
            for name in calls[k].writes:
                put(name, plan.rows[k][name])
            for name in calls[k].reads:
                assert held(name, plan.rows[k][name])
    assert wanted <= host.keys()


def test_what_fits_is_not_moved() -> None:
    calls = [Used("a", ("x",), ("y",)), Used("b", ("y", "x"), ("z",))]
    plan = residence(calls, {"x": 4, "y": 2, "z": 3}, 9, frozenset("x"), frozenset("z"))
    assert [[(m.direction, m.tensor) for m in moves] for moves in plan.moves] == [
        [("read", "x")], [], [("write", "z")],
    ]  # fmt: skip


def test_a_call_that_is_too_large_leaves_the_buffer_to_its_pieces() -> None:
    calls = [Used("a", ("x",), ("y",)), Used("b", ("y",), ("z",)), Used("c", ("z",), ("u",))]
    sizes = {"x": 1, "y": 2, "z": 9, "u": 1}
    plan = residence(calls, sizes, 5, frozenset("x"), frozenset("u"))
    assert plan.large == {1, 2}
    assert [[(m.direction, m.tensor) for m in moves] for moves in plan.moves] == [
        [("read", "x")], [("write", "y")], [], [],
    ]  # fmt: skip


def residual(channels: int) -> Module:
    """Convolutions in a chain, all of whose values are added up at the end."""
    net = Network(3)
    rng = np.random.default_rng(3)
    values = [net.input("x", 2, channels, 8, 8, dtype=i8)]
    for _ in range(3):
        w = rng.integers(-127, 128, (channels, channels, 3, 3)).astype(np.int8)
        y = net.add("IntConv", values[-1], net.constant(w), pads=(1, 1, 1, 1), pad_value=2)
        m, s = (net.constant(np.full(channels, k, np.int32)) for k in (1 << 30, 43))
        values.append(net.add("Requantize", y, m, s))
    attrs = {"za": 1, "zb": 2, "ma": 9000, "mb": 20000, "s": 15, "z": 0, "lo": -128, "hi": 127}
    total = values.pop()
    while values:
        total = net.add("IntAdd", total, values.pop(), **attrs, to=i8)
    return Module(net.builder.graph("main", (total,)), (), net.builder.symbols)


@pytest.mark.parametrize("channels, part", [(12, 1), (5, 3), (20, 1), (20, 3)])
def test_a_network_with_few_rows(channels: int, part: int) -> None:
    """As many as the largest layer has, or a third of that."""
    roomy = resized(load("tpu"), rows=12, columns=8, accumulator_rows=64, unified_bytes=12 << 16)
    module = residual(channels)
    least = most_rows(lower(module, roomy), roomy)
    machine = resized(roomy, unified_bytes=12 * (least // part))
    compilation = lower(module, machine)
    (segment,) = compilation.segments
    code = instructions(program(segment.module), machine)
    assert any(b.role == "temporary" for b in code.buffers)
    x = np.random.default_rng(1).integers(-128, 128, (2, channels, 8, 8)).astype(np.int8)
    net = build(compilation)
    outputs = net.run({"x": x})
    for name, y in reference.interpret(compilation.module, {"x": x}).outputs.items():
        assert np.array_equal(outputs[name], y)


def test_rows_for_not_even_one_operation() -> None:
    roomy = resized(load("tpu"), rows=12, columns=8, accumulator_rows=64, unified_bytes=12 << 16)
    machine, module = roomy, residual(12)
    while (needed := least_rows(lower(module, machine), machine)) <= array_of(machine).unified_rows:
        machine = resized(roomy, unified_bytes=12 * (needed - 1))
    with pytest.raises(TargetError, match=r"needs \d+ rows .* constants leave \d+"):
        build(lower(module, machine))


@pytest.mark.slow
def test_layers_larger_than_the_buffer_of_the_tpu() -> None:
    """Two tensors of 13 MB: one alone fits."""
    net = Network(1)
    x = net.input("x", 1, 200, 260, 260, dtype=i8)
    y = net.add("MaxPool", x, kernel_shape=(2, 2), strides=(1, 1), pads=(0, 0, 1, 1))
    compilation = lower(Module(net.builder.graph("main", (y,)), (), net.builder.symbols), "tpu")
    data = np.random.default_rng(1).integers(-128, 128, (1, 200, 260, 260), np.int8)
    outputs = build(compilation).run({"x": data})
    expected = reference.interpret(compilation.module, {"x": data}).outputs
    assert all(np.array_equal(outputs[name], expected[name]) for name in expected)


def test_an_artifact_with_tensors_on_the_host(tmp_path: Path) -> None:
    roomy = resized(load("tpu"), rows=12, columns=8, accumulator_rows=64, unified_bytes=12 << 16)
    module = residual(12)
    machine = resized(roomy, unified_bytes=12 * most_rows(lower(module, roomy), roomy))
    net = build(lower(module, machine))
    x = np.random.default_rng(1).integers(-128, 128, (2, 12, 8, 8)).astype(np.int8)
    before = net.run({"x": x})
    net.save(tmp_path / "net")
    after = nncc.load(tmp_path / "net").run({"x": x})
    assert all(np.array_equal(before[name], after[name]) for name in before)
