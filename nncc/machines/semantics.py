"""The meaning of a machine operation: a small nest in the nncc language."""

from __future__ import annotations

from functools import cache

from nncc.diagnostics import FrontendError
from nncc.ir.nests import Nest
from nncc.machines.fields import Where


def parse_semantics(text: str, where: Where) -> Nest:
    """The nest of an operation: one reduction that folds into its first parameter.

    Raises TargetError with the place in the text and what a nest of an operation must have.
    """
    try:
        nest = _parsed(text)
    except FrontendError as error:
        raise where.error(f"{where.name('semantics')}: {error.render()}") from error
    problem = _problem(nest)
    if problem:
        raise where.error(f"{where.name('semantics')}: {problem}")
    return nest


@cache
def _parsed(text: str) -> Nest:
    from nncc.ir.text import parse_nest  # builds the parser of the language: only when needed

    return parse_nest(text.strip(), file="semantics")


def _problem(nest: Nest) -> str:
    """What keeps a nest from being the meaning of an operation; "" if nothing does."""
    if not nest.params or nest.params[0].role != "out":
        return "the first parameter must be the accumulator (out)"
    if any(p.role != "in" for p in nest.params[1:]):
        return "every parameter but the first must be an input (in)"
    if not all(p.type.is_static for p in nest.params):
        return "operands have literal sizes"
    if len(nest.statements) != 1 or nest.statements[0].combine == "=":
        return "there must be one statement, a reduction into the accumulator"
    return ""
