"""Which kind of nest it is, and its code."""

from __future__ import annotations

from collections.abc import Mapping

from nncc.diagnostics import PassError
from nncc.ir.expr import Apply
from nncc.ir.nests import ASSIGN, Nest, Scan
from nncc.machines.machine import Machine
from nncc.passes.systolic.code import Code
from nncc.passes.systolic.places import Array
from nncc.passes.systolic.pointwise import pointwise_code
from nncc.passes.systolic.products import product_code
from nncc.passes.systolic.windows import window_code


def code_of(nest: Nest, constants: Mapping[str, Array], machine: Machine) -> Code:
    """The code of a nest. Raises PassError with the statement that no operation computes.

    Args:
        constants: the values of parameters that are known, by name.
    """
    if any(isinstance(item, Scan) for item in nest.body) or nest.combines:
        raise PassError(f"{nest.name}: no operation runs over steps")
    folds = [s for s in nest.statements if s.combine != ASSIGN]
    if not folds:
        return pointwise_code(nest, constants, machine)
    if any(isinstance(v, Apply) and v.fn == "mul" for s in folds for v in s.values):
        return product_code(nest, constants, machine)
    return window_code(nest, constants, machine)
