"""Time: SCALE-Sim's cycles in strict mode, the numbers of the TPU's paper in normal mode."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from benchmarks.gemm import expected, product
from benchmarks.tpu import APPLICATIONS, SCALE_SIM, operands, tiling, weight_shift
from nncc.isa.tpu.instructions import (
    Halt,
    MatrixMultiply,
    ReadWeights,
    Register,
    SetConfiguration,
    SyncHost,
)
from nncc.isa.tpu.program import Data, Origin, Program
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.runtime.tpu import simulate
from tests.tpu.test_simulator import check_sums

TPU = load("tpu")


@pytest.mark.parametrize("name, size, shape, cycles", SCALE_SIM, ids=str)
def test_strict_mode_equals_scale_sim(name, size, shape, cycles):
    machine = resized(TPU, rows=size, columns=size)
    m, n, k = shape
    x, w = operands(m, n, k)
    outcome = simulate(product(machine, x, w), machine, {}, strict=True)
    assert outcome.statistics.cycles == cycles + 1
    assert np.array_equal(outcome.outputs["y"], expected(machine, x, w))
    folds = -(-k // size) * -(-n // size)
    assert outcome.statistics.units["matrix"] == folds * m
    check_sums(outcome)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4), (4, 1), (1, 1)])
def test_strict_mode_on_arrays_that_are_not_square(shape):
    r, c = shape
    machine = resized(TPU, rows=r, columns=c, unified_bytes=r * 64, weight_bytes=1 << 16)
    code = [ReadWeights(0), MatrixMultiply(0, 0, width=7, next_tile=True)] * 3 + [Halt()]
    outcome = simulate(with_constants(machine, code, rows=7), machine, {}, strict=True)
    assert outcome.statistics.cycles == 3 * (2 * r + c + 7 - 2)


def with_constants(machine, code, rows, macs=None):
    """A program on zeros: `rows` rows, one tile."""
    a = machine.array
    data = (
        Data("unified_buffer", 0, bytes(rows * a.rows)),
        Data("weight_memory", 0, bytes(a.tile_bytes)),
    )
    origins = (Origin("layer"),) * len(code)
    return Program(tuple(code), origins, data, (), macs or {})


def run(code, rows, machine=TPU):
    outcome = simulate(with_constants(machine, code, rows), machine, {})
    check_sums(outcome)
    return outcome


def test_the_peak():
    """Long products with one tile: the array is busy in every cycle."""
    assert TPU.array.peak_macs * 2 * TPU.frequency_hz == pytest.approx(91.75e12, rel=1e-4)
    count = 100
    code = [ReadWeights(0), MatrixMultiply(0, 0, width=4096, next_tile=True)]
    code += [MatrixMultiply(0, 0, width=4096)] * (count - 1) + [Halt()]
    s = run(code, 4096).statistics
    assert s.units["matrix"] == count * 4096
    assert 2 * s.macs / s.seconds == pytest.approx(91.75e12, rel=0.01)
    # what is not the array's: the first tile, its shift, the drain, issue
    assert s.cycles - count * 4096 < 1349 + 256 + 511 + 20


def test_tiles_come_every_1349_27_cycles_exactly():
    """Bound by the weight memory: rational time, not rounded tile by tile."""
    count = 100
    pair = [ReadWeights(0), MatrixMultiply(0, 0, width=64, next_tile=True)]
    outcome = run([*(pair * count), Halt()], 64)
    tile = Fraction(65536 * 7, 340)
    assert float(tile) == pytest.approx(1349.27, abs=0.01)
    # issue, tiles, shift, product, drain, Halt
    assert outcome.statistics.cycles == ceil(4 + tile * count) + 256 + 64 + 510 + 1
    shares = outcome.shares
    # consistency with table 3 of the paper: of the time of a tile 256 cycles are its shift
    assert shares["weight shift"] == pytest.approx(256 / 1349.27, abs=0.002)
    assert shares["array active"] == pytest.approx(64 / 1349.27, abs=0.002)


@pytest.mark.parametrize("application, batch, non_matrix, shift, tops", APPLICATIONS, ids=str)
def test_weight_shift_of_the_paper(application, batch, non_matrix, shift, tops):
    """Given the paper's own share of cycles without matrix work, the share of shifting follows
    to half a point for what is bound by the weight memory; TOPS are bounded by the roofline.
    """
    share, ours = weight_shift(TPU, batch)
    assert 100 * share * (1 - non_matrix / 100) == pytest.approx(shift, abs=0.5)
    assert ours == pytest.approx(2e-12 * batch * 34e9, rel=0.001)
    assert tops < ours


def test_shifting_hides_behind_work():
    """Rows enough a tile and a fast memory: tiles cost nothing."""
    machine = resized(TPU, weight_bytes_per_second=10**12)
    pair = [ReadWeights(0), MatrixMultiply(0, 0, width=300, next_tile=True)]
    stalls = run([*(pair * 50), Halt()], 300, machine).statistics.stalls
    assert stalls["weight shift"] == 256  # the first one
    assert stalls["weight stall"] <= 50
    pair[1] = MatrixMultiply(0, 0, width=200, next_tile=True)
    stalls = run([*(pair * 50), Halt()], 300, machine).statistics.stalls
    assert stalls["weight shift"] == 256 + 49 * 56


@pytest.mark.parametrize("size, tiles, microseconds", [(256, 9, 18), (512, 4, 32)])
def test_tiling_of_600_by_600(size, tiles, microseconds):
    """The paper's example of why a larger array is not faster, within 5 %."""
    count, ours, outcome = tiling(size)
    assert count == tiles
    assert ours == pytest.approx(microseconds, rel=0.05)
    check_sums(outcome)


def test_long_programs_are_fast_enough():
    """Hundreds of thousands of instructions a minute: here, tens of thousands in seconds."""
    machine = resized(TPU, rows=16, columns=16)
    pair = [ReadWeights(0), MatrixMultiply(0, 0, width=8, next_tile=True)]
    code = [*(pair * 5000), SyncHost(), SetConfiguration(Register.IN_1, 3), Halt()]
    assert run(code, 8, machine).statistics.units["matrix"] == 40000


def test_times_do_not_depend_on_products():
    """Without the array's products all that is counted is the same, and outputs are not."""
    machine = resized(TPU, rows=16, columns=12)
    x, w = operands(30, 40, 50)
    outcomes = [simulate(product(machine, x, w), machine, {}, products=p) for p in (True, False)]
    whole, timed = outcomes
    assert timed.statistics == whole.statistics and timed.cycles() == whole.cycles()
    assert whole.outputs["y"].any() and not np.array_equal(timed.outputs["y"], whole.outputs["y"])
