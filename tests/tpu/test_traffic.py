"""Bytes per memory as predicted equal those that the simulator counts; tiles are near the best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nncc.backends.tpu.compiler import compile_program, constant_rows
from nncc.backends.tpu.places import Places
from nncc.compilation import Compilation
from nncc.diagnostics import NnccError
from nncc.driver import lower
from nncc.ir.graph import Module
from nncc.ir.index import ceildiv
from nncc.ir.nests import Dim
from nncc.ir.types import i8
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.machines.systolic.boxes import instructions
from nncc.machines.systolic.model import SystolicArray
from nncc.machines.systolic.sizes import array_of, resized
from nncc.passes.plan import program
from nncc.passes.systolic import products
from nncc.passes.systolic.tiling import Tiling, fewest_tiles, tiled, tilings
from nncc.passes.systolic.traffic import Shape, chosen_tiling
from nncc.runtime.statistics import Statistics
from nncc.traffic import counted, predicted_program
from tests.levels.float_networks import Case
from tests.levels.integer_networks import integer_networks
from tests.nests.random_networks import Network
from tests.tpu.networks import most_rows
from tests.tpu.test_residence import residual

QUIET = settings(
    deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, int]:
    """An array of any shape whose unified buffer holds everything."""
    rows = draw(st.integers(1, 40))
    return {
        "rows": rows, "columns": draw(st.integers(1, 40)), "unified_bytes": rows << 16,
        "accumulator_rows": draw(st.sampled_from([1, 2, 7, 64, 600])),
        "weight_bytes": 1 << 30, "fifo_tiles": draw(st.integers(1, 5)),
    }  # fmt: skip


@st.composite
def layers(draw: st.DrawFn) -> Module:
    """One convolution of any kind, rescaled."""
    net = Network(draw(st.integers(0, 99)))
    n, c, h, w = (draw(st.integers(1, k)) for k in (4, 20, 9, 9))
    x = net.input("x", n, c, h, w, dtype=i8)
    group = draw(st.sampled_from([1, 1, c]))
    filters = group * draw(st.integers(1, 3)) if group > 1 else draw(st.integers(1, 40))
    k = draw(st.sampled_from([1, 3]))
    weights = net.random.integers(-127, 128, (filters, c // group, k, k)).astype(np.int8)
    pad, stride = k // 2, draw(st.integers(1, 2))
    attrs = {"pads": (pad,) * 4, "strides": (stride, stride), "group": group, "pad_value": 5}
    y = net.add("IntConv", x, net.constant(weights), **attrs)
    m, s = (net.constant(np.full(filters, v, np.int32)) for v in (1 << 30, 42))
    y = net.add("Requantize", y, m, s)
    return Module(net.builder.graph("main", (y,)), (), net.builder.symbols)


def parts(compilation: Compilation, machine: Machine) -> list[Compilation]:
    return [s for s in compilation.segments or (compilation,) if s.machine is machine]


def run(compilation: Compilation, machine: Machine) -> Statistics:
    """What the simulator counts on random inputs."""
    p = program(compilation.module)
    net = compile_program(p, machine)
    rng = np.random.default_rng(0)
    net.run({
        name: rng.integers(*t.dtype.limits, t.static_shape, t.dtype.numpy, endpoint=True)
        for name, t in p.signature.inputs
    })  # fmt: skip
    assert net.statistics is not None
    return net.statistics


def check(compilation: Compilation, machine: Machine) -> None:
    """Every layer of the array's part, what comes from the host and goes there among them."""
    for part in parts(compilation, machine):
        expected = predicted_program(program(part.module), machine)
        for layer, memories in counted(run(part, machine)).items():
            own = {m: expected.get(layer, {}).get(m, (0, 0)) for m in memories}
            different = {m: (own[m], memories[m]) for m in memories if own[m] != memories[m]}
            assert not different, (layer, different)


@settings(QUIET, max_examples=60)
@given(module=layers(), array=arrays())
def test_random_layers(module: Module, array: dict[str, int]) -> None:
    machine = resized(load("tpu"), **array)
    check(lower(module, machine), machine)


def check_network(case: Case, machine: Machine) -> None:
    n = next((x.shape[0] for x in case.inputs.values()), 1)
    sizes = dict.fromkeys(case.module.sizes, n)
    check(lower(case.module, machine, calib=case.calib, sizes=sizes), machine)


@settings(QUIET, max_examples=25)
@given(case=integer_networks(), array=arrays())
def test_random_networks(case: Case, array: dict[str, int]) -> None:
    check_network(case, resized(load("tpu"), **array))


@pytest.mark.slow
@settings(QUIET, max_examples=400)
@given(case=integer_networks(), array=arrays())
def test_many_networks(case: Case, array: dict[str, int]) -> None:
    check_network(case, resized(load("tpu"), **array))


@pytest.mark.parametrize("part", [0, 1, 3])
def test_tensors_that_wait_on_the_host_are_not_predicted(part: int) -> None:
    """Rows for everything but one, which order makes up for; for the largest layer; for less."""
    machine = resized(load("tpu"), rows=12, columns=8, accumulator_rows=64, unified_bytes=12 << 16)
    compilation = lower(residual(12), machine)
    (segment,) = parts(compilation, machine)
    p = program(segment.module)
    array = array_of(machine)
    whole = Places(p, array).first + constant_rows(p, array)
    rows = most_rows(compilation, machine) // part if part else whole - 1
    machine = resized(machine, unified_bytes=12 * rows)
    (segment,) = parts(lower(residual(12), machine), machine)
    moved = counted(run(segment, machine))
    on_the_way = any(memories["host"] != (0, 0) for layer, memories in moved.items() if layer)
    if not part:
        assert not on_the_way
        check(segment, machine)
        return
    assert on_the_way
    with pytest.raises(NnccError, match=r"no prediction for .* wait on the host"):
        predicted_program(program(segment.module), machine)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 500))
def test_tiles_fit(extents: list[int], limit: int) -> None:
    dims = [Dim(f"d{k}", 0, n) for k, n in enumerate(extents)]
    tiling = tiled(dims, limit)
    assert np.prod(tiling.local_shape) <= limit
    assert tiling.count >= ceildiv(int(np.prod(extents)), limit)
    every = list(tilings(dims, limit))
    assert all(np.prod(t.local_shape) <= limit for t in every)
    assert fewest_tiles(dims, limit).count == min(t.count for t in every) <= tiling.count


def test_fewest_tiles_of_any_shape() -> None:
    # from the last dim on: 4 tiles of 3x3; the model prefers three of a row of all images
    pixels = [Dim("n", 0, 4), Dim("e", 0, 3), Dim("f", 0, 3)]
    assert tiled(pixels, 16).count == 4
    array = SystolicArray(8, 8, 1 << 20, 32, 4, 1 << 20, 1 << 20, 1 << 20, 1 << 20)
    tiling, shape = chosen_tiling(pixels, 36, ((9, 8, 0, 1),), array, 7e8)
    assert tiling.count == shape.tiles <= 3


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_boxes_of_instructions(n: int, a: int, b: int, gaps: bool) -> None:
    # dense rows are one box however many loops there are; with gaps a box has two loops
    count = instructions([(n, (a * b + gaps,)), (a, (b,)), (b, (1,))])
    assert count == 1
    steps = instructions([(n, (100,)), (a, (10,)), (b, (1,))])
    assert steps == (1 if 1 in (n, a, b) else n)


# -- the choice of tiles against all others ------------------------------------------------------

Choose = Callable[..., tuple[Tiling, Shape]]


def cycles(module: Module, machine: Machine, monkeypatch: pytest.MonkeyPatch, f: Choose) -> int:
    with monkeypatch.context() as patch:
        patch.setattr(products, "chosen_tiling", f)
        (part,) = parts(lower(module, machine), machine)
        return run(part, machine).cycles


@pytest.mark.parametrize("rows, columns, accumulators", [(8, 8, 16), (8, 4, 100), (32, 32, 256)])
@pytest.mark.parametrize("shape", [(1, 8, 8, 3, 9), (4, 8, 8, 3, 3), (1, 24, 24, 3, 8)])
def test_tiles_are_near_the_best(
    rows: int, columns: int, accumulators: int, shape: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Within 5 % of the cycles of the best of all tilings, each of them compiled and run."""
    machine = resized(
        load("tpu"), rows=rows, columns=columns, accumulator_rows=accumulators,
        unified_bytes=rows << 16, weight_bytes=1 << 30,
    )  # fmt: skip
    n, c, filters, kernel, size = shape
    net = Network(0)
    x = net.input("x", n, c, size, size, dtype=i8)
    w = net.random.integers(-127, 128, (filters, c, kernel, kernel)).astype(np.int8)
    y = net.add("IntConv", x, net.constant(w), pads=(kernel // 2,) * 4, zx=0)
    m, s = (net.constant(np.full(filters, v, np.int32)) for v in (1 << 30, 42))
    module = Module(net.builder.graph("main", (net.add("Requantize", y, m, s),)), (),
                    net.builder.symbols)  # fmt: skip
    tried: list[tuple[int, ...]] = []

    def number(k: int) -> Choose:
        def choose(
            pixels: list[Dim], count: int, blocks: tuple[tuple[int, int, int, int], ...],
            array: SystolicArray, frequency_hz: float,
        ) -> tuple[Tiling, Shape]:  # fmt: skip
            limits = {array.accumulator_rows >> j for j in range(3)} - {0}
            every = {t.local_shape: t for limit in limits for t in tilings(pixels, limit)}
            tried[:] = list(every)
            tiling = list(every.values())[k % len(every)]
            return tiling, Shape(count, tiling.count, blocks)

        return choose

    best = cycles(module, machine, monkeypatch, number(0))
    best = min([best, *(cycles(module, machine, monkeypatch, number(k))
                        for k in range(1, len(tried)))])  # fmt: skip
    assert cycles(module, machine, monkeypatch, chosen_tiling) <= 1.05 * best
