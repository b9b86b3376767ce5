"""What is printed reads back as what it was, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.ir.graph import Graph, Module, Symbol, walk_graphs
from nncc.ir.index import var
from nncc.ir.tensor import Tensor
from nncc.ir.text import (
    parse_definition,
    parse_function,
    parse_module,
    parse_nest,
    print_definition,
    print_function,
    print_module,
    print_nest,
    print_size,
    write_module,
)
from nncc.ir.text.names import quote, string, unquote, unstring
from nncc.ir.types import TensorType, f32
from nncc.ir.verify_graph import verify_graph
from tests.text import strategies as random

CASES = settings(max_examples=150, deadline=None)


@given(st.text())
def test_names_and_strings(text: str) -> None:
    assert unstring(string(text)) == text
    quoted = quote(text)
    assert (unquote(quoted) if quoted.startswith("`") else quoted) == text


@CASES
@given(random.sizes(("n", "m"), {"t": TensorType(f32, (3,))}, depth=4))
def test_sizes(size) -> None:

    # the only place of a nest where a size stands by itself
    text = f"nest n(in t: i64[3]; n, m) {{ s: for q in 0..{print_size(size)} {{ t[0] = 0 }} }}"
    assert parse_nest(text).statements[0].dims[0].hi == size


@CASES
@given(random.nests())
def test_nests(nest) -> None:
    text = print_nest(nest)
    again = parse_nest(text)
    assert again == nest
    assert print_nest(again) == text
    assert again.location.node == nest.location.node
    assert [s.location.node for s in again.statements] == [s.location.node for s in nest.statements]


@CASES
@given(random.definitions())
def test_definitions(definition) -> None:
    text = print_definition(definition)
    assert parse_definition(text) == definition
    assert print_definition(parse_definition(text)) == text


@CASES
@given(random.functions())
def test_functions(function) -> None:
    text = print_function(function)
    assert parse_function(text) == function
    assert print_function(parse_function(text)) == text


@settings(max_examples=80, deadline=None)
@given(random.modules())
def test_modules(module: Module) -> None:
    text = print_module(module)
    again = parse_module(text)
    assert again == module
    assert print_module(again) == text
    for a, b in zip(walk_graphs(again.graph), walk_graphs(module.graph), strict=True):
        assert [n.location.node for n in a.nodes] == [n.location.node for n in b.nodes]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("declared", [(3,), (1,), (), (20, 2), (var("N"),), (var("N"), 3)])
def test_states_filled_with_one_number(shape, declared) -> None:
    value = Tensor(np.full(shape, 0.5, np.float32))
    state = Symbol("state", value, TensorType(f32, declared))
    assert state.type == TensorType(f32, declared)
    module = Module(Graph("m", (), ("s",), (), {}), ("N",), {"s": state})
    again = parse_module(print_module(module))
    assert again == module
    verify_graph(again)


@settings(max_examples=40, deadline=None)
@given(random.modules())
def test_files(tmp_path_factory, module: Module) -> None:
    folder = tmp_path_factory.mktemp("modules")
    write_module(module, folder / "m.nn")
    again = parse_module((folder / "m.nn").read_text("utf-8"), folder=folder)
    assert again == module
    for name, symbol in module.symbols.items():
        assert again.symbols[name].data.array.tobytes() == symbol.data.array.tobytes()
    assert sorted(p.name for p in folder.iterdir()) in (["m.nn"], ["m.nn", "m.safetensors"])
