"""The body of a definition as statements of a nest: ranges found, reductions taken out.

    y[n] = scale * sum(c)(x[n,c])   →
    y_sum_init: for n in 0..B { y_sum[n] = 0.0 }
    y_sum: for n in 0..B, c in 0..3 { y_sum[n] sum= x[n,c] }
    y: for n in 0..B { y[n] = 1.0 * y_sum[n] }

`nncc.ir.definition` states the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nncc.diagnostics import Location, VerifyError
from nncc.ir.bounds import bounds, simplify
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Reduce, Value, map_indices, transform, walk
from nncc.ir.index import Size, elements, substitute, var, variables
from nncc.ir.nests import (
    ASSIGN,
    BUILTIN_COMBINES,
    Access,
    Definition,
    Dim,
    Item,
    Param,
    Scan,
    Statement,
    builtin_identity,
    tells_apart,
)
from nncc.ir.types import DType, TensorType


@dataclass(frozen=True)
class Ranges:
    """The dims around a place: those of scans, and those of the statement."""

    scans: tuple[Dim, ...] = ()
    dims: tuple[Dim, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(d.name for d in (*self.scans, *self.dims))


@dataclass
class BodyBuilder:
    """Makes the statements, and the local tensors that they need in `locals`.

    Args:
        definition: whose body it is.
        params: its tensors with the types of this instance.
        outer: named sizes of the caller.
        sizes: the values of the definition's sizes and int attributes.
        numbers: the values of its other attributes.
    """

    definition: Definition
    params: Mapping[str, Param]
    outer: frozenset[str]
    sizes: Mapping[str, Size]
    numbers: Mapping[str, float | bool]
    locals: list[Param] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    starts: list[Statement] = field(default_factory=list)  # of what the current item folds into

    def items(self, items: Iterable[Item], around: Ranges) -> tuple[Item, ...]:
        made: list[Item] = []
        for item in items:
            found: list[Item] = []
            if isinstance(item, Scan):
                dim = self.dim(item.dim)
                inner = replace(around, scans=(*around.scans, dim))
                found.append(Scan(dim, self.items(item.body, inner)))
            else:
                found += self.statement(self.concrete(item), around)
            if not around.scans:  # a scan starts once, not at each of its steps
                made += self.starts
                self.starts = []
            made += found
        return tuple(made)

    # Names and numbers of the caller ---------------------------------------------------

    def concrete(self, s: Statement) -> Statement:
        """The statement with sizes and attributes put in, and dims that hide no size."""
        targets = tuple(Access(t.tensor, tuple(map(self.size, t.indices))) for t in s.targets)
        return Statement(
            s.name, tuple(map(self.dim, s.dims)), targets, s.combine,
            tuple(map(self.expr, s.values)), tuple(map(self.size, s.where)), s.location,
        )  # fmt: skip

    def dim(self, d: Dim) -> Dim:
        return Dim(self.dim_name(d.name), self.size(d.lo), self.size(d.hi))

    def dim_name(self, name: str) -> str:
        """`name`, or one like it where the caller has a size of that name."""
        if name not in self.outer:
            return name
        taken = self.outer | _names(self.definition.body)
        while name in taken:
            name += "_"
        return name

    def size(self, size: Size) -> Size:
        names = variables(size)
        known = {v: self.sizes[v] for v in names if v in self.sizes}
        dims = {v: var(self.dim_name(v)) for v in names if v not in self.sizes}
        return substitute(size, known | dims)

    def expr(self, e: Expr) -> Expr:
        def rule(x: Expr) -> Expr:
            if isinstance(x, Name) and x.name in self.numbers:
                return Const(self.numbers[x.name], x.dtype, x.lanes)
            if isinstance(x, Value) and isinstance(x.size, int):
                return Const(x.size, x.dtype, x.lanes)
            if isinstance(x, Reduce):
                dims = tuple(
                    (self.dim_name(n), None if lo is None else self.size(lo),
                     None if hi is None else self.size(hi))
                    for n, lo, hi in x.dims
                )  # fmt: skip
                return replace(x, dims=dims)
            return x

        return transform(map_indices(e, self.size), rule)

    # Statements ------------------------------------------------------------------------

    def statement(self, s: Statement, around: Ranges) -> list[Statement]:
        """The statement, and before it those that its reductions need."""
        around = replace(around, dims=self.target_dims(s, around))
        if s.combine != ASSIGN:
            dims = self.ranges(self.free(s.values, around, s), s.values, s.location)
            around = replace(around, dims=(*around.dims, *dims))
        label = self.label(s.name or s.targets[0].tensor)
        whole = s.values[0]
        if s.combine == ASSIGN and isinstance(whole, Reduce) and _in_place(whole, s, around.dims):
            return self.reduction(whole, s.targets[0], label, around, s)
        made: list[Statement] = []
        values = tuple(self.without_reductions(v, label, around, s, made) for v in s.values)
        self.check_bound(values, around, s)
        if s.combine != ASSIGN:
            identities = self.identities(s.combine, s.values[0].dtype)
            for target, identity in zip(s.targets, identities, strict=True):
                if target.tensor not in self.written:
                    self.starts.append(self.start(target, identity, around, s))
        self.written |= {t.tensor for t in s.targets}
        return [*made, replace(s, name=label, dims=around.dims, values=values)]

    def target_dims(self, s: Statement, around: Ranges) -> tuple[Dim, ...]:
        """The dims of a statement as far as it states them or its targets imply them."""
        stated = {d.name: d for d in s.dims}
        implied: dict[str, Dim] = {}
        known = around.names | self.outer | stated.keys()
        for target in s.targets:
            shape = self.tensor_type(target.tensor).shape
            for index, extent in zip(target.indices, shape, strict=True):
                for name in sorted(variables(index) - known):
                    if index != var(name):
                        raise self.error(
                            s, f"the range of '{name}' does not follow from the subscript {index}",
                            f"write it: for {name} in 0..…",
                        )  # fmt: skip
                    dim = implied.setdefault(name, Dim(name, 0, extent))
                    if dim.hi != extent:
                        raise self.error(
                            s, f"'{name}' subscripts extents {dim.hi} and {extent} of the target"
                        )
        return (*implied.values(), *s.dims)

    def free(
        self, values: Iterable[Expr], around: Ranges, s: Statement
    ) -> list[tuple[str, Size | None, Size | None]]:
        """The dims in `values` that nothing has bound, in the order of the text."""
        bound = around.names | self.outer
        found: dict[str, None] = {}
        for v in values:
            for name in _free(v):
                if name not in bound:
                    found[name] = None
        return [(name, None, None) for name in found]

    def check_bound(self, values: Iterable[Expr], around: Ranges, s: Statement) -> None:
        if unbound := self.free(values, around, s):
            name = unbound[0][0]
            raise self.error(
                s, f"there is no dim '{name}' here",
                "a dim is a subscript of the target, or reduced over, or stated with for",
            )  # fmt: skip

    def ranges(
        self,
        dims: Iterable[tuple[str, Size | None, Size | None]],
        values: Sequence[Expr],
        location: Location,
    ) -> tuple[Dim, ...]:
        """Reduction dims with their ranges, found where they are not stated."""
        made = []
        for name, lo, hi in dims:
            if lo is None or hi is None:
                lo, hi = 0, self.extent(name, values, location)
            made.append(Dim(name, lo, hi))
        return tuple(made)

    def extent(self, name: str, values: Sequence[Expr], location: Location) -> Size:
        """The extent of the tensors that `name` subscripts by itself."""
        plain: dict[Size, str] = {}
        bordered: dict[Size, str] = {}
        for v in values:
            for tensor, indices, border in _accesses(v):
                for index, extent in zip(indices, self.tensor_type(tensor).shape, strict=True):
                    if index == var(name):
                        (bordered if border else plain).setdefault(extent, tensor)
        found = plain or bordered
        if not found:
            raise VerifyError(
                f"{self.definition.name}: the range of '{name}' does not follow: it subscripts no "
                "tensor by itself",
                location,
                f"state it, as in sum({name} in 0..3)(…)",
            )
        if len(found) > 1:
            (a, x), (b, y) = list(found.items())[:2]
            raise VerifyError(
                f"{self.definition.name}: '{name}' ranges over 0..{a} in '{x}' and over 0..{b} in "
                f"'{y}'",
                location,
                f"state its range, as in sum({name} in 0..{a})(…)",
            )
        return next(iter(found))

    # Reductions ------------------------------------------------------------------------

    def without_reductions(
        self, e: Expr, label: str, around: Ranges, s: Statement, made: list[Statement]
    ) -> Expr:
        """`e` with each reduction replaced by an element of a new tensor that holds it."""
        if isinstance(e, Reduce):
            return self.hoisted(e, label, around, s, made)
        if isinstance(e, Apply):
            args = (self.without_reductions(a, label, around, s, made) for a in e.args)
            return replace(e, args=tuple(args))
        if isinstance(e, Load) and e.other is not None:
            other = self.without_reductions(e.other, label, around, s, made)
            return replace(e, other=other)
        return e

    def hoisted(
        self, e: Reduce, label: str, around: Ranges, s: Statement, made: list[Statement]
    ) -> Expr:
        used = frozenset(_free(e)).union(*map(variables, s.where))
        kept = _closed(around.dims, used)
        ranges = {d.name: (d.lo, d.hi - 1) for d in (*around.scans, *kept)}
        hull = [(bounds(d.lo, ranges)[0], bounds(d.hi, ranges)[1]) for d in kept]
        name = self.local(f"{label}_{e.combine}")
        shape = tuple(simplify(hi - lo, ranges) for lo, hi in hull)
        self.locals.append(Param(name, TensorType(e.dtype, shape), "local"))
        indices = tuple(var(d.name) - lo for d, (lo, _) in zip(kept, hull, strict=True))
        inner = replace(around, dims=kept)
        made += self.reduction(e, Access(name, indices), self.label(name), inner, s)
        return Load(name, indices, e.dtype)

    def reduction(
        self, e: Reduce, target: Access, label: str, around: Ranges, s: Statement
    ) -> list[Statement]:
        """`target = combine(dims) body` as an initialization and a fold."""
        names = [n for n, _, _ in e.dims]
        if clash := sorted((around.names | self.outer) & set(names)):
            raise self.error(s, f"'{clash[0]}' is already a dim or size: it cannot be reduced over")
        dims = self.ranges(e.dims, (e.body,), s.location)
        inner = replace(around, dims=(*around.dims, *dims))
        (identity,) = self.identities(e.combine, e.dtype)
        init = Statement(
            self.label(f"{target.tensor}_init"), around.dims, (target,), ASSIGN, (identity,),
            s.where, s.location,
        )  # fmt: skip
        made: list[Statement] = []
        body = self.without_reductions(e.body, label, inner, s, made)
        self.check_bound((body,), inner, s)
        self.written.add(target.tensor)
        fold = Statement(label, inner.dims, (target,), e.combine, (body,), s.where, s.location)
        return [init, *made, fold]

    def identities(self, combine: str, dtype: DType) -> tuple[Expr, ...]:
        """The neutral element of a combine, for each of its components."""
        if combine in BUILTIN_COMBINES:
            return (Const(builtin_identity(combine, dtype), dtype),)
        return next(c for c in self.definition.combines if c.name == combine).identity

    def start(self, target: Access, identity: Expr, around: Ranges, s: Statement) -> Statement:
        """Sets the whole tensor to the identity, whatever part of it the statement folds into."""
        shape = self.tensor_type(target.tensor).shape
        ranges = {d.name: (d.lo, d.hi) for d in around.dims}
        dims: list[Dim] = []
        for k, (index, extent) in enumerate(zip(target.indices, shape, strict=True)):
            names = variables(index)
            name = min(names) if len(names) == 1 else ""
            taken = self.outer | {d.name for d in dims}
            if index != var(name) or ranges.get(name) != (0, extent) or name in taken:
                name = _fresh(f"d{k}", taken | around.names)
            dims.append(Dim(name, 0, extent))
        return Statement(
            self.label(f"{target.tensor}_init"), tuple(dims),
            (Access(target.tensor, tuple(var(d.name) for d in dims)),), ASSIGN, (identity,),
            location=s.location,
        )  # fmt: skip

    # Names -----------------------------------------------------------------------------

    def tensor_type(self, name: str) -> TensorType:
        if name in self.params:
            return self.params[name].type
        return next(p.type for p in self.locals if p.name == name)

    def label(self, hint: str) -> str:
        name = _fresh(hint, self.labels)
        self.labels.add(name)
        return name

    def local(self, hint: str) -> str:
        return _fresh(hint, {*self.params, *(p.name for p in self.locals)})

    def error(self, s: Statement, message: str, help: str = "") -> VerifyError:
        return VerifyError(f"{self.definition.name}: {message}", s.location, help)


def _names(items: Iterable[Item]) -> frozenset[str]:
    """Every dim and size that occurs in items."""
    found: set[str] = set()
    for item in items:
        if isinstance(item, Scan):
            found |= {item.dim.name} | _names(item.body)
            continue
        found |= {d.name for d in item.dims}
        for t in item.targets:
            found |= set[str]().union(*map(variables, t.indices))
        for v in item.values:
            for x in walk(v):
                found |= set[str]().union(*map(variables, _sizes(x)))
                found |= {n for n, _, _ in x.dims} if isinstance(x, Reduce) else set()
    return frozenset(found)


def _fresh(hint: str, taken: Iterable[str]) -> str:
    taken = set(taken)
    name, count = hint, 1
    while name in taken:
        count += 1
        name = f"{hint}_{count}"
    return name


def _closed(dims: tuple[Dim, ...], used: frozenset[str]) -> tuple[Dim, ...]:
    """Those of `dims` that are used, or that the bounds of such use."""
    kept: list[Dim] = []
    for d in reversed(dims):
        if d.name in used:
            kept.append(d)
            used |= variables(d.lo) | variables(d.hi)
    return tuple(reversed(kept))


def _in_place(e: Reduce, s: Statement, dims: tuple[Dim, ...]) -> bool:
    """Whether `target = e` may fold into the target itself: no other instance of the assignment
    writes the same element, and what is folded does not read the target.
    """
    (target,) = s.targets
    read = {tensor for tensor, _, _ in _accesses(e)}
    return not s.where and tells_apart(target.indices, dims) and target.tensor not in read


def _sizes(e: Expr) -> tuple[Size, ...]:
    """The integer expressions of a node, without those of its children."""
    if isinstance(e, Load):
        return e.indices
    if isinstance(e, Value):
        return (e.size,)
    if isinstance(e, Reduce):
        return tuple(b for _, lo, hi in e.dims for b in (lo, hi) if b is not None)
    return ()


def _free(e: Expr) -> list[str]:
    """Variables of an expression that no reduction in it binds, in the order of the text."""
    found = dict.fromkeys(v for size in _sizes(e) for v in _ordered(size))
    if isinstance(e, Reduce):
        bound = {n for n, _, _ in e.dims}
        return list(found | {v: None for v in _free(e.body) if v not in bound})
    children = e.args if isinstance(e, Apply) else ()
    if isinstance(e, Load) and e.other is not None:
        children = (e.other,)
    for c in children:
        found |= dict.fromkeys(_free(c))
    return list(found)


def _ordered(size: Size) -> list[str]:
    return sorted(variables(size))


def _accesses(e: Expr) -> Iterable[tuple[str, tuple[Size, ...], bool]]:
    """Tensor, subscripts and whether there is a border, of every access in an expression."""
    for x in walk(e):
        if isinstance(x, Load):
            yield x.tensor, x.indices, x.other is not None
        for size in _sizes(x):
            for element in elements(size):
                yield element.tensor, element.indices, False
