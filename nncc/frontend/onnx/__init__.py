"""ONNX models in and out.

    module = load("model.onnx")              # a path, bytes or a ModelProto
    save(module, "model.onnx", opset=17)

The package `onnx` is loaded when one of these functions is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nncc.ir.graph import Module

if TYPE_CHECKING:
    import onnx

    from nncc.frontend.onnx.source import ModelSource


def load(source: ModelSource) -> Module:
    """The module that an ONNX model (opset 7 and newer) says.

    Weights are symbols of kind `param` under their ONNX names; rank-0 tensors, small integer
    tensors and Constant nodes are `const`. Symbolic dimensions become named sizes.

    Raises FrontendError for a file that is not a well-formed model, VerifyError for a node whose
    operands do not fit, and UnsupportedError with everything that nncc cannot compile.
    """
    from nncc.frontend.onnx.importer import import_model
    from nncc.frontend.onnx.source import read

    return import_model(read(source))


def save(module: Module, path: str | Path, *, opset: int | None = None) -> None:
    """Writes the main graph of a module as an ONNX file, whole or not at all.

    Args:
        opset: version of the operator set; None: the oldest from 17 on that expresses the graph.

    Raises UnsupportedError with all nodes that have no form in that opset.
    """
    from nncc.frontend.onnx.exporter import write

    write(module, Path(path), opset)


def to_model(module: Module, opset: int | None = None) -> onnx.ModelProto:
    """Like `save`, as a ModelProto."""
    from nncc.frontend.onnx.exporter import export_model

    return export_model(module, opset)
