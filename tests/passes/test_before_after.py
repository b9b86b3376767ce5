"""What passes make of a small module, as text: before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nncc.driver import lower
from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Module
from nncc.ir.text import print_module
from nncc.machines import load
from nncc.passes.text import parse

PADDED = """nncc 1
param w: i8[1,1,3,3] = 1
graph g(x: i8[1,1,4,4]) -> (y) {
  y = IntConv(x, w) {pads=[1,1,1,1], pad_value=5}
}"""

PACKED = """nncc 1
param w: i8[8,1,3,3] = 1
param v: i8[32,8,3,3] = 1
const m: i32[] = 1073741824
const s: i32[] = 34
graph g(x: i8[1,1,8,8]) -> (y) {
  t = IntConv(x, w) {pads=[1,1,1,1]}
  c = Requantize(t, m, s)
  p = MaxPool(c) {kernel_shape=[2,2], strides=[2,2]}
  y = IntConv(p, v) {pads=[1,1,1,1]}
}"""

LOADED = """nncc 1
param b: i8[4,1] = 3
graph g(x: i8[4,2]) -> (y) {
  y = IntAdd(x, b) {ma=16384, mb=16384, s=15}
}"""

QUANTIZED = """nncc 1
param w: i8[2,1,1,2] = [1, -2, 100, 127]
const sw: f32[2] = [0.5, 0.25]
const s: f32[] = 0.125
const z: u8[] = 130
graph g(x: u8[1,1,4,4]) -> (y) {
  xf = DequantizeLinear(x, s, z)
  wf = DequantizeLinear(w, sw) {axis=0}
  c = Conv(xf, wf)
  r = Relu(c)
  y = QuantizeLinear(r, s, z)
}"""

# pass: module, target, what runs before
CASES = {
    "pad": (PADDED, "tta_minimal", "fuse, lower"),
    "pack": (PACKED, "tta", "fuse, layout, lower"),
    "hoist": (LOADED, "tta_minimal", "fuse, lower, vectorize, emit"),
    "integerize": (QUANTIZED, "tta", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_before_and_after(name: str, golden: Callable[[str], None]) -> None:
    text, target, before = CASES[name]
    module = read_nn(text)
    if before:
        module = lower(module, target, pipeline=before, whole=True).module
    (step,) = parse(name)
    made = step.run(module, load(target))
    golden(f"{_shown(module)}\n\n    {name} →\n\n{_shown(made)}")


def _shown(module: Module) -> str:
    """Functions alone where there are some."""
    if module.functions:
        graph = replace(module.graph, nodes=(), outputs=(), types={}, inputs=())
        module = Module(graph, functions=module.functions)
    return print_module(module)
