"""Every rewrite of nests leaves what they compute as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.ir.expr import Apply, Const, Load, Value, apply
from nncc.ir.index import Element, atom, evaluate, var
from nncc.ir.layout import blocked
from nncc.ir.nests import ASSIGN, Access, Dim, Nest, Statement
from nncc.ir.types import f32, i32, i64
from nncc.ir.verify_nests import verify_nest
from nncc.passes.nest_axes import with_merged_dims
from nncc.passes.nest_inline import inlined
from nncc.passes.nest_parts import renamed
from nncc.passes.nest_rewrite import with_accumulators, with_aligned_dims, without_unit_dims
from tests.nests.naive_nests import naive, random_inputs
from tests.nests.random_nests import N, conv, convs, dims, recurrences, reductions, tensor

SIZES = {"N": 2}


def renaming(nest):
    return renamed(nest, {p.name: f"{p.name}_new" for p in nest.params if p.role == "local"})


REWRITES = [
    inlined, with_accumulators, with_aligned_dims, without_unit_dims, with_merged_dims, renaming,
]  # fmt: skip


def results(nest, inputs):
    feeds = {}
    for p in nest.inputs:  # merged axes
        shape = [evaluate(e, SIZES) for e in p.type.shape]
        feeds[p.name] = inputs[p.name].reshape(shape)
    return {k: v.reshape(-1) for k, v in naive(nest, feeds, SIZES).items()}


def unchanged(nest, changed, inputs=None):
    verify_nest(changed)
    inputs = inputs or random_inputs(nest, SIZES)
    expected, got = results(nest, inputs), results(changed, inputs)
    assert expected.keys() == got.keys()
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6)


@st.composite
def pipelines(draw):
    """Several statements that hand tensors on: pointwise, permuted, shifted, reduced."""
    shape = [draw(st.integers(1, 3)) for _ in range(3)]
    if draw(st.booleans()):
        shape[0] = N
    params = [tensor("x", f32, shape), tensor("idx", i64, (3,))]
    body = []
    last = "x"
    count = draw(st.integers(1, 5))
    for k in range(count):
        name = "y" if k == count - 1 else f"t{k}"
        names = draw(st.permutations(["i", "j", "k"]))
        i = [var(d) for d in names]
        kind = draw(st.sampled_from(["map", "permute", "shift", "sum", "max", "twice", "gather"]))
        domain = dims(**dict(zip(names, shape, strict=True)))
        target = tuple(i)
        load = Load(last, target, f32)
        out = shape
        if kind == "map":
            value = apply("add", load, apply("mul", Load("x", target, f32), Value(i[2], f32)))
            if tuple(params[0].type.shape) != tuple(shape):
                value = apply("neg", load)
        elif kind == "permute":
            order = draw(st.permutations([0, 1, 2]))
            out = [shape[a] for a in order]
            target = tuple(i[a] for a in order)
            value = load
        elif kind == "shift":
            value = Load(last, (i[0], i[1] - 1, i[2]), f32, Const(2.0, f32))
        elif kind == "gather" and shape[2] == 3:
            value = Load(last, (i[0], i[1], atom(Element("idx", (i[2],), 0, 3))), f32)
        elif kind == "twice":
            value = apply("mul", load, Load(last, (i[0], i[1], shape[2] - 1 - i[2]), f32))
        elif kind in ("sum", "max"):
            out = [*shape[:2], 1]
            target = (i[0], i[1], 0)
            start = Const(0.0 if kind == "sum" else float("-inf"), f32)
            body.append(Statement(f"i{k}", domain[:2], (Access(name, target),), ASSIGN, (start,)))
            body.append(Statement(f"s{k}", domain, (Access(name, target),), kind, (load,)))
            params.append(tensor(name, f32, out, "out" if name == "y" else "local"))
            last, shape = name, out
            continue
        else:
            value = apply("max", load, Const(0.0, f32))
        body.append(Statement(f"s{k}", domain, (Access(name, target),), ASSIGN, (value,)))
        params.append(tensor(name, f32, out, "out" if name == "y" else "local"))
        last, shape = name, out
    return Nest("pipeline", ("N",), tuple(params), tuple(body))


@settings(max_examples=200, deadline=None)
@given(pipelines(), st.lists(st.sampled_from(REWRITES), min_size=1, max_size=4))
def test_pipelines(nest, rewrites):
    inputs = random_inputs(nest, SIZES)
    inputs["idx"] = np.array([2, 0, 1])
    changed = nest
    for rewrite in rewrites:
        changed = rewrite(changed)
    unchanged(nest, changed, inputs)


@settings(max_examples=60, deadline=None)
@given(convs(), st.permutations(REWRITES))
def test_convolutions(nest, rewrites):
    changed = nest
    for rewrite in rewrites:
        changed = rewrite(changed)
    unchanged(nest, changed)


@settings(max_examples=60, deadline=None)
@given(st.one_of(reductions(), recurrences()), st.sampled_from(REWRITES))
def test_reductions_and_recurrences(nest, rewrite):
    inputs = random_inputs(nest, SIZES)
    for name in {"p", "idx"} & inputs.keys():
        inputs[name] = np.abs(inputs[name]) % nest.param("x").type.shape[0 if name == "idx" else 2]
    changed = rewrite(nest)
    expected, got = naive(nest, inputs, SIZES), naive(changed, inputs, SIZES)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


def test_a_chain_becomes_one_statement():
    i = var("i")
    line = dims(i=N)
    nest = Nest(
        "chain", ("N",),
        (tensor("x", f32, (N,)), tensor("t", f32, (N,), "local"), tensor("y", f32, (N,), "out")),
        (
            Statement("a", line, (Access("t", (i,)),), ASSIGN,
                      (apply("exp", Load("x", (i,), f32)),)),
            Statement("b", dims(j=N), (Access("y", (var("j"),)),), ASSIGN,
                      (apply("neg", Load("t", (var("j"),), f32)),)),
        ),
    )  # fmt: skip
    (only,) = inlined(nest).statements
    assert only.values == (apply("neg", apply("exp", Load("x", (var("j"),), f32))),)
    assert [p.name for p in inlined(nest).params] == ["x", "y"]


def test_a_cost_is_not_paid_twice():
    """exp is read by two elements of y: it stays."""
    i = var("i")
    reader = apply("add", Load("t", (i,), f32), Load("t", (N - 1 - i,), f32))
    nest = Nest(
        "pair", ("N",),
        (tensor("x", f32, (N,)), tensor("t", f32, (N,), "local"), tensor("y", f32, (N,), "out")),
        (
            Statement("a", dims(i=N), (Access("t", (i,)),), ASSIGN,
                      (apply("exp", Load("x", (i,), f32)),)),
            Statement("b", dims(i=N), (Access("y", (i,)),), ASSIGN, (reader,)),
        ),
    )  # fmt: skip
    assert inlined(nest) == nest


@pytest.mark.parametrize("between", [True, False])
def test_what_is_overwritten_is_not_read_later(between):
    """t copies u; u changes before t is read."""
    i = var("i")
    line = dims(i=N)
    params = (
        tensor("x", f32, (N,)), tensor("u", f32, (N,), "local"), tensor("t", f32, (N,), "local"),
        tensor("y", f32, (N,), "out"),
    )  # fmt: skip

    def copy(name, target, source):
        return Statement(name, line, (Access(target, (i,)),), ASSIGN, (Load(source, (i,), f32),))

    double = Statement("d", line, (Access("u", (i,)),), ASSIGN,
                       (apply("add", Load("x", (i,), f32), Load("x", (i,), f32)),))  # fmt: skip
    middle = (double,) if between else ()
    nest = Nest(
        "order", ("N",), params, (copy("a", "u", "x"), copy("b", "t", "u"), *middle,
                                  copy("c", "y", "t")),
    )  # fmt: skip
    unchanged(nest, inlined(nest))


def test_pixels_merge_only_where_layouts_allow():
    nest = conv(N, 16, 16, 4, 4, 1, 1, 1, 0)
    merged = with_merged_dims(without_unit_dims(nest))
    assert merged.param("x").type.shape == (N, 16, 16)
    unchanged(nest, merged)
    swapped = replace(blocked((N, 16, 4, 4), 2, 2))
    params = tuple(replace(p, layout=swapped) if p.name == "x" else p for p in nest.params)
    apart = with_merged_dims(without_unit_dims(replace(nest, params=params)))
    assert apart.param("x").type.shape == (N, 16, 4, 4)


def test_sums_get_a_local_and_a_copy():
    nest = Nest(
        "rows", ("N",), (tensor("x", i32, (N, 3)), tensor("y", i32, (N,), "out")),
        (
            Statement("i", dims(n=N), (Access("y", (var("n"),)),), ASSIGN, (Const(0, i32),)),
            Statement("s", dims(n=N, k=3), (Access("y", (var("n"),)),), "sum",
                      (Load("x", (var("n"), var("k")), i32),)),
        ),
    )  # fmt: skip
    changed = with_accumulators(nest)
    assert [s.targets[0].tensor for s in changed.statements] == ["t", "t", "y"]
    assert changed.statements[2].dims == (Dim("n", 0, N),)
    unchanged(nest, changed)


def test_names_are_exchanged_at_once():
    i, j = var("i"), var("j")
    a = Statement("a", dims(i=2, j=3), (Access("t", (i, j)),), ASSIGN, (Value(i, f32),))
    b = Statement("b", dims(j=2, i=3), (Access("y", (j, i)),), ASSIGN,
                  (Apply("neg", (Load("t", (j, i), f32),), f32),))  # fmt: skip
    nest = Nest("swap", (), (tensor("t", f32, (2, 3), "local"), tensor("y", f32, (2, 3), "out")),
                (a, b))  # fmt: skip
    changed = with_aligned_dims(nest)
    assert changed.statements[0].dims == changed.statements[1].dims
    unchanged(nest, changed)


@pytest.mark.parametrize("where", [True, False])
def test_dims_that_are_numbers_do_not_merge(where):
    i, j = var("i"), var("j")
    value = apply("add", Load("x", (i, j), f32), Value(0 * i if where else j, f32))
    nest = Nest(
        "numbers", (), (tensor("x", f32, (2, 3)), tensor("y", f32, (2, 3), "out")),
        (
            Statement("a", dims(i=2, j=3), (Access("y", (i, j)),), ASSIGN, (Const(1.0, f32),)),
            Statement("b", dims(i=2, j=3), (Access("y", (i, j)),), ASSIGN, (value,),
                      (j - 1,) if where else ()),
        ),
    )  # fmt: skip
    assert with_merged_dims(nest) == nest
    unchanged(nest, with_merged_dims(nest))
