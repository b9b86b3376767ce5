"""The Graph level: SSA values and ops over typed tensors, and the module that holds all levels.

A graph names its values; names are unique within it. Symbols (constants, parameters, state)
live in the module and are read by name, like any value. A node may hold regions (the body of
a fused group, of an If or a Loop), graphs of their own that see only their inputs: what they
need from outside is passed to the node ("explicit captures").

Everything here is immutable; use `dataclasses.replace`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from nncc.diagnostics import NOWHERE, Location
from nncc.ir.tensor import Tensor
from nncc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from nncc.ir.loops import Function
    from nncc.ir.nests import Definition, Layout, Nest

AttrValue = (
    bool
    | int
    | float
    | str
    | DType
    | Tensor
    | tuple[int, ...]
    | tuple[float, ...]
    | tuple[str, ...]
)
Attrs = Mapping[str, AttrValue]


@dataclass(frozen=True)
class Node:
    """One op applied to values.

    Args:
        op: name of an op in the table (`nncc.ops`) or of a definition of the module.
        inputs: value or symbol names; "" where an optional input is absent.
        outputs: names of new values; "" where an optional output is not used.
        attrs: by name; their types are stated by the op. An attribute at its default is
            absent, so that equal nodes compare equal.
        regions: bodies; their inputs are listed after the op's own inputs.
        location: where the node comes from; not part of equality.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Attrs = field(default_factory=dict)
    regions: tuple[Graph, ...] = ()
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def name(self) -> str:
        """The name by which users know the node: the source model's, else its first output."""
        return self.location.node or next((o for o in self.outputs if o), self.op)


@dataclass(frozen=True)
class Graph:
    """A list of nodes in execution order.

    Args:
        inputs, outputs: value names. An output may be an input or a symbol.
        nodes: each reads only what stands before it.
        types: the type of every value that is an input or a node's output.
        updates: (state symbol, value): what the state becomes when the graph has run.
        layouts: how the buffer of a value or symbol keeps it; absent: dense and row-major. Types
            are logical: a layout changes no op's meaning.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    updates: tuple[tuple[str, str], ...] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """The node that makes each value (inputs and symbols have none)."""
        return {o: n for n in self.nodes for o in n.outputs if o}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each name, once each, in order."""
        found: dict[str, list[Node]] = {}
        for n in self.nodes:
            for i in dict.fromkeys(n.inputs):
                if i:
                    found.setdefault(i, []).append(n)
        return {k: tuple(v) for k, v in found.items()}


@dataclass(frozen=True)
class Symbol:
    """A named tensor of the module.

    `const` may be folded and repacked; `param` is a weight that passes may replace (pruning,
    quantization); `state` survives a call, starts at `data` and is set by the graph's updates.
    A state with named sizes in its type is `declared` with that type and its `data` is the rank-0
    value that fills it. (Without named sizes, what it is declared as is what its data becomes.)
    """

    kind: Literal["const", "param", "state"]
    data: Tensor
    declared: TensorType | None = None

    def __post_init__(self) -> None:
        declared, given = self.declared, self.data.type
        if declared is None or (given.elements, given.dtype) != (1, declared.dtype):
            return
        shape = declared.static_shape if declared.is_static else ()
        object.__setattr__(self, "data", self.data.filling(shape))
        if declared.is_static:
            object.__setattr__(self, "declared", None)

    @property
    def type(self) -> TensorType:
        return self.declared or self.data.type


@dataclass(frozen=True)
class Module:
    """A program at whatever level it has reached.

    The main graph is always there. `definitions` are ops that the user wrote in index
    notation. After `lower`, nodes of the graph are calls of `nests`; after `emit`, `functions`
    holds the Loops of each nest and of `main`.
    `sizes` are the named sizes of the signature, each at least 1.
    """

    graph: Graph
    sizes: tuple[str, ...] = ()
    symbols: Mapping[str, Symbol] = field(default_factory=dict)
    definitions: Mapping[str, Definition] = field(default_factory=dict)
    nests: Mapping[str, Nest] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)

    def type_of(self, name: str) -> TensorType:
        """The type of a value of the main graph or of a symbol. Raises KeyError."""
        return self.graph.types[name] if name in self.graph.types else self.symbols[name].type

    def with_graph(self, graph: Graph) -> Module:
        """This module with another main graph; the same object if nothing changed."""
        return self if graph is self.graph else replace(self, graph=graph)


def walk_graphs(graph: Graph) -> Iterator[Graph]:
    """`graph` and every region inside it, outermost first."""
    yield graph
    for n in graph.nodes:
        for r in n.regions:
            yield from walk_graphs(r)
