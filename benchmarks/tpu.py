"""The simulator of TPU-like machines beside SCALE-Sim 3.0.0 and the TPU's paper (Jouppi, 2017).

Programs are products of matrices (`benchmarks.gemm`), run with random values; their results are
compared with numpy's.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.gemm import expected, product
from nncc.isa.tpu.instructions import Halt, MatrixMultiply, ReadWeights
from nncc.isa.tpu.program import Data, Program
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.machines.systolic.sizes import resized
from nncc.runtime.tpu import Outcome, simulate

# Name, array, (M, N, K), cycles that SCALE-Sim 3.0.0 reports for its weight-stationary dataflow:
# the last cycle's number, one less than their count. Convolutions as their products of matrices.
SCALE_SIM = (
    ("product", 8, (16, 16, 16), 151),
    ("product", 8, (20, 10, 12), 167),
    ("product", 8, (5, 24, 9), 161),
    ("fully connected like MLP0, batch 200", 256, (200, 2048, 2048), 61823),
    ("LSTM1 600 x 600, batch 96", 256, (96, 600, 600), 7757),
    ("cube", 256, (256, 256, 256), 1021),
    ("ResNet-18 fc, batch 1", 256, (1, 1000, 512), 6135),
    ("Inception 5b, 3x3", 256, (25, 384, 1728), 11073),
    ("ResNet-18 conv4, 3x3", 256, (196, 256, 2304), 8657),
    ("ResNet-18 conv5, 3x3", 256, (49, 512, 4608), 29339),
    ("1x1, stride 2, 256 to 512", 256, (64, 512, 256), 1659),
)

# Of the paper: batch, and in % (table 3) non-matrix and weight shift; TOPS (table 3, row 9).
APPLICATIONS = (
    ("MLP0", 200, 17.5, 15.9, 12.3),
    ("MLP1", 168, 31.9, 13.4, 9.7),
    ("LSTM0", 64, 17.9, 15.8, 3.7),
    ("LSTM1", 96, 10.3, 17.1, 2.8),
)


def operands(m: int, n: int, k: int) -> tuple[Any, Any]:
    """Random activations [M,K] and weights [K,N]."""
    rng = np.random.default_rng(m * n * k)
    x = rng.integers(-128, 128, (m, k)).astype(np.int8)
    return x, rng.integers(-127, 128, (k, n)).astype(np.int8)


def folds(machine: Machine, width: int, count: int, *, tiles: bool = True) -> Program:
    """`count` products of `width` rows, of zeros; each with a tile of its own, or all with one."""
    a = machine.array
    assert a is not None
    data = (
        Data("unified_buffer", 0, bytes(width * a.rows)),
        Data("weight_memory", 0, bytes(a.tile_bytes)),
    )
    first = (ReadWeights(0), MatrixMultiply(0, 0, width=width, next_tile=True))
    rest = first if tiles else (MatrixMultiply(0, 0, width=width),)
    return Program((*first, *(rest * (count - 1)), Halt()), (), data)


def tiling(size: int) -> tuple[int, float, Outcome]:
    """600 x 600 weights, batch 96, on an array of size x size: tiles, microseconds, the run."""
    machine = resized(load("tpu"), rows=size, columns=size)
    outcome = simulate(product(machine, *operands(96, 600, 600), host=False), machine, {})
    done = [s.done for s in outcome.spans if s.unit == "matrix"]
    return len(done), 1e6 * max(done) / machine.frequency_hz, outcome


def weight_shift(machine: Machine, batch: int) -> tuple[float, float]:
    """Share of cycles in which tiles are shifted in, and TOPS, where weights come too slowly."""
    short, long = (simulate(folds(machine, batch, n), machine, {}).statistics for n in (10, 80))
    cycles = long.cycles - short.cycles
    shifting = long.stalls["weight shift"] - short.stalls["weight shift"]
    tops = 2e-12 * (long.macs - short.macs) / cycles * machine.frequency_hz
    return shifting / cycles, tops


def run() -> int:
    """Prints the tables; the exit status."""
    tpu = load("tpu")
    wrong = 0
    print("strict mode and SCALE-Sim 3.0.0 (weight-stationary; it counts from 0)")
    print(f"{'':40} {'array':>9} {'M,N,K':>14} {'SCALE-Sim':>9} {'nncc':>7}       normal mode")
    for name, size, (m, n, k), cycles in SCALE_SIM:
        machine = resized(tpu, rows=size, columns=size)
        x, w = operands(m, n, k)
        program = product(machine, x, w)
        strict = simulate(program, machine, {}, strict=True)
        normal = simulate(program, machine, {})
        same = np.array_equal(strict.outputs["y"], expected(machine, x, w))
        equal = strict.statistics.cycles == cycles + 1 and same
        wrong += not equal
        print(
            f"{name:40} {f'{size}x{size}':>9} {f'{m},{n},{k}':>14} {cycles:9} "
            f"{strict.statistics.cycles:7} {'+1 ok' if equal else 'WRONG'} "
            f"{normal.statistics.cycles:12}"
        )
    print("\nthe paper's numbers")
    s = simulate(folds(tpu, 4096, 50, tiles=False), tpu, {}).statistics
    print(f"peak: {2e-12 * tpu.array.peak_macs * tpu.frequency_hz:.2f} TOPS", end="")  # type: ignore[union-attr]
    print(f", reached on 50 x 4096 rows {2e-12 * s.macs / s.seconds:.2f}; paper: 92")
    tiles = simulate(folds(tpu, 64, 200), tpu, {}).statistics
    fewer = simulate(folds(tpu, 64, 100), tpu, {}).statistics
    print(f"tile from the weight memory: {(tiles.cycles - fewer.cycles) / 100:.2f} cycles; 1349.27")
    for size, micro in ((256, 18), (512, 32)):
        count, ours, _ = tiling(size)
        print(f"600 x 600 on {size} x {size}: {count} tiles, {ours:.1f} us; paper: {micro} us")
    print("\nbound by weights, steady state; shift x (1 - the paper's own non-matrix share):")
    for name, batch, non_matrix, shift, tops in APPLICATIONS:
        share, ours = weight_shift(tpu, batch)
        part = 1 - non_matrix / 100
        print(
            f"{name:6} batch {batch:3}: weight shift {100 * share * part:4.1f} %, paper {shift} %; "
            f"at most {ours:.1f} TOPS, paper {tops}"
        )
    start, machine = time.perf_counter(), resized(tpu, rows=16, columns=16)
    many = folds(machine, 8, 10000)
    simulate(many, machine, {})
    rate = len(many.instructions) / (time.perf_counter() - start)
    print(f"\nspeed: {60 * rate:.0f} small instructions a minute")
    return int(wrong > 0)
