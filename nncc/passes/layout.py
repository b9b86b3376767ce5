"""Choose how buffers keep tensors, for the whole graph."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.expr import Load
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import Index, Size, affine, ceildiv, var, variables
from nncc.ir.layout import by_channel, is_row_major, padded
from nncc.ir.nests import Access, Nest
from nncc.ir.nests import Layout as TensorLayout
from nncc.ir.types import TensorType
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.contractions import Contraction, contraction, operation_shape
from nncc.passes.group_nest import group_nest, has_nest
from nncc.passes.nest_parts import accesses, fresh, plain

log = logging.getLogger(__name__)

RELAYOUT = "Relayout"
ACCUMULATOR_BYTES = 4  # of the f32 and i32 elements whose number fills a vector


@dataclass(frozen=True)
class Layout(Pass):
    """Store channels in blocks of a vector, weights as the register tiles read them.

    y = Group(x, w)  →  y @ (d0, d1//16, d2, d3, d1%16 : N,4,56,56,16) = Group(x, w @ …)

    The output of a contraction whose channels are not the last axis is blocked by the machine's
    lanes; pooling and elementwise groups keep the layout of what they read. Everything else is
    row-major: the graph's inputs and outputs, matrices, what views read. Where a group needs
    another layout than its operand has, a Relayout node is inserted; constants get their layout
    at compile time.

    Args:
        enable: with False everything is row-major.
    """

    name: ClassVar[str] = "layout"
    enable: bool = True

    def run(self, module: Module, target: Machine) -> Module:
        lanes = target.vector_bytes // ACCUMULATOR_BYTES
        if not self.enable or lanes < 2:
            return module
        chooser = _Chooser(module, target, lanes)
        for node in module.graph.nodes:
            chooser.add(node)
        graph = chooser.graph()
        log.info("%s", f"{count_relayouts(graph)} relayouts, {len(graph.layouts)} layouts")
        if not graph.layouts:
            return module
        return replace(module, graph=graph, symbols=chooser.symbols)


def count_relayouts(graph: Graph) -> int:
    """How many times a run of the graph copies a tensor into another layout."""
    return sum(n.op == RELAYOUT for n in graph.nodes)  # the op that this pass inserts


class _Chooser:
    """The graph with layouts, made front to back."""

    def __init__(self, module: Module, target: Machine, lanes: int) -> None:
        self.module = module
        self.target = target
        self.lanes = lanes
        self.nodes: list[Node] = []
        self.types: dict[str, TensorType] = dict(module.graph.types)
        self.symbols: dict[str, Symbol] = dict(module.symbols)
        self.layouts: dict[str, TensorLayout] = {}
        self.decided: set[str] = set()  # symbols that have their layout, dense ones too
        self.stand_ins: dict[str, str] = {}  # the blocked value that is kept for a pinned one
        self.copies: dict[tuple[str, TensorLayout | None], str] = {}
        self.pinned = {*module.graph.outputs, *(v for _, v in module.graph.updates)}

    def graph(self) -> Graph:
        return replace(
            self.module.graph, nodes=tuple(self.nodes), types=self.types, layouts=self.layouts
        )

    def type(self, name: str) -> TensorType:
        return self.types[name] if name in self.types else self.symbols[name].type

    def add(self, node: Node) -> None:
        if not has_nest(self.module, node):
            inputs = tuple(i and self.dense(i) for i in node.inputs)
            self.nodes.append(replace(node, inputs=inputs))
            return
        found = group_nest(self.module, self.module.graph, node)
        values = found.values
        nest = found.nest
        constants = frozenset(p for p, v in values.items() if v in self.module.symbols)
        product = contraction(nest, constants)
        wanted: dict[str, TensorLayout | None] = {}
        kept = {p: self.current(v) for p, v in values.items()}
        for p in nest.outputs:
            layout = self.output_layout(nest, p.name, kept, product)
            if layout is not None:
                wanted[p.name] = layout[0]
                wanted |= self.beside(nest, p.name, layout[1], constants)
        if product is not None:
            wanted |= self.operands(nest, product, constants)
        self.emit(node, values, wanted, constants)

    def current(self, value: str) -> TensorLayout | None:
        return self.layouts.get(self.stand_ins.get(value, value))

    # -- what a group wants ----------------------------------------------------------------

    def output_layout(
        self,
        nest: Nest,
        output: str,
        kept: Mapping[str, TensorLayout | None],
        product: Contraction | None,
    ) -> tuple[TensorLayout, int] | None:
        """A blocked layout for an output and the axis that it blocks, or None for row-major."""
        shape = nest.param(output).type.shape
        writes = [(s, t) for s in nest.statements for t in s.targets if t.tensor == output]
        for axis in range(len(shape) - 1):
            names = [self.blocked_dim(t, axis) for _, t in writes]
            if any(n is None for n in names):
                continue
            extent = shape[axis]
            wide = not isinstance(extent, int) or 4 * extent >= self.lanes
            contracted = product is not None and set(names) == {product.lanes} and wide
            followed = any(
                layout is not None and self.is_blocked_by(nest, p, layout, name)
                for p, layout in kept.items()
                for name in names
            )
            if contracted or followed:
                return by_channel(shape, axis, self.lanes), axis
        return None

    def blocked_dim(self, access: Access | Load, axis: int) -> str | None:
        """The dim that runs over an axis block by block: alone, or after whole blocks."""
        index = access.indices[axis]
        form = affine(index, variables(index)) if isinstance(index, Index) else None
        if form is None or list(form[0].values()) != [1] or not isinstance(form[1], int):
            return None
        name = next(iter(form[0]))
        others = (i for k, i in enumerate(access.indices) if k != axis)
        if form[1] % self.lanes or any(name in variables(i) for i in others):
            return None
        return name

    def is_blocked_by(self, nest: Nest, param: str, layout: TensorLayout, dim: str | None) -> bool:
        """Whether `layout` blocks the axis of `param` that `dim` runs over."""
        shape = nest.param(param).type.shape
        return any(
            a.tensor == param
            and any(
                self.blocked_dim(a, k) == dim and layout == by_channel(shape, k, self.lanes)
                for k in range(len(shape))
            )
            for s in nest.statements
            for a in accesses(s)
        )

    def beside(
        self, nest: Nest, output: str, axis: int, constants: frozenset[str]
    ) -> dict[str, TensorLayout | None]:
        """Layouts of the operands that vary with the blocked dim of an output."""
        wanted: dict[str, TensorLayout | None] = {}
        dims = {
            self.blocked_dim(t, axis)
            for s in nest.statements
            for t in s.targets
            if t.tensor == output
        }
        for s in nest.statements:
            for load in (a for a in accesses(s) if isinstance(a, Load)):
                p = nest.param(load.tensor)
                for k, extent in enumerate(p.type.shape):
                    if p.role != "in" or self.blocked_dim(load, k) not in dims:
                        continue
                    if k < p.type.rank - 1:
                        wanted[p.name] = by_channel(p.type.shape, k, self.lanes)
                    elif p.name in constants and p.type.rank == 1:
                        is_whole = isinstance(extent, int) and extent % self.lanes == 0
                        layout = padded(p.type.shape, self.lanes, 0)
                        wanted[p.name] = None if is_whole else layout
        return wanted

    def operands(
        self, nest: Nest, product: Contraction, constants: frozenset[str]
    ) -> dict[str, TensorLayout | None]:
        """Layouts of the two operands of a contraction."""
        lanes, group = operation_shape(product, self.target)
        wanted: dict[str, TensorLayout | None] = {}
        if group > 1:
            activation = self.grouped_activation(nest, product, group)
            if activation is not None:
                wanted[product.activation.tensor] = activation
        weights = product.weights
        if weights.tensor in constants and lanes:
            layout = self.weights(nest, product, lanes, group)
            if layout is not None:
                wanted[weights.tensor] = layout
        return wanted

    def grouped_activation(
        self, nest: Nest, product: Contraction, group: int
    ) -> TensorLayout | None:
        """A layout in which `group` neighbours of the channel stand together, if it needs one."""
        load = product.activation
        shape = nest.param(load.tensor).type.shape
        axis = next(k for k, i in enumerate(load.indices) if plain(i) == product.channel)
        if axis == len(shape) - 1:
            return None
        extent = shape[axis]
        few = isinstance(extent, int) and extent < self.lanes
        return by_channel(shape, axis, group if few else self.lanes)

    def weights(
        self, nest: Nest, product: Contraction, lanes: int, group: int
    ) -> TensorLayout | None:
        """[m // B, c // C, taps…, c % C, m % B], with zeros behind the ends.

        With a grouping operation the innermost are its operand: [m % lanes, c % group].
        """
        shape = nest.param(product.weights.tensor).type.shape
        axes: dict[str, int] = {}
        for k, index in enumerate(product.weights.indices):
            name = plain(index)
            if name is not None and name not in axes:
                axes[name] = k
            elif index != 0 or shape[k] != 1:
                return None
        m, c = product.lanes, product.channel
        rest = [n for n in axes if n not in (m, c, *product.taps)]
        taps = [n for n in axes if n in product.taps]
        extent = shape[axes[m]]
        two = not product.depthwise and group == 1
        wide = not isinstance(extent, int) or extent > lanes
        block = 2 * lanes if two and wide else lanes
        channels = group
        if group == 1 and taps and c is not None:
            size = shape[axes[c]]
            channels = lanes if isinstance(size, int) and size > lanes else 1
        outer = [_whole(axes[n], shape) for n in rest] + [_major(axes[m], shape, block)]
        inner = [_minor(axes[m], block)]
        if c is not None and channels > 1:
            outer.append(_major(axes[c], shape, channels))
            inner = [*inner, _minor(axes[c], channels)]
            inner = inner if group > 1 else inner[::-1]
        elif c is not None:
            outer.append(_whole(axes[c], shape))
        parts = [*outer, *(_whole(axes[n], shape) for n in taps), *inner]
        return TensorLayout(tuple(d for d, _ in parts), tuple(e for _, e in parts), 0)

    # -- carrying it out -------------------------------------------------------------------

    def emit(
        self,
        node: Node,
        values: Mapping[str, str],
        wanted: Mapping[str, TensorLayout | None],
        constants: frozenset[str],
    ) -> None:
        """Adds the node with its operands in the layouts it wants, and what its outputs need."""
        inputs: dict[str, str] = {}
        for p, value in values.items():
            if value in node.outputs:
                continue
            if p in constants:
                inputs[value] = self.symbol(value, wanted.get(p))
            elif p in wanted:
                inputs[value] = self.in_layout(value, wanted[p])
            else:
                inputs[value] = self.stand_ins.get(value, value)
        outputs: list[str] = []
        later: list[str] = []
        by_value = {v: p for p, v in values.items()}
        for o in node.outputs:
            layout = wanted.get(by_value.get(o, ""))
            if layout is None or is_row_major(layout, self.types[o].shape):
                outputs.append(o)
                if layout is not None:
                    self.layouts[o] = layout
                continue
            name = o
            if o in self.pinned:
                name = fresh(f"{o}.blocked", {*self.types, *self.symbols})
                self.types[name] = self.types[o]
                self.stand_ins[o] = name
                later.append(o)
            self.layouts[name] = layout
            outputs.append(name)
        given = tuple(inputs.get(i, i) for i in node.inputs)
        self.nodes.append(replace(node, inputs=given, outputs=tuple(outputs)))
        for o in later:
            self.nodes.append(Node(RELAYOUT, (self.stand_ins[o],), (o,), location=node.location))

    def dense(self, value: str) -> str:
        """A value of the same content that is row-major."""
        if value in self.module.symbols:
            return self.symbol(value, None)
        if value in self.stand_ins:
            return value
        if is_row_major(self.layouts.get(value), self.type(value).shape):
            return value
        return self.in_layout(value, None)

    def in_layout(self, value: str, layout: TensorLayout | None) -> str:
        """A value of the same content in the given layout."""
        value = self.stand_ins.get(value, value)
        if self.layouts.get(value) == layout:
            return value
        if (value, layout) not in self.copies:
            name = fresh(f"{value}.relaid", {*self.types, *self.symbols})
            self.types[name] = self.type(value)
            if layout is not None:
                self.layouts[name] = layout
            self.nodes.append(Node(RELAYOUT, (value,), (name,)))
            self.copies[value, layout] = name
        return self.copies[value, layout]

    def symbol(self, name: str, layout: TensorLayout | None) -> str:
        """The symbol in that layout: itself, or a copy if it is used in another one too."""
        if self.symbols[name].kind == "state" or name in self.pinned:
            return name if layout is None else self.in_layout(name, layout)
        if name not in self.decided:
            self.decided.add(name)
            if layout is not None:
                self.layouts[name] = layout
        if self.layouts.get(name) == layout:
            return name
        if (name, layout) not in self.copies:
            copy = fresh(f"{name}.relaid", {*self.types, *self.symbols})
            self.symbols[copy] = self.symbols[name]
            if layout is not None:
                self.layouts[copy] = layout
            self.copies[name, layout] = copy
        return self.copies[name, layout]


def _whole(axis: int, shape: tuple[Size, ...]) -> tuple[Size, Size]:
    return var(f"d{axis}"), shape[axis]


def _major(axis: int, shape: tuple[Size, ...], block: int) -> tuple[Size, Size]:
    return var(f"d{axis}") // block, ceildiv(shape[axis], block)


def _minor(axis: int, block: int) -> tuple[Size, Size]:
    return var(f"d{axis}") % block, block
