"""A model in several segments, each an executable of its own, called one after the other.

    Chain(signature, parts, wiring, report)

Values go from part to part as arrays, by their names. States are kept here between calls: the
parts read them as inputs and give what they become as outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nncc.diagnostics import NnccError
from nncc.ir.index import evaluate, variables
from nncc.ir.program import Signature
from nncc.ir.types import TensorType
from nncc.runtime.executable import Array, Call, Executable
from nncc.runtime.statistics import Statistics, total


@dataclass(frozen=True)
class State:
    """A state: its type, and its first value, which may be one element for all."""

    type: TensorType
    first: Array


@dataclass(frozen=True)
class Wiring:
    """What of a chain its parts do not know.

    Args:
        states: by name.
        updates: (state, value): what a state becomes when all parts have run.
    """

    states: Mapping[str, State] = field(default_factory=dict)
    updates: tuple[tuple[str, str], ...] = ()


class Chain(Executable):
    """See the module's docstring. `parts` are in the order in which they run."""

    def __init__(
        self,
        signature: Signature,
        parts: Sequence[Executable],
        wiring: Wiring,
        report: Mapping[str, Any],
    ) -> None:
        super().__init__(signature, report)
        self.parts, self.wiring = tuple(parts), wiring
        self._drop = self._last_uses()
        self._state: dict[str, Array] | None = None
        self._state_sizes: dict[str, int] = {}

    def reset(self) -> None:
        with self._lock:
            self._state = None

    def values(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """As `run`, but every value that a part gives, by its name."""
        arrays = self._checked_inputs(inputs)
        call = self._call_of(arrays)
        with self._lock:
            return self._run(call, arrays, keep=True)

    def _execute(self, call: Call, inputs: list[Array], outputs: list[Array]) -> None:
        with self._lock:
            values = self._run(call, inputs)
        for (name, _), out in zip(self.signature.outputs, outputs, strict=True):
            out[...] = values[name]

    def _run(self, call: Call, inputs: list[Array], keep: bool = False) -> dict[str, Array]:
        values = dict(zip((n for n, _ in self.signature.inputs), inputs, strict=True))
        states = self._states_for(call)
        values |= states
        self._state = None  # what a call leaves that fails
        runs: list[Statistics] = []
        for part, drop in zip(self.parts, self._drop, strict=True):
            part.trace = self.trace
            values |= part.run({n: values[n] for n, _ in part.signature.inputs})
            if part.statistics is not None:
                runs.append(part.statistics)
            if not keep:
                for name in drop:
                    del values[name]
        if states:
            # what a caller gave may change under its hands
            given = {n for n, _ in self.signature.inputs}
            new = {s: values[v].copy() if v in given else values[v] for s, v in self.wiring.updates}
            self._state = states | new
        self.statistics = total(runs) if runs else None
        return values

    def _last_uses(self) -> list[list[str]]:
        """The values that nothing reads after each part."""
        kept = {n for n, _ in self.signature.outputs}
        kept |= {v for _, v in self.wiring.updates} | set(self.wiring.states)
        drop: list[list[str]] = []
        for part in reversed(self.parts):
            names = [n for n, _ in (*part.signature.inputs, *part.signature.outputs)]
            drop.append([n for n in dict.fromkeys(names) if n not in kept])
            kept.update(names)
        return drop[::-1]

    def _states_for(self, call: Call) -> dict[str, Array]:
        """The states that the last call left, or the first ones."""
        types = [s.type for s in self.wiring.states.values()]
        named = sorted(frozenset[str]().union(*(variables(e) for t in types for e in t.shape)))
        sizes = {n: call.sizes[n] for n in named}
        if self._state is None:
            self._state_sizes = sizes
            return {n: _first(s, sizes) for n, s in self.wiring.states.items()}
        if sizes != self._state_sizes:
            kept = ", ".join(f"{n} = {v}" for n, v in self._state_sizes.items())
            raise NnccError(
                f"the model's state is that of calls with {kept}",
                help="call reset() to start anew with other sizes",
            )
        return self._state


def _first(state: State, sizes: Mapping[str, int]) -> Array:
    shape = tuple(int(evaluate(e, sizes)) for e in state.type.shape)
    return np.array(np.broadcast_to(state.first, shape), state.type.dtype.numpy, order="C")
