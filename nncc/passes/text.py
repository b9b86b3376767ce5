"""Pipelines as text.

    parse("fold, quantize{bits=8}, tile[conv1]{m=32}")  ->  (Fold(), Quantize(bits=8), Tile(...))
    spell_pipeline(passes)                              ->  the text; defaults are left out

A step is the name of a pass; in brackets the node that it is limited to; in braces its options.
Values are integers, numbers, `true`, `false`, `none`, words, texts in double quotes, and lists of
these in parentheses. Spaces and line breaks mean nothing, `#` starts a comment.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from nncc.diagnostics import Location, PassError, nearest
from nncc.passes import find
from nncc.passes.base import Pass
from nncc.passes.options import KEYWORDS, NODE, Value, options, read, rest, spell

_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*\s*)*(?:
    (?P<number>[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|inf\b|nan\b))
    | (?P<word>[A-Za-z_][\w.-]*)
    | (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<sign>[\[\]{}(),=])
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_BRACKET = re.compile(r'\[\s*("(?:[^"\\]|\\.)*"|[^\]"]*?)\s*\]')


def parse(text: str) -> tuple[Pass, ...]:
    """The passes of a pipeline.

    Raises PassError with the place in the text: wrong syntax, an unknown pass or option, or a
    value that the option does not take.
    """
    return _Parser(text).pipeline()


def spell_pipeline(passes: Iterable[Pass]) -> str:
    """The text of a pipeline, without options at their defaults; `parse` gives `passes` back.

    Options that hold data (such as calibration arrays) have no text and are left out.
    """
    return ", ".join(spell_pass(p) for p in passes)


def spell_pass(step: Pass) -> str:
    """One step of a pipeline as text."""
    declared = options(type(step))
    given = {
        name: getattr(step, name)
        for name, option in declared.items()
        if option.has_text and getattr(step, name) != option.default
    }
    node = given.pop(NODE, "")
    if others := rest(type(step)):
        given |= getattr(step, others)
    return (
        step.name
        + (f"[{_spell_node(node)}]" if node else "")
        + (f"{{{', '.join(f'{k}={spell(v)}' for k, v in given.items())}}}" if given else "")
    )


def _spell_node(node: str) -> str:
    return spell(node) if re.search(r'["\[\]\s]', node) else node


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._advance(0)

    def pipeline(self) -> tuple[Pass, ...]:
        steps: list[Pass] = []
        while self._kind != "end":
            steps.append(self._step())
            if self._kind != "end":
                self._expect(",")
        return tuple(steps)

    def _step(self) -> Pass:
        start = self._start
        name = self._word("the name of a pass")
        try:
            cls = find(name)
        except PassError as error:
            raise self._error(error.message, start, error.help) from None
        node = self._node(cls)
        values: dict[str, object] = {NODE: node} if node else {}
        values |= self._options(cls)
        for option in options(cls).values():
            if option.default is dataclasses.MISSING and option.name not in values:
                raise self._error(f"pass '{name}' needs the option '{option.name}'", start)
        try:
            return cls(**values)
        except (PassError, ValueError) as error:
            message = error.message if isinstance(error, PassError) else str(error)
            raise self._error(f"{name}: {message}", start) from error

    def _node(self, cls: type[Pass]) -> str:
        """What stands in brackets after the name of a pass: names of nodes may hold any sign."""
        if self._token != "[":
            return ""
        match = _BRACKET.match(self._text, self._start)
        if match is None:
            raise self._error("'[' is not closed", self._start)
        if NODE not in options(cls):
            raise self._error(f"pass '{cls.name}' cannot be limited to a node", self._start)
        self._advance(match.end())
        inner = match[1]
        return _unquote(inner) if inner.startswith('"') else inner

    def _options(self, cls: type[Pass]) -> dict[str, object]:
        named: dict[str, object] = {}
        others: dict[str, int] = {}
        if self._token != "{":
            return named
        self._expect("{")
        while self._token != "}":
            start = self._start
            key = self._word("the name of an option")
            if key in named or key in others:
                raise self._error(f"option '{key}' is given twice", start)
            self._expect("=")
            if key in options(cls):
                named[key] = self._option(cls, key, start)
            elif rest(cls):
                others[key] = self._typed(int, cls, key)
            else:
                known = [o.name for o in options(cls).values() if o.has_text]
                help = nearest(key, known, "options") if known else "it has no options"
                raise self._error(f"pass '{cls.name}' has no option '{key}'", start, help)
            if self._token != "}":
                self._expect(",")
        self._expect("}")
        return named | ({rest(cls): others} if others else {})

    def _option(self, cls: type[Pass], key: str, start: int) -> object:
        option = options(cls)[key]
        if not option.has_text:
            raise self._error(f"option '{key}' of '{cls.name}' holds data: it has no text", start)
        return self._typed(option.type, cls, key)

    def _typed(self, hint: Any, cls: type[Pass], key: str) -> Any:
        start = self._start
        value = self._value()
        try:
            return read(hint, value)
        except ValueError as error:
            raise self._error(f"{cls.name}{{{key}}}: {error}", start) from None

    def _value(self) -> Value:
        kind, token = self._kind, self._token
        if token == "(":
            return self._list()
        if kind == "number":
            self._advance(self._end)
            return int(token) if re.fullmatch(r"[-+]?\d+", token) else float(token)
        if kind == "text":
            self._advance(self._end)
            return _unquote(token)
        word = self._word("a value")
        return KEYWORDS.get(word, word)

    def _list(self) -> tuple[Value, ...]:
        members: list[Value] = []
        self._expect("(")
        while self._token != ")":
            members.append(self._value())
            if self._token != ")":
                self._expect(",")
        self._expect(")")
        return tuple(members)

    def _word(self, what: str) -> str:
        if self._kind != "word":
            raise self._error(f"expected {what}, found {self._found()}", self._start)
        word = self._token
        self._advance(self._end)
        return word

    def _expect(self, sign: str) -> None:
        if self._token != sign or self._kind != "sign":
            raise self._error(f"expected '{sign}', found {self._found()}", self._start)
        self._advance(self._end)

    def _found(self) -> str:
        return "the end" if self._kind == "end" else f"'{self._token}'"

    def _advance(self, position: int) -> None:
        match = _TOKEN.match(self._text, position)
        if match is None:
            rest_of = self._text[position:]
            at = position + len(rest_of) - len(rest_of.lstrip())
            raise self._error(f"unexpected '{self._text[at]}'", at)
        self._kind = match.lastgroup or "end"
        self._token = match[self._kind]
        self._start, self._end = match.span(self._kind)

    def _error(self, message: str, at: int, help: str = "") -> PassError:
        line = self._text.count("\n", 0, at) + 1
        begin = self._text.rfind("\n", 0, at) + 1
        source = self._text[begin:].partition("\n")[0]
        return PassError(message, Location("pipeline", line, at - begin + 1), help, source)


def _unquote(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1])
