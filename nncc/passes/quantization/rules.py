"""How each op is done in integers: a function from a node to the nodes that replace it.

Ops without an entry here follow from their traits: views carry their operand's integers, an
elementwise function of one value is a table. The ops named here have an integer op of their own
(contractions, sums, averages) or only choose among their operand's elements (MaxPool, Concat),
which traits do not say.

A rule raises NoIntegerForm with the reason if it cannot; the node then stays in floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nncc.ir.graph import Attrs, Node
from nncc.ops.integer import (
    absorb_zero_point,
    accumulator_bound,
    add_multipliers,
    quantize_multiplier,
)
from nncc.ops.integer_pooling import distinct_counts
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE, Site, attr
from nncc.passes.quantization.integers import (
    Epilogue,
    Function,
    IntegerGraph,
    NoIntegerForm,
    result_attrs,
)
from nncc.passes.quantization.scales import Scale, quantize_weight

Rule = Callable[[Node, IntegerGraph], None]


@dataclass(frozen=True)
class Weights:
    """The weights of a contraction, output channel first, and its bias.

    `transposed`: the op wants the matrix with the output channel last.
    """

    name: str
    array: np.ndarray
    bias_name: str
    bias: np.ndarray
    transposed: bool = False


def _weights(graph: IntegerGraph, name: str, array: np.ndarray, bias: str) -> Weights:
    channels = array.shape[0]
    if not bias:
        return Weights(name, array, f"{name}.bias", np.zeros(channels))
    values = graph.weight(bias)
    if values is None:
        raise NoIntegerForm("its bias is not constant")
    if values.size not in (1, channels) or values.shape[-1:] not in ((), (values.size,)):
        raise NoIntegerForm(f"its bias is {graph.type(bias)}, not one number for each channel")
    return Weights(name, array, bias, np.broadcast_to(values.reshape(-1), (channels,)))


def _contract(
    graph: IntegerGraph,
    x: str,
    weights: Weights,
    make: Callable[[str, str, str, str, Scale], Node],
    epilogue: Epilogue,
    axis: int,
) -> None:
    """Quantizes weights and bias, adds the contraction that `make` gives, and rescales.

    `make(x, w, b, y, scale)` gets names of int8 x, int8 w, int32 b and int32 y. The zero point of
    x is folded into b: sum (x - zx)*w + b == sum x*w + (b - zx * sum w).
    """
    made, x_scale = graph.integer(x)
    y_scale = graph.scale(epilogue.output)
    rows = weights.array.reshape(len(weights.array), -1).astype(np.float64)
    axis_of_rows = 1 if weights.transposed else 0
    scales = graph.weight_scales(
        weights.name, axis_of_rows, rows, weights.bias, x_scale.scale, y_scale.scale
    )
    accumulator_scales = scales.astype(np.float64) * x_scale.scale
    w = quantize_weight(rows, scales).reshape(weights.array.shape)
    b = np.rint(weights.bias / accumulator_scales).astype(np.int32)
    # two bounds: with the zero point in the operand (as it is meant) and in the bias
    graph.check_accumulator(accumulator_bound(w, b, x_scale.zero))
    absorbed = absorb_zero_point(w, b, x_scale.zero)
    graph.check_accumulator(accumulator_bound(w, absorbed, 0))
    accumulator = graph.builder.fresh(f"{epilogue.output}.acc")
    stored = np.ascontiguousarray(w.T) if weights.transposed else w
    graph.add(
        make(
            made,
            graph.symbol(stored, f"{weights.name}.q", weights.name),
            graph.symbol(absorbed, f"{weights.bias_name}.q", weights.name),
            accumulator,
            x_scale,
        )
    )
    graph.rescale(accumulator, accumulator_scales / y_scale.scale, epilogue, axis)


def _conv(node: Node, graph: IntegerGraph) -> None:
    array = graph.weight(node.inputs[1])
    if array is None:
        raise NoIntegerForm("its weights are not constant")
    weights = _weights(graph, node.inputs[1], array, (*node.inputs, "")[2])

    def make(x: str, w: str, b: str, y: str, scale: Scale) -> Node:
        attrs = {**node.attrs, **({"pad_value": scale.zero} if scale.zero else {})}
        return Node("IntConv", (x, w, b), (y,), attrs)

    _contract(graph, node.inputs[0], weights, make, graph.epilogue(node.outputs[0]), 1)


def _matrix(
    node: Node, graph: IntegerGraph, array: np.ndarray, bias: str, channels_first: bool
) -> None:
    """x times a constant matrix plus a row."""
    attrs: Attrs = {"transB": True} if channels_first else {}
    rows = array if channels_first else array.T
    weights = replace(_weights(graph, node.inputs[1], rows, bias), transposed=not channels_first)

    def make(x: str, w: str, b: str, y: str, scale: Scale) -> Node:
        return Node("IntMatMul", (x, w, b), (y,), attrs)

    rank = graph.type(node.outputs[0]).rank
    epilogue = graph.epilogue(node.outputs[0])
    _contract(graph, node.inputs[0], weights, make, epilogue, rank - 1)


def _gemm(node: Node, graph: IntegerGraph) -> None:
    array = graph.weight(node.inputs[1])
    if array is None or attr(node, "transA"):
        raise NoIntegerForm("its second matrix is not constant, or its first is transposed")
    if attr(node, "beta") != 1:
        raise NoIntegerForm(f"beta={attr(node, 'beta')}")
    alpha = np.float32(attr(node, "alpha"))
    _matrix(node, graph, array * alpha, (*node.inputs, "")[2], attr(node, "transB"))


def _matmul(node: Node, graph: IntegerGraph) -> None:
    array = graph.weight(node.inputs[1])
    if array is not None and array.ndim == 2:
        if graph.type(node.inputs[0]).rank < 2:
            raise NoIntegerForm("its first operand is a vector")
        _matrix(node, graph, array, "", False)
        return
    inner = graph.type(node.inputs[0]).shape[-1]
    if not isinstance(inner, int):
        raise NoIntegerForm(f"the sum over {inner} products cannot be shown to fit into int32")
    (a, a_scale), (b, b_scale) = (graph.integer(i) for i in node.inputs)
    reach = [max(127 - s.zero, s.zero + 128) for s in (a_scale, b_scale)]
    graph.check_accumulator(inner * reach[0] * reach[1])
    epilogue = graph.epilogue(node.outputs[0])
    y_scale = graph.scale(epilogue.output)
    zeros = {"za": a_scale.zero, "zb": b_scale.zero}
    accumulator = graph.builder.fresh(f"{epilogue.output}.acc")
    attrs = {k: v for k, v in zeros.items() if v}
    graph.add(Node("IntMatMul", (a, b), (accumulator,), attrs))
    factor = a_scale.scale * b_scale.scale / y_scale.scale
    graph.rescale(accumulator, np.array(factor), epilogue)


def _add(node: Node, graph: IntegerGraph) -> None:
    if not any(graph.is_integer(i) for i in node.inputs):
        raise NoIntegerForm("its operands are floats")
    (a, a_scale), (b, b_scale) = (graph.integer(i) for i in node.inputs)
    epilogue = graph.epilogue(node.outputs[0])
    scale = graph.scale(epilogue.output)
    try:
        ma, mb, s = add_multipliers(a_scale.scale / scale.scale, b_scale.scale / scale.scale)
    except ValueError as e:
        raise NoIntegerForm(str(e)) from e
    zeros = {k: v for k, v in (("za", a_scale.zero), ("zb", b_scale.zero)) if v}
    attrs = {**zeros, "ma": ma, "mb": mb, "s": s, **result_attrs(scale, epilogue)}
    made = graph.builder.fresh(f"{epilogue.output}.q")
    graph.add(Node("IntAdd", (a, b), (made,), attrs))
    graph.set_integer(epilogue.output, made, scale)
    graph.merge(epilogue)


def _averaged(
    graph: IntegerGraph, node: Node, counts: tuple[int, ...]
) -> tuple[str, Scale, Epilogue, list[tuple[int, int]], Attrs]:
    """What every average needs: operand, result, and a multiplier for each count."""
    if not graph.is_integer(node.inputs[0]):
        raise NoIntegerForm("its operand is in floats")
    made, x_scale = graph.integer(node.inputs[0])
    epilogue = graph.epilogue(node.outputs[0])
    scale = graph.scale(epilogue.output)
    factor = x_scale.scale / scale.scale
    try:
        multipliers = [quantize_multiplier(factor / c) for c in counts]
    except ValueError as e:
        raise NoIntegerForm(str(e)) from e
    graph.check_accumulator(max(counts) * max(127 - x_scale.zero, x_scale.zero + 128))
    zero = {"zx": x_scale.zero} if x_scale.zero else {}
    return made, scale, epilogue, multipliers, {**zero, **result_attrs(scale, epilogue)}


def _average_pool(node: Node, graph: IntegerGraph) -> None:
    type = graph.type(node.inputs[0])
    if not all(isinstance(s, int) for s in type.shape[2:]):
        raise NoIntegerForm("its spatial sizes are symbolic")
    counts = distinct_counts(Site(node, (type,)))
    x, scale, epilogue, multipliers, result = _averaged(graph, node, counts)
    attrs = {
        **node.attrs, **result, "counts": counts,
        "m": tuple(m for m, _ in multipliers), "s": tuple(s for _, s in multipliers),
    }  # fmt: skip
    made = graph.builder.fresh(f"{epilogue.output}.q")
    graph.add(Node("IntAveragePool", (x,), (made,), attrs))
    graph.set_integer(epilogue.output, made, scale)
    graph.merge(epilogue)


def _global_average(node: Node, graph: IntegerGraph) -> None:
    _spatial_mean(node, graph, keepdims=True)


def _reduce_mean(node: Node, graph: IntegerGraph) -> None:
    rank = graph.type(node.inputs[0]).rank
    axes = graph.weight(node.inputs[1]) if len(node.inputs) > 1 else None
    if rank < 3 or axes is None or {int(a) % rank for a in axes.flat} != set(range(2, rank)):
        raise NoIntegerForm("only means over all spatial axes have an integer form")
    _spatial_mean(node, graph, attr(node, "keepdims"))


def _spatial_mean(node: Node, graph: IntegerGraph, keepdims: bool) -> None:
    extents = graph.type(node.inputs[0]).shape[2:]
    count = np.prod([e for e in extents if isinstance(e, int)], dtype=object)
    if not all(isinstance(e, int) for e in extents):
        raise NoIntegerForm("its spatial sizes are symbolic")
    x, scale, epilogue, [(m, s)], attrs = _averaged(graph, node, (int(count),))
    made = graph.builder.fresh(f"{epilogue.output}.q")
    pooled = made if keepdims else graph.builder.fresh(f"{epilogue.output}.pooled")
    graph.add(Node("IntGlobalAveragePool", (x,), (pooled,), {**attrs, "m": m, "s": s}))
    if not keepdims:
        axes = graph.builder.constant(
            np.arange(2, 2 + len(extents), dtype=np.int64), f"{epilogue.output}.axes"
        )
        graph.add(Node("Squeeze", (pooled, axes), (made,)))
    graph.set_integer(epilogue.output, made, scale)
    graph.merge(epilogue)


def _same_elements(node: Node, graph: IntegerGraph) -> None:
    """Ops whose result consists of elements of their first operand: the integers are carried."""
    if not graph.is_integer(node.inputs[0]):
        raise NoIntegerForm("its operand is in floats")
    made, scale = graph.integer(node.inputs[0])
    outputs = tuple(graph.builder.fresh(f"{o}.q") if o else "" for o in node.outputs)
    graph.add(Node(node.op, (made, *node.inputs[1:]), outputs, node.attrs))
    for old, new in zip(node.outputs, outputs, strict=True):
        if old:
            graph.set_integer(old, new, scale)


def _concat(node: Node, graph: IntegerGraph) -> None:
    if not any(graph.is_integer(i) for i in node.inputs):
        raise NoIntegerForm("its operands are floats")
    scale = graph.scale(node.outputs[0])
    operands = tuple(graph.integer_as(i, scale) for i in node.inputs)
    made = graph.builder.fresh(f"{node.outputs[0]}.q")
    graph.add(Node("Concat", operands, (made,), node.attrs))
    graph.set_integer(node.outputs[0], made, scale)


def _table(node: Node, graph: IntegerGraph) -> None:
    """An elementwise function of one int8 value: what it gives for each of the 256 values."""
    varying = dict.fromkeys(i for i in node.inputs if i and i not in graph.module.symbols)
    if not varying or not all(graph.is_integer(i) for i in varying):
        raise NoIntegerForm("its operands are floats")
    functions = {i: graph.function_of(i) for i in varying}
    roots = {f.root for f in functions.values()}
    if len(roots) > 1:
        raise NoIntegerForm("it is a function of several values")
    shapes = {graph.type(i) for i in (*varying, node.outputs[0])}
    constants = [graph.weight(i) for i in node.inputs if i and i not in varying]
    if len(shapes) > 1 or any(c is None or c.size != 1 for c in constants):
        raise NoIntegerForm("it is not the same function of every element")
    operands = [
        functions[i].values if i in varying else _scalar(graph.weight(i)) if i else None
        for i in node.inputs
    ]
    with np.errstate(all="ignore"):
        (values,) = evaluate(node, operands)
    if values.dtype != np.float32:
        raise NoIntegerForm(f"its result is {graph.type(node.outputs[0]).dtype}")
    graph.set_function(node.outputs[0], Function(roots.pop(), values))


def _scalar(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else array.reshape(())


RULES: Mapping[str, Rule] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "Concat": _concat,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "MatMul": _matmul,
    "MaxPool": _same_elements,
    "ReduceMean": _reduce_mean,
}


def apply(node: Node, graph: IntegerGraph) -> None:
    """Does a node in integers. Raises NoIntegerForm with the reason if it cannot be."""
    declared = TABLE.get(node.op)
    if declared is None or node.regions:
        raise NoIntegerForm("it is defined by the user")
    if "elementwise" in declared.traits:
        try:
            _table(node, graph)
            return
        except NoIntegerForm:
            if node.op not in RULES:
                raise
    if node.op in RULES:
        RULES[node.op](node, graph)
    elif "view" in declared.traits:
        _same_elements(node, graph)
    else:
        raise NoIntegerForm("there is no integer op for it")
