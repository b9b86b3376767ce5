"""The simulator against the meaning of the operation records, on random programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.diagnostics import SimError
from nncc.isa.tpu.instructions import MatrixMultiply, ReadWeights
from nncc.isa.tpu.program import Data, Program
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.runtime.tpu import simulate
from nncc.runtime.tpu.execute import Memories
from tests.tpu.naive import Naive
from tests.tpu.random_programs import program_of_seed

ALL = ("array active", "weight stall", "weight shift", "non-matrix")
SEEDS = st.integers(0, 1 << 40)


def compare(seed, length):
    program, machine, inputs, legal = program_of_seed(seed, length=length)
    assert legal
    wanted = Naive(program, machine, inputs).run()
    for strict in (False, True):
        outcome = simulate(program, machine, inputs, strict=strict)
        assert outcome.outputs.keys() == wanted.keys()
        for name, y in outcome.outputs.items():
            assert np.array_equal(y.reshape(-1), wanted[name])
        check_sums(outcome)


def check_sums(outcome):
    """Every cycle belongs to one layer, and is active or has a cause."""
    s = outcome.statistics
    assert sum(layer.cycles for layer in s.layers) == s.cycles
    for layer in s.layers:
        assert layer.cycles == layer.active + sum(layer.stalls.values())
    shares = outcome.shares
    assert s.cycles == 0 or sum(shares[k] for k in ALL) == pytest.approx(1)


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_random_programs(seed):
    compare(seed, 40)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(SEEDS)
def test_many_random_programs(seed):
    compare(seed, 80)


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_what_is_not_ordered_is_a_fault(seed):
    program, machine, inputs, legal = program_of_seed(seed, length=30, drop=0.25)
    if legal:
        simulate(program, machine, inputs)
        return
    with pytest.raises(SimError, match="has not waited for"):
        simulate(program, machine, inputs)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_time_keeps_the_order(seed):
    """Of two instructions that use a row, one of them writing, the later starts when the earlier
    is complete (or comes behind it in its unit); units do one thing at a time.
    """
    program, machine, inputs, _ = program_of_seed(seed, length=40)
    outcome = simulate(program, machine, inputs)
    state = Naive(program, machine, inputs)
    spans = {s.position: s for s in outcome.spans}
    seen = []
    last = {}
    for position, i in enumerate(program.instructions):
        if i.unit is not None:
            span = spans[position]
            before = last.get(i.unit)
            if before is not None and i.unit in ("matrix", "activation"):
                assert span.start >= before.end
            last[i.unit] = span
            read, written = state.uses(i)
            for other, r, w in seen:
                if other.unit != span.unit and (w & (read | written) or r & written):
                    assert span.start >= other.done
            seen.append((span, read, written))
        state.step(i)
    assert max((s.done for s in spans.values()), default=0) <= outcome.statistics.cycles


@pytest.mark.parametrize("rows", [1, 2, 511, 512, 513, 1100])
@pytest.mark.parametrize("unsigned", [False, True])
def test_products_are_exact_on_every_array(rows, unsigned):
    """The largest and smallest sums, and random ones, on arrays beyond float32's 2^24."""
    machine = resized(
        load("tpu"), rows=rows, columns=3, unified_bytes=rows * 64, weight_bytes=rows * 9
    )
    rng = np.random.default_rng(rows)
    x = rng.integers(-128, 128, (4, rows)).astype(np.int8)
    x[0], x[1] = 127, -128
    w = rng.integers(-128, 128, (rows, 3)).astype(np.int8)
    w[:, 0], w[:, 1] = -128, 127
    data = (Data("unified_buffer", 0, x.tobytes()), Data("weight_memory", 0, w.tobytes()))
    code = (ReadWeights(0), MatrixMultiply(0, 0, width=4, next_tile=True, unsigned=unsigned))
    memories = Memories(Program((), (), data), machine, {})
    for i in code:
        memories.execute(i)
    wanted = (x.astype(np.int64) + 128 * unsigned) @ w.astype(np.int64)
    assert np.array_equal(memories.accumulators.content[:4], wanted)
