"""Random user-defined ops in index notation, each in a small graph, as text.

def op(x: i8[N,C,H], w: i8[M,C,R]; stride: int = 2) -> (y: i32[N,M,…]) { y[n,m,e] = sum(c, r)(…) }
graph main(x: i8[N,3,9], w: i8[4,3,2]) -> (y: …) { y = op(x, w) }
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from hypothesis import strategies as st

from nncc.ir.types import DTYPES, DType

FLOATS, INTEGERS = ("f32", "f32", "f64"), ("i8", "i32", "i64", "u8")


@dataclass
class Program:
    """A module's text, and arrays for its inputs."""

    text: str
    inputs: dict[str, np.ndarray]

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.text("\n".join([self.text, *(f"# {n}: {x.shape}" for n, x in self.inputs.items())]))


@dataclass
class Writer:
    """Draws the parts of a program."""

    draw: st.DrawFn
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.whole(0, 9999))

    def whole(self, lo: int, hi: int) -> int:
        return self.draw(st.integers(lo, hi))

    def choice(self, *options):
        return self.draw(st.sampled_from(options))

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def dtype(self) -> DType:
        return DTYPES[self.choice(*FLOATS, *INTEGERS)]

    def batch(self) -> int | str:
        """The first extent of an input: a number, or the named size N."""
        return self.choice("N", "N", self.whole(1, 4))

    def input(self, name: str, dtype: DType, *shape: int | str, below: int = 0) -> None:
        """An input of the graph; integers are small, or subscripts in 0..below."""
        actual = tuple(self.batch_size if s == "N" else s for s in shape)
        if dtype.is_float:
            data = self.rng.standard_normal(actual)
        else:
            lo = 0 if below or dtype.limits[0] == 0 else -9
            data = self.rng.integers(lo, below or 10, actual)
        self.inputs[name] = data.astype(dtype.numpy)
        self.types[name] = f"{dtype}[{','.join(map(str, shape))}]"

    @cached_property
    def batch_size(self) -> int:
        """What N is."""
        return self.choice(1, 2, 5, 17)

    def number(self, dtype: DType) -> str:
        """A literal of the dtype."""
        if dtype.is_float:
            return self.choice("0.0", "0.5", "-1.25", "2.0")
        return self.choice("0", "1", "3")

    def program(self, definition: str, dtype: DType, after: bool = True) -> Program:
        """The graph that applies `op` to all inputs, perhaps with more ops behind it."""
        arguments = ", ".join(self.types)
        signature = ", ".join(f"{n}: {t}" for n, t in self.types.items())
        nodes = [f"y = op({arguments})"]
        result = "y"
        kinds = ("", "", "Relu", "Abs") if dtype.is_float else ("", "Abs")
        if after and (then := self.choice(*kinds)) and dtype.name != "u8":
            nodes.append(f"z = {then}(y)")
            result = "z"
        body = "\n  ".join(nodes)
        sizes = "size N\n" if "N" in signature else ""
        text = (
            f"nncc 1\n{sizes}{definition}\ngraph main({signature}) -> ({result}) {{\n  {body}\n}}\n"
        )
        return Program(text, self.inputs)


def window(w: Writer) -> Program:
    """A sliding window: strides, dilation, borders, groups, channels, any combine, an epilogue."""
    dtype = w.dtype()
    wide = dtype if dtype.is_float or dtype.bits >= 32 else DTYPES["i32"]
    spatial = w.whole(1, 2)
    group = w.choice(1, 1, 2, 3)
    channels, filters = group * w.choice(1, 2, 3, 8), group * w.choice(1, 2, 5, 16)
    depthwise = w.choice(False, False, True)
    stride, dilation, pad = w.whole(1, 3), w.whole(1, 2), w.whole(0, 2)
    kernel = [w.whole(1, 3) for _ in range(spatial)]
    extents = [dilation * (k - 1) + w.whole(1, 12) for k in kernel]
    if depthwise:
        group = filters = channels
    w.input("x", dtype, w.batch(), channels, *extents)
    w.input("w", dtype, filters, channels // group, *kernel)
    w.input("b", wide, filters)
    e, r, sizes, taps = (names[:spatial] for names in ("ef", "rs", "HW", "RS"))
    at = ", ".join(
        f"stride*{a} + dilation*{b} - pad" if w.flag() else f"{b}*dilation - pad + {a}*stride"
        for a, b in zip(e, r, strict=True)
    )
    channel = "c" if group == 1 else f"c + K*(m // {filters // group})"
    x = f"x[n, {channel}, {at}]"
    if pad or w.flag():
        x = f"({x} else {w.number(dtype)})"
    taken = f"w[m,c,{','.join(r)}]"
    x, taken = (v if wide is dtype else f"cast({wide}, {v})" for v in (x, taken))
    value = w.choice(f"{x} * {taken}", f"{x} * {taken}", f"{x} - {taken}", f"min({x}, {taken})")
    combine = w.choice("sum", "sum", "max", "min")
    reduced = w.draw(st.permutations(["c in 0..K", *r]))
    folded = f"{combine}({', '.join(reduced)})({value})"
    total = w.choice(f"b[m] + {folded}", folded, f"max({folded} - b[m], {w.number(wide)})")
    shape = ", ".join(
        f"({h} + 2*pad - dilation*({k} - 1) - 1) // stride + 1"
        for h, k in zip(sizes, taps, strict=True)
    )
    order = w.choice(("n", "m", *e), ("n", "m", *e), (*e, "n", "m"), ("m", *e, "n"))
    extent = dict(zip(("n", "m", *e), ("N", "M", *shape.split(", ")), strict=True))
    operands = f"x: {dtype}[N,C,{','.join(sizes)}], w: {dtype}[M,K,{','.join(taps)}], b: {wide}[M]"
    return w.program(
        f"def op({operands};\n"
        f"       stride: int = {stride}, dilation: int = {dilation}, pad: int = {pad})\n"
        f"    -> (y: {wide}[{', '.join(extent[d] for d in order)}]) {{\n"
        f"  y[{','.join(order)}] = {total}\n}}",
        wide,
    )


def several(w: Writer) -> Program:
    """Several reductions in one expression, over rows, columns or all, also inside each other."""
    dtype = w.dtype()
    w.input("x", dtype, w.batch(), w.choice(1, 3, 16, 21))
    border = w.number(dtype)
    parts = [
        "sum(k)(x[i,k] * x[i,k])", "max(k)(x[i,k])", "min(k, l)(x[l,k])", "sum(l)(x[l,j])",
        "sum(k)(x[i,k] * max(l)(x[l,k]))", "x[i,j]", f"sum(k in 0..2)(x[i,k] else {border})",
        f"prod(k in 0..3)(x[i,j + k - 1] else {border})",
    ]  # fmt: skip
    terms = [w.choice(*parts) for _ in range(w.whole(1, 3))]
    value = terms[0]
    for t in terms[1:]:
        value = w.choice(f"{value} + {t}", f"{value} - {t}", f"max({value}, {t})")
    if w.flag():
        value = f"select({value} > {w.number(dtype)}, {value}, x[i,j])"
    return w.program(
        f"def op(x: {dtype}[N,C]) -> (y: {dtype}[N,C]) {{\n  y[i,j] = {value}\n}}", dtype
    )


def gather(w: Writer) -> Program:
    """Subscripts that are elements of an integer tensor, with sums, offsets and borders."""
    dtype, rows, columns = w.dtype(), w.whole(1, 9), w.choice(1, 3, 16, 20)
    index = DTYPES[w.choice("i64", "i32", "u8")]
    w.input("x", dtype, rows, columns)
    w.input("ids", index, w.batch(), w.whole(1, 4), below=rows)
    at = w.choice(
        "x[ids[n,l] in 0..V, d]",
        f"(x[(ids[n,l] in 0..V) + {w.whole(-2, 2)}, d] else {w.number(dtype)})",
        f"(x[(ids[n,l] in 0..V) - 1, d + {w.whole(-1, 1)}] else {w.number(dtype)})",
        "x[max((ids[n,l] in 0..V) - n, 0), d]",
    )
    if w.flag():
        body, shape = f"y[n,d] = {w.choice('sum', 'max')}(l in 0..L)({at})", "N,D"
    else:
        body, shape = f"y[n,l,d] = {at}", "N,L,D"
    return w.program(
        f"def op(x: {dtype}[V,D], ids: {index}[N,L]) -> (y: {dtype}[{shape}]) {{\n  {body}\n}}",
        dtype,
    )


def scatter(w: Writer) -> Program:
    """Reductions into an element that the data, or a subscript with gaps, choose."""
    dtype, size = w.dtype(), w.whole(1, 7)
    w.input("x", dtype, w.whole(1, 9), w.choice(1, 4, 17))
    w.input("ids", DTYPES["i64"], w.inputs["x"].shape[0], below=size)
    combine, start = w.choice(("sum", "0"), ("max", "3"), ("min", "1"), ("prod", "1"))
    start = f"{start}.0" if dtype.is_float else start
    target = w.choice("ids[i] in 0..M", "i // 2", "(i + j) % M", "min(i, M - 1)", "0")
    if w.choice("row", "cell") == "row":
        place, shape, whole = f"{target}, j", "M,D", "a, j"
    else:
        place, shape, whole = target, "M", "a"
    size = max(size, w.inputs["x"].shape[0])
    first = w.choice(f"  y[{whole}] = {start}\n", "")  # without it, y starts at the identity
    return w.program(
        f"def op(x: {dtype}[P,D], ids: i64[P]; M: int = {size}) -> (y: {dtype}[{shape}]) {{\n"
        f"{first}"
        f"  for i in 0..P, j in 0..D {{ y[{place}] {combine}= x[i,j] }}\n}}",
        dtype,
    )


def cut(w: Writer) -> Program:
    """Domains that `where` cuts: triangles, diagonals, prefixes."""
    dtype = w.dtype()
    n = w.batch()
    w.input("x", dtype, n, w.choice(1, 4, 16, 19))
    first, second = (
        w.choice("j <= i", "i + j >= 3", "2*j - i <= 5", "j > 0", "i != 1", "j % 2 == 0")
        for _ in range(2)
    )
    first, second = (
        c.replace("i != 1", "i >= 1").replace("j % 2 == 0", "j - 2*(j//2) <= 0")
        for c in (first, second)
    )
    where = w.choice(first, f"{first}, {second}")
    combine = w.choice("sum", "max", "min")
    zero = "0.0" if dtype.is_float else "0"
    every = "for i in 0..N, j in 0..C"
    body = w.choice(
        f"y[i,j] = {zero}\n  {every} where {where} {{ y[i,j] = x[i,j] + x[i,0] }}",
        f"y[i,j] = {combine}(k)(x[i,k])\n  {every} where {where} {{ y[i,j] = x[i,j] }}",
        f"local t: {dtype}[N]\n  {every} where j <= 2 * i {{ t[i] {combine}= x[i,j] }}\n"
        "  y[i,j] = t[i] - x[i,j]",
        f"{every} where {where} {{ y[i,j] {combine}= x[i,j] }}",
        f"{every} where {where} {{ y[i,0] {combine}= max(k)(x[i,k]) - x[i,j] }}",
    )
    return w.program(f"def op(x: {dtype}[N,C]) -> (y: {dtype}[N,C]) {{\n  {body}\n}}", dtype)


def scan(w: Writer) -> Program:
    """Steps one after the other: prefix combines, filters, rows that depend on those before."""
    dtype = w.dtype()
    w.input("x", dtype, w.batch(), w.choice(1, 4, 16, 18))
    zero = "0.0" if dtype.is_float else "0"
    half = "0.5" if dtype.is_float else "1"
    body = w.choice(
        f"scan t in 0..N {{ y[t,c] = max(x[t,c], (y[t - 1, c] else {zero})) - {half} }}",
        f"scan t in 0..N {{ y[t,c] = x[t,c] - {half} * (y[t - 1, C - 1 - c] else {zero}) }}",
        f"scan t in 0..C {{ y[n,t] = x[n,t] + min(k in 0..2)(y[n, t - k - 1] else {zero}) }}",
        f"local s: {dtype}[C]\n  s[c] = {zero}\n"
        "  scan t in 0..N { s[c] = min(s[c], x[t,c])\n    y[t,c] = s[c] + x[t,c] }",
        f"local s: {dtype}[C]\n  scan t in 0..N {{ s[c] max= x[t,c]\n    y[t,c] = s[c] - x[t,c] }}",
    )
    return w.program(f"def op(x: {dtype}[N,C]) -> (y: {dtype}[N,C]) {{\n  {body}\n}}", dtype)


def choose(w: Writer) -> Program:
    """A combine over tuples: the first place of a largest or smallest element."""
    dtype = w.dtype()
    w.input("x", dtype, w.batch(), w.choice(1, 4, 16, 18))
    sign, start = w.choice((">", dtype.limits[0] if not dtype.is_float else "-inf"),
                           ("<", dtype.limits[1] if not dtype.is_float else "inf"))  # fmt: skip
    return w.program(
        f"def op(x: {dtype}[N,C]) -> (y: i64[N]) {{\n"
        f"  combine first({dtype}, i64) = (select(b0 {sign} a0, b0, a0), select(b0 {sign} a0, b1,"
        f" select(b0 == a0, min(a1, b1), a1))) identity ({start}, 9223372036854775807)\n"
        f"  local v: {dtype}[N]\n"
        "  v[n], y[n] first= x[n,c], value(i64, c)\n}",
        DTYPES["i64"],
    )


KINDS: tuple[Callable[[Writer], Program], ...] = (
    window, window, window, several, gather, scatter, cut, scan, choose,
)  # fmt: skip


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A program of any of the kinds above."""
    return draw(st.sampled_from(KINDS))(Writer(draw))
