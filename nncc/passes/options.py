"""The options of a pass: its dataclass fields as text, with their types.

    options(Tensorize)["columns"]        Option(name='columns', type=int, default=0)
    read(option, 14)                     14, or PassError if the value is none of the type
    spell((1, 2))                        '(1, 2)'

An option may be an int, a float, a bool, a string, one of given words (`Literal`), a tuple of
any of these, or None where its type allows it. Fields of other types hold data, such as
calibration arrays; they are set from Python only and have no text. One field may be a `Mapping`
from names to ints: the options that the pass does not name go there (`tile{m=32, e=7}`).
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from nncc.passes.base import Pass

Value = Union[bool, int, float, str, None, tuple["Value", ...]]  # noqa: UP007 (refers to itself)

_WORD = re.compile(r"[A-Za-z_][\w.-]*")
KEYWORDS: Mapping[str, Value] = {"true": True, "false": False, "none": None}
NODE = "node"  # the option that is written in brackets


@dataclass(frozen=True)
class Option:
    """A field of a pass. `default` is MISSING where a value must be given."""

    name: str
    type: Any
    default: Any

    @property
    def has_text(self) -> bool:
        """Whether the option can be written in a pipeline."""
        return _describe(self.type) is not None

    @property
    def takes(self) -> str:
        """What the option takes, in words. Raises ValueError if it has no text."""
        words = _describe(self.type)
        if words is None:
            raise ValueError(f"{self.name} has no text")
        return words


def options(cls: type[Pass]) -> dict[str, Option]:
    """The options of a pass in the order of its fields, without the one that takes the rest."""
    return {name: o for name, o in _fields(cls).items() if not _is_mapping(o.type)}


def rest(cls: type[Pass]) -> str:
    """The name of the field that takes the options that the pass does not name; "": none."""
    return next((name for name, o in _fields(cls).items() if _is_mapping(o.type)), "")


def _fields(cls: type[Pass]) -> dict[str, Option]:
    hints = typing.get_type_hints(cls)
    return {
        f.name: Option(f.name, hints[f.name], _default(f))
        for f in dataclasses.fields(cls)
        if f.init
    }


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_mapping(hint: Any) -> bool:
    return typing.get_origin(hint) is Mapping and typing.get_args(hint) == (str, int)


def read(hint: Any, value: Value) -> Any:
    """`value` as the type `hint` wants it. Raises ValueError that says what is wanted."""
    if not _fits(hint, value):
        raise ValueError(f"{spell(value)} is not {_describe(hint)}")
    return _convert(hint, value)


def _fits(hint: Any, value: Value) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(a, value) for a in args)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in args)
    if origin is tuple:
        members = value if isinstance(value, tuple) else (value,)
        return all(_fits(args[0], v) for v in members)
    if hint in (int, float):
        number = isinstance(value, int) or (hint is float and isinstance(value, float))
        return number and not isinstance(value, bool)
    if hint in (None, types.NoneType):
        return value is None
    return isinstance(hint, type) and isinstance(value, hint)


def _convert(hint: Any, value: Value) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert(next(a for a in args if _fits(a, value)), value)
    if origin is tuple:
        members = value if isinstance(value, tuple) else (value,)
        return tuple(_convert(args[0], v) for v in members)
    return float(value) if hint is float else value  # type: ignore[arg-type]


def _describe(hint: Any) -> str | None:
    """A type in words; None if no text can stand for it."""
    simple = {
        int: "an integer", float: "a number", str: "a text", bool: "true or false",
        None: "none", types.NoneType: "none",
    }  # fmt: skip
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(spell(a) for a in args)
    if origin in (Union, types.UnionType):
        # a part that has no text makes the option one that holds data
        parts = [_describe(a) for a in args]
        return None if None in parts else " or ".join(p for p in parts if p)
    if origin is tuple:
        member = _describe(args[0]) if len(args) == 2 and args[1] is ... else None
        return None if member is None else f"a list (…, …) of which each is {member}"
    return simple.get(hint) if isinstance(hint, type) or hint is None else None


def spell(value: Value) -> str:
    """A value as pipelines write it.

    >>> spell(("same", 0.5, True)), spell("two words")
    ('(same, 0.5, true)', '"two words"')
    """
    if isinstance(value, tuple):
        return f"({', '.join(spell(v) for v in value)})"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = _WORD.fullmatch(value) and value not in KEYWORDS
        return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
