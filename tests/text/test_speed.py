"""A graph of ten thousand nodes prints and parses within seconds."""

from __future__ import annotations

import time

import numpy as np

from nncc.diagnostics import Location
from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import var
from nncc.ir.tensor import Tensor
from nncc.ir.text import parse_module, print_module
from nncc.ir.types import TensorType, f32

NODES = 10_000


def large_module() -> Module:
    """A chain of convolutions, activations and sums with symbolic batch and node names."""
    t = TensorType(f32, (var("N"), 4, 28, 28))
    symbols, nodes, types = {}, [], {"x0": t}
    for k in range(NODES):
        here, there = f"x{k}", f"x{k + 1}"
        types[there] = t
        at = Location(node=f"/features/layer{k}/op")
        if k % 4 == 0:
            weights = np.full((4, 4, 1, 1), k, np.float32)
            symbols[f"w{k}"] = Symbol("param", Tensor(weights))
            attrs = {"kernel_shape": (1, 1), "dilations": (1, 1)}
            nodes.append(Node("Conv", (here, f"w{k}"), (there,), attrs, (), at))
        elif k % 4 == 1:
            nodes.append(Node("Relu", (here,), (there,), {}, (), at))
        elif k % 4 == 2:
            nodes.append(Node("Add", (here, f"x{k - 2}"), (there,), {}, (), at))
        else:
            nodes.append(Node("LeakyRelu", (here,), (there,), {"alpha": 0.25}, (), at))
    graph = Graph("main", ("x0",), (f"x{NODES}",), tuple(nodes), types)
    return Module(graph, ("N",), symbols)


def test_ten_thousand_nodes() -> None:
    module = large_module()
    start = time.process_time()  # other processes of a busy computer do not count
    text = print_module(module)
    printed = time.process_time()
    again = parse_module(text)
    parsed = time.process_time()
    assert again == module
    assert parsed - start <= 5.0, f"print {printed - start:.2f} s, parse {parsed - printed:.2f} s"
    start = time.process_time()
    read_nn(text)  # which infers every type too
    assert time.process_time() - start <= 10.0
