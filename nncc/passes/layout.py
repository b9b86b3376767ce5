"""Choose how buffers keep tensors, for the whole graph."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.expr import Load, loads
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import Element, Size, ceildiv, elements, var, variables
from nncc.ir.layout import by_channel, is_row_major, padded
from nncc.ir.nests import Access, Nest, Statement, sizes_of
from nncc.ir.nests import Layout as TensorLayout
from nncc.ir.types import TensorType
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.contractions import LANE_BYTES, Contraction, axis_of, best_contraction
from nncc.passes.group_nest import group_nest, has_nest
from nncc.passes.nest_parts import fresh, plain

log = logging.getLogger(__name__)

RELAYOUT = "Relayout"


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
        lanes = target.vector_bytes // LANE_BYTES
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
        product = best_contraction(nest, self.target, constants)
        step = self.lanes if product is None else min(self.lanes, product.lanes)
        wanted: dict[str, TensorLayout | None] = {}
        kept = {p: self.current(v) for p, v in values.items()}
        for p in nest.outputs:
            layout = self.output_layout(nest, p.name, kept, product, step)
            if layout is not None:
                wanted[p.name] = layout[0]
                wanted |= self.beside(nest, p.name, layout[1], constants, step)
        if product is not None:
            wanted |= self.operands(nest, product, constants, kept)
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
        step: int,
    ) -> tuple[TensorLayout, int] | None:
        """A blocked layout for an output and the axis that it blocks, or None for row-major.

        Args:
            step: of how many elements the pieces are that must not be cut by a block's border.
        """
        shape = nest.param(output).type.shape
        writes = [t for s in nest.statements for t in s.targets if t.tensor == output]
        for axis in range(len(shape) - 1):
            names = [blocked_dim(t, axis, step) for t in writes]
            if any(n is None for n in names):
                continue
            extent = shape[axis]
            wide = not isinstance(extent, int) or 4 * extent >= self.lanes or self.is_only(product)
            contracted = product is not None and set(names) == {product.vector} and wide
            followed = any(
                layout is not None and self.is_blocked_by(nest, p, layout, name, step)
                for p, layout in kept.items()
                for name in names
            )
            if contracted or followed:
                return by_channel(shape, axis, self.lanes), axis
        return None

    def is_only(self, product: Contraction | None) -> bool:
        """Whether the machine sums products in vectors by operations only, one by one otherwise."""
        return product is not None and self.target.architecture is not None

    def is_blocked_by(
        self, nest: Nest, param: str, layout: TensorLayout, dim: str | None, step: int
    ) -> bool:
        """Whether `layout` blocks the axis of `param` that `dim` runs over."""
        shape = nest.param(param).type.shape
        return any(
            a.tensor == param
            and any(
                blocked_dim(a, k, step) == dim and layout == by_channel(shape, k, self.lanes)
                for k in range(len(shape))
            )
            for s in nest.statements
            for a in (*s.targets, *_reads(s))
        )

    def beside(
        self, nest: Nest, output: str, axis: int, constants: frozenset[str], step: int
    ) -> dict[str, TensorLayout | None]:
        """Layouts of the operands that vary with the blocked dim of an output."""
        wanted: dict[str, TensorLayout | None] = {}
        dims = {
            blocked_dim(t, axis, step)
            for s in nest.statements
            for t in s.targets
            if t.tensor == output
        }
        for s in nest.statements:
            for load in _reads(s):
                p = nest.param(load.tensor)
                for k, extent in enumerate(p.type.shape):
                    if p.role != "in" or blocked_dim(load, k, step) not in dims:
                        continue
                    if k < p.type.rank - 1:
                        wanted[p.name] = by_channel(p.type.shape, k, self.lanes)
                    elif p.name in constants and p.type.rank == 1:
                        is_whole = isinstance(extent, int) and extent % self.lanes == 0
                        layout = padded(p.type.shape, self.lanes, 0)
                        wanted[p.name] = None if is_whole else layout
        return wanted

    def operands(
        self,
        nest: Nest,
        product: Contraction,
        constants: frozenset[str],
        kept: Mapping[str, TensorLayout | None],
    ) -> dict[str, TensorLayout | None]:
        """Layouts of the two operands of a contraction that the machine has an operation for."""
        wanted: dict[str, TensorLayout | None] = {}
        if product.operation is None:
            return wanted
        for load in product.operands:
            layout = None
            if load not in product.weights and product.group:
                layout = self.grouped_activation(nest, load, *product.group, kept[load.tensor])
            elif load in product.weights and load.tensor in constants:
                layout = self.weights(nest, product, load)
            if layout is not None:
                wanted[load.tensor] = layout
        return wanted

    def grouped_activation(
        self, nest: Nest, load: Load, channel: str, group: int, kept: TensorLayout | None
    ) -> TensorLayout | None:
        """A layout in which `group` neighbours of the channel stand together, if it needs one.

        Args:
            kept: the layout that the tensor has; it stays if it will do.
        """
        shape = nest.param(load.tensor).type.shape
        axis = next(k for k, i in enumerate(load.indices) if channel in variables(i))
        if axis == len(shape) - 1:
            return None
        if kept == by_channel(shape, axis, self.lanes):
            return kept
        extent = shape[axis]
        few = isinstance(extent, int) and extent < self.lanes
        return by_channel(shape, axis, group if few else self.lanes)

    def weights(self, nest: Nest, product: Contraction, load: Load) -> TensorLayout | None:
        """[m // B, c // C, taps…, c % C, m % B], with zeros behind the ends.

        With a grouping operation the innermost are its operand: [m % lanes, c % group], and before
        them stand the groups of a block of channels, as the loops of `tensorize` walk.
        """
        shape = nest.param(load.tensor).type.shape
        m, c = product.vector, product.channel
        lanes, group = product.lanes, product.group[1] if product.group else 1
        axes: dict[str, int] = {}
        for k, index in enumerate(load.indices):
            name = m if axis_of(load, m, lanes) == k else plain(index)
            if name is not None and name not in axes:
                axes[name] = k
            elif index != 0 or shape[k] != 1:
                return None
        taps = [n for n in axes if n in product.statement.reduction_dims and n != c]
        rest = [n for n in axes if n not in (m, c, *taps)]
        two = not product.is_depthwise and group == 1 and axis_of(load, m, 2 * lanes) is not None
        extent = product.dim(m).extent
        block = 2 * lanes if two and (not isinstance(extent, int) or extent > lanes) else lanes
        channels = 1
        if group == 1 and taps and c is not None:
            size = shape[axes[c]]
            channels = lanes if isinstance(size, int) and size > lanes else 1
        outer = [_whole(axes[n], shape) for n in rest] + [_major(axes[m], shape, block)]
        inner = [_minor(axes[m], block)]
        groups: list[tuple[Size, Size]] = []
        if c is not None and group > 1:
            size = shape[axes[c]]
            whole = isinstance(size, int) and size > self.lanes and size % self.lanes == 0
            if whole and taps:
                outer.append(_major(axes[c], shape, self.lanes))
                inside = var(f"d{axes[c]}") % self.lanes
                groups = [(inside // group, self.lanes // group)]
            else:
                groups = [_major(axes[c], shape, group)]
            inner = [*inner, _minor(axes[c], group)]
        elif c is not None and channels > 1:
            outer.append(_major(axes[c], shape, channels))
            inner = [_minor(axes[c], channels), *inner]
        elif c is not None:
            outer.append(_whole(axes[c], shape))
        parts = [*outer, *(_whole(axes[n], shape) for n in taps), *groups, *inner]
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


def _reads(s: Statement) -> Iterator[Load | Element]:
    """What a statement loads, subscript tensors too: a table's element keeps its place."""
    for v in s.values:
        yield from loads(v)
    for size in sizes_of(s):
        yield from elements(size)


def blocked_dim(access: Access | Load | Element, axis: int, step: int) -> str | None:
    """The dim that runs over an axis: alone, or from multiples of `step` on."""
    names = [n for n in variables(access.indices[axis]) if axis_of(access, n, step) == axis]
    return names[0] if len(names) == 1 else None


def _whole(axis: int, shape: tuple[Size, ...]) -> tuple[Size, Size]:
    return var(f"d{axis}"), shape[axis]


def _major(axis: int, shape: tuple[Size, ...], block: int) -> tuple[Size, Size]:
    return var(f"d{axis}") // block, ceildiv(shape[axis], block)


def _minor(axis: int, block: int) -> tuple[Size, Size]:
    return var(f"d{axis}") % block, block
