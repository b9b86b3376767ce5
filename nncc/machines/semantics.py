"""The meaning of a machine operation: a small nest in the nncc language."""

from __future__ import annotations

from functools import cache

from nncc.diagnostics import FrontendError
from nncc.ir.nests import ASSIGN, Nest
from nncc.machines.fields import Where

# How many inputs the nests of operations have that do more than compute.
_INPUTS = {"load": 1, "store": 1, "jump": 1, "call": 1, "loop": 2, "halt": 1}


def parse_semantics(
    text: str, where: Where, *, kind: str = "reduction", sized: bool = False
) -> Nest:
    """The nest of an operation: one reduction that folds into its first parameter.

    Args:
        kind: `reduction`, or the kind of an operation (see `nncc.machines.machine.Operation`):
            then the statement may be an assignment too.
        sized: whether sizes may be named: those of a run.

    Raises TargetError with the place in the text and what a nest of an operation must have.
    """
    try:
        nest = _parsed(text)
    except FrontendError as error:
        raise where.error(f"{where.name('semantics')}: {error.render()}") from error
    problem = _problem(nest, kind, sized)
    if problem:
        raise where.error(f"{where.name('semantics')}: {problem}")
    return nest


@cache
def _parsed(text: str) -> Nest:
    from nncc.ir.text import parse_nest  # builds the parser of the language: only when needed

    return parse_nest(text.strip(), file="semantics")


def _problem(nest: Nest, kind: str, sized: bool) -> str:
    """What keeps a nest from being the meaning of an operation; "" if nothing does."""
    if not nest.params or nest.params[0].role != "out":
        return "the first parameter must be the accumulator (out)"
    if any(p.role != "in" for p in nest.params[1:]):
        return "every parameter but the first must be an input (in)"
    if not sized and not all(p.type.is_static for p in nest.params):
        return "operands have literal sizes"
    if len(nest.statements) != 1 or len(nest.statements[0].targets) != 1:
        return "there must be one statement, a reduction into the accumulator"
    if kind != "compute" and (nest.statements[0].combine == ASSIGN) != (kind != "reduction"):
        wanted = "a reduction into the accumulator" if kind == "reduction" else "an assignment"
        return f"there must be one statement, {wanted}"
    inputs = _INPUTS.get(kind)
    if inputs is not None and len(nest.params) != 1 + inputs:
        return f"a {kind} has {inputs} input" + "s" * (inputs != 1)
    return ""
