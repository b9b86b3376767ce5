"""Arithmetic on integers of 64 bits, as pairs of words."""

from __future__ import annotations

from nncc.backends.tta.code import Operand
from nncc.backends.tta.scope import Wide
from nncc.backends.tta.words import Words
from nncc.diagnostics import TargetError


class Wides:
    """Emits functions of pairs of words."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.do = words.apply

    def extended(self, x: Operand) -> Wide:
        """A signed word."""
        return Wide(x, self.do("shr", x, 31), True)

    def apply(
        self, fn: str, a: Wide, b: Wide | None, *, unsigned: bool, far: bool = False
    ) -> Operand | Wide:
        """fn(a, b), or fn(a) without b. Raises TargetError for what has no code here.

        Args:
            far: a shift is certainly by 32 places or more.
        """
        do = self.do
        if fn == "neg":
            return self._difference(Wide(0, 0, True), a)
        if fn == "not":
            return Wide(self.do("xor", a.low, -1), self.do("xor", a.high, -1), a.is_word)
        if fn == "abs":
            if unsigned:
                return a
            negative = self.do("shru", a.high, 31)
            return self.choose(negative, self._difference(Wide(0, 0, True), a), a)
        assert b is not None
        if fn == "add":
            low = do("add", a.low, b.low)
            return Wide(low, do("add", do("add", a.high, b.high), do("gtu", a.low, low)))
        if fn == "sub":
            return self._difference(a, b)
        if fn == "mul":
            low = do("mul", a.low, b.low)
            if a.is_word and b.is_word:
                return Wide(low, do("mulhi", a.low, b.low))
            cross = do("add", do("mul", a.low, b.high), do("mul", a.high, b.low))
            return Wide(low, do("add", do("mulhiu", a.low, b.low), cross))
        if fn in ("and", "or", "xor"):
            return Wide(do(fn, a.low, b.low), do(fn, a.high, b.high), a.is_word and b.is_word)
        if fn == "shl":
            return self._left(a, b.low, far)
        if fn == "shr":
            return self._right(a, b.low, unsigned, far)
        if fn in ("eq", "ne"):
            different = do("or", do("xor", a.low, b.low), do("xor", a.high, b.high))
            return do(fn, different, 0)
        if fn in ("lt", "ge"):
            return do("xor", self._less(a, b, unsigned), 1 if fn == "ge" else 0)
        if fn in ("gt", "le"):
            return do("xor", self._less(b, a, unsigned), 1 if fn == "le" else 0)
        if fn == "min":
            return self.choose(self._less(a, b, unsigned), a, b)
        if fn == "max":
            return self.choose(self._less(a, b, unsigned), b, a)
        kind = "u64" if unsigned else "i64"
        raise TargetError(f"machine '{self.words.machine.name}' cannot compute {fn} of {kind}")

    def _difference(self, a: Wide, b: Wide) -> Wide:
        high = self.do("sub", a.high, b.high)
        borrow = self.do("gtu", b.low, a.low)
        return Wide(self.do("sub", a.low, b.low), self.do("sub", high, borrow))

    def _less(self, a: Wide, b: Wide, unsigned: bool) -> Operand:
        if a.is_word and b.is_word:
            return self.do("lt", a.low, b.low)
        high = self.do("ltu" if unsigned else "lt", a.high, b.high)
        low = self.do("and", self.do("eq", a.high, b.high), self.do("ltu", a.low, b.low))
        return self.do("or", high, low)

    def choose(self, condition: Operand, a: Wide, b: Wide) -> Wide:
        """a if the condition is 1, b if it is 0."""
        low = self.words.select(condition, a.low, b.low)
        return Wide(low, self.words.select(condition, a.high, b.high), a.is_word and b.is_word)

    def _left(self, a: Wide, n: Operand, far: bool) -> Wide:
        do = self.do
        if isinstance(n, int):
            if n == 0:
                return a
            if n >= 32:
                return Wide(0, do("shl", a.low, n - 32))
            return Wide(
                do("shl", a.low, n), do("or", do("shl", a.high, n), do("shru", a.low, 32 - n))
            )
        if far:  # shifts of words look at the lowest five bits of n
            return Wide(0, do("shl", a.low, n))
        many = do("gt", n, 31)
        low = do("shl", a.low, n)
        carried = do("shru", do("shru", a.low, 1), do("xor", n, 31))
        high = do("or", do("shl", a.high, n), carried)
        return Wide(self.words.select(many, 0, low), self.words.select(many, low, high))

    def _right(self, a: Wide, n: Operand, unsigned: bool, far: bool) -> Wide:
        do = self.do
        shift = "shru" if unsigned else "shr"
        sign = 0 if unsigned else do("shr", a.high, 31)
        if isinstance(n, int):
            if n == 0:
                return a
            if n >= 32:
                return Wide(do(shift, a.high, n - 32), sign, not unsigned)
            low = do("or", do("shru", a.low, n), do("shl", a.high, 32 - n))
            return Wide(low, do(shift, a.high, n))
        if far:
            return Wide(do(shift, a.high, n), sign, not unsigned)
        many = do("gt", n, 31)
        high = do(shift, a.high, n)
        carried = do("shl", do("shl", a.high, 1), do("xor", n, 31))
        low = do("or", do("shru", a.low, n), carried)
        return Wide(self.words.select(many, high, low), self.words.select(many, sign, high))
