"""Relations between axes, read off the nests."""

from __future__ import annotations

import numpy as np

from nncc.ir.graph import Node
from nncc.ir.index import var
from nncc.ir.types import TensorType, f32, i64
from nncc.ops.relations import Relations, relations
from nncc.ops.table import TABLE, Site

N = var("N")


def of(op: str, *types, attrs=None, constants=None, outputs=1) -> Relations:
    names = tuple(f"in{k}" for k in range(len(types)))
    node = Node(op, names, tuple(f"out{k}" for k in range(outputs)), attrs or {})
    known = constants or [None] * len(types)
    site = Site(node, types, tuple(known))
    inferred = tuple(TABLE[op].infer(site))
    return relations(Site(node, types, tuple(known), inferred))


def t(*shape) -> TensorType:
    return TensorType(f32, shape)


def kinds(found: Relations) -> dict[tuple[str, int, str, int], str]:
    return {(r.output, r.axis, r.input, r.of_axis): r.kind for r in found.related}


def test_conv():
    found = of("Conv", t(N, 6, 9, 9), t(8, 6, 3, 3), t(8), attrs={"strides": (2, 2)})
    assert kinds(found) == {
        ("y", 0, "x", 0): "same",
        ("y", 1, "b", 0): "same",
        ("y", 1, "w", 0): "same",
        ("y", 2, "x", 2): "strided",
        ("y", 3, "x", 3): "strided",
    }
    assert {("x", 1), ("w", 1)} <= found.reduced
    (window,) = found.of("y", 2)
    assert (window.step, window.offset) == (2, 0)
    assert found.preserved("w", 0) == (("y", 1),)
    assert found.preserved("x", 1) == ()


def test_pointwise_conv_keeps_positions():
    found = of("Conv", t(N, 6, 9, 9), t(8, 6, 1, 1))
    assert found.preserved("x", 2) == (("y", 2),)


def test_depthwise_and_grouped_conv():
    depthwise = of("Conv", t(N, 6, 9, 9), t(6, 1, 3, 3), attrs={"group": 6})
    assert depthwise.preserved("x", 1) == (("y", 1),)
    grouped = of("Conv", t(N, 6, 9, 9), t(4, 3, 3, 3), attrs={"group": 2})
    assert kinds(grouped)[("y", 1, "x", 1)] == "split"
    assert grouped.preserved("w", 0) == (("y", 1),)


def test_elementwise_broadcast():
    found = of("Add", t(N, 6, 4, 4), t(6, 1, 1))
    assert kinds(found)[("y", 1, "b", 0)] == "same"
    assert ("y", 0, "b") in found.broadcast
    assert ("y", 2, "b") in found.broadcast


def test_concat_slice_split():
    joined = of("Concat", t(N, 3), t(N, 5), attrs={"axis": 1})
    offsets = {r.input: r.offset for r in joined.of("y", 1)}
    assert offsets == {"x0": 0, "x1": 3}
    assert {r.kind for r in joined.of("y", 1)} == {"joined"}
    starts, ends, axes, steps = (np.array([v]) for v in (1, 8, 1, 2))
    one = TensorType(i64, (1,))
    sliced = of("Slice", t(N, 9), one, one, one, one, constants=[None, starts, ends, axes, steps])
    (r,) = sliced.of("y", 1)
    assert (r.kind, r.offset, r.step) == ("sliced", 1, 2)
    split = of("Split", t(N, 6), attrs={"axis": 1, "num_outputs": 2}, outputs=2)
    assert [(r.kind, r.offset) for r in split.of("y1", 1)] == [("sliced", 3)]


def test_views_and_products():
    assert of("Transpose", t(N, 3, 4), attrs={"perm": (0, 2, 1)}).preserved("x", 1) == (("y", 2),)
    flat = of("Flatten", t(N, 3, 4, 4))
    assert kinds(flat)[("y", 1, "x", 1)] == "split"
    assert of("Flatten", t(N, 3, 1, 1)).preserved("x", 1) == (("y", 1),)
    gemm = of("Gemm", t(N, 5), t(7, 5), t(7), attrs={"transB": True})
    assert gemm.preserved("b", 0) == (("y", 1),)
    assert gemm.reduced == {("a", 1), ("b", 1)}


def test_statistics_cross_an_axis():
    found = of("Softmax", t(N, 5))
    assert kinds(found)[("y", 1, "x", 1)] == "same"
    assert ("x", 1) in found.reduced
    assert found.preserved("x", 1) == ()
    assert found.preserved("x", 0) == (("y", 0),)
    pooled = of("GlobalAveragePool", t(N, 5, 7, 7))
    assert pooled.preserved("x", 1) == (("y", 1),)
    assert {("x", 2), ("x", 3)} <= pooled.reduced
