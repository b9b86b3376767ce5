"""The parser: text in, classes of `syntax.py` out, and every failure as a `FrontendError`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken

from nncc.diagnostics import FrontendError, Location
from nncc.ir.text.expected import describe
from nncc.ir.text.hints import describe_character
from nncc.ir.text.syntax import Problem
from nncc.ir.text.transformer import ToSyntax

T = TypeVar("T")


@cache
def _lark() -> Lark:
    """The parser; its tables, which take most of a second to make, are kept in a cache file."""
    grammar = (files(__package__) / "grammar.lark").read_text("utf-8")
    return Lark(
        grammar,
        parser="lalr",
        start=["module", "definition", "nest", "function"],
        transformer=ToSyntax(),
        maybe_placeholders=True,
        cache=_cache_file(),
    )


def _cache_file() -> str | bool:
    """Where lark keeps the tables (it checks that they belong to this grammar); False: nowhere."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(root) / "nncc"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return str(folder / "grammar.lark.pickle")


def read(text: str, start: str, file: str, build: Callable[[Any], T]) -> T:
    """`text`, which is a `start` of the grammar, as what `build` makes of its syntax.

    Raises FrontendError.
    """
    with _reported(text, start, file):
        return build(_lark().parse(text, start=start))


@contextmanager
def _reported(text: str, start: str, file: str) -> Iterator[None]:
    try:
        yield
    except Problem as p:
        raise _error(text, file, p.at, p.message, p.help) from None
    except UnexpectedToken as u:
        message, help = describe(u, _lark(), text, start)
        raise _error(text, file, u.token, message, help) from None
    except UnexpectedCharacters as u:
        at = Token("", u.char, u.pos_in_stream, u.line, u.column)
        raise _error(text, file, at, *describe_character(u, text)) from None
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
