"""Random nests: contractions with borders and strides, triangular domains, scans, gathers."""

from __future__ import annotations

from hypothesis import strategies as st

from nncc.ir.expr import Const, Load, Value, apply, cast
from nncc.ir.index import Element, atom, var
from nncc.ir.nests import (
    Access,
    Dim,
    Nest,
    Param,
    Scan,
    Statement,
    builtin_identity,
)
from nncc.ir.types import TensorType, f32, i8, i32, i64

N = var("N")


def tensor(name, dtype, shape, role="in"):
    return Param(name, TensorType(dtype, tuple(shape)), role)


def dims(**ranges):
    return tuple(Dim(k, *(v if isinstance(v, tuple) else (0, v))) for k, v in ranges.items())


def conv(n, c, m, h, w, r, s, stride, pad, dilation=1, dtype=f32, name="conv"):
    """init, acc, out: a convolution with bias and a maximum with 0; integers widen to i32."""
    e = (h + 2 * pad - dilation * (r - 1) - 1) // stride + 1
    f = (w + 2 * pad - dilation * (s - 1) - 1) // stride + 1
    wide = f32 if dtype is f32 else i32
    zero = Const(0.0 if wide is f32 else 0, wide)
    other = Const(0.0 if dtype is f32 else 3, dtype)
    v = {k: var(k) for k in "nmefcrs"}
    at = (
        v["n"], v["c"],
        stride * v["e"] + dilation * v["r"] - pad, stride * v["f"] + dilation * v["s"] - pad,
    )  # fmt: skip
    out = tuple(v[k] for k in "nmef")
    outer = dims(n=n, m=m, e=e, f=f)
    return Nest(
        name,
        ("N",) if n == N else (),
        (
            tensor("x", dtype, (n, c, h, w)),
            tensor("w", dtype, (m, c, r, s)),
            tensor("b", wide, (m,)),
            tensor("y", wide, (n, m, e, f), "out"),
            tensor("t", wide, (n, m, e, f), "local"),
        ),
        (
            Statement("init", outer, (Access("t", out),), "=", (zero,)),
            Statement(
                "acc", outer + dims(c=c, r=r, s=s), (Access("t", out),), "sum",
                (apply("mul", cast(wide, Load("x", at, dtype, other)),
                       cast(wide, Load("w", tuple(v[k] for k in "mcrs"), dtype))),),
            ),
            Statement(
                "out", outer, (Access("y", out),), "=",
                (apply("max", apply("add", Load("t", out, wide), Load("b", (v["m"],), wide)),
                       zero),),
            ),
        ),
    )  # fmt: skip


@st.composite
def convs(draw):
    small = st.integers(1, 3)
    r, s = draw(small), draw(small)
    dilation = draw(st.integers(1, 2))
    return conv(
        draw(st.sampled_from([N, 1, 2])), draw(small), draw(small),
        dilation * (r - 1) + draw(st.integers(1, 4)), dilation * (s - 1) + draw(st.integers(1, 4)),
        r, s, draw(st.integers(1, 3)), draw(st.integers(0, 2)), dilation,
        draw(st.sampled_from([f32, i8, i32])),
    )  # fmt: skip


@st.composite
def reductions(draw):
    """One reduction over a random domain, perhaps triangular, cut, or scattered."""
    dtype = draw(st.sampled_from([f32, i8, i32, i64]))
    combine = draw(st.sampled_from(["sum", "prod", "min", "max"]))
    a, b, c = (draw(st.integers(1, 4)) for _ in range(3))
    i, j, k = var("i"), var("j"), var("k")
    shape = draw(st.sampled_from(["box", "lower", "upper", "ragged"]))
    bound = {
        "box": (0, c),
        "lower": (0, i + 1),
        "upper": (i, c),
        "ragged": (0, atom(Element("p", (i,), 0, c + 1))),
    }[shape]
    where = draw(st.sampled_from([(), (i + k - j,), (k - 1, 3 - i - j)]))
    inside = Load("x", (i, j, k), dtype, Const(builtin_identity(combine, dtype), dtype))
    value = draw(
        st.sampled_from([
            inside,
            apply("mul", inside, Load("u", (j,), dtype)),
            apply("add", apply("mul", inside, inside), Value(i - 2 * k, dtype)),
            Value(j + k, dtype),
        ])
    )  # fmt: skip
    target = draw(
        st.sampled_from([(i, j), (i, 0), (0, j), (i, 2 * j), ((i + j) // 2, k % 2), (j, i)])
    )
    order = draw(st.permutations([("j", (0, b)), ("k", bound)]))
    domain = dims(i=a, **dict(order))
    out = (8, 8)
    return Nest(
        "reduction", (),
        (
            tensor("x", dtype, (a, b, c)), tensor("u", dtype, (b,)), tensor("p", i64, (a,)),
            tensor("y", dtype, out, "out"),
        ),
        (
            Statement("init", dims(o=8, q=8), (Access("y", (var("o"), var("q"))),), "=",
                      (Const(builtin_identity(combine, dtype), dtype),)),
            Statement("acc", domain, (Access("y", target),), combine, (value,), where),
        ),
    )  # fmt: skip


@st.composite
def recurrences(draw):
    """A scan with a carried value and a gather by an integer tensor."""
    steps, width, rows = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    t, k, i = var("t"), var("k"), var("i")
    picked = Load("x", (atom(Element("idx", (t,), 0, rows)), i), f32)
    carried = Load("y", (t - 1, k), f32, Const(0.5, f32))
    return Nest(
        "recurrence", (),
        (
            tensor("x", f32, (rows, width)), tensor("a", f32, (width, width)),
            tensor("idx", i64, (steps,)), tensor("y", f32, (steps, width), "out"),
            tensor("s", f32, (width,), "local"),
        ),
        (
            Scan(Dim("t", 0, steps), (
                Statement("clear", dims(k=width), (Access("s", (k,)),), "=", (Const(0.0, f32),)),
                Statement("mix", dims(k=width, i=width), (Access("s", (k,)),), "sum",
                          (apply("mul", picked, Load("a", (i, k), f32)),)),
                Statement("step", dims(k=width), (Access("y", (t, k)),), "=",
                          (apply("tanh", apply("add", Load("s", (k,), f32), carried)),)),
            )),
        ),
    )  # fmt: skip
