"""Every invariant of the Loops level: a function that breaks it is refused."""

from __future__ import annotations

import pytest

from nncc.diagnostics import VerifyError
from nncc.ir.expr import Apply, Const, Load, Name, apply, cast
from nncc.ir.index import Element, atom, minimum, var
from nncc.ir.loops import (
    Alloc,
    Assign,
    Buffer,
    Call,
    Declare,
    For,
    Function,
    If,
    Let,
    Prefetch,
    Stmt,
    Store,
    View,
)  # fmt: skip
from nncc.ir.types import boolean, f32, i32
from nncc.ir.verify_loops import verify_functions
from nncc.machines import load

ONE, TWO = Const(1.0, f32), Const(2, i32)
BUFFERS = (
    Buffer("x", f32, (4, 8)),
    Buffer("k", i32, (4,)),
    Buffer("y", f32, (4, 8), "out"),
)
i = var("i")


def verify(*body: Stmt, **others: Function) -> None:
    function = Function("f", BUFFERS, ("N",), body)
    operations = {name: o.semantics for name, o in load("cpu-baseline").operations.items()}
    verify_functions({"f": function, **others}, operations)


def callee(*body: Stmt, access: str = "out") -> Function:
    buffers = (Buffer("a", f32, (8,), access),)  # type: ignore[arg-type]
    return Function("g", buffers, ("n",), body)


def test_a_right_function() -> None:
    element = atom(Element("k", (0,), 0, 4))
    verify(
        Declare("a", ONE),
        For("i", 0, minimum(var("N"), 8), (
            Let("b", Load("x", (0, i), f32)),
            Let("c", cast(i32, Name("b", f32))),
            Assign("a", apply("add", Name("a", f32), Name("b", f32))),
        )),
        For("i", 0, 4, (For("j", i, 4, (Prefetch("x", (i, var("j"))),), kind="unroll"),),
            kind="unroll"),
        For("i", 0, element, (Store("y", (i, element), Name("a", f32)),)),
        Alloc(Buffer("t", f32, (8,), "local", "stack"), (Store("t", (0,), ONE),)),
        Call("g", (View("y", 32),), (8,)),
        g=callee(),
    )  # fmt: skip


VECTOR = Load("x", (0, 0), f32, lanes=4)
WRONG: list[tuple[str, tuple[Stmt, ...]]] = [
    ("'i' in a subscript of 'x' is no size", (Prefetch("x", (i, 0)),)),
    ("no buffer 'z'", (Prefetch("z", (0,)),)),
    ("'x' has 2 dimensions, not 1", (Prefetch("x", (0,)),)),
    ("'a' is no value of type", (Let("b", Name("a", f32)),)),
    ("'a' is no value of type", (If(Const(True, boolean), (Let("a", ONE),)),
                                 Let("b", Name("a", f32)))),
    ("'a' is bound again", (Let("a", ONE), Let("a", ONE))),
    ("'N' is bound again", (For("N", 0, 4, ()),)),
    ("'a' is assigned but is no register", (Let("a", ONE), Assign("a", ONE))),
    ("value of another type", (Declare("a", ONE), Assign("a", TWO))),
    ("a parallel loop assigns register 'a'",
     (Declare("a", ONE), For("i", 0, 4, (Assign("a", ONE),), kind="parallel"))),
    ("has step 0", (For("i", 0, 4, (), 0),)),
    ("goes over 0..N, not literals", (For("i", 0, var("N"), (), kind="unroll"),)),
    ("'x' is written", (Store("x", (0, 0), ONE),)),
    ("a value of type i32 is stored", (Store("y", (0, 0), TWO),)),
    ("'x' of f32 is loaded as i32", (Let("a", Load("x", (0, 0), i32)),)),
    ("has a count, but one lane", (Let("a", Load("x", (0, 0), f32, count=1)),)),
    ("outside of 'x' has another type", (Let("a", Load("x", (0, 0), f32, TWO)),)),
    (
        "spans several rows",
        (Let("a", Load("x", (0, 0), f32, Const(1.0, f32, 16), lanes=16)),),
    ),
    ("a condition is a scalar bool", (If(ONE, ()),)),
    ("different dtypes", (Let("a", Apply("add", (ONE, TWO), f32)),)),
    ("add gives f32x1, not i32x1", (Let("a", Apply("add", (ONE, ONE), i32)),)),
    ("broadcast from 4 to 8", (Let("a", Apply("broadcast", (VECTOR,), f32, 8)),)),
    ("reduce_add from 4 to 2", (Let("a", Apply("reduce_add", (VECTOR,), f32, 2)),)),
    ("a cast has one operand", (Let("a", Apply("cast", (VECTOR,), i32)),)),
    ("no function or machine operation 'gelu'", (Let("a", Apply("gelu", (ONE,), f32)),)),
    ("operands of 'muladd4' are not", (Let("a", Apply("muladd4", (VECTOR, VECTOR), f32, 4)),)),
    ("'x' in a bound of loop 'i' is no integer",
     (For("i", 0, atom(Element("x", (0, 0), 0, 4)), ()),)),
    ("no function 'h' to call", (Call("h", ()),)),
    ("takes 1 buffers and 1 sizes", (Call("g", (View("y"),)),)),
    ("'g' writes 'x'", (Call("g", (View("x"),), (1,)),)),
    ("24 to 39 is not surely in 0..32",
     (Store("y", (3, 0), Apply("broadcast", (ONE,), f32, 16)),)),
    ("i is not surely in 0..8", (For("i", 0, var("N"), (Store("y", (0, i), ONE),)),)),
    ("i - 1 is not surely in 0..4", (For("i", 0, 4, (Store("y", (i - 1, 0), ONE),)),)),
    ("which are not surely in its 128", (Call("g", (View("y", 100),), (1,)),)),
    ("4 is not surely in 0..4", (For("i", 0, atom(Element("k", (4,), 0, 4)), ()),)),
    ("may be empty", (For("i", 0, atom(Element("k", (0,), 4, 4)), ()),)),
]  # fmt: skip


@pytest.mark.parametrize(("message", "body"), WRONG, ids=[m for m, _ in WRONG])
def test_wrong_functions(message: str, body: tuple[Stmt, ...]) -> None:
    with pytest.raises(VerifyError, match=message.replace("(", r"\(")):
        verify(*body, g=callee())


def test_recursion_and_names() -> None:
    again = callee(Call("g", (View("a"),), (1,)))
    with pytest.raises(VerifyError, match="calls itself: g -> g"):
        verify(g=again)
    with pytest.raises(VerifyError, match="stored under the name 'h'"):
        verify(h=callee())


def test_what_is_allocated_is_local() -> None:
    buffer = Buffer("t", f32, (8,), "in", "stack")
    assert Alloc(buffer, ()) == Alloc(Buffer("t", f32, (8,), "local", "stack"), ())
    verify(Alloc(buffer, (Store("t", (0,), ONE),)))
