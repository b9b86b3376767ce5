"""What a schedule must satisfy to be one of its nest.

1. Every statement is a leaf exactly once.
2. A band's dimension is one of every statement below it (or of a scan around the statement).
3. Steps shrink: a band's step is positive and at most the enclosing one of the same dimension;
   below `for m` (step 1) there is no band over m.
4. A `vector` band encloses no further `vector` band and no `parallel` one.
5. A scan's dimension is walked one by one (step 1, serial) and before anything below it.
6. `local` names local tensors, each once, and every statement that uses one is below it.
7. A leaf's operation maps dimensions that the statement has.
"""

from __future__ import annotations

from nncc.diagnostics import VerifyError
from nncc.ir.expr import loads
from nncc.ir.nests import (
    Band,
    Dim,
    Leaf,
    Local,
    Nest,
    Schedule,
    Statement,
    walk_schedule,
    walk_statements,
)


def verify_schedule(nest: Nest) -> None:
    """Raises VerifyError with the first broken invariant of `nest.schedule`."""
    assert nest.schedule is not None
    walker = _Walker(nest)
    for node in nest.schedule:
        walker.walk(node, (), ())
    for name in walker.statements:
        if name not in walker.seen:
            raise walker.error(f"statement {name} is not scheduled")


class _Walker:
    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.statements: dict[str, tuple[Statement, tuple[Dim, ...]]] = {
            s.name: (s, scans) for s, scans in walk_statements(nest.body)
        }
        self.seen: set[str] = set()
        self.placed: set[str] = set()
        nodes = walk_schedule(nest.schedule or ())
        self.local_tensors = {t for n in nodes if isinstance(n, Local) for t in n.tensors}

    def error(self, message: str) -> VerifyError:
        return VerifyError(f"nest {self.nest.name}, schedule: {message}", self.nest.location)

    def walk(self, node: Schedule, bands: tuple[Band, ...], locals: tuple[str, ...]) -> None:
        if isinstance(node, Leaf):
            self.leaf(node, bands, locals)
            return
        if isinstance(node, Local):
            self.local(node)
            locals = (*locals, *node.tensors)
        else:
            self.band(node, bands)
            bands = (*bands, node)
        for inner in node.body:
            self.walk(inner, bands, locals)

    def local(self, node: Local) -> None:
        known = {p.name for p in self.nest.locals}
        for name in node.tensors:
            if name not in known:
                raise self.error(f"{name} is no local tensor")
            if name in self.placed:
                raise self.error(f"{name} is placed twice")
            self.placed.add(name)

    def band(self, band: Band, bands: tuple[Band, ...]) -> None:
        if isinstance(band.step, int) and band.step < 1:
            raise self.error(f"the step of {band.dim} is {band.step}")
        inside = [n for n in walk_schedule(band.body) if isinstance(n, Band)]
        if band.kind == "vector" and any(n.kind in ("vector", "parallel") for n in inside):
            raise self.error(f"the vector band over {band.dim} holds a vector or parallel band")
        for outer in bands:
            if outer.dim != band.dim:
                continue
            if outer.step == 1:
                raise self.error(f"{band.dim} is fixed already by the band outside")
            steps = outer.step, band.step
            if isinstance(steps[0], int) and isinstance(steps[1], int) and steps[1] > steps[0]:
                raise self.error(f"a piece of {band.dim} of {steps[0]} is walked by {steps[1]}")

    def leaf(self, leaf: Leaf, bands: tuple[Band, ...], locals: tuple[str, ...]) -> None:
        if leaf.statement not in self.statements:
            raise self.error(f"there is no statement {leaf.statement}")
        if leaf.statement in self.seen:
            raise self.error(f"statement {leaf.statement} is scheduled twice")
        self.seen.add(leaf.statement)
        statement, scans = self.statements[leaf.statement]
        own = {d.name for d in (*scans, *statement.dims)}
        for band in bands:
            if band.dim not in own:
                raise self.error(f"statement {leaf.statement} has no dimension {band.dim}")
        for scan in scans:
            walked = [b for b in bands if b.dim == scan.name]
            if len(walked) != 1 or walked[0].step != 1 or walked[0].kind != "serial":
                raise self.error(f"the scan over {scan.name} must be one serial band of step 1")
        for _, dim in leaf.dims:
            if dim not in own:
                raise self.error(f"{leaf.operation} runs over {dim}, which {leaf.statement} lacks")
        used = {t.tensor for t in statement.targets}
        used |= {x.tensor for v in statement.values for x in loads(v)}
        for tensor in sorted(used & self.local_tensors - set(locals)):
            raise self.error(f"{leaf.statement} uses {tensor} outside of its 'local' block")
