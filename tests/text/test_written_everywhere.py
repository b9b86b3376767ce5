"""Definitions whose tensors have holes where they are read, or in the end, are refused."""

from __future__ import annotations

import pytest

from nncc.diagnostics import FrontendError
from nncc.frontend.dsl import read_nn

CASES = {
    "all": "y[i,j] = x[i,j]",
    "two halves": "for i in 0..N, j in 2..C { y[i,j] = 1.0 }\n"
    " for i in 0..N, j in 0..2 { y[i,j] = 0.0 }",
    "a row and the rest": "y[0,j] = x[0,j]\n for i in 1..N { y[i,j] = x[i,j] }",
    "backwards": "for i in 0..N, j in 0..C { y[N - 1 - i, C - 1 - j] = x[i,j] }",
    "two dims count through an axis":
    "for i in 0..N, a in 0..2, b in 0..2 { y[i, 2*a + b] = x[i,a] }",
    "a condition afterwards": "y[i,j] = 0.0\n"
    " for i in 0..N, j in 0..C where j <= i { y[i,j] = x[i,j] }",
    "a fold": "for i in 1..N, j in 0..C where j <= i { y[i,j] sum= x[i,j] }",
    "earlier steps": "scan t in 0..N { y[t,c] = x[t,c] + (y[t - 1, c] else 0.0) }",
    "from the second step on": "y[0,c] = 0.0\n scan t in 1..N { y[t,c] = x[t,c] + y[t - 1, c] }",
    "what is carried": "local s: f32[C]\n s[c] = 0.0\n"
    " scan t in 0..N { s[c] = s[c] + x[t,c]\n y[t,c] = s[c] }",
    "in each step anew": "local s: f32[C]\n"
    " scan t in 0..N { s[c] = x[t,c]\n y[t,c] = s[C - 1 - c] }",
    "after the scan": "local s: f32[C]\n scan t in 0..N { s[c] = x[t,c] }\n y[i,j] = s[j]",
    "two scans": "scan t in 0..N { scan u in 0..C {\n"
    " y[t,u] = (y[t, u - 1] else 0.0) + (y[t - 1, u + 1] else 1.0) } }",
    "four quarters": "for i in 0..1, j in 0..3 { y[i,j] = 0.0 }\n"
    " for i in 1..N, j in 0..3 { y[i,j] = 0.0 }\n for i in 0..1, j in 3..C { y[i,j] = 0.0 }\n"
    " for i in 1..N, j in 3..C { y[i,j] = 0.0 }",
    "rows in parts, step by step": "local z: f32[N + 1, 2]\n z[0,k] = 1.0\n scan t in 0..N {\n"
    " y[t,c] = z[t,0] * x[t,c]\n z[t + 1, 0] = y[t,0] + z[t,1]\n z[t + 1, 1] = y[t,1] }",
    "a part": "local s: f32[N]\n for i in 1..N { s[i] = 0.0 }\n y[i,j] = x[i,j]\n"
    " for i in 1..N { y[i,j] = s[i] }",
    "nobody reads it": "local s: f32[N]\n for i in 0..N - 1 { s[i] = 0.0 }\n y[i,j] = x[i,j]",
}  # fmt: skip
HOLES = {
    "a row is missing": "for i in 0..N - 1 { y[i,j] = x[i,j] }",
    "every second column": "for i in 0..N, a in 0..2 { y[i, 2*a] = x[i,a] }",
    "dims that overlap": "for i in 0..N, a in 0..2, b in 0..2 { y[i, a + b] = x[i,a] }",
    "a condition": "for i in 0..N, j in 0..C where j <= i { y[i,j] = x[i,j] }",
    "where data says": "for i in 0..N, j in 0..C { y[ids[i] in 0..N, j] = x[i,j] }",
    "a local": "local s: f32[N]\n for i in 1..N { s[i] = x[i,0] }\n y[i,j] = s[i]",
    "later steps": "scan t in 0..N { y[t,c] = x[t,c] + (y[t + 1, c] else 0.0) }",
    "the same step": "scan t in 0..N { y[t,c] = x[t,c] + y[t,c] }",
    "the first step": "scan t in 1..N { y[t,c] = x[t,c] + y[t - 1, c] }",
    "nothing to carry at first": "local s: f32[C]\n"
    " scan t in 0..N { s[c] = s[c] + x[t,c]\n y[t,c] = s[c] }",
    "perhaps no step": "local s: f32[C]\n scan t in 1..N { s[c] = x[t,c] }\n y[i,j] = s[j]",
    "half a row of each step": "local z: f32[N + 1, 2]\n z[0,k] = 1.0\n scan t in 0..N {\n"
    " y[t,c] = z[t,0] * x[t,c]\n z[t + 1, 0] = y[t,0] + z[t,1] }",
    "later rows": "scan t in 0..N { scan u in 0..C { y[t,u] = (y[t + 1, u - 1] else 0.0) } }",
}  # fmt: skip


def read(body: str) -> None:
    read_nn(
        f"nncc 1\nsize N\ndef op(x: f32[N,C], ids: i64[N]) -> (y: f32[N,C]) {{\n {body}\n}}\n"
        "graph main(x: f32[N,4], ids: i64[N]) -> (y) { y = op(x, ids) }\n"
    )


@pytest.mark.parametrize("body", CASES.values(), ids=CASES)
def test_whole_tensors(body: str) -> None:
    read(body)


@pytest.mark.parametrize("body", HOLES.values(), ids=HOLES)
def test_holes(body: str) -> None:
    with pytest.raises(FrontendError, match="not all of it is surely written"):
        read(body)
