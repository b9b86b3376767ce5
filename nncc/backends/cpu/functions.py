"""The scalar functions of `nncc.ir.scalar` as LLVM instructions, for scalars and vectors.

`EMIT[name](site)` writes the function and returns its result's operand. Each rule sees one
`Site`: the writer, the operands and the expression (so that a literal divisor or bound makes
better code). Integers wrap; a division by zero gives 0, as the interpreter's does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nncc.backends.cpu import mathlib
from nncc.backends.cpu.casts import cast, is_narrow, narrow, widen
from nncc.backends.cpu.floats import Floats
from nncc.backends.cpu.text import Writer, splat, suffix, value_type, vector
from nncc.ir.expr import Apply, Const, Expr
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import DType, f32


@dataclass(frozen=True, slots=True)
class Site:
    """A function at a place.

    Attributes:
        x: the operands; `dtype`: theirs (for `select`, that of the values).
        lanes: of operands and result; `args`: the operands' expressions.
    """

    w: Writer
    x: tuple[str, ...]
    dtype: DType
    lanes: int
    args: tuple[Expr, ...]

    @property
    def type(self) -> str:
        return value_type(self.dtype, self.lanes)

    @property
    def floats(self) -> Floats:
        return Floats(self.w, self.dtype.bits, self.lanes)

    @property
    def signed(self) -> bool:
        return self.dtype.kind == "int"

    def literal(self, value: int) -> str:
        """An integer in every lane."""
        return splat(f"i{self.dtype.bits}", str(value), self.lanes)

    def integer(self, opcode: str, a: str, b: str) -> str:
        return self.w.define(f"{opcode} {self.type} {a}, {b}")

    def test(self, predicate: str, a: str, b: str) -> str:
        return self.w.define(f"icmp {predicate} {self.type} {a}, {b}")

    def choose(self, condition: str, a: str, b: str) -> str:
        flags = vector("i1", self.lanes)
        return self.w.define(f"select {flags} {condition}, {self.type} {a}, {self.type} {b}")

    def intrinsic(self, name: str, *operands: str, flags: tuple[str, ...] = ()) -> str:
        """An intrinsic on operands of the site's type; `flags` are immediate i1 arguments."""
        typed = [(self.type, o) for o in operands] + [("i1", f) for f in flags]
        return self.w.call(self.type, f"llvm.{name}.{suffix(self.type)}", *typed)


Rule = Callable[[Site], str]


def function(w: Writer, e: Apply, operands: tuple[str, ...]) -> str:
    """Writes the scalar function `e.fn`; returns the result's operand."""
    rule = FUNCTIONS[e.fn].rule
    if rule == "cast":
        return cast(w, operands[0], e.args[0].dtype, e.dtype, e.lanes)
    dtype = e.args[1 if rule == "select" else 0].dtype
    site = Site(w, operands, dtype, e.lanes, e.args)
    if not is_narrow(dtype) or rule == "select":
        return EMIT[e.fn](site)
    wide = tuple(widen(w, x, dtype, e.lanes) for x in operands)
    result = EMIT[e.fn](replace(site, x=wide, dtype=f32))
    return result if rule == "compare" else narrow(w, result, dtype, e.lanes)


def known(e: Expr) -> bool | int | float | None:
    """The value of a literal, also of a broadcast one."""
    while isinstance(e, Apply) and e.fn == "broadcast":
        e = e.args[0]
    return e.value if isinstance(e, Const) else None


# -- arithmetic ----------------------------------------------------------------------------
def _arithmetic(float_opcode: str, opcode: str, bool_opcode: str) -> Rule:
    def emit(s: Site) -> str:
        if s.dtype.is_float:
            return s.integer(float_opcode, *s.x)
        return s.integer(bool_opcode if s.dtype.kind == "bool" else opcode, *s.x)

    return emit


def _safe_divisor(s: Site) -> tuple[str, str]:
    """A divisor that cannot trap, and where the given one is zero ("" if it never is).

    The two traps are x / 0 and, in signed formats, smallest / -1, whose wrapped quotient is x.
    """
    value = known(s.args[1])
    if value is not None and value not in (0, -1):
        return s.x[1], ""
    zero = s.test("eq", s.x[1], s.literal(0))
    traps = zero
    if s.signed:
        smallest = s.test("eq", s.x[0], s.literal(s.dtype.limits[0]))
        minus_one = s.test("eq", s.x[1], s.literal(-1))
        flags = vector("i1", s.lanes)
        overflow = s.w.define(f"and {flags} {smallest}, {minus_one}")
        traps = s.w.define(f"or {flags} {zero}, {overflow}")
    return s.choose(traps, s.literal(1), s.x[1]), zero


def _division(s: Site, floored: bool, remainder: bool) -> str:
    divisor, zero = _safe_divisor(s)
    sign = "s" if s.signed else "u"
    rest = s.integer(f"{sign}rem", s.x[0], divisor) if floored or remainder else ""
    result = rest if remainder else s.integer(f"{sign}div", s.x[0], divisor)
    if floored and s.signed:
        # truncation differs where the remainder is not zero and its sign is not the divisor's
        inexact = s.test("ne", rest, s.literal(0))
        differs = s.test("slt", s.integer("xor", rest, divisor), s.literal(0))
        flags = vector("i1", s.lanes)
        adjust = s.w.define(f"and {flags} {inexact}, {differs}")
        other = (
            s.integer("add", result, divisor)
            if remainder
            else s.integer("sub", result, s.literal(1))
        )
        result = s.choose(adjust, other, result)
    return s.choose(zero, s.literal(0), result) if zero else result


def _divide(s: Site) -> str:
    if s.dtype.is_float:
        return s.integer("fdiv", *s.x)
    return _division(s, floored=False, remainder=False)


def _negate(s: Site) -> str:
    if s.dtype.is_float:
        return s.floats.neg(s.x[0])
    return s.integer("sub", s.literal(0), s.x[0])


def _absolute(s: Site) -> str:
    if s.dtype.is_float:
        return s.floats.abs(s.x[0])
    return s.intrinsic("abs", s.x[0], flags=("false",)) if s.signed else s.x[0]


def _extremum(name: str) -> Rule:
    """min or max; a NaN in either operand is the result, as in numpy."""

    def emit(s: Site) -> str:
        if s.dtype.kind == "bool":
            return s.integer("or" if name == "max" else "and", *s.x)
        if not s.dtype.is_float:
            return s.intrinsic(f"{'s' if s.signed else 'u'}{name}", *s.x)
        a, b = s.x
        if known(s.args[0]) is not None:
            a, b = b, a  # a literal second operand needs no test
            first, second = s.args[1], s.args[0]
        else:
            first, second = s.args
        f = s.floats
        # exactly what the CPU's instruction does: its second operand, if the comparison fails
        result = f.select(f.compare("ogt" if name == "max" else "olt", b, a), b, a)
        bound = known(second)
        if (bound is not None and bound == bound) or first is second:
            return result
        return f.select(f.compare("uno", b, b), b, result)

    return emit


def _compare(float_predicate: str, predicate: str) -> Rule:
    def emit(s: Site) -> str:
        if s.dtype.is_float:
            return s.floats.compare(float_predicate, *s.x)
        if predicate in ("eq", "ne"):
            return s.test(predicate, *s.x)
        return s.test(("s" if s.signed else "u") + predicate, *s.x)

    return emit


def _shift(s: Site, opcode: str, overflow: int | None) -> str:
    """A shift; counts of the width or more give 0 (`overflow` 0) or the sign (None)."""
    value = known(s.args[1])
    if value is not None and 0 <= value < s.dtype.bits:
        return s.integer(opcode, *s.x)
    if overflow is None:
        count = s.intrinsic("umin", s.x[1], s.literal(s.dtype.bits - 1))
        return s.integer(opcode, s.x[0], count)
    fits = s.test("ult", s.x[1], s.literal(s.dtype.bits))
    count = s.choose(fits, s.x[1], s.literal(0))
    return s.choose(fits, s.integer(opcode, s.x[0], count), s.literal(overflow))


def _shift_right(s: Site) -> str:
    return _shift(s, "ashr", None) if s.signed else _shift(s, "lshr", 0)


def _not(s: Site) -> str:
    if s.dtype.kind == "bool":
        return s.integer("xor", s.x[0], splat("i1", "true", s.lanes))
    return s.integer("xor", s.x[0], s.literal(-1))


def _power(s: Site) -> str:
    if s.dtype.is_float:
        return mathlib.power(s.floats, *s.x)
    return _integer_power(s)


def _integer_power(s: Site) -> str:
    """By squaring, one step for each bit of the exponent; wraps. Negative exponents count as
    their bit patterns (numpy refuses them)."""
    base, exponent = s.x
    value = known(s.args[1])
    bits = s.dtype.bits if value is None else max(int(value), 1).bit_length()
    result = s.literal(1)
    for k in range(bits):
        bit = s.integer("and", exponent, s.literal(1 << k))
        chosen = s.choose(s.test("ne", bit, s.literal(0)), base, s.literal(1))
        result = s.integer("mul", result, chosen)
        if k + 1 < bits:
            base = s.integer("mul", base, base)
    return result


def _bitwise(opcode: str) -> Rule:
    return lambda s: s.integer(opcode, *s.x)


def _float(method: Callable[..., str]) -> Rule:
    return lambda s: method(s.floats, *s.x)


EMIT: dict[str, Rule] = {
    "or": _bitwise("or"),
    "xor": _bitwise("xor"),
    "and": _bitwise("and"),
    "eq": _compare("oeq", "eq"),
    "ne": _compare("une", "ne"),
    "lt": _compare("olt", "lt"),
    "le": _compare("ole", "le"),
    "gt": _compare("ogt", "gt"),
    "ge": _compare("oge", "ge"),
    "shl": lambda s: _shift(s, "shl", 0),
    "shr": _shift_right,
    "add": _arithmetic("fadd", "add", "or"),
    "sub": _arithmetic("fsub", "sub", "xor"),
    "mul": _arithmetic("fmul", "mul", "and"),
    "div": _divide,
    "floordiv": lambda s: _division(s, floored=True, remainder=False),
    "mod": lambda s: _division(s, floored=True, remainder=True),
    "neg": _negate,
    "not": _not,
    "abs": _absolute,
    "min": _extremum("min"),
    "max": _extremum("max"),
    "fma": _float(Floats.fma),
    "pow": _power,
    "exp": _float(mathlib.exp),
    "log": _float(mathlib.log),
    "sqrt": _float(Floats.sqrt),
    "sin": _float(mathlib.sin),
    "cos": _float(mathlib.cos),
    "tanh": _float(mathlib.tanh),
    "erf": _float(mathlib.erf),
    "floor": _float(Floats.floor),
    "ceil": _float(Floats.ceil),
    "round": _float(Floats.rint),
    "isnan": lambda s: s.floats.compare("uno", s.x[0], s.x[0]),
    "select": lambda s: s.choose(*s.x),
}
