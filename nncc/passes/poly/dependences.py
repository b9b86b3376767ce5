"""Which instances need which: flow, anti and output dependences of a nest.

A dependence relates a source instance to the sink instances that must run after it, because they
touch the same element of a tensor that the nest writes:

    flow     the sink reads what the source wrote (and no assignment lies in between)
    anti     the sink overwrites what the source read
    output   the sink overwrites what the source wrote

Steps of one reduction into one element may run in any order: dependences among statements that
fold into a tensor with the same combine are marked `reduction`; they bind parallel bands only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from nncc.ir.nests import ASSIGN, Nest
from nncc.passes.poly.door import call, isl
from nncc.passes.poly.relations import Relations, references
from nncc.passes.poly.schedules import original

Kind = Literal["flow", "anti", "output"]


@dataclass(frozen=True, eq=False)
class Dependence:
    """All pairs of instances of two statements that depend on each other through one tensor.

    Names are isl's (see `Relations.names`). `full` is `{ source -> [sink -> element] }`.
    """

    kind: Kind
    source: str
    sink: str
    tensor: str
    full: isl.Map
    reduction: bool = False

    @property
    def relation(self) -> isl.Map:
        """`{ source -> sink }`."""
        return call(self.full.range_factor_domain)

    def __str__(self) -> str:
        return f"{self.kind} {self.source} -> {self.sink} through {self.tensor}: {self.relation}"


@dataclass(frozen=True)
class Texts:
    """What dependences follow from, as isl text: equal for nests that differ in names only.

    Args:
        accesses: (kind, combine or "=", tensor, relation) of each access to a tensor that the
            nest writes. Kinds: `read`, `implicit` (a fold's reading of its target), `assign`
            (overwrites every element in the relation) and `may` (a fold, or an assignment that
            the relation over-approximates).
        times: the order without a schedule, a map for each statement.
    """

    accesses: tuple[tuple[str, str, str, str], ...]
    times: tuple[str, ...]


def texts(relations: Relations) -> Texts:
    """The texts of a nest."""
    nest = relations.nest
    written = {t.tensor for s in nest.statements for t in s.targets}
    order = original(nest)
    accesses: list[tuple[str, str, str, str]] = []
    for s in nest.statements:
        for reference in references(s):
            if reference.tensor in written:
                body, exact = relations.access(s, reference)
                kind: str = reference.kind
                if kind == "write":
                    kind = "assign" if exact and s.combine == ASSIGN else "may"
                tensor = relations.names.tensors[reference.tensor]
                accesses.append((kind, s.combine, tensor, body))
    times = [relations.time(s, order.times[s.name]) for s in nest.statements]
    return Texts(
        tuple((k, c, t, relations.complete(body)) for k, c, t, body in accesses),
        tuple(relations.complete(t) for t in times),
    )


def dependences(nest: Nest, *, reductions: bool = False) -> tuple[Dependence, ...]:
    """The dependences of a nest in the order that it has without a schedule.

    Args:
        reductions: also those between the steps of one reduction.
    """
    found = compute(texts(Relations.of(nest)))
    return tuple(d for d in found if reductions or not d.reduction)


@lru_cache(maxsize=1024)
def compute(of: Texts) -> tuple[Dependence, ...]:
    """All dependences, those of reductions marked."""
    if not of.accesses:
        return ()
    reductions: dict[tuple[str, str], str] = {}  # (statement, tensor) -> combine
    maps: dict[str, isl.UnionMap] = {}
    for kind, combine, tensor, text in of.accesses:
        access = call(isl.Map, text)
        if kind == "may" and combine != ASSIGN:
            reductions[access.get_tuple_name(isl.dim_type.in_) or "", tensor] = combine
        maps[kind] = call(maps.get(kind, _empty()).union, call(isl.UnionMap.from_map, access))
    order = _empty()
    for text in of.times:
        order = call(order.union, isl.UnionMap(text))
    return tuple(_Finder(maps, order, reductions).all())


def _empty() -> isl.UnionMap:
    return isl.UnionMap("{ }")


class _Finder:
    """Dependences by kind from the union of accesses of each kind."""

    def __init__(
        self,
        maps: dict[str, isl.UnionMap],
        order: isl.UnionMap,
        reductions: dict[tuple[str, str], str],
    ) -> None:
        self.maps = maps
        self.order = order
        self.reductions = reductions
        self.writes = call(self._of("assign").union, self._of("may"))

    def _of(self, kind: str) -> isl.UnionMap:
        return self.maps.get(kind, _empty())

    def all(self) -> Iterator[Dependence]:
        for reads in ("read", "implicit"):
            yield from self._flow(reads)
            yield from self._split("anti", self.writes, self._of(reads), reads == "implicit")
        yield from self._split("output", self.writes, self.writes, True)

    def _flow(self, reads: str) -> Iterator[Dependence]:
        sinks = self._of(reads)
        if sinks.is_empty():
            return
        info = call(isl.UnionAccessInfo.from_sink, sinks)
        info = call(info.set_must_source, self._of("assign"))
        info = call(info.set_may_source, self._of("may"))
        info = call(info.set_schedule_map, self.order)
        flow = call(call(info.compute_flow).get_full_may_dependence)
        yield from self._dependences("flow", flow, reads == "implicit")

    def _split(
        self, kind: Kind, sinks: isl.UnionMap, sources: isl.UnionMap, folds: bool
    ) -> Iterator[Dependence]:
        if sinks.is_empty() or sources.is_empty():
            return
        info = call(isl.UnionAccessInfo.from_sink, sinks)
        info = call(info.set_may_source, sources)
        info = call(info.set_schedule_map, self.order)
        found = call(call(info.compute_flow).get_full_may_dependence)
        yield from self._dependences(kind, found, folds)

    def _dependences(self, kind: Kind, found: isl.UnionMap, folds: bool) -> Iterator[Dependence]:
        maps = call(found.get_map_list)
        for k in range(maps.n_map()):
            full = maps.get_at(k)
            if full.is_empty():
                continue
            access = full.range().unwrap()
            source = full.get_tuple_name(isl.dim_type.in_) or ""
            sink = access.get_tuple_name(isl.dim_type.in_) or ""
            tensor = access.get_tuple_name(isl.dim_type.out) or ""
            combine = self.reductions.get((source, tensor))
            same = combine is not None and combine == self.reductions.get((sink, tensor))
            yield Dependence(kind, source, sink, tensor, full, folds and same)
