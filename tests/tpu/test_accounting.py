"""Bytes, energy, layers, shares and traces of runs."""

import json
from collections import Counter
from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gemm import product
from nncc.isa.tpu.instructions import (
    AddRows,
    DebugTag,
    FillRows,
    Halt,
    InterruptHost,
    MatrixMultiply,
    PoolMax,
    ReadWeights,
    Register,
    SetConfiguration,
    Sync,
    Unit,
    WindowSum,
)
from nncc.isa.tpu.program import Data, Origin, Program
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.runtime.tpu import simulate
from nncc.runtime.tpu.accounting import rates
from nncc.runtime.trace import Trace
from tests.tpu.naive import Naive
from tests.tpu.random_programs import program_of_seed
from tests.tpu.test_simulator import check_sums
from tests.trace_format import check_trace

SMALL = resized(load("tpu"), rows=8, columns=4, unified_bytes=8 * 256)


class Counting(Naive):
    """Counts the bytes of the operands that it handles, row by row, and points of operations."""

    def __init__(self, program, machine, inputs):
        self.read, self.written, self.points = Counter(), Counter(), Counter()
        super().__init__(program, machine, inputs)

    def step(self, i):
        names = {"ub": ("unified_buffer", 1), "acc": ("accumulators", 4)}
        for memory, rows, _, lanes in [*self.sources(i), *self.blocks(i)]:
            name, size = names[memory]
            self.read[name] += size * rows.size * lanes
        if target := self.target(i):
            name, size = names[target[0]]
            self.written[name] += size * target[1].size * target[3]
        if isinstance(i, ReadWeights):
            self.read["weight_memory"] += self.a.tile_bytes
            self.written["weight_fifo"] += self.a.tile_bytes
        if isinstance(i, MatrixMultiply) and i.next_tile:
            self.read["weight_fifo"] += self.a.tile_bytes
        if i.unit is Unit.HOST_READ:
            self.read["host"] += i.rows * i.lanes
        if i.unit is Unit.HOST_WRITE:
            self.written["host"] += i.rows * i.lanes
        super().step(i)

    def apply(self, name, sizes, **operands):
        self.points[name] += prod(sizes[n] for n in self.machine.operations[name].semantics.sizes)
        return super().apply(name, sizes, **operands)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 40))
def test_bytes_are_those_of_the_operands(seed):
    program, machine, inputs, _ = program_of_seed(seed, length=40)
    naive = Counting(program, machine, inputs)
    naive.run()
    s = simulate(program, machine, inputs).statistics
    for name, use in s.memories.items():
        assert (use.read_bytes, use.written_bytes) == (naive.read[name], naive.written[name])
        memory = machine.memory(name)
        energy = use.read_bytes * memory.read_pj_per_byte
        energy += use.written_bytes * memory.write_pj_per_byte
        assert use.energy_pj == pytest.approx(energy)
    assert {name: use.count for name, use in s.operations.items()} == naive.points
    for name, use in s.operations.items():
        assert use.energy_pj == pytest.approx(use.count * machine.operations[name].energy)
    assert sum(s.units_pj.values()) == pytest.approx(
        sum(use.energy_pj for use in s.operations.values())
    )


def test_a_product_by_hand():
    x, w = np.ones((6, 16), np.int8), np.ones((16, 8), np.int8)
    outcome = simulate(product(SMALL, x, w), SMALL, {})
    s = outcome.statistics
    folds, rows = 4, 6
    assert s.macs == 6 * 16 * 8
    uses = {n: (u.read_bytes, u.written_bytes) for n, u in s.memories.items()}
    assert uses == {
        "host": (0, 6 * 8),
        "weight_memory": (folds * 32, 0),
        "weight_fifo": (folds * 32, folds * 32),
        "unified_buffer": (folds * rows * 8 + 2 * 36 + 6 * 8, 2 * rows * 4),
        "accumulators": (2 * rows * 16 + 2 * rows * 16, folds * rows * 16),
    }
    matmul, requantize = SMALL.operations["matmul"], SMALL.operations["requantize"]
    energy = folds * rows * 32 * matmul.energy + 2 * rows * 4 * requantize.energy
    assert sum(layer.compute_pj for layer in s.layers) == pytest.approx(energy)
    counts = {name: use.count for name, use in s.operations.items()}
    assert counts == {"matmul": folds * rows * 32, "requantize": 2 * rows * 4}
    assert s.units_pj["matrix"] == pytest.approx(folds * rows * 32 * matmul.energy)
    assert s.units_pj["activation"] == pytest.approx(2 * rows * 4 * requantize.energy)
    assert s.units["matrix"] == folds * rows
    assert "product" in str(s)
    assert json.dumps(s.as_json())


def test_waiting_belongs_to_the_layer_that_works():
    """A long pooling between two products: its cycles are its own."""
    data = (
        Data("unified_buffer", 0, bytes(8 * 100)),
        Data("weight_memory", 0, bytes(32)),
    )
    code = [
        (ReadWeights(0), "first"),
        (MatrixMultiply(0, 0, width=10, next_tile=True), "first"),
        (SetConfiguration(Register.WINDOW_WIDTH, 5), "pool"),
        (PoolMax(0, 150, width=50, lanes=8), "pool"),
        (Sync(Unit.MATRIX, Unit.ACTIVATION), "second"),
        (MatrixMultiply(150, 0, width=50), "second"),
        (Halt(), ""),
    ]
    program = Program(
        tuple(i for i, _ in code), tuple(Origin(n) for _, n in code), data, (), {"first": 7}
    )
    outcome = simulate(program, SMALL, {})
    check_sums(outcome)
    layers = {layer.name: layer for layer in outcome.statistics.layers}
    assert list(layers) == ["first", "pool", "second"]
    assert layers["first"].macs == 7
    assert layers["second"].macs == 50 * 32
    assert layers["pool"].active == 0
    assert 200 < layers["pool"].cycles <= 250 + SMALL.array.activation_latency
    assert layers["pool"].stalls["raw stall"] > 200
    assert layers["second"].active == 50
    assert outcome.shares["raw stall"] <= outcome.shares["non-matrix"]


def test_what_the_activation_unit_takes():
    """A row a cycle for each operand and each element of a window."""
    data = (Data("unified_buffer", 0, bytes(8 * 100)),)
    code = (
        FillRows(150, width=10), AddRows(0, 20, 170, width=10, ma=1, mb=1),
        SetConfiguration(Register.WINDOW_HEIGHT, 3), WindowSum(0, 0, width=10, lanes=4),
        DebugTag(5), InterruptHost(7), Halt(),
    )  # fmt: skip
    outcome = simulate(Program(code, (), data), SMALL, {})
    latency = SMALL.array.activation_latency
    assert [s.end - s.start - latency for s in outcome.spans] == [10, 20, 30]
    assert outcome.interrupts == (7,)
    check_sums(outcome)


def test_trace(tmp_path):
    x, w = np.ones((6, 16), np.int8), np.ones((16, 8), np.int8)
    program = product(SMALL, x, w)
    outcome = simulate(
        Program((DebugTag(3), *program.instructions), (Origin(), *program.origins),
                program.data, program.buffers), SMALL, {},
    )  # fmt: skip
    trace = Trace()
    outcome.add_to(trace)
    trace.write(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    names = {e["args"]["name"] for e in events if e["ph"] == "M"}
    assert {"tpu", "matrix", "weights", "activation", "host_write", "layer product"} <= names
    spans = [e for e in events if e["ph"] == "X"]
    scale = 1e6 / SMALL.frequency_hz
    assert all(e["dur"] >= 0 and e["ts"] >= 0 for e in spans)
    assert sum(e["name"].startswith("matrix_multiply") for e in spans) == 4
    assert max(e["ts"] + e["dur"] for e in spans) <= outcome.statistics.cycles * scale
    assert any(e["name"] == "debug_tag tag=3" for e in spans)
    tracks = check_trace((tmp_path / "t.json").read_text())
    assert len(tracks["tpu", "weights"]) == 4
    assert {e["name"] for e in events if e["ph"] == "C"} == {
        f"{name} bytes a cycle"
        for name, use in outcome.statistics.memories.items() if use.read_bytes + use.written_bytes
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 40))
def test_the_areas_below_the_curves_of_memories_are_their_bytes(seed):
    program, machine, inputs, _ = program_of_seed(seed, length=40)
    outcome = simulate(program, machine, inputs)
    curves = {}
    for memory, cycle, rate in rates(program, outcome.spans, machine.array):
        curves.setdefault(memory, []).append((cycle, rate))
    for name, use in outcome.statistics.memories.items():
        steps = curves.get(name, [(0, 0)])
        moved = sum(rate * (after - at) for (at, rate), (after, _) in pairwise(steps))
        assert moved == pytest.approx(use.read_bytes + use.written_bytes)
        assert steps[-1][1] == 0
    trace = Trace()
    outcome.add_to(trace)
    check_trace(json.dumps(trace.as_json()))
    assert all(busy <= outcome.statistics.cycles for busy in outcome.statistics.units.values())
