"""Loads that loops do not select stand before them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from nncc.driver import lower
from nncc.ir.expr import Const, Load, Name
from nncc.ir.index import Size, minimum, var
from nncc.ir.loops import Buffer, For, Function, Let, Stmt, Store
from nncc.ir.types import i8
from nncc.ir.verify_loops import verify_functions
from nncc.machines import load
from nncc.passes.hoist import hoisted
from nncc.passes.reuse import accesses
from tests.levels.float_networks import Case
from tests.levels.integer_networks import integer_networks

J = var("j")


def function(
    *body: Stmt, rows: Size = 4, access: str = "in", index: Size = 0, lo: Size = 0
) -> Function:
    """for i in 0..4 { for j in lo..rows { let v = x[index]  y[i, j] = v  … } }"""
    store = Store("y", (var("i"), J), Name("v", i8))
    inner = For("j", lo, rows, (Let("v", Load("x", (index,), i8)), store, *body))
    buffers = (Buffer("x", i8, (16,), access), Buffer("y", i8, (4, 4), "out"))  # type: ignore[arg-type]
    return Function("f", buffers, (), (For("i", 0, 4, (inner,)),))


def loaded(f: Function, registers: int = 8) -> int:
    return sum(x.count for x in accesses(hoisted(f, registers)) if x.buffer == "x")


def test_before_all_loops_that_do_not_select() -> None:
    assert loaded(function()) == 1
    assert loaded(function(index=var("i"))) == 4
    assert loaded(function(index=J)) == 16


def test_not_from_what_is_written() -> None:
    assert loaded(function(access="out")) == 16


def test_not_out_of_loops_that_may_not_run() -> None:
    # j in i..2 does not run for i = 2, 3: the load stays inside, and is done 2 + 1 times
    assert loaded(function(lo=var("i"), rows=2)) == 3
    assert loaded(function(rows=minimum(var("i") + 1, 4))) == 1


def test_not_more_than_registers() -> None:
    more = [Let(f"w{k}", Load("x", (k,), i8)) for k in range(5)]
    stores = [Store("y", (var("i"), J), Name(f"w{k}", i8)) for k in range(5)]
    assert loaded(function(*more, *stores), registers=8) == 6
    assert loaded(function(*more, *stores), registers=3) == 3 + 3 * 16


def test_names_stay_apart() -> None:
    """Loops one after the other may bind the same name, but not outside of both."""
    loops = []
    for k in range(2):
        store = Store("y", (k, J), Name("v", i8))
        loops.append(For("j", 0, 4, (Let("v", Load("x", (k,), i8)), store)))
    f = Function("f", function().buffers, (), tuple(loops))
    verify_functions({"f": f})
    verify_functions({"f": hoisted(f, 8)})


def test_the_same_object_if_nothing_moves() -> None:
    f = function(index=J)
    assert hoisted(f, 8) is f
    store = Store("y", (0, 0), Const(1, i8))
    g = Function("g", f.buffers, (), (store,))
    assert hoisted(g, 8) is g


@pytest.mark.parametrize("registers", [1, 20])
@settings(deadline=None, max_examples=12, database=None, derandomize=True)
@given(case=integer_networks())
def test_never_more_loads(registers: int, case: Case) -> None:
    machine = load("tta_minimal")
    n = next((x.shape[0] for x in case.inputs.values()), 1)
    sizes = dict.fromkeys(case.module.sizes, n)
    compilation = lower(case.module, machine, calib=case.calib, sizes=sizes)
    for part in compilation.segments or (compilation,):
        before = part.before("hoist")
        for name, f in before.functions.items():
            moved = hoisted(f, registers)
            assert moved.buffers == f.buffers, name
            assert sum(x.bytes for x in accesses(moved)) <= sum(x.bytes for x in accesses(f))
