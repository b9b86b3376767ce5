"""`--check` of a model in segments: each by itself, and all of them chained.

Every segment is checked as a model of its own (`nncc.check`), on the values that the reference has
for its inputs: a wrong one cannot hide behind another. Then the chain runs on the model's inputs,
and every value that goes from segment to segment, and the outputs, are compared with the
reference: the interpreter of the legalized graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from nncc.check import (
    STATE_CALLS,
    Arrays,
    Checked,
    Checker,
    Watch,
    batches,
    count_samples,
    first_difference,
    level_error,
    plural,
    random_inputs,
    total_reduction,
)
from nncc.compilation import Compilation
from nncc.diagnostics import CheckError
from nncc.ir.graph import Module
from nncc.ir.index import var
from nncc.ir.interpreter.graph import Run, initial_state, interpret
from nncc.ops.reference import evaluate
from nncc.passes.partition import without_groups
from nncc.passes.specialize import Specialize
from nncc.rounding import follow
from nncc.runtime.chain import Chain
from nncc.runtime.executable import Executable


def check_segments(
    compilation: Compilation,
    executable: Executable,
    data: Arrays | None = None,
    progress: Watch | None = None,
) -> Checked:
    """As `nncc.check.check`, for a compilation in segments.

    Raises CheckError with the segment, tensor and element that differs.
    """
    assert isinstance(executable, Chain), "made of the compilation"
    return _Segments(compilation, executable, progress).run(data)


class _Segments:
    def __init__(self, compilation: Compilation, chain: Chain, progress: Watch | None) -> None:
        self.compilation, self.chain, self.progress = compilation, chain, progress
        self.checked = Checked(segments=len(compilation.segments))
        self.sizes: dict[str, int] = {}
        for segment in compilation.segments:
            self.sizes |= segment.fixed.sizes if segment.fixed else {}
        self.module = Specialize(sizes=self.sizes)(without_groups(compilation.module))
        self.checkers = [
            Checker(segment, part, progress)
            for segment, part in zip(compilation.segments, chain.parts, strict=True)
        ]

    def run(self, data: Arrays | None) -> Checked:
        if data is None:
            data = random_inputs(self.module)
        else:
            data = _filled(self.compilation.module, data, self.sizes)
        for batch in batches(self.module.graph, data):
            self.batch(batch)
        self.checked.ran = " and ".join(dict.fromkeys(c.checked.ran for c in self.checkers))
        for checker in self.checkers:
            for kind in ("integers", "floats"):
                counts: dict[str, int] = getattr(self.checked, kind)
                for level, count in getattr(checker.checked, kind).items():
                    counts[level] = counts.get(level, 0) + count
            self.checked.rounded += checker.checked.rounded
        return self.checked

    def batch(self, inputs: Arrays) -> None:
        """All segments, and the chain, on one batch."""
        state: Arrays = {}  # of the reference that follows the chain
        stateful = bool(self.chain.wiring.states)
        self.chain.reset()
        for _ in range(STATE_CALLS if stateful else 1):
            expected = interpret(self.module, inputs, evaluate, state=state, keep=True)
            known = {**self._states(state, expected), **expected.values, **inputs}
            for k, checker in enumerate(self.checkers):
                names = checker.reference.graph.inputs
                with _naming(k, self.compilation.segments[k]):
                    checker.run({n: known[n] for n in names})
            state = self._chained(inputs, state, expected).state
            self.checked.calls += 1
        self.checked.samples += count_samples(inputs)
        self.chain.reset()

    def _states(self, state: Arrays, run: Run) -> dict[str, np.ndarray]:
        """The states before a call."""
        return initial_state(self.module, run.sizes) | dict(state)

    def _chained(self, inputs: Arrays, state: Arrays, expected: Run) -> Run:
        """The run of the reference that the chain agrees with; CheckError if there is none."""
        if self.progress:
            what = f"{len(self.checkers)} segments chained ({plural(count_samples(inputs))})"
            self.progress(f"check: {what}")
        found = self.chain.values(inputs)
        reduction = sum(
            total_reduction(c.nests, {**expected.sizes, **self.sizes}) for c in self.checkers
        )
        run = expected
        everything = {**run.values, **run.outputs}
        difference = first_difference(found, everything, reduction)
        if difference is not None:
            followed = follow(self.module, inputs, state, found, reduction)
            if followed.elements:
                run = followed.run
                everything = {**run.values, **run.outputs}
                difference = first_difference(found, everything, reduction)
                self.checked.rounded += followed.elements
        if difference is not None:
            raise level_error("the chain of segments", *difference)
        for name in found.keys() & everything.keys():
            kind = self.checked.integers if found[name].dtype.kind in "iub" else self.checked.floats
            kind["chain"] = kind.get("chain", 0) + 1
        return run


@contextmanager
def _naming(position: int, segment: Compilation) -> Iterator[None]:
    """Puts the segment into the message of a failed check."""
    try:
        yield
    except CheckError as error:
        error.message = f"segment {position} ({segment.machine.name}): {error.message}"
        raise


def _filled(module: Module, data: Arrays, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The data with as many samples as fill whole batches of the compiled sizes."""
    filled = dict(data)
    for name, t in module.graph.types.items():
        x = filled.get(name)
        if x is None or not t.rank or not x.ndim or not len(x):
            continue
        step = next((n for s, n in sizes.items() if t.shape[0] == var(s)), 1)
        missing = -len(x) % step
        filled[name] = np.concatenate([x, np.resize(x, (missing, *x.shape[1:]))]) if missing else x
    return filled
