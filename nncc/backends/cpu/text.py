"""Building LLVM IR text: types, literals, and a writer of one function's instructions.

A `Writer` keeps the lines of a function in a tree of regions, so that an instruction can also be
put in front of a loop whose body is being written:

    w = Writer()
    a = w.define("add i64 %n, 1")          # "%1", in the region that is open
    w.region().append("  …")               # a list that holds its place, filled later
"""

from __future__ import annotations

import re
import struct
from typing import Union

from nncc.ir.expr import Const
from nncc.ir.types import DType

Region = list[Union[str, "Region"]]  # lines and nested regions, in order

# Formats narrower than f32 are kept as their bits: LLVM would call a library for their arithmetic.
_FLOATS = {"f64": "double", "f32": "float", "f16": "i16", "bf16": "i16"}
_PLAIN = re.compile(r"[A-Za-z$._][A-Za-z0-9$._-]*")


def scalar_type(dtype: DType) -> str:
    """LLVM's type of one element as a value (a bool is an i1; in memory it is an i8)."""
    if dtype.kind == "bool":
        return "i1"
    return _FLOATS[dtype.name] if dtype.is_float else f"i{dtype.bits}"


def vector(element: str, lanes: int) -> str:
    """`<16 x float>`, or the element itself for one lane."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def value_type(dtype: DType, lanes: int = 1) -> str:
    """LLVM's type of a value of `lanes` elements."""
    return vector(scalar_type(dtype), lanes)


def suffix(llvm_type: str) -> str:
    """How the names of overloaded intrinsics spell a type: `v16f32` for `<16 x float>`."""
    match = re.fullmatch(r"<(\d+) x (\w+)>", llvm_type)
    lanes, element = (f"v{match[1]}", match[2]) if match else ("", llvm_type)
    return lanes + {"float": "f32", "double": "f64"}.get(element, element)


def splat(element: str, literal: str, lanes: int) -> str:
    """A constant of `lanes` equal elements."""
    return literal if lanes == 1 else f"splat ({element} {literal})"


def float_literal(value: float, bits: int) -> str:
    """A float as LLVM reads it: the bits of the double that equals it (f32 is rounded first)."""
    if bits == 32:
        value = _round_to_f32(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def _round_to_f32(value: float) -> float:
    import numpy as np

    with np.errstate(over="ignore"):
        return float(np.float32(value))


def constant(c: Const) -> str:
    """The literal of a constant expression.

    Integers wrap into their dtype, as everywhere in Loops.
    """
    element = scalar_type(c.dtype)
    if c.dtype.kind == "bool":
        literal = "true" if c.value else "false"
    elif not c.dtype.is_float:
        literal = str(int(c.value) & ((1 << c.dtype.bits) - 1))
    elif c.dtype.bits >= 32:
        literal = float_literal(float(c.value), c.dtype.bits)
    else:
        import numpy as np

        literal = str(int(np.array(c.value, c.dtype.numpy).view(np.uint16)))
    return splat(element, literal, c.lanes)


def symbol(name: str) -> str:
    """A global name, quoted where LLVM wants it."""
    if _PLAIN.fullmatch(name):
        return f"@{name}"
    escaped = "".join(c if c.isalnum() else "".join(f"\\{b:02X}" for b in c.encode()) for c in name)
    return f'@"{escaped}"'


class Writer:
    """The instructions of one function, and the intrinsics that they call.

    Attributes:
        declarations: `declare` lines that the module needs, shared by its functions.
        features: what the CPU has, in LLVM's names.
    """

    def __init__(self, declarations: set[str], features: frozenset[str]) -> None:
        self.declarations = declarations
        self.features = features
        self.body: Region = []
        self._region = self.body
        self._count = 0

    def fresh(self, hint: str = "") -> str:
        """A new local name, without the sign; unique in the function."""
        self._count += 1
        hint = re.sub(r"\W", "_", hint, flags=re.ASCII) if hint else "v"
        return f"{hint}.{self._count}"

    def line(self, text: str) -> None:
        """Appends an instruction without a result to the open region."""
        self._region.append("  " + text)

    def define(self, text: str, hint: str = "") -> str:
        """Appends an instruction; returns the name of its result."""
        name = "%" + self.fresh(hint)
        self._region.append(f"  {name} = {text}")
        return name

    def label(self, name: str) -> None:
        """Starts a basic block."""
        self._region.append(f"{name}:")

    def place(self) -> Region:
        """A region nested in the open one: it keeps its place while later lines are written."""
        region: Region = []
        self._region.append(region)
        return region

    def switch(self, region: Region) -> Region:
        """Makes `region` the open one and returns the one before."""
        before, self._region = self._region, region
        return before

    def call(self, result: str, name: str, *arguments: tuple[str, str]) -> str:
        """Calls an intrinsic with (type, operand) pairs, declaring it; the result's name.

        An operand may be a bare literal such as `true` of an immediate argument.
        """
        types = ", ".join(t for t, _ in arguments)
        self.declarations.add(f"declare {result} @{name}({types})")
        operands = ", ".join(f"{t} {o}" for t, o in arguments)
        text = f"call {result} @{name}({operands})"
        if result == "void":
            self.line(text)
            return ""
        return self.define(text)

    def has(self, feature: str) -> bool:
        """Whether the CPU has a feature."""
        return feature in self.features

    def text(self) -> str:
        """All lines."""
        lines: list[str] = []
        open_regions = [iter(self.body)]
        while open_regions:
            for part in open_regions[-1]:
                if not isinstance(part, str):
                    open_regions.append(iter(part))
                    break
                lines.append(part)
            else:
                open_regions.pop()
        return "\n".join(lines)
