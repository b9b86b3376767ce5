"""nncc: a compiler for neural networks.

    import nncc

    net = nncc.compile("model.onnx")                # for the CPU of this computer
    logits = net.run({"image": images})["logits"]

    module = nncc.load("model.onnx")                # step by step
    module = nncc.passes.Fold()(module)
    nncc.save(module, "model.nn")

Everything is loaded when it is first used: importing this package costs a few milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nncc.diagnostics import (
    CheckError,
    FrontendError,
    NnccError,
    PassError,
    SimError,
    TargetError,
    UnsupportedError,
    VerifyError,
)

if TYPE_CHECKING:
    import nncc.onnx_backend as onnx_backend
    import nncc.passes as passes
    from nncc.driver import compile, load, save
    from nncc.ir.graph import Module
    from nncc.machines import load as load_machine
    from nncc.runtime.executable import Executable

__version__ = "0.1.0"

__all__ = [
    "CheckError",
    "Executable",
    "FrontendError",
    "Module",
    "NnccError",
    "PassError",
    "SimError",
    "TargetError",
    "UnsupportedError",
    "VerifyError",
    "__version__",
    "compile",
    "load",
    "load_machine",
    "onnx_backend",
    "passes",
    "save",
]

# Where each public name comes from: (module, name in it); "" is the module itself.
_LAZY = {
    "compile": ("nncc.driver", "compile"),
    "load": ("nncc.driver", "load"),
    "save": ("nncc.driver", "save"),
    "Executable": ("nncc.runtime.executable", "Executable"),
    "Module": ("nncc.ir.graph", "Module"),
    "load_machine": ("nncc.machines", "load"),
    "onnx_backend": ("nncc.onnx_backend", ""),
    "passes": ("nncc.passes", ""),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'nncc' has no attribute {name!r}")
    where, inside = _LAZY[name]
    module = import_module(where)
    return getattr(module, inside) if inside else module


def __dir__() -> list[str]:
    return sorted(__all__)
