"""A graph under construction: nodes go in one after the other, types and known values come out.

    b = GraphBuilder(symbols)
    b.input("x", TensorType(f32, (n, 8)))
    b.add(Node("Relu", ("x",), ("y",)))
    b.types["y"]                            ->  f32[n,8]
    graph = b.graph("main", ("y",))

The front ends and the passes that make nodes build with it; shapes are followed through the ops
that compute with shapes (`Op.shape_rule`), up to named sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncc.ir.graph import Graph, Node, Symbol
from nncc.ir.nests import Nest
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType
from nncc.ops.table import KNOWN_ELEMENTS, Site, get, shape_value


class GraphBuilder:
    """See the module's docstring.

    Args:
        symbols: those of the module; new ones are added to `self.symbols`.
        nests: those of the module, for inference of calls.
    """

    def __init__(
        self, symbols: Mapping[str, Symbol] | None = None, nests: Mapping[str, Nest] | None = None
    ) -> None:
        self.symbols: dict[str, Symbol] = dict(symbols or {})
        self.inputs: list[str] = []
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = {}
        self._nests = nests or {}
        self._values: dict[str, np.ndarray] = {}
        self._reserved: set[str] = set()

    def input(self, name: str, type: TensorType, value: np.ndarray | None = None) -> None:
        """A further input of the graph; of a region perhaps one whose value is known."""
        self.inputs.append(name)
        self.types[name] = type
        if value is not None:
            self._values[name] = value

    def add(self, node: Node, types: tuple[TensorType, ...] | None = None) -> None:
        """A further node; its outputs' types are inferred unless they are given.

        Raises VerifyError if inference refuses the node.
        """
        site = self.site(node)
        if types is None:
            types = tuple(get(node).infer(site))
        value = shape_value(site, types)
        if value is not None:
            self._values[node.outputs[0]] = value
        self.nodes.append(node)
        self.types.update((o, t) for o, t in zip(node.outputs, types, strict=False) if o)

    def site(self, node: Node) -> Site:
        """What inference sees of a node whose inputs are in the graph."""
        types = tuple(self.type(i) if i else None for i in node.inputs)
        values = tuple(self.value(i) if i else None for i in node.inputs)
        return Site(node, types, values, nests=self._nests)

    def type(self, name: str) -> TensorType:
        """The type of a value or symbol. Raises KeyError."""
        return self.types[name] if name in self.types else self.symbols[name].type

    def value(self, name: str) -> np.ndarray | None:
        """A small tensor that is known at compile time, perhaps up to named sizes."""
        if name in self._values:
            return self._values[name]
        symbol = self.symbols.get(name)
        if symbol is None or symbol.kind == "state" or not symbol.type.is_static:
            return None
        if symbol.type.elements > KNOWN_ELEMENTS:  # type: ignore[operator]
            return None
        return symbol.data.array

    def constant(self, array: np.ndarray, hint: str) -> str:
        """A new `const` symbol named after `hint`, or one just like it that has that name."""
        symbol = Symbol("const", Tensor(np.ascontiguousarray(array).reshape(array.shape)))
        if self.symbols.get(hint) == symbol:
            return hint
        name = self.fresh(hint)
        self.symbols[name] = symbol
        return name

    def reserve(self, *names: str) -> None:
        """Keeps `fresh` from giving these names."""
        self._reserved.update(names)

    def fresh(self, hint: str) -> str:
        """A name like `hint` that nothing has yet."""
        name, count = hint, 1
        while name in self.types or name in self.symbols or name in self._reserved:
            count += 1
            name = f"{hint}_{count}"
        self._reserved.add(name)
        return name

    def graph(self, name: str, outputs: tuple[str, ...]) -> Graph:
        """The graph that has been built."""
        return Graph(name, tuple(self.inputs), outputs, tuple(self.nodes), dict(self.types))
