"""Operations of the machine for expressions, with their operands computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set

from nncc.backends.tta.accesses import Accesses
from nncc.backends.tta.code import Operand, Register
from nncc.backends.tta.select import Found, Patterns
from nncc.backends.tta.words import Words, word
from nncc.ir.expr import Apply, Const, Expr
from nncc.ir.scalar import FUNCTIONS
from nncc.machines.machine import Operation


class Unselectable(Exception):
    """No operation computes it; it is computed lane by lane."""


class Operations:
    """Emits what `select` finds, and what Loops call by name.

    Args:
        operand: computes what stands at a port for an expression.
    """

    def __init__(
        self,
        words: Words,
        accesses: Accesses,
        patterns: Patterns,
        operand: Callable[[Expr], Operand],
    ) -> None:
        self.words, self.accesses = words, accesses
        self.patterns, self.operand = patterns, operand

    def named(self, fn: str) -> Operation | None:
        """The operation that Loops call by this name; the names of functions come first."""
        return None if fn in FUNCTIONS else self.words.machine.operations.get(fn)

    def call(self, record: Operation, args: tuple[Expr, ...]) -> Register:
        """An operation that Loops call; a scalar at a port for vectors stands in all lanes."""
        inputs = []
        for e, o in zip(args, record.operands, strict=False):
            is_spread = e.lanes == 1 < o.lanes
            inputs.append(
                self.operand(Apply("broadcast", (e,), e.dtype, o.lanes) if is_spread else e)
            )
        return self.words.emit(record.name, tuple(inputs), _kind(record))

    def matches(self, e: Expr, without: Set[str] = frozenset()) -> Iterator[Found]:
        """Operations whose result is the expression."""
        return self.patterns.matches(e, without)

    def found(self, m: Found) -> Register:
        """The operation of a match. Raises Unselectable if an operand cannot be made."""
        inputs: list[Operand] = []
        for o in m.operation.operands:
            if o.is_result:
                continue
            if (o.name, -1) in m.bound:
                inputs.append(self.operand(m.bound[o.name, -1]))
                continue
            numbers = [m.bound.get((o.name, k)) for k in range(o.lanes)]
            content = b"".join(
                (int(n.value) if isinstance(n, Const) else 0).to_bytes(
                    o.dtype.bits // 8, "little", signed=o.dtype.kind == "int"
                )
                for n in numbers
            )
            inputs.append(self.packed(content))
        return self.words.emit(m.operation.name, tuple(inputs), _kind(m.operation))

    def packed(self, content: bytes) -> Operand:
        """Bytes as an operand: a number, or a constant in memory. Raises Unselectable."""
        if len(content) <= 4:
            return word(int.from_bytes(content, "little"))
        found = self.accesses.constant(content)
        if found is None:
            raise Unselectable
        return found


def _kind(record: Operation) -> str:
    return "vector" if record.operands[-1].bits > 32 else "scalar"
