"""Passes for the tests of pipelines: one with every kind of option, and some that misbehave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.graph import Module, Node
from nncc.machines.machine import Machine
from nncc.passes.base import Pass


@dataclass(frozen=True)
class Everything(Pass):
    """Does nothing.   x → x"""

    name: ClassVar[str] = "everything"
    count: int = 1
    ratio: float = 0.5
    fast: bool = False
    label: str = ""
    mode: Literal["near", "far"] = "near"
    sizes: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    limit: int | None = None
    node: str = ""
    data: Mapping[str, np.ndarray] | None = None

    def run(self, module: Module, target: Machine) -> Module:
        if self.count < 0:
            raise PassError("count must not be negative")
        return module


@dataclass(frozen=True)
class Tiling(Pass):
    """Takes the names of dimensions.   x → x"""

    name: ClassVar[str] = "tiling"
    node: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    def run(self, module: Module, target: Machine) -> Module:
        return module


@dataclass(frozen=True)
class Needy(Pass):
    """Has an option without a default.   x → x"""

    name: ClassVar[str] = "needy"
    bits: int

    def run(self, module: Module, target: Machine) -> Module:
        return module


@dataclass(frozen=True)
class Crash(Pass):
    """Fails in a way that is not its own.   x → bug"""

    name: ClassVar[str] = "crash"

    def run(self, module: Module, target: Machine) -> Module:
        raise KeyError("a pass forgot something")


@dataclass(frozen=True)
class Scramble(Pass):
    """Gives a module that is wrong.   y = Relu(x) → y = Relu(nothing)"""

    name: ClassVar[str] = "scramble"

    def run(self, module: Module, target: Machine) -> Module:
        wrong = tuple(
            Node(n.op, tuple("nothing" for _ in n.inputs), n.outputs) for n in module.graph.nodes
        )
        return module.with_graph(replace(module.graph, nodes=wrong))


ALL = (Everything, Tiling, Needy, Crash, Scramble)
