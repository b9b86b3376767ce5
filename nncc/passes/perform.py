"""Write nests as operations on the memories of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.graph import AttrValue, Module, Node, Symbol
from nncc.ir.loops import Function
from nncc.ir.nests import Nest
from nncc.ir.packing import pack
from nncc.ir.tensor import Tensor
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.lower import fresh_name
from nncc.passes.nest_parts import fresh
from nncc.passes.systolic.code import Code
from nncc.passes.systolic.kinds import code_of


@dataclass(frozen=True)
class Perform(Pass):
    """Find the operations that compute each nest's statements, and write its Loops with them.

    y = Call(x, w, b) {callee="conv1"}   →   y = Run(x, conv1.w, conv1.bias, …) {callee="conv1"}
                                             function conv1(…) { … perform matmul for … }

    Constants get the form that the operations read: weight tiles, rescaling parameters, rows of
    padding. Tensors need the layouts of the pass `rows`, sizes must be numbers. Machines without
    operations on memory are left alone. Raises PassError, with the statement that no operation
    computes.
    """

    name: ClassVar[str] = "perform"

    def run(self, module: Module, target: Machine) -> Module:
        if target.array is None or not module.nests:
            return module
        writer = _Writer(module, target)
        nodes = tuple(writer.node(n) for n in module.graph.nodes)
        graph = replace(module.graph, nodes=nodes)
        return replace(
            module, graph=graph, nests={}, symbols=writer.symbols, functions=writer.functions
        )


class _Writer:
    def __init__(self, module: Module, target: Machine) -> None:
        self.module, self.target = module, target
        self.symbols: dict[str, Symbol] = dict(module.symbols)
        self.functions: dict[str, Function] = dict(module.functions)
        self.known: dict[Function, str] = {}

    def node(self, node: Node) -> Node:
        if node.op != "Call":
            return node
        nest = self.module.nests[str(node.attrs["callee"])]
        values = dict(zip([p.name for p in nest.inputs], node.inputs, strict=True))
        try:
            code = code_of(nest, self.constants(nest, values), self.target)
        except PassError as error:
            raise PassError(
                f"{node.name}: {self.target.name} has no operations for this: {error}",
                node.location,
            ) from error
        inputs = [values[t] for t in code.tensors]
        inputs += [self.constant(node, name, array) for name, array in code.constants]
        attrs: dict[str, AttrValue] = {"callee": self.function(code)}
        if code.macs:
            attrs["macs"] = code.macs
        return Node("Run", tuple(inputs), node.outputs, attrs, location=node.location)

    def constants(self, nest: Nest, values: Mapping[str, str]) -> dict[str, np.ndarray]:
        found = {}
        for p in nest.inputs:
            symbol = self.module.symbols.get(values[p.name])
            if symbol is not None and symbol.kind != "state":
                found[p.name] = symbol.data.array.reshape(p.type.static_shape)
        return found

    def constant(self, node: Node, name: str, array: np.ndarray) -> str:
        value = next(o for o in node.outputs if o)
        full = fresh(f"{value}.{name}", {*self.symbols, *self.module.graph.types})
        self.symbols[full] = Symbol("const", Tensor(pack(array, None)))
        return full

    def function(self, code: Code) -> str:
        """The name of the function; equal ones share one."""
        key = replace(code.function, name="")
        if key not in self.known:
            name = fresh_name(code.function.name, self.functions)  # type: ignore[arg-type]
            self.known[key] = name
            self.functions[name] = replace(code.function, name=name)
        return self.known[key]
