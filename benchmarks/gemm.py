"""Programs of matrix products, made fold by fold: what the timing is compared with."""

import numpy as np

from nncc.ir.types import i8
from nncc.isa.tpu.instructions import (
    Halt,
    MatrixMultiply,
    ReadWeights,
    Requantize,
    Sync,
    SyncHost,
    Unit,
    WriteHostMemory,
)
from nncc.isa.tpu.program import Data, HostBuffer, Origin, Program
from nncc.machines.systolic.sizes import array_of


def rows_of(x, lanes):
    """A matrix as column blocks of rows with `lanes` lanes, one block after the other."""
    m, k = x.shape
    blocks = -(-k // lanes)
    wide = np.zeros((m, blocks * lanes), np.int8)
    wide[:, :k] = x
    return wide.reshape(m, blocks, lanes).transpose(1, 0, 2)


def tiles_of(w, rows, columns):
    """A matrix cut into tiles, padded with zeros: [K/R, N/C, R, C]."""
    k, n = w.shape
    wide = np.zeros((-(-k // rows) * rows, -(-n // columns) * columns), np.int8)
    wide[:k, :n] = w
    return wide.reshape(-1, rows, wide.shape[1] // columns, columns).transpose(0, 2, 1, 3)


def parameters(bias, m, s):
    """The block of a Requantize."""
    return b"".join(
        np.asarray(v, t).tobytes() for v, t in ((bias, "<i4"), (m, "<i4"), (s, np.uint8))
    )


def product(machine, x, w, shift=12, *, host=True):
    """The program of requantize(x @ w), column block by column block, operands in the unified
    buffer. The output has a block of C lanes a row for each column block: [N/C, M, C].
    """
    a = array_of(machine)
    m = len(x)
    sources, tiles = rows_of(x, a.rows), tiles_of(w, a.rows, a.columns)
    depth, blocks = tiles.shape[:2]
    assert a.columns <= a.rows and m <= a.accumulator_rows
    content = sources.reshape(-1, a.rows)
    block = len(content)
    result = block + -(-9 * a.columns // a.rows)
    ones = np.ones(a.columns, np.int64)
    data = [
        Data("unified_buffer", 0, content.tobytes()),
        Data("unified_buffer", block, parameters(0 * ones, ones << 30, (30 + shift) * ones)),
        Data("weight_memory", 0, tiles.tobytes()),
    ]
    code, origins = [], []
    lag = min(a.fifo_tiles, 8)  # tiles fetched ahead
    order = [(j, k) for j in range(blocks) for k in range(depth)]
    fetched = 0
    for t, (j, k) in enumerate(order):
        while fetched < min(len(order), t + lag):
            nj, nk = order[fetched]
            code.append(ReadWeights(nk * blocks + nj))
            origins.append(Origin("product", "w", (nj, nk)))
            fetched += 1
        bank = (j % 2) * m if 2 * m <= a.accumulator_rows else 0
        if k == 0 and j >= (2 if bank or 2 * m <= a.accumulator_rows else 1):
            code.append(Sync(Unit.MATRIX, Unit.ACTIVATION))
            origins.append(Origin("product"))
        code.append(MatrixMultiply(k * m, bank, width=m, accumulate=k > 0, next_tile=True))
        origins.append(Origin("product", "acc", (j, k)))
        if k == depth - 1:
            code += [
                Sync(Unit.ACTIVATION, Unit.MATRIX),
                Requantize(bank, result + j * m, block, width=m, lanes=a.columns),
            ]
            origins += [Origin("product", "y", (j,))] * 2
    buffers = ()
    if host:
        code += [
            Sync(Unit.HOST_WRITE, Unit.ACTIVATION),
            WriteHostMemory(0, result, blocks * m, a.columns),
        ]
        origins += [Origin("product", "y")] * 2
        buffers = (HostBuffer("y", "out", 0, i8, (blocks, m, a.columns)),)
    code += [SyncHost(), Halt()]
    origins += [Origin()] * 2
    macs = {"product": x.shape[0] * x.shape[1] * w.shape[1]}
    return Program(tuple(code), tuple(origins), tuple(data), buffers, macs)


def expected(machine, x, w, shift=12):
    """What the program of `product` gives."""
    columns = array_of(machine).columns
    total = (x.astype(float) @ w.astype(float)).astype(np.int64)  # exact: below 2^53
    y = np.clip(total + (1 << (shift - 1)) >> shift, -128, 127).astype(np.int8)
    blocks = -(-y.shape[1] // columns)
    wide = np.zeros((len(y), blocks * columns), np.int8)
    wide[:, : y.shape[1]] = y
    return wide.reshape(len(y), blocks, columns).transpose(1, 0, 2)
