"""What the scheduling passes print, and the Loops code that follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nncc.diagnostics import PassError
from nncc.ir.graph import Graph, Module
from nncc.ir.nests import Nest
from nncc.ir.text import parse_nest, print_function, print_nest
from nncc.machines import load
from nncc.passes.emission.tree import emit_nest
from nncc.passes.tensorize import Tensorize
from nncc.passes.vectorize import Vectorize

MACHINE = load("cpu-avx2")
NESTS = {
    "conv": """
nest conv(in x: f32[N,8,6,6] @ (d0, d1 // 8, d2, d3, d1 % 8 : N, 1, 6, 6, 8),
          in w: f32[8,8,3,3] @ (d0 // 8, d1 // 8, d2, d3, d1 % 8, d0 % 8 : 1, 1, 3, 3, 8, 8 fill 0),
          in b: f32[8], out y: f32[N,8,6,6] @ (d0, d1 // 8, d2, d3, d1 % 8 : N, 1, 6, 6, 8),
          local t: f32[N,8,6,6]; N) {
  init: for n in 0..N, m in 0..8, e in 0..6, f in 0..6 { t[n,m,e,f] = b[m] }
  acc: for n in 0..N, m in 0..8, e in 0..6, f in 0..6, c in 0..8, r in 0..3, s in 0..3 {
    t[n,m,e,f] sum= (x[n, c, e + r - 1, f + s - 1] else 0.0) * w[m,c,r,s]
  }
  out: for n in 0..N, m in 0..8, e in 0..6, f in 0..6 { y[n,m,e,f] = max(t[n,m,e,f], 0.0) }
}""",
    "matmul": """
nest matmul(in a: f32[N,40], in b: f32[40,12], out y: f32[N,12], local t: f32[N,12]; N) {
  init: for n in 0..N, m in 0..12 { t[n,m] = 0.0 }
  acc: for n in 0..N, m in 0..12, k in 0..40 { t[n,m] sum= a[n,k] * b[k,m] }
  out: for n in 0..N, m in 0..12 { y[n,m] = t[n,m] }
}""",
    "maxpool": """
nest maxpool(in x: f32[N,8,7,7] @ (d0, d1 // 8, d2, d3, d1 % 8 : N, 1, 7, 7, 8),
             out y: f32[N,8,4,4] @ (d0, d1 // 8, d2, d3, d1 % 8 : N, 1, 4, 4, 8),
             local t: f32[N,8,4,4]; N) {
  init: for n in 0..N, c in 0..8, e in 0..4, f in 0..4 { t[n,c,e,f] = -inf }
  acc: for n in 0..N, c in 0..8, e in 0..4, f in 0..4, r in 0..3, s in 0..3 {
    t[n,c,e,f] max= x[n, c, 2*e + r - 1, 2*f + s - 1] else -inf
  }
  out: for n in 0..N, c in 0..8, e in 0..4, f in 0..4 { y[n,c,e,f] = t[n,c,e,f] }
}""",
    "softmax": """
nest softmax(in x: f32[N,20], out y: f32[N,20], local high: f32[N], local sum: f32[N]; N) {
  low: for n in 0..N { high[n] = -inf }
  most: for n in 0..N, k in 0..20 { high[n] max= x[n,k] }
  zero: for n in 0..N { sum[n] = 0.0 }
  total: for n in 0..N, k in 0..20 { sum[n] sum= exp(x[n,k] - high[n]) }
  out: for n in 0..N, k in 0..20 { y[n,k] = exp(x[n,k] - high[n]) / sum[n] }
}""",
    "transpose": """
nest transpose(in x: f32[5,6], out y: f32[6,5]) {
  out: for i in 0..6, j in 0..5 { y[i,j] = x[j,i] }
}""",
}


def scheduled(name: str) -> Nest:
    graph = Graph("main", (), (), (), {})
    module = Module(graph, nests={name: parse_nest(NESTS[name])})
    for step in (Tensorize(), Vectorize()):
        module = step.run(module, MACHINE)
    return module.nests[name]


@pytest.mark.parametrize("name", NESTS)
def test_schedule_and_code(name: str, golden: Callable[[str], None]) -> None:
    nest = scheduled(name)
    function = emit_nest(nest, MACHINE.operations)
    golden(f"{print_nest(nest)}\n\n{print_function(function)}")


@pytest.mark.parametrize("name", NESTS)
def test_scheduled_nests_read_back(name: str) -> None:
    nest = scheduled(name)
    assert parse_nest(print_nest(nest)) == nest


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("for n { init out acc }", "acc"),
        ("for n { for m { local t in registers { init for k { acc } out } } }", ""),
        ("for m by 5 { for n { init acc out } }", ""),
    ],
)
def test_schedules_by_hand(schedule: str, message: str) -> None:
    """A legal schedule is emitted; an illegal one is refused with the dependence."""
    from nncc.passes.poly import check_schedule

    text = NESTS["matmul"].rstrip().removesuffix("}") + f"schedule {{ {schedule} }} }}"
    nest = parse_nest(text)
    if message:
        with pytest.raises(PassError, match=message):
            check_schedule(nest)
        return
    check_schedule(nest)
    import numpy as np

    from tests.emission.scheduled import check

    rng = np.random.default_rng(0)
    inputs = {p.name: rng.standard_normal((3, 40) if p.name == "a" else (40, 12)).astype("f4")
              for p in nest.inputs}  # fmt: skip
    check(nest, inputs, {"N": 3}, MACHINE)


def test_registers_need_static_places() -> None:
    nest = parse_nest(NESTS["matmul"])
    text = "schedule { local t in registers { for n { for m { init for k { acc } out } } } }"
    tree = parse_nest(NESTS["matmul"].rstrip().removesuffix("}") + text + "}").schedule
    with pytest.raises(PassError, match="cannot live in registers"):
        emit_nest(replace(nest, schedule=tree), {})
