"""Wrong programs: place, line, caret, what was expected, what to do. Full texts are golden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nncc.diagnostics import FrontendError
from nncc.frontend.dsl import load_nn, read_nn

CASES: dict[str, str] = {
    # -- syntax
    "empty": "",
    "no_header": "graph main() -> () {}",
    "other_version": "nncc 7\ngraph main() -> () {}",
    "no_graph": "nncc 1\nsize N\n",
    "two_graphs": "nncc 1\ngraph a() -> () {}\ngraph b() -> () {}",
    "not_a_declaration": "nncc 1\nmodel main() -> () {}",
    "missing_type": "nncc 1\ngraph main(x: ) -> (x) {}",
    "input_without_type": "nncc 1\ngraph main(x) -> (x) {}",
    "unclosed_call": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Relu(x\n}",
    "unclosed_graph": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Relu(x)\n",
    "missing_attribute_value": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Relu(x) {a=}\n}",
    "unquoted_text": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Pad(x) {mode=constant}\n}",
    "mixed_list": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Pad(x) {pads=[1, true]}\n}",
    "keyword_as_name": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  update = Relu(x)\n}",
    "unterminated_text": 'nncc 1\nparam w: f32[3] = file("w.safe, sha256="0")\n',
    "strange_character": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Relu($x)\n}",
    "bad_number": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = LeakyRelu(x) {alpha=1.}\n}",
    "bad_escape": 'nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Relu(x) at "\\q"\n}',
    "reduction_without_parentheses":
        "nncc 1\ndef f(x: f32[N]) -> (y: f32[]) {\n  y[] = sum(k) x[k] * x[k]\n}",
    "missing_range": "nncc 1\nnest f(out y: f32[3]) {\n  a: for i { y[i] = 0.0 }\n}",
    "missing_role": "nncc 1\nnest f(y: f32[3]) {\n  a: for i in 0..3 { y[i] = 0.0 }\n}",
    "missing_value": "nncc 1\nnest f(out y: f32[3]) {\n  a: for i in 0..3 { y[i] = }\n}",
    "missing_data": "nncc 1\nparam w: f32[3] =\ngraph main() -> (w) {}",
    "tabs": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n\ty = Relu(x))\n}",
    # -- names
    "unknown_op": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Rellu(x)\n}",
    "unknown_value": "nncc 1\ngraph main(image: f32[2]) -> (y) {\n  y = Relu(imaeg)\n}",
    "used_before_made": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Add(x, z)\n  z = Relu(x)\n}",
    "redefinition": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Relu(x)\n  y = Relu(x)\n}",
    "input_twice": "nncc 1\ngraph main(x: f32[2], x: f32[2]) -> (x) {}",
    "symbol_hidden": "nncc 1\nconst c: f32[] = 1.0\ngraph main(c: f32[2]) -> (c) {}",
    "symbol_twice": "nncc 1\nconst c: f32[] = 1.0\nparam c: f32[] = 1.0\ngraph main() -> (c) {}",
    "unknown_size": "nncc 1\nsize N\ngraph main(x: f32[M,2]) -> (x) {}",
    "size_twice": "nncc 1\nsize N, N\ngraph main(x: f32[N]) -> (x) {}",
    "unknown_output": "nncc 1\ngraph main(x: f32[2]) -> (z) {\n  y = Relu(x)\n}",
    "unknown_attribute": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = LeakyRelu(x) {alfa=0.1}\n}",
    "attribute_twice": "nncc 1\ngraph main(x: f32[2]) -> (y) {\n  y = Relu(x) {a=1, a=2}\n}",
    "update_of_nothing": "nncc 1\ngraph main(x: f32[2]) -> (x) {\n  update v = x\n}",
    "update_of_a_constant":
        "nncc 1\nconst v: f32[2] = 0.0\ngraph main(x: f32[2]) -> (x) {\n  update v = x\n}",
    "update_twice":
        "nncc 1\nstate v: f32[2] = 0.0\ngraph m(x: f32[2]) -> (x) {\n"
        "  update v = x\n  update v = x\n}",
    "region_sees_only_its_inputs":
        "nncc 1\ngraph main(x: f32[2]) -> (y) {\n"
        "  y = Group(x) {device=\"cpu\"} graph g(a: f32[2]) -> (b) { b = Relu(x) }\n}",
    # -- types in graphs
    "stated_type_is_wrong":
        "nncc 1\nsize N\ngraph main(x: f32[N,2]) -> (y) {\n  y: f32[N,3] = Relu(x)\n}",
    "stated_output_is_wrong": "nncc 1\ngraph main(x: f32[2]) -> (y: f32[3]) {\n  y = Relu(x)\n}",
    "shapes_do_not_fit":
        "nncc 1\ngraph main(a: f32[2,3], b: f32[4,5]) -> (y) {\n  y = MatMul(a, b)\n}",
    "dtypes_do_not_fit": "nncc 1\ngraph main(a: f32[2], b: i64[2]) -> (y) {\n  y = Add(a, b)\n}",
    "too_few_operands": "nncc 1\ngraph main(a: f32[2]) -> (y) {\n  y = Add(a)\n}",
    "too_many_operands": "nncc 1\ngraph main(a: f32[2]) -> (y) {\n  y = Relu(a, a)\n}",
    "state_of_another_type":
        "nncc 1\nstate v: f32[3] = 0.0\ngraph main(x: f32[2]) -> (x) {\n  update v = x\n}",
    "vector_type": "nncc 1\ngraph main(x: f32x4[ 2]) -> (x) {}",
    "empty_extent": "nncc 1\ngraph main(x: f32[2,0]) -> (x) {}",
    "negative_extent": "nncc 1\ngraph main(x: f32[2 - 3]) -> (x) {}",
    # -- data
    "list_of_wrong_length": "nncc 1\nconst c: f32[2,2] = [1.0, 2.0, 3.0]\ngraph main() -> (c) {}",
    "fraction_in_integers": "nncc 1\nconst c: i8[2] = [1, 2.5]\ngraph main() -> (c) {}",
    "integer_out_of_range": "nncc 1\nconst c: i8[2] = [1, 200]\ngraph main() -> (c) {}",
    "symbolic_constant": "nncc 1\nsize N\nconst c: f32[N] = 0.0\ngraph main() -> (c) {}",
    "random_without_seed": "nncc 1\nparam w: f32[3] = random(std=0.1)\ngraph main() -> (w) {}",
    "random_with_typo":
        "nncc 1\nparam w: f32[3] = random(seed=1, sdt=0.1)\ngraph main() -> (w) {}",
    "random_integers": "nncc 1\nparam w: i8[3] = random(seed=1)\ngraph main() -> (w) {}",
    "absurd_size":
        "nncc 1\nparam w: f32[1000000,1000000] = random(seed=1)\ngraph main() -> (w) {}",
    "file_outside":
        f'nncc 1\nparam w: f32[3] = file("../w", sha256="{"0" * 64}")\ngraph main() -> (w) {{}}',
    "file_missing":
        f'nncc 1\nparam w: f32[3] = file("w.bin", sha256="{"0" * 64}")\ngraph main() -> (w) {{}}',
    "sha256_malformed":
        'nncc 1\nparam w: f32[3] = file("w.bin", sha256="12")\ngraph main() -> (w) {}',
    # -- definitions
    "definition_of_a_known_op":
        "nncc 1\ndef Relu(x: f32[N]) -> (y: f32[N]) {\n  y[i] = x[i]\n}\ngraph m() -> () {}",
    "definition_twice":
        "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) { y[i] = x[i] }\n"
        "def f(x: f32[N]) -> (y: f32[N]) { y[i] = x[i] }\ngraph m() -> () {}",
    "unknown_tensor": "nncc 1\ndef f(xs: f32[N]) -> (y: f32[N]) {\n  y[i] = x[i]\n}",
    "wrong_rank": "nncc 1\ndef f(x: f32[N,M]) -> (y: f32[N]) {\n  y[i] = x[i]\n}",
    "unknown_function": "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = tahn(x[i])\n}",
    "function_with_wrong_operands":
        "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = max(x[i])\n}",
    "function_of_wrong_dtype":
        "nncc 1\ndef f(x: i64[N]) -> (y: i64[N]) {\n  y[i] = exp(x[i])\n}",
    "mixed_dtypes":
        "nncc 1\ndef f(x: f32[N], k: i64[N]) -> (y: f32[N]) {\n  y[i] = x[i] * k[i]\n}",
    "wrong_dtype_of_value": "nncc 1\ndef f(k: i64[N]) -> (y: f32[N]) {\n  y[i] = k[i] + 1\n}",
    "fraction_for_integer": "nncc 1\ndef f(k: i64[N]) -> (y: i64[N]) {\n  y[i] = k[i] + 1.5\n}",
    "number_out_of_range": "nncc 1\ndef f(k: u8[N]) -> (y: u8[N]) {\n  y[i] = k[i] + 256\n}",
    "number_without_type":
        "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = select(1.0 < 2.0, x[i], 0.0)\n}",
    "converting_with_a_dtype":
        "nncc 1\ndef f(k: i64[N]) -> (y: f32[N]) {\n  y[i] = f32(k[i])\n}",
    "cast_without_dtype": "nncc 1\ndef f(k: i64[N]) -> (y: f32[N]) {\n  y[i] = cast(k[i])\n}",
    "dim_as_number": "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = x[i] * N\n}",
    "tensor_as_number": "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = x\n}",
    "subscript_is_a_fraction": "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = x[1.5]\n}",
    "subscript_divides": "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = x[i / 2]\n}",
    "subscript_by_zero": "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = x[i // 0]\n}",
    "subscript_without_bound":
        "nncc 1\ndef f(x: f32[N], k: i64[M]) -> (y: f32[M]) {\n  y[i] = x[k[i]]\n}",
    "subscript_from_floats":
        "nncc 1\ndef f(x: f32[N], k: f32[M]) -> (y: f32[M]) {\n  y[i] = x[k[i] in 0..N]\n}",
    "dims_disagree":
        "nncc 1\ndef f(x: f32[N], w: f32[M]) -> (y: f32[]) {\n  y[] = sum(k)(x[k] * w[k])\n}\n"
        "graph m() -> () {}",
    "dim_without_range":
        "nncc 1\ndef f(x: f32[N]) -> (y: f32[]) {\n  y[] = sum(k)(x[2*k])\n}\ngraph m() -> () {}",
    "dim_unknown":
        "nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = x[j]\n}\ngraph m() -> () {}",
    "size_of_output_unknown": "nncc 1\ndef f(x: f32[N]) -> (y: f32[M]) {\n  y[i] = x[i]\n}",
    "unknown_combine": "nncc 1\ndef f(x: f32[N]) -> (y: f32[]) {\n  y[] = summ(k)(x[k])\n}",
    "reduction_over_nothing": "nncc 1\ndef f(x: f32[N]) -> (y: f32[]) {\n  y[] = sum()(x[0])\n}",
    "combine_components":
        "nncc 1\ncombine c(f32, i64) = (a0) identity (0.0, 0)\ngraph m() -> () {}",
    "combine_type": "nncc 1\ncombine c(f32) = (a1) identity (0.0)\ngraph m() -> () {}",
    "too_few_targets":
        "nncc 1\ndef f(x: f32[N]) -> (y: f32[]) {\n  combine c(f32, i64) = (a0, a1) identity "
        "(0.0, 0)\n  y[] c= x[k]\n}",
    "attribute_type": "nncc 1\ndef f(x: f32[N]; a: real = 1.0) -> (y: f32[N]) { y[i] = x[i] }",
    "attribute_default": "nncc 1\ndef f(x: f32[N]; a: int = 1.5) -> (y: f32[N]) { y[i] = x[i] }",
    "out_of_range":
        "nncc 1\nsize B\ndef f(x: f32[N]) -> (y: f32[N]) {\n  y[i] = x[i + 1]\n}\n"
        "graph main(x: f32[B]) -> (y) {\n  y = f(x)\n}",
    "definition_called_wrongly":
        "nncc 1\ndef f(x: f32[N,M]) -> (y: f32[N]) {\n  y[i] = sum(j)(x[i,j])\n}\n"
        "graph main(x: f32[7]) -> (y) {\n  y = f(x)\n}",
    "definition_attribute_wrong":
        "nncc 1\ndef f(x: f32[N]; gain: float = 1.0) -> (y: f32[N]) {\n  y[i] = gain * x[i]\n}\n"
        "graph main(x: f32[7]) -> (y) {\n  y = f(x) {gian=2.0}\n}",
    # -- nests and functions
    "reduction_in_a_nest":
        "nncc 1\nnest f(in x: f32[3], out y: f32[]) {\n  a: y[] = sum(k)(x[k])\n}",
    "statement_without_name":
        "nncc 1\nnest f(out y: f32[3]) {\n  for i in 0..3 { y[i] = 0.0 }\n}",
    "statement_twice":
        "nncc 1\nnest f(out y: f32[]) {\n  a: y[] = 0.0\n  a: y[] = 0.0\n}",
    "dim_hides_size": "nncc 1\nnest f(out y: f32[N]; N) {\n  a: for N in 0..N { y[N] = 0.0 }\n}",
    "unknown_dim": "nncc 1\nnest f(out y: f32[3]) {\n  a: for i in 0..3 { y[j] = 0.0 }\n}",
    "constraint_is_no_comparison":
        "nncc 1\nnest f(out y: f32[3]) {\n  a: for i in 0..3 where i + 1 { y[i] = 0.0 }\n}",
    "schedule_of_unknown_statement":
        "nncc 1\nnest f(out y: f32[3]) {\n  init: for i in 0..3 { y[i] = 0.0 }\n"
        "  schedule { for i { intit } }\n}",
    "schedule_of_unknown_dim":
        "nncc 1\nnest f(out y: f32[3]) {\n  init: for i in 0..3 { y[i] = 0.0 }\n"
        "  schedule { for j { init } }\n}",
    "layout_with_too_few_extents":
        "nncc 1\nnest f(out y: f32[3] @ (d0 // 2, d0 % 2 : 2)) {\n  a: y[0] = 0.0\n}",
    "unknown_register": "nncc 1\nfunction f(out y: f32[3]) {\n  a = 1.0\n}",
    "register_of_another_type":
        "nncc 1\nfunction f(out y: f32[3]) {\n  declare a: f32 = 1.0\n  a = i64(1)\n}",
    "vector_into_scalar":
        "nncc 1\nfunction f(out y: f32[16]) {\n  let a: f32x16 = 1.0\n  y[0] = a\n}",
    "scalar_into_vector":
        "nncc 1\nfunction f(out y: f32[16]) {\n  let a: f32 = 1.0\n  y[0 : 16] = a\n}",
    "condition_is_a_number": "nncc 1\nfunction f(out y: f32[3]) {\n  if y[0] { y[1] = 0.0 }\n}",
    "lanes_in_a_nest": "nncc 1\nnest f(out y: f32[16]) {\n  a: y[0 : 16] = 0.0\n}",
    "unknown_buffer": "nncc 1\nfunction f(out y: f32[3]) {\n  call g(z + 4)\n}",
    "loop_variable_twice":
        "nncc 1\nfunction f(out y: f32[3]) {\n  for i in 0..3 { for i in 0..3 { } }\n}",
}  # fmt: skip


def error_of(text: str) -> FrontendError:
    with pytest.raises(FrontendError) as raised:
        read_nn(text, file="net.nn", folder=Path(__file__).parent)
    return raised.value


@pytest.mark.parametrize("name", CASES)
def test_errors(name: str, golden: Callable[[str], None]) -> None:
    text = CASES[name]
    error = error_of(text)
    folder = str(Path(__file__).parent)
    golden(error.render().replace(folder, "FOLDER"))
    assert error.location.file == "net.nn"
    assert error.location.line > 0, "every error has a place"
    assert error.exit_status == 2
    if error.source_line:
        assert error.source_line == text.split("\n")[error.location.line - 1]


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FrontendError, match="cannot read it"):
        load_nn(tmp_path / "none.nn")
    (tmp_path / "binary.nn").write_bytes(b"nncc 1\n\xff\xfe")
    with pytest.raises(FrontendError, match="not a text in UTF-8: byte 7 is 0xff"):
        load_nn(tmp_path / "binary.nn")
    with pytest.raises(FrontendError, match="cannot read it"):
        load_nn(tmp_path)


def test_deep_nesting() -> None:
    deep = "(" * 100_000
    error = error_of(f"nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {{ y[i] = {deep}")
    assert error.message
    balanced = "(" * 5000 + "x[i]" + ")" * 5000
    read_nn(f"nncc 1\ndef f(x: f32[N]) -> (y: f32[N]) {{ y[i] = {balanced} }} graph m() -> () {{}}")
