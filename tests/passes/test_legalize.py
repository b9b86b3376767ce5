"""What the target cannot compute is decomposed, placed on the host, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nncc.diagnostics import UnsupportedError
from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Graph, Node
from nncc.ir.interpreter.graph import interpret
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE, Site
from nncc.ops.verify import verify
from nncc.passes.legalize import Decision, Legalize

MODULE = read_nn("""nncc 1
graph main(x: f32[2,4], i: i64[2,4]) -> (y, j) {
  a = HardSwish(x)
  b = Softmax(a)
  y = Relu(b)
  j = Neg(i)

}""")
FEED = {"x": np.float32([[1, -2, 3, 4], [0, 0, 1, 2]]), "i": np.arange(8).reshape(2, 4)}


def accelerator(**supports: tuple[str, ...]) -> Machine:
    table = {op.replace("every", "*"): dtypes for op, dtypes in supports.items()}
    return replace(load("cpu"), name="npu", backend="npu", supports=table)


def test_a_target_without_a_table_takes_every_nest() -> None:
    assert Legalize()(MODULE, load("cpu")) is MODULE


def test_the_host_takes_what_the_target_cannot() -> None:
    report: list[tuple[Decision, ...]] = []
    target = accelerator(every=("f32",), Softmax=())
    result = Legalize(on_report=report.append)(MODULE, target)
    verify(result)
    assert [n.op for n in result.graph.nodes] == ["HardSwish", "Group", "Relu", "Group"]
    assert report == [(
        Decision("a", "keep"),
        Decision("b", "host", "the target does not compute this op"),
        Decision("y", "keep"),
        Decision("j", "host", "the target computes it with f32, not i64"),
    )]  # fmt: skip
    expected, given = (interpret(m, FEED, evaluate).outputs for m in (MODULE, result))
    assert np.array_equal(expected["y"], given["y"]) and np.array_equal(expected["j"], given["j"])


def test_all_refusals_come_at_once() -> None:
    with pytest.raises(UnsupportedError) as caught:
        Legalize(host=False)(MODULE, accelerator(Relu=("f32",)))
    text = str(caught.value)
    assert text.startswith("3 nodes cannot be compiled for npu")
    for part in ("HardSwish (f32)", "Softmax (f32)", "Neg (i64)", "the host may not be used"):
        assert part in text
    assert "Relu" not in text


def test_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    """HardSwish(x) == x * HardSigmoid(x) with alpha 1/6, beta 1/2."""

    def decompose(site: Site) -> Graph:
        nodes = (
            Node("HardSigmoid", ("p",), ("gate",), {"alpha": 1 / 6, "beta": 0.5}),
            Node("Mul", ("p", "gate"), ("q",)),
        )
        return Graph("", ("p",), ("q",), nodes, {})

    monkeypatch.setitem(TABLE, "HardSwish", replace(TABLE["HardSwish"], decompose=decompose))
    result = Legalize()(MODULE, accelerator(every=("f32", "i64"), HardSwish=()))
    verify(result)
    assert [n.op for n in result.graph.nodes] == ["HardSigmoid", "Mul", "Softmax", "Relu", "Neg"]
    assert result.graph.nodes[0].outputs == ("a.gate",)
    expected, given = (interpret(m, FEED, evaluate).outputs["y"] for m in (MODULE, result))
    np.testing.assert_allclose(given, expected, rtol=1e-5)
