"""Dims that count through an axis together: groups of channels and the channels in them.

init: t[n,m] = b[m]                         with m in 0..32
acc:  t[n, 4*g + m] sum= …                  with g in 0..8, m in 0..4
→
init: t[n, 4*g + m] = b[4*g + m]            with g in 0..8, m in 0..4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nncc.ir.index import Size, affine, product, substitute, variables
from nncc.ir.nests import ASSIGN, Access, Dim, Nest, Scan, Statement
from nncc.passes.nest_parts import (
    accesses,
    map_sizes,
    map_statements,
    plain,
)

Counters = dict[tuple[str, int], Size]  # (tensor, axis) -> the subscript of several dims


def with_split_dims(nest: Nest) -> Nest:
    """Dims of other statements split as the first reduction splits the axes that it folds into.

    Dims are aligned (`nncc.passes.nest_rewrite`): a name stands for the same in all statements.
    """
    folds = [s for s in nest.statements if s.combine != ASSIGN]
    if not folds or any(isinstance(item, Scan) for item in nest.body):
        return nest
    main = folds[0]
    ranges = {d.name: d for d in main.dims}
    counters: Counters = {}
    for target in main.targets:
        shape = nest.param(target.tensor).type.shape
        for k, (index, extent) in enumerate(zip(target.indices, shape, strict=True)):
            if len(variables(index)) > 1 and counts(index, ranges, extent):
                counters[target.tensor, k] = index
    known = 0
    while known != len(counters):  # what a split statement writes may be read by a further one
        known = len(counters)
        nest = map_statements(nest, lambda s: s if s is main else _split(s, counters, ranges))
    return nest


def counts(index: Size, ranges: Mapping[str, Dim], extent: Size) -> bool:
    """Whether `index` takes every value of 0..extent once while its dims run.

    4*g + m does for g in 0..8, m in 0..4 and an extent of 32.
    """
    form = affine(index, variables(index))
    if form is None or form[1] != 0 or not form[0].keys() <= ranges.keys():
        return False
    reached: Size = 1
    for name, factor in sorted(form[0].items(), key=lambda item: item[1]):
        if ranges[name].lo != 0 or factor != reached:
            return False
        reached = factor * ranges[name].hi
    return reached == extent


def covers(nest: Nest, s: Statement, target: Access) -> bool:
    """Whether the dims of `s` that subscript `target` reach every element of it once."""
    ranges = {d.name: d for d in s.dims}
    shape = nest.param(target.tensor).type.shape
    used = [d for i in target.indices for d in variables(i)]
    return (
        len(used) == len(set(used))
        and {*used, *s.reduction_dims} == set(ranges)
        and all(counts(i, ranges, e) for i, e in zip(target.indices, shape, strict=True))
    )


def _split(s: Statement, counters: Counters, ranges: Mapping[str, Dim]) -> Statement:
    """`s` with the dims that walk a split axis alone replaced by those that count it."""
    for a in accesses(s):
        for k, index in enumerate(a.indices):
            name, counter = plain(index), counters.get((a.tensor, k))
            own = next((d for d in s.dims if d.name == name), None)
            if counter is None or own is None:
                continue
            parts = tuple(d for d in ranges.values() if d.name in variables(counter))
            whole = (own.lo, own.hi) == (0, product(d.hi for d in parts))
            if whole and not {d.name for d in parts} & {d.name for d in s.dims if d is not own}:
                return _split(_replaced(s, own, parts, counter, counters), counters, ranges)
    return s


def _replaced(
    s: Statement, old: Dim, parts: tuple[Dim, ...], counter: Size, counters: Counters
) -> Statement:
    for a in accesses(s):
        for k, index in enumerate(a.indices):
            if plain(index) == old.name:
                counters.setdefault((a.tensor, k), counter)
    at = s.dims.index(old)
    dims = (*s.dims[:at], *parts, *s.dims[at + 1 :])
    s = map_sizes(replace(s, dims=()), lambda size: substitute(size, {old.name: counter}))
    return replace(s, dims=dims)
