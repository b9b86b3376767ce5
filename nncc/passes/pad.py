"""Give reductions that reach over the border of a tensor a copy of it with the border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from nncc.ir.bounds import Range, bounds
from nncc.ir.expr import Const, Expr, Load, loads, transform
from nncc.ir.graph import Module, Node
from nncc.ir.index import Size, elements, var, variables
from nncc.ir.nests import ASSIGN, Access, Dim, Layout, Nest, Param, Statement, sizes_of
from nncc.ir.types import TensorType
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.lower import fresh_name
from nncc.passes.nest_parts import fresh, map_statements, tensors_of

READS = 8  # a copy pays from so many reads of an element on


@dataclass(frozen=True)
class Pad(Pass):
    """Replace loads that yield a number outside of their tensor by loads from a padded copy.

    t[m,e,f] sum= (x[c, e + r - 1, f + s - 1] else 3) * w[m,c,r,s]
    →
    p[c,h,w] = 3;  p[c, h + 1, w + 1] = x[c,h,w]        (a nest of its own)
    t[m,e,f] sum= p[c, e + r, f + s] * w[m,c,r,s]

    For machines on which a loop cut at the border costs more than the copy: without caches, with
    loops in hardware or without branch prediction. Tensors of which an element is read only a few
    times keep their borders, and so do axes of named sizes. Runs after `lower`.
    """

    name: ClassVar[str] = "pad"

    def run(self, module: Module, target: Machine) -> Module:
        borders = _borders(module)
        if not borders:
            return module
        nests = {n: borders[n].without(x) if n in borders else x for n, x in module.nests.items()}
        types, layouts = dict(module.graph.types), dict(module.graph.layouts)
        copies: dict[Nest, str] = {}  # names of the nests that copy, by what they do
        made: dict[tuple[str, Border], str] = {}
        nodes: list[Node] = []
        for node in module.graph.nodes:
            callee = str(node.attrs.get("callee", ""))
            if callee not in borders:
                nodes.append(node)
                continue
            found = borders[callee]
            value = node.inputs[found.position]
            if (value, found) not in made:
                name = fresh(f"{value}.padded", {*types, *module.symbols})
                made[value, found] = name
                copy = found.copy("")
                if copy not in copies:
                    copies[copy] = fresh_name(f"{callee}.pad", nests)
                    nests[copies[copy]] = replace(copy, name=copies[copy])
                types[name] = copy.outputs[0].type
                if (layout := copy.outputs[0].layout) is not None:
                    layouts[name] = layout
                attrs = {"callee": copies[copy]}
                nodes.append(Node("Call", (value,), (name,), attrs, location=node.location))
            inputs = list(node.inputs)
            inputs[found.position] = made[value, found]
            nodes.append(replace(node, inputs=tuple(inputs)))
        graph = replace(module.graph, nodes=tuple(nodes), types=types, layouts=layouts)
        return replace(module, graph=graph, nests=nests)


def _borders(module: Module) -> dict[str, Border]:
    """By nest that is to read a copy. All its calls do, so none gives a constant there."""
    found: dict[str, Border] = {}
    for name, nest in module.nests.items():
        border = _border(nest) if nest.schedule is None else None
        calls = [n for n in module.graph.nodes if n.attrs.get("callee") == name]
        if border and calls and all(n.inputs[border.position] in module.graph.types for n in calls):
            found[name] = border
    return found


@dataclass(frozen=True)
class Border:
    """An input of a nest that is read outside of its extents.

    Args:
        position: its number among the inputs.
        before: elements that the copy has before the first one, by axis; `after`: behind the last.
    """

    param: Param
    position: int
    other: Const
    before: tuple[int, ...]
    after: tuple[int, ...]

    @staticmethod
    def reach(
        indices: tuple[Size, ...], ranges: Mapping[str, Range]
    ) -> tuple[list[int], list[int]]:
        """The least and the greatest index of each axis, as far as they are numbers."""
        low: list[int] = []
        high: list[int] = []
        for index in indices:
            lo, hi = bounds(index, ranges)
            if isinstance(lo, int) and isinstance(hi, int):
                low.append(lo)
                high.append(hi)
        return low, high

    @property
    def padded(self) -> Param:
        """The copy, in the same layout."""
        old = self.param.type.shape
        shape = tuple(a + n + b for a, n, b in zip(self.before, old, self.after, strict=True))
        kind = TensorType(self.param.type.dtype, shape)
        return replace(self.param, type=kind, layout=_extended(self.param.layout, old, shape))

    def copy(self, name: str) -> Nest:
        """The nest that makes the copy: all of it is filled, then what is inside is put there."""
        made = replace(self.padded, name="y", role="out")
        across = tuple(Dim(f"i{k}", 0, extent) for k, extent in enumerate(made.type.shape))
        inner = tuple(Dim(f"i{k}", 0, extent) for k, extent in enumerate(self.param.type.shape))
        place = tuple(var(d.name) for d in inner)
        moved = tuple(p + n for p, n in zip(place, self.before, strict=True))
        value = Load("x", place, self.param.type.dtype)
        body = (
            Statement("fill", across, (Access("y", place),), ASSIGN, (self.other,)),
            Statement("copy", inner, (Access("y", moved),), ASSIGN, (value,)),
        )
        return Nest(name, (), (replace(self.param, name="x"), made), body)

    def without(self, nest: Nest) -> Nest:
        """The nest that reads the copy."""

        def rule(e: Expr) -> Expr:
            if not isinstance(e, Load) or e.tensor != self.param.name:
                return e
            moved = tuple(i + a for i, a in zip(e.indices, self.before, strict=True))
            return replace(e, indices=moved, other=None)

        params = tuple(self.padded if p == self.param else p for p in nest.params)
        found = map_statements(
            nest, lambda s: replace(s, values=tuple(transform(v, rule) for v in s.values))
        )
        return replace(found, params=params)


def _border(nest: Nest) -> Border | None:
    """The first input of a nest that is worth a copy."""
    for position, param in enumerate(nest.inputs):
        shape = param.type.shape
        reading = _reading(nest, param.name)
        if reading is None or nest.sizes or not all(isinstance(e, int) for e in shape):
            continue
        s, load = reading
        if not isinstance(load.other, Const) or s.combine == ASSIGN or s.where:
            continue
        if any(not isinstance(d.extent, int) for d in s.dims):
            continue
        count = prod(d.extent for d in s.dims if isinstance(d.extent, int))
        if count < READS * prod(e for e in shape if isinstance(e, int)):
            continue
        low, high = Border.reach(load.indices, {d.name: (d.lo, d.hi - 1) for d in s.dims})
        if len(low) < len(shape):
            continue
        before = tuple(max(0, -n) for n in low)
        after = tuple(
            max(0, n + 1 - e) for n, e in zip(high, shape, strict=True) if isinstance(e, int)
        )
        border = Border(param, position, load.other, before, after)
        if any((*before, *after)) and _keeps(param.layout, border):
            return border
    return None


def _reading(nest: Nest, tensor: str) -> tuple[Statement, Load] | None:
    """The one load of a tensor that nothing else reads, also not as a subscript."""
    reading = [s for s in nest.statements if tensor in tensors_of(s)]
    if len(reading) != 1:
        return None
    (s,) = reading
    found = [x for v in s.values for x in loads(v) if x.tensor == tensor]
    subscripts = {e.tensor for size in sizes_of(s) for e in elements(size)}
    return (s, found[0]) if len(found) == 1 and tensor not in subscripts else None


def _keeps(layout: Layout | None, border: Border) -> bool:
    """Whether every axis that grows is a physical dimension of its own."""
    if layout is None:
        return True
    grown = [f"d{k}" for k, n in enumerate(zip(border.before, border.after, strict=True)) if any(n)]
    return all(
        sum(name in variables(d) for d in layout.dims) == 1 and var(name) in layout.dims
        for name in grown
    )


def _extended(layout: Layout | None, old: tuple[Size, ...], new: tuple[Size, ...]) -> Layout | None:
    if layout is None:
        return None
    grown: dict[Size, Size] = {
        var(f"d{k}"): e for k, (o, e) in enumerate(zip(old, new, strict=True)) if o != e
    }
    extents = (grown.get(d, e) for d, e in zip(layout.dims, layout.extents, strict=True))
    return replace(layout, extents=tuple(extents))
