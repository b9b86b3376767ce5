"""What a pass is, and how a pipeline of them is written as text and run.

A pass is a frozen dataclass whose fields are its options; file name, `name` and command line
spelling are the same. `run` takes a module and gives a module; unchanged means the same
object. Pipelines read `fold, quantize{bits=8}, tile[conv1]{m=32}`: options in braces, and in
brackets the node that a pass instance is limited to (as option `node`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nncc.ir.graph import Module

if TYPE_CHECKING:
    from nncc.machines.machine import Machine


@dataclass(frozen=True)
class Pass:
    """One step of the pipeline. Subclasses state `before → after` in their docstring."""

    name: ClassVar[str]

    def run(self, module: Module, target: Machine) -> Module:
        """The module after this pass. Raises PassError if the options do not fit it."""
        raise NotImplementedError

    def __call__(self, module: Module, target: Machine | None = None) -> Module:
        """`run` for the Python API; without a target, for the machine that Python runs on."""
        if target is None:
            from nncc.machines import load

            target = load("cpu")
        return self.run(module, target)
