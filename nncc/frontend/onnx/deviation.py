"""How far the QDQ model of an integer program is from the program, on data.

    print(deviation(module, {"image": images}))
    logits: largest deviation 0.31 (1 step of 0.31), 4 of 10000 elements differ

Both are run by the reference: the program exactly, the model in float32 as ONNX asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nncc.frontend.onnx.exporter import export_model
from nncc.frontend.onnx.importer import import_model
from nncc.frontend.onnx.source import read
from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.ops.reference import evaluate


@dataclass(frozen=True)
class Deviation:
    """For each output: the largest absolute difference, elements that differ, all elements."""

    outputs: Mapping[str, tuple[float, int, int]]

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: largest deviation {largest:.6g}, {differ} of {count} elements differ"
            for name, (largest, differ, count) in self.outputs.items()
        )


def deviation(module: Module, inputs: Mapping[str, np.ndarray]) -> Deviation:
    """Compares a module with the ONNX model that `save` writes of it. Raises as `save` does."""
    model = import_model(read(export_model(module)))
    expected = interpret(module, inputs, evaluate).outputs
    given = interpret(model, inputs, evaluate).outputs
    found = {}
    for name, value in expected.items():
        difference = np.abs(value.astype(np.float64) - given[name])
        largest = float(difference.max(initial=0.0))
        found[name] = (largest, int(np.count_nonzero(difference)), value.size)
    return Deviation(found)
