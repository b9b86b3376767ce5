"""The meaning of a machine operation, from the text of a small nest."""

from __future__ import annotations

import re

from nncc.ir.expr import Const, Load, apply, cast
from nncc.ir.index import var
from nncc.ir.nests import Access, Dim, Nest, Param, Statement
from nncc.ir.types import DTYPES, TensorType, i32
from nncc.machines.fields import Where


def parse_semantics(text: str, where: Where) -> Nest:
    """The nest of an operation. Raises TargetError."""
    # INTERIM: replaced by nncc.ir.text
    name = re.search(r"nest (\w+)", text).group(1)
    params = []
    for role, p, dt, shape in re.findall(r"(out|in) (\w+): (\w+)\[([\d,]*)\]", text):
        params.append(Param(p, TensorType(DTYPES[dt], tuple(int(x) for x in shape.split(",") if x)), role))
    dims = tuple(Dim(d, 0, int(h)) for d, h in re.findall(r"(\w+) in 0\.\.(\d+)", text))
    ix = [tuple(var(d) for d in re.search(rf"\b{p.name}\[([\w,]*)\](?!,| [a-z]+\w*:)", text[text.index("acc:"):]).group(1).split(",") if d) for p in params]
    y, a, b = params
    la, lb = Load(a.name, ix[1], a.type.dtype), Load(b.name, ix[2], b.type.dtype)
    if "cast" in text:
        ea = cast(i32, la)
        if "128" in text:
            ea = apply("add", ea, Const(128, i32))
        value = apply("mul", ea, cast(i32, lb))
    else:
        value = apply("mul", la, lb)
    return Nest(name, (), tuple(params), (Statement("acc", dims, (Access(y.name, ix[0]),), "sum", (value,)),))
