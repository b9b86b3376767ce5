"""Merging of equal computations and removal of dead ones."""

from __future__ import annotations

from dataclasses import replace

from nncc.frontend.dsl import read_nn
from nncc.ir.index import var
from nncc.ir.nests import Layout
from nncc.ops.verify import verify
from nncc.passes.cse import Cse
from nncc.passes.dce import Dce


def test_equal_nodes_are_merged() -> None:
    module = read_nn("""nncc 1
    const a: f32[] = 2.0
    const b: f32[] = 2.0
    const c: f32[] = -0.0
    const d: f32[] = 0.0
    graph main(x: f32[2]) -> (y, z) {
      p = Mul(x, a)
      q = Mul(x, b)
      s = Add(p, q)
      t = LeakyRelu(s) {alpha=0.1}
      u = LeakyRelu(s) {alpha=0.2}
      v = Add(t, c)
      w = Add(u, d)
      y = Add(v, w)
      z = Mul(x, a)

    }""")
    result = Cse()(module)
    verify(result)
    assert [n.outputs[0] for n in result.graph.nodes] == [*"pstuvwyz"]
    assert result.graph.nodes[1].inputs == ("p", "p")
    assert set(result.symbols) == {"a", "c", "d"}
    assert Cse()(result) is result


def test_layouts_tell_nodes_apart_and_leave_with_them() -> None:
    module = read_nn("""nncc 1
    graph main(x: f32[4,2]) -> (y) {
      a = Relu(x) b = Relu(x) c = Relu(x)
      s = Add(a, b) y = Add(s, c)
    }""")
    d0, d1 = var("d0"), var("d1")
    turned, plain = Layout((d1, d0), (2, 4)), Layout((d0, d1), (4, 2))
    layouts = {"a": turned, "b": plain, "c": turned}
    result = Cse()(module.with_graph(replace(module.graph, layouts=layouts)))
    verify(result)
    assert [n.outputs[0] for n in result.graph.nodes] == [*"absy"]
    assert result.graph.layouts == {"a": turned, "b": plain}


def test_equal_parameters_stay_apart() -> None:
    module = read_nn("""nncc 1
    param a: f32[2] = [1.0, 2.0]
    param b: f32[2] = [1.0, 2.0]
    graph main(x: f32[2]) -> (y) { p = Mul(x, a)  q = Mul(x, b)  y = Add(p, q)  }""")
    assert Cse()(module) is module


def test_dead_nodes_go_and_state_stays() -> None:
    module = read_nn("""nncc 1
    state v: f32[2] = [0.0, 0.0]
    state kept: f32[2] = [1.0, 1.0]
    param w: f32[2] = [1.0, 2.0]
    param unused: f32[2] = [1.0, 2.0]
    graph main(x: f32[2]) -> (y) {
      dead = Mul(x, unused)
      deader = Relu(dead)
      y = Mul(x, w)
      next = Add(v, x)
      update v = next

    }""")
    result = Dce()(module)
    verify(result)
    assert [n.outputs[0] for n in result.graph.nodes] == ["y", "next"]
    assert set(result.symbols) == {"v", "kept", "w"}
    assert set(result.graph.types) == {"x", "y", "next"}
    assert Dce()(result) is result
