"""A model on its way through a pipeline, and what is told of it.

A `Compilation` is what `nncc.driver.lower` gives: every module between the source and what the back
end gets. Of a model that several devices share, it ends where the graph is legalized, and has a
compilation for each segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, cast

from nncc.diagnostics import TargetError
from nncc.ir.graph import Module
from nncc.ir.program import Signature
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.observers import TimePasses
from nncc.passes.text import spell_pipeline
from nncc.runtime.sizes import to_json

CHAIN = "chain"  # in the place of a back end's name: an artifact of several segments

if TYPE_CHECKING:
    from nncc.backends.interface import BackEnd
    from nncc.hosting import HostNode
    from nncc.runtime.batched import FixedSizes


@dataclass(frozen=True)
class Compilation:
    """A module on its way through a pipeline.

    Args:
        source: what went in; `steps`: the passes that ran.
        after: the module after each step.
        timer: what each step took; `notes`: what passes tell the user, by the pass's name.
        segments: of a model for a target beside the host: the parts of `module`, in order.
        host_nodes: what of it is the host's.
        fixed: of a segment for a back end without named sizes: the numbers in their place.
    """

    source: Module
    machine: Machine
    steps: tuple[Pass, ...]
    after: tuple[Module, ...]
    timer: TimePasses
    notes: Mapping[str, str]
    segments: tuple[Compilation, ...] = ()
    host_nodes: tuple[HostNode, ...] = ()
    fixed: FixedSizes | None = None

    @property
    def module(self) -> Module:
        """What came out."""
        return self.after[-1] if self.after else self.source

    @property
    def scheduled(self) -> Module:
        """The nests as Loops are made of them; without Loops, what came out."""
        if not self.module.functions:
            return self.module
        return next((m for m in reversed(self.after) if m.nests and not m.functions), self.module)

    def before(self, name: str) -> Module:
        """The module that the first pass of this name got; without one, what came out."""
        names = [s.name for s in self.steps]
        if name not in names:
            return self.module
        position = names.index(name)
        return self.after[position - 1] if position else self.source


def report_of(compilation: Compilation) -> dict[str, Any]:
    """Facts about a compilation that are known before code is made."""
    return {
        "pipeline": spell_pipeline(compilation.steps),
        "passes": [
            {"pass": t.step, "seconds": t.seconds, "isl_calls": t.isl_calls}
            for t in compilation.timer.timings
        ],
        "notes": dict(compilation.notes),
        "kernels": len(compilation.scheduled.nests),
        "calls": calls(compilation.module),
    }


def needed_macs(compilation: Compilation) -> dict[str, Any]:
    """The multiply-accumulates of each node that becomes a call, as sizes in JSON."""
    from nncc.ops.cost import macs

    return {name: to_json(count) for name, count in macs(compilation.before("lower")).items()}


def calls(module: Module) -> dict[str, str]:
    """The nest that each node of the main graph calls, by the node's name and its outputs."""
    found = {}
    for node in module.graph.nodes:
        if callee := node.attrs.get("callee"):
            for name in (node.name, *filter(None, node.outputs)):
                found[name] = str(callee)
    return found


def signature_of(module: Module) -> Signature:
    """What callers of a module give and get."""
    return Signature(
        tuple((n, module.type_of(n)) for n in module.graph.inputs),
        tuple((n, module.type_of(n)) for n in module.graph.outputs),
        module.sizes,
    )


def back_end(machine: Machine) -> BackEnd:
    """The module `compiler` of a machine's back end. Raises TargetError if it has none."""
    if not machine.backend or not _has_compiler(machine.backend):
        raise TargetError(
            f"target '{machine.name}' has no back end: there is no '{machine.backend}'",
            help=f"back ends: {', '.join(back_ends())}; "
            "its pipeline can still be run: nncc opt --target …",
        )
    return compiler_of(machine.backend)


def compiler_of(name: str) -> BackEnd:
    """The module `compiler` of the back end of that name. Raises TargetError if there is none."""
    if not name.isidentifier() or not _has_compiler(name):
        raise TargetError(f"there is no back end '{name}'")
    return cast("BackEnd", import_module(f"nncc.backends.{name}.compiler"))


def back_ends() -> tuple[str, ...]:
    """The names of all back ends."""
    import nncc.backends

    names = [m.name for m in iter_modules(nncc.backends.__path__) if m.ispkg]
    return tuple(n for n in sorted(names) if _has_compiler(n))


def _has_compiler(name: str) -> bool:
    try:
        return find_spec(f"nncc.backends.{name}.compiler") is not None
    except ModuleNotFoundError:  # there is no such package
        return False
