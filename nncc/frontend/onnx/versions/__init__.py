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

from collections.abc import Callable
from functools import cache

from nncc.frontend.onnx.versions.draft import Draft, NotExpressible, Scope
from nncc.frontend.onnx.versions.lowering import LOWERING
from nncc.frontend.onnx.versions.raising import RAISING
from nncc.frontend.onnx.versions.unchanged import UNCHANGED

__all__ = ["Draft", "NotExpressible", "Scope", "convert"]


def convert(draft: Draft, wanted: Callable[[str], int], scope: Scope) -> list[Draft]:
    """The nodes that do what `draft` does, each in the version that `wanted` gives for its op.

    Raises NotExpressible with the reason if there is no way.
    """
    goal = wanted(draft.op)
    if goal == draft.version:
        return [draft]
    version, replace = _raise(draft, goal) if goal > draft.version else _lower(draft, goal)
    made = [draft.changed(version=version)] if replace is None else replace(draft, scope)
    return [final for d in made for final in convert(d, wanted, scope)]


Step = Callable[[Draft, Scope], list[Draft]]


def _raise(draft: Draft, goal: int) -> tuple[int, Step | None]:
    """The version that the next step upward reaches, and its function if anything changes."""
    version = next((v for v in _steps(draft.op) if v > draft.version), goal + 1)
    if version > goal:
        raise NotExpressible(f"no way from version {draft.version} to {goal} is known")
    return version, RAISING.get((draft.op, version))


def _lower(draft: Draft, goal: int) -> tuple[int, Step | None]:
    """The same downward: the step leads to the version before the draft's."""
    step = LOWERING.get((draft.op, draft.version))
    if step is None and draft.version not in UNCHANGED.get(draft.op, ()):
        raise NotExpressible(f"version {draft.version} has no form in version {goal}")
    older = max((v for v in _steps(draft.op) if v < draft.version), default=goal)
    return max(older, goal), step


@cache
def _steps(op: str) -> tuple[int, ...]:
    """The versions of an op that a step leads up to, in order."""
    found = set(UNCHANGED.get(op, ()))
    found |= {version for name, version in (*RAISING, *LOWERING) if name == op}
    return tuple(sorted(found))
