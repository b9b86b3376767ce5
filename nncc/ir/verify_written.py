"""Whether tensors are written wherever they are read, and outputs everywhere.

    verify_written(nest, ("y", "t"))         # raises VerifyError if that cannot be shown

What is known to be written is kept as boxes: those of assignments without `where` in which each
subscript is a dimension, or several that count through a range (`16*b + v`), plus an offset.
Boxes side by side are joined. What a read may touch has to lie in one of them:

    y[0, c] = …                              0..1, 0..C
    scan t in 1..N { y[t, c] = y[t-1, c] }   the steps before have written 1..t, 0..C: joined 0..t

Besides boxes, a read is right if an earlier statement assigns just what it reads: the same
subscripts, over the same dimensions, and under no constraint (`where`) that the reader lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nncc.diagnostics import Location, VerifyError
from nncc.ir.bounds import nonnegative
from nncc.ir.expr import loads
from nncc.ir.index import Size, affine, elements, var, variables
from nncc.ir.nests import (
    ASSIGN,
    Access,
    Dim,
    Item,
    Nest,
    Statement,
    range_over,
    sizes_of,
    walk_statements,
)

Interval = tuple[Size, Size]  # hi excluded
Box = tuple[Interval, ...]

MOST_BOXES = 64  # of one tensor: joining is quadratic


def verify_written(nest: Nest, tensors: Iterable[str]) -> None:
    """Raises VerifyError if one of `tensors` may be read, or be an output, where it has a hole."""
    checker = _Checker(nest, frozenset(tensors))
    checker.items(nest.body)
    for p in nest.outputs:
        whole = tuple((0, extent) for extent in p.type.shape)
        if p.name in checker.tensors and not checker.is_written(p.name, whole):
            raise checker.error(p.name, f"{p.name} is an output", nest.location)


@dataclass
class _Checker:
    """`boxes` are the parts that are written so far; `scans` the scans around, at a given step."""

    nest: Nest
    tensors: frozenset[str]
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    scans: tuple[Dim, ...] = ()
    before: tuple[Statement, ...] = ()  # assignments that have run, in the same step

    def error(self, tensor: str, use: str, location: Location) -> VerifyError:
        subscripts = ",".join("ijklmnop"[: self.nest.param(tensor).type.rank])
        return VerifyError(
            f"nest {self.nest.name}: {use}, but not all of it is surely written",
            location,
            f"write the whole tensor first, as in {tensor}[{subscripts}] = 0",
        )

    def items(self, items: tuple[Item, ...]) -> None:
        for item in items:
            if isinstance(item, Statement):
                self.check_reads(item)
                self.write(item, ())
                if item.combine == ASSIGN:
                    self.before = (*self.before, item)
                continue
            assigned = self.before
            before = {tensor: list(boxes) for tensor, boxes in self.boxes.items()}
            self.scans = (*self.scans, item.dim)
            written = list(walk_statements(item.body))
            steps_before = Dim(item.dim.name, item.dim.lo, var(item.dim.name))
            for s, inner in written:
                self.write(s, (steps_before, *inner))
            self.items(item.body)
            self.scans = self.scans[:-1]
            self.boxes, self.before = before, assigned
            for s, inner in written:
                self.write(s, (item.dim, *inner))

    def check_reads(self, s: Statement) -> None:
        reads = [(x.tensor, x.indices) for v in s.values for x in loads(v)]
        reads += [(e.tensor, e.indices) for size in sizes_of(s) for e in elements(size)]
        if s.combine != ASSIGN:
            reads += [(t.tensor, t.indices) for t in s.targets]
        for tensor, indices in reads:
            if tensor in self.tensors and not self.is_assigned(tensor, indices, s):
                spans = [range_over(i, s.dims) for i in indices]
                if not self.is_written(tensor, tuple((lo, hi + 1) for lo, hi in spans)):
                    shown = f"{tensor}[{','.join(map(str, indices))}]"
                    raise self.error(tensor, f"{shown} is read", s.location)

    def is_assigned(self, tensor: str, indices: tuple[Size, ...], s: Statement) -> bool:
        """Whether an earlier statement has an instance for each of `s` that assigns this."""
        return any(
            Access(tensor, indices) in w.targets
            and set(w.dims) <= set(s.dims)
            and set(w.where) <= set(s.where)
            for w in self.before
        )

    def write(self, s: Statement, around: tuple[Dim, ...]) -> None:
        """Adds what the statement assigns in all steps of the scans `around`."""
        for target in s.targets:
            if s.combine != ASSIGN or s.where or target.tensor not in self.tensors:
                continue
            box = self.box(target, (*around, *s.dims))
            if box is not None:
                self.add(self.boxes.setdefault(target.tensor, []), box)

    def add(self, boxes: list[Box], box: Box) -> None:
        """Adds a box, and what it makes together with those that touch it."""
        if box in boxes or len(boxes) >= MOST_BOXES:
            return
        boxes.append(box)
        for other in tuple(boxes):
            for axis in range(len(box)):
                for joined in (self.joined(box, other, axis), self.joined(other, box, axis)):
                    if joined is not None:
                        self.add(boxes, joined)

    def joined(self, a: Box, b: Box, axis: int) -> Box | None:
        """A box in both, if `b` begins along `axis` before `a` ends, and ends after it."""
        both: list[Interval] = []
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            if k == axis:
                follows = self.holds(x[1] - y[0]) and self.holds(y[1] - x[1])
                if not follows or not self.holds(y[0] - x[0]):
                    return None
                both.append((x[0], y[1]))
            elif self.inside(x, y):
                both.append(x)
            elif self.inside(y, x):
                both.append(y)
            else:
                return None
        return tuple(both)

    def inside(self, x: Interval, y: Interval) -> bool:
        return self.holds(x[0] - y[0]) and self.holds(y[1] - x[1])

    def is_written(self, tensor: str, touched: Box) -> bool:
        """Whether a box holds all of `touched` that is in the tensor."""
        shape = self.nest.param(tensor).type.shape
        return any(
            all(
                (self.holds(-lo) or self.holds(first - lo))
                and (self.holds(hi - extent) or self.holds(hi - end))
                for (lo, hi), (first, end), extent in zip(box, touched, shape, strict=True)
            )
            for box in self.boxes.get(tensor, ())
        )

    def holds(self, size: Size) -> bool:
        """Whether `size >= 0` in every step of the scans around."""
        return nonnegative(range_over(size, self.scans)[0])

    def box(self, target: Access, dims: tuple[Dim, ...]) -> Box | None:
        """The elements that all instances together write, if they are a box."""
        ranges = {d.name: d for d in dims}
        used = [v for i in target.indices for v in variables(i) if v in ranges]
        if len(used) > len(set(used)):
            return None
        if not all(self.holds(d.extent - 1) for d in dims if d.name not in used):
            return None  # there may be no instance at all
        found = [self.interval(i, ranges) for i in target.indices]
        return None if None in found else tuple(f for f in found if f is not None)

    def interval(self, index: Size, ranges: dict[str, Dim]) -> Interval | None:
        """The values of a subscript over independent ranges, if they are without gaps."""
        form = affine(index, ranges)
        if form is None:
            return None
        lo, unit = form[1], 1  # what is left to count has steps of `unit`
        span: Size = 1
        for name, factor in sorted(form[0].items(), key=lambda item: abs(item[1])):
            d = ranges[name]
            if (variables(d.lo) | variables(d.hi)) & ranges.keys() - {name}:
                return None
            if abs(factor) != unit:
                return None
            lo = lo + factor * (d.lo if factor > 0 else d.hi - 1)
            span = unit * d.extent
            unit = span if isinstance(span, int) else 0
        return lo, lo + span
