"""Whether a layout gives every element of a tensor a place of its own inside of the buffer.

    verify_layout(layout, TensorType(f32, (N, 50)), "layout of 'x'")     # raises VerifyError

Each physical dimension is a digit of one axis, `d1`, `d1 // 16`, `d1 % 16` or `d1 // 4 % 8`, or 0,
or a number of several digits, `24*(d2 % 4) + 3*(d3 % 8) + d1`: each one times a literal that what
the ones behind it come to never reaches.

    range        a digit `d // unit % base` is less than `base` and than ceil(extent of d / unit)
    one-to-one   the digits of an axis, smallest unit first, leave nothing out: the first has
                 unit 1, each next one a unit that divides unit * base of the digit before it, and
                 the last has no base, or one that reaches the end of the axis

An axis of one element needs no digit. What is not of this form is refused: that it is right cannot
be proved.
"""

from __future__ import annotations

import math
from typing import NoReturn

from nncc.diagnostics import VerifyError
from nncc.ir.bounds import nonnegative
from nncc.ir.index import Index, Size, Term, divisors, floordiv, polynomial
from nncc.ir.nests import Layout
from nncc.ir.types import TensorType

Digit = tuple[str, int, int | None]  # axis, unit, base: (axis // unit) % base


def verify_layout(layout: Layout, type: TensorType, what: str) -> None:
    """Raises VerifyError unless the layout is proved to be right for tensors of this type."""

    def fail(message: str, help: str = "") -> NoReturn:
        raise VerifyError(f"{what}: {message}", help=help)

    if len(layout.dims) != len(layout.extents):
        fail("dims and extents differ in number")
    if not _fills(layout.fill, type):
        fail(f"the fill {layout.fill} is no {type.dtype}")
    axes: dict[str, Size] = {f"d{k}": extent for k, extent in enumerate(type.shape)}
    digits: dict[str, list[tuple[int, int | None]]] = {axis: [] for axis in axes}
    for dim, extent in zip(layout.dims, layout.extents, strict=True):
        if not all(nonnegative(d - 1) for d in divisors(extent)):
            fail(f"{extent} divides by what may be less than 1")
        room = extent  # for the digits from here on
        number = _number(dim, axes)
        if number is None:
            fail(
                f"it cannot be proved that '{dim}' keeps elements apart",
                "use digits of one axis: d0, d0 // 16, d0 % 16",
            )
        for (axis, unit, base), weight in number:
            if not _below((axis, unit, base), axes, floordiv(room, weight)):
                fail(f"'{dim}' is not surely in 0..{extent}")
            if axis:
                digits[axis].append((unit, base))
            room = weight
    for axis, extent in axes.items():
        if not _complete(digits[axis], extent):
            fail(f"elements that differ in {axis} only would share a place")


def _fills(fill: int | float | None, type: TensorType) -> bool:
    """Whether the dtype has the value."""
    if fill is None or type.dtype.is_float:
        return True
    low, high = (0, 1) if type.dtype.kind == "bool" else type.dtype.limits
    return math.isfinite(fill) and fill == int(fill) and low <= fill <= high


def _number(dim: Size, axes: dict[str, Size]) -> list[tuple[Digit, int]] | None:
    """The digits of a dimension with their factors, the largest factor first."""
    terms = [(dim, 1)]
    if isinstance(dim, Index) and len(dim.terms) > 1:
        terms = [(polynomial({monomial: 1}), weight) for monomial, weight in dim.terms]
    found = [(_digit(part, axes), weight) for part, weight in terms]
    digits = [(digit, weight) for digit, weight in found if digit is not None and weight > 0]
    if len(digits) < len(found):
        return None
    # of those with one factor all but the first have to be 0
    return sorted(digits, key=lambda d: (-d[1], _below(d[0], axes, 1)))


def _below(digit: Digit, axes: dict[str, Size], extent: Size) -> bool:
    """Whether a digit is surely less than `extent`."""
    axis, unit, base = digit
    if not axis:
        return nonnegative(extent - 1)
    reach = nonnegative(extent * unit - axes[axis])  # extent >= ceil(axis / unit)
    return reach or (base is not None and nonnegative(extent - base))


def _digit(dim: Size, axes: dict[str, Size]) -> Digit | None:
    """The digit that a physical dimension is; of no axis, "", if it is always 0."""
    if isinstance(dim, int):
        return ("", 1, None) if dim == 0 else None
    if len(dim.terms) != 1 or dim.terms[0][1] != 1 or len(dim.terms[0][0]) != 1:
        return None
    found = dim.terms[0][0][0]
    if isinstance(found, str):
        return (found, 1, None) if found in axes else None
    if not isinstance(found, Term) or not isinstance(found.b, int) or found.b < 1:
        return None
    inner = _digit(found.a, axes) if isinstance(found.a, Index) else None
    if inner is None:
        return None
    axis, unit, base = inner
    if found.fn == "//" and base is None:
        return axis, unit * found.b, None
    if found.fn == "//" and base is not None and base % found.b == 0:
        return axis, unit * found.b, base // found.b  # d % 16 // 4 == d // 4 % 4
    if found.fn == "%" and (base is None or base % found.b == 0):
        return axis, unit, found.b
    return None


def _complete(digits: list[tuple[int, int | None]], extent: Size) -> bool:
    """Whether digits tell all indices below `extent` apart."""
    known = 1  # the remainder by this is known
    for unit, base in sorted(digits, key=lambda d: (d[0], d[1] is None)):
        if known % unit:
            return False
        if base is None:
            return True
        known = math.lcm(known, unit * base)
    return nonnegative(known - extent)
