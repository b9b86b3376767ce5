"""Whether an operation on memory is one that its record describes."""

from __future__ import annotations

from collections.abc import Sequence

from nncc.ir.expr import Expr, Load, Value, walk
from nncc.ir.index import variables
from nncc.ir.loops import Perform
from nncc.ir.nests import ASSIGN, Nest, tells_apart
from nncc.ir.types import DType


def perform_problem(
    s: Perform, semantics: Nest, target: DType, operands: Sequence[tuple[DType, int]]
) -> str:
    """What is wrong with an operation whose names are all bound, as text; "" if nothing.

    Args:
        target: dtype of the buffer that is written; `operands`: dtype and lanes of each operand.
    """
    statement = semantics.statements[-1]
    if s.combine not in (ASSIGN, statement.combine):
        return f"it folds by '{statement.combine}', not '{s.combine}'"
    given = {d.name: d for d in s.dims}
    if len(given) != len(s.dims) or given.keys() != {d.name for d in statement.dims}:
        names = ", ".join(d.name for d in statement.dims)
        return f"its dimensions are {names}"
    for limit in statement.dims:
        d = given[limit.name]
        for bound, outside in ((d.lo - limit.lo, "below"), (limit.hi - d.hi, "beyond")):
            if isinstance(bound, int) and bound < 0:
                return f"{d.name} in {d.lo}..{d.hi} is {outside} {limit.lo}..{limit.hi}"
    result, *inputs = semantics.params
    if target is not result.type.dtype:
        return f"it gives {result.type.dtype}, not {target}"
    if len(operands) != len(inputs):
        return f"it takes {len(inputs)} operands, not {len(operands)}"
    for p, e, (dtype, lanes) in zip(inputs, s.operands, operands, strict=True):
        if dtype is not p.type.dtype or lanes != 1:
            return f"operand '{p.name}' is {p.type.dtype}, not {dtype}" + f"x{lanes}" * (lanes > 1)
        if p.type.rank and not isinstance(e, Load):
            return f"operand '{p.name}' is in memory: a load stands for it"
        if not p.type.rank and _variables(e) & given.keys():
            return f"operand '{p.name}' is one number for all points"
    kept = [d for d in s.dims if d.name not in statement.reduction_dims and d.extent != 1]
    if not tells_apart(s.target.indices, kept):
        return f"several points write the same element of '{s.target.tensor}'"
    if any(variables(i) & set(statement.reduction_dims) for i in s.target.indices):
        return "a dimension that it folds is in the target's subscripts"
    return ""


def _variables(e: Expr) -> frozenset[str]:
    """Every variable of the integer expressions in `e`."""
    found = frozenset[str]()
    for x in walk(e):
        sizes = x.indices if isinstance(x, Load) else (x.size,) if isinstance(x, Value) else ()
        found = found.union(*(variables(size) for size in sizes))
    return found
