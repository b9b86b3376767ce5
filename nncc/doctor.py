"""What of a model can be compiled for a target: `nncc doctor`.

examine("model.onnx", "cpu")    ->  Findings with all problems, and the share of work covered
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from nncc.diagnostics import Diagnostic, UnsupportedError
from nncc.driver import load_module, steps_for
from nncc.ir.graph import Module
from nncc.machines import load as load_machine
from nncc.machines.machine import Machine
from nncc.ops.cost import macs, parameters
from nncc.passes.pipeline import run


@dataclass(frozen=True)
class Findings:
    """What was found.

    Args:
        problems: one for each thing that cannot be compiled.
        nodes, ops, parameters: of the imported graph; 0 and empty if it cannot be imported.
        macs, supported_macs: multiply-accumulates of one run with every named size at 1.
    """

    model: str
    target: str
    problems: tuple[Diagnostic, ...] = ()
    nodes: int = 0
    ops: dict[str, int] = field(default_factory=dict)
    parameters: int = 0
    macs: int = 0
    supported_macs: int = 0


def examine(model: str | Path, target: str = "cpu", *, host: bool = True) -> Findings:
    """Imports the model and legalizes it for the target, and collects what is refused.

    Raises FrontendError and VerifyError for a model that is wrong in itself, TargetError for an
    unknown target.
    """
    machine = load_machine(target)
    try:
        module = load_module(model)
    except UnsupportedError as error:
        from nncc.frontend.onnx.coverage import coverage

        bad = {d.location.node for d in error.diagnostics}
        supported, total = coverage(model, bad)
        return Findings(
            str(model), machine.name, error.diagnostics, macs=total, supported_macs=supported
        )
    return _examined(str(model), module, machine, host)


def _examined(name: str, module: Module, machine: Machine, host: bool) -> Findings:
    from nncc.ir.index import evaluate

    ones = dict.fromkeys(module.sizes, 1)
    work = {node: int(evaluate(count, ones)) for node, count in macs(module).items()}
    problems = refused(module, machine, host)
    bad = {d.location.node for d in problems}
    return Findings(
        name,
        machine.name,
        problems,
        len(module.graph.nodes),
        dict(Counter(n.op for n in module.graph.nodes)),
        parameters(module),
        sum(work.values()),
        sum(count for node, count in work.items() if node not in bad),
    )


def refused(module: Module, machine: Machine, host: bool = True) -> tuple[Diagnostic, ...]:
    """What the target's pipeline refuses of a module that could be imported."""
    steps = steps_for(module, machine, host=host)
    names = [s.name for s in steps]
    end = names.index("legalize") + 1 if "legalize" in names else 0
    try:
        run(module, machine, steps[:end])
    except UnsupportedError as error:
        return error.diagnostics
    return ()
