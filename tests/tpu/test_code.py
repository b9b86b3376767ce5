"""The Loops and the listing of a convolution, read by eye."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nncc.backends.tpu.compiler import levels
from nncc.driver import lower
from nncc.ir.graph import Module
from nncc.ir.text import print_function
from nncc.ir.types import i8
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.passes.plan import program
from tests.nests.random_networks import Network

MACHINE = resized(load("tpu"), rows=4, columns=8, accumulator_rows=64)


def conv() -> Module:
    net = Network(1)
    x = net.input("x", 1, 6, 5, 5, dtype=i8)
    w = np.arange(8 * 6 * 9, dtype=np.int32).reshape(8, 6, 3, 3) % 200 - 100
    y = net.add("IntConv", x, net.constant(w.astype(np.int8)), pads=(1, 1, 1, 1), pad_value=-3)
    m, s = (net.constant(np.full(8, k, np.int32)) for k in (1 << 30, 44))
    return Module(
        net.builder.graph("main", (net.add("Requantize", y, m, s),)), (), net.builder.symbols
    )


def test_loops(golden: Callable[[str], None]) -> None:
    (segment,) = lower(conv(), MACHINE).segments
    functions = segment.module.functions
    golden("\n\n".join(print_function(f) for n, f in functions.items() if n != "reset"))


def test_listing(golden: Callable[[str], None]) -> None:
    (segment,) = lower(conv(), MACHINE).segments
    golden(levels(program(segment.module), MACHINE)["listing"]())
