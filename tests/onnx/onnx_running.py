"""Running modules by the reference and models by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from nncc.ir.graph import Module
from nncc.ir.interpreter.graph import interpret
from nncc.ops.reference import evaluate
from nncc.ops.verify import verify


def run(module: Module, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a verified module by the reference."""
    verify(module)
    return list(interpret(module, inputs, evaluate).outputs.values())


def run_onnx(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model by onnxruntime, without its optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, inputs))
