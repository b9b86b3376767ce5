"""Smallest programs on which levels once disagreed, or that once failed to compile."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.check import random_inputs
from nncc.frontend.dsl import read_nn
from tests.levels.harness import compare, machines

WEIGHTS = """nncc 1
size N
param w: f32[1,1,1,1] = [0.3]
param w3: f32[3,1,1,1] = [0.2, 0.03, -0.16]
"""

# Images of one pixel: the batch is what runs in lanes, and its remainder fills none.
BATCH_IN_LANES = {
    "register tile of the batch": WEIGHTS + """
        graph main(x: f32[N,1,1,1]) -> (z: f32[N,3,1,1]) { y = Conv(x, w)  z = Conv(y, w3) }""",
    "table of a blocked value": WEIGHTS + """
        graph main(x: f32[N,1,1,1]) -> (z: f32[N,1,1,1]) { y = Conv(x, w)  z = Sigmoid(y) }""",
    "concatenation in one nest": WEIGHTS + """
        graph main(x: f32[N,1,1,1]) -> (z: f32[N,2,1,1]) {
          a = Conv(x, w)
          b = Conv(a, w)
          z = Concat(a, b) {axis=1}
        }""",
    "loop inside lanes": WEIGHTS + """
        param taps: f32[1,1,1,3] = [0.2, 0.03, -0.16]
        graph main(x: f32[N,1,1,2]) -> (z: f32[N,1,1,2]) {
          a = Conv(x, w)
          b = Conv(a, taps) {pads=[0,1,0,1]}
          z = Add(b, a)
        }""",
}  # fmt: skip

DEFINITIONS = {
    "machine operation over the batch": """
        def op(x: f32[N,C,H], w: f32[M,C,R]) -> (y: f32[N,M,H - R + 1]) {
          y[n,m,e] = sum(c, r)(x[n, c, e + r] * w[m,c,r])
        }
        graph main(x: f32[N,1,2], w: f32[1,1,2]) -> (y) { y = op(x, w) }""",
    "border before the first step of a scan": """
        def op(x: f32[N,C]) -> (y: f32[N,C]) {
          scan t in 0..N { y[t,c] = max(x[t,c], (y[t - 1, c] else 0.0)) - 0.5 }
        }
        graph main(x: f32[N,4]) -> (z) { y = op(x)  z = Abs(y) }""",
    "accumulators that data choose": """
        def op(x: f32[P,D], ids: i64[P]; M: int = 2) -> (y: f32[M,D]) {
          y[a,j] = 0.0
          for i in 0..P, j in 0..D { y[ids[i] in 0..M, j] sum= x[i,j] }
        }
        graph main(x: f32[N,4], ids: i64[N]) -> (z) { y = op(x, ids)  z = Relu(y) }""",
    "accumulators that a shared loop moves": """
        def op(x: f32[P,D]; M: int = 2) -> (y: f32[M,D]) {
          y[a,j] = 0.0
          for i in 0..P, j in 0..D { y[(i + j) % M, j] sum= x[i,j] }
        }
        graph main(x: f32[N,4]) -> (z) { y = op(x)  z = Relu(y) }""",
}  # fmt: skip


@pytest.mark.parametrize("machine", machines())
@pytest.mark.parametrize("text", BATCH_IN_LANES.values(), ids=BATCH_IN_LANES)
def test_batch_in_lanes(text: str, machine: str) -> None:
    module = read_nn(text)
    shape = [int(e) for e in module.graph.types["x"].shape[1:]]
    rng = np.random.default_rng(0)
    calib = {"x": rng.standard_normal((8, *shape)).astype(np.float32)}
    for batch in (1, 16, 21):
        inputs = {"x": rng.standard_normal((batch, *shape)).astype(np.float32)}
        compare(module, inputs, machine=machine)
        compare(module, inputs, calib=calib, machine=machine)


@pytest.mark.parametrize("machine", machines())
@pytest.mark.parametrize("text", DEFINITIONS.values(), ids=DEFINITIONS)
def test_definitions(text: str, machine: str) -> None:
    module = read_nn(f"nncc 1\nsize N\n{text}")
    compare(module, random_inputs(module), machine=machine)
