"""Whether a schedule keeps what a nest computes.

`check_schedule` compares the order of a nest's schedule with the dependences that it has without
one. A schedule is refused when

    the sink of a dependence runs before its source, or together with it;
    a `parallel` band runs two instances of a dependence in different iterations;
    lanes of a `vector` band read or overwrite what another lane of the statement writes;
    a value is read in another piece of a `Local` tensor than the one that it was written to.

Steps of a reduction may be reordered, but not run in parallel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from nncc.diagnostics import PassError
from nncc.ir.nests import Nest, Schedule
from nncc.ir.verify_schedule import verify_schedule
from nncc.passes.poly.dependences import Dependence, Texts, compute, texts
from nncc.passes.poly.door import call, isl
from nncc.passes.poly.relations import Relations
from nncc.passes.poly.schedules import scheduled


@dataclass(frozen=True)
class Problem:
    """A nest and its schedule as isl text and numbers: the key under which answers are kept.

    Args:
        times: statement and map from instances to times; `length` entries each.
        parallel: place of a parallel counter, statements that it counts for.
        vectors: statement, place of its lane counter.
        pieces: tensor, number of leading places that say which piece is meant.
    """

    texts: Texts
    times: tuple[tuple[str, str], ...]
    length: int
    parallel: tuple[tuple[int, tuple[str, ...]], ...]
    vectors: tuple[tuple[str, int], ...]
    pieces: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Violation:
    """The first dependence that a schedule breaks, in words and as isl text."""

    reason: str
    kind: str
    source: str
    sink: str
    tensor: str
    relation: str
    example: str
    band: int = -1  # which of the parallel bands carries it


def check_schedule(nest: Nest) -> None:
    """Raises PassError with the dependence that the schedule of `nest` breaks.

    A nest without a schedule is in order. Answers are kept by the nest's normalised form.
    Raises VerifyError if the schedule is none of the nest (see `nncc.ir.verify_schedule`).
    """
    if nest.schedule is None:
        return
    verify_schedule(nest)
    if solve(problem(nest, nest.schedule, canonical=True)) is None:
        return
    violation = solve(problem(nest, nest.schedule, canonical=False))
    assert violation is not None, "names changed the answer"
    raise PassError(_message(nest, nest.schedule, violation), nest.location, _HELP)


_HELP = "a schedule may not change what the nest computes: reorder the loops or statements"


def problem(nest: Nest, tree: tuple[Schedule, ...], *, canonical: bool) -> Problem:
    """The question whether `tree`, a verified schedule of the nest, is legal."""
    order = scheduled(nest, tree)
    relations = Relations.of(nest, canonical)
    names = relations.names
    bodies = [
        (names.statements[s.name], relations.time(s, order.times[s.name])) for s in nest.statements
    ]
    accesses = texts(relations)
    return Problem(
        accesses,
        tuple((name, relations.complete(body)) for name, body in bodies),
        len(next(iter(order.times.values()), ())),
        tuple((p.place, tuple(names.statements[s] for s in p.statements)) for p in order.parallel),
        tuple((names.statements[s], place) for s, place in order.vectors.items()),
        tuple((names.tensors[t], place) for t, place in order.pieces.items()),
    )


@lru_cache(maxsize=4096)
def solve(of: Problem) -> Violation | None:
    """The first violation, or None."""
    found = compute(of.texts)
    if not found:
        return None
    return next(_Checker(of).violations(found), None)


class _Checker:
    """Dependences against the order of a schedule."""

    def __init__(self, of: Problem) -> None:
        self.of = of
        self.times = {name: call(isl.Map, text) for name, text in of.times}
        self.vectors = dict(of.vectors)
        self.pieces = dict(of.pieces)

    def violations(self, found: tuple[Dependence, ...]) -> Iterator[Violation]:
        for d in found:
            relation = d.relation
            piece = self.pieces.get(d.tensor)
            if piece is not None:
                same = self._agreeing(d, piece)
                if d.kind == "flow":
                    lost = call(relation.subtract, same)
                    yield from self._violation(d, lost, "the value is lost in between")
                relation = call(relation.intersect, same)
            if not d.reduction:
                source, sink = self.times[d.source], self.times[d.sink]
                late = call(relation.intersect, call(source.lex_ge_map, sink))
                yield from self._violation(d, late, f"{d.sink} runs before {d.source}")
                yield from self._lanes(d, relation)
            for band, (place, statements) in enumerate(self.of.parallel):
                if d.source in statements and d.sink in statements:
                    carried = call(relation.intersect, self._agreeing(d, place, differing=True))
                    yield from self._violation(d, carried, "a parallel band carries it", band)

    def _lanes(self, d: Dependence, relation: isl.Map) -> Iterator[Violation]:
        place = self.vectors.get(d.source)
        if place is None or d.sink != d.source or d.kind == "anti":
            return
        carried = call(relation.intersect, self._agreeing(d, place, differing=True))
        yield from self._violation(d, carried, "lanes of a vector band depend on each other")

    def _agreeing(self, d: Dependence, places: int, *, differing: bool = False) -> isl.Map:
        """Pairs whose times agree in the first `places`, and differ in the next if asked."""
        a = [f"a{k}" for k in range(self.of.length)]
        b = [f"a{k}" if k < places else f"b{k}" for k in range(self.of.length)]
        condition = f"a{places} < b{places} or a{places} > b{places}" if differing else "true"
        text = f"{{ [{', '.join(a)}] -> [{', '.join(b)}] : {condition} }}"
        onward = call(self.times[d.source].apply_range, call(isl.Map, text))
        return call(onward.apply_range, call(self.times[d.sink].reverse))

    def _violation(
        self, d: Dependence, pairs: isl.Map, reason: str, band: int = -1
    ) -> Iterator[Violation]:
        if call(pairs.is_empty):
            return
        text = call(call(pairs.coalesce).to_str)
        yield Violation(reason, d.kind, d.source, d.sink, d.tensor, text, _example(d, pairs), band)


def _example(d: Dependence, pairs: isl.Map) -> str:
    """One violating pair: `init[n=0] -> acc[n=0, c=2] through t[0], N = 1`."""
    elements = call(call(d.full.uncurry).intersect_domain, call(pairs.wrap))
    point = call(call(elements.wrap).sample_point)
    sizes = [
        f"{d.full.get_dim_name(isl.dim_type.param, k)} = "
        f"{point.get_coordinate_val(isl.dim_type.param, k)}"
        for k in range(d.full.dim(isl.dim_type.param))
    ]
    values = iter(
        str(point.get_coordinate_val(isl.dim_type.set, k))
        for k in range(point.get_space().dim(isl.dim_type.set))
    )
    access = d.full.range().unwrap()
    source = _instance(d.full, isl.dim_type.in_, values)
    sink = _instance(access, isl.dim_type.in_, values)
    element = f"{d.tensor}[{', '.join(values)}]"
    return ", ".join([f"{source} -> {sink} through {element}", *sizes])


def _instance(of: isl.Map, side: isl.dim_type, values: Iterator[str]) -> str:
    entries = []
    for k in range(of.dim(side)):
        name = of.get_dim_name(side, k)
        value = next(values)
        entries.append(f"{name}={value}" if name else value)
    return f"{of.get_tuple_name(side)}[{', '.join(entries)}]"


def _message(nest: Nest, tree: tuple[Schedule, ...], violation: Violation) -> str:
    order = scheduled(nest, tree)
    reason = violation.reason
    if violation.band >= 0:
        reason = f"the parallel band over {order.parallel[violation.band].dim} carries it"
    return (
        f"the schedule of nest {nest.name} breaks the {violation.kind} dependence of "
        f"{violation.sink} on {violation.source} through {violation.tensor}: {reason}\n"
        f"    {violation.relation}\n"
        f"    for example {violation.example}"
    )
