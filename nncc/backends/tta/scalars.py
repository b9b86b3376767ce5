"""Scalar expressions of Loops as words: registers of 32 bits, pairs of them for 64-bit integers.

An integer of fewer bits is held extended to the word, so that the same number stands in it; a
bool is 0 or 1. Arithmetic in fewer bits is done in words and cut.
"""

from __future__ import annotations

from collections.abc import Callable

from nncc.backends.tta.accesses import Accesses
from nncc.backends.tta.code import Branch, Item, Operand, Register
from nncc.backends.tta.limits import limits
from nncc.backends.tta.memory import Place
from nncc.backends.tta.operations import Operations
from nncc.backends.tta.scope import Scope, Wide
from nncc.backends.tta.wide import Wides
from nncc.backends.tta.words import Words, word
from nncc.diagnostics import TargetError
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value
from nncc.ir.types import DType, boolean, i32

_PLAIN = frozenset({"eq", "ne", "and", "or", "xor"})
_ORDERED = frozenset({"lt", "le", "gt", "ge", "min", "max"})
_IN_WORDS = _PLAIN | _ORDERED | {"add", "sub", "mul"}
_WORD = -(1 << 31), (1 << 31) - 1


class Scalars:
    """Scalar expressions.

    Args:
        folded: computes `reduce_add` and the like of a vector.
    """

    def __init__(
        self,
        words: Words,
        scope: Scope,
        accesses: Accesses,
        operations: Operations,
        folded: Callable[[Apply], Operand | Wide],
    ) -> None:
        self.words, self.scope, self.accesses = words, scope, accesses
        self.operations, self.folded = operations, folded
        self.wides = Wides(words)

    def word(self, e: Expr) -> Operand:
        """A scalar of at most 32 bits (of 64: its lower word)."""
        found = self.scalar(e)
        return found.low if isinstance(found, Wide) else found

    def wide(self, e: Expr) -> Wide:
        """A 64-bit scalar."""
        found = self.scalar(e)
        return found if isinstance(found, Wide) else self.wides.extended(found)

    def scalar(self, e: Expr) -> Operand | Wide:
        """The value of a scalar expression."""
        if e.dtype.kind == "float":
            raise TargetError(
                f"machine '{self.words.machine.name}' computes with integers only, "
                f"not with {e.dtype}",
                help="quantize the model",
            )
        if isinstance(e, Const):
            return self._number(int(e.value), e.dtype)
        if isinstance(e, Name):
            found = self.scope.values[e.name]
            assert not isinstance(found, Place)
            return found
        if isinstance(e, Value):
            x = self.accesses.addresses.size(e.size)
            if e.dtype.bits == 64:
                return self.wides.extended(x)
            return self.words.held(x, e.dtype)
        if isinstance(e, Load):
            return self.load(e)
        assert isinstance(e, Apply), "reductions are statements by now"
        return self.function(e)

    def _number(self, value: int, dtype: DType) -> Operand | Wide:
        if dtype.bits == 64:
            is_word = -(1 << 31) <= value < 1 << 31
            return Wide(word(value), word(value >> 32), is_word and dtype.kind == "int")
        return word(value)

    # -- functions -------------------------------------------------------------------------
    def function(self, e: Apply) -> Operand | Wide:
        """A function of scalars (of a vector, for those that fold its lanes)."""
        if e.fn.startswith("reduce_"):
            return self.folded(e)
        if e.fn == "broadcast":
            return self.scalar(e.args[0])
        if (record := self.operations.named(e.fn)) is not None:
            return self.operations.call(record, e.args)
        if e.dtype.bits <= 32 and e.dtype is not boolean:
            for found in self.operations.matches(e, self.words.base):
                return self.operations.found(found)
        if e.fn == "cast":
            return self._cast(e)
        if e.fn == "select":
            return self._select(e)
        if any(a.dtype.bits == 64 for a in e.args):
            return self._wide_function(e)
        args = [self.word(a) for a in e.args]
        return self._word_function(e.fn, e.args[0].dtype, args)

    def _wide_function(self, e: Apply) -> Operand | Wide:
        """A function of 64-bit integers; of words, where their values and its own are words."""
        known = [limits(x, self.scope) for x in e.args]
        within = [*known, limits(e, self.scope)] if e.dtype is not boolean else known
        if all(_WORD[0] <= lo and hi <= _WORD[1] for lo, hi in within) and e.fn in _IN_WORDS:
            found = self._word_function(e.fn, i32, [self.word(x) for x in e.args])
            return self.wides.extended(found) if e.dtype.bits == 64 else found
        a, *b = (self.wide(x) for x in e.args)
        unsigned = e.args[0].dtype.kind == "uint"
        far = known[-1][0] >= 32 and known[-1][1] < 64
        return self.wides.apply(e.fn, a, b[0] if b else None, unsigned=unsigned, far=far)

    def _cast(self, e: Apply) -> Operand | Wide:
        x, to = e.args[0], e.dtype
        if to is boolean:
            if x.dtype.bits == 64:
                w = self.wide(x)
                return self.words.apply("ne", self.words.apply("or", w.low, w.high), 0)
            return self.word(x) if x.dtype is boolean else self.words.apply("ne", self.word(x), 0)
        if to.bits == 64:
            if x.dtype.bits == 64:
                found = self.wide(x)
                return Wide(found.low, found.high, found.is_word and to.kind == "int")
            low = self.word(x)
            if x.dtype.kind == "uint" and x.dtype.bits == 32:
                return Wide(low, 0)
            return self.wides.extended(low)
        low = self.word(x)
        if x.dtype is boolean:
            return low
        if x.dtype.bits < to.bits or (x.dtype.bits == to.bits == 32):
            lossless = x.dtype.kind == "uint" or to.kind == "int" or to.bits == 32
            return low if lossless else self.words.held(low, to)
        return low if x.dtype is to else self.words.held(low, to)

    def _select(self, e: Apply) -> Operand | Wide:
        condition = self.word(e.args[0])
        if e.dtype.bits == 64:
            return self.wides.choose(condition, self.wide(e.args[1]), self.wide(e.args[2]))
        return self.words.select(condition, self.word(e.args[1]), self.word(e.args[2]))

    def _word_function(self, fn: str, dtype: DType, args: list[Operand]) -> Operand:
        unsigned = dtype.kind == "uint" and dtype.bits == 32
        if fn in _ORDERED:
            return self.words.apply(fn + "u" if unsigned else fn, *args)
        if fn in _PLAIN:
            return self.words.apply(fn, *args)
        if fn == "not":
            inverted = self.words.apply("xor", args[0], 1 if dtype is boolean else -1)
            return self.words.held(inverted, dtype)
        if dtype is boolean:
            if fn in ("add", "mul"):
                return self.words.apply("or" if fn == "add" else "and", *args)
            return args[0]  # abs
        if fn == "abs" and dtype.kind == "uint":
            return args[0]
        if fn in ("add", "sub", "mul", "shl", "neg", "abs"):
            return self.words.held(self.words.apply(fn, *args), dtype)
        if fn == "shr":
            return self.words.apply("shru" if unsigned else "shr", *args)
        if fn in ("floordiv", "mod", "div") and isinstance(args[1], int) and args[1] > 0:
            return self._divided(fn, dtype, args[0], args[1])
        raise self._lacks(fn, dtype)

    def _divided(self, fn: str, dtype: DType, x: Operand, d: int) -> Operand:
        do = self.words.apply
        if dtype.kind == "uint" and dtype.bits == 32:
            if d & (d - 1):
                raise self._lacks(fn, dtype)
            if fn == "mod":
                return do("and", x, d - 1)
            return do("shru", x, d.bit_length() - 1)
        if fn == "div":  # towards zero
            sign = do("shr", x, 31)
            size = do("sub", do("xor", x, sign), sign)
            # of -2^31 the size is 2^31, which is no word: one less is divided, and looked at
            least = do("and", do("shru", size, 31), 1)
            found = self.words.quotient(do("sub", size, least), d, negative=False)
            if (1 << 31) % d == 0:
                found = do("add", found, least)
            return do("sub", do("xor", found, sign), sign)
        found = self.words.quotient(x, d, negative=dtype.kind == "int")
        if fn == "floordiv":
            return found
        return do("sub", x, do("mul", found, d))

    def _lacks(self, fn: str, dtype: DType) -> TargetError:
        return TargetError(f"machine '{self.words.machine.name}' cannot compute {fn} of {dtype}")

    def load(self, e: Load) -> Operand | Wide:
        """A scalar load, with the value that stands for what is outside of the buffer."""
        if e.other is None:
            return self.accesses.load(e)
        inside = self.accesses.inside(e)
        if inside == 1:
            return self.accesses.load(e)
        other = self.scalar(e.other)
        if inside == 0:
            return other
        results = [Register("scalar") for _ in range(2 if isinstance(other, Wide) else 1)]
        outer: list[Item] = self.words.items
        then: list[Item] = []
        self._set(results, other)
        self.words.items = then
        self._set(results, self.accesses.load(e))
        self.words.items = outer
        self.words.items.append(Branch(inside, then, [], self.words.source))
        return Wide(results[0], results[1]) if isinstance(other, Wide) else results[0]

    def _set(self, registers: list[Register], value: Operand | Wide) -> None:
        parts = [value.low, value.high] if isinstance(value, Wide) else [value]
        for register, part in zip(registers, parts, strict=True):
            self.words.copy(part, register)
