"""Which kind of nest it is, and its code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from nncc.diagnostics import PassError
from nncc.ir.expr import Apply
from nncc.ir.nests import ASSIGN, Nest, Scan
from nncc.machines.machine import Machine
from nncc.passes.systolic.code import Code
from nncc.passes.systolic.places import Array
from nncc.passes.systolic.pointwise import pointwise_code
from nncc.passes.systolic.products import product_code
from nncc.passes.systolic.windows import window_code

Kind = Literal["pointwise", "product", "window", "other"]
POINTWISE: Kind = "pointwise"
PRODUCT: Kind = "product"
WINDOW: Kind = "window"
OTHER: Kind = "other"


def code_of(nest: Nest, constants: Mapping[str, Array], machine: Machine) -> Code:
    """The code of a nest. Raises PassError with the statement that no operation computes.

    Args:
        constants: the values of parameters that are known, by name.
    """
    kind = kind_of(nest)
    if kind == OTHER:
        raise PassError(f"{nest.name}: no operation runs over steps")
    return _CODE[kind](nest, constants, machine)


def kind_of(nest: Nest) -> Kind:
    """What a nest is, if the array computes it at all."""
    if any(isinstance(item, Scan) for item in nest.body) or nest.combines:
        return OTHER
    folds = [s for s in nest.statements if s.combine != ASSIGN]
    if not folds:
        return POINTWISE
    multiplies = any(isinstance(v, Apply) and v.fn == "mul" for s in folds for v in s.values)
    return PRODUCT if multiplies else WINDOW


_CODE: dict[Kind, Callable[[Nest, Mapping[str, Array], Machine], Code]] = {
    POINTWISE: pointwise_code,
    PRODUCT: product_code,
    WINDOW: window_code,
}
