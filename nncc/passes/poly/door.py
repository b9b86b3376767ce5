"""isl, and a count of what is asked of it (`--time-passes` prints it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import islpy as isl

__all__ = ["call", "calls", "isl", "reset_calls"]

P = ParamSpec("P")
R = TypeVar("R")

_calls = 0


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`function(*args)`, a function or method of isl, counted."""
    global _calls
    _calls += 1
    return function(*args, **kwargs)


def calls() -> int:
    """The number of isl calls since the start or the last `reset_calls`."""
    return _calls


def reset_calls() -> None:
    """Count from 0 again."""
    global _calls
    _calls = 0
