"""What to do about a syntax error: the habits of other languages, and how it is written here.

y = Relu(Add(x, z))        operands are names: give the inner result one, on a line before
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lark import UnexpectedCharacters

from nncc.diagnostics import nearest
from nncc.ir.types import DTYPES

NO_NUMBER = "this is not a number: write 12, 1.5 or 1e-3"


@dataclass(frozen=True)
class _Hint:
    """What helps where all of `accepted` are accepted and the text around looks so.

    Args:
        accepted: names of terminals; with `only`, no others are.
        before: a pattern that the line matches up to the place, from anywhere in it.
        after: a pattern that starts at the place.
    """

    accepted: str
    after: str
    help: str
    before: str = ""
    only: bool = False

    def fits(self, accepted: frozenset[str], line: str, after: str) -> bool:
        wanted = set(self.accepted.split())
        return (
            (accepted == wanted if self.only else accepted >= wanted)
            and re.match(self.after, after) is not None
            and re.search(f"{self.before}$", line) is not None
        )


_CALL = r"=\s*[\w.]+\([^()]*"  # inside the parentheses of a node
_NODE = "LAYOUT NAME RBRACE UPDATE"  # where the next line of a graph may start
_EXPRESSION = "INT FLOAT NAME LPAR"
_SELECT = "a choice is written select(condition, a, b)"
_STATEMENT = "a statement assigns elements, as in  y[i] = …"

_HINTS = (
    _Hint("NNCC", "", "a text starts with its format:  nncc 1"),
    # types and data
    _Hint("LSQB", r"\W", "a type has its shape in brackets: f32[2,3], or f32[] for one number",
          before=rf"\b({'|'.join(DTYPES)})\s*", only=True),
    _Hint("TYPE", r"(int|float|bool)\b(?!\s*\[)",
          "attributes stand behind the inputs and a semicolon: (x: f32[N]; k: int = 1)",
          before=r"\bdef\b.*"),
    _Hint("TYPE", "=", "a node is written  y = Op(x)", before=r":\s*"),
    _Hint("COLON", r"[,);]", "each input has a type: (x: f32[N], w: f32[N,M])", only=True),
    _Hint("LIST", r"\[", "the elements stand in one list, row by row: [1.0, 2.0, 3.0, 4.0]"),
    # graphs
    _Hint(_NODE, "//", "a comment starts with #"),
    _Hint(_NODE, ";", "nothing stands between lines"),
    _Hint("LPAR", r"[-+*/%&|<>^=]", "a node is one op with its operands: y = Add(a, b)", only=True,
          before=r"=.*"),
    _Hint("COLON COMMA EQUAL LPAR", "", "results stand in the head: graph main(…) -> (y) { … }",
          before=r"\breturn\s+", only=True),
    _Hint("COLON COMMA EQUAL LPAR", r"\w", "a node is written  y = Op(x)", only=True),
    _Hint("COMMA RPAR", "=", "attributes stand behind the operands: Op(x) {name=value}",
          before=_CALL, only=True),
    _Hint("COMMA RPAR", r"[-+*/%&|<>^(\[]",
          "operands are names: give the inner result one, on a line before", before=_CALL,
          only=True),
    _Hint("NAME", r"-?\d", "a number is a constant with a name:  const c: f32[] = 1.0",
          before=_CALL, only=True),
    _Hint("NAME", r"[,)]", "an operand that is left out is written _", before=_CALL, only=True),
    # statements
    _Hint("COLON LSQB", r"=|\w", _STATEMENT, only=True),
    _Hint("COMMA EQUAL NAME", r"[-+*/|&]+=", "a statement that adds up is written  y[i] sum= …",
          before=r"\]\s*"),
    _Hint("EQUAL", r"[-+*/%&|<>^!=]|else\b",
          "the body of a reduction stands in parentheses: sum(k)(x[k] * y[k])"),
    _Hint("TIMES LPAR AS", r"\{", "a range is written lo..hi, as in  for i in 0..N { … }",
          before=r"\bin\b.*"),
    _Hint("LBRACE WHERE", ":", "what is repeated stands in braces: for i in 0..N { … }"),
    # expressions
    _Hint("TIMES ELSE", r"if\b", _SELECT),
    _Hint(_EXPRESSION, r"\*", "a power is written pow(a, 2.0)", before=r"\*"),
    _Hint(_EXPRESSION, r"[&|]", "conditions are joined by one & or |", before=r"[&|]"),
)  # fmt: skip


def hint(accepted: frozenset[str], before: str, after: str, word: bool) -> str:
    """Help for the place between `before` and `after`, or "".

    Args:
        accepted: names of the terminals that could stand there.
        word: what stands there is a word of the language.
    """
    line = before.rpartition("\n")[2]
    found = re.match(r"[A-Za-z_]\w*", after)
    for h in _HINTS:
        if h.fits(accepted, line, after):
            return h.help
    if found and not word and accepted >= {"NUMBER", "STRING"}:
        return f'a text stands in quotes: "{found[0]}"'
    if found and accepted & {"TYPE", "DTYPE"} and "FLOAT" not in accepted:
        return _dtype(found[0])
    if found and word and "NAME" in accepted:
        return (
            f"'{found[0]}' is a word of the language; as a name, write `{found[0]}` in back quotes"
        )
    return ""


def _dtype(name: str) -> str:
    """What a name that is no dtype may have meant."""
    known = {"float": "f32", "double": "f64", "half": "f16", "int": "i32", "long": "i64"}
    short = re.sub(r"^(b?f)loat(?=\d)|^(u?i)nt(?=\d)", r"\1\2", name.lower())
    short = re.sub(r"^ui(?=\d)", "u", known.get(short, short))
    return nearest(short, DTYPES, "dtypes") if short not in DTYPES else f"did you mean '{short}'?"


def describe_character(u: UnexpectedCharacters, text: str) -> tuple[str, str]:
    """Message and help for a place where no token of the language begins."""
    at = u.pos_in_stream or 0
    before, after = text[max(at - 1, 0) : at], text[at + 1 :].lstrip(" ")
    if u.char in ('"', "`"):
        return f"the text that starts with {u.char} does not end on its line", ""
    if u.char.isdigit() or (u.char == "." and (before.isdigit() or after[:1].isdigit())):
        return NO_NUMBER, ""
    message = f"{u.char!r} is not a character of the language here"
    if u.char in "\u201c\u201d\u2018\u2019\u00ab\u00bb'":
        return message, 'a text stands in plain double quotes: "text"'
    if u.char == "?":
        size = after.startswith((",", "]"))
        return message, "a size that is not known has a name:  size N" if size else _SELECT
    if u.char.isalpha():
        start = re.search(r"[\w.]*$", text[:at])
        end = re.match(r"[\w.]*", text[at:])
        name = (start[0] if start else "") + (end[0] if end else "")
        return message, f"a name of other letters than a-z stands in back quotes: `{name}`"
    return message, ""
