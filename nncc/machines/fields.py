"""Reading a table of a machine file: types, bounds, and errors that name the field.

    read(table, {"bytes": Field(int, minimum=1)}, Where("npu.toml", "storage[0]"))

gives the values of the fields, defaults filled in, or raises TargetError such as

    npu.toml: storage[0].byte is not a field
      help: did you mean 'bytes'?
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nncc.diagnostics import Location, TargetError, nearest

_REQUIRED = object()
_KINDS = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True)
class Where:
    """A place in a machine file: the file and the path of the table in it."""

    file: str
    path: str = ""

    def name(self, field: str) -> str:
        return f"{self.path}.{field}" if self.path else field

    def error(self, message: str, help: str = "") -> TargetError:
        return TargetError(message, Location(file=self.file), help)


@dataclass(frozen=True)
class Field:
    """What a field may hold.

    Args:
        kind: `int`, `float` (an integer is one too), `str`, `bool`, `list` (of texts),
            `dict` (a table), or `"tables"` (an array of tables).
        default: what is taken where the field is missing; without one it must be there.
        minimum: of a number. `allowed`: the only values of a text or of a list's members.
    """

    kind: type | str
    default: Any = _REQUIRED
    minimum: float | None = None
    allowed: tuple[str, ...] = ()


def read(table: Mapping[str, Any], fields: Mapping[str, Field], where: Where) -> dict[str, Any]:
    """The values of `fields` in `table`. Raises TargetError."""
    for name in table:
        if name not in fields:
            raise where.error(f"{where.name(name)} is not a field", nearest(name, fields, "fields"))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _checked(table[name], field, where, name)
        elif field.default is _REQUIRED:
            raise where.error(f"{where.name(name)} is missing: it is {describe(field)}")
        else:
            values[name] = field.default
    return values


def describe(field: Field) -> str:
    """What a field takes, in words."""
    if field.allowed:
        members = ", ".join(repr(a) for a in field.allowed)
        return f"one of {members}" if field.kind is str else f"a list out of {members}"
    if field.kind is list:
        return "a list of texts"
    if field.kind is dict:
        return "a table"
    if field.kind == "tables":
        return "an array of tables"
    assert isinstance(field.kind, type)
    bound = "" if field.minimum is None else f" of at least {field.minimum:g}"
    return _KINDS[field.kind] + bound


def _checked(value: Any, field: Field, where: Where, name: str) -> Any:
    if not _fits(value, field):
        raise where.error(
            f"{where.name(name)} is {value!r}; it must be {describe(field)}",
            nearest(value, field.allowed) if field.allowed and isinstance(value, str) else "",
        )
    if field.kind is float:
        return float(value)
    return tuple(value) if field.kind is list else value


def _fits(value: Any, field: Field) -> bool:
    if field.kind == "tables":
        return isinstance(value, list) and all(isinstance(v, dict) for v in value)
    if field.kind is list:
        return isinstance(value, list) and all(
            isinstance(v, str) and (not field.allowed or v in field.allowed) for v in value
        )
    if field.kind in (int, float):
        number = isinstance(value, int) or (field.kind is float and isinstance(value, float))
        return (
            number
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (field.minimum is None or value >= field.minimum)
        )
    assert isinstance(field.kind, type)
    return isinstance(value, field.kind) and (not field.allowed or value in field.allowed)
