"""Conversions between number formats.

f16 and bf16 values are kept as their bits in an i16 and computed with in f32: every function on
them rounds its result once. Their conversions are written out where the CPU has no instruction
(LLVM would call a library).
"""

from __future__ import annotations

from nncc.backends.cpu.floats import Floats
from nncc.backends.cpu.text import Writer, splat, value_type, vector
from nncc.ir.types import DType, f32


def is_narrow(dtype: DType) -> bool:
    """Whether values of this float format are kept as bits."""
    return dtype.is_float and dtype.bits < 32


def widen(w: Writer, x: str, dtype: DType, lanes: int) -> str:
    """An f16 or bf16 value as f32, exactly."""
    if dtype.name == "bf16":
        wide = w.define(f"zext {vector('i16', lanes)} {x} to {vector('i32', lanes)}")
        f = Floats(w, 32, lanes)
        return f.from_bits(f.integer("shl", wide, f.int_const(16)))
    if _has_half(w):
        half = w.define(f"bitcast {vector('i16', lanes)} {x} to {vector('half', lanes)}")
        return w.define(f"fpext {vector('half', lanes)} {half} to {vector('float', lanes)}")
    return _widen_half(w, x, lanes)


def narrow(w: Writer, x: str, dtype: DType, lanes: int) -> str:
    """An f32 value as f16 or bf16, rounded to nearest even; a NaN stays one."""
    if dtype.name == "bf16":
        return _narrow_bfloat(w, x, lanes)
    if _has_half(w):
        half = w.define(f"fptrunc {vector('float', lanes)} {x} to {vector('half', lanes)}")
        return w.define(f"bitcast {vector('half', lanes)} {half} to {vector('i16', lanes)}")
    return _narrow_half(w, x, lanes)


def _has_half(w: Writer) -> bool:
    return w.has("f16c") or w.has("avx512f") or w.has("neon")


def _widen_half(w: Writer, x: str, lanes: int) -> str:
    f = Floats(w, 32, lanes)
    wide = w.define(f"zext {vector('i16', lanes)} {x} to {f.int_type}")
    magnitude = f.integer("and", wide, f.int_const(0x7FFF))
    sign = f.integer("shl", f.integer("and", wide, f.int_const(0x8000)), f.int_const(16))
    shifted = f.integer("shl", magnitude, f.int_const(13))
    # the exponents' biases are 15 and 127; the product also normalizes subnormal numbers
    scaled = f.to_bits(f.mul(f.from_bits(shifted), f.const(2.0**112)))
    special = w.define(f"icmp uge {f.int_type} {magnitude}, {f.int_const(0x7C00)}")
    infinite = f.integer("or", shifted, f.int_const(0x7F800000))
    bits = w.define(
        f"select {f.bool_type} {special}, {f.int_type} {infinite}, {f.int_type} {scaled}"
    )
    return f.from_bits(f.integer("or", bits, sign))


def _narrow_half(w: Writer, x: str, lanes: int) -> str:
    f = Floats(w, 32, lanes)

    def choose(condition: str, a: str, b: str) -> str:
        return w.define(f"select {f.bool_type} {condition}, {f.int_type} {a}, {f.int_type} {b}")

    bits = f.to_bits(x)
    magnitude = f.integer("and", bits, f.int_const(0x7FFFFFFF))
    sign = f.integer("lshr", f.integer("xor", bits, magnitude), f.int_const(16))
    # normal: subtract the difference of the biases and round the 13 bits that go
    odd = f.integer("and", f.integer("lshr", magnitude, f.int_const(13)), f.int_const(1))
    rebiased = f.integer("sub", magnitude, f.int_const(112 << 23))
    rounded = f.integer("add", f.integer("add", rebiased, f.int_const(0xFFF)), odd)
    normal = f.integer("lshr", rounded, f.int_const(13))
    # subnormal: adding 0.5 shifts the fraction into place, rounded by the addition
    aligned = f.to_bits(f.add(f.from_bits(magnitude), f.const(0.5)))
    subnormal = f.integer("sub", aligned, f.int_const(126 << 23))
    tiny = w.define(f"icmp ult {f.int_type} {magnitude}, {f.int_const(113 << 23)}")
    large = w.define(f"icmp uge {f.int_type} {magnitude}, {f.int_const(143 << 23)}")
    nan = w.define(f"icmp ugt {f.int_type} {magnitude}, {f.int_const(255 << 23)}")
    overflow = choose(nan, f.int_const(0x7E00), f.int_const(0x7C00))
    result = choose(large, overflow, choose(tiny, subnormal, normal))
    return w.define(f"trunc {f.int_type} {f.integer('or', result, sign)} to {vector('i16', lanes)}")


def _narrow_bfloat(w: Writer, x: str, lanes: int) -> str:
    f = Floats(w, 32, lanes)
    bits = f.to_bits(x)
    odd = f.integer("and", f.integer("lshr", bits, f.int_const(16)), f.int_const(1))
    rounded = f.integer("add", f.integer("add", bits, f.int_const(0x7FFF)), odd)
    quiet = f.integer("or", bits, f.int_const(0x400000))
    nan = f.compare("uno", x, x)
    chosen = w.define(f"select {f.bool_type} {nan}, {f.int_type} {quiet}, {f.int_type} {rounded}")
    high = f.integer("lshr", chosen, f.int_const(16))
    return w.define(f"trunc {f.int_type} {high} to {vector('i16', lanes)}")


def cast(w: Writer, x: str, source: DType, target: DType, lanes: int) -> str:
    """`x` as `target`. Floats become integers by truncation and must be in range; integers
    wrap; a bool becomes 0 or 1, and a number becomes true if it is not zero.
    """
    if source is target:
        return x
    if is_narrow(source):
        return cast(w, widen(w, x, source, lanes), f32, target, lanes)
    if is_narrow(target):
        return narrow(w, cast(w, x, source, f32, lanes), target, lanes)
    a, b = value_type(source, lanes), value_type(target, lanes)
    if target.kind == "bool":
        if source.is_float:
            return w.define(f"fcmp une {a} {x}, zeroinitializer")
        return w.define(f"icmp ne {a} {x}, {splat(f'i{source.bits}', '0', lanes)}")
    return w.define(f"{_opcode(source, target)} {a} {x} to {b}") if a != b else x


def _opcode(source: DType, target: DType) -> str:
    if source.is_float and target.is_float:
        return "fpext" if target.bits > source.bits else "fptrunc"
    if source.is_float:
        return "fptosi" if target.kind == "int" else "fptoui"
    if target.is_float:
        return "sitofp" if source.kind == "int" else "uitofp"
    if source.kind != "bool" and target.bits <= source.bits:
        return "trunc"
    return "sext" if source.kind == "int" else "zext"
