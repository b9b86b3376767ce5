"""Assembly text: parsing it, and saying where in it something is wrong.

class _Assembler(SourceReader):
    …  tree = self._parsed(lark(), WORDS)  …  raise self._error("there is no bus 'x'", token)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from nncc.diagnostics import FrontendError, Location

Node = Any  # lark's trees and tokens


class SourceReader:
    """A text that is being read, and the file that it is in."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file

    def _parsed(self, lark: Lark, words: Mapping[str, str]) -> Node:
        """The tree of the text.

        Args:
            words: how terminals of the grammar are called in messages; the others by what
                they are.

        Raises FrontendError.
        """
        try:
            return lark.parse(self.text)
        except UnexpectedToken as u:
            accepted = u.accepts or u.expected
            wanted = sorted({words.get(t) or _spelled(lark, t) for t in accepted})
            found = "the text ends" if u.token.type == "$END" else f"found '{u.token}'"
            if not str(u.token).strip() and u.token.type != "$END":
                found = "the line ends"
            raise self._error(f"expected {' or '.join(wanted)}; {found}", u.token) from None
        except UnexpectedCharacters as u:
            at = Token("", u.char, u.pos_in_stream, u.line, u.column)
            raise self._error(f"'{u.char}' fits nothing here", at) from None

    def _error(self, message: str, at: Node, help: str = "") -> FrontendError:
        """The error at a token or tree; at the end of the text where that has no place."""
        meta = at.meta if isinstance(at, Tree) else at
        lines = self.text.split("\n")
        line, column = getattr(meta, "line", None), getattr(meta, "column", None)
        if line is None or line < 1 or (isinstance(at, Token) and at.type == "$END"):
            line, column = len(lines), len(lines[-1]) + 1
        source = lines[line - 1].rstrip("\r")
        return FrontendError(message, Location(self.file, line, column or 1), help, source)


def _spelled(lark: Lark, terminal: str) -> str:
    """How a token of the grammar is written."""
    names = {t.name: t.pattern.value for t in lark.terminals if t.pattern.type == "str"}
    return f"'{names[terminal]}'" if terminal in names else terminal.lower()
