"""Keep every tensor as rows of a systolic array's unified buffer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from nncc.ir.graph import Module, Node
from nncc.ir.index import Size, product, substitute, var, weighted_sum
from nncc.ir.nests import Layout
from nncc.machines.machine import Machine
from nncc.ops.table import TABLE
from nncc.passes.base import Pass
from nncc.passes.systolic.row_layouts import row_layouts


@dataclass(frozen=True)
class Rows(Pass):
    """Store channels in blocks of as many as the array has rows, or several pixels in a row.

    y = Group(x, w)  →  y @ (d0, d1//256, d2, d3, d1%256 : 8,1,56,56,256) = Group(x, w)

    A row of the unified buffer is then one pixel's block of channels; of tensors with few channels
    it is a block of pixels where that is faster (`systolic/row_layouts`). A view that keeps the
    row-major order (Flatten, Reshape, …) costs nothing: its output is the same rows, in a layout
    that says which element is where. Machines without an array are left alone.

    Args:
        pixels: whether a row may hold several pixels.
    """

    name: ClassVar[str] = "rows"
    pixels: bool = True

    def run(self, module: Module, target: Machine) -> Module:
        if target.array is None:
            return module
        graph = module.graph
        layouts = row_layouts(module, target, pixels=self.pixels)
        for node in graph.nodes:
            if is_view(node) and (source := node.inputs[0]) in layouts:
                layouts[node.outputs[0]] = viewed(
                    layouts[source], graph.types[source].shape, graph.types[node.outputs[0]].shape
                )
        return replace(module, graph=replace(graph, layouts=layouts))


def is_view(node: Node) -> bool:
    """Whether the node's output is its first input in the same row-major order."""
    declared = TABLE.get(node.op)
    return declared is not None and "alias" in declared.traits


def viewed(layout: Layout, source: tuple[Size, ...], shape: tuple[Size, ...]) -> Layout:
    """The layout of a view of `shape` of a tensor of shape `source` that has `layout`.

    Axes that correspond stay as they are; where axes are merged or split, an index of one side is
    counted out in the digits of the other.
    """
    values: dict[str, Size] = {}
    j = 0
    for own, theirs in _matching(source, shape):
        linear = weighted_sum(
            (var(f"d{k}"), int(prod(_literal(shape[k + 1 : theirs.stop])))) for k in theirs
        )  # fmt: skip
        for j in own:
            inner = prod(_literal(source[j + 1 : own.stop]))
            index = linear // inner
            values[f"d{j}"] = index if j == own.start else index % source[j]
    return Layout(tuple(substitute(d, values) for d in layout.dims), layout.extents, layout.fill)


def _literal(sizes: tuple[Size, ...]) -> list[int]:
    return [s if isinstance(s, int) else 1 for s in sizes]


def _matching(a: tuple[Size, ...], b: tuple[Size, ...]) -> list[tuple[range, range]]:
    """Runs of axes of two shapes that hold the same elements, as short as possible."""
    found: list[tuple[range, range]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        m, n = i + (i < len(a)), j + (j < len(b))
        while product(a[i:m]) != product(b[j:n]):
            if m < len(a) and (n == len(b) or _smaller(a[i:m], b[j:n])):
                m += 1
            elif n < len(b):
                n += 1
            else:
                break
        found.append((range(i, m), range(j, n)))
        i, j = m, n
    return found


def _smaller(a: tuple[Size, ...], b: tuple[Size, ...]) -> bool:
    x, y = product(a), product(b)
    return x < y if isinstance(x, int) and isinstance(y, int) else isinstance(x, int)
