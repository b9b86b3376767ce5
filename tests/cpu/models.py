"""A small model as it is after `emit`: calls of Loops functions, a parameter, and a state."""

from __future__ import annotations

import numpy as np

from nncc.backends.cpu import compiler
from nncc.ir.expr import Apply, Load
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import var
from nncc.ir.loops import Buffer, For, Function, Store
from nncc.ir.program import Program
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, f32
from nncc.machines import load
from nncc.passes.plan import Plan, program
from nncc.runtime.executable import Executable

N, WIDTH = var("N"), 10


def scale() -> Function:
    """`y[n, k] = x[n, k] * w[k]`."""
    n, k = var("n"), var("k")
    value = Apply("mul", (Load("x", (n, k), f32), Load("w", (k,), f32)), f32)
    body = (For("n", 0, N, (For("k", 0, WIDTH, (Store("y", (n, k), value),)),), kind="parallel"),)
    x, y = Buffer("x", f32, (N, WIDTH)), Buffer("y", f32, (N, WIDTH), "out")
    return Function("scale", (x, Buffer("w", f32, (WIDTH,)), y), ("N",), body)


def add() -> Function:
    """`z[i] = x[i] + y[i]`, in vectors of 16 with a masked rest, by way of scratch memory."""
    i = var("i")
    length = WIDTH * N
    rest = length - i
    total = Apply(
        "add",
        (Load("x", (i,), f32, lanes=16, count=rest), Load("y", (i,), f32, lanes=16, count=rest)),
        f32,
        16,
    )
    body = (
        For("i", 0, length, (Store("t", (i,), total, rest),), 16),
        For("i", 0, length, (Store("z", (i,), Load("t", (i,), f32)),)),
    )
    access = {"x": "in", "y": "in", "z": "out", "t": "local"}
    buffers = tuple(Buffer(b, f32, (length,), a) for b, a in access.items())
    return Function("add", buffers, ("N",), body)


WEIGHTS = np.linspace(-2, 2, WIDTH, dtype=np.float32)


def running_sum() -> Module:
    """y = (x*w)*w + x*w, and the sum of all y so far, which is a state."""
    full = TensorType(f32, (N, WIDTH))
    nodes = (
        Node("Call", ("x", "w"), ("a",), {"callee": "scale"}),
        Node("Call", ("a", "w"), ("b",), {"callee": "scale"}),
        Node("Call", ("a", "b"), ("y",), {"callee": "add"}),
        Node("Call", ("y", "total"), ("next",), {"callee": "add"}),
    )
    types = dict.fromkeys(("x", "a", "b", "y", "next"), full)
    graph = Graph("main", ("x",), ("y", "next"), nodes, types, (("total", "next"),))
    symbols = {
        "w": Symbol("param", Tensor(WEIGHTS)),
        "total": Symbol("state", Tensor(np.array(0.5, np.float32)), full),
    }
    return Module(graph, ("N",), symbols, functions={"scale": scale(), "add": add()})


def planned(module: Module) -> Module:
    return Plan().run(module, load("cpu"))


def compiled(module: Module, name: str = "model") -> Executable:
    return compiler.compile_program(planned_program(module, name), load("cpu"))


def planned_program(module: Module, name: str = "model") -> Program:
    return program(planned(module), name)
