"""How a convolution is packed: which pixels share the lanes, and what it reads for them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from nncc.ir.expr import Const, loads
from nncc.ir.graph import Module
from nncc.ir.index import var
from nncc.ir.nests import Dim, Layout, Param
from nncc.ir.types import TensorType
from nncc.passes.nest_parts import full_axes
from nncc.passes.packing.layers import Convolution, Window, window
from nncc.passes.pad import Border


@dataclass(frozen=True)
class Packing:
    """A convolution in an operation's lanes, with the pooling behind it if there is one.

    Args:
        c: the convolution; `window`: the pooling.
        lanes: of the operation; `group`: how many neighbours it sums.
        axes: of the result, by dimension of the convolution.
    """

    c: Convolution
    window: Window | None
    lanes: int
    group: int
    axes: dict[str, int]

    @property
    def y(self) -> Param:
        """The result, as the last nest calls it."""
        return (self.window.nest if self.window else self.c.nest).outputs[0]

    @property
    def result(self) -> str:
        """The value that is computed."""
        return (self.window.node if self.window else self.c.node).outputs[0]

    @property
    def filters(self) -> int:
        return rounds(self.c.filters)

    @property
    def taps(self) -> int:
        return rounds(self.c.taps)

    @property
    def pixels(self) -> int:
        """Pixels of the result in the lanes."""
        return self.lanes // self.filters

    @property
    def pieces(self) -> int:
        """Vectors in a row of the result."""
        return -(-self.y.type.static_shape[self.last_axis] // self.pixels)

    @property
    def step(self) -> int:
        """Pixels of the convolution in one of the result."""
        return self.window.sizes.get(self.last_axis, 1) if self.window else 1

    @property
    def steps(self) -> dict[str, int]:
        """The same for the dimensions of its rows."""
        sizes = self.window.sizes if self.window else {}
        return {d.name: sizes.get(self.axes[d.name], 1) for d in self.c.rows}

    @property
    def words(self) -> int:
        """Groups of neighbours that the pixels of a vector read in a row."""
        return -(-(self.step * self.pixels + self.taps - 1) // self.group)

    @property
    def last_axis(self) -> int:
        return self.axes[self.c.pixels.name]

    @property
    def order(self) -> tuple[int, ...]:
        """Axes of the result as they lie in memory: channels innermost."""
        return (*(self.axes[d.name] for d in self.c.rows), self.last_axis,
                self.axes[self.c.filters.name])  # fmt: skip

    @property
    def dense(self) -> TensorType:
        """The result as it is computed: rows of the image hold whole vectors."""
        rows = (rounds(d) // self.steps[d.name] for d in self.c.rows)
        return TensorType(self.y.type.dtype, (*rows, self.pieces * self.pixels, self.filters))

    @property
    def layout(self) -> Layout:
        """The same as a layout of the value; axes of one element stand outside."""
        alone = [k for k in range(self.y.type.rank) if k not in self.order]
        dims = tuple(var(f"d{k}") for k in (*alone, *self.order))
        return Layout(dims, (*(1 for _ in alone), *self.dense.shape))

    @property
    def border(self) -> Border:
        """The activation with what taps reach beside it, in rows of whole vectors."""
        c = self.c
        param = c.nest.param(c.x.tensor)
        shape = param.type.static_shape
        low, high = _reach(c)
        before = [max(0, -n) for n in low]
        after = [max(0, n + 1 - e) for n, e in zip(high, shape, strict=True)]
        read = (self.pieces - 1) * self.step * self.pixels + self.words * self.group
        width = max(read, before[-1] + shape[-1])
        after[-1] = -(-width // self.lanes) * self.lanes - before[-1] - shape[-1]
        other = c.x.other if isinstance(c.x.other, Const) else Const(0, param.type.dtype)
        return Border(param, c.nest.inputs.index(param), other, tuple(before), tuple(after))

    @property
    def is_better(self) -> bool:
        """Whether the lanes are filled by whole groups, with fewer operations than without."""
        if self.lanes % self.filters or self.lanes == self.filters:
            return False
        if self.step * self.pixels % self.group:
            return False
        return self.words < self.taps * self.pixels


def packing(module: Module, c: Convolution, accumulators: int) -> Packing | None:
    """How to pack a convolution; None where it cannot be done or does not pay.

    Args:
        accumulators: vectors that there is room for; a window takes one for each place in it.
    """
    semantic = c.operation.semantics
    lanes = semantic.params[0].type.static_shape[0]
    (inner,) = semantic.statements[-1].reduction_dims
    group = next(rounds(d) for d in semantic.statements[-1].dims if d.name == inner)
    axes = full_axes(c.nest, c.last)
    assert axes is not None, "a convolution covers its result"
    found = Packing(c, window(module, c), lanes, group, axes)
    numbers = [*(d.extent for d in c.sum.dims), *found.y.type.shape]
    if not all(isinstance(n, int) for n in numbers) or not has_plain_operands(module, c):
        return None
    rows = [axes[d.name] for d in c.rows]
    windows = found.window.sizes if found.window else {}
    if rows != sorted(rows) or set(windows) - {*rows, found.last_axis} or not found.is_better:
        return None
    if prod(windows.values()) > accumulators:
        return None
    shape = found.y.type.static_shape
    return found if tuple(shape[k] for k in rows) == found.dense.static_shape[:-2] else None


def has_plain_operands(module: Module, c: Convolution) -> bool:
    """Constant weights, a row-major activation; everything else is one number a filter."""
    x, w = c.nest.param(c.x.tensor), c.nest.param(c.w.tensor)
    if not _is_constant(module, c.value(w.name)) or c.value(x.name) not in module.graph.types:
        return False
    if x.layout is not None or not isinstance(c.x.other, Const | None):
        return False
    if len(_reach(c)[0]) < x.type.rank:
        return False
    extents = {d.name: d.extent for d in c.sum.dims}
    used = [(extents.get(str(i)), e) for i, e in zip(c.w.indices, w.type.shape, strict=True)]
    if any(extent not in (None, e) for extent, e in used):
        return False
    total = c.sum.targets[0]
    each = (var(c.filters.name),)
    for load in (x for s in (c.first, c.last) for v in s.values for x in loads(v)):
        if load.tensor == total.tensor and load.indices == total.indices:
            continue
        is_one = load.indices == each and c.nest.param(load.tensor).type.shape == (c.filters.hi,)
        if not is_one or not _is_constant(module, c.value(load.tensor)):
            return False
    return True


def _is_constant(module: Module, name: str) -> bool:
    return name in module.symbols and module.symbols[name].kind != "state"


def _reach(c: Convolution) -> tuple[list[int], list[int]]:
    return Border.reach(c.x.indices, {d.name: (d.lo, d.hi - 1) for d in c.sum.dims})


def rounds(d: Dim) -> int:
    """The extent of a dimension that has a number for it."""
    return int(str(d.extent))
