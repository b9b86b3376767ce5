"""`--check`: every level computes what the graph means, on the user's data.

    checked = check(compilation, executable, {"image": images})
    print(checked)                       CheckError if a level differs

The reference is the interpreter of the graph as the pipeline's graph passes left it. Compared with
it are the interpreter of the nests (every value that both have), the interpreter of the Loops
(`main`: the outputs) and the native code (the outputs). Integers are exact, floats as
`nncc.tolerance` says; where a float becomes an integer, see `nncc.rounding`. A model with state is
called three times in a row.

Where outputs of Loops or native code differ, the calls of `main` are run one by one, each on what
those before gave: that shows all values, and the first one that is wrong is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import numpy as np

from nncc import isolation
from nncc.compilation import Compilation
from nncc.diagnostics import CheckError, PassError
from nncc.ir.graph import Graph, Module
from nncc.ir.index import Size, product, variables
from nncc.ir.index import evaluate as evaluate_size
from nncc.ir.interpreter.arguments import bind_sizes
from nncc.ir.interpreter.graph import Run, interpret
from nncc.ir.interpreter.loops import interpret as interpret_loops
from nncc.ir.nests import ASSIGN
from nncc.ir.packing import pack, unpack
from nncc.ir.program import MAIN, RESET, Program
from nncc.ir.types import TensorType, i8, u8
from nncc.machines.machine import Machine
from nncc.ops.reference import evaluate
from nncc.passes.plan import program as program_of
from nncc.rounding import follow
from nncc.runtime.executable import Executable
from nncc.tolerance import Difference, compare

Arrays = Mapping[str, np.ndarray]
Watch = Callable[[str], None]  # is told the name of what is done next

# Samples of a symbolic batch that are run at once: the more, the less interpretation for each, as
# long as all values of the graph together take no more than this.
MOST_SAMPLES = 1024
MOST_BYTES = 1 << 28
RANDOM_SIZE = 2  # of each named size, where no data are given
STATE_CALLS = 3
LEVELS = ("nests", "loops", "native")


@dataclass
class Checked:
    """What has been compared: calls, samples, and tensors by level, integer and float ones.

    `rounded` counts elements that a level rounded the other way, since a float is not exact;
    `segments` those of a model for a target beside the host; `ran`: as what the programs ran.
    """

    calls: int = 0
    samples: int = 0
    integers: dict[str, int] = field(default_factory=dict)
    floats: dict[str, int] = field(default_factory=dict)
    rounded: int = 0
    segments: int = 0
    ran: str = "native"

    def __str__(self) -> str:
        found = []
        if exact := sum(self.integers.values()):
            found.append(f"{exact} integer tensors equal")
        if close := sum(self.floats.values()):
            found.append(f"{close} float tensors within tolerance")
        if self.rounded:
            found.append(f"{self.rounded} elements rounded differently, within tolerance")
        levels = f"graph = nests = loops = {self.ran}"
        if self.segments:
            levels += f" in {self.segments} segments, and in a chain"
        return f"{levels}: {', '.join(found)} ({plural(self.samples)})"


def check(
    compilation: Compilation,
    executable: Executable,
    data: Arrays | None = None,
    progress: Watch | None = None,
) -> Checked:
    """Compares all levels of a compilation that went from a graph to native code.

    Args:
        data: arrays by input name, axis 0 = samples; None: random ones. One sample does.
        progress: is told what is run now: `check: loops 3/70 conv1 (2 samples)`.

    Raises CheckError with the first tensor and element that differs.
    """
    if compilation.segments:
        from nncc.check_segments import check_segments

        return check_segments(compilation, executable, data, progress)
    module = compilation.before("fuse")
    if module.nests or module.functions:
        raise PassError(
            "nothing to compare with: the model does not start at the graph level",
            help="check from the graph that it was made of",
        )
    checker = Checker(compilation, executable, progress)
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
    if t.dtype in (i8, u8):
        return rng.integers(lo, hi, shape, t.dtype.numpy, endpoint=True)
    # small numbers: integers of more bits are often indices
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
    step = first[0] if isinstance(first[0], int) else _samples_at_once(graph, known)
    for start in range(0, max(count, 1), step):
        piece = {n: x[start : start + step] for n, x in known.items()}
        if isinstance(first[0], int) and start and len(next(iter(piece.values()))) < step:
            return  # what is left over does not fill a batch of a fixed size
        yield piece


def _samples_at_once(graph: Graph, data: Arrays) -> int:
    sizes = bind_sizes([(n, graph.types[n], x) for n, x in data.items()])
    bits = sum(t.dtype.bits * _largest(product(t.shape), sizes) for t in graph.types.values())
    samples = max(len(next(iter(data.values()))), 1)
    return max(1, min(MOST_SAMPLES, MOST_BYTES * 8 * samples // max(bits, 1)))


class Checker:
    """Compares the levels of a compilation for one machine, one batch after the other."""

    def __init__(
        self,
        compilation: Compilation,
        executable: Executable,
        progress: Watch | None,
    ) -> None:
        self.progress = progress
        self.machine = compilation.machine
        self.reference = compilation.before("fuse")
        self.nests = compilation.scheduled
        self.loops = compilation.module
        self.program = program_of(self.loops)
        self.executable = executable
        self.checked = Checked(ran="native" if self.machine.is_host else "simulated")

    def run(self, inputs: Arrays) -> None:
        """All levels on one batch."""
        stateful = any(s.kind == "state" for s in self.reference.symbols.values())
        nest_state: Arrays = {}
        state = dict.fromkeys(LEVELS, nest_state)  # of the reference of each level
        loops: _Loops | None = None
        self.executable.reset()
        for call in range(STATE_CALLS if stateful else 1):
            expected = self._references(inputs, state)
            watch = self._watch("nests", self.nests, inputs)
            nests = _interpret(self.nests, inputs, nest_state, watch)
            loops = loops or _Loops(self.program, nests.sizes, self.machine)
            watch = self._watch("loops", self.loops, inputs)
            calls = _Calls(self, inputs, state, expected, nests)
            followed = {
                "nests": calls.agree("nests", nests.values),
                "loops": calls.outputs("loops", loops.run(inputs, watch)),
                "native": calls.outputs("native", self._native(inputs)),
            }
            state = {level: run.state for level, run in followed.items()}
            nest_state = nests.state
            self.checked.calls += 1
            if call == 0:
                self.checked.samples += count_samples(inputs)
        self.executable.reset()

    def _references(self, inputs: Arrays, state: Mapping[str, Arrays]) -> dict[str, Run]:
        """The reference for each level: one run, unless their states have parted."""
        distinct = {id(s): s for s in state.values()}
        watch = self._watch("graph", self.reference, inputs)
        runs = {k: _interpret(self.reference, inputs, s, watch) for k, s in distinct.items()}
        return {level: runs[id(s)] for level, s in state.items()}

    def _native(self, inputs: Arrays) -> Arrays:
        if self.progress:
            self.progress(f"check: {self.checked.ran} ({plural(count_samples(inputs))})")
        return self.executable.run(inputs)

    def _watch(self, level: str, module: Module, inputs: Arrays) -> Watch | None:
        """Tells the progress which node or call of a level is next."""
        if (progress := self.progress) is None:
            return None
        nodes = module.graph.nodes
        total = sum("callee" in n.attrs for n in nodes) if level == "loops" else len(nodes)
        steps = count(1)
        samples = plural(count_samples(inputs))

        def watch(name: str) -> None:
            progress(f"check: {level} {next(steps)}/{total} {name} ({samples})")

        return watch

    def count(self, level: str, compared: np.ndarray) -> None:
        """One more tensor has been compared."""
        kind = self.checked.integers if compared.dtype.kind in "iub" else self.checked.floats
        kind[level] = kind.get(level, 0) + 1


@dataclass(frozen=True)
class _Calls:
    """What the levels gave in one call, against the reference of each."""

    checker: Checker
    inputs: Arrays
    state: Mapping[str, Arrays]
    expected: Mapping[str, Run]
    nests: Run

    @cached_property
    def reduction(self) -> int:
        return total_reduction(self.checker.nests, self.nests.sizes)

    def agree(self, level: str, found: Arrays) -> Run:
        """The run of the reference that the values of a level agree with; CheckError if none."""
        run = self.expected[level]
        difference = self._difference(found, run.values)
        if difference is not None:
            followed = follow(
                self.checker.reference, self.inputs, self.state[level], found, self.reduction
            )
            if followed.elements:
                run, difference = followed.run, self._difference(found, followed.run.values)
                self.checker.checked.rounded += followed.elements
        if difference is not None:
            raise level_error(self.spoken(level), *difference)
        for name in found.keys() & run.values.keys():
            self.checker.count(level, found[name])
        return run

    def outputs(self, level: str, outputs: Arrays) -> Run:
        """The run of the reference that the outputs of a level agree with."""
        run = self.expected[level]
        difference = self._difference(outputs, run.outputs)
        if difference is not None:
            simulated = level == "native" and not self.checker.machine.is_host
            # a simulator runs no call alone; or the calls are no longer those of the nests
            if simulated or not self.checker.loops.nests:
                raise level_error(self.spoken(level), *difference)
            run = self.agree(level, self._one_by_one(level))
            # the calls are right: then `main` has to give what follows from them
            if self._difference(outputs, run.outputs) is not None:
                raise level_error(self.spoken(level), *difference)
        for value in outputs.values():
            self.checker.count(level, value)
        return run

    def spoken(self, level: str) -> str:
        """What a level is called in messages."""
        return self.checker.checked.ran if level == "native" else level

    def _difference(self, found: Arrays, expected: Arrays) -> tuple[str, Difference] | None:
        return first_difference(found, expected, self.reduction)

    def _one_by_one(self, level: str) -> dict[str, np.ndarray]:
        """The results of the calls of `main`, each run by itself on those before."""
        nests, loops = self.checker.nests, self.checker.loops
        alone = isolation.interpreted if level == "loops" else isolation.native
        runner = alone(loops, self.checker.machine)
        symbols = {n: s.data.array for n, s in nests.symbols.items() if s.declared is None}
        # those of the nests tell shapes
        values = {**self.nests.values, **symbols, **self.state[level], **self.inputs}
        results: dict[str, np.ndarray] = {}
        for node in nests.graph.nodes:
            if not all(i in values for i in node.inputs if i):
                continue
            if "callee" in node.attrs:
                nest = nests.nests[str(node.attrs["callee"])]
                made = isolation.run_call(loops, nest, node, values, self.nests.sizes, runner)
            else:
                given = [values[i] if i else None for i in node.inputs]
                made = dict(zip(node.outputs, evaluate(node, given), strict=True))
            results |= made
            values |= made
        return results


def first_difference(
    found: Arrays, expected: Arrays, reduction: int
) -> tuple[str, Difference] | None:
    """The first value that both have and that differs."""
    for name, value in found.items():
        if name in expected:
            difference = compare(value, expected[name], reduction)
            if difference is not None:
                return name, difference
    return None


def level_error(level: str, name: str, difference: Difference) -> CheckError:
    """The error of a level of which a tensor differs."""
    return CheckError(
        f"{level} differs from the graph: tensor '{name}' {difference}",
        help="this is a bug in nncc; please report it with the model and the data",
    )


def _interpret(module: Module, inputs: Arrays, state: Arrays, watch: Watch | None = None) -> Run:
    return interpret(module, inputs, evaluate, state=state, keep=True, watch=watch)


def plural(samples: int) -> str:
    """`1 sample`, `2 samples`."""
    return f"{samples} sample{'' if samples == 1 else 's'}"


def count_samples(inputs: Arrays) -> int:
    """How many samples a batch has."""
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
        machine: Machine,
    ) -> None:
        self.program, self.sizes = program, sizes
        self.operations = isolation.operation_functions(machine)
        self.records = {n: o.semantics for n, o in machine.operations.items()}
        self.signed = machine.array is not None  # bytes are kept signed: u8 less 128
        memory = program.memory
        self.weights = program.weights_block()
        self.state = np.zeros(int(evaluate_size(memory.state_bytes, sizes)), np.uint8)
        self.arena = np.zeros(int(evaluate_size(memory.arena_bytes, sizes)), np.uint8)
        self._call(RESET, [self.weights, self.state])

    def run(self, inputs: Arrays, watch: Watch | None = None) -> dict[str, np.ndarray]:
        """The outputs of one call of `main`."""
        signature = self.program.signature
        given = [self._stored(inputs[name], name) for name, _ in signature.inputs]
        shapes = {name: self._shape(t.shape) for name, t in signature.outputs}
        outputs = {
            name: self._stored(np.zeros(shapes[name], t.dtype.numpy), name)
            for name, t in signature.outputs
        }
        self._call(MAIN, [*given, *outputs.values(), self.weights, self.state, self.arena], watch)
        return {
            name: unpack(self._flipped(x), self.program.layouts.get(name), shapes[name])
            for name, x in outputs.items()
        }

    def _stored(self, array: np.ndarray, name: str) -> np.ndarray:
        """An input or output as `main` has it."""
        packed = pack(array, self.program.layouts.get(name), self.sizes)
        return np.array(self._flipped(packed), order="C")

    def _flipped(self, array: np.ndarray) -> np.ndarray:
        return array ^ np.uint8(128) if self.signed and array.dtype == np.uint8 else array

    def _shape(self, extents: Sequence[Size]) -> tuple[int, ...]:
        return tuple(int(evaluate_size(e, self.sizes)) for e in extents)

    def _call(self, name: str, arrays: Sequence[np.ndarray], watch: Watch | None = None) -> None:
        sizes = [self.sizes[s] for s in self.program.functions[name].sizes]
        interpret_loops(
            self.program.functions, name, arrays, sizes, self.operations, watch, self.records
        )
