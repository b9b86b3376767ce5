"""What a graph means: node by node, on numpy arrays.

    run = interpret(module, {"image": array}, evaluate)
    run.outputs["logits"], run.state, run.values["conv1"]

`evaluate` gives the outputs of a node of the op table (`nncc.ops.reference.evaluate`; the op
table lies above this package). Regions, calls of nests and user definitions are done here.
Layouts are ignored: they change no value. Works on a module before and after `fuse` and `lower`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nncc.diagnostics import CheckError, nearest
from nncc.ir.definition import instantiate
from nncc.ir.graph import Graph, Module, Node
from nncc.ir.index import evaluate as evaluate_size
from nncc.ir.interpreter.arguments import Array, bind_sizes
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.nests import Nest
from nncc.ir.types import TensorType, dtype_of

Evaluate = Callable[[Node, Sequence[Array | None]], Sequence[Array]]


@dataclass(frozen=True)
class Run:
    """What one call of a graph gave.

    Args:
        outputs: by name, in the order of the graph.
        state: what each state has become.
        values: every value of the main graph by name, if they were to be kept; values inside of
            a region are named `node/value`.
        sizes: the named sizes of this call.
    """

    outputs: dict[str, Array]
    state: dict[str, Array]
    values: dict[str, Array] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def interpret(
    module: Module,
    inputs: Mapping[str, Array],
    evaluate: Evaluate,
    *,
    state: Mapping[str, Array] | None = None,
    keep: bool = False,
    watch: Callable[[str], None] | None = None,
) -> Run:
    """Runs the main graph once.

    Args:
        inputs: an array for every input of the graph.
        evaluate: the outputs of a node that is neither region, call nor definition.
        state: what `Run.state` of the call before gave; None: the initial values.
        keep: keep every value in `Run.values`.
        watch: is told the name of each node of the main graph before it is done.

    Raises CheckError if an input is missing or does not fit its type, or if a node gives something
    else than its type says.
    """
    graph = module.graph
    _check_names(graph, inputs)
    arguments = [(name, graph.types[name], inputs[name]) for name in graph.inputs]
    sizes = bind_sizes(arguments)
    symbols = _symbols(module, sizes, state or {})
    values: dict[str, Array] = {}
    run = _Interpreter(module, evaluate, sizes, values if keep else None, watch)
    known = run.graph(graph, symbols | {n: inputs[n] for n in graph.inputs}, "")
    states = [n for n, s in module.symbols.items() if s.kind == "state"]
    updates = dict(graph.updates)
    return Run(
        {o: known[o] for o in graph.outputs},
        {n: known[updates.get(n, n)] for n in states},
        values,
        sizes,
    )


def initial_state(module: Module, sizes: Mapping[str, int]) -> dict[str, Array]:
    """The states before the first call. Raises CheckError if a size is not known."""
    return {
        n: s for n, s in _symbols(module, sizes, {}).items() if module.symbols[n].kind == "state"
    }


def _check_names(graph: Graph, inputs: Mapping[str, Array]) -> None:
    for name in graph.inputs:
        if name not in inputs:
            raise _callers(f"input '{name}' is missing", _inputs(graph))
    for name in inputs:
        if name not in graph.inputs:
            raise _callers(f"there is no input '{name}'", nearest(name, graph.inputs, "inputs"))


def _callers(message: str, help: str) -> CheckError:
    """An error in what the caller gives: no comparison has failed."""
    error = CheckError(message, help=help)
    error.exit_status = 2
    return error


def _inputs(graph: Graph) -> str:
    return "inputs: " + ", ".join(f"{n}: {graph.types[n]}" for n in graph.inputs)


def _symbols(
    module: Module, sizes: Mapping[str, int], state: Mapping[str, Array]
) -> dict[str, Array]:
    """The arrays of all symbols; a state without a value in `state` has its initial one."""
    found: dict[str, Array] = {}
    for name, symbol in module.symbols.items():
        if symbol.kind == "state" and name in state:
            bind_sizes([(name, symbol.type, state[name])], sizes)
            found[name] = state[name]
        elif symbol.declared is not None:
            shape = _shape(f"state '{name}'", symbol.declared, sizes)
            found[name] = np.broadcast_to(symbol.data.array, shape)
        else:
            found[name] = symbol.data.array
    return found


def _shape(what: str, type: TensorType, sizes: Mapping[str, int]) -> tuple[int, ...]:
    try:
        return tuple(int(evaluate_size(e, sizes)) for e in type.shape)
    except KeyError as unknown:
        raise CheckError(f"{what} is {type}, but no input says what {unknown} is") from None


class _Interpreter:
    """One call: `sizes` are bound; `values`, if given, collects everything."""

    def __init__(
        self,
        module: Module,
        evaluate: Evaluate,
        sizes: Mapping[str, int],
        values: dict[str, Array] | None,
        watch: Callable[[str], None] | None,
    ) -> None:
        self.module, self.evaluate = module, evaluate
        self.sizes, self.values, self.watch = sizes, values, watch

    def graph(self, graph: Graph, known: dict[str, Array], prefix: str) -> dict[str, Array]:
        """`known` with every value of the graph added."""
        for node in graph.nodes:
            if self.watch and not prefix:
                self.watch(node.name)
            inputs = [known[i] if i else None for i in node.inputs]
            for name, value in zip(node.outputs, self.node(node, inputs, prefix), strict=True):
                if not name:
                    continue
                known[name] = self.checked(node, name, graph.types[name], value)
                if self.values is not None:
                    self.values[prefix + name] = known[name]
        return known

    def node(self, node: Node, inputs: Sequence[Array | None], prefix: str) -> Sequence[Array]:
        """The outputs of one node; those of a call may have merged axes."""
        if node.regions:
            (body,) = node.regions
            arguments = {n: x for n, x in zip(body.inputs, inputs, strict=True) if x is not None}
            known = self.graph(body, arguments, f"{prefix}{node.name}/")
            return [known[o] for o in body.outputs]
        if "callee" in node.attrs:
            return self.call(self.module.nests[str(node.attrs["callee"])], inputs)
        if node.op in self.module.definitions:
            types = [TensorType(dtype_of(x.dtype), x.shape) for x in inputs if x is not None]
            definition = self.module.definitions[node.op]
            return self.call(instantiate(definition, types, node.attrs), inputs)
        return self.evaluate(node, inputs)

    def call(self, nest: Nest, inputs: Sequence[Array | None]) -> Sequence[Array]:
        """The outputs of a nest; parameters may have merged axes of their values."""
        feeds = {
            p.name: x.reshape(_shape(p.name, p.type, self.sizes))
            for p, x in zip(nest.inputs, inputs, strict=True)
            if x is not None
        }
        results = interpret_nest(nest, feeds, self.sizes)
        return [results[p.name] for p in nest.outputs]

    def checked(self, node: Node, name: str, type: TensorType, value: Array) -> Array:
        """The value, which must be what its type says."""
        shape = _shape(f"'{name}'", type, self.sizes)
        if "callee" in node.attrs and value.size == math.prod(shape):
            value = value.reshape(shape)
        if value.shape != shape or value.dtype != type.dtype.numpy:
            raise CheckError(
                f"node '{node.name}' ({node.op}) gave {value.dtype}{list(value.shape)} for "
                f"'{name}', which is {type.dtype}{list(shape)}",
                node.location,
            )
        return value
