"""One call of `main` by itself: on given values, by the interpreter of Loops or as native code.

    run_call(module, nest, node, values, sizes, interpreted(module, machine))   ->  {"conv1": array}

So the check finds which call of a wrong model is the wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nncc.compilation import back_end
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import evaluate, var
from nncc.ir.interpreter.loops import interpret
from nncc.ir.interpreter.operations import operation_function
from nncc.ir.nests import Nest
from nncc.ir.packing import pack, unpack
from nncc.ir.types import TensorType, u8
from nncc.machines.machine import Machine
from nncc.passes.plan import Plan, program

Array = np.ndarray
Sizes = Mapping[str, int]
# Runs the function of a name on arrays for its buffers, in order, and writes the results.
Runner = Callable[[str, Sequence[Array], Sizes], None]


def run_call(
    module: Module, nest: Nest, node: Node, values: Mapping[str, Array], sizes: Sizes, run: Runner
) -> dict[str, Array]:
    """The results of one call, by the names of the values.

    Args:
        module: with Loops functions; `nest`: the callee of `node`.
        values: logical arrays of the node's inputs and (for their shapes) its outputs.
    """
    inputs = dict(zip((p.name for p in nest.inputs), filter(None, node.inputs), strict=True))
    shapes = {p.name: _shape(p.type.shape, sizes) for p in nest.params}
    arrays: dict[str, Array] = {}
    for buffer in module.functions[nest.name].buffers:
        if buffer.access == "in":
            logical = values[inputs[buffer.name]].reshape(shapes[buffer.name])
            packed = pack(logical, nest.param(buffer.name).layout, sizes)
            arrays[buffer.name] = np.array(packed, order="C")
        else:
            arrays[buffer.name] = np.zeros(_shape(buffer.shape, sizes), buffer.dtype.numpy)
    run(nest.name, list(arrays.values()), sizes)
    return {
        name: unpack(arrays[p.name], p.layout, shapes[p.name]).reshape(values[name].shape)
        for p, name in zip(nest.outputs, node.outputs, strict=True)
        if name
    }


def operation_functions(machine: Machine) -> dict[str, Callable[..., Array]]:
    """What the operations of a machine that work on values compute, by name."""
    return {
        name: operation_function(o.semantics)
        for name, o in machine.operations.items()
        if all(p.type.is_static for p in o.semantics.params)
    }


def interpreted(module: Module, machine: Machine) -> Runner:
    """Runs functions with the interpreter of Loops."""
    operations = operation_functions(machine)

    def run(name: str, arrays: Sequence[Array], sizes: Sizes) -> None:
        own = [sizes[s] for s in module.functions[name].sizes]
        interpret(module.functions, name, arrays, own, operations)

    return run


def native(module: Module, machine: Machine) -> Runner:
    """Runs functions as native code, each compiled as a model of its own."""

    def run(name: str, arrays: Sequence[Array], sizes: Sizes) -> None:
        alone = Plan().run(_single_call(module, name), machine)
        compiled = back_end(machine).compile_program(program(alone), machine)
        buffers = module.functions[name].buffers
        named = {b.name: a for b, a in zip(buffers, arrays, strict=True)}
        inputs = {
            n: named.get(n, np.zeros(_shape(alone.type_of(n).shape, sizes), np.uint8))
            for n in alone.graph.inputs
        }
        compiled.run_into(inputs, {n: named[n] for n in alone.graph.outputs})

    return run


def _single_call(module: Module, name: str) -> Module:
    """A module that calls one function on physical buffers.

    One more input for each named size, an array of that length, says what the size is.
    """
    function = module.functions[name]
    used = [b for b in function.buffers if b.access != "local"]
    types = {b.name: TensorType(b.dtype, b.shape) for b in used}
    lengths = {f"length {s}": TensorType(u8, (var(s),)) for s in function.sizes}
    inputs = tuple(b.name for b in used if b.access == "in")
    outputs = tuple(b.name for b in used if b.access == "out")
    graph = Graph(
        "single",
        (*inputs, *lengths),
        outputs,
        (Node("Call", inputs, outputs, {"callee": name}),),
        types | lengths,
    )
    return Module(graph, function.sizes, functions={name: function})


def _shape(extents: Sequence[object], sizes: Sizes) -> tuple[int, ...]:
    return tuple(int(evaluate(e, sizes)) for e in extents)  # type: ignore[arg-type]
