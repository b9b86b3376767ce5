"""The parser: text in, classes of `syntax.py` out, and every failure as a `FrontendError`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from lark import Lark, Token, UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from nncc.diagnostics import FrontendError, Location
from nncc.ir.text.expected import describe
from nncc.ir.text.syntax import Problem
from nncc.ir.text.transformer import ToSyntax

T = TypeVar("T")


@cache
def _lark() -> Lark:
    grammar = (files(__package__) / "grammar.lark").read_text("utf-8")
    return Lark(
        grammar,
        parser="lalr",
        start=["module", "definition", "nest", "function"],
        transformer=ToSyntax(),
        maybe_placeholders=True,
    )


def read(text: str, start: str, file: str, build: Callable[[Any], T]) -> T:
    """`text`, which is a `start` of the grammar, as what `build` makes of its syntax.

    Raises FrontendError.
    """
    with _reported(text, file):
        return build(_lark().parse(text, start=start))


@contextmanager
def _reported(text: str, file: str) -> Iterator[None]:
    try:
        yield
    except Problem as p:
        raise _error(text, file, p.at, p.message, p.help) from None
    except UnexpectedToken as u:
        message, help = describe(u)
        raise _error(text, file, u.token, message, help) from None
    except UnexpectedCharacters as u:
        at = Token("", u.char, u.pos_in_stream, u.line, u.column)
        raise _error(text, file, at, f"unexpected {u.char!r}") from None
    except RecursionError:
        raise FrontendError("the text is nested too deeply", Location(file)) from None


def _error(text: str, file: str, at: Token, message: str, help: str = "") -> FrontendError:
    lines = text.split("\n")
    line, column = at.line or len(lines), at.column or 1
    if at.type == "$END":
        last = max((k for k, x in enumerate(lines) if x.strip()), default=0)
        line, column = last + 1, len(lines[last].rstrip()) + 1
    source = lines[line - 1].rstrip("\r") if line <= len(lines) else ""
    return FrontendError(message, Location(file, line, column), help, source)
