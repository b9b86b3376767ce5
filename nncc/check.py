"""`--check`: every level computes what the graph means, on the user's data.

    checked = check(compilation, executable, {"image": images})
    print(checked)                       CheckError if a level differs

The reference is the interpreter of the graph as the pipeline's graph passes left it. Compared with
it are the interpreter of the nests (every value that both have), the interpreter of the Loops
(`main`: the outputs) and the native code (the outputs). Integers are exact, floats as
`nncc.tolerance` says. A model with state is called three times in a row.

Where outputs of Loops or native code differ, each call of `main` is run by itself on reference
values, and the first one with a wrong result is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nncc import isolation
from nncc.diagnostics import CheckError, PassError
from nncc.driver import Compilation
from nncc.ir.graph import Graph, Module
from nncc.ir.index import Size, product, variables
from nncc.ir.index import evaluate as evaluate_size
from nncc.ir.interpreter.graph import Run, interpret
from nncc.ir.interpreter.loops import interpret as interpret_loops
from nncc.ir.interpreter.operations import operation_function
from nncc.ir.nests import ASSIGN
from nncc.ir.program import MAIN, RESET, Program
from nncc.ir.types import TensorType
from nncc.ops.reference import evaluate
from nncc.passes.plan import program as program_of
from nncc.runtime.executable import Executable
from nncc.tolerance import Difference, compare

Arrays = Mapping[str, np.ndarray]

SAMPLES = 128  # of a symbolic batch that are run at once
RANDOM_SIZE = 2  # of each named size, where no data are given
STATE_CALLS = 3


@dataclass
class Checked:
    """What has been compared: calls, samples, and tensors by level, integer and float ones."""

    calls: int = 0
    samples: int = 0
    integers: dict[str, int] = field(default_factory=dict)
    floats: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        found = []
        if exact := sum(self.integers.values()):
            found.append(f"{exact} integer tensors equal")
        if close := sum(self.floats.values()):
            found.append(f"{close} float tensors within tolerance")
        return f"graph = nests = loops = native: {', '.join(found)} ({self.samples} samples)"


def check(compilation: Compilation, executable: Executable, data: Arrays | None = None) -> Checked:
    """Compares all levels of a compilation that went from a graph to native code.

    Args:
        data: arrays by input name, axis 0 = samples; None: random ones.

    Raises CheckError with the first tensor and element that differs.
    """
    module = compilation.before("fuse")
    if module.nests or module.functions:
        raise PassError(
            "nothing to compare with: the model does not start at the graph level",
            help="check from the graph that it was made of",
        )
    checker = _Checker(compilation, executable)
    inputs = random_inputs(module) if data is None else data
    for batch in batches(module.graph, inputs):
        checker.run(batch)
    return checker.checked


def random_inputs(module: Module, seed: int = 0) -> dict[str, np.ndarray]:
    """An array for each input, each named size being RANDOM_SIZE."""
    rng = np.random.default_rng(seed)
    sizes = dict.fromkeys(module.sizes, RANDOM_SIZE)
    return {n: _random(module.graph.types[n], sizes, rng) for n in module.graph.inputs}


def _random(t: TensorType, sizes: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    shape = tuple(int(evaluate_size(e, sizes)) for e in t.shape)
    if t.dtype.is_float:
        return rng.standard_normal(shape).astype(t.dtype.numpy)
    lo, hi = t.dtype.limits
    # small numbers: integer inputs are often indices
    return rng.integers(max(lo, 0), min(hi, 1), shape, endpoint=True).astype(t.dtype.numpy)


def batches(graph: Graph, data: Arrays) -> Iterator[dict[str, np.ndarray]]:
    """The data in pieces that the graph takes: axis 0 of every input is cut alike."""
    known = {n: data[n] for n in graph.inputs if n in data}
    first = [graph.types[n].shape[0] for n in known if graph.types[n].rank]
    counts = {len(x) for x in known.values() if x.ndim}
    fits = set(known) == set(data) == set(graph.inputs) and len(first) == len(known)
    if not fits or len(set(first)) != 1 or len(counts) != 1:
        yield dict(data)
        return
    (count,) = counts
    step = first[0] if isinstance(first[0], int) else SAMPLES
    for start in range(0, max(count, 1), step):
        piece = {n: x[start : start + step] for n, x in known.items()}
        if isinstance(first[0], int) and start and len(next(iter(piece.values()))) < step:
            return  # what is left over does not fill a batch of a fixed size
        yield piece


class _Checker:
    """Compares one batch after the other."""

    def __init__(self, compilation: Compilation, executable: Executable) -> None:
        self.machine = compilation.machine
        self.reference = compilation.before("fuse")
        self.nests = compilation.before("emit")
        self.loops = compilation.module
        self.program = program_of(self.loops)
        self.executable = executable
        self.operations = {
            name: operation_function(o.semantics) for name, o in self.machine.operations.items()
        }
        self.checked = Checked()

    def run(self, inputs: Arrays) -> None:
        """All levels on one batch."""
        stateful = any(s.kind == "state" for s in self.reference.symbols.values())
        state: Arrays = {}
        nest_state: Arrays = {}
        loops: _Loops | None = None
        self.executable.reset()
        for call in range(STATE_CALLS if stateful else 1):
            expected = _interpret(self.reference, inputs, state)
            found = _interpret(self.nests, inputs, nest_state)
            self._values(expected, found)
            loops = loops or _Loops(self.program, expected.sizes, self.operations)
            self._outputs("loops", loops.run(inputs), inputs, expected, found)
            self._outputs("native", self.executable.run(inputs), inputs, expected, found)
            state, nest_state = expected.state, found.state
            self.checked.calls += 1
            if call == 0:
                self.checked.samples += _samples(inputs)
        self.executable.reset()

    def _values(self, expected: Run, found: Run) -> None:
        reduction = total_reduction(self.nests, expected.sizes)
        for name, value in found.values.items():
            if name in expected.values:
                difference = compare(value, expected.values[name], reduction)
                if difference is not None:
                    raise _error("nests", name, difference)
                self._count("nests", value)

    def _outputs(
        self, level: str, outputs: Arrays, inputs: Arrays, expected: Run, nests: Run
    ) -> None:
        reduction = total_reduction(self.nests, expected.sizes)
        for name, value in outputs.items():
            difference = compare(value, expected.outputs[name], reduction)
            if difference is not None:
                culprit = self._first_wrong_call(level, inputs, nests, reduction)
                raise _error(level, *(culprit or (name, difference)))
            self._count(level, value)

    def _first_wrong_call(
        self, level: str, inputs: Arrays, nests: Run, reduction: int
    ) -> tuple[str, Difference] | None:
        """The first call that, run by itself on the nests' values, has a wrong result."""
        symbols = {n: s.data.array for n, s in self.nests.symbols.items() if s.declared is None}
        values = {**symbols, **inputs, **nests.values}
        alone = isolation.interpreted if level == "loops" else isolation.native
        runner = alone(self.loops, self.machine)
        for node in self.nests.graph.nodes:
            if "callee" not in node.attrs or not all(i in values for i in node.inputs if i):
                continue
            nest = self.nests.nests[str(node.attrs["callee"])]
            results = isolation.run_call(self.loops, nest, node, values, nests.sizes, runner)
            for name, value in results.items():
                difference = compare(value, values[name], reduction)
                if difference is not None:
                    return name, difference
        return None

    def _count(self, level: str, compared: np.ndarray) -> None:
        kind = self.checked.integers if compared.dtype.kind in "iub" else self.checked.floats
        kind[level] = kind.get(level, 0) + 1


def _error(level: str, name: str, difference: Difference) -> CheckError:
    return CheckError(
        f"{level} differs from the graph: tensor '{name}' {difference}",
        help="this is a bug in nncc; please report it with the model and the data",
    )


def _interpret(module: Module, inputs: Arrays, state: Arrays) -> Run:
    return interpret(module, inputs, evaluate, state=state, keep=True)


def _samples(inputs: Arrays) -> int:
    return next((len(x) for x in inputs.values() if x.ndim), 1)


def total_reduction(module: Module, sizes: Mapping[str, int]) -> int:
    """How many terms all reductions of a run sum, one after the other."""
    total = 0
    for node in module.graph.nodes:
        callee = node.attrs.get("callee")
        for statement in module.nests[str(callee)].statements if callee else ():
            if statement.combine != ASSIGN:
                reduced = set(statement.reduction_dims)
                extents = [d.extent for d in statement.dims if d.name in reduced]
                total += _largest(product(extents), sizes)
    return max(total, 1)


def _largest(size: Size, sizes: Mapping[str, int]) -> int:
    """An extent; one that depends on other dimensions counts as 1."""
    return int(evaluate_size(size, sizes)) if variables(size) <= sizes.keys() else 1


# -- running `main` and single calls -----------------------------------------------------------
class _Loops:
    """A program that the interpreter of Loops runs; its state is kept between calls."""

    def __init__(
        self,
        program: Program,
        sizes: Mapping[str, int],
        operations: Mapping[str, Callable[..., np.ndarray]],
    ) -> None:
        self.program, self.sizes, self.operations = program, sizes, operations
        memory = program.memory
        self.weights = program.weights_block()
        self.state = np.zeros(int(evaluate_size(memory.state_bytes, sizes)), np.uint8)
        self.arena = np.zeros(int(evaluate_size(memory.arena_bytes, sizes)), np.uint8)
        self._call(RESET, [self.weights, self.state])

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The outputs of one call of `main`."""
        signature = self.program.signature
        outputs = {
            name: np.zeros([int(evaluate_size(e, self.sizes)) for e in t.shape], t.dtype.numpy)
            for name, t in signature.outputs
        }
        given = [np.array(inputs[name], order="C") for name, _ in signature.inputs]
        self._call(MAIN, [*given, *outputs.values(), self.weights, self.state, self.arena])
        return outputs

    def _call(self, name: str, arrays: Sequence[np.ndarray]) -> None:
        sizes = [self.sizes[s] for s in self.program.functions[name].sizes]
        interpret_loops(self.program.functions, name, arrays, sizes, self.operations)
