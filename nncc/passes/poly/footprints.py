"""How many elements of a tensor a tile of a statement touches.

    footprint(nest, "acc", "x", {"e": (0, 4), "f": (0, 14)})

Tiles of boxes take the closed form of `nncc.passes.reuse`; isl counts what has no closed form:
domains cut by `where` or by other dimensions. Both agree where both apply (tests hold that).
"""

from __future__ import annotations

from collections.abc import Mapping

from nncc.ir.nests import Nest
from nncc.passes.poly.door import call, isl
from nncc.passes.poly.relations import Relations, references
from nncc.passes.reuse.operands import operands
from nncc.passes.reuse.points import Range
from nncc.passes.reuse.traffic import dim_ranges, touched


def footprint(
    nest: Nest,
    statement: str,
    tensor: str,
    tile: Mapping[str, Range] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
) -> int:
    """Elements of `tensor` that instances of `statement` touch with their dims in `tile`.

    Args:
        tile: ranges `lo, hi` (hi excluded) inside the domain; dimensions left out are whole.
        sizes: numbers for the named sizes.

    Raises KeyError for unknown names, PassError or ValueError for sizes without a number.
    """
    chosen = {s.name: s for s in nest.statements}[statement]
    operand = {o.tensor: o for o in operands(chosen, nest, sizes)}[tensor]
    if not operand.exact:
        return counted_footprint(nest, statement, tensor, tile, sizes=sizes)
    return touched(operand, dim_ranges(nest, chosen, sizes) | dict(tile or {}))


def counted_footprint(
    nest: Nest,
    statement: str,
    tensor: str,
    tile: Mapping[str, Range] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
) -> int:
    """The same, counted by isl: exact but for subscripts that read tensors; slow if large."""
    chosen = {s.name: s for s in nest.statements}[statement]
    relations = Relations.of(nest)
    bodies = [
        relations.access(chosen, r, inside=True)[0]
        for r in references(chosen)
        if r.tensor == tensor
    ]
    names = relations.names.variables(statement)
    box = [f"{lo} <= {names[d]} < {hi}" for d, (lo, hi) in (tile or {}).items()]
    box += [f"{relations.names.sizes[n]} = {v}" for n, v in (sizes or {}).items()]
    space = f"{relations.names.statements[statement]}[{', '.join(names.values())}]"
    tile_set = call(isl.Set, relations.complete(f"{space} : {' and '.join(box) or 'true'}"))
    union: isl.Set | None = None
    for body in bodies:
        access = call(isl.Map, relations.complete(body))
        image = call(call(access.intersect_domain, tile_set).range)
        union = image if union is None else call(union.union, image)
    if union is None:
        raise KeyError(tensor)
    fixed = call(union.project_out, isl.dim_type.param, 0, union.dim(isl.dim_type.param))
    return int(str(call(fixed.count_val)))
