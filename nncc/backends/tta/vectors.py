"""Vector expressions of Loops: operations of the machine on vectors.

A vector lives in a register if the machine loads and stores vectors of so many bits, otherwise in
memory. What no operation computes is left to `lanes`.
"""

from __future__ import annotations

from collections.abc import Callable

from nncc.backends.tta.accesses import Accesses, bits_of
from nncc.backends.tta.addresses import flat
from nncc.backends.tta.code import Operand
from nncc.backends.tta.memory import Place
from nncc.backends.tta.operations import Operations, Unselectable
from nncc.backends.tta.scope import Scope, Wide
from nncc.backends.tta.select import Found
from nncc.backends.tta.words import Words
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value
from nncc.ir.index import Size
from nncc.ir.loops import Store


class Vectors:
    """Vector expressions in registers.

    Args:
        through_memory: computes lane by lane, into a register.
    """

    def __init__(
        self,
        words: Words,
        scope: Scope,
        accesses: Accesses,
        operations: Operations,
        through_memory: Callable[[Expr], Operand],
    ) -> None:
        self.words, self.scope, self.accesses = words, scope, accesses
        self.operations, self.through_memory = operations, through_memory

    def vector(self, e: Expr) -> Operand:
        """The register of a vector. Raises Unselectable."""
        if not self.accesses.in_register(e.dtype, e.lanes):
            if isinstance(e, Const) or (isinstance(e, Apply) and e.fn == "broadcast"):
                return self.selected(e)
            raise Unselectable
        if isinstance(e, Name):
            found = self.scope.values[e.name]
            if isinstance(found, Place):
                return self.whole(found, e)
            assert not isinstance(found, Wide)
            return found
        if isinstance(e, Load):
            return self._load(e)
        if isinstance(e, Const) and bits_of(e.dtype, e.lanes) <= 32:
            one = int(e.value) & ((1 << e.dtype.bits) - 1)
            content = b"".join(one.to_bytes(e.dtype.bits // 8, "little") for _ in range(e.lanes))
            return self.operations.packed(content)
        try:
            return self.selected(e)
        except Unselectable:
            return self.through_memory(e)

    def selected(self, e: Expr) -> Operand:
        """By the machine's operations alone. Raises Unselectable."""
        if isinstance(e, Apply) and (record := self.operations.named(e.fn)) is not None:
            return self.operations.call(record, e.args)
        for found in self.operations.matches(e):
            if not _usable(found):
                continue
            before = len(self.words.items)
            try:
                return self.operations.found(found)
            except Unselectable:
                self._forget(before)
        raise Unselectable

    def whole(self, place: Place, e: Expr) -> Operand:
        """A vector that lives in memory. Raises Unselectable."""
        found = self.accesses.load_vector(place, 0, e.dtype, e.lanes)
        if found is None:
            raise Unselectable
        return found

    def stores(self, s: Store) -> bool:
        """Stores a vector from a register; False, with nothing done, if that is not possible."""
        e, place = s.value, self.scope.places[s.buffer]
        where = self.scope.resolved(flat(s.indices, place.shape))
        count = e.lanes if s.count is None else self.scope.resolved(s.count)
        if not isinstance(count, int) or count < e.lanes:
            return False
        if not self.accesses.in_register(e.dtype, e.lanes):
            return False
        before = len(self.words.items)
        try:
            if self.accesses.store_vector(place, where, self.vector(e), e.dtype, e.lanes):
                return True
        except Unselectable:
            pass
        self._forget(before)
        return False

    def _forget(self, before: int) -> None:
        """Drops operations of the block from a place on; nothing may refer to them."""
        del self.words.items[before:]
        self.accesses.addresses.forget()

    def _load(self, e: Load) -> Operand:
        place = self.scope.places[e.tensor]
        where = self.scope.resolved(flat(e.indices, place.shape))
        if e.other is None and self._covers(e, place, where):
            found = self.accesses.load_vector(place, where, e.dtype, e.lanes)
            if found is not None:
                return found
        return self.through_memory(e)

    def _covers(self, e: Load, place: Place, where: Size) -> bool:
        """Whether all lanes may be read: also those behind the end of a constant, which are 0."""
        if e.count is None:
            return True
        count = self.scope.resolved(e.count)
        if isinstance(count, int) and count >= e.lanes:
            return True
        content = place.region.content
        if content is None or not isinstance(where, int) or not isinstance(count, int):
            return False
        size = e.dtype.bits // 8
        alignment = self.accesses.memory.alignment
        padded = -(-len(content) // alignment) * alignment
        end = place.start + (where + count) * size
        return end == len(content) and place.start + (where + e.lanes) * size <= padded


def _usable(found: Found) -> bool:
    """Not where an operand would have to be made of itself."""
    return all(x.lanes == 1 or not isinstance(x, Value) for x in found.bound.values())
