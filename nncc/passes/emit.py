"""Write the Loops code of every nest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from nncc.ir.graph import Module
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.emission.tree import emit_nest


@dataclass(frozen=True)
class Emit(Pass):
    """Turn scheduled nests into Loops functions of the same names.

    nest conv1(…) { … schedule { … } }  →  nest conv1 …, function conv1(…) { for … }
    """

    name: ClassVar[str] = "emit"

    def run(self, module: Module, target: Machine) -> Module:
        functions = dict(module.functions)
        for name, nest in module.nests.items():
            functions[name] = emit_nest(nest, target.operations)
        return module if functions == module.functions else replace(module, functions=functions)
