"""Constant data and symbols: what they hold, and what they cannot say."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.diagnostics import VerifyError
from nncc.ir.graph import Graph, Module, Symbol
from nncc.ir.index import var
from nncc.ir.tensor import Tensor
from nncc.ir.text import parse_module, print_module
from nncc.ir.types import TensorType, f32, i32
from nncc.ir.verify_graph import verify_graph

N = var("N")
GRAPH = Graph("main", ("x",), ("x",), (), {"x": TensorType(f32, (N,))})
ONE = np.array(1.5, np.float32)


def test_the_data_of_a_tensor_is_read_only_and_its_source_is_not() -> None:
    given = np.zeros((2, 3), np.float32)
    tensor = Tensor(given)
    with pytest.raises(ValueError, match="read-only"):
        tensor.array[0, 0] = 1
    assert np.shares_memory(tensor.array, given)
    assert given.flags.writeable
    columns = Tensor(given.T)
    assert columns.array.flags.c_contiguous
    assert not columns.array.flags.writeable
    assert Tensor(ONE).array.shape == ()


def test_data_must_be_of_its_type() -> None:
    wrong = Tensor(lambda: np.zeros(3, np.float32), TensorType(f32, (4,)))
    with pytest.raises(ValueError, match=r"data is float32\[3\], the type says f32\[4\]"):
        _ = wrong.array


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("declared", [(3, 2), (), (1,), (N, 2), (N,)])
def test_a_state_that_is_filled_reads_back(shape, declared) -> None:
    symbol = Symbol("state", Tensor(np.full(shape, ONE)), TensorType(f32, declared))
    assert symbol.type == TensorType(f32, declared)
    assert (symbol.declared is None) == symbol.type.is_static
    module = Module(GRAPH, ("N",), {"s": symbol})
    verify_graph(module)
    assert parse_module(print_module(module)) == module
    if symbol.declared is None:
        np.testing.assert_array_equal(symbol.data.array, np.full(declared, ONE))


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        (Symbol("param", Tensor(ONE), TensorType(f32, (N,))), "only a state"),
        (Symbol("state", Tensor(np.ones(2, np.float32)), TensorType(f32, (N,))), "cannot fill"),
        (Symbol("state", Tensor(ONE), TensorType(i32, (N,))), "cannot fill"),
        (Symbol("state", Tensor(np.ones(2, np.float32)), TensorType(f32, (3,))), "cannot fill"),
    ],
)
def test_wrong_symbols(symbol, message) -> None:
    with pytest.raises(VerifyError, match=message):
        verify_graph(Module(GRAPH, ("N",), {"s": symbol}))
