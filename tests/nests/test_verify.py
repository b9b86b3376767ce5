"""Each invariant of nests, broken once; random nests and the nests of all ops keep them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from nncc.diagnostics import VerifyError
from nncc.ir.expr import Apply, Const, Load, apply
from nncc.ir.index import Element, atom, maximum, minimum, var
from nncc.ir.nests import Access, Band, Dim, Leaf, Local, Nest, Scan, Statement
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import boolean, f32, i8, i32, i64
from nncc.ir.verify_nests import verify_nest
from tests.nests.random_nests import N, conv, convs, dims, recurrences, tensor

CONV = conv(N, 3, 4, 6, 5, 3, 3, 1, 1)
INIT, ACC, OUT = CONV.body


@settings(max_examples=60, deadline=None)
@given(convs())
def test_random_convolutions_are_right(nest):
    verify_nest(nest)


@settings(max_examples=20, deadline=None)
@given(recurrences())
def test_random_recurrences_are_right(nest):
    verify_nest(nest)


def body(*statements):
    return replace(CONV, body=tuple(statements))


def unbordered(statement):
    product = statement.values[0]
    return replace(
        statement, values=(replace(product, args=(replace(product.args[0], other=None),
                                                  product.args[1])),)
    )  # fmt: skip


BROKEN = {
    "there are two parameters with the name x": replace(
        CONV, params=(*CONV.params, tensor("x", f32, (1,)))
    ),
    "there are two statements with the name init": body(INIT, INIT, ACC, OUT),
    "'m' uses m, which is no dimension": body(replace(INIT, dims=INIT.dims[:1]), ACC, OUT),
    "dimension n has the name": body(replace(INIT, dims=(*INIT.dims, Dim("n", 0, 1))), ACC, OUT),
    "the range of m uses q": body(replace(INIT, dims=dims(n=N, m=var("q"), e=6, f=5)), ACC, OUT),
    "q is no parameter": body(replace(INIT, targets=(Access("q", ()),)), ACC, OUT),
    "t has 4 dimensions and 1 subscripts": body(
        replace(INIT, targets=(Access("t", (var("n"),)),)), ACC, OUT
    ),
    "x is an input": body(INIT, ACC, replace(OUT, targets=(Access("x", OUT.targets[0].indices),))),
    "e + r - 1 is not surely in 0..6": body(INIT, unbordered(ACC), OUT),
    "t is f32, the value is i32": body(replace(INIT, values=(Const(0, i32),)), ACC, OUT),
    "300 is no i8": body(replace(INIT, values=(Apply("cast", (Const(300, i8),), f32),)), ACC, OUT),
    "gives f32, not i32": body(
        replace(INIT, values=(Apply("neg", (Const(0.0, f32),), i32),)), ACC, OUT
    ),
    "t is assigned again for each c": body(INIT, replace(ACC, combine="="), OUT),
    "there is no combine 'mean'": body(INIT, replace(ACC, combine="mean"), OUT),
    "folds into t, which no earlier": body(ACC, OUT),
    "reads t, which no earlier": body(OUT, INIT, ACC),
    "output y is never written": body(INIT, ACC),
    "statement out is not scheduled": replace(CONV, schedule=(Leaf("init"), Leaf("acc"))),
    "statement init is scheduled twice": replace(CONV, schedule=(Leaf("init"), Leaf("init"))),
    "statement init has no dimension c": replace(
        CONV, schedule=(Band("c", 1, "serial", (Leaf("init"),)),)
    ),
    "n is fixed already": replace(
        CONV, schedule=(Band("n", 1, "serial", (Band("n", 1, "serial", (Leaf("init"),)),)),)
    ),
    "a piece of m of 2 is walked by 3": replace(
        CONV, schedule=(Band("m", 2, "serial", (Band("m", 3, "serial", (Leaf("init"),)),)),)
    ),
    "x is no local tensor": replace(CONV, schedule=(Local(("x",), "registers", ()),)),
    "out uses t outside": replace(
        CONV, schedule=(Local(("t",), "registers", (Leaf("init"), Leaf("acc"))), Leaf("out"))
    ),
    "there is no statement a": replace(CONV, schedule=(Leaf("a"),)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_nests_are_refused(message):
    with pytest.raises(VerifyError) as caught:
        verify_nest(BROKEN[message])
    assert message in str(caught.value)


def test_schedule_of_a_register_tile_is_right():
    leaves = Local(("t",), "registers", (
        Band("m", 1, "vector", (Leaf("init"),)),
        Band("c", 1, "serial", (Band("m", 1, "vector", (Leaf("acc"),)),)),
        Band("m", 1, "vector", (Leaf("out"),)),
    ))  # fmt: skip
    tree = Band("n", 1, "parallel", (Band("m", 2, "serial", (leaves,)),))
    verify_nest(replace(CONV, schedule=(tree,)))


dims_of_y = dims(i=N)


def one(dims, index, where=(), extent=4, sizes=("N",)):
    """y[i] = x[index] over the given dims, which include i; 0 elsewhere."""
    value = Load("x", (index,), f32)
    i = var("i")
    whole = Statement("whole", dims_of_y, (Access("y", (i,)),), "=", (Const(0.0, f32),))
    return Nest(
        "one", sizes,
        (tensor("x", f32, (extent,)), tensor("idx", i64, (N,)), tensor("y", f32, (N,), "out")),
        (whole, Statement("s", dims, (Access("y", (i,)),), "=", (value,), where)),
    )  # fmt: skip


def test_bounds_are_proved_for_all_sizes():
    i = var("i")
    line = dims(i=N)
    verify_nest(one(line, N - 1 - i, extent=N))
    verify_nest(one(line, i // 2, extent=(N + 1) // 2))
    verify_nest(one(line, i % 4))
    verify_nest(one(line, atom(Element("idx", (i,), 0, 4))))
    verify_nest(one(line, i - 2, (i - 2, N - i), extent=N))
    verify_nest(one(dims(i=(0, N // 2)), 2 * i + 1, extent=N))
    for wrong in (
        one(line, i, extent=4),
        one(line, i - 2, extent=N),
        one(line, atom(Element("idx", (i,), 0, 5))),
        one(line, (i - 2) // 3, extent=N),
        one(line, atom(Element("idx", (i + 1,), 0, 4))),
    ):
        with pytest.raises(VerifyError, match="not surely"):
            verify_nest(wrong)


def test_a_subscript_is_an_integer():
    i = var("i")
    nest = one(dims(i=N), atom(Element("y", (i,), 0, 4)))
    with pytest.raises(VerifyError, match="no integer tensor"):
        verify_nest(nest)


def test_operands_fit_their_function():
    mixed = Apply("add", (Const(1.0, f32), Const(1, i32)), f32)
    nest = body(replace(INIT, values=(mixed,)), ACC, OUT)
    with pytest.raises(VerifyError, match="different dtypes"):
        verify_nest(nest)


def again(index, target=None, combine="=", where=()):
    """y[i,j] = y[index] over i in 0..N, j in 0..4, after y was written."""
    i, j = var("i"), var("j")
    line = dims(i=N, j=4)
    first = Statement("first", line, (Access("y", (i, j)),), "=", (Const(0.0, f32),))
    value = Load("y", index, f32, Const(0.0, f32))
    second = Statement("s", line, (Access("y", target or (i, j)),), combine, (value,), where)
    return Nest("again", ("N",), (tensor("y", f32, (N, 4), "out"),), (first, second))


def test_a_statement_reads_nothing_that_its_other_instances_write():
    i, j = var("i"), var("j")
    verify_nest(again((i, j)))
    verify_nest(again((i + N, j)))
    verify_nest(again((i - N, j)))
    verify_nest(again((i, 3), (i, j % 3)))
    verify_nest(again((i, 3), (i, j % 3), "max"))
    for wrong in (
        again((i - 1, j)),
        again((N - 1 - i, j)),
        again((i, 3 - j)),
        again((i, 0)),
        again((i, j), combine="sum"),
        again((i, j // 2), (i, j // 2)),
        again((atom(Element("y", (i, j), 0, 4)), j)),
    ):
        with pytest.raises(VerifyError, match=r"which comes first is not fixed|no integer"):
            verify_nest(wrong)


def test_a_scan_reads_other_steps_and_its_own_element():
    t, c = var("t"), var("c")

    def stepping(*index):
        value = Load("y", index, f32, Const(0.0, f32))
        first = Statement("first", dims(r=N, c=4), (Access("y", (var("r"), c)),), "=",
                          (Const(0.0, f32),))  # fmt: skip
        step = Statement("s", dims(c=4), (Access("y", (t, c)),), "=", (value,))
        params = (tensor("y", f32, (N, 4), "out"),)
        return Nest("scan", ("N",), params, (first, Scan(Dim("t", 0, N), (step,))))

    verify_nest(stepping(t - 1, 3 - c))
    verify_nest(stepping(t, c))
    with pytest.raises(VerifyError, match="which comes first is not fixed"):
        verify_nest(stepping(t, 3 - c))


def test_divisors_are_positive():
    i = var("i")
    line = dims(i=N)
    verify_nest(one(line, i % N, extent=N))
    verify_nest(one(line, i % (i + 1) % 4))
    verify_nest(one(dims(i=(1, N)), 9 % i % 4))
    for wrong in (
        one(line, minimum(maximum(8 // i, 0), 3)),
        one(line, i % (i % 4)),
        one(line, minimum(maximum(i // (N - 1), 0), 3)),
        one(line, minimum(maximum(8 // i, 0), 3), (i - 1,)),
        one(dims(i=(0, 8 // (N - 1))), 0),
        one(line, 0, extent=4 // (N - 1)),
    ):
        with pytest.raises(VerifyError, match="not surely at least 1"):
            verify_nest(wrong)


@pytest.mark.parametrize("fn", ["sub", "div", "pow", "neg"])
def test_bools_are_no_numbers(fn):
    operands = (Const(True, boolean),) * FUNCTIONS[fn].arity
    with pytest.raises(ValueError, match=f"{fn} does not take bool"):
        apply(fn, *operands)
