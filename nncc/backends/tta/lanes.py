"""Vector expressions that no operation computes: through memory, lane by lane, in scalar loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from nncc.backends.tta.accesses import Accesses
from nncc.backends.tta.code import Operand
from nncc.backends.tta.memory import Place
from nncc.backends.tta.operations import Unselectable
from nncc.backends.tta.scope import Scope, Wide
from nncc.backends.tta.vectors import Vectors
from nncc.diagnostics import TargetError
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value, apply
from nncc.ir.index import Index, var
from nncc.ir.loops import Assign, Declare, For, Stmt, Store


class Lanes:
    """Vector expressions as loops.

    Args:
        write: lowers a statement.
    """

    def __init__(
        self, scope: Scope, accesses: Accesses, vectors: Vectors, write: Callable[[Stmt], None]
    ) -> None:
        self.scope, self.accesses = scope, accesses
        self.vectors, self.write = vectors, write
        self.nodes: Counter[str] = Counter()  # nodes of the model: vectors that became loops

    def through_memory(self, e: Expr) -> Operand:
        """The register of a vector. Raises Unselectable if registers hold no such vectors."""
        place = self.accesses.slot(e.dtype, e.lanes)
        self.fill(place, e)
        return self.vectors.whole(place, e)

    def fill(self, place: Place, e: Expr) -> None:
        """place = e, from a register if the machine has the operations for it."""
        if not self._computed(place, e):
            self._write(Store(self._named(place), (0,), self._in_memory(e)))

    def store(self, s: Store) -> None:
        """Stores the lanes of a vector, or the first ones, one by one."""
        place = self.accesses.slot(s.value.dtype, s.value.lanes)
        if self._computed(place, s.value):
            self._write(replace(s, value=self.as_load(place, s.value)))
        else:
            self._write(replace(s, value=self._in_memory(s.value)))

    def _computed(self, place: Place, e: Expr) -> bool:
        """place = e by operations on vectors; False if there are none for it."""
        if isinstance(e, Load) or not self.accesses.in_register(e.dtype, e.lanes):
            return False
        try:
            self._keep(self.vectors.selected(e), place, e)
        except Unselectable:
            return False
        return True

    def _write(self, s: Store) -> None:
        """A store as a loop over its lanes, each a function of lanes in memory."""
        self.nodes[self.vectors.words.source] += 1
        e = s.value
        count = e.lanes if s.count is None else self.scope.resolved(s.count)
        start = 0
        for end in sorted(self._limits(e, e.lanes) | {e.lanes}):
            hi = min(end, count) if isinstance(count, int) else count
            if isinstance(hi, int) and hi <= start:
                continue
            name = self.scope.fresh("lane")
            lane = var(name)
            target = (*s.indices[:-1], s.indices[-1] + lane)
            self.write(For(name, start, hi, (Store(s.buffer, target, self._lane(e, lane, start)),)))
            start = end
            if not isinstance(hi, int):
                return

    def folded(self, e: Apply) -> Operand | Wide:
        """`reduce_add` and the like: the lanes in memory, one after the other."""
        x = e.args[0]
        place = self.accesses.slot(x.dtype, x.lanes)
        self.fill(place, x)
        source, total, lane = self._named(place), self.scope.fresh("fold"), self.scope.fresh("lane")
        element = Load(source, (var(lane),), x.dtype)
        one = apply(e.fn.removeprefix("reduce_"), Name(total, x.dtype), element)
        self.write(Declare(total, Load(source, (0,), x.dtype)))
        self.write(For(lane, 1, x.lanes, (Assign(total, one),)))
        found = self.scope.values.pop(total)
        assert not isinstance(found, Place)
        return found

    def as_load(self, place: Place, e: Expr) -> Load:
        """A vector of the type of `e` that stands in memory."""
        return Load(self._named(place), (0,), e.dtype, lanes=e.lanes)

    def _named(self, place: Place) -> str:
        name = self.scope.fresh("slot")
        self.scope.places[name] = place
        return name

    def _keep(self, x: Operand, place: Place, e: Expr) -> None:
        if not self.accesses.store_vector(place, 0, x, e.dtype, e.lanes):
            raise Unselectable

    def _limits(self, e: Expr, lanes: int) -> set[int]:
        """Lanes at which loads in `e` end."""
        if isinstance(e, Load) and e.count is not None and e.lanes > 1:
            count = self.scope.resolved(e.count)
            if not isinstance(count, int):
                raise TargetError("a vector with a number of lanes that only the run decides")
            return {max(0, min(count, lanes))} - {0}
        if isinstance(e, Apply) and e.fn != "broadcast":
            return set[int]().union(*(self._limits(a, lanes) for a in e.args))
        return set()

    def _in_memory(self, e: Expr) -> Expr:
        """`e` with what is no function of each lane stored to memory and loaded from there."""
        if isinstance(e, Name) and e.lanes > 1:
            found = self.scope.values[e.name]
            if isinstance(found, Place):
                return self.as_load(found, e)
            assert not isinstance(found, Wide)
            place = self.accesses.slot(e.dtype, e.lanes)
            self._keep(found, place, e)
            return self.as_load(place, e)
        if isinstance(e, Apply) and e.lanes > 1 and e.fn != "broadcast":
            if self.vectors.operations.named(e.fn) is not None:
                place = self.accesses.slot(e.dtype, e.lanes)
                self._keep(self.vectors.selected(e), place, e)
                return self.as_load(place, e)
            args = tuple(self._in_memory(a) for a in e.args)
            return e if args == e.args else Apply(e.fn, args, e.dtype, e.lanes)
        return e

    def _lane(self, e: Expr, lane: Index, start: int) -> Expr:
        """Lane number `lane` of `e`, which is at least `start`."""
        if e.lanes == 1:
            return e
        if isinstance(e, Const):
            return Const(e.value, e.dtype)
        if isinstance(e, Value):
            return Value(e.size, e.dtype)
        if isinstance(e, Load):
            if e.count is not None:
                count = self.scope.resolved(e.count)
                if isinstance(count, int) and start >= count:
                    return Const(0, e.dtype)
            other = None if e.other is None else self._lane(e.other, lane, start)
            return Load(e.tensor, (*e.indices[:-1], e.indices[-1] + lane), e.dtype, other)
        assert isinstance(e, Apply)
        if e.fn == "broadcast":
            return e.args[0]
        return Apply(e.fn, tuple(self._lane(a, lane, start) for a in e.args), e.dtype)
