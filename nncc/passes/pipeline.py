"""Running a pipeline: passes one after the other, with observers around each.

    run(module, load("cpu"), parse("fold, cse, dce"), [TimePasses()])   ->  the module after them

What is not a pass's own work (verifying, printing, timing, snapshots, progress) is an observer:
see `nncc.passes.observers`. A pipeline can start at any level: `remaining` leaves out what a
module read from a file has behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nncc.diagnostics import NnccError
from nncc.ir.graph import Module
from nncc.ir.program import MAIN
from nncc.machines.machine import HOST, Machine
from nncc.passes.base import Pass
from nncc.passes.text import spell_pass

Level = Literal["graph", "nests", "loops"]

# By what one sees that a module for a device has a pass behind it, the last pass first.
_MARKS: dict[str, Callable[[Module, str], bool]] = {
    "plan": lambda m, _: MAIN in m.functions,
    "perform": lambda m, _: bool(m.functions),
    "emit": lambda m, _: bool(m.functions),
    "lower": lambda m, _: bool(m.nests),
    "rows": lambda m, _: bool(m.graph.layouts),
    "layout": lambda m, _: bool(m.graph.layouts),
    "fuse": lambda m, device: has_groups(m, device),
    "legalize": lambda m, device: device != HOST and has_groups(m, HOST),
}


def has_groups(module: Module, device: str) -> bool:
    """Whether nodes of a module stand in groups for a device."""
    return any(n.op == "Group" and n.attrs.get("device") == device for n in module.graph.nodes)


class Observer:
    """Sees every step of a pipeline. The methods here do nothing."""

    def begin(self, module: Module, steps: Sequence[Pass]) -> None:
        """Before the first pass."""

    def before(self, step: Pass, module: Module) -> None:
        """Before each pass, with the module that it gets."""

    def after(self, step: Pass, module: Module) -> None:
        """After each pass, with the module that it gave; the last observer comes first."""


@dataclass(eq=False)
class CompilerBug(NnccError):
    """A pass failed in a way that it does not know: a bug in nncc.

    `step` is the pass and `module` what it was given; the error itself is the `__cause__`.
    """

    step: Pass | None = None
    module: Module | None = None

    def __post_init__(self) -> None:
        self.exit_status = 70


def run(
    module: Module, target: Machine, steps: Sequence[Pass], observers: Sequence[Observer] = ()
) -> Module:
    """The module after all `steps`.

    Raises NnccError as the passes do, and CompilerBug where a pass raises anything else.
    """
    for observer in observers:
        observer.begin(module, steps)
    return go_on(module, target, steps, observers)


def go_on(
    module: Module, target: Machine, steps: Sequence[Pass], observers: Sequence[Observer] = ()
) -> Module:
    """As `run`, for a part of a pipeline that the observers have seen the beginning of."""
    for step in steps:
        module = _run_step(step, module, target, observers)
    return module


def _run_step(step: Pass, module: Module, target: Machine, observers: Sequence[Observer]) -> Module:
    try:
        for observer in observers:
            observer.before(step, module)
        result = step.run(module, target)
        for observer in reversed(observers):
            observer.after(step, result)
    except CompilerBug as bug:
        bug.step, bug.module = bug.step or step, bug.module or module
        raise
    except (NnccError, OSError):  # an observer's output has gone, a disk is full, …
        raise
    except Exception as error:
        raise CompilerBug(
            f"bug in nncc: pass '{spell_pass(step)}' failed: {type(error).__name__}: {error}",
            step=step,
            module=module,
        ) from error
    return result


def level(module: Module) -> Level:
    """The lowest level that the module has reached."""
    if module.functions:
        return "loops"
    return "nests" if module.nests else "graph"


def remaining(steps: Sequence[Pass], module: Module, device: str = HOST) -> tuple[Pass, ...]:
    """The steps that a module still needs for a device, by the level that it has reached."""
    names = [s.name for s in steps]
    for name, is_past in _MARKS.items():
        if is_past(module, device) and name in names:
            return tuple(steps[names.index(name) + 1 :])
    return tuple(steps)
