"""What the grammar's rules become: the text as written, before names and types are known.

Each class has the fields of its rule in `grammar.lark`. Names are lark tokens: strings that
know their line and column. `transformer.py` turns the parser's matches into these; the
`read_*` modules turn them into the IR.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lark import Token


class Problem(Exception):
    """Something is wrong at a token; `parser.py` makes the user's error of it."""

    def __init__(self, at: Token, message: str, help: str = "") -> None:
        super().__init__(message)
        self.at, self.message, self.help = at, message, help


# -- expressions ---------------------------------------------------------------------------


@dataclass(slots=True)
class Literal:
    """A number; `at` is its last token, `value` is negative if a minus stands before it."""

    at: Token
    value: bool | int | float


@dataclass(slots=True)
class Ref:
    """A name by itself: a variable, a size, a dim or an attribute."""

    at: Token


@dataclass(slots=True)
class DTypeName:
    """A dtype as an argument."""

    at: Token


@dataclass(slots=True)
class Infix:
    """`a op b`."""

    at: Token
    a: Expression
    b: Expression


@dataclass(slots=True)
class Negative:
    """`-a`, unless `a` is a number."""

    at: Token
    a: Expression


@dataclass(slots=True)
class Subscript:
    """`tensor[indices]`; `lanes` and `count` as in `y[i, 0 : 16 first n]`."""

    at: Token
    indices: tuple[Expression, ...]
    lanes: Token | None
    count: Expression | None


@dataclass(slots=True)
class Bounded:
    """`access in lo..hi`: an element of an integer tensor with its declared bound."""

    access: Subscript
    lo: Expression
    hi: Expression

    @property
    def at(self) -> Token:
        return self.access.at


@dataclass(slots=True)
class Border:
    """`access else other`."""

    access: Subscript
    other: Expression

    @property
    def at(self) -> Token:
        return self.access.at


@dataclass(slots=True)
class Range:
    """`name in lo..hi`: a dimension."""

    at: Token
    lo: Expression
    hi: Expression


@dataclass(slots=True)
class Call:
    """`fn(args)`, with `as type` if it is written."""

    at: Token
    args: tuple[Expression, ...]
    type: Token | None = None


@dataclass(slots=True)
class Reduction:
    """`combine(dims)(body)`."""

    call: Call
    body: Expression

    @property
    def at(self) -> Token:
        return self.call.at


@dataclass(slots=True)
class Typed:
    """`f32(a)`: a number of a stated type; with `size`, `value(i64, n + 1)`."""

    at: Token
    a: Expression
    size: bool = False


Expression = (
    Literal | Ref | DTypeName | Infix | Negative | Subscript | Bounded | Border | Range | Call
    | Reduction | Typed
)  # fmt: skip


def walk(e: Expression) -> Iterator[tuple[Expression, int]]:
    """`e` and all expressions inside it, each with its depth there."""
    rest: list[tuple[Expression, int]] = [(e, 0)]
    while rest:
        e, depth = rest.pop()
        yield e, depth
        rest += [(part, depth + 1) for part in _parts(e)]


def _parts(e: Expression) -> tuple[Expression, ...]:
    if isinstance(e, Literal | Ref | DTypeName):
        return ()
    if isinstance(e, Subscript):
        return e.indices if e.count is None else (*e.indices, e.count)
    if isinstance(e, Infix):
        return e.a, e.b
    if isinstance(e, Call):
        return e.args
    if isinstance(e, Negative | Typed):
        return (e.a,)
    if isinstance(e, Reduction):
        return e.call, e.body
    if isinstance(e, Border):
        return e.access, e.other
    if isinstance(e, Bounded):
        return e.access, e.lo, e.hi
    return e.lo, e.hi


# -- types and data ------------------------------------------------------------------------


@dataclass(slots=True)
class Type:
    """`f32[N, 3]`; `shape` None: all of it stands in the token."""

    at: Token
    shape: tuple[Expression, ...] | None


@dataclass(slots=True)
class LayoutText:
    """`@ (dims : extents fill number)`."""

    dims: tuple[Expression, ...]
    extents: tuple[Expression, ...]
    fill: Token | None


@dataclass(slots=True)
class Data:
    """The content of a tensor. `kind`: number, list, file, sha256, bytes or random."""

    kind: str
    at: Token
    sha256: Token | None = None
    options: tuple[AttributeText, ...] = ()


@dataclass(slots=True)
class TensorText:
    """A type with its data, as an attribute."""

    type: Type
    data: Data


@dataclass(slots=True)
class AttributeText:
    """`name=value`; the value is a token, several strings, or a tensor."""

    name: Token
    value: Token | tuple[Token, ...] | TensorText
