"""Which axis of a tensor the lanes of its rows count, and how many pixels a row holds.

    row_layouts(module, machine)    →    {"image": (d0, d2 // 4, d3 // 4, 12*(d2 % 4) + …), …}

Lanes count the axis that products sum over or count by weights: usually channels, axis 1. Where
these are so few that most of a row would hold nothing, several pixels may share it (`blocks`): the
array then does with one row what took one for each pixel, and all of its rows and columns work.
That takes more weights, and only products and operations on single elements can read such rows. So
blocks are chosen by cost: cycles of the array, of its weights and of what rescales, layer by layer.
Tensors that meet in a sum have one layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, lcm, prod

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.expr import Load, loads
from nncc.ir.graph import Module, Node
from nncc.ir.index import Element, affine, elements, evaluate, variables
from nncc.ir.layout import blocked
from nncc.ir.nests import ASSIGN, Dim, Layout, Nest
from nncc.machines.machine import Machine
from nncc.machines.systolic.sizes import array_of
from nncc.passes.group_nest import GroupNest, group_nest, has_nest
from nncc.passes.nest_parts import plain
from nncc.passes.systolic.blocks import in_blocks
from nncc.passes.systolic.kinds import POINTWISE, PRODUCT, WINDOW, kind_of
from nncc.passes.systolic.products import factors, statements

CHANNELS = 1  # the axis of channels, where nothing says otherwise
ROUNDS = 3  # of choosing for all tensors in turn

Blocks = Mapping[int, int]  # axis: how many neighbours a row holds


@dataclass(frozen=True)
class Side:
    """A pixel dim of a product: x[step*e + rest], for the values that the rest has.

    Args:
        x_axis, y_axis: where it is a subscript; `extent`: of y.
    """

    x_axis: int
    y_axis: int
    extent: int
    step: int
    rest: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A product, as far as its cost depends on blocks.

    Args:
        rows: pixels along dims that no block has; `channels` of x, `filters` of y.
        shared: whether all filters read the same channels.
    """

    x: str
    y: str
    rows: int
    channels: int
    filters: int
    sides: tuple[Side, ...]


@dataclass
class Group:
    """Tensors that have one layout.

    Args:
        plain: something writes or reads them that takes one pixel a row only.
        axis: which the lanes count.
    """

    names: list[str] = field(default_factory=list)
    plain: bool = False
    axis: int = CHANNELS
    blocks: Blocks = field(default_factory=dict)


def row_layouts(module: Module, target: Machine, *, pixels: bool = True) -> dict[str, Layout]:
    """The layout of every tensor of the graph that has channels, views aside.

    Args:
        pixels: whether rows may hold several.
    """
    return _Choice(module, target, pixels).layouts()


class _Choice:
    def __init__(self, module: Module, target: Machine, pixels: bool) -> None:
        self.module, self.graph, self.machine = module, module.graph, target
        self.array = array_of(target)
        self.group_of: dict[str, Group] = {}
        self.layers: list[Layer] = []
        self.whole_rows: set[str] = set()  # products read all lanes of their rows
        self.sources: dict[str, str] = {}  # of views
        for name in (*self.graph.inputs, *(o for n in self.graph.nodes for o in n.outputs if o)):
            self.group_of[name] = Group([name], plain=not pixels)
        for name in self.graph.outputs:
            self.of(name).plain = True
        for node in self.graph.nodes:
            self.visit(node)

    def of(self, name: str) -> Group:
        return self.group_of[name]

    def extent(self, name: str, axis: int) -> int:
        found = self.graph.types[name].shape[axis]
        assert isinstance(found, int)
        return found

    # -- what nodes want -------------------------------------------------------------------
    def visit(self, node: Node) -> None:
        """Notes what a node asks of the layouts of its tensors."""
        names = [n for n in (*node.inputs, *node.outputs) if n in self.group_of]
        if not has_nest(self.module, node):
            self.sources.update((o, node.inputs[0]) for o in node.outputs if o)
            self.keep_plain(names)
            return
        try:
            found = group_nest(self.module, self.graph, node)
        except PassError:
            self.keep_plain(names)
            return
        values = found.values
        kind = kind_of(found.nest)
        if kind == PRODUCT:
            self.product(found)
        elif kind == POINTWISE and _is_elementwise(found.nest):
            self.unite(
                [values[p.name] for p in found.nest.params if values[p.name] in self.group_of]
            )
        elif kind == WINDOW and all(s.combine in (ASSIGN, "max") for s in found.nest.statements):
            self.keep_plain([n for n in names if n not in node.outputs])
        else:
            self.keep_plain(names)

    def keep_plain(self, names: Sequence[str]) -> None:
        for name in names:
            self.of(name).plain = True

    def unite(self, names: Sequence[str]) -> None:
        """Tensors get one layout, if they have one shape."""
        if len({self.graph.types[n].shape for n in names}) > 1:
            self.keep_plain(names)
            return
        first = self.of(names[0])
        for name in names[1:]:
            other = self.of(name)
            if other is first:
                continue
            first.names += other.names
            first.plain |= other.plain
            first.axis = other.axis if first.axis == CHANNELS else first.axis
            for n in other.names:
                self.group_of[n] = first

    def product(self, found: GroupNest) -> None:
        nest, values = found.nest, found.values
        try:
            _, acc, out = statements(nest)
            (a, _), (b, _) = factors(acc)
        except PassError:
            self.keep_plain([v for v in values.values() if v in self.group_of])
            return
        x, w = (b, a) if values[a.tensor] in self.module.symbols else (a, b)
        source, target = values[x.tensor], values[out.targets[0].tensor]
        if source not in self.group_of:
            return
        self.whole_rows.add(source)
        weights = {v for i in w.indices for v in variables(i)}
        x_axis = _lane_axis(x, weights)
        y_axis = next((k for k, i in enumerate(out.targets[0].indices)
                       if k and variables(i) & weights), CHANNELS)  # fmt: skip
        for name, axis in ((source, x_axis), (target, y_axis)):
            if axis != CHANNELS:
                self.of(name).axis = axis
        layer = self.layer(source, target, nest, x) if x_axis == y_axis == CHANNELS else None
        others = [values[p.name] for p in nest.params if p.role != "local"]
        rest = [n for n in others if n in self.group_of and n not in (source, target)]
        self.keep_plain([*rest, *([source, target] if layer is None else [])])
        if layer is not None:
            self.layers.append(layer)

    def layer(self, source: str, target: str, nest: Nest, x: Load) -> Layer | None:
        """The product, if its pixels are as in a convolution."""
        _, acc, out = statements(nest)
        shape, y = self.graph.types[source].shape, self.graph.types[target].shape
        if (
            len(shape) < 3
            or len(y) != len(shape)
            or not all(isinstance(e, int) for e in (*shape, *y))
        ):
            return None
        dims = {d.name: d for d in acc.dims}
        sides = []
        for axis in range(2, len(shape)):
            pixel = plain(out.targets[0].indices[axis])
            form = None if pixel is None else affine(x.indices[axis], [pixel])
            if pixel is None or form is None or not form[0].get(pixel, 0) > 0:
                return None
            factor, rest = form[0][pixel], form[1]
            own = [dims[v] for v in sorted(variables(rest)) if v in dims]
            sides.append(Side(axis, axis, int(y[axis]), factor, _values(rest, own)))  # type: ignore[arg-type]
        return Layer(source, target, int(y[0]), int(shape[1]), int(y[1]), tuple(sides))  # type: ignore[arg-type]

    # -- choice ----------------------------------------------------------------------------
    def layouts(self) -> dict[str, Layout]:
        groups = list({id(g): g for g in self.group_of.values()}.values())
        able = [g for g in groups if not g.plain and self.candidates(g)]
        for _ in range(ROUNDS if able else 0):
            before = [g.blocks for g in able]
            for g in able:
                self.choose(g)
            if before == [g.blocks for g in able]:
                break
        # the host takes as many lanes of every row
        read = self.whole_rows | set(self.graph.outputs)
        for view, source in reversed(self.sources.items()):
            if view in read:
                read.add(source)
        found: dict[str, Layout] = {}
        for name, group in self.group_of.items():
            shape = self.graph.types[name].shape
            if len(shape) < 2 or name in self.sources:
                continue
            fill = 0 if name in read or name in self.graph.inputs else None
            if group.blocks:
                found[name] = in_blocks(shape, group.blocks, self.array.rows, fill)
            else:
                axis = group.axis if group.axis < len(shape) else CHANNELS
                found[name] = blocked(shape, axis, self.array.rows, fill)
        return found

    def candidates(self, group: Group) -> list[Blocks]:
        """The blocks that fit into a row."""
        shape = self.graph.types[group.names[0]].shape
        if len(shape) < 3 or group.axis != CHANNELS:
            return []
        if not all(isinstance(e, int) for e in shape):
            return []
        _, channels, *sides = (int(e) for e in shape)  # type: ignore[arg-type]
        room = self.array.rows // channels
        found: list[dict[int, int]] = [{}]
        for axis, side in list(enumerate(sides, 2))[-2:]:
            found = [
                old | ({axis: block} if block > 1 else {})
                for old in found
                for block in range(1, side + 1)
                if side % block == 0 and prod(old.values()) * block <= room
            ]
        return [blocks for blocks in found if blocks]

    def choose(self, group: Group) -> None:
        """The cheapest blocks for a group, others' being what they are."""
        touched = [p for p in self.layers if self.of(p.x) is group or self.of(p.y) is group]
        best, least = group.blocks, float("inf")
        for blocks in ({}, *self.candidates(group)):
            group.blocks = blocks
            cost = sum(self.cost(p) for p in touched)
            if cost < least:
                best, least = blocks, cost
        group.blocks = best

    def cost(self, p: Layer) -> float:
        """Cycles of a product by its slowest unit; infinite if blocks do not fit together."""
        array = self.array
        x_blocks, y_blocks = self.of(p.x).blocks, self.of(p.y).blocks
        counts = []  # pixels of each side that one tile of weights serves
        for s in p.sides:
            block = x_blocks.get(s.x_axis, 1)
            count = lcm(y_blocks.get(s.y_axis, 1), block // gcd(block, s.step))
            if s.extent % count:
                return float("inf")
            counts.append(count)
        filters = min(p.filters, array.rows)
        room = max(array.columns // filters, 1)  # phases that share a block of columns
        taps, phases = -(-p.channels // array.rows), 1
        for s, count in zip(reversed(p.sides), reversed(counts), strict=True):
            together = min(count, room)
            room = max(room // together, 1)
            phases *= -(-count // together)
            first = (s.step * np.arange(together))[:, None] + np.array(s.rest)
            block = x_blocks.get(s.x_axis, 1)
            found = np.unique(first // block)
            if count == s.extent:  # what lies outside of x for all pixels is no tap
                found = found[(found >= 0) & (found < self.extent(p.x, s.x_axis) // block)]
            taps *= max(found.size, 1)
        phases *= -(-p.filters // array.columns) if p.filters > array.columns else 1
        boxes = p.rows * prod(s.extent for s in p.sides) // prod(counts)
        tiles = taps * phases
        fetches = tiles * (-(-boxes // array.accumulator_rows) if taps > 1 else 1)
        fetching = fetches * array.tile_bytes * self.machine.frequency_hz
        lanes = prod(y_blocks.values()) * filters
        written = p.rows * prod(s.extent for s in p.sides) // prod(y_blocks.values())
        written *= -(-p.filters // array.rows)
        packed = prod(counts) > prod(y_blocks.values())
        if packed and lanes < array.rows and p.y in self.whole_rows:
            written *= 2  # what holds nothing is filled
        return max(boxes * tiles, fetching / array.weight_bytes_per_second, written) + tiles


def _values(rest: object, dims: Sequence[Dim]) -> tuple[int, ...]:
    """All values of an integer expression of some dims, from 0 on each."""
    grid = {
        d.name: np.arange(d.hi).reshape([-1 if j == k else 1 for j in range(len(dims))])  # type: ignore[arg-type]
        for k, d in enumerate(dims)
    }
    return tuple(int(v) for v in np.unique(evaluate(rest, grid)))  # type: ignore[arg-type]


def _lane_axis(x: Load, weights: set[str]) -> int:
    """The axis of x whose subscript the weights have, too, and no pixel."""
    axes = [k for k, i in enumerate(x.indices) if variables(i) and variables(i) <= weights]
    return CHANNELS if CHANNELS in axes or not axes else max(axes[-1], CHANNELS)


def _is_elementwise(nest: Nest) -> bool:
    """Whether one statement reads every tensor where it writes its result, constants aside."""
    if len(nest.statements) != 1:
        return False
    (s,) = nest.statements
    where = s.targets[0].indices
    found = loads(s.values[0])
    read: list[Load | Element] = [x for x in found if len(x.indices) == len(where)]
    read += [e for x in found for i in x.indices for e in elements(i)]
    return all(x.indices == where for x in read)
