"""The scalar functions of Nests and Loops: name, operand and result types, meaning in numpy.

One table. The interpreters evaluate with `Function.numpy`; a back end has its own table from
the same names to code. Integers wrap around in their width; shifts of signed integers are
arithmetic; `floordiv` and `mod` round towards minus infinity; `round` is half to even.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from nncc.ir.types import DType

# How the result's dtype follows from the operands'.
Rule = Literal["same", "compare", "select", "cast"]


@dataclass(frozen=True, slots=True)
class Function:
    """A scalar function.

    Args:
        name: spelling in text, `max(a, b)`; `symbol`, if set, is written between the operands.
        arity: number of operands.
        rule: `same`: operands and result have one dtype; `compare`: operands have one dtype,
            the result is bool; `select`: (bool, T, T) -> T; `cast`: any -> the stated dtype.
        domain: which dtypes it takes: `any`; `float`; `integer`; `number`, both of them;
            `logic`, integers and bool.
        numpy: `numpy(np, *operands)` on arrays of equal dtype.
        symbol, precedence: infix spelling; a higher precedence binds tighter.
    """

    name: str
    arity: int
    rule: Rule
    domain: Literal["any", "number", "float", "integer", "logic"]
    numpy: Callable[..., Any]
    symbol: str = ""
    precedence: int = 0

    def takes(self, dtype: DType) -> bool:
        """Whether operands may be of this dtype."""
        kinds = {
            "any": ("float", "int", "uint", "bool"), "number": ("float", "int", "uint"),
            "float": ("float",), "integer": ("int", "uint"), "logic": ("int", "uint", "bool"),
        }  # fmt: skip
        return dtype.kind in kinds[self.domain]


def _erf(np: Any, x: Any) -> Any:
    from nncc.ir.special import erf

    return erf(x)


def _divide(np: Any, a: Any, b: Any) -> Any:
    """Floats divide; integers truncate towards zero, as ONNX's Div does."""
    if a.dtype.kind in "iu":
        quotient = a // b  # rounded down: one too small where the exact one is negative
        inexact = (quotient * b != a) & ((a < 0) != (b < 0)) & (b != 0)
        return (quotient + inexact).astype(a.dtype)
    return a / b


def _power(np: Any, a: Any, b: Any) -> Any:
    """Integers to a negative power are truncated: 0, unless the base is 1 or -1."""
    if a.dtype.kind == "i":
        inverse = np.where(np.abs(a) == 1, np.where(b % 2, a, 1), 0).astype(a.dtype)
        return np.where(b < 0, inverse, np.power(a, np.maximum(b, 0)))
    return np.power(a, b)


def _logic(word: str) -> Callable[..., Any]:
    def apply(np: Any, a: Any, b: Any) -> Any:
        return getattr(np, f"bitwise_{word}")(a, b)

    return apply


FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function("or", 2, "same", "logic", _logic("or"), "|", 1),
        Function("xor", 2, "same", "logic", _logic("xor"), "^", 2),
        Function("and", 2, "same", "logic", _logic("and"), "&", 3),
        Function("eq", 2, "compare", "any", lambda np, a, b: a == b, "==", 4),
        Function("ne", 2, "compare", "any", lambda np, a, b: a != b, "!=", 4),
        Function("lt", 2, "compare", "any", lambda np, a, b: a < b, "<", 4),
        Function("le", 2, "compare", "any", lambda np, a, b: a <= b, "<=", 4),
        Function("gt", 2, "compare", "any", lambda np, a, b: a > b, ">", 4),
        Function("ge", 2, "compare", "any", lambda np, a, b: a >= b, ">=", 4),
        Function("shl", 2, "same", "integer", lambda np, a, b: a << b, "<<", 5),
        Function("shr", 2, "same", "integer", lambda np, a, b: a >> b, ">>", 5),
        Function("add", 2, "same", "any", lambda np, a, b: a + b, "+", 6),
        Function("sub", 2, "same", "number", lambda np, a, b: a - b, "-", 6),
        Function("mul", 2, "same", "any", lambda np, a, b: a * b, "*", 7),
        Function("div", 2, "same", "number", _divide, "/", 7),
        Function("floordiv", 2, "same", "integer", lambda np, a, b: a // b, "//", 7),
        Function("mod", 2, "same", "integer", lambda np, a, b: a % b, "%", 7),
        Function("neg", 1, "same", "number", lambda np, a: -a, "-", 8),
        Function("not", 1, "same", "logic", lambda np, a: ~a),
        Function("abs", 1, "same", "any", lambda np, a: np.abs(a)),
        Function("min", 2, "same", "any", lambda np, a, b: np.minimum(a, b)),
        Function("max", 2, "same", "any", lambda np, a, b: np.maximum(a, b)),
        Function("fma", 3, "same", "float", lambda np, a, b, c: a * b + c),
        Function("pow", 2, "same", "number", _power),
        Function("exp", 1, "same", "float", lambda np, a: np.exp(a)),
        Function("log", 1, "same", "float", lambda np, a: np.log(a)),
        Function("sqrt", 1, "same", "float", lambda np, a: np.sqrt(a)),
        Function("sin", 1, "same", "float", lambda np, a: np.sin(a)),
        Function("cos", 1, "same", "float", lambda np, a: np.cos(a)),
        Function("tanh", 1, "same", "float", lambda np, a: np.tanh(a)),
        Function("erf", 1, "same", "float", _erf),
        Function("floor", 1, "same", "float", lambda np, a: np.floor(a)),
        Function("ceil", 1, "same", "float", lambda np, a: np.ceil(a)),
        Function("round", 1, "same", "float", lambda np, a: np.rint(a)),
        Function("isnan", 1, "compare", "float", lambda np, a: np.isnan(a)),
        Function("select", 3, "select", "any", lambda np, c, a, b: np.where(c, a, b)),
        # cast: floats to integers truncate towards zero and must be in range; integers wrap.
        Function("cast", 1, "cast", "any", lambda np, a: a),
    )
}
