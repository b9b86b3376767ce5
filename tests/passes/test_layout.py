"""Layouts of a graph's values: what keeps the blocks of a convolution, and what undoes them."""

from __future__ import annotations

import pytest

from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Module
from nncc.ir.layout import blocked
from nncc.ir.nests import Band, Leaf, Nest, Schedule
from nncc.ir.text import parse_nest
from nncc.machines import load
from nncc.passes.fuse import Fuse
from nncc.passes.layout import Layout, count_relayouts
from nncc.passes.vectorize import build_tree

MACHINE = load("cpu", ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx2", "fma"])


def laid_out(body: str) -> Module:
    """A graph in which `body` makes b, 32 channels, of a; both stand beside convolutions."""
    module = read_nn(f"""nncc 1
        param w: i8[32,32,1,1] = 1
        param m: i32[] = 1073741824
        param s: i32[] = 40
        param table: i8[256] = 3
        graph g(x: i8[2,32,9,9]) -> (y: i32[2,32,9,9]) {{
          first = IntConv(x, w)
          a = Requantize(first, m, s)
          {body}
          y = IntConv(b, w)
        }}""")
    return Layout()(Fuse(enable=False)(module, MACHINE), MACHINE)


@pytest.mark.parametrize(
    "body",
    [
        "b = Lookup(a, table)",
        "b = MaxPool(a) {kernel_shape=[3,3], pads=[1,1,1,1]}",
        "b = IntAdd(a, a) {ma=16384, mb=16384, s=15}",
        "c = Lookup(a, table)  d = Lookup(c, table)  b = IntAdd(c, d) {ma=16384, mb=16384, s=15}",
    ],
)
def test_what_works_on_each_channel_keeps_the_blocks(body: str) -> None:
    module = laid_out(body)
    inside = module.graph.types.keys() - {"x", "y"}
    shape = (2, 32, 9, 9)
    assert {module.graph.layouts.get(v) for v in inside} == {blocked(shape, 1, 16)}
    assert count_relayouts(module.graph) == 2  # of the graph's input and output


def test_blocks_follow_their_axis() -> None:
    module = laid_out("c = Transpose(a) {perm=[0,2,1,3]}  b = Transpose(c) {perm=[0,2,1,3]}")
    assert module.graph.layouts["c"] == blocked((2, 9, 32, 9), 2, 16)
    assert count_relayouts(module.graph) == 2


@pytest.mark.parametrize("target, is_blocked", [("tta", True), ("cpu", False)])
def test_few_filters(target: str, is_blocked: bool) -> None:
    """Three of 32 lanes are still more than one product at a time; the CPU's lanes take pixels."""
    machine = load("tta") if target == "tta" else MACHINE
    module = read_nn("""nncc 1
        param w: i8[3,1,5,5] = 1
        graph g(x: i8[1,1,28,28]) -> (y: i32[1,3,28,28]) { y = IntConv(x, w) {pads=[2,2,2,2]} }""")
    laid = Layout()(Fuse(enable=False)(module, machine), machine)
    assert bool(laid.graph.layouts) is is_blocked


def test_the_batch_is_never_blocked() -> None:
    """Not even where three filters in each group leave no channels for lanes."""
    module = read_nn("""nncc 1
        size N
        param w: f32[24,5,1,1] = 1.0
        graph g(x: f32[N,40,9,9]) -> (y: f32[N,24,9,9]) {
          y = Conv(x, w) {group=8}
        }""")
    assert not Layout()(Fuse()(module, MACHINE), MACHINE).graph.layouts


def loops(nest: Nest) -> list[str]:
    """The loops of a nest's schedule, from the outermost to the innermost."""
    found: list[str] = []
    tree: tuple[Schedule, ...] = build_tree(nest, MACHINE)
    while not isinstance(tree[0], Leaf):
        band = tree[0]
        assert isinstance(band, Band)
        found.append(f"{band.kind} {band.dim} by {band.step}")
        tree = band.body
    return found


BLOCKS = "@ (d0 // 16, d1, d0 % 16 : 4, 9, 16)"


@pytest.mark.parametrize(
    "params, value, expected",
    [
        # neighbours in memory are in different dimensions: squares of both
        ("in x: f32[99,64], out y: f32[64,99]", "x[h,c]", "c 16, h 16, c 1, h 1"),
        # as it lies in memory, block by block
        (f"in x: f32[64,9] {BLOCKS}, out y: f32[64,9] {BLOCKS}", "x[c,h]", "c 16, h 1, vector c"),
        (
            f"in x: i8[64,9] {BLOCKS}, in t: i8[256], out y: i8[64,9] {BLOCKS}",
            "t[(x[c,h] in -128..128) + 128]",
            "c 16, h 1, c 1",
        ),
        ("in x: f32[64,9], out y: f32[64,9]", "x[c,h]", "c 1, vector h"),
    ],
)
def test_loops_follow_memory(params: str, value: str, expected: str) -> None:
    rows = 99 if "99" in params else 9
    nest = parse_nest(f"""nest n({params}) {{
        out: for c in 0..64, h in 0..{rows} {{ y[c,h] = {value} }}
    }}""")
    found = [
        f"vector {b.split()[1]}" if b.startswith("vector") else f"{b.split()[1]} {b.split()[3]}"
        for b in loops(nest)
    ]
    assert ", ".join(found) == expected
