"""Operations on memory in Loops: text, checks, and what they mean."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.diagnostics import CheckError, VerifyError
from nncc.ir.interpreter.loops import interpret
from nncc.ir.text import parse_function, parse_nest, print_function
from nncc.ir.verify_loops import verify_functions

MATMUL = parse_nest(
    """
nest matmul(out y: i32[A,B,4], in x: i8[A,B,3], in w: i8[3,4]; A, B) {
  acc: for A_ in 0..A, B_ in 0..B, k in 0..3, m in 0..4 {
    y[A_,B_,m] sum= cast(i32, x[A_,B_,k]) * cast(i32, w[k,m])
  }
}""".replace("A_", "i").replace("B_", "j")
)
CLAMP = parse_nest("""
nest clamp(out y: i8[A,4], in x: i32[A,4], in bias: i32[4], in hi: i32[]; A) {
  out: for i in 0..A, m in 0..4 { y[i,m] = cast(i8, min(x[i,m] + bias[m], hi[])) }
}""")
LARGEST = parse_nest("""
nest largest(out y: i8[A,4], in x: i8[A,4]; A) {
  acc: for i in 0..A, r in 0..2, m in 0..4 { y[i,m] max= x[i + r,m] }
}""")
LOOKUP = parse_nest("""
nest lookup(out y: i8[A,4], in x: i8[A,4], in table: i8[256]; A) {
  out: for i in 0..A, m in 0..4 { y[i,m] = table[(x[i,m] in -128..128) + 128] }
}""")
RECORDS = {n.name: n for n in (MATMUL, CLAMP, LARGEST, LOOKUP)}

CONV = """function conv(in x: i8[N,6,3], in w: i8[3,3,4], in b: i32[4], out y: i8[N,4,4]; N) {
  parallel n in 0..N {
    alloc t: i32[4,4] in accumulators {
      for r in 0..3 {
        if value(i32, r) == 0 {
          perform matmul for i in 0..1, j in 0..4, k in 0..3, m in 0..4 {
            t[j,m] = x[n, j + r, k], w[r,k,m]
          }
        } else {
          perform matmul for i in 0..1, j in 0..4, k in 0..3, m in 0..4 {
            t[j,m] sum= x[n, j + r, k], w[r,k,m]
          }
        }
      }
      perform clamp for i in 0..4, m in 0..4 {
        y[n,i,m] = t[i,m], b[m], i32(100)
      }
    }
  }
}"""


def conv_operands(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(n)
    x = rng.integers(-9, 9, (n, 6, 3), np.int8)
    w = rng.integers(-9, 9, (3, 3, 4), np.int8)
    b = rng.integers(-9, 9, 4, np.int32)
    return [x, w, b, np.zeros((n, 4, 4), np.int8)]


def test_a_convolution_is_what_numpy_says() -> None:
    f = parse_function(CONV)
    verify_functions({"conv": f}, RECORDS)
    assert parse_function(print_function(f)) == f
    assert print_function(f) == CONV
    for n in (1, 3):
        x, w, b, y = conv_operands(n)
        interpret({"conv": f}, "conv", [x, w, b, y], [n], records=RECORDS)
        wide = x.astype(np.int32)
        t = sum(wide[:, r : r + 4] @ w[r].astype(np.int32) for r in range(3))
        assert (y == np.minimum(t + b, 100).astype(np.int8)).all()


def run(body: str, *arrays: np.ndarray, verified: bool = True) -> None:
    buffers = "in x: i8[5,4], in t: i8[256], out y: i8[5,4]"
    f = parse_function(f"function f({buffers}) {{ {body} }}")
    if verified:
        verify_functions({"f": f}, RECORDS)
    interpret({"f": f}, "f", list(arrays), records=RECORDS)


def data() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    x, t = rng.integers(-128, 127, (5, 4), np.int8), rng.integers(-128, 127, 256, np.int8)
    return [x, t, np.full((5, 4), -7, np.int8)]


def test_a_reduction_starts_anew_or_goes_on() -> None:
    for combine, first in (("=", -128), ("max=", -7)):
        x, t, y = data()
        run(
            "perform largest for i in 1..4, r in 0..2, m in 0..3 { y[i,m] "
            f"{combine} x[i + r - 1, m] }}", x, t, y,
        )  # fmt: skip
        inside = np.maximum(np.maximum(x[0:3, :3], x[1:4, :3]), first)
        assert (y[1:4, :3] == inside).all()
        assert (y[0] == -7).all() and (y[4] == -7).all() and (y[:, 3] == -7).all()


def test_subscripts_by_elements() -> None:
    x, t, y = data()
    run(
        "perform lookup for i in 0..5, m in 0..4 "
        "{ y[i,m] = x[i,m], t[(x[i,m] in -128..128) + 128] }", x, t, y,
    )  # fmt: skip
    assert (y == t[x.astype(int) + 128]).all()


def test_an_empty_box_does_nothing() -> None:
    x, t, y = data()
    run("perform largest for i in 3..2, r in 0..2, m in 0..4 { y[i,m] = x[i + 9, m] }", x, t, y)
    assert (y == -7).all()


OUTSIDE = {
    r"x: subscript 0 goes over 0\.\.6": "y[i,m] = x[i + r, m]",
    r"x: subscript 1 goes over -1\.\.3": "y[i,m] = x[i, m - 1]",
    r"y: subscript 0 goes over 3\.\.8": "y[i + 3,m] = x[i, m]",
}


@pytest.mark.parametrize("message", OUTSIDE)
def test_outside_of_a_buffer(message: str) -> None:
    """The verifier sees it, and so does the interpreter of what was not verified."""
    body = f"perform largest for i in 0..5, r in 0..2, m in 0..4 {{ {OUTSIDE[message]} }}"
    with pytest.raises(VerifyError, match="may be outside of the buffer"):
        run(body, *data())
    with pytest.raises(CheckError, match=message):
        run(body, *data(), verified=False)


def test_instances_that_do_not_take_part_may_be_outside() -> None:
    text = """function f(in x: i8[N,4], out y: i8[N,4]; N) {
      parallel n in 0..N { if value(i32, n) > 0 {
        perform largest for i in 0..1, r in 0..1, m in 0..4 { y[n, m] = x[n - 1, m] }
      } }
    }"""
    x, y = np.arange(12, dtype=np.int8).reshape(3, 4), np.full((3, 4), -7, np.int8)
    interpret({"f": parse_function(text)}, "f", [x, y], [3], records=RECORDS)
    assert (y[1:] == x[:-1]).all() and (y[0] == -7).all()
    with pytest.raises(CheckError, match=r"x: subscript 0 goes over -1\.\.2"):
        wrong = parse_function(text.replace("> 0", ">= 0"))
        interpret({"f": wrong}, "f", [x, y], [3], records=RECORDS)


def test_boxes_at_the_end_of_a_loop_are_inside() -> None:
    """The bounds of a box, of the loops around it and of `if`s are used."""
    body = """for k in 0..5 step 2 {
      perform largest for i in 0..min(2, 5 - k), r in 0..1, m in 0..4 { y[i + k, m] = x[i + k, m] }
    }"""
    run(body, *data())
    with pytest.raises(VerifyError, match=r"'y\[i \+ k, m\]' may be outside of the buffer"):
        run(body.replace("min(2, 5 - k)", "2"), *data())
    # the parts of a padded convolution: what a bound says of an empty box does not count
    low = "min(e + 1, max(-q + 1, e))"
    body = f"""for e in 0..5 {{ for q in 0..3 {{
      perform largest for i in {low}..max(min(-q + 6, e + 1), {low}), r in 0..1, m in 0..4 {{
        y[i, m] = x[i + q - 1, m]
      }}
    }} }}"""
    run(body, *data())
    for old, new in (("-q + 6", "-q + 7"), ("-q + 1, e", "-q, e"), (f", {low})", ", e + 1)")):
        assert old in body
        with pytest.raises(VerifyError, match=r"'x\[i \+ q - 1, m\]' may be outside of the buffer"):
            run(body.replace(old, new), *data())
    with pytest.raises(VerifyError, match="may be outside of the buffer"):
        run(
            "perform lookup for i in 0..5, m in 0..4 { y[i,m] = x[i,m], t[(x[i,m] in -128..128)] }",
            *data(),
        )


WRONG = {
    "there is no machine operation 'smallest'": "smallest for i in 0..5 { y[i,0] = x[i,0] }",
    "its dimensions are i, r, m": "largest for i in 0..5, m in 0..4 { y[i,m] = x[i,m] }",
    "m in 0..5 is beyond 0..4":
        "largest for i in 0..5, r in 0..2, m in 0..5 { y[i,m] = x[i,m] }",
    "it folds by 'max', not 'sum'":
        "largest for i in 0..5, r in 0..2, m in 0..4 { y[i,m] sum= x[i,m] }",
    "it takes 1 operands, not 2":
        "largest for i in 0..5, r in 0..2, m in 0..4 { y[i,m] = x[i,m], x[i,m] }",
    "operand 'x' is in memory":
        "largest for i in 0..5, r in 0..2, m in 0..4 { y[i,m] = i8(3) }",
    "several points write the same element":
        "largest for i in 0..5, r in 0..2, m in 0..4 { y[i,0] = x[i,m] }",
    "a dimension that it folds":
        "largest for i in 0..3, r in 0..2, m in 0..4 { y[i + r, m] = x[i,m] }",
    "'x' is written, but is an 'in' buffer":
        "largest for i in 0..5, r in 0..2, m in 0..4 { x[i,m] = x[i,m] }",
    "'q' in a subscript of 'x'":
        "largest for i in 0..5, r in 0..2, m in 0..4 { y[i,m] = x[q,m] }",
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_no_operation_is(message: str) -> None:
    text = (
        f"function f(in x: i8[5,4], in t: i8[256], out y: i8[5,4]) {{ perform {WRONG[message]} }}"
    )
    with pytest.raises(Exception) as caught:
        verify_functions({"f": parse_function(text)}, RECORDS)
    assert message in str(caught.value) or "q" in message


def test_a_number_for_all_points() -> None:
    text = (
        "function f(in x: i32[5,4], in b: i32[4], out y: i8[5,4]) { perform clamp for i in 0..5, "
        "m in 0..4 { y[i,m] = x[i,m], b[m], value(i32, m) } }"
    )
    with pytest.raises(VerifyError, match="operand 'hi' is one number for all points"):
        verify_functions({"f": parse_function(text)}, RECORDS)
