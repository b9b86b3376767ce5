"""What every graph must satisfy, whatever its ops mean.

Of the module
  - named sizes and symbols have distinct names; no value has the name of a symbol or size
  - only states have a declared type; their data is then one element of the type's dtype
Of the main graph and of every region
  - each value is made once: as an input, or as an output of one node
  - a node reads only inputs, symbols (not in a region) and outputs of nodes before it
  - exactly the values of the graph have types; extents are at least 1, over the module's sizes,
    and the known ones of a tensor leave it below 2^62 bytes
  - a node has an output; absent inputs are not last
  - a region's inputs are as many as its node's, of the same types; so are its outputs
  - the graph's outputs exist, those of the main graph once each; a region updates nothing
  - updates set each state at most once, with a value of its type
  - layouts belong to values or symbols, are over `d0, d1, …` of their axes and over sizes, and
    `nncc.ir.verify_layout` proves them

What the ops demand (operands, attributes, inferred types) is checked by `nncc.ops.verify`, which
calls this first.
"""

from __future__ import annotations

import math

from nncc.diagnostics import VerifyError
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import Size, variables
from nncc.ir.nests import Layout
from nncc.ir.types import TensorType
from nncc.ir.verify_layout import verify_layout

MAX_BYTES = 1 << 62  # of a tensor: offsets in it are 64-bit integers


def verify_graph(module: Module) -> None:
    """Checks the invariants of the module's docstring. Raises VerifyError at the first breach."""
    _verify_names(module)
    sizes = frozenset(module.sizes)
    for name, symbol in module.symbols.items():
        _verify_type(f"symbol '{name}'", symbol.type, sizes)
        if symbol.declared is None:
            continue
        data = symbol.data.type
        if symbol.kind != "state":
            raise VerifyError(f"symbol '{name}': only a state has a declared type")
        if data != TensorType(symbol.declared.dtype, ()):
            raise VerifyError(f"state '{name}': {data} cannot fill {symbol.declared}")
    symbols = {name: symbol.type for name, symbol in module.symbols.items()}
    outputs = module.graph.outputs
    if len(set(outputs)) < len(outputs):
        raise VerifyError(f"graph {module.graph.name} has an output twice: {', '.join(outputs)}")
    _Graph(module.graph, symbols, sizes).verify()
    _verify_updates(module)


def _verify_names(module: Module) -> None:
    if len(set(module.sizes)) < len(module.sizes):
        raise VerifyError(f"named sizes are not distinct: {', '.join(module.sizes)}")
    for name in module.sizes:
        if name in module.symbols:
            raise VerifyError(f"'{name}' is a symbol and a named size")
    for name in module.graph.types:
        if name in module.symbols:
            raise VerifyError(f"value '{name}' has the name of a symbol")


def _verify_updates(module: Module) -> None:
    graph = module.graph
    seen: set[str] = set()
    for state, value in graph.updates:
        symbol = module.symbols.get(state)
        if symbol is None or symbol.kind != "state":
            raise VerifyError(f"update of '{state}', which is no state")
        if state in seen:
            raise VerifyError(f"state '{state}' is updated twice")
        seen.add(state)
        if value not in graph.types and value not in module.symbols:
            raise VerifyError(f"state '{state}' is set to '{value}', which does not exist")
        if module.type_of(value) != symbol.type:
            raise VerifyError(
                f"state '{state}' is {symbol.type}, it is set to '{value}' of "
                f"{module.type_of(value)}"
            )


class _Graph:
    """The checks of one graph: `outer` are the symbols that it may read."""

    def __init__(self, graph: Graph, outer: dict[str, TensorType], sizes: frozenset[str]) -> None:
        self.graph, self.outer, self.sizes = graph, outer, sizes
        self.made: set[str] = set()

    def verify(self) -> None:
        for name in self.graph.inputs:
            self._make(name, None)
        for node in self.graph.nodes:
            self._verify_node(node)
        for name in self.graph.types:
            if name not in self.made:
                raise VerifyError(f"graph {self.graph.name}: '{name}' has a type, nothing makes it")
        for name in self.graph.outputs:
            if name not in self.made and name not in self.outer:
                raise VerifyError(f"graph {self.graph.name}: output '{name}' does not exist")
        for name, layout in self.graph.layouts.items():
            type = self.graph.types.get(name) or self.outer.get(name)
            if type is None:
                raise VerifyError(f"graph {self.graph.name}: layout of unknown '{name}'")
            _verify_layout(name, layout, type, self.sizes)

    def _make(self, name: str, node: Node | None) -> None:
        if name in self.made:
            raise _error(node, f"'{name}' is made twice")
        self.made.add(name)
        if name not in self.graph.types:
            raise _error(node, f"'{name}' has no type")
        _verify_type(f"'{name}'", self.graph.types[name], self.sizes, node)

    def _verify_node(self, node: Node) -> None:
        if node.inputs and not node.inputs[-1]:
            raise _error(node, "the last input is absent; leave it out")
        if not any(node.outputs):
            raise _error(node, "it has no output")
        for name in node.inputs:
            if name and name not in self.made and name not in self.outer:
                raise _error(node, self._missing(name))
        for region in node.regions:
            self._verify_region(node, region)
        for name in node.outputs:
            if name:
                self._make(name, node)

    def _missing(self, name: str) -> str:
        if name in self.graph.types:
            return f"input '{name}' is made by a later node: nodes are out of order, or a cycle"
        return f"input '{name}' does not exist"

    def _verify_region(self, node: Node, region: Graph) -> None:
        if region.updates:
            raise _error(node, "a region cannot update states")
        if len(region.inputs) != len(node.inputs):
            raise _error(node, f"{len(node.inputs)} inputs for a region of {len(region.inputs)}")
        _Graph(region, {}, self.sizes).verify()
        for inner, outer in zip(region.inputs, node.inputs, strict=True):
            type = self.graph.types.get(outer) or self.outer.get(outer)
            if type != region.types[inner]:
                raise _error(
                    node, f"input '{inner}' of the region is {region.types[inner]}, given {type}"
                )
        if len(region.outputs) != len(node.outputs):
            raise _error(node, f"{len(node.outputs)} outputs of a region of {len(region.outputs)}")
        for inner, outer in zip(region.outputs, node.outputs, strict=True):
            type = self.graph.types.get(outer)
            if outer and type != region.types[inner]:
                raise _error(
                    node, f"output '{inner}' of the region is {region.types[inner]}, not {type}"
                )


def _error(node: Node | None, message: str) -> VerifyError:
    if node is None:
        return VerifyError(message)
    subject = node.op if node.location.node else f"node '{node.name}' ({node.op})"
    return VerifyError(f"{subject}: {message}", node.location)


def _verify_type(
    what: str, type: TensorType, sizes: frozenset[str], node: Node | None = None
) -> None:
    for extent in type.shape:
        if isinstance(extent, int) and extent < 1:
            raise _error(node, f"{what} is {type}: an extent must be at least 1")
        _verify_size(what, extent, sizes, node)
    if math.prod(e for e in type.shape if isinstance(e, int)) * type.dtype.bits >= 8 * MAX_BYTES:
        raise _error(node, f"{what} is {type}: it takes 2^62 bytes or more")


def _verify_size(what: str, size: Size, known: frozenset[str], node: Node | None = None) -> None:
    if unknown := variables(size) - known:
        raise _error(node, f"{what}: {size} uses {', '.join(sorted(unknown))}, which is no size")


def _verify_layout(name: str, layout: Layout, type: TensorType, sizes: frozenset[str]) -> None:
    what = f"layout of '{name}'"
    axes = frozenset(f"d{k}" for k in range(type.rank))
    for dim in layout.dims:
        _verify_size(what, dim, sizes | axes)
    for extent in layout.extents:
        _verify_size(what, extent, sizes)
    if (
        math.prod(e for e in layout.extents if isinstance(e, int)) * type.dtype.bits
        >= 8 * MAX_BYTES
    ):
        raise VerifyError(f"{what}: it takes 2^62 bytes or more")
    verify_layout(layout, type, what)
