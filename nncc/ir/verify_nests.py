"""What every nest must satisfy, whoever made it.

    verify_nest(nest)        # raises VerifyError with the first thing that is wrong

Invariants
 1. Names: parameters, named sizes, statements and combines are unique; dimensions of a
    statement are unique and hide no size and no scan around it. Every variable of an index
    expression is a size, a scan around, or an own dimension (bounds: an earlier one).
 2. Layouts of parameters are right: `nncc.ir.verify_layout`. Accesses: tensors are
    parameters, with as many subscripts as dimensions; `in` parameters are not written; subscripts
    read from tensors (`Element`) are integers inside those tensors, of a range that is not empty.
    What an index expression divides by is at least 1, whatever `where` says.
 3. In bounds: writes, and loads without `else`, stay inside their tensor for all sizes >= 1, as
    far as interval arithmetic and the `where` constraints prove it. What cannot be proved is wrong.
 4. Types: a value has the dtype of its target, a load that of its tensor; operands fit the scalar
    functions; one lane; no names and no reductions inside expressions.
 5. Assignments: every dimension of `=` occurs in the target. A statement reads of a tensor that it
    writes only the element that the same instance writes, or what surely no instance of it
    writes (in a scan: in the same step).
 6. Order: `out` parameters are written everywhere; `out` and `local` tensors are read, and folded
    into, only where an earlier statement (or step of a scan) has written them, as far as
    `nncc.ir.verify_written` can prove it.
 7. Combines: built in or declared, with one value and one target for each component.
 8. Schedule: see `nncc.ir.verify_schedule`.

That a schedule keeps the dependences is not checked here but by `nncc.passes.poly`.
"""

from __future__ import annotations

from collections.abc import Iterable

from nncc.diagnostics import VerifyError
from nncc.ir.bounds import nonnegative
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Reduce, apply, loads, walk
from nncc.ir.index import Size, divisors, elements, substitute, var, variables
from nncc.ir.nests import (
    ASSIGN,
    BUILTIN_COMBINES,
    Access,
    Dim,
    Item,
    Layout,
    Nest,
    Param,
    Scan,
    Statement,
    range_over,
    sizes_of,
    tells_apart,
    walk_statements,
)
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.verify_layout import verify_layout
from nncc.ir.verify_schedule import verify_schedule
from nncc.ir.verify_written import verify_written


def verify_nest(nest: Nest) -> None:
    """Raises VerifyError with the first broken invariant."""
    _unique(nest, "parameter", (p.name for p in nest.params))
    _unique(nest, "size", nest.sizes)
    _unique(nest, "statement", (s.name for s in nest.statements))
    _unique(nest, "combine", (c.name for c in nest.combines))
    for p in nest.params:
        for extent in p.type.shape:
            _bound(nest, None, extent, frozenset(nest.sizes), f"the shape of {p.name}")
            for divisor in divisors(extent):
                if not nonnegative(divisor - 1):
                    raise _divides(nest, None, extent, divisor)
        if p.layout is not None:
            _layout(nest, p, p.layout)
    for statement, scans in walk_statements(nest.body):
        _Checker(nest, statement, scans).check()
    _order(nest, nest.body, set())
    written = {t.tensor for s in nest.statements for t in s.targets}
    for p in nest.outputs:
        if p.name not in written:
            raise _error(nest, None, f"output {p.name} is never written")
    verify_written(nest, (p.name for p in nest.params if p.role != "in"))
    if nest.schedule is not None:
        verify_schedule(nest)


def _error(nest: Nest, s: Statement | None, message: str, help: str = "") -> VerifyError:
    place = f"nest {nest.name}" + (f", statement {s.name}" if s else "")
    return VerifyError(f"{place}: {message}", s.location if s else nest.location, help)


def _unique(nest: Nest, what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _error(nest, None, f"there are two {what}s with the name {name}")
        seen.add(name)


def _bound(nest: Nest, s: Statement | None, size: Size, known: frozenset[str], what: str) -> None:
    for name in sorted(variables(size) - known):
        raise _error(nest, s, f"{what} uses {name}, which is no dimension or size there")


def _layout(nest: Nest, p: Param, layout: Layout) -> None:
    sizes = frozenset(nest.sizes)
    for dim in layout.dims:
        _bound(nest, None, dim, sizes | {f"d{k}" for k in range(p.type.rank)}, f"{p.name}'s layout")
    for extent in layout.extents:
        _bound(nest, None, extent, sizes, f"{p.name}'s layout")
    try:
        verify_layout(layout, p.type, f"layout of {p.name}")
    except VerifyError as mistake:
        raise _error(nest, None, mistake.message, mistake.help) from None


def _divides(nest: Nest, s: Statement | None, size: Size, divisor: Size) -> VerifyError:
    message = f"{size} divides by {divisor}, which is not surely at least 1"
    return _error(nest, s, message, f"divide by max({divisor}, 1)")


def _order(nest: Nest, items: tuple[Item, ...], written: set[str]) -> None:
    """Tensors are read after something has been written to them (invariant 6)."""
    for item in items:
        if isinstance(item, Scan):
            # a step may read what an earlier step wrote, so all of the scan counts
            inside = {t.tensor for s, _ in walk_statements(item.body) for t in s.targets}
            _order(nest, item.body, written | inside)
            written |= inside
            continue
        reads = {x.tensor for v in item.values for x in loads(v)} | {
            e.tensor for size in sizes_of(item) for e in elements(size)
        }
        if item.combine != ASSIGN:
            reads |= {t.tensor for t in item.targets}
        for tensor in sorted(reads - written):
            if nest.param(tensor).role != "in":
                how = "folds into" if tensor in {t.tensor for t in item.targets} else "reads"
                raise _error(nest, item, f"{how} {tensor}, which no earlier statement writes")
        written |= {t.tensor for t in item.targets}


class _Checker:
    """Invariants 1 to 5 and 7 of one statement."""

    def __init__(self, nest: Nest, statement: Statement, scans: tuple[Dim, ...]) -> None:
        self.nest = nest
        self.statement = statement
        self.scans = scans
        self.types = {p.name: p.type for p in nest.params}

    def error(self, message: str, help: str = "") -> VerifyError:
        return _error(self.nest, self.statement, message, help)

    def check(self) -> None:
        s = self.statement
        known = frozenset(self.nest.sizes)
        for d in (*self.scans, *s.dims):
            if d.name in known:
                raise self.error(f"dimension {d.name} has the name of a size or another dimension")
            for bound in (d.lo, d.hi):
                _bound(self.nest, s, bound, known, f"the range of {d.name}")
            known |= {d.name}
        for size in sizes_of(s):
            _bound(self.nest, s, size, known, f"'{size}'")
            self.check_elements(size)
            for divisor in divisors(size):
                if not nonnegative(self.lowest(divisor - 1)):
                    raise _divides(self.nest, s, size, divisor)
        self.check_combine()
        for target, value in zip(s.targets, s.values, strict=True):
            self.check_target(target)
            self.check_expression(value)
            if value.dtype is not self.types[target.tensor].dtype:
                raise self.error(
                    f"{target.tensor} is {self.types[target.tensor].dtype}, "
                    f"the value is {value.dtype}", "cast it",
                )  # fmt: skip
        self.check_written_once()
        self.check_reads_of_targets()

    def check_combine(self) -> None:
        s = self.statement
        declared = {c.name: c for c in self.nest.combines}
        if s.combine == ASSIGN or s.combine in BUILTIN_COMBINES:
            count = 1
        elif s.combine in declared:
            count = len(declared[s.combine].values)
        else:
            raise self.error(f"there is no combine '{s.combine}'")
        if (len(s.targets), len(s.values)) != (count, count):
            raise self.error(f"{s.combine} takes {count} targets and values")

    def check_written_once(self) -> None:
        s = self.statement
        if s.combine != ASSIGN:
            return
        used = frozenset[str]().union(*(variables(i) for i in s.targets[0].indices))
        for d in s.dims:
            if d.name not in used and d.extent != 1:
                raise self.error(
                    f"{s.targets[0].tensor} is assigned again for each {d.name}",
                    "reduce over it (sum, max, …) or leave it out",
                )

    def check_reads_of_targets(self) -> None:
        """What an instance reads does not depend on which instances ran before it."""
        s = self.statement
        reads = [(x.tensor, x.indices) for v in s.values for x in loads(v)]
        reads += [(e.tensor, e.indices) for size in sizes_of(s) for e in elements(size)]
        for target in s.targets:
            own = s.combine == ASSIGN and tells_apart(target.indices, s.dims)
            for tensor, indices in reads:
                if tensor != target.tensor or (own and indices == target.indices):
                    continue
                if not any(map(self.differ, target.indices, indices)):
                    raise self.error(
                        f"{_shown(tensor, indices)} is read where {_shown(tensor, target.indices)} "
                        "is written: which comes first is not fixed",
                        "read from another tensor, or go through the dimension with 'scan'",
                    )

    def differ(self, written: Size, read: Size) -> bool:
        """Whether two subscripts surely differ, for any two instances in the same step."""
        other: dict[str, Size] = {d.name: var(f"{d.name}'") for d in self.statement.dims}
        dims = [
            Dim(f"{d.name}'", substitute(d.lo, other), substitute(d.hi, other))
            for d in self.statement.dims
        ]
        difference = written - substitute(read, other)
        return any(nonnegative(self.lowest(x - 1, dims)) for x in (difference, -difference))

    def check_access(self, tensor: str, indices: tuple[Size, ...]) -> None:
        if tensor not in self.types:
            raise self.error(f"{tensor} is no parameter")
        if len(indices) != self.types[tensor].rank:
            raise self.error(
                f"{tensor} has {self.types[tensor].rank} dimensions and {len(indices)} subscripts"
            )

    def check_target(self, target: Access) -> None:
        self.check_access(target.tensor, target.indices)
        if self.nest.param(target.tensor).role == "in":
            raise self.error(f"{target.tensor} is an input and cannot be written")
        self.check_inside(target.tensor, target.indices)

    def check_elements(self, size: Size) -> None:
        for e in elements(size):
            self.check_access(e.tensor, e.indices)
            if not self.types[e.tensor].dtype.is_integer:
                raise self.error(f"{e.tensor} is no integer tensor and cannot be a subscript")
            if not nonnegative(self.lowest(e.hi - e.lo - 1)):
                raise self.error(f"'{e}': the range {e.lo}..{e.hi} may be empty")
            self.check_inside(e.tensor, e.indices)

    def check_inside(self, tensor: str, indices: tuple[Size, ...]) -> None:
        for index, extent in zip(indices, self.types[tensor].shape, strict=True):
            if not (self.proves(index) and self.proves(extent - 1 - index)):
                raise self.error(
                    f"{_shown(tensor, indices)}: {index} is not surely in 0..{extent}",
                    "give the value outside with 'else', or cut the domain with 'where'",
                )

    def proves(self, size: Size) -> bool:
        """Whether `size >= 0` for every instance of the statement."""
        return any(nonnegative(self.lowest(size - w)) for w in (0, *self.statement.where))

    def lowest(self, size: Size, more: Iterable[Dim] = ()) -> Size:
        """A lower bound over the domain; `more` are dimensions besides the statement's."""
        return range_over(size, (*self.scans, *self.statement.dims, *more))[0]

    def check_expression(self, value: Expr) -> None:
        for e in walk(value):
            if e.lanes != 1 or (isinstance(e, Load) and e.count is not None):
                raise self.error("nests have no vectors: every expression has one lane")
            if isinstance(e, Name | Reduce):
                what = "name" if isinstance(e, Name) else "reduction"
                raise self.error(f"there is a {what} inside an expression")
            if isinstance(e, Load):
                self.check_load(e)
            elif isinstance(e, Apply):
                self.check_apply(e)
            elif isinstance(e, Const) and not _holds(e):
                raise self.error(f"{e.value} is no {e.dtype}")

    def check_load(self, e: Load) -> None:
        self.check_access(e.tensor, e.indices)
        dtype = self.types[e.tensor].dtype
        if e.dtype is not dtype or (e.other is not None and e.other.dtype is not dtype):
            raise self.error(f"{e.tensor} is {dtype}, but its load or border is another type")
        if e.other is None:
            self.check_inside(e.tensor, e.indices)

    def check_apply(self, e: Apply) -> None:
        if e.fn not in FUNCTIONS:
            raise self.error(f"{e.fn} is no scalar function")
        if e.fn == "cast":
            return
        try:
            typed = apply(e.fn, *e.args)
        except ValueError as mistake:
            raise self.error(str(mistake)) from None
        if typed.dtype is not e.dtype:
            raise self.error(f"{e.fn} gives {typed.dtype}, not {e.dtype}")


def _shown(tensor: str, indices: Iterable[Size]) -> str:
    return f"{tensor}[{','.join(map(str, indices))}]"


def _holds(e: Const) -> bool:
    """Whether the literal's dtype has its value."""
    if e.dtype.is_float:
        return isinstance(e.value, float)
    if e.dtype.kind == "bool":
        return isinstance(e.value, bool)
    lo, hi = e.dtype.limits
    return isinstance(e.value, int) and not isinstance(e.value, bool) and lo <= e.value <= hi
