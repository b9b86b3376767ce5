"""Nests and schedules that are hard to emit: they compute what the nest means, or are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from nncc.diagnostics import PassError
from nncc.ir.index import evaluate
from nncc.ir.nests import Band, Nest, walk_schedule
from nncc.ir.text import parse_nest, print_function
from nncc.machines import load
from nncc.passes.emission.tree import emit_nest
from nncc.passes.poly import check_schedule
from nncc.passes.vectorize import build_tree
from tests.emission.scheduled import check

MACHINE = load("cpu-avx2")


def runs(text: str, sizes: Mapping[str, int] | None = None) -> None:
    """The nest's schedule is legal, and its code computes what the nest means."""
    nest = parse_nest(text)
    check_schedule(nest)
    check(nest, inputs_of(nest, sizes or {}), sizes or {}, MACHINE)


def inputs_of(nest: Nest, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = {}
    for p in nest.inputs:
        shape = tuple(evaluate(e, sizes) for e in p.type.shape)
        floats = rng.standard_normal(shape).astype(np.float32)
        ints = np.sort(rng.integers(0, 9, shape))
        inputs[p.name] = floats if p.type.dtype.is_float else ints
    return inputs


def refused(text: str, message: str) -> None:
    """The schedule is legal, but there is no code for it."""
    nest = parse_nest(text)
    check_schedule(nest)
    with pytest.raises(PassError, match=message):
        emit_nest(nest, MACHINE.operations)


def test_one_border_in_two_domains() -> None:
    """The second statement needs no check for its load; the first does for the same load."""
    runs("""
nest shifted(in x: f32[10], out y: f32[10], out z: f32[10]) {
  first: for i in 0..10 { y[i] = x[i - 1] else 7.0 }
  fill: for i in 0..1 { z[i] = 1.0 }
  second: for i in 1..10 { z[i] = x[i - 1] else 7.0 }
}""")


TRIANGLE = """
nest triangle(in x: f32[9,WIDTH], out y: f32[9]) {
  zero: for i in 0..9 { y[i] = 0.0 }
  acc: for i in 0..9, j in 0..i + 1 { y[i] VALUE }
  SCHEDULE
}"""
VALUES = {
    "inside": ("9", "sum= x[i,j]"),
    "clamped": ("9", "sum= x[i,j - 2] else 0.0"),
    "beyond": ("5", "sum= x[i,j] else 0.0"),
    "selected": ("5", "max= x[i,j] else 3.0"),
}
SCHEDULES = {
    "none": "",
    "pieces": "schedule { zero for i by 4 { acc } }",
    "pieces of both": "schedule { zero for i by 4 { for i { for j by 2 { acc } } } }",
    "lanes inside": "schedule { zero for i { vector j by 8 { acc } } }",
    "lanes outside": "schedule { zero vector i by 8 { acc } }",
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_ranges_that_depend_on_other_dimensions(value: tuple[str, str], schedule: str) -> None:
    text = TRIANGLE.replace("WIDTH", value[0]).replace("VALUE", value[1])
    runs(text.replace("SCHEDULE", schedule))


def test_a_range_needs_its_dimensions_fixed() -> None:
    text = TRIANGLE.replace("WIDTH", "9").replace("VALUE", "sum= x[i,j]")
    for tree in ("for i by 4 { for j by 2 { acc } }", "for j { for i { acc } }"):
        scheduled = text.replace("SCHEDULE", f"schedule {{ zero {tree} }}")
        refused(scheduled, r"the range 0\.\.i \+ 1 of 'j' depends on 'i'")


def test_ragged_rows() -> None:
    runs("""
nest ragged(in x: f32[20], in start: i64[4], out y: f32[3]) {
  zero: for i in 0..3 { y[i] = 0.0 }
  acc: for i in 0..3, p in (start[i] in 0..10)..(start[i + 1] in 0..20) { y[i] sum= x[p] }
}""")


@pytest.mark.parametrize("value", ["x[i,j]", "x[j,i]"])
def test_triangles_are_scheduled(value: str) -> None:
    """No lanes over a dimension on which the range of another depends."""
    nest = parse_nest(f"""
nest triangle(in x: f32[20,20], out y: f32[20], local t: f32[20]) {{
  zero: for i in 0..20 {{ t[i] = 0.0 }}
  acc: for i in 0..20, j in 0..i + 1 {{ t[i] sum= {value} }}
  out: for i in 0..20 {{ y[i] = t[i] }}
}}""")
    nest = replace(nest, schedule=build_tree(nest, MACHINE))
    check_schedule(nest)
    check(nest, inputs_of(nest, {}), {}, MACHINE)


def test_a_band_has_one_range() -> None:
    refused("""
nest ranges(in x: f32[9], out y: f32[9], out z: f32[5]) {
  all: for i in 0..9 { y[i] = x[i] }
  some: for i in 2..5 { z[i] = x[i] }
  rest: for i in 0..2 { z[i] = x[i] }
  schedule { for i by 2 { all some } rest }
}""", r"different ranges of it: 0\.\.9 in 'all', 2\.\.5 in 'some'")  # fmt: skip


@pytest.mark.parametrize(
    ("space", "loop"), [("stack", "for"), ("stack", "unroll"), ("registers", "unroll")]
)
def test_statements_of_a_local_tensor_keep_their_ranges(space: str, loop: str) -> None:
    runs(f"""
nest parts(in x: f32[12], out y: f32[12], local t: f32[12]) {{
  first: for i in 0..12 {{ t[i] = x[i] }}
  some: for i in 4..8 {{ t[i] sum= 1.0 }}
  low: for i in 0..12 {{ y[i] = t[i] }}
  schedule {{ local t in {space} {{
    {loop} i {{ first }} {loop} i {{ some }} {loop} i {{ low }} }} }}
}}""")


REGISTERS = """
nest lanes(in x: f32[8], out y: f32[8], local t: f32[8]) {
  first: for i in 0..8 { t[i] = x[i] }
  second: for i in 0..LAST { y[i] = t[WHERE] }
  rest: for i in LAST..8 { y[i] = x[i] }
  schedule { local t in registers { vector i by 8 { first } vector i by 8 { second } } rest }
}"""


@pytest.mark.parametrize(("last", "where"), [("8", "7 - i"), ("7", "i + 1"), ("4", "2*i")])
def test_registers_hold_each_element_once(last: str, where: str) -> None:
    """The second statement's lanes are not those of the register that the first one wrote."""
    text = REGISTERS.replace("LAST", last).replace("WHERE", where)
    refused(text, "'t' cannot live in registers")


def test_registers_by_the_lane() -> None:
    runs(REGISTERS.replace("LAST", "8").replace("WHERE", "i"))


def test_a_band_without_statements_is_nothing() -> None:
    runs("""
nest copy(in x: f32[12], out y: f32[12]) {
  all: for i in 0..12 { y[i] = x[i] }
  schedule { for i { } for i { all } }
}""")


def test_dimensions_that_set_ranges_are_not_tiled() -> None:
    nest = parse_nest("""
nest turned(in x: f32[40,40], out y: f32[40,40], local t: f32[40,40]) {
  turn: for i in 0..40, j in 0..i + 1 { t[i,j] = x[j,i] }
  give: for i in 0..40, j in 0..i + 1 { y[i,j] = t[i,j] + x[i,j] }
}""")
    nest = replace(nest, schedule=build_tree(nest, MACHINE))
    check_schedule(nest)
    emit_nest(nest, MACHINE.operations)


ROWS = """
nest rows(in x: f32[3,WIDTH], out y: f32[3]) {
  zero: for n in 0..3 { y[n] = FIRST }
  acc: for n in 0..3, k in 0..WIDTH { y[n] COMBINE= x[n,k] * 2.0 }
  schedule { zero for n { vector k by LANES { acc } } }
}"""


@pytest.mark.parametrize(("combine", "first"), [("sum", "1.5"), ("max", "-inf"), ("min", "0.1")])
@pytest.mark.parametrize("width", [1, 7, 8, 16, 61, 64, 100])
@pytest.mark.parametrize("lanes", [8, 32])
def test_rows_are_folded_lane_by_lane(combine: str, first: str, width: int, lanes: int) -> None:
    text = ROWS.replace("COMBINE", combine).replace("FIRST", first)
    text = text.replace("WIDTH", str(width)).replace("LANES", str(lanes))
    runs(text)
    code = print_function(emit_nest(parse_nest(text), MACHINE.operations))
    # one fold of the lanes for each row, not one for each vector
    assert code.count("reduce_") == (width >= lanes)
    if width >= 2 * lanes:
        assert code.index("declare y_lanes") < code.index("for k_t") < code.index("reduce_")


def test_a_symbolic_row_is_folded_lane_by_lane() -> None:
    text = ROWS.replace("COMBINE", "sum").replace("FIRST", "1.5").replace("LANES", "8")
    text = text.replace("WIDTH", "N").replace("out y: f32[3])", "out y: f32[3]; N)")
    for size in (1, 8, 29):
        runs(text, {"N": size})


def test_long_rows_have_two_sums() -> None:
    text = ROWS.replace("COMBINE", "sum").replace("FIRST", "0.0")
    text = text[: text.index("  schedule")] + "}"
    steps = {}
    for width in (64, 128, 136, 768):
        nest = parse_nest(text.replace("WIDTH", str(width)))
        tree = build_tree(nest, MACHINE)
        steps[width] = [b.step for b in walk_schedule(tree) if isinstance(b, Band)][-1]
    assert steps == {64: 8, 128: 16, 136: 8, 768: 16}
