"""From a graph to its integer form, node by node: what can be done in integers is, by a rule.

The rest keeps its floats, and conversions are put in between by the `IntegerGraph`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nncc.ir.graph import Module, Node
from nncc.ops.table import TABLE
from nncc.passes.dce import remove_dead
from nncc.passes.quantization.integers import IntegerGraph

# The ops at the border of floats and integers: a model that has them comes quantized.
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")

# Does a node in integers and gives "", or gives the reason why not; None: there is nothing to do.
Attempt = Callable[[Node], str | None]


def converted(
    module: Module, graph: IntegerGraph, attempt: Attempt
) -> tuple[Module, tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The module made of what `graph` has become, when every node was tried.

    Also the names of the nodes that are done in integers, and of those that are not, with reasons.
    """
    integer: list[str] = []
    floats: list[tuple[str, str]] = []
    for node in module.graph.nodes:
        if id(node) in graph.done:
            integer.append(node.name)
            continue
        graph.at(node)
        reason = attempt(node)
        if reason == "":
            integer.append(node.name)
            continue
        if reason is not None:
            floats.append((node.name, reason))
        for name in node.inputs:
            graph.floats(name)
        types = tuple(module.graph.types[o] for o in node.outputs if o)
        graph.builder.add(node, types if node.op in module.definitions else None)
    for name in (*module.graph.outputs, *(v for _, v in module.graph.updates)):
        graph.floats(name)
    built = graph.builder.graph(module.graph.name, module.graph.outputs)
    built = replace(built, updates=module.graph.updates)
    result = remove_dead(replace(module, graph=built, symbols=graph.builder.symbols))
    return result, tuple(integer), tuple(floats)


def is_float(node: Node, module: Module) -> bool:
    """Whether the node reads or gives floats; if only their shape is read, it does not."""
    declared = TABLE.get(node.op)
    reads = () if declared is not None and "of_shape" in declared.traits else node.inputs
    return any(module.type_of(v).dtype.is_float for v in (*reads, *node.outputs) if v)


def signal_to_noise(expected: list[np.ndarray], given: list[np.ndarray]) -> float:
    """10*log10(sum y² / sum (y - y')²) in dB; infinite if they are equal."""
    signal = sum(float(np.square(e, dtype=np.float64).sum()) for e in expected)
    noise = sum(
        float(np.square(e.astype(np.float64) - g).sum())
        for e, g in zip(expected, given, strict=True)
    )
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))
