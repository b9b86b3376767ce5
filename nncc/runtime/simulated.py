"""A compiled model that a simulator runs.

Simulated(signature, report, simulate)

def simulate(sizes, inputs, outputs, trace) -> Statistics: …     fills the outputs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nncc.ir.index import evaluate
from nncc.ir.program import Signature
from nncc.runtime.executable import Array, Call, Executable
from nncc.runtime.sizes import from_json
from nncc.runtime.statistics import Layer, Statistics
from nncc.runtime.trace import Trace

# Named sizes, inputs and outputs in the order of the signature (C-contiguous, of the right dtype
# and shape; the outputs are to be filled), and what events are added to, if anything.
Simulate = Callable[[Mapping[str, int], list[Array], list[Array], Trace | None], Statistics]


class Simulated(Executable):
    """A model of which a simulator does each call; `statistics` are those of the last one.

    Args:
        report: with `macs`, the multiply-accumulates that each layer needs (sizes in JSON); they
            take the place of those that the simulator counts.
    """

    def __init__(self, signature: Signature, report: Mapping[str, Any], simulate: Simulate) -> None:
        super().__init__(signature, report)
        self._simulate = simulate
        known = report.get("macs")
        self._macs = None if known is None else {n: from_json(m) for n, m in known.items()}

    def _execute(self, call: Call, inputs: list[Array], outputs: list[Array]) -> None:
        with self._lock:
            found = self._simulate(call.sizes, inputs, outputs, self.trace)
            layers = tuple(self._with_macs(layer, call.sizes) for layer in found.layers)
            self.statistics = replace(found, layers=layers)

    def _with_macs(self, layer: Layer, sizes: Mapping[str, int]) -> Layer:
        """A layer with the multiply-accumulates that the model needs, where they are known."""
        if self._macs is None:
            return layer
        return replace(layer, macs=evaluate(self._macs.get(layer.name, 0), sizes))
