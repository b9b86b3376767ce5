"""Syntax errors in a user's words: what stands there, and what was expected instead."""

from __future__ import annotations

from lark import UnexpectedToken


def describe(u: UnexpectedToken) -> tuple[str, str]:
    """Message and help for a token that fits nothing."""
    return f"unexpected {u.token!r}, expected {sorted(u.expected)}", ""
