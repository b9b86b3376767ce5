"""From the parser's matches to the classes of `syntax.py`: one entry a rule of the grammar.

A method gets the parts of its rule in order, None where an optional part is absent. Most rules
are a `record`: the parts are the fields of a class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any

from lark import Token, Transformer

from nncc.ir.text import syntax as s
from nncc.ir.text import syntax_items as si
from nncc.ir.text.names import read_number, unquote, unstring

Parts = list[Any]
Method = Callable[[Any, Parts], Any]


def record(cls: type, *first: object, rest: bool = False) -> Method:
    """The method of a rule whose parts are, in order, the fields of `cls` after `first`.

    An absent part is empty where the field is a tuple or a text.

    Args:
        rest: the last field holds all parts that are left.
    """
    matched = [f for f in fields(cls) if f.default is MISSING][len(first) :]
    kinds = [(k, str(f.type).partition("[")[0]) for k, f in enumerate(matched)]
    empty = [(k, _EMPTY[kind]) for k, kind in kinds if kind in _EMPTY]
    last = len(matched) - 1

    def make(self: object, parts: Parts) -> Any:
        if rest:
            parts[last:] = [tuple(parts[last:])]
        for k, nothing in empty:
            if parts[k] is None:
                parts[k] = nothing
        return cls(*first, *parts)

    return make


_EMPTY: dict[str, object] = {"tuple": (), "str": ""}


def _present(parts: Parts) -> tuple[Any, ...]:
    return tuple(p for p in parts if p is not None)


class ToSyntax(Transformer[Token, Any]):
    """Called by the parser as it goes (no tree is built)."""

    # -- terminals -------------------------------------------------------------------------

    def NAME(self, token: Token) -> Token:
        if token[0] != "`":
            return token
        if len(token) == 2:
            raise s.Problem(token, "a name has at least one character")
        try:
            return token.update(value=unquote(token))
        except ValueError:
            raise s.Problem(token, f"{token} is not a well-formed name", _ESCAPES) from None

    def STRING(self, token: Token) -> Token:
        try:
            return token.update(value=unstring(token))
        except ValueError:
            raise s.Problem(token, f"{token} is not a well-formed text", _ESCAPES) from None

    def _numbers(self, token: Token) -> Token:
        """A token that is or holds numbers: none is too large to be counted with."""
        if _LARGE.search(token):
            _check_numbers(token)
        return token

    INT = FLOAT = NUMBER = LIST = TYPE = DTYPE = _numbers

    # -- common ----------------------------------------------------------------------------

    names = exprs = values = formals = params = options = dims = buffers = dtypes = tuple
    strings = combines = locals = steps = targets = ahead = block = tuple
    pair = distance = view = lanes = tuple

    def attributes(self, parts: Parts) -> tuple[Any, ...]:
        return _present(parts)

    pairs = views = arguments = attributes

    def at(self, parts: Parts) -> str:
        return str(parts[0])

    module = record(si.ModuleText, rest=True)
    sizes = record(si.SizesText)
    symbol = record(si.SymbolText)
    layout = record(s.LayoutText)
    tensor = record(s.TensorText)
    file = record(s.Data, "file")
    digest = record(s.Data, "sha256")
    bytes = record(s.Data, "bytes")

    def type(self, parts: Parts) -> s.Type:
        at = parts[0]
        return s.Type(at, None if at.type == "TYPE" else parts[1] or ())

    def data(self, parts: Parts) -> s.Data:
        return s.Data("list" if parts[0].type == "LIST" else "number", parts[0])

    def random(self, parts: Parts) -> s.Data:
        return s.Data("random", parts[0], options=parts[1])

    # -- graphs ----------------------------------------------------------------------------

    graph = record(si.GraphText, rest=True)
    value = record(si.ValueText)
    node = record(si.NodeText, rest=True)
    update = record(si.UpdateText)
    placement = record(si.PlacementText)
    attribute = record(s.AttributeText)

    # -- definitions and nests -------------------------------------------------------------

    definition = record(si.DefinitionText)
    formal = record(si.ParamText, "")
    option = record(si.OptionText)
    combine = record(si.CombineText)
    nest = record(si.NestText)
    param = record(si.ParamText)
    schedule = record(si.ScheduleText, rest=True)
    scan = record(si.ScanText)
    dim = record(s.Range)
    assignment = record(si.Assignment)
    band = record(si.BandText, rest=True)
    home = record(si.HomeText, rest=True)
    leaf = record(si.LeafText)

    def statement(self, parts: Parts) -> si.StatementText:
        label, *domain, assignment = parts
        dims, where = (domain[0] if domain else None) or ((), ())
        return si.StatementText(label, dims, where, assignment)

    def domain(self, parts: Parts) -> tuple[Any, Any]:
        return parts[0], parts[1] or ()

    def constraints(self, parts: Parts) -> tuple[Any, Any]:
        return (), parts[0]

    # -- loops functions -------------------------------------------------------------------

    function = record(si.FunctionText)
    buffer = record(si.BufferText, "local")
    loop = record(si.LoopText)
    branch = record(si.BranchText)
    repeat = record(si.RepeatText)
    let = record(si.BindText, "let")
    declare = record(si.BindText, "declare")
    store = record(si.StoreText)
    alloc = record(si.AllocText)
    invoke = record(si.InvokeText)
    prefetch = record(si.PrefetchText)
    perform = record(si.PerformText)

    def argument(self, parts: Parts) -> si.BufferText:
        access, buffer = parts
        return replace(buffer, access=str(access))  # type: ignore[no-any-return]

    def assign(self, parts: Parts) -> si.BindText:
        return si.BindText("", parts[0], None, parts[1])

    # -- expressions -----------------------------------------------------------------------

    name = record(s.Ref)
    dtype = record(s.DTypeName)
    element = record(s.Bounded)
    border = record(s.Border)
    range = record(s.Range)
    call = record(s.Call)
    reduction = record(s.Reduction)
    typed = record(s.Typed)

    def literal(self, parts: Parts) -> s.Literal:
        return s.Literal(parts[0], read_number(parts[0]))

    def infix(self, parts: Parts) -> s.Infix:
        return s.Infix(parts[1], parts[0], parts[2])

    def negative(self, parts: Parts) -> s.Literal | s.Negative:
        sign, a = parts
        if isinstance(a, s.Literal) and a.at.type != "MINUS" and not isinstance(a.value, bool):
            return s.Literal(sign, -a.value)
        return s.Negative(sign, a)

    def access(self, parts: Parts) -> s.Subscript:
        tensor, *indices, lanes = parts
        size, count = lanes or (None, None)
        return s.Subscript(tensor, _present(indices), size, count)

    def typed_call(self, parts: Parts) -> s.Call:
        return s.Call(parts[0].at, parts[0].args, parts[1])

    def size_value(self, parts: Parts) -> s.Typed:
        return s.Typed(parts[0], parts[1], size=True)


def _check_numbers(token: Token) -> None:
    """Raises Problem for a number that no format holds, instead of taking it for infinity."""
    if re.search(rf"\d{{{MAX_DIGITS + 1}}}", token):
        raise s.Problem(token, f"a number of more than {MAX_DIGITS} digits")
    for m in re.finditer(r"(?<![\w.])\d+(\.\d+)?[eE]\+?\d+", token):
        if math.isinf(float(m[0])):
            raise s.Problem(token, f"{m[0]} is larger than any number format holds")


MAX_DIGITS = 300  # so that every integer of the text is within the range of f64
_LARGE = re.compile(rf"\d{{{MAX_DIGITS}}}|[eE]\+?\d{{3}}")  # what must be looked at more closely
_ESCAPES = r"escapes are those of JSON: \n, \\, \u0041"
