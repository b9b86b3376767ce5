"""Everything that stops the simulator, and what it says."""

import numpy as np
import pytest

from benchmarks.gemm import parameters
from nncc.diagnostics import CheckError, SimError, VerifyError
from nncc.ir.types import i8
from nncc.isa.tpu.instructions import (
    AddRows,
    CopyRows,
    FillRows,
    Halt,
    LookUp,
    MatrixMultiply,
    PoolMax,
    ReadHostMemory,
    ReadWeights,
    Register,
    Requantize,
    SetConfiguration,
    Sync,
    SyncHost,
    Unit,
    WindowSum,
    WriteHostMemory,
)
from nncc.isa.tpu.program import Data, HostBuffer, Origin, Program
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.runtime.tpu import simulate

# 4 rows, 3 columns; 32 rows of the unified buffer: 0..15 hold ones, a block of parameters from 16
# on (27 bytes); 8 accumulators, FIFO of 2 tiles, queues of 4
SMALL = resized(
    load("tpu"), rows=4, columns=3, unified_bytes=4 * 128, accumulator_rows=8, fifo_tiles=2,
    weight_bytes=12 * 4, queue_depth=4,
)  # fmt: skip
CONSTANTS = (
    Data("unified_buffer", 0, b"\1" * 64),
    Data("unified_buffer", 16, parameters([0, 0, 0], [1 << 30] * 3, [30, 31, 63])),
    Data("unified_buffer", 32, bytes(256)),
    Data("weight_memory", 0, b"\1" * 24),
)
BUFFERS = (HostBuffer("x", "in", 0, i8, (8,)), HostBuffer("t", "temporary", 8, i8, (8,)))
INPUTS = {"x": np.arange(8, dtype=np.int8)}
LOADED = (ReadWeights(0), MatrixMultiply(0, 0, width=4, next_tile=True))


def program(code, buffers=BUFFERS):
    code = (*code, Halt())
    return Program(code, (Origin("conv1", "y"),) * len(code), CONSTANTS, buffers)


def set_to(register, value):
    return SetConfiguration(register, value)


FAULTS = {
    # addresses
    "row 128 is out of range: there are 0..127": [FillRows(127, width=2, lanes=4)],
    "row 131 is out of range": [set_to(Register.OUT_2, 5), FillRows(126, width=2)],
    "row 130 is out of range": [ReadWeights(0), MatrixMultiply(127, 0, width=4, next_tile=True)],
    "accumulator 8 is out of range: there are 0..7": [
        ReadWeights(0), MatrixMultiply(0, 6, width=3, next_tile=True),
    ],
    "accumulator 9 is out of range": [*LOADED, Requantize(9, 100, 16)],
    "tile 4 is out of range: there are 0..3": [ReadWeights(4)],
    "lanes 2..4 are out of range: a row of the rows has 0..3": [FillRows(0, lane=2, lanes=3)],
    "lanes 0..4 are out of range": [ReadHostMemory(0, 0, 1, 5)],
    "lanes 1..3 are out of range: a row of the accumulators has 0..2": [
        WindowSum(0, 0, lane=1, lanes=3)
    ],
    "host bytes 14..17 are out of range: no buffer holds them": [
        WriteHostMemory(14, 0, 1, 4)
    ],
    "host bytes 4..11 are out of range": [ReadHostMemory(4, 0, 2, 4)],
    # what was never written
    "row 99 has never been written": [CopyRows(99, 100, lanes=2, source_lane=0)],
    "lane 2 of row 98 has never been written": [
        FillRows(98, lanes=2), Sync(Unit.MATRIX, Unit.ACTIVATION), ReadWeights(0),
        MatrixMultiply(98, 0, next_tile=True),
    ],
    "accumulator 5 has never been written": [
        *LOADED, MatrixMultiply(0, 5, accumulate=True),
    ],
    "accumulator 4 has never been written": [
        *LOADED, Sync(Unit.ACTIVATION, Unit.MATRIX), Requantize(3, 100, 16, width=2),
    ],
    "tile 2 of the weight memory was never written": [ReadWeights(2)],
    "byte 0 of host buffer 't' has never been written": [ReadHostMemory(8, 0, 1, 4)],
    "there is no weight tile in the array yet": [MatrixMultiply(0, 0)],
    # order
    "accumulator 0 is read before what matrix wrote is surely there: activation has not waited": [
        *LOADED, Requantize(0, 100, 16),
    ],
    "row 3 is read before what activation wrote is surely there: matrix has not waited": [
        ReadWeights(0), FillRows(3, lanes=4), MatrixMultiply(0, 0, width=4, next_tile=True),
    ],
    "row 1 is written while matrix may still read it: host_read has not waited for matrix": [
        *LOADED, ReadHostMemory(0, 1, 1, 4),
    ],
    "row 1 is written before what host_read wrote is surely there: activation has not waited": [
        ReadHostMemory(0, 1, 1, 4), FillRows(1),
    ],
    "host buffer 't' is read before what host_write wrote is surely there": [
        WriteHostMemory(8, 0, 2, 4), ReadHostMemory(8, 0, 1, 4),
    ],
    "host buffer 't' is written while host_read may still read it": [
        WriteHostMemory(8, 0, 2, 4), Sync(Unit.HOST_READ, Unit.HOST_WRITE),
        ReadHostMemory(8, 20, 1, 4), WriteHostMemory(8, 0, 1, 4),
    ],
    "host buffer 'x' is an input and cannot be written": [WriteHostMemory(0, 0)],
    # units
    "the weight FIFO is empty": [*LOADED, MatrixMultiply(0, 0, next_tile=True)],
    "deadlock: weights waits for room in the weight FIFO at instruction 3": [
        *[ReadWeights(0)] * 4, SyncHost(),
    ],
    "deadlock: the queue of weights stays full; weights waits for room": [
        *[ReadWeights(0)] * 8, *LOADED,
    ],
    "weights waits for room in the weight FIFO at instruction 3, matrix waits for weights": [
        *[ReadWeights(0)] * 4, Sync(Unit.MATRIX, Unit.WEIGHTS),
        MatrixMultiply(0, 0, next_tile=True),
    ],
    # instructions that contradict themselves
    "strides 0 and 0 of the target write a row more than once": [
        set_to(Register.OUT_2, 0), FillRows(1, width=2)
    ],
    "strides 1 and 1 of the target write a accumulator more than once": [
        set_to(Register.TARGET_1, 1), ReadWeights(0),
        MatrixMultiply(0, 0, height=2, width=2, next_tile=True),
    ],
    "row 1 is read and written by the same": [CopyRows(0, 1, width=3)],
    "row 4 is read and written by the same instruction": [
        AddRows(0, 4, 3, width=3, ma=1, mb=1)
    ],
    "row 33 is read and written by the same instruction": [LookUp(0, 33, 32)],
    "row 1 is read and written by the same instruction": [
        set_to(Register.WINDOW_WIDTH, 2), PoolMax(0, 1)
    ],
    "a window of 0 x 1 has not between 1 and 128 elements": [
        set_to(Register.WINDOW_HEIGHT, 0), PoolMax(0, 50)
    ],
    # otherwise it would take for ever
    "a window of 16777215 x 1 has not between 1 and 128 elements": [
        set_to(Register.WINDOW_1, 0), set_to(Register.WINDOW_HEIGHT, (1 << 24) - 1), PoolMax(0, 50)
    ],
    # values
    "a shift of 63 is not in 1..62": [
        *LOADED, Sync(Unit.ACTIVATION, Unit.MATRIX), Requantize(0, 100, 16, lanes=3),
    ],
    "lanes is 0, not in 1..65535": [FillRows(0, lanes=0)],
}  # fmt: skip


@pytest.mark.parametrize("message", FAULTS)
def test_faults(message):
    code = FAULTS[message]
    with pytest.raises(SimError) as error:
        simulate(program(code), SMALL, INPUTS)
    text = str(error.value)
    assert message in text
    assert text.startswith("node 'conv1': cycle ")
    position = int(text.split("instruction ")[1].split(" ")[0])
    assert position <= len(code)


def test_where_a_fault_was():
    code = [*LOADED, FillRows(127, width=2, lanes=4)]
    with pytest.raises(SimError) as error:
        simulate(program(code), SMALL, INPUTS)
    assert str(error.value) == (
        "node 'conv1': cycle 1, instruction 2 (fill_rows row=127 width=2 lanes=4): "
        "row 128 is out of range: there are 0..127"
    )


def overflowing(passes, weight):
    """Accumulators grow by 255 * 128 * 512 at each pass."""
    machine = resized(SMALL, rows=512, columns=1, unified_bytes=512 * 64, weight_bytes=1 << 10)
    data = (
        Data("unified_buffer", 0, b"\x7f" * 512),
        Data("weight_memory", 0, weight.to_bytes(1, "little", signed=True) * 512),
    )
    code = [ReadWeights(0), MatrixMultiply(0, 0, next_tile=True, unsigned=True)]
    code += [MatrixMultiply(0, 0, accumulate=True, unsigned=True)] * (passes - 1)
    return Program((*code, Halt()), (), data), machine


def test_accumulators_overflow():
    most = 2**31 // (255 * 128 * 512)
    simulate(*overflowing(most, -128), {})
    with pytest.raises(SimError, match="an accumulator overflows int32"):
        simulate(*overflowing(most + 1, -128), {})
    simulate(*overflowing(5 * most, 1), {})  # the bound overflows, the sums do not


def test_a_bias_overflows():
    machine = resized(SMALL, rows=4, columns=1, unified_bytes=4 * 64)
    data = (
        Data("unified_buffer", 0, b"\1" * 4),
        Data("unified_buffer", 1, parameters([2**31 - 1], [1 << 30], [30])),
        Data("weight_memory", 0, b"\1" * 4),
    )
    code = (
        ReadWeights(0), MatrixMultiply(0, 0, next_tile=True), Sync(Unit.ACTIVATION, Unit.MATRIX),
        Requantize(0, 9, 1), Halt(),
    )  # fmt: skip
    with pytest.raises(SimError, match="an accumulator and its bias overflow int32"):
        simulate(Program(code, (), data), machine, {})


def test_the_end():
    no_halt = Program((FillRows(0),))
    with pytest.raises(SimError, match="instruction 1: the program has no Halt"):
        simulate(no_halt, SMALL, {})
    out = program([WriteHostMemory(8, 0, 1, 4)], (HostBuffer("y", "out", 8, i8, (8,)),))
    with pytest.raises(SimError, match="byte 4 of output 'y' has never been written"):
        simulate(out, SMALL, {})


def test_constants_that_do_not_fit():
    data = (Data("unified_buffer", 127, bytes(5)),)
    with pytest.raises(VerifyError, match=r"constants at 127 .* is not in 0\.\.127"):
        simulate(Program((Halt(),), (), data), SMALL, {})


def test_inputs_that_do_not_fit():
    for inputs, message in [
        ({}, "input 'x' is missing"),
        ({"x": np.zeros(7, np.int8)}, r"input 'x' is int8\[7\], not int8\[8\]"),
        ({"x": np.zeros(8, np.uint8)}, r"input 'x' is uint8\[8\]"),
        (INPUTS | {"z": np.zeros(1)}, "the program has no input z"),
    ]:
        with pytest.raises(CheckError, match=message):
            simulate(program([]), SMALL, inputs)


def test_what_is_allowed():
    """The edges of the rules above."""
    code = [
        *[ReadWeights(0)] * 3, Sync(Unit.ACTIVATION, Unit.WEIGHTS),  # one more than the FIFO holds
        FillRows(120, width=4, lanes=4),
        AddRows(120, 0, 120, width=4, lanes=4, ma=1, mb=1),  # in place
        CopyRows(120, 120, width=4, lanes=3, lane=1),  # lanes shifted in place
        set_to(Register.SOURCE_2, 0), MatrixMultiply(0, 0, width=4, next_tile=True),
        Sync(Unit.ACTIVATION, Unit.MATRIX), Requantize(0, 100, 16, width=4, lanes=2),
        Sync(Unit.HOST_WRITE, Unit.ACTIVATION), WriteHostMemory(8, 120, 1, 4),
        Sync(Unit.HOST_READ, Unit.HOST_WRITE),  # and by that for activation and matrix
        ReadHostMemory(8, 0, 2, 2), ReadHostMemory(8, 100, 1, 4),
    ]  # fmt: skip
    simulate(program(code), SMALL, INPUTS)
