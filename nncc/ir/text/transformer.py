"""From the parser's matches to the classes of `syntax.py`: one method a rule of the grammar.

A method gets the parts of its rule in order, None where an optional part is absent.
"""

from __future__ import annotations

from typing import Any

from lark import Token, Transformer

from nncc.ir.text import syntax as s
from nncc.ir.text import syntax_items as si
from nncc.ir.text.names import read_number, unquote, unstring

Parts = list[Any]


def _present(parts: Parts) -> tuple[Any, ...]:
    return tuple(p for p in parts if p is not None)


def _of(parts: Parts, *kinds: type) -> tuple[Any, ...]:
    return tuple(p for p in parts if isinstance(p, kinds))


class ToSyntax(Transformer[Token, Any]):
    """Called by the parser as it goes (no tree is built)."""

    # -- terminals -------------------------------------------------------------------------

    def NAME(self, token: Token) -> Token:
        if token[0] != "`":
            return token
        try:
            return token.update(value=unquote(token))
        except ValueError:
            raise s.Problem(token, f"{token} is not a well-formed name", _ESCAPES) from None

    def STRING(self, token: Token) -> Token:
        try:
            return token.update(value=unstring(token))
        except ValueError:
            raise s.Problem(token, f"{token} is not a well-formed text", _ESCAPES) from None

    # -- common ----------------------------------------------------------------------------

    names = exprs = values = formals = params = options = dims = buffers = dtypes = block = tuple

    def module(self, parts: Parts) -> si.ModuleText:
        return si.ModuleText(parts[0], tuple(parts[1:]))

    def sizes(self, parts: Parts) -> si.SizesText:
        return si.SizesText(parts[0])

    def at(self, parts: Parts) -> str:
        return str(parts[0])

    def type(self, parts: Parts) -> s.Type:
        at = parts[0]
        return s.Type(at, None if at.type == "TYPE" else parts[1] or ())

    def layout(self, parts: Parts) -> s.LayoutText:
        return s.LayoutText(parts[0] or (), parts[1] or (), parts[2])

    def symbol(self, parts: Parts) -> si.SymbolText:
        return si.SymbolText(*parts)

    def data(self, parts: Parts) -> s.Data:
        return s.Data("list" if parts[0].type == "LIST" else "number", parts[0])

    def file(self, parts: Parts) -> s.Data:
        return s.Data("file", parts[0], parts[1])

    def digest(self, parts: Parts) -> s.Data:
        return s.Data("sha256", parts[0], parts[0])

    def bytes(self, parts: Parts) -> s.Data:
        return s.Data("bytes", parts[0])

    def random(self, parts: Parts) -> s.Data:
        return s.Data("random", parts[0], options=parts[1])

    # -- graphs ----------------------------------------------------------------------------

    def graph(self, parts: Parts) -> si.GraphText:
        return si.GraphText(parts[0], parts[1] or (), parts[2] or (), tuple(parts[3:]))

    def value(self, parts: Parts) -> si.ValueText:
        return si.ValueText(*parts)

    def node(self, parts: Parts) -> si.NodeText:
        outputs, op, inputs, attributes, source = parts[:5]
        return si.NodeText(
            outputs or (), op, inputs or (), attributes or (), source or "", tuple(parts[5:])
        )

    def update(self, parts: Parts) -> si.UpdateText:
        return si.UpdateText(*parts)

    def placement(self, parts: Parts) -> si.PlacementText:
        return si.PlacementText(*parts)

    def attributes(self, parts: Parts) -> tuple[s.AttributeText, ...]:
        return _present(parts)

    def attribute(self, parts: Parts) -> s.AttributeText:
        return s.AttributeText(*parts)

    strings = tuple

    def tensor(self, parts: Parts) -> s.TensorText:
        return s.TensorText(*parts)

    # -- definitions and nests -------------------------------------------------------------

    def definition(self, parts: Parts) -> si.DefinitionText:
        name, inputs, options, outputs, source, doc = parts[:6]
        rest = parts[6:]
        params = [si.ParamText("in", *f) for f in inputs or ()]
        params += [si.ParamText("out", *f) for f in outputs or ()]
        params += _of(rest, si.ParamText)
        return si.DefinitionText(
            name,
            tuple(params),
            options or (),
            source or "",
            doc or "",
            _of(rest, si.CombineText),
            _of(rest, si.StatementText, si.ScanText),
        )

    formal = tuple

    def option(self, parts: Parts) -> si.OptionText:
        return si.OptionText(*parts)

    def local(self, parts: Parts) -> si.ParamText:
        return si.ParamText("local", *parts[0])

    def combine(self, parts: Parts) -> si.CombineText:
        return si.CombineText(*parts)

    def nest(self, parts: Parts) -> si.NestText:
        name, params, sizes, source = parts[:4]
        rest = parts[4:]
        return si.NestText(
            name,
            params or (),
            sizes or (),
            source or "",
            _of(rest, si.CombineText),
            _of(rest, si.StatementText, si.ScanText),
            next(iter(_of(rest, si.ScheduleText)), None),
        )

    def param(self, parts: Parts) -> si.ParamText:
        return si.ParamText(str(parts[0]), *parts[1:])

    def scan(self, parts: Parts) -> si.ScanText:
        return si.ScanText(parts[0], tuple(parts[1:]))

    def statement(self, parts: Parts) -> si.StatementText:
        label, *domain, assignment = parts
        dims, where = (domain[0] if domain else None) or ((), ())
        return si.StatementText(label, dims, where, assignment)

    def domain(self, parts: Parts) -> tuple[Any, Any]:
        return parts[0], parts[1] or ()

    def constraints(self, parts: Parts) -> tuple[Any, Any]:
        return (), parts[0]

    def dim(self, parts: Parts) -> s.Range:
        return s.Range(*parts)

    def assignment(self, parts: Parts) -> si.Assignment:
        *targets, combine, values, source = parts
        return si.Assignment(tuple(targets), combine, values, source or "")

    def schedule(self, parts: Parts) -> si.ScheduleText:
        return si.ScheduleText(tuple(parts))

    def band(self, parts: Parts) -> si.BandText:
        return si.BandText(parts[0], parts[1], parts[2], tuple(parts[3:]))

    def home(self, parts: Parts) -> si.HomeText:
        return si.HomeText(parts[0], parts[1], tuple(parts[2:]))

    def leaf(self, parts: Parts) -> si.LeafText:
        return si.LeafText(parts[0], parts[1], _present(parts[2:-1]), parts[-1] or ())

    pair = tuple
    ahead = tuple
    distance = tuple

    # -- loops functions -------------------------------------------------------------------

    def function(self, parts: Parts) -> si.FunctionText:
        name, buffers, sizes, source, body = parts
        return si.FunctionText(name, buffers or (), sizes or (), source or "", body)

    def argument(self, parts: Parts) -> si.BufferText:
        access, buffer = parts
        buffer.access = str(access)
        return buffer  # type: ignore[no-any-return]

    def buffer(self, parts: Parts) -> si.BufferText:
        return si.BufferText("local", *parts)

    def loop(self, parts: Parts) -> si.LoopText:
        return si.LoopText(*parts)

    def branch(self, parts: Parts) -> si.BranchText:
        return si.BranchText(parts[0], parts[1], parts[2] or ())

    def repeat(self, parts: Parts) -> si.RepeatText:
        return si.RepeatText(*parts)

    def let(self, parts: Parts) -> si.BindText:
        return si.BindText("let", *parts)

    def declare(self, parts: Parts) -> si.BindText:
        return si.BindText("declare", *parts)

    def assign(self, parts: Parts) -> si.BindText:
        return si.BindText("", parts[0], None, parts[1])

    def store(self, parts: Parts) -> si.StoreText:
        return si.StoreText(*parts)

    def alloc(self, parts: Parts) -> si.AllocText:
        return si.AllocText(*parts)

    def invoke(self, parts: Parts) -> si.InvokeText:
        callee, *views, sizes, source = parts
        return si.InvokeText(callee, _present(views), sizes or (), source or "")

    def prefetch(self, parts: Parts) -> si.PrefetchText:
        return si.PrefetchText(parts[0])

    view = tuple

    # -- expressions -----------------------------------------------------------------------

    def literal(self, parts: Parts) -> s.Literal:
        return s.Literal(parts[0], read_number(parts[0]))

    def name(self, parts: Parts) -> s.Ref:
        return s.Ref(parts[0])

    def dtype(self, parts: Parts) -> s.DTypeName:
        return s.DTypeName(parts[0])

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

    lanes = tuple

    def element(self, parts: Parts) -> s.Bounded:
        return s.Bounded(*parts)

    def border(self, parts: Parts) -> s.Border:
        return s.Border(*parts)

    def range(self, parts: Parts) -> s.Range:
        return s.Range(*parts)

    def call(self, parts: Parts) -> s.Call:
        return s.Call(parts[0], _present(parts[1:]))

    def typed_call(self, parts: Parts) -> s.Call:
        return s.Call(parts[0].at, parts[0].args, parts[1])

    def reduction(self, parts: Parts) -> s.Reduction:
        return s.Reduction(*parts)

    def typed(self, parts: Parts) -> s.Typed:
        return s.Typed(*parts)

    def size_value(self, parts: Parts) -> s.Typed:
        return s.Typed(parts[0], parts[1], size=True)


_ESCAPES = r"escapes are those of JSON: \n, \\, \u0041"
