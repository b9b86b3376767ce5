"""Which operation computes a statement: its record and the statement become equal.

    unify(record of requantize, "cast(i8, min(max((cast(i64, t[n,m]) * cast(i64, m1[m]) + …")
    →  {"acc": t[n,m], "bias": 0, "m": m1[m], "s": s1[m], "z": -128, "lo": -128, "hi": 127}

Loads of the record stand for any expression, the same one wherever they occur; operands of
commuting functions may change places, and a number that changes nothing (+ 0, * 1, a limit that
is none) may be missing in the statement. Literals that the record computes from its operands
(1 << s - 1) are compared by their value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from nncc.ir.expr import Apply, Const, Expr, Load, loads
from nncc.ir.nests import Nest
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import DType, i8, u8

_COMMUTE = ("add", "mul", "min", "max")
# What changes nothing as the second operand; limits are those of the 8-bit result.
_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "min": 127, "max": -128}


@dataclass(frozen=True)
class Match:
    """What each operand of the record stands for.

    Args:
        unsigned: whether the result is u8 where the record gives i8.
        open: pairs (part of the record, literal) to compare once all operands are known.
    """

    operands: dict[str, Expr] = field(default_factory=dict)
    unsigned: bool = False
    open: tuple[tuple[Expr, Const], ...] = ()


def unify(record: Nest, value: Expr) -> Match | None:
    """The operands with which the record's statement computes `value`; None if there are none."""
    pattern = record.statements[-1].values[0]
    match = Match()
    if isinstance(pattern, Apply) and pattern.fn == "cast" and pattern.dtype is i8:
        if not (isinstance(value, Apply) and value.fn == "cast" and value.dtype in (i8, u8)):
            return None
        unsigned = value.dtype is u8
        pattern, value, match = pattern.args[0], value.args[0], Match(unsigned=unsigned)
    found = _unify(pattern, value, match)
    names = {p.name for p in record.params[1:]}
    if found is None or found.operands.keys() != names:
        return None
    for part, literal in found.open:
        known = _number(part, found)
        if known is None or known != literal.value:
            return None
    return found


def _unify(pattern: Expr, e: Expr, match: Match) -> Match | None:
    if isinstance(pattern, Load):
        return _bind(pattern, e, match)
    if isinstance(pattern, Const):
        same = isinstance(e, Const) and (e.value, e.dtype) == (pattern.value, pattern.dtype)
        return match if same else None
    assert isinstance(pattern, Apply), "records compute with operands and literals"
    operand = pattern.args[0]
    number = e.dtype is pattern.dtype and not (isinstance(e, Apply) and e.fn == "cast")
    if pattern.fn == "cast" and isinstance(operand, Load) and number and not loads(e):
        return _bind(operand, e, match)  # a number of constants alone needs no cast
    if isinstance(e, Const):
        return _literal(pattern, e, match)
    if isinstance(e, Apply) and (e.fn, e.dtype) == (pattern.fn, pattern.dtype):
        orders = [e.args, e.args[::-1]] if e.fn in _COMMUTE else [e.args]
        for args in orders:
            found: Match | None = match
            for p, a in zip(pattern.args, args, strict=True):
                found = None if found is None else _unify(p, a, found)
            if found is not None:
                return found
    return _missing(pattern, e, match)


def _bind(pattern: Load, e: Expr, match: Match) -> Match | None:
    known = match.operands.get(pattern.tensor)
    if known is not None:
        return match if known == e else None
    if not pattern.indices and not isinstance(e, Const):
        return None
    return replace(match, operands={**match.operands, pattern.tensor: e})


def _literal(pattern: Apply, e: Const, match: Match) -> Match | None:
    """A literal where the record computes, checked in the end."""
    return replace(match, open=(*match.open, (pattern, e)))


def _missing(pattern: Apply, e: Expr, match: Match) -> Match | None:
    """`e` as the first operand of a function whose second one changes nothing."""
    neutral = _NEUTRAL.get(pattern.fn)
    if neutral is None:
        return None
    if match.unsigned and pattern.fn in ("min", "max"):
        neutral += 128
    whole, operand = pattern.args
    if isinstance(operand, Apply) and operand.fn == "cast":
        operand = operand.args[0]
    if not isinstance(operand, Load) or operand.tensor in match.operands:
        return None
    found = _bind(operand, Const(neutral, pattern.dtype), match)
    return None if found is None else _unify(whole, e, found)


def _number(e: Expr, match: Match) -> int | None:
    """The value of a part of the record whose operands are literals."""
    if isinstance(e, Const):
        return int(e.value)
    if isinstance(e, Load):
        bound = match.operands.get(e.tensor)
        return None if bound is None else _number(bound, match)
    if not isinstance(e, Apply):
        return None
    args = [_number(a, match) for a in e.args]
    if any(a is None for a in args):
        return None
    return int(FUNCTIONS[e.fn].numpy(np, *(np.int64(a) for a in args if a is not None)))


def literal(match: Match, name: str) -> int:
    """The value of an operand of rank 0."""
    bound = match.operands[name]
    assert isinstance(bound, Const)
    return int(bound.value)


def offset_of(dtype: DType) -> int:
    """How much less than its value an element is stored as: bytes of the array are signed."""
    return 128 if dtype is u8 else 0
