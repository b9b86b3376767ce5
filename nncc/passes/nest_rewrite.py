"""Rewrites of nests that keep what they compute; each takes a nest and gives one.

    with_accumulators(nest)      y[i] sum= …                  →  t[i] sum= …; y[i] = t[i]
    with_aligned_dims(nest)      dims that index the same axes get the same names
    without_unit_dims(nest)      for n in 0..1 { y[n,i] = … } →  y[0,i] = …

`nncc.passes.nest_inline` inlines, `nncc.passes.nest_axes` merges axes. None looks at a schedule:
they run before one is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product

from nncc.ir.expr import Load
from nncc.ir.index import Size, affine, substitute, variables
from nncc.ir.nests import ASSIGN, Access, Item, Nest, Param, Scan, Statement
from nncc.passes.nest_parts import (
    accesses,
    fresh,
    map_sizes,
    map_statements,
    renamed,
    with_dim_names,
)
from nncc.passes.nest_split import covers


def with_accumulators(nest: Nest) -> Nest:
    """Reductions fold into local tensors; outputs are assigned once, at the end."""
    if any(isinstance(item, Scan) for item in nest.body):
        return nest
    for s in nest.statements:
        folds = [x for x in nest.statements if x.combine != ASSIGN and x.targets == s.targets]
        roles = {nest.param(t.tensor).role for t in s.targets}
        if s.combine == ASSIGN or len(folds) > 1 or roles != {"out"}:
            continue
        if not all(covers(nest, s, t) for t in s.targets):
            continue
        for target in s.targets:
            nest = _with_accumulator(nest, s.name, target)
    return nest


def _with_accumulator(nest: Nest, statement: str, target: Access) -> Nest:
    taken = {p.name for p in nest.params}
    accumulator = fresh("t", taken)
    old = nest.param(target.tensor)
    local = Param(accumulator, old.type, "local")
    body: list[Item] = []
    done = False
    for s in nest.statements:
        if not done:
            writes = replace(nest, body=(s,), params=(replace(old, role="local"), *nest.params))
            s = renamed(writes, {target.tensor: accumulator}).statements[0]
        body.append(s)
        if s.name == statement:
            done = True
            reduced = set(s.reduction_dims)
            value = Load(accumulator, target.indices, old.type.dtype)
            name = fresh(f"{target.tensor}_out", {x.name for x in nest.statements})
            dims = tuple(d for d in s.dims if d.name not in reduced)
            copy = Access(target.tensor, target.indices)
            body.append(Statement(name, dims, (copy,), ASSIGN, (value,), location=s.location))
    return replace(nest, params=(*nest.params, local), body=tuple(body))


def main_statement(nest: Nest) -> Statement:
    """The statement with the most work: the reduction with the most dims, else the last one."""
    statements = nest.statements
    folds = [s for s in statements if s.combine != ASSIGN]
    return max(folds, key=lambda s: len(s.dims)) if folds else statements[-1]


def with_aligned_dims(nest: Nest) -> Nest:
    """Dims of different statements that index the same axes of a tensor get the same name.

    Names are those of the main statement, as far as they go; a dim that corresponds to none of
    another statement gets a name of its own. Nests with scans stay as they are.
    """
    if any(isinstance(item, Scan) for item in nest.body):
        return nest
    main = main_statement(nest)
    done: dict[str, Statement] = {main.name: main}
    todo = [s for s in nest.statements if s is not main]
    taken = {d.name for d in main.dims} | set(nest.sizes)
    while todo:
        linked = [(s, names) for s in todo if (names := _links(s, tuple(done.values())))]
        s, names = linked[0] if linked else (todo[0], {})
        mapping = dict(names)
        for d in s.dims:
            if d.name not in mapping:
                mapping[d.name] = fresh(d.name, taken)
                taken.add(mapping[d.name])
        done[s.name] = with_dim_names(s, mapping)
        todo.remove(s)
    return map_statements(nest, lambda s: done[s.name])


def _links(s: Statement, others: Iterable[Statement]) -> dict[str, str]:
    """Names of other statements' dims for those of `s`, through tensors that both access.

    What flows between the statements counts first, then inputs that both read.
    """
    ranges = {d.name: (d.lo, d.hi) for d in s.dims}
    found: dict[str, str] = {}
    for flows in (True, False):
        for other in others:
            theirs = {d.name: (d.lo, d.hi) for d in other.dims}
            written = {t.tensor for t in (*s.targets, *other.targets)}
            for a, b in product(accesses(s), accesses(other)):
                if a.tensor != b.tensor or (a.tensor in written) != flows:
                    continue
                pairs = zip(a.indices, b.indices, strict=True)
                for mine, their in (p for i, j in pairs for p in _corresponding(i, j)):
                    if mine in found or mine not in ranges or their in found.values():
                        continue
                    if ranges[mine] == theirs.get(their):
                        found[mine] = their
    return found


def _corresponding(i: Size, j: Size) -> Iterator[tuple[str, str]]:
    """Dims that have the same factor in two subscripts: in 4*a + b and 4*g + m, a is g."""
    mine, their = (affine(x, variables(x)) for x in (i, j))
    if mine is None or their is None or mine[1] != their[1]:
        return
    factors = sorted(mine[0].values())
    if factors == sorted(their[0].values()) and len(set(factors)) == len(factors):
        names = {factor: name for name, factor in their[0].items()}
        yield from ((name, names[factor]) for name, factor in mine[0].items())


def without_unit_dims(nest: Nest) -> Nest:
    """Dims that have one value are replaced by it."""

    def rule(s: Statement) -> Statement:
        fixed = {d.name: d.lo for d in s.dims if d.extent == 1 and isinstance(d.lo, int)}
        if not fixed:
            return s
        s = replace(s, dims=tuple(d for d in s.dims if d.name not in fixed))
        return map_sizes(s, lambda size: substitute(size, fixed))

    return map_statements(nest, rule)
