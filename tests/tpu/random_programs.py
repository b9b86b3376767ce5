"""Random machines, and random programs that are legal but for what is left out on purpose."""

import random
from dataclasses import replace

import numpy as np

from benchmarks.gemm import parameters
from nncc.ir.types import i8
from nncc.isa.tpu.instructions import (
    AddRows,
    CopyRows,
    DebugTag,
    FillRows,
    Halt,
    LookUp,
    MatrixMultiply,
    Nop,
    PoolMax,
    ReadHostMemory,
    ReadWeights,
    Register,
    Requantize,
    SetConfiguration,
    Sync,
    SyncHost,
    WindowSum,
    WriteHostMemory,
)
from nncc.isa.tpu.program import Data, HostBuffer, Origin, Program
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from tests.tpu.naive import Naive, Order

TILES = 4


def random_machine(rng):
    r, c = rng.randint(1, 7), rng.randint(1, 7)
    rows = rng.randint(24, 60) + -(-256 // r) + -(-9 * c // r)
    return resized(
        load("tpu"), rows=r, columns=c, unified_bytes=r * rows + rng.randint(0, r - 1),
        accumulator_rows=rng.randint(8, 20), fifo_tiles=rng.randint(1, 4),
        weight_bytes=TILES * r * c, queue_depth=rng.randint(1, 8),
        weight_bytes_per_second=rng.choice([10**9, 7 * 10**8, 333333333]),
        host_bytes_per_second=rng.choice([10**9, 7 * 10**8, 123456789]),
        weight_latency=rng.randint(0, 9), host_latency=rng.randint(0, 9),
        activation_latency=rng.randint(0, 5), issue_stages=rng.randint(0, 4),
    )  # fmt: skip


def random_program(rng, length=30, drop=0.0):
    """(program, machine, inputs, whether it is legal).

    Args:
        drop: how often a Sync that is needed is left out.
    """
    machine = random_machine(rng)
    a = machine.array
    values = np.random.default_rng(rng.randint(0, 1 << 30))

    def some(count):
        return values.integers(-128, 128, count).astype(np.int8).tobytes()

    table = a.unified_rows - -(-256 // a.rows)
    block = table - -(-9 * a.columns // a.rows)
    tiles = np.frombuffer(some(TILES * a.tile_bytes), np.int8).reshape(TILES, a.rows, a.columns)
    tiles = tiles.copy()  # some with empty rows or columns, as at the ends of a matrix
    tiles[rng.randrange(TILES), rng.randint(0, a.rows) :] = 0
    tiles[rng.randrange(TILES), :, rng.randint(0, a.columns) :] = 0
    bias = values.integers(-2000, 2000, a.columns)
    m = values.integers(1 << 30, 1 << 31, a.columns)
    content = some(a.rows * block) if rng.random() < 0.7 else some(rng.randint(1, a.rows * block))
    data = (
        Data("unified_buffer", 0, content),
        Data("unified_buffer", block, parameters(bias, m, values.integers(30, 45, a.columns))),
        Data("unified_buffer", table, some(256)),
        Data("weight_memory", 0, tiles.tobytes()),
    )
    size = 3 * a.rows
    buffers = (
        HostBuffer("x", "in", 0, i8, (size,)),
        HostBuffer("t", "temporary", size, i8, (size,)),
        HostBuffer("y", "out", 2 * size, i8, (3, a.rows)),
    )
    program = Program((), (), data, buffers)
    inputs = {"x": values.integers(-128, 128, size).astype(np.int8)}
    state, order = Naive(program, machine, inputs), Order()
    code = []
    legal = True

    def emit(i):
        nonlocal legal
        if i.unit is not None:
            read, written = state.uses(i)
            for unit in sorted(order.unordered(i.unit, read, written)):
                if rng.random() >= drop:
                    code.append(Sync(i.unit, unit))
                    order.sync(code[-1])
            legal = legal and not order.unordered(i.unit, read, written)
            order.add(i.unit, read, written)
        order.sync(i)
        code.append(i)
        state.step(i)

    tries = 0
    while len(code) < length and tries < 20 * length:
        tries += 1
        i = random_instruction(rng, machine, state, block, table)
        if i is None or (i.unit is not None and not state.allowed(i)):
            continue
        target = state.target(i)
        if target is None or target[0] == "acc" or target[1].max() < block:  # keeps the block
            emit(i)
    for register, value in ((Register.OUT_1, 0), (Register.OUT_2, 1)):
        emit(SetConfiguration(register, value))
    missing = [r for r in range(3) if any((r, k) not in state.ub for k in range(a.rows))]
    for r in missing:
        emit(FillRows(r, lanes=a.rows, value=r))
    emit(WriteHostMemory(2 * size, 0, 3, a.rows))
    code.append(Halt())
    origins = tuple(Origin(f"node{k // 7}", "t", (k % 7, -k)) for k in range(len(code)))
    return replace(program, instructions=tuple(code), origins=origins), machine, inputs, legal


def random_instruction(rng, machine, state, block, table):
    a = machine.array
    row = lambda: rng.randint(0, block - 1)  # noqa: E731
    acc = lambda: rng.randint(0, a.accumulator_rows - 1)  # noqa: E731
    byte = lambda: rng.randint(-128, 127)  # noqa: E731
    size = {"height": rng.choice([1, 1, 2, 3]), "width": rng.randint(1, 4)}
    kind = rng.choice([
        SetConfiguration, SetConfiguration, ReadWeights, MatrixMultiply, MatrixMultiply, Requantize,
        Requantize, AddRows, LookUp, PoolMax, WindowSum, FillRows, CopyRows, ReadHostMemory,
        WriteHostMemory, Nop, DebugTag, SyncHost,
    ])  # fmt: skip
    if kind is SetConfiguration:
        register = rng.choice(list(Register))
        low = 1 if register.name.endswith(("HEIGHT", "WIDTH")) else 0
        return SetConfiguration(register, rng.randint(low, 3))
    if kind is ReadWeights:  # never so many that the queue of a small machine fills up
        return ReadWeights(rng.randrange(TILES)) if len(state.fifo) < a.fifo_tiles else None
    if kind is MatrixMultiply:
        if state.tile is None and not state.fifo:
            return None
        take = state.tile is None or (bool(state.fifo) and rng.random() < 0.5)
        return MatrixMultiply(
            row(), acc(), **size, accumulate=rng.random() < 0.4, next_tile=take,
            unsigned=rng.random() < 0.3,
        )  # fmt: skip
    source_lanes = a.columns if kind is Requantize else a.rows
    target_lanes = a.columns if kind is WindowSum else a.rows
    lanes = rng.randint(1, min(source_lanes, target_lanes))
    if rng.random() < 0.5:
        lanes = min(source_lanes, target_lanes)
    size |= {"lanes": lanes, "lane": rng.randint(0, target_lanes - lanes)}
    if kind is FillRows:
        return FillRows(row(), value=byte(), **size)
    size |= {"source_lane": rng.randint(0, source_lanes - lanes)}
    lo, z, hi = sorted(byte() for _ in range(3))
    if kind is Requantize:
        return Requantize(acc(), row(), block, z=z, lo=lo, hi=hi, **size)
    if kind is AddRows:
        s = rng.randint(1, 30)
        return AddRows(
            row(), row(), row(), za=byte(), zb=byte(), ma=rng.randint(0, 2**15 - 1),
            mb=rng.randint(0, 2**15 - 1), s=s, z=z, lo=lo, hi=hi, **size,
        )  # fmt: skip
    if kind is LookUp:
        return LookUp(row(), row(), table, **size)
    if kind in (PoolMax, CopyRows):
        return kind(row(), row(), **size)
    if kind is WindowSum:
        return WindowSum(row(), acc(), accumulate=rng.random() < 0.4, **size)
    if kind is ReadHostMemory:
        name, size_of = rng.choice([("x", 0), ("t", 1)])
        rows = rng.randint(1, 3)
        buffer = 3 * a.rows
        if name == "t" and any(buffer + k not in state.host for k in range(buffer)):
            return None
        return ReadHostMemory(size_of * buffer, row(), rows, rng.randint(1, a.rows), byte())
    if kind is WriteHostMemory:
        return WriteHostMemory(3 * a.rows, row(), 3, a.rows)
    return kind()


def program_of_seed(seed, **options):
    return random_program(random.Random(seed), **options)
