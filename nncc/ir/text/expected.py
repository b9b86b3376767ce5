"""Syntax errors in a user's words: what was expected, and what stands there instead.

    expected a type, such as f32[N,3]; found ')'

Terminals of the grammar are never shown by their names.
"""

from __future__ import annotations

from collections.abc import Mapping

from lark import Lark, UnexpectedToken

from nncc.ir.text.hints import NO_NUMBER, hint

# Sets of terminals that together are one thing to a user, larger ones first.
_GROUPS: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (words, frozenset(names.split()))
    for words, names in (
        ("a declaration (graph, size, param, const, state, def, combine, nest, function)",
         "GRAPH SIZE PARAM CONST STATE DEF COMBINE NEST FUNCTION"),
        ("a statement", "FOR PARALLEL UNROLL IF WHILE LET DECLARE ALLOC CALL PREFETCH NAME"),
        ("a loop or a statement's name", "FOR PARALLEL UNROLL VECTOR LOCAL NAME"),
        ("an expression", "INT FLOAT WORD NAME LPAR MINUS DTYPE VALUE"),
        ("an operator", "OR XOR AND COMPARE SHIFT PLUS MINUS TIMES"),
        ("the value of an attribute", "NUMBER LIST STRING DTYPE TYPE LSQB"),
        ("data: a number, a list [1.0, 2.0], file(…) or random(…)",
         "NUMBER LIST FILE SHA256 BYTES RANDOM"),
        ("a type, such as f32[N,3]", "TYPE DTYPE"),
        ("in, out or local", "IN OUT LOCAL"),
    )
)  # fmt: skip

_WORDS = {
    "$END": "the end of the text",
    "NAME": "a name",
    "STRING": 'a text in quotes ""',
    "INT": "a whole number",
    "NUMBER": "a number",
    "LIST": "a list of numbers",
    "DTYPE": "a dtype such as f32",
    "TYPE": "a type, such as f32[N,3]",
    "OR": "'|'",
    "AND": "'&'",
}


def describe(u: UnexpectedToken, parser: Lark, text: str, start: str) -> tuple[str, str]:
    """Message and help for a token of `text` that fits nothing."""
    literals = {t.name: t.pattern.value for t in parser.terminals if t.pattern.type == "str"}
    position = None if u.token.type == "$END" else u.token.start_pos
    accepted = _accepted(parser, text, start, position)
    if "NUMBER" in accepted and u.token.type in ("INT", "FLOAT"):
        return NO_NUMBER, ""
    wanted = _join(_phrases(accepted, literals))
    found = "the text ends" if u.token.type == "$END" else f"found {_shown(str(u.token))}"
    at = len(text) if position is None else position
    word = u.token.type == "DTYPE" or literals.get(u.token.type, "").isidentifier()
    return f"expected {wanted}; {found}", hint(accepted, text[:at], text[at:], word)


def _accepted(parser: Lark, text: str, start: str, position: int | None) -> frozenset[str]:
    """The terminals that could stand at `position` (None: at the end).

    The failed parser does not know: it has acted on the wrong token already. So parse again, up
    to there.
    """
    again = parser.parse_interactive(text, start)
    if position is None:
        again.exhaust_lexer()
        return frozenset(again.accepts())  # type: ignore[no-untyped-call]
    try:
        for token in again.lexer_thread.lex(again.parser_state):  # type: ignore[no-untyped-call]
            if token.start_pos == position:
                break
            again.feed_token(token)
    except UnexpectedToken:
        pass  # the lexer knows that the token does not fit, and did not give it to the parser
    return frozenset(again.accepts())  # type: ignore[no-untyped-call]


def _phrases(accepted: frozenset[str], literals: Mapping[str, str]) -> list[str]:
    phrases = []
    rest = set(accepted)
    for words, group in _GROUPS:
        if group <= rest:
            phrases.append(words)
            rest -= group
    return phrases + sorted(_WORDS.get(t) or _shown(literals.get(t, t.lower())) for t in rest)


def _join(phrases: list[str]) -> str:
    *most, last = phrases
    return f"{', '.join(most)} or {last}" if most else last


def _shown(text: str) -> str:
    return f"'{text if len(text) <= 30 else text[:30] + '…'}'"
