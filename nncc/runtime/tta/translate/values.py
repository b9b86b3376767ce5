"""Values of a transport-triggered machine as LLVM values: a number of bits, zero-extended or cut.

Values of up to 64 bits are integers of just their bits, wider ones vectors of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from nncc.backends.cpu.text import Writer
from nncc.runtime.tta.decoded import mask


@dataclass(frozen=True, slots=True)
class Val:
    """`bits` of a value: LLVM's operand, and the number if it is a literal."""

    text: str
    bits: int
    number: int | None = None

    @property
    def type(self) -> str:
        return type_of(self.bits)


def type_of(bits: int) -> str:
    """LLVM's type of a value."""
    return f"i{bits}" if bits <= 64 else f"<{bits // 8} x i8>"


def literal(number: int, bits: int) -> Val:
    """A constant, cut to its bits."""
    number &= mask(bits)
    if bits <= 64:
        return Val(str(number), bits, number)
    if not number:
        return Val("zeroinitializer", bits, 0)
    parts = ", ".join(f"i8 {b}" for b in number.to_bytes(bits // 8, "little"))
    return Val(f"<{parts}>", bits, number)


def resized(w: Writer, v: Val, bits: int) -> Val:
    """`v` cut to `bits`, or with zeros above it."""
    if v.bits == bits:
        return v
    if v.number is not None:
        return literal(v.number, bits)
    if v.bits <= 64 and bits <= 64:
        conversion = "zext" if v.bits < bits else "trunc"
        return Val(w.define(f"{conversion} {v.type} {v.text} to i{bits}"), bits)
    if v.bits <= 64:
        wide = resized(w, v, 64)
        v = Val(w.define(f"bitcast i64 {wide.text} to <8 x i8>"), 64)
    kept = max(bits, 64) // 8
    found = w.define(shuffle(f"<{max(v.bits, 64) // 8} x i8>", v.text, v.bits // 8, kept))
    if bits > 64:
        return Val(found, bits)
    narrow = Val(w.define(f"bitcast <8 x i8> {found} to i64"), 64)
    return resized(w, narrow, bits)


def shuffle(kind: str, operand: str, available: int, wanted: int) -> str:
    """The instruction that takes the first `wanted` of `available` bytes, then zeros."""
    places = ", ".join(f"i32 {min(k, available)}" for k in range(wanted))
    return f"shufflevector {kind} {operand}, {kind} zeroinitializer, <{wanted} x i32> <{places}>"
