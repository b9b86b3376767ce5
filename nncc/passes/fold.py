"""Constant folding: everything that is known at compile time, and what follows by algebra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nncc.ir.graph import Module
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.folding import affine, constants, identities
from nncc.passes.rewriting import rewrite

RULES = (*constants.RULES, *identities.RULES, *affine.RULES)


@dataclass(frozen=True)
class Fold(Pass):
    """Computes what depends on constants only, merges scales into weights, removes identities.

        w2 = Transpose(w)                    y = Conv(x, w.folded, w.bias)
        c = Conv(x, w2)               →      (w.folded and w.bias are new parameters)
        y = BatchNormalization(c, …)

    The rules stand in `nncc.passes.folding`, each with its algebra. Constants are computed by the
    reference of the op; a result that is much larger than its operands is left to the program.
    What is made of parameters is a parameter. Merging BatchNormalization into weights rounds
    differently from computing it, within float tolerance.
    """

    name: ClassVar[str] = "fold"

    def run(self, module: Module, target: Machine | None = None) -> Module:
        return rewrite(module, RULES)
