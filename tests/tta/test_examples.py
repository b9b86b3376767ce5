"""Programs written by hand: a CRC on the minimal machine, a convolution on the wide one."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from nncc.isa.tta import assemble, decode, encode
from nncc.machines import load
from nncc.ops.integer import requantize
from nncc.runtime.tta.interpreter import Interpreter
from nncc.runtime.tta.translated import Translated

EXAMPLES = Path(__file__).parents[2] / "examples" / "tta"
CHECKSUM = 0x62488E82  # published with OpenASIP's tutorial


def program(name, machine):
    path = EXAMPLES / f"{name}.tceasm"
    return assemble(path.read_text(), machine, file=str(path))


@pytest.mark.parametrize(
    "name, simulator, cycles",
    [
        ("crc_slow", Interpreter, 1597),
        ("crc_slow", Translated, 1597),
        ("crc_fast", Translated, 40968),
    ],
)
def test_crc(name, simulator, cycles):
    machine = load("tta_minimal")
    binary = encode(program(name, machine), machine)
    s = simulator(decode(binary, machine), machine)
    counts = s.run(100_000)
    found = int.from_bytes(s.read("data", 16, 4), "little")
    assert found == CHECKSUM == zlib.crc32(b"TCE rocks!")
    assert counts.cycles == cycles


PIXELS, CHANNELS, OUTPUTS = 196, 256, 32


def convolution(seed):
    """Operands of the example, and its result by numpy."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (PIXELS, CHANNELS)).astype(np.int8)
    w = rng.integers(-127, 128, (CHANNELS // 4, OUTPUTS, 4)).astype(np.int8)
    bias = rng.integers(-5000, 5000, OUTPUTS).astype(np.int32)
    m = rng.integers(2**30, 2**31, OUTPUTS).astype(np.int32)
    s = rng.integers(42, 45, OUTPUTS).astype(np.int32)
    z, lo, hi = 3, -100, 120
    words = x.reshape(PIXELS, CHANNELS // 4, 4).astype(np.int64)
    total = np.einsum("pkc,kmc->pm", words, w.astype(np.int64)) + bias
    y = requantize(total.astype(np.int32), m, s, z, lo, hi).astype(np.int8)
    limits = np.array([z, lo, hi, 0], np.int8)
    return x, (w, bias, m, s, limits), y


def prepared(simulator, seed):
    machine = load("tta")
    s = simulator(program("conv1x1", machine), machine)
    x, parameters, y = convolution(seed)
    s.write("dmem", 0, x.tobytes())
    s.write("pmem", 0, b"".join(p.tobytes() for p in parameters))
    return s, y


def test_convolution_keeps_the_multipliers_busy():
    s, y = prepared(Translated, 0)
    counts = s.run(20_000)
    found = np.frombuffer(s.read("dmem", 61440, y.size), np.int8).reshape(y.shape)
    assert (found == y).all()
    assert len(np.unique(y)) > 100  # not all at the limits
    useful = PIXELS * CHANNELS // 4
    assert useful / counts.cycles >= 0.99
    # 3 useless ones for each pixel's worth before the first, one to have a result at all
    assert counts.triggers["vmac", "dot4x32s"] == useful + 4
    assert counts.cycles == counts.instructions + counts.stalls["dmem"]
    assert counts.bytes_read["pmem"] == 128 * (useful + 3) + 4
    assert counts.bytes_written["dmem"] == 32 * (PIXELS + 2)
    assert counts.energy["vmac"] == pytest.approx(12.8 * (useful + 4))
    # the loop over words comes from the loop buffer but for its first round
    assert counts.bytes_read["imem"] == (counts.instructions - PIXELS * 59) * 24


def test_both_simulators_agree_on_the_start_of_the_convolution():
    (plain, _), (fast, _) = prepared(Interpreter, 1), prepared(Translated, 1)
    for limit in (1, 2, 3, 5, 8, 13, 70, 75, 150):
        while plain.time + plain.stalls < limit:
            plain.step()
        fast.advance(limit)
        assert plain.snapshot() == fast.snapshot()
    assert plain.counters() == fast.counters()
