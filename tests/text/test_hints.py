"""What people of other languages write first, and the help that they get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nncc.diagnostics import LONGEST_LINE, FrontendError
from nncc.frontend.dsl import load_nn, read_nn
from nncc.ir.tensor import Tensor
from nncc.ir.text.scalars import MAX_DEPTH
from nncc.ir.text.transformer import MAX_DIGITS


def error_of(text: str) -> FrontendError:
    with pytest.raises(FrontendError) as raised:
        read_nn(f"nncc 1\n{text}", file="net.nn")
    assert raised.value.location.line > 0
    return raised.value


SHAPE = "a type has its shape in brackets: f32[2,3], or f32[] for one number"
SEPARATE = "operands are names: give the inner result one, on a line before"
ABSENT = "an operand that is left out is written _"
NODE = "a node is written  y = Op(x)"
STATEMENT = "a statement assigns elements, as in  y[i] = …"
POWER = "a power is written pow(a, 2.0)"
SELECT = "a choice is written select(condition, a, b)"
QUOTES = 'a text stands in plain double quotes: "text"'
BEHIND = "attributes stand behind the inputs and a semicolon: (x: f32[N]; k: int = 1)"
UNKNOWN_SIZE = "a size that is not known has a name:  size N"


@pytest.mark.parametrize(
    ("parameter", "help"),
    [
        ("x: float32[2]", "did you mean 'f32'?"),
        ("x: float[2]", "did you mean 'f32'?"),
        ("x: double[2]", "did you mean 'f64'?"),
        ("x: bfloat16[2]", "did you mean 'bf16'?"),
        ("x: uint8[2]", "did you mean 'u8'?"),
        ("x: F32[2]", "did you mean 'f32'?"),
        ("x: tensor[2]", "dtypes: bf16, bool, f16, f32, f64, i16"),
        ("x: f32", SHAPE),
        ("x: f32(2,3)", SHAPE),
        ("x: f32[?,3]", UNKNOWN_SIZE),
        ("x: f32[-1,3]", UNKNOWN_SIZE),
        ("x: f32[B,3]", "declare it:  size B"),
        ("größe: f32[2]", "a name of other letters than a-z stands in back quotes: `größe`"),
        ("输入: f32[2]", "back quotes: `输入`"),
    ],
)
def test_inputs(parameter: str, help: str) -> None:
    assert help in error_of(f"graph main({parameter}) -> (y) {{\n  y = Relu(x)\n}}").help


@pytest.mark.parametrize(
    ("line", "help"),
    [
        ("y = x + x", "a node is one op with its operands: y = Add(a, b)"),
        ("y = Relu(x * x)", SEPARATE),
        ("y = Relu(Add(x, x))", SEPARATE),
        ("y = Relu(x[0])", SEPARATE),
        ("y = Add(x, 1.0)", "a number is a constant with a name:  const c: f32[] = 1.0"),
        ("y = Add(x,, x)", ABSENT),
        ("y = Add(x, x,)", ABSENT),
        ("y = LeakyRelu(x, alpha=0.1)", "behind the operands: Op(x) {name=value}"),
        ("y := Relu(x)", NODE),
        ("let y = Relu(x)", NODE),
        ("return Relu(x)", "results stand in the head: graph main(…) -> (y) { … }"),
        ("y = Relu(x); y = Relu(x)", "nothing stands between lines"),
        ("y = Relu(x) // why", "a comment starts with #"),
        ("s = Relu(x)", "a state is set by  update s = value"),
        ("y = Pad(x) {mode='edge'}", QUOTES),
        ("y = Pad(x) {mode=“edge”}", QUOTES),
    ],
)
def test_nodes(line: str, help: str) -> None:
    text = f"state s: f32[2] = 0.0\ngraph main(x: f32[2]) -> (y) {{\n  {line}\n}}"
    assert help in error_of(text).help


@pytest.mark.parametrize(
    ("line", "help"),
    [
        ("y = x", STATEMENT),
        ("return x", STATEMENT),
        ("y[i] += x[i]", "a statement that adds up is written  y[i] sum= …"),
        ("y[i] = x[i]**2", POWER),
        ("y[i] = x[i]^2", POWER),
        ("y[i] = x[i] if x[i] > 0.0 else 0.0", SELECT),
        ("y[i] = x[i] > 0.0 ? x[i] : 0.0", SELECT),
        ("y[i] = select(x[i] > 0.0 && x[i] < 1.0, x[i], 0.0)", "joined by one & or |"),
        ("y[i] = sum(k, x[k])", "a reduction is written sum(k)(…)"),
        ("y[i] = sum(k) x[k] * x[k]", "the body of a reduction stands in parentheses"),
        ("for i in range(N) { y[i] = x[i] }", "a range is written lo..hi"),
        ("for i in 0..N: y[i] = x[i]", "what is repeated stands in braces"),
    ],
)
def test_statements(line: str, help: str) -> None:
    assert help in error_of(f"def f(x: f32[N]) -> (y: f32[N]) {{\n  {line}\n}}").help


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("def f(x):\n  return 2*x", "each input has a type"),
        ("def f(x: f32[N], k: int = 1) -> (y: f32[N]) { y[i] = x[i] }", BEHIND),
        ("param w: f32[2,2] = [[1.0, 2.0], [3.0, 4.0]]", "one list, row by row"),
        ("nest f(in x: f32[N]) {}", "name the sizes behind the tensors: (…; N)"),
    ],
)
def test_declarations(text: str, help: str) -> None:
    assert help in error_of(text).help


@pytest.mark.parametrize("number", ["1.", ".5", "1.5.2", "0x10"])
def test_numbers(number: str) -> None:
    error = error_of(f"def f(x: f32[N]) -> (y: f32[N]) {{\n  y[i] = x[i] * {number}\n}}")
    assert "this is not a number" in error.message


NINES = "9" * (MAX_DIGITS + 1)


@pytest.mark.parametrize(
    "text",
    [
        "size N\ngraph main(x: f32[{}]) -> (x) {{}}",
        "size N\ngraph main(x: f32[N + {}]) -> (x) {{}}",
        "graph main(x: f32[2]) -> (y) {{ y = LeakyRelu(x) {{alpha={}}} }}",
        "graph main(x: f32[2]) -> (y) {{ y = Transpose(x) {{perm=[{}]}} }}",
        "param w: f64[2] = [1, {}]",
        "param w: f64[2] = {}",
        "param w: f32[2] = random(seed={})",
        "param w: f32[2] = random(seed=1, mean={})",
        "def f(x: f32[N]; a: int = {}) -> (y: f32[N]) {{ y[i] = x[i] }}",
        "def f(x: f32[N]) -> (y: f32[N]) {{ y[i] = x[i] * {} }}",
        "def f(x: f64[N]) -> (y: f64[N]) {{ y[i] = x[i] * 1e{} }}",
        "function f(out y: f32[3]) {{ y[0 : {}] = 1.0 }}",
        "function f(out y: f32[3]) {{ let a: f32x{} = 1.0 }}",
        "function f(out y: f32[3] align {}) {{}}",
        "function f(out y: f32[3]) {{ for i in 0..3 step {} {{}} }}",
        "nest f(out y: f32[3]) {{ a: y[0] = 0.0 schedule {{ a prefetch(y: {}) }} }}",
    ],
)
def test_numbers_that_cannot_be_counted_with(text: str) -> None:
    for digits in (NINES, "9" * 5000):  # of more than 4300, Python makes no integer
        assert f"a number of more than {MAX_DIGITS} digits" in error_of(text.format(digits)).message
    if "{" in text.replace("{{", "").replace("{}", ""):
        error_of(text.format("9" * 30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("param w: f32[2] = [1, 1e39]", "1e39 does not fit f32"),
        ("param w: f16[2] = [1, 70000]", "70000 does not fit f16"),
        ("param w: bf16[2] = -3.4e38", "-3.4e38 does not fit bf16"),
        ("param w: f64[2] = [1, 1e999]", "1e999 is larger than any number format holds"),
        ("param w: f32[2] = random(seed=1, std=1e39)", "1e39 is not a std"),
        ("param w: f32[2] = random(seed=1, mean=nan)", "nan is not a mean"),
        ("graph m(x: f32[2]) -> (y) { y = Elu(x) {alpha=-1e400} }", "1e400 is larger than any"),
        ("function f(out y: f32[3]) { y[0 : 99999999] = 1.0 }", "1 to 65536 of them"),
        ("function f(out y: f32[3]) { let a: f32x99999999 = 1.0 }", "2 to 65536 lanes"),
        ("function f(out y: f32[3]) { let a = broadcast(y[0], 99999999) }", "2 to 65536 lanes"),
    ],
)
def test_numbers_that_do_not_fit_are_not_infinity(text: str, message: str) -> None:
    assert message in error_of(text).message


def test_infinity_is_written() -> None:
    module = read_nn("nncc 1\nparam w: f32[3] = [inf, -inf, 3.4e38]\ngraph m() -> (w) {}")
    np.testing.assert_array_equal(
        module.symbols["w"].data.array, np.float32([np.inf, -np.inf, 3.4e38])
    )


@pytest.mark.parametrize("count", [MAX_DEPTH + 1, 300, 5000])
@pytest.mark.parametrize(
    ("head", "tail"), [("exp(", ")"), ("-", ""), ("x[i] + (", ")"), ("x[", "]"), ("sum(k)(", ")")]
)
def test_depth(count: int, head: str, tail: str) -> None:
    deep = head * count + "x[i]" + tail * count
    error = error_of(
        f"def f(x: f32[N]) -> (y: f32[N]) {{\n  y[i] = {deep}\n}}\ngraph m() -> () {{}}"
    )
    assert error.message == f"this is more than {MAX_DEPTH} expressions inside one another"
    assert len(error.render().split("\n")[1]) < LONGEST_LINE + 20


def test_depth_of_a_sum() -> None:
    text = (
        "def f(x: f32[N]) -> (y: f32[N]) {{ y[i] = {} }}\ngraph m(a: f32[3]) -> (b) {{ b = f(a) }}"
    )
    read_nn("nncc 1\n" + text.format(" + ".join(["x[i]"] * MAX_DEPTH)))
    assert "inside one another" in error_of(text.format(" + ".join(["x[i]"] * 5000))).message


@pytest.mark.parametrize("count", [100, 200, 250, 300, 1000])
def test_depth_of_regions_and_blocks(count: int) -> None:
    """However deep, it is read, or there is an error."""
    head, tail = 'y = Group(x) {device="cpu"} graph r(x: f32[2]) -> (y) {', "}"
    regions = f"graph m(x: f32[2]) -> (y) {{ {head * count} y = Relu(x) {tail * count} }}"
    blocks = (
        f"function f(out y: f32[3]) {{ {'if true {' * count} {'}' * count} }} graph m() -> () {{}}"
    )
    for text in (regions, blocks):
        try:
            read_nn(f"nncc 1\n{text}")
        except FrontendError as error:
            assert count > 100
            assert "nested too deeply" in error.message


def test_long_lines_are_shown_in_part() -> None:
    for position in (0, 50, 200, 500):
        text = "graph " + "a" * position + "$" + "b" * (500 - position)
        _, line, caret, *_ = error_of(text).render().split("\n")
        assert len(line) <= LONGEST_LINE + 20
        assert line[caret.index("^")] == "$"


def test_an_output_stands_once() -> None:
    text = "graph main(x: f32[2]) -> (y, y) {\n  y = Relu(x)\n}"
    assert error_of(text).message == "there is already an output 'y'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("graph m(``: f32[2]) -> (``) {}", "a name has at least one character"),
        ("graph m(`\\ud800`: f32[2]) -> (`\\ud800`) {}", "is not a well-formed name"),
        ('graph m(x: f32[2]) -> (y) { y = Relu(x) at "\\ud800" }', "is not a well-formed text"),
        ("graph m(x: f32[2]) -> (_) { _ = Relu(x) }", "_ is what is left out: it is no value"),
        ("graph m(_: f32[2]) -> () {}", "_ is what is left out: it has no type"),
        ("function f(out y: f32[3] align 0) {}", "an alignment is a power of two, as 0 is not"),
        ("function f(out y: f32[3] align 48) {}", "an alignment is a power of two, as 48 is not"),
    ],
)
def test_names_and_alignments(text: str, message: str) -> None:
    assert message in error_of(text).message


def test_absurd_sizes() -> None:
    text = "size N\ngraph main(x: f32[N,{}]) -> (y) {{\n  y = Relu(x)\n}}"
    read_nn("nncc 1\n" + text.format(1 << 59))
    for extents in (str(1 << 60), "9" * 30, "4294967296,4294967296"):
        with pytest.raises(FrontendError, match="2\\^62 bytes or more"):
            read_nn("nncc 1\n" + text.format(extents))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "net.nn"
    text = "nncc 1\r\ngraph main(x: f32[2]) -> (y) {\r\n  y = Relu(x)\r\n}\r\n"
    path.write_bytes(text.encode("utf-8-sig"))
    assert load_nn(path) == read_nn(text.replace("\r", ""))
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(FrontendError, match="save the text as UTF-8"):
        load_nn(path)


def test_a_tensor_that_is_not_in_the_data_file(tmp_path: Path) -> None:
    array = np.ones((3, 20), np.float32)
    save_file({"conv1.weight": array}, tmp_path / "net.safetensors")
    text = (
        'nncc 1\nparam conv1.weigth: f32[3,20] = file("net.safetensors", '
        f'sha256="{Tensor(array).digest}")\ngraph main() -> (conv1.weigth) {{}}'
    )
    module = read_nn(text, folder=tmp_path)
    with pytest.raises(FrontendError, match=r"did you mean 'conv1\.weight'"):
        _ = module.symbols["conv1.weigth"].data.array
