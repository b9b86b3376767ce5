"""What of a model can be compiled for a target: `nncc doctor`.

examine("model.onnx", "cpu")    ->  Findings with all problems, and the share of work covered
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nncc.diagnostics import Diagnostic, UnsupportedError
from nncc.driver import load_module, steps_for
from nncc.hosting import HostNode, host_nodes
from nncc.ir.graph import Module
from nncc.ir.index import evaluate
from nncc.machines import load as load_machine
from nncc.machines.machine import Machine
from nncc.ops.cost import node_macs, parameters, total_macs
from nncc.passes.legalize import Decision, Legalize
from nncc.passes.pipeline import run


@dataclass(frozen=True)
class Findings:
    """What was found.

    Args:
        problems: one for each thing that cannot be compiled.
        nodes, ops, parameters: of the imported graph; 0 and empty if it cannot be imported.
        macs, supported_macs: multiply-accumulates of one run with every named size at 1.
        host: what is left to the host.
    """

    model: str
    target: str
    problems: tuple[Diagnostic, ...] = ()
    nodes: int = 0
    ops: dict[str, int] = field(default_factory=dict)
    parameters: int = 0
    macs: int = 0
    supported_macs: int = 0
    host: tuple[HostNode, ...] = ()


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
    problems, left, lost = placed(module, machine, host)
    total = total_macs(module, dict.fromkeys(module.sizes, 1))
    return Findings(
        name,
        machine.name,
        problems,
        len(module.graph.nodes),
        dict(Counter(n.op for n in module.graph.nodes)),
        parameters(module),
        total,
        total - lost,
        left,
    )


def placed(
    module: Module, machine: Machine, host: bool = True
) -> tuple[tuple[Diagnostic, ...], tuple[HostNode, ...], int]:
    """What the target's pipeline refuses of a module that could be imported, what of it the host
    computes, and the multiply-accumulates of what is refused."""
    steps = steps_for(module, machine, host=host)
    names = [s.name for s in steps]
    if "legalize" not in names:  # it is behind the module, or the pipeline leaves it out
        return (), (), 0
    end = names.index("legalize")
    clean, step = run(module, machine, steps[:end]), steps[end]
    assert isinstance(step, Legalize)
    decisions: list[Decision] = []
    try:
        legalized = replace(step, on_report=decisions.extend).run(clean, machine)
    except UnsupportedError as error:
        return error.diagnostics, (), _refused_macs(clean, decisions)
    return (), host_nodes(legalized, decisions), 0


def _refused_macs(module: Module, decisions: Sequence[Decision]) -> int:
    """The multiply-accumulates of the nodes that `legalize` refuses of a module."""
    refused = {(d.node, d.op) for d in decisions if d.action == "refuse"}
    split = {(d.node, d.op) for d in decisions if d.action == "decompose"}
    lost = {n for n, _ in refused}
    ones = dict.fromkeys(module.sizes, 1)
    return sum(
        int(evaluate(count, ones))
        for node, count in zip(module.graph.nodes, node_macs(module), strict=True)
        # a node is lost with one of those that it is decomposed into, which have its name
        if (node.name, node.op) in refused or (node.name in lost and (node.name, node.op) in split)
    )
