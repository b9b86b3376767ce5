"""Arithmetic on float32 and float64 values of one number of lanes, as LLVM instructions.

Only instructions that every CPU has inline are used: where LLVM would call a library (fused
multiply-add or rounding on old CPUs) the same is written out.

    f = Floats(writer, 32, 16)
    y = f.add(f.mul(a, b), f.const(1.0))
"""

from __future__ import annotations

from nncc.backends.cpu.text import Writer, float_literal, splat, suffix, vector


class Floats:
    """Emits float operations; operands and results are LLVM operand texts.

    Attributes:
        bits: 32 or 64; `lanes`: elements of every operand.
        type, int_type, bool_type: LLVM types of values, of their bits, of comparisons.
    """

    def __init__(self, writer: Writer, bits: int, lanes: int) -> None:
        self.w, self.bits, self.lanes = writer, bits, lanes
        self.type = vector("float" if bits == 32 else "double", lanes)
        self.int_type = vector(f"i{bits}", lanes)
        self.bool_type = vector("i1", lanes)
        self.mantissa_bits = 23 if bits == 32 else 52

    # -- literals --------------------------------------------------------------------------
    def const(self, value: float) -> str:
        """A float literal in every lane."""
        element = "float" if self.bits == 32 else "double"
        return splat(element, float_literal(value, self.bits), self.lanes)

    def int_const(self, value: int) -> str:
        """An integer literal of the same width in every lane."""
        return splat(f"i{self.bits}", str(value), self.lanes)

    # -- floats ----------------------------------------------------------------------------
    def _binary(self, opcode: str, a: str, b: str) -> str:
        return self.w.define(f"{opcode} {self.type} {a}, {b}")

    def _intrinsic(self, name: str, *operands: str) -> str:
        full = f"llvm.{name}.{suffix(self.type)}"
        return self.w.call(self.type, full, *((self.type, o) for o in operands))

    def add(self, a: str, b: str) -> str:
        return self._binary("fadd", a, b)

    def sub(self, a: str, b: str) -> str:
        return self._binary("fsub", a, b)

    def mul(self, a: str, b: str) -> str:
        return self._binary("fmul", a, b)

    def div(self, a: str, b: str) -> str:
        return self._binary("fdiv", a, b)

    def neg(self, a: str) -> str:
        return self.w.define(f"fneg {self.type} {a}")

    @property
    def has_fma(self) -> bool:
        """Whether a fused multiply-add is one instruction."""
        return self.w.has("fma") or self.w.has("avx512f") or self.w.has("neon")

    def fma(self, a: str, b: str, c: str) -> str:
        """a * b + c, fused where the CPU can."""
        if self.has_fma:
            return self._intrinsic("fma", a, b, c)
        return self.add(self.mul(a, b), c)

    def abs(self, a: str) -> str:
        return self._intrinsic("fabs", a)

    def copysign(self, magnitude: str, sign: str) -> str:
        return self._intrinsic("copysign", magnitude, sign)

    def sqrt(self, a: str) -> str:
        return self._intrinsic("sqrt", a)

    def compare(self, predicate: str, a: str, b: str) -> str:
        """A comparison; `predicate` is LLVM's (`olt`, `uno`, …)."""
        return self.w.define(f"fcmp {predicate} {self.type} {a}, {b}")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.w.define(
            f"select {self.bool_type} {condition}, {self.type} {a}, {self.type} {b}"
        )

    def rint(self, a: str) -> str:
        """Rounded to the nearest integer, ties to even; keeps the sign of zero."""
        if self.w.has("sse4.1") or self.w.has("neon"):
            return self._intrinsic("rint", a)
        # |a| + 2**52 has no bits left for a fraction
        magnitude, big = self.abs(a), self.const(2.0**self.mantissa_bits)
        rounded = self.sub(self.add(magnitude, big), big)
        small = self.compare("olt", magnitude, big)
        return self.copysign(self.select(small, rounded, magnitude), a)

    def floor(self, a: str) -> str:
        if self.w.has("sse4.1") or self.w.has("neon"):
            return self._intrinsic("floor", a)
        nearest = self.rint(a)
        lower = self.sub(nearest, self.const(1.0))
        return self.select(self.compare("ogt", nearest, a), lower, nearest)

    def ceil(self, a: str) -> str:
        if self.w.has("sse4.1") or self.w.has("neon"):
            return self._intrinsic("ceil", a)
        nearest = self.rint(a)
        higher = self.copysign(self.add(nearest, self.const(1.0)), a)
        return self.select(self.compare("olt", nearest, a), higher, nearest)

    def polynomial(self, x: str, coefficients: tuple[float, ...]) -> str:
        """Horner's rule; the constant coefficient stands last."""
        total = self.const(coefficients[0])
        for c in coefficients[1:]:
            total = self.fma(total, x, self.const(c))
        return total

    # -- bits ------------------------------------------------------------------------------
    def to_bits(self, a: str) -> str:
        return self.w.define(f"bitcast {self.type} {a} to {self.int_type}")

    def from_bits(self, a: str) -> str:
        return self.w.define(f"bitcast {self.int_type} {a} to {self.type}")

    def integer(self, opcode: str, a: str, b: str) -> str:
        """An integer instruction on operands of the width of the floats."""
        return self.w.define(f"{opcode} {self.int_type} {a}, {b}")

    def to_int(self, a: str) -> str:
        """Truncated to an integer of the same width; it must be in range."""
        return self.w.define(f"fptosi {self.type} {a} to {self.int_type}")

    def from_int(self, a: str) -> str:
        return self.w.define(f"sitofp {self.int_type} {a} to {self.type}")

    def power_of_two(self, n: str) -> str:
        """2**n for an integer n in the range of normal exponents."""
        bias = (1 << (self.bits - self.mantissa_bits - 2)) - 1
        biased = self.integer("add", n, self.int_const(bias))
        return self.from_bits(self.integer("shl", biased, self.int_const(self.mantissa_bits)))

    def scale(self, a: str, n: str) -> str:
        """a * 2**n for an integer n, right also where the result is subnormal or overflows."""
        half = self.integer("ashr", n, self.int_const(1))
        rest = self.integer("sub", n, half)
        return self.mul(self.mul(a, self.power_of_two(half)), self.power_of_two(rest))
