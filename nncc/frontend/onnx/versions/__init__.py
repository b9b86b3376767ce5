"""One node from the version of its op that a model uses to another version, in small steps.

    ReduceMean-13(x) {axes=[2,3]}      ⇄ ReduceMean-18(x, axes)
    Softmax-11(x: f32[a,b,c]) {axis=1} → Reshape, Softmax-13 {axis=-1}, Reshape

The importer raises (or lowers) every node to the version that the op table works in; the
exporter goes the other way. A step is keyed by op and the newer of the two versions:

- `unchanged`: what the op did before, it still does; newer versions take more dtypes or have
  optional parts whose absence means the older behaviour.
- `raising`, `lowering`: functions from a node to the nodes that replace it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from nncc.frontend.onnx.versions.draft import Draft, NotExpressible, Scope
from nncc.frontend.onnx.versions.lowering import LOWERING
from nncc.frontend.onnx.versions.raising import RAISING
from nncc.frontend.onnx.versions.unchanged import UNCHANGED

__all__ = ["Draft", "NotExpressible", "Scope", "convert"]


def convert(draft: Draft, wanted: Callable[[str], int], scope: Scope) -> list[Draft]:
    """The nodes that do what `draft` does, each in the version that `wanted` gives for its op.

    Raises NotExpressible with the reason if there is no way. A step may give other ops than it
    was given (Upsample becomes Resize); they are converted in turn. `wanted` of an op that has
    no version for the caller raises KeyError: such nodes are returned as they are.
    """
    try:
        goal = wanted(draft.op)
    except KeyError:
        goal = None
    if goal == draft.version:
        return [draft]
    step = _next_step(draft, goal)
    if step is None:
        return [draft]
    version, replace = step
    if replace is None:
        draft.version = version
        return convert(draft, wanted, scope)
    return _all(replace(draft, scope), wanted, scope)


def _all(drafts: Iterable[Draft], wanted: Callable[[str], int], scope: Scope) -> list[Draft]:
    return [c for d in drafts for c in convert(d, wanted, scope)]


Step = Callable[[Draft, Scope], list[Draft]]


def _next_step(draft: Draft, goal: int | None) -> tuple[int, Step | None] | None:
    """The version reached by the next step and its function; None: an unchanged step.

    Without a goal the op is raised as long as there are steps (to leave it for another op);
    no step at all: None.
    """
    newer = [v for v in _steps(draft.op) if v > draft.version]
    if goal is None:
        return (newer[0], RAISING.get((draft.op, newer[0]))) if newer else None
    if goal > draft.version:
        if not newer or newer[0] > goal:
            raise NotExpressible(f"no way from version {draft.version} to {goal} is known")
        return newer[0], RAISING.get((draft.op, newer[0]))
    older = max((v for v in _steps(draft.op) if v < draft.version), default=goal)
    key = (draft.op, draft.version)
    if draft.version not in _steps(draft.op):
        raise NotExpressible(f"version {draft.version} is newer than what nncc knows ({goal})")
    if key not in LOWERING and draft.version not in UNCHANGED.get(draft.op, ()):
        raise NotExpressible(f"version {draft.version} has no form in version {goal}")
    return max(older, goal), LOWERING.get(key)


@cache
def _steps(op: str) -> tuple[int, ...]:
    """The versions of an op that a step leads up to, in order."""
    found = set(UNCHANGED.get(op, ()))
    found |= {version for name, version in (*RAISING, *LOWERING) if name == op}
    return tuple(sorted(found))
