"""Arithmetic on words of 32 bits with the operations that a machine has.

    words.apply("add", a, b)        an operand: a register, or a number

The functions are named as in `MEANING`; which operation computes one is found by its record. What
the machine lacks is composed of others. Numbers are folded. A word is a Python int from -2^31
to 2^31 - 1, or a register.
"""

from __future__ import annotations

from collections.abc import Callable

from nncc.backends.tta.code import COPY, Access, Item, Op, Operand, Register
from nncc.backends.tta.select import Patterns
from nncc.diagnostics import TargetError
from nncc.ir.expr import Apply, Expr, Name, apply, cast
from nncc.ir.types import DType, i8, i16, i32, i64, u8, u16, u32, u64
from nncc.machines.machine import Machine

_A, _B = Name("a", i32), Name("b", i32)
_C, _D = Name("a", u32), Name("b", u32)


def _low(b: Expr) -> Expr:
    from nncc.ir.expr import Const

    return apply("and", b, Const(31, b.dtype))


def _high(a: Expr, b: Expr, wide: DType) -> Expr:
    from nncc.ir.expr import Const

    product = apply("mul", cast(wide, a), cast(wide, b))
    return cast(a.dtype, apply("shr", product, Const(32, wide)))


def _flag(fn: str, a: Expr, b: Expr) -> Expr:
    return cast(a.dtype, apply(fn, a, b))


MEANING: dict[str, Expr] = {
    **{fn: apply(fn, _A, _B) for fn in ("add", "sub", "mul", "and", "or", "xor", "min", "max")},
    "shl": apply("shl", _A, _low(_B)),
    "shr": apply("shr", _A, _low(_B)),
    "shru": apply("shr", _C, _low(_D)),
    "minu": apply("min", _C, _D),
    "maxu": apply("max", _C, _D),
    "mulhi": _high(_A, _B, i64),
    "mulhiu": _high(_C, _D, u64),
    **{fn: _flag(fn, _A, _B) for fn in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{fn + "u": _flag(fn, _C, _D) for fn in ("lt", "le", "gt", "ge")},
    "neg": apply("neg", _A),
    "abs": apply("abs", _A),
    "sx8": cast(i32, Apply("cast", (_A,), i8)),
    "sx16": cast(i32, Apply("cast", (_A,), i16)),
}

_MASK = (1 << 32) - 1


def word(value: int) -> int:
    """The signed number with the same lowest 32 bits."""
    value &= _MASK
    return value - (1 << 32) if value >> 31 else value


FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "min": min,
    "max": max,
    "shl": lambda a, b: a << (b & 31),
    "shr": lambda a, b: a >> (b & 31),
    "shru": lambda a, b: (a & _MASK) >> (b & 31),
    "minu": lambda a, b: min(a & _MASK, b & _MASK),
    "maxu": lambda a, b: max(a & _MASK, b & _MASK),
    "mulhi": lambda a, b: a * b >> 32,
    "mulhiu": lambda a, b: (a & _MASK) * (b & _MASK) >> 32,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "ltu": lambda a, b: (a & _MASK) < (b & _MASK),
    "leu": lambda a, b: (a & _MASK) <= (b & _MASK),
    "gtu": lambda a, b: (a & _MASK) > (b & _MASK),
    "geu": lambda a, b: (a & _MASK) >= (b & _MASK),
    "neg": lambda a, b: -a,
    "abs": lambda a, b: abs(a),
    "sx8": lambda a, b: ((a & 0xFF) ^ 0x80) - 0x80,
    "sx16": lambda a, b: ((a & 0xFFFF) ^ 0x8000) - 0x8000,
}
_ONE = frozenset({"neg", "abs", "sx8", "sx16"})
# x fn number == x
_NEUTRAL = {
    "add": 0, "sub": 0, "or": 0, "xor": 0, "shl": 0, "shr": 0, "shru": 0, "mul": 1, "and": -1,
}  # fmt: skip
# x fn x
_OF_ITSELF = {
    "sub": 0, "xor": 0, **dict.fromkeys(("ne", "lt", "gt", "ltu", "gtu"), 0),
    **dict.fromkeys(("eq", "le", "ge", "leu", "geu"), 1),
}  # fmt: skip
_COMMUTE = frozenset({"add", "mul", "and", "or", "xor", "min", "max", "eq", "ne", "mulhi"})
# a fn b == b other a
_SWAPPED = {
    "lt": "gt", "le": "ge", "gt": "lt", "ge": "le",
    "ltu": "gtu", "leu": "geu", "gtu": "ltu", "geu": "leu",
}  # fmt: skip
_INVERSE = {
    "lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq",
    "ltu": "geu", "geu": "ltu", "gtu": "leu", "leu": "gtu",
}  # fmt: skip


class Words:
    """Emits operations on words into `items`, the block under construction."""

    def __init__(self, machine: Machine, patterns: Patterns) -> None:
        self.machine = machine
        self.items: list[Item] = []
        self.source = ""
        self._found: dict[str, tuple[str, tuple[int, ...]] | None] = {}
        for fn, meaning in MEANING.items():
            self._found[fn] = None
            for m in patterns.matches(meaning):
                inputs = [o for o in m.operation.operands if not o.is_result]
                bound = [m.bound.get((o.name, -1)) for o in inputs]
                if all(isinstance(b, Name) for b in bound):
                    order = tuple("ab".index(b.name) for b in bound if isinstance(b, Name))
                    self._found[fn] = m.operation.name, order
                    break

        self.base = frozenset(f[0] for f in self._found.values() if f is not None)

    # -- emitting --------------------------------------------------------------------------
    def emit(
        self, operation: str, inputs: tuple[Operand, ...], kind: str = "scalar",
        memory: Access | None = None,
    ) -> Register:  # fmt: skip
        """An operation with a new register for its result."""
        result = Register("vector" if kind == "vector" else "scalar")
        self.items.append(Op(operation, inputs, result, memory, self.source))
        return result

    def copy(self, value: Operand, to: Register) -> None:
        """to = value"""
        if value is not to:
            self.items.append(Op(COPY, (value,), to, None, self.source))

    def has(self, fn: str) -> bool:
        """Whether one operation does it."""
        return self._found[fn] is not None

    def apply(self, fn: str, a: Operand, b: Operand = 0) -> Operand:
        """fn(a, b), with as few operations as the machine allows."""
        if isinstance(a, int) and isinstance(b, int):
            return word(FOLD[fn](a, b))
        if a is b and fn in _OF_ITSELF:
            return _OF_ITSELF[fn]
        if fn in _COMMUTE and isinstance(a, int):
            a, b = b, a
        if fn not in _ONE and isinstance(b, int):
            if _NEUTRAL.get(fn) == b:
                return a
            if b == 0 and fn in ("mul", "and", "mulhi", "mulhiu"):
                return 0
            if fn == "mul" and b > 0 and b & (b - 1) == 0 and self.has("shl"):
                return self.apply("shl", a, b.bit_length() - 1)
        if (found := self._found[fn]) is not None:
            name, order = found
            return self.emit(name, tuple((a, b)[k] for k in order))
        return self._composed(fn, a, b)

    def _composed(self, fn: str, a: Operand, b: Operand) -> Operand:
        do = self.apply
        if fn in _SWAPPED and self.has(_SWAPPED[fn]):
            return do(_SWAPPED[fn], b, a)
        if fn in _INVERSE:
            inverse = _INVERSE[fn]
            if self.has(inverse) or self.has(_SWAPPED.get(inverse, inverse)):
                return do("xor", do(inverse, a, b), 1)
        if fn == "sub":
            return do("add", a, do("add", do("xor", b, -1), 1))
        if fn == "add":
            return do("sub", a, do("sub", 0, b))
        if fn == "neg":
            return do("sub", 0, a)
        if fn == "abs":
            sign = do("shr", a, 31)
            return do("sub", do("xor", a, sign), sign)
        if fn in ("sx8", "sx16"):
            places = 24 if fn == "sx8" else 16
            return do("shr", do("shl", a, places), places)
        if fn in ("min", "max", "minu", "maxu"):
            less = do("gt" + fn[3:], a, b)
            return self.select(less, b, a) if fn.startswith("min") else self.select(less, a, b)
        if fn in ("eq", "ne"):
            different = do("xor", a, b)
            return do(
                "gtu" if fn == "ne" else "geu", *((different, 0) if fn == "ne" else (0, different))
            )
        if fn in ("gtu", "ltu"):
            flip = -(1 << 31)
            return do(fn[:2], do("xor", a, flip), do("xor", b, flip))
        if fn == "mulhiu" and self.has("mulhi"):
            both = do("add", do("and", do("shr", a, 31), b), do("and", do("shr", b, 31), a))
            return do("add", do("mulhi", a, b), both)
        if fn == "mulhi" and self.has("mulhiu"):
            both = do("add", do("and", do("shr", a, 31), b), do("and", do("shr", b, 31), a))
            return do("sub", do("mulhiu", a, b), both)
        raise TargetError(
            f"machine '{self.machine.name}' has no operation for {fn} on words of 32 bits",
            help="add it to a function unit of the machine file",
        )

    def select(self, condition: Operand, a: Operand, b: Operand) -> Operand:
        """a if the condition is 1, b if it is 0."""
        if isinstance(condition, int):
            return a if condition & 1 else b
        if a == b:
            return a
        mask = self.apply("sub", 0, condition)
        different = self.apply("xor", a, b)
        return self.apply("xor", b, self.apply("and", different, mask))

    # -- types -----------------------------------------------------------------------------
    def held(self, x: Operand, dtype: DType) -> Operand:
        """A word as a number of at most 32 bits: extended from its lowest bits."""
        if dtype is i8:
            return self.apply("sx8", x)
        if dtype is i16:
            return self.apply("sx16", x)
        if dtype is u8 or dtype is u16:
            return self.apply("and", x, (1 << dtype.bits) - 1)
        return x

    def quotient(self, x: Operand, d: int, *, negative: bool = True) -> Operand:
        """x // d for d > 0, rounded down; without `negative` x is known to be >= 0."""
        if isinstance(x, int):
            return x // d
        if d & (d - 1) == 0:
            return self.apply("shr", x, d.bit_length() - 1)
        if negative:  # the quotient of ~x is that of x, inverted
            sign = self.apply("shr", x, 31)
            inner = self.quotient(self.apply("xor", x, sign), d, negative=False)
            return self.apply("xor", inner, sign)
        places = (d - 1).bit_length()
        magic = -(-(1 << (31 + places)) // d)  # in 2^31..2^32
        upper = self.apply("mulhi", x, word(magic))  # of magic - 2^32
        return self.apply("shru", self.apply("add", upper, x), places - 1)
