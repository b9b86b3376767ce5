"""What of a model the operations of a machine compute, found by trying.

The target's part of a legalized module goes through the passes that write operations on memory,
with small numbers for named sizes; what they refuse, the host must do. Then other nodes may have
other neighbours, and all is tried again: nests that are the same as before are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nncc.diagnostics import NnccError, PassError, VerifyError
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.nests import Nest
from nncc.ir.tensor import Tensor
from nncc.ir.verify_layout import verify_layout
from nncc.machines.machine import Machine
from nncc.passes.fuse import Fuse
from nncc.passes.group_nest import group_nest, has_nest
from nncc.passes.lower import with_layouts
from nncc.passes.partition import partition
from nncc.passes.rows import Rows, is_view
from nncc.passes.specialize import Specialize
from nncc.passes.systolic.kinds import code_of

SIZE = 2  # in the place of named sizes: with 1, dims would vanish that matter for others


Tried = dict[object, str]  # by nest and constants: why no operation computes it, "" if one does


def refused(module: Module, target: Machine, tried: Tried) -> Mapping[str, str]:
    """For each value that no operation computes the reason, by name."""
    found: dict[str, str] = {}
    for segment in partition(module):
        if segment.device == "target":
            found |= _segment(segment.module, target, tried)
    return found


def _segment(module: Module, target: Machine, tried: Tried) -> dict[str, str]:
    try:
        module = Specialize(sizes=dict.fromkeys(module.sizes, SIZE)).run(module)
    except NnccError:
        module = Specialize(sizes=dict.fromkeys(module.sizes, 1)).run(module)
    module = Rows(pixels=False).run(Fuse().run(module, target), target)
    found: dict[str, str] = {}
    for node in module.graph.nodes:
        try:
            _try(module, node, target, tried)
        except (PassError, VerifyError) as error:
            for name in _made(node):
                found[name] = error.message
    return found


def _try(module: Module, node: Node, target: Machine, tried: Tried) -> None:
    """Raises PassError or VerifyError if the node has no operations."""
    if is_view(node):
        _check_view(module.graph, node)
    elif not has_nest(module, node):
        raise PassError(f"{node.op} is no loop nest")
    else:
        nest = with_layouts(group_nest(module, module.graph, node), module.graph)
        values = {
            p.name: module.symbols[v].data
            for p, v in zip(nest.nest.inputs, nest.inputs, strict=True)
            if v in module.symbols
        }
        key = (nest.nest, tuple(values.items()))
        if key not in tried:
            tried[key] = _reason(nest.nest, values, target)
        if tried[key]:
            raise PassError(tried[key])


def _reason(nest: Nest, values: Mapping[str, Tensor], target: Machine) -> str:
    """Why no operation computes a nest; "" if one does."""
    shapes = {p.name: p.type.static_shape for p in nest.inputs if p.name in values}
    constants = {name: values[name].array.reshape(shape) for name, shape in shapes.items()}
    try:
        code_of(nest, constants, target)
    except PassError as error:
        return error.message
    return ""


def _check_view(graph: Graph, node: Node) -> None:
    name = node.outputs[0]
    if name not in graph.layouts:
        raise PassError(f"{graph.types[name]} has no channels")
    verify_layout(graph.layouts[name], graph.types[name], name)


def _made(node: Node) -> Iterator[str]:
    """Every value that is made in a node."""
    yield from filter(None, node.outputs)
    for region in node.regions:
        for inner in region.nodes:
            yield from _made(inner)
