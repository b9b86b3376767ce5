"""Zero points moved into biases: exactly, and only where bias and weights stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.machines import load
from nncc.ops.reference import evaluate
from nncc.ops.verify import verify
from nncc.passes.offset import Offset

MACHINE = load("cpu", ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx2", "fma"])


def program(symbols: str, body: str, x: str = "i8[2,4,5,5]", y: str = "i32[2,3,5,5]") -> Module:
    return read_nn(f"""nncc 1
        {symbols}
        graph g(x: {x}) -> (y: {y}) {{
          {body}
        }}""")


def outputs(module: Module, calls: int = 2) -> list[np.ndarray]:
    """What calls in a row give."""
    x = module.graph.types["x"]
    rng = np.random.default_rng(1)
    state = None
    found = []
    for _ in range(calls):
        data = rng.integers(*x.dtype.limits, x.static_shape, x.dtype.numpy, endpoint=True)
        run = interpret(module, {"x": data}, evaluate, state=state)
        state = run.state
        found.append(run.outputs["y"])
    return found


CONV = "y = IntConv(x, w{0}) {{zx=5, pads=[1,1,1,1]{1}}}"
WEIGHTS = "param w: i8[3,4,3,3] = 2\nparam b: i32[3] = [5, 6, -7]"


@pytest.mark.parametrize(
    "module",
    [
        program(WEIGHTS, CONV.format("", "")),
        program(WEIGHTS, CONV.format(", b", "")),
        program(WEIGHTS, CONV.format(", b", ", pad_value=-3")),
        program("param w: i8[4,6] = 3", "y = IntMatMul(x, w) {za=7}", "i8[5,4]", "i32[5,6]"),
        program(
            "param w: i8[6,4] = 3", "y = IntMatMul(x, w) {za=7, transB=1}", "i8[5,4]", "i32[5,6]"
        ),
    ],
)
def test_the_zero_point_becomes_that_of_the_machine(module: Module) -> None:
    moved = Offset()(module, MACHINE)
    verify(moved)
    (node,) = moved.graph.nodes
    assert node.attrs.get("zx", node.attrs.get("za")) == -128
    for a, b in zip(outputs(module), outputs(moved), strict=True):
        np.testing.assert_array_equal(a, b)
    assert Offset()(moved, MACHINE) is moved
    assert Offset(zero_point=5)(moved, MACHINE).graph.nodes[0].attrs != node.attrs


@pytest.mark.parametrize(
    "module",
    [
        # the weights of the next call are not those that the bias would be made of
        program(
            "state w: i8[4,4] = 1", "y = IntMatMul(x, w) {za=5}\nupdate w = x", "i8[4,4]",
            "i32[4,4]",
        ),
        # -128 is no value of u8, and the dot product has signed operands
        program(WEIGHTS, CONV.format(", b", ""), "u8[2,4,5,5]"),
        program("param w: i8[4] = 3", "y = IntMatMul(x, w) {za=7}", "i8[5,4]", "i32[5]"),
        program("param w: i8[2,4,6] = 3", "y = IntMatMul(x, w) {za=7}", "i8[5,4]", "i32[2,5,6]"),
    ],
)  # fmt: skip
def test_others_stay(module: Module) -> None:
    assert Offset()(module, MACHINE) is module


def test_names_of_values_are_not_taken() -> None:
    body = "b.offset = IntConv(x, w) {zx=5, pads=[1,1,1,1]}\n" + CONV.format(", b", "")
    module = Offset()(program(WEIGHTS, body), MACHINE)
    verify(module)
    assert "b.offset" not in module.symbols
