"""What names mean at a place of the text, and from there sizes, types and layouts.

    Scope(sizes={"N"}).size(<text of 2*N + 1>)   →   the Size 2*N + 1

Scalar expressions are in `scalars.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lark import Token

from nncc.diagnostics import nearest
from nncc.ir.index import Element, Size, atom, ceildiv, floordiv, maximum, minimum, modulo, var
from nncc.ir.nests import Layout
from nncc.ir.text import syntax as s
from nncc.ir.text.names import read_number
from nncc.ir.types import DTYPES, DType, TensorType

Numeric = tuple[DType, int]  # dtype and lanes of a scalar expression
MAX_LANES = 1 << 16
SIZES_HINT = "name the sizes behind the tensors: (…; {})"  # of a nest or function


@dataclass
class Scope:
    """The names that can be used.

    Args:
        sizes: variables of integer expressions: named sizes, dims, loop variables.
        tensors: what can be subscripted, with its type.
        values: names that stand for a scalar, with dtype and lanes.
        attributes: float and bool attributes of a definition: numbers that take the dtype of
            their siblings.
        combines: the combines besides the built-in ones, with their number of components.
        open: names that are not known are dims that nobody declared (definitions).
        operations: calls of functions that are not known are machine operations (Loops).
        hint: how a size is declared, {} being its name.
    """

    sizes: set[str] = field(default_factory=set)
    tensors: dict[str, TensorType] = field(default_factory=dict)
    values: dict[str, Numeric] = field(default_factory=dict)
    attributes: frozenset[str] = frozenset()
    combines: Mapping[str, int] = field(default_factory=dict)
    open: bool = False
    operations: bool = False
    hint: str = ""
    _types: dict[str, TensorType] = field(default_factory=dict)

    def inner(self) -> Scope:
        """A scope inside this one: what is added to it is not seen outside."""
        return Scope(
            set(self.sizes), self.tensors, dict(self.values), self.attributes, self.combines,
            self.open, self.operations, self.hint, self._types,
        )  # fmt: skip

    # -- integer expressions ---------------------------------------------------------------

    def size(self, e: s.Expression) -> Size:
        """An integer expression."""
        if isinstance(e, s.Literal):
            if type(e.value) is not int:
                raise s.Problem(e.at, f"a size or subscript is an integer, not {e.at}")
            return e.value
        if isinstance(e, s.Ref):
            self.check_variable(e.at)
            return var(e.at)
        if isinstance(e, s.Negative):
            return -self.size(e.a)
        if isinstance(e, s.Infix):
            return self._infix(e)
        if isinstance(e, s.Bounded):
            return self._element(e)
        if isinstance(e, s.Call) and e.at in _SIZE_FUNCTIONS and len(e.args) == 2:
            return self._apply(e.at, e.args)
        if isinstance(e, s.Subscript):
            raise s.Problem(
                e.at,
                f"an element of '{e.at}' as a subscript or bound needs the range of its values",
                f"write {e.at}[…] in lo..hi",
            )
        raise s.Problem(
            e.at,
            "this cannot stand in a size or subscript",
            "sizes and subscripts are made of integers, sizes and loop variables with "
            "+ - * // % min max ceildiv, and elements of integer tensors (idx[i] in lo..hi)",
        )

    def sizes_of(self, expressions: Iterable[s.Expression]) -> tuple[Size, ...]:
        return tuple(self.size(e) for e in expressions)

    def check_variable(self, name: Token) -> None:
        """Raises Problem if integer expressions do not know `name`."""
        if self.open or name in self.sizes:
            return
        if name in self.values or name in self.attributes:
            raise s.Problem(name, f"'{name}' is a number, not a size or loop variable")
        if name in self.tensors:
            raise s.Problem(name, f"'{name}' is a tensor; an element of it needs subscripts")
        raise s.Problem(
            name,
            f"there is no size or loop variable '{name}' here",
            nearest(name, self.sizes, "known") if self.sizes else self.hint.format(name),
        )

    def _infix(self, e: s.Infix) -> Size:
        if e.at not in _SIZE_OPERATORS:
            raise s.Problem(
                e.at, f"'{e.at}' cannot stand in a size or subscript", "use + - * // % min max"
            )
        return self._apply(e.at, (e.a, e.b))

    def _apply(self, fn: Token, args: tuple[s.Expression, ...]) -> Size:
        a, b = self.sizes_of(args)
        try:
            return (_SIZE_OPERATORS | _SIZE_FUNCTIONS)[fn](a, b)
        except ZeroDivisionError as error:
            raise s.Problem(fn, f"division by zero: {error}") from None

    def _element(self, e: s.Bounded) -> Size:
        t = self.tensor(e.access)
        if not t.dtype.is_integer:
            raise s.Problem(e.at, f"'{e.at}' is {t}; a subscript needs a tensor of integers")
        indices = self.sizes_of(e.access.indices)
        return atom(Element(str(e.at), indices, self.size(e.lo), self.size(e.hi)))

    def tensor(self, access: s.Subscript) -> TensorType:
        """The type of the tensor that `access` subscripts; its number of subscripts fits."""
        if access.at not in self.tensors:
            raise s.Problem(
                access.at,
                f"there is no tensor '{access.at}' here",
                nearest(access.at, self.tensors, "tensors") if self.tensors else "",
            )
        t = self.tensors[access.at]
        if t.rank != len(access.indices):
            raise s.Problem(
                access.at, f"'{access.at}' is {t}: it takes {t.rank} subscripts, "
                f"not {len(access.indices)}",
            )  # fmt: skip
        return t

    # -- types and layouts -----------------------------------------------------------------

    def type(self, t: s.Type) -> TensorType:
        """A tensor type. Raises Problem for unknown sizes."""
        if t.shape is not None:
            dtype, _ = numeric(t.at, lanes=False)
            shape = self.sizes_of(t.shape)
            if negative := [e for e in shape if isinstance(e, int) and e < 0]:
                raise s.Problem(
                    t.at,
                    f"an extent is not negative, as {negative[0]} is",
                    "a size that is not known has a name:  size N",
                )
            return TensorType(dtype, shape)
        known = self._types.get(t.at)
        if known is None:
            known = self._types[t.at] = self._static_type(t.at)
        return known

    def _static_type(self, at: Token) -> TensorType:
        name, shape = at[:-1].split("[")
        extents: list[Size] = []
        for m in re.finditer(r"[^,]+", shape):
            if m[0].isdigit():
                extents.append(int(m[0]))
                continue
            column = (at.column or 1) + len(name) + 1 + m.start()
            self.check_variable(Token("NAME", m[0], None, at.line, column))
            extents.append(var(m[0]))
        return TensorType(DTYPES[name], tuple(extents))

    def layout(self, text: s.LayoutText | None, t: TensorType) -> Layout | None:
        """A layout of a tensor of type `t`; its dims are expressions over d0, d1, …"""
        if text is None:
            return None
        logical = self.inner()
        logical.sizes |= {f"d{k}" for k in range(t.rank)}
        dims, extents = logical.sizes_of(text.dims), self.sizes_of(text.extents)
        if len(dims) != len(extents):
            at = next(iter((*text.dims, *text.extents))).at
            raise s.Problem(
                at, f"a layout of {len(dims)} physical dims with {len(extents)} extents"
            )
        fill = None if text.fill is None else read_number(text.fill)
        return Layout(dims, extents, fill)


def numeric(at: Token, *, lanes: bool = True) -> Numeric:
    """The dtype and lanes that a token like `f32` or `f32x16` names."""
    name, _, count = at.partition("x")
    if count and not lanes:
        raise s.Problem(at, f"{at} is a vector; write {name}")
    if count and not 2 <= int(count) <= MAX_LANES:
        raise s.Problem(at, f"a vector has 2 to {MAX_LANES} lanes")
    return DTYPES[name], int(count or 1)


_SIZE_OPERATORS: dict[str, Callable[[Size, Size], Size]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": floordiv,
    "%": modulo,
}
_SIZE_FUNCTIONS: dict[str, Callable[[Size, Size], Size]] = {
    "min": minimum,
    "max": maximum,
    "ceildiv": ceildiv,
}


def unique(names: Iterable[Token], what: str, known: Mapping[str, object] | None = None) -> None:
    """Raises Problem for the first name that occurs twice, or is in `known` already."""
    seen = set(known or ())
    for name in names:
        if name in seen:
            article = "an" if what[0] in "aeiou" else "a"
            raise s.Problem(name, f"there is already {article} {what} '{name}'")
        seen.add(name)
