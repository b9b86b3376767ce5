"""Whether the samples of a batch are independent: then a large batch can be done in pieces.

    mixed(module, "N")    ->    "", or which node makes one sample from others

The samples are the indices of a named size. A tensor keeps them along the one axis whose extent is
that size; they are independent if every element is made only from elements of the same sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nncc.diagnostics import NnccError
from nncc.ir.expr import Value, loads, walk
from nncc.ir.graph import Module
from nncc.ir.index import Element, Size, elements, replace_elements, var, variables
from nncc.ir.nests import Nest, Scan, Statement, sizes_of
from nncc.ir.types import TensorType
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE
from nncc.passes.group_nest import op_nest


def sample_axis(t: TensorType, size: str) -> int | None:
    """The axis along which a tensor has the samples; None if it has none.

    Raises ValueError if they are in several axes or in a part of one.
    """
    axes = [k for k, extent in enumerate(t.shape) if size in variables(extent)]
    if not axes:
        return None
    if len(axes) > 1 or t.shape[axes[0]] != var(size):
        raise ValueError(f"{t} has no axis that is {size} alone")
    return axes[0]


def mixed(module: Module, size: str) -> str:
    """Why samples of `size` are not independent in a module at the graph level; "" if they are."""
    graph = module.graph
    builder = GraphBuilder(module.symbols)
    try:
        for name in graph.inputs:
            sample_axis(graph.types[name], size)
            builder.input(name, graph.types[name])
        for o in graph.outputs:
            if sample_axis(module.type_of(o), size) is None:
                return f"output '{o}' is the same for all samples"
    except ValueError as reason:
        return str(reason)
    for node in graph.nodes:
        types = tuple(graph.types[o] for o in node.outputs if o)
        declared = TABLE.get(node.op)
        try:
            if declared is None or "of_shape" not in declared.traits:
                _check(op_nest(module, replace(builder.site(node), outputs=types)), size)
        except ValueError as reason:
            return f"{node.name} ({node.op}): {reason}"
        except NnccError as error:
            return f"{node.name} ({node.op}): {error.message}"
        builder.add(node, tuple(graph.types[o] if o else types[0] for o in node.outputs))
    return ""


def _check(nest: Nest, size: str) -> None:
    """Raises ValueError with the reason if a nest mixes samples."""
    axes = {p.name: sample_axis(p.type, size) for p in nest.params}
    if any(isinstance(item, Scan) and size in _variables(item) for item in nest.body):
        raise ValueError("it goes from sample to sample")
    for s in nest.statements:
        _check_statement(s, axes, size)


def _variables(scan: Scan) -> frozenset[str]:
    return variables(scan.dim.lo) | variables(scan.dim.hi)


def _check_statement(s: Statement, axes: dict[str, int | None], size: str) -> None:
    over = [d for d in s.dims if size in variables(d.lo) | variables(d.hi)]
    if any(d.lo != 0 or d.hi != var(size) for d in over) or len(over) > 1:
        raise ValueError("it takes a part of the samples")
    sample = over[0].name if over else ""
    own = {sample, size}
    bounds = [b for d in s.dims if d.name != sample for b in (d.lo, d.hi)]
    if any(own & variables(e) for e in (*bounds, *s.where, *_numbers(s))):
        raise ValueError("what it computes depends on the number of samples")
    for tensor, indices in _accesses(s):
        for k, index in enumerate(indices):
            if axes[tensor] == k:
                if not sample or index != var(sample):
                    raise ValueError(f"it mixes samples of {tensor}")
            elif own & variables(replace_elements(index, _without_subscripts)):
                raise ValueError(f"it mixes samples of {tensor}")
    if sample and axes[s.targets[0].tensor] is None:
        raise ValueError("it folds all samples into one")


def _numbers(s: Statement) -> Iterator[Size]:
    """Integer expressions whose value is computed with."""
    return (x.size for value in s.values for x in walk(value) if isinstance(x, Value))


def _accesses(s: Statement) -> Iterator[tuple[str, tuple[Size, ...]]]:
    """Every element that a statement reads or writes, those in integer expressions too."""
    yield from ((t.tensor, t.indices) for t in s.targets)
    yield from ((x.tensor, x.indices) for v in s.values for x in loads(v))
    yield from ((e.tensor, e.indices) for expression in sizes_of(s) for e in elements(expression))


def _without_subscripts(e: Element) -> Element:
    """An element whose own subscripts say nothing: they are an access by themselves."""
    return replace(e, indices=(0,) * len(e.indices))
