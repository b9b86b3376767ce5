"""Run a scheduled nest through its Loops code and compare it with what the nest means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncc.ir.index import evaluate
from nncc.ir.interpreter.loops import interpret
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.interpreter.operations import operation_function
from nncc.ir.loops import Function
from nncc.ir.nests import Layout, Nest, Param
from nncc.ir.verify_loops import verify_functions
from nncc.machines.machine import Machine
from nncc.passes.emission.tree import emit_nest
from tests.ops.op_instances import assert_close


def positions(layout: Layout, shape: tuple[int, ...], sizes: Mapping[str, int]) -> tuple:
    """Physical subscripts of every logical element."""
    indices = np.indices(shape)
    values = {**sizes, **{f"d{k}": indices[k] for k in range(len(shape))}}
    return tuple(np.broadcast_to(evaluate(d, values), shape) for d in layout.dims)


def packed(array: np.ndarray, p: Param, sizes: Mapping[str, int]) -> np.ndarray:
    """The physical array of a logical one; padding holds garbage unless the layout fills it."""
    if p.layout is None:
        return np.ascontiguousarray(array)
    garbage = 99 if p.layout.fill is None else p.layout.fill
    extents = tuple(evaluate(e, sizes) for e in p.layout.extents)
    result = np.full(extents, garbage, array.dtype)
    result[positions(p.layout, array.shape, sizes)] = array
    return result


def run_loops(
    nest: Nest, function: Function, inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int],
    machine: Machine,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The logical outputs of a nest's function."""
    arrays = []
    for buffer in function.buffers:
        p = nest.param(buffer.name)
        if p.role == "in":
            arrays.append(packed(inputs[p.name], p, sizes))
        else:
            shape = [evaluate(e, sizes) for e in buffer.shape]
            arrays.append(np.full(shape, 77, p.type.dtype.numpy))
    operations = {k: operation_function(o.semantics) for k, o in machine.operations.items()}
    values = [sizes[s] for s in function.sizes]
    interpret({function.name: function}, function.name, arrays, values, operations)
    by_name = dict(zip((b.name for b in function.buffers), arrays, strict=True))
    results = {}
    for p in nest.outputs:
        physical = by_name[p.name]
        shape = tuple(evaluate(e, sizes) for e in p.type.shape)
        if p.layout is not None:
            physical = physical[positions(p.layout, shape, sizes)]
        results[p.name] = physical.reshape(shape)
    return results


def check(
    nest: Nest, inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int], machine: Machine
) -> Function:
    """Emits `nest` under its schedule and asserts that it computes what the nest means."""
    function = emit_nest(nest, machine.operations)
    verify_functions(
        {function.name: function}, {k: o.semantics for k, o in machine.operations.items()}
    )
    actual = run_loops(nest, function, inputs, sizes, machine)
    for name, expected in interpret_nest(nest, inputs, sizes).items():
        assert_close(actual[name], expected, f"{nest.name}.{name}", rtol=1e-4)
    return function
