"""The Nests level: what a group computes, as loop nests over index domains, and a schedule.

A `Nest` is a function over tensors: parameters, local tensors, and a body of statements

    acc: for n in 0..N, m in 0..64, e in 0..56, f in 0..56, c in 0..3, r in 0..3, s in 0..3 {
      t[n,m,e,f] sum= (x[n,c,e+r-1,f+s-1] else 0) * w[m,c,r,s]
    }

A statement has an iteration domain (a box whose bounds may use earlier dimensions and named
sizes, cut by `where` constraints), one access that it writes, and a scalar expression.
`=` assigns; another combine (`sum`, `max`, …) folds the value into what the target holds, in
any order: reassociation is part of a reduction's meaning, for floats too.

Without a schedule a nest means: the body's items one after the other, each complete before the
next; a `Scan` runs its items once for each value of its dimension, in ascending order.
The schedule (a tree of loops over pieces of the dimensions) says in which order the same
instances run, how they map to vectors and machine operations, and where local tensors live;
it may not change what a nest computes (`nncc.passes.poly` proves that).

`Definition` is the form in which people write the same thing, polymorphic over sizes and
attributes: dimensions and ranges may be left out, and reductions may stand inside
expressions. `nncc.ir.definition` instantiates it to a `Nest`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from nncc.diagnostics import NOWHERE, Location
from nncc.ir.bounds import Range, bounds
from nncc.ir.expr import Expr, Load, Value, walk
from nncc.ir.index import Size, affine, variables
from nncc.ir.types import DType, TensorType

ASSIGN = "="


@dataclass(frozen=True, slots=True)
class Layout:
    """How a buffer keeps a tensor: physical dimensions as functions of the logical indices.

    `dims[k]` is an expression over the logical index variables `d0, d1, …`; `extents[k]` its
    physical extent (it may be padded: elements that no logical index reaches hold no meaning
    unless `fill` is set). Physical dimensions are stored row-major. For NCHW tensors blocked
    by 16 channels: dims `(d0, d1 // 16, d2, d3, d1 % 16)`,
    extents `(N, ceildiv(C, 16), H, W, 16)`.
    """

    dims: tuple[Size, ...]
    extents: tuple[Size, ...]
    fill: int | float | None = None


@dataclass(frozen=True, slots=True)
class Param:
    """A tensor that a nest reads, writes or keeps while it runs.

    `layout` None is the dense row-major one. `role` is `in`, `out` or `local`.
    """

    name: str
    type: TensorType
    role: Literal["in", "out", "local"] = "in"
    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class Dim:
    """An iteration dimension: `name in lo..hi`, hi excluded."""

    name: str
    lo: Size
    hi: Size

    @property
    def extent(self) -> Size:
        return self.hi - self.lo


@dataclass(frozen=True, slots=True)
class Access:
    """An element of a tensor that a statement writes."""

    tensor: str
    indices: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Combine:
    """An associative, commutative combine over tuples, as a user declares it.

    `identity[k]` is the neutral k-th component; `values[k]` the k-th component of
    combine(a, b), over the names `a0, a1, …` and `b0, b1, …` (`Name` expressions).
    The scalar combines `sum`, `prod`, `min`, `max` are built in and need no declaration.
    """

    name: str
    identity: tuple[Expr, ...]
    values: tuple[Expr, ...]


BUILTIN_COMBINES = {"sum": "add", "prod": "mul", "min": "min", "max": "max"}


def builtin_identity(combine: str, dtype: DType) -> int | float | bool:
    """The neutral element of a built-in combine: what a reduction's target starts as."""
    if combine in ("sum", "prod"):
        value = int(combine == "prod")
        return bool(value) if dtype.kind == "bool" else float(value) if dtype.is_float else value
    if dtype.is_float:
        return float("inf") if combine == "min" else float("-inf")
    limit = dtype.limits[1 if combine == "min" else 0]
    return bool(limit) if dtype.kind == "bool" else limit


@dataclass(frozen=True, slots=True)
class Statement:
    """All instances of one assignment or reduction step.

    Args:
        name: unique in the nest; schedules refer to it.
        dims: the iteration domain, outermost first by convention.
        targets: what is written: one access, or one for each component of a tuple combine.
        combine: `=`, a built-in combine, or one that the nest declares.
        values: one expression for each target.
        where: constraints `size >= 0` that cut the domain.
    """

    name: str
    dims: tuple[Dim, ...]
    targets: tuple[Access, ...]
    combine: str
    values: tuple[Expr, ...]
    where: tuple[Size, ...] = ()
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def reduction_dims(self) -> tuple[str, ...]:
        """Dimensions over which instances fold into the same element."""
        if self.combine == ASSIGN:
            return ()
        used = frozenset[str]().union(*(variables(i) for i in self.targets[0].indices))
        return tuple(d.name for d in self.dims if d.name not in used)


@dataclass(frozen=True, slots=True)
class Scan:
    """Items that run once for each value of `dim`, ascending; they may read earlier steps."""

    dim: Dim
    body: tuple[Item, ...]


Item = Statement | Scan


# -- schedules -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Band:
    """A loop over one dimension of every statement below it that has the dimension.

    `for m by 32` walks the range that the enclosing loops leave of `m` in steps of 32; below
    it, `m` ranges over one piece of (at most) 32. `for m` (step 1) fixes `m` for what is
    below. Every statement below a band has its dimension.

    kind: `serial`; `parallel` (iterations are independent); `unroll` (copies of the body, the
    number of iterations is static); `vector` (the step is a number of lanes: so many
    iterations run at once; bands inside of it are serial or unrolled).
    """

    dim: str
    step: Size
    kind: Literal["serial", "parallel", "unroll", "vector"]
    body: tuple[Schedule, ...]


@dataclass(frozen=True, slots=True)
class Local:
    """Local tensors that live inside this subtree only, one piece per enclosing iteration.

    `space` is `registers` or a memory of the machine (for the CPU: `stack`).
    """

    tensors: tuple[str, ...]
    space: str
    body: tuple[Schedule, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A statement, or what the enclosing loops leave of it in order of its dims.

    `operation` names the machine operation that performs it (set by `tensorize`); its
    `dims` are pairs (dimension of the operation, dimension of the statement). Loads of the
    tensors in `prefetch`, pairs (tensor, bytes), also fetch what lies so many bytes further on.
    """

    statement: str
    operation: str = ""
    dims: tuple[tuple[str, str], ...] = ()
    prefetch: tuple[tuple[str, int], ...] = ()


Schedule = Band | Local | Leaf


@dataclass(frozen=True)
class Nest:
    """A function over tensors as statements and, once chosen, their schedule.

    `sizes` are the named sizes that types and bounds use; all are at least 1.
    `schedule` None is the default order. Items of a schedule's tuple run one after the other.
    """

    name: str
    sizes: tuple[str, ...]
    params: tuple[Param, ...]
    body: tuple[Item, ...]
    combines: tuple[Combine, ...] = ()
    schedule: tuple[Schedule, ...] | None = None
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def inputs(self) -> tuple[Param, ...]:
        return tuple(p for p in self.params if p.role == "in")

    @property
    def outputs(self) -> tuple[Param, ...]:
        return tuple(p for p in self.params if p.role == "out")

    @property
    def locals(self) -> tuple[Param, ...]:
        return tuple(p for p in self.params if p.role == "local")

    def param(self, name: str) -> Param:
        """Raises KeyError if there is none of that name."""
        for p in self.params:
            if p.name == name:
                return p
        raise KeyError(name)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """All statements in the order of the text."""
        return tuple(s for s, _ in walk_statements(self.body))


def walk_statements(
    items: tuple[Item, ...], scans: tuple[Dim, ...] = ()
) -> Iterator[tuple[Statement, tuple[Dim, ...]]]:
    """Each statement with the dimensions of the scans around it, outermost first."""
    for item in items:
        if isinstance(item, Scan):
            yield from walk_statements(item.body, (*scans, item.dim))
        else:
            yield item, scans


def sizes_of(s: Statement) -> Iterator[Size]:
    """Every integer expression of a statement: bounds, constraints, subscripts, values."""
    for d in s.dims:
        yield from (d.lo, d.hi)
    yield from s.where
    for t in s.targets:
        yield from t.indices
    for v in s.values:
        for x in walk(v):
            if isinstance(x, Load):
                yield from x.indices
            elif isinstance(x, Value):
                yield x.size


def range_over(size: Size, dims: Iterable[Dim]) -> Range:
    """Smallest and largest value over dimensions, whose bounds may use those before them."""
    lo = hi = size
    for d in reversed(tuple(dims)):
        limits = {d.name: (d.lo, d.hi - 1)}
        lo, hi = bounds(lo, limits)[0], bounds(hi, limits)[1]
    return bounds(lo, {})[0], bounds(hi, {})[1]  # without elements of tensors


def tells_apart(indices: Iterable[Size], dims: Iterable[Dim]) -> bool:
    """Whether instances that differ in `dims` surely access different elements: each dimension is
    in a subscript without any other (`y[2*i + 1, n, j]` over i and j).
    """
    names = {d.name for d in dims}
    forms = [affine(i, names) for i in indices]
    return names == {n for f in forms if f is not None and len(f[0]) == 1 for n in f[0]}


def walk_schedule(tree: tuple[Schedule, ...]) -> Iterator[Schedule]:
    """Every node of a schedule in the order of the text."""
    for node in tree:
        yield node
        if not isinstance(node, Leaf):
            yield from walk_schedule(node.body)


# -- definitions ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Attribute:
    """An attribute of a definition: its type's name and its default (None: required)."""

    name: str
    type: Literal["int", "float", "bool"]
    default: int | float | bool | None = None


@dataclass(frozen=True)
class Definition:
    """An op that a user wrote in index notation.

    Args:
        params: inputs, outputs and locals; sizes that first occur in an input's type are bound
            by the argument, every other must follow from them and the attributes.
        attributes: read in the body and in output types like named sizes (ints) or values.
        body: statements whose `dims` list only what was written; expressions may hold `Reduce`.
    """

    name: str
    params: tuple[Param, ...]
    attributes: tuple[Attribute, ...]
    body: tuple[Item, ...]
    combines: tuple[Combine, ...] = ()
    doc: str = ""
    location: Location = field(default=NOWHERE, compare=False)
