"""From the tables of a machine file to the records of `nncc.machines.machine`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nncc.diagnostics import nearest
from nncc.machines import host
from nncc.machines.fields import Field, Where, read
from nncc.machines.machine import KINDS, Link, Operation, Spatial, Storage
from nncc.machines.semantics import parse_semantics

Table = dict[str, Any]

_STORAGE = {
    "name": Field(str),
    "above": Field(str, ""),
    "bytes": Field(int, 0, minimum=1),
    "detect": Field(str, "", allowed=("cache1", "cache2", "cache3", "memory", "registers")),
    "line_bytes": Field(int, 64, minimum=1),
    "banks": Field(int, 1, minimum=1),
    "instances": Field(int, 1, minimum=1),
    "managed": Field(bool, False),
    "holds": Field(list, (), allowed=("in", "out", "local")),
    "read_bytes_per_cycle": Field(float, 0.0, minimum=0),
    "write_bytes_per_cycle": Field(float, 0.0, minimum=0),
    "read_pj_per_byte": Field(float, 0.0, minimum=0),
    "write_pj_per_byte": Field(float, 0.0, minimum=0),
}
_SPATIAL = {
    "name": Field(str),
    "count": Field(int, minimum=1),
    "below": Field(str),
    "multicast": Field(bool, False),
    "reduce": Field(bool, False),
}
_LINK = {
    "name": Field(str),
    "source": Field(str),
    "target": Field(str),
    "bytes_per_cycle": Field(float, minimum=0),
    "latency": Field(int, 1, minimum=0),
    "pj_per_byte": Field(float, 0.0, minimum=0),
}
_OPERATION = {
    "name": Field(str),
    "semantics": Field(str),
    "spelling": Field(str, ""),
    "kind": Field(str, "compute", allowed=KINDS),
    "declares": Field(list, ()),
    "needs": Field(list, ()),
    "lanes": Field(dict, None),
    "latency": Field(int, 1, minimum=1),
    "per_cycle": Field(float, 1.0, minimum=1e-6),
    "energy": Field(float, 0.0, minimum=0),
    "energy_per_lane": Field(float, 0.0, minimum=0),
    "places": Field(dict, {}),
}


def storages(tables: list[Table], register_bytes: int, where: Where) -> tuple[Storage, ...]:
    """The memories, outermost first: `above` must name an earlier one (the first has none)."""
    found: list[Storage] = []
    for place, values in _each(tables, _STORAGE, where, "storage"):
        if values["above"]:
            _known(values["above"], found, place, "above")
        elif found:
            what = f"what is {values['name']} filled from?"
            raise place.error(f"{place.name('above')} is missing: {what}")
        detected = values.pop("detect")
        if detected == "registers":
            values["bytes"] = register_bytes
        elif detected:
            values["bytes"] = host.size_of(detected) or values["bytes"]
        if not values["bytes"]:
            raise place.error(f"{place.name('bytes')} is missing: it is an integer of at least 1")
        if any(s.name == values["name"] for s in found):
            raise place.error(f"{place.name('name')}: there are two memories '{values['name']}'")
        found.append(Storage(**values))
    if not found:
        raise where.error("storage is empty: a machine has at least one memory")
    return tuple(found)


def spatials(
    tables: list[Table], storage: tuple[Storage, ...], where: Where
) -> tuple[Spatial, ...]:
    """The fan-out below memories."""
    found = []
    for place, values in _each(tables, _SPATIAL, where, "spatial"):
        _known(values["below"], storage, place, "below")
        found.append(Spatial(**values))
    return tuple(found)


def links(tables: list[Table], storage: tuple[Storage, ...], where: Where) -> tuple[Link, ...]:
    """Ways between memories."""
    found = []
    for place, values in _each(tables, _LINK, where, "link"):
        _known(values["source"], storage, place, "source")
        _known(values["target"], storage, place, "target")
        found.append(Link(**values))
    return tuple(found)


def operations(
    tables: list[Table],
    features: frozenset[str],
    where: Where,
    *,
    moved: bool = False,
    sized: bool = False,
) -> dict[str, Operation]:
    """The operations whose features the machine has, in the order of the file.

    Args:
        moved: whether the machine has an architecture: programs consist of moves then, operations
            need no spelling, and they may be of any kind.
        sized: whether the machine has an array: its operations are instructions without spelling,
            whose nests have named sizes.
    """
    found: dict[str, Operation] = {}
    for place, values in _each(tables, _OPERATION, where, "operation"):
        if not moved and not sized and not values["spelling"]:
            raise place.error(f"{place.name('spelling')} is missing: it is a text")
        if not moved and values["kind"] != "compute":
            what = f"a machine without an architecture has no {values['kind']} operations"
            raise place.error(f"{place.name('kind')}: {what}")
        for one in _expanded(values, place, moved, sized):
            if one.name in found:
                raise place.error(f"there are two operations '{one.name}'")
            if all(features & set(need.split("|")) for need in one.needs):
                found[one.name] = one
    return found


def _expanded(values: Table, place: Where, moved: bool, sized: bool) -> Iterator[Operation]:
    """The operation, or one for each number of lanes."""
    lanes: Table | None = values.pop("lanes")
    per_lane: float = values.pop("energy_per_lane")
    if lanes is None:
        yield _operation(values, place, moved, sized)
        return
    for text, needs in lanes.items():
        path = place.name(f"lanes.{text}")
        if not text.isdecimal() or not isinstance(needs, list):
            raise place.error(f"{path}: lanes are written as {{ 16 = [features], … }}")
        count = int(text)
        one = {k: _with_lanes(v, count) for k, v in values.items()}
        one |= {"needs": tuple(needs), "energy": round(per_lane * count, 6)}
        yield _operation(one, place, moved, sized)


def _with_lanes(value: Any, lanes: int) -> Any:
    """Texts with `$4L`, `$2L`, `$L` and `$B` (bits of the accumulator) replaced by numbers."""
    if isinstance(value, tuple):
        return tuple(_with_lanes(v, lanes) for v in value)
    if not isinstance(value, str):
        return value
    for name, number in (("$4L", 4), ("$2L", 2), ("$L", 1), ("$B", 32)):
        value = value.replace(name, str(number * lanes))
    return value


def _operation(values: Table, place: Where, moved: bool, sized: bool) -> Operation:
    kind = values["kind"] if moved or sized else "reduction"
    semantics = parse_semantics(values["semantics"], place, kind=kind, sized=sized)
    known = {p.name for p in semantics.params}
    for name in values["places"]:
        if name not in known:
            help = nearest(name, known, "operands")
            raise place.error(f"{place.name('places')}: there is no operand '{name}'", help)
    places = tuple(values["places"].items())
    return Operation(
        **values
        | {"semantics": semantics, "spelling": values["spelling"].strip(), "places": places}
    )


def _each(
    tables: list[Table], fields: dict[str, Field], where: Where, name: str
) -> Iterator[tuple[Where, Table]]:
    for i, table in enumerate(tables):
        place = Where(where.file, f"{name}[{i}]")
        yield place, read(table, fields, place)


def _known(
    name: str, storage: tuple[Storage, ...] | list[Storage], place: Where, field: str
) -> None:
    if not any(s.name == name for s in storage):
        help = nearest(name, [s.name for s in storage], "memories before it")
        raise place.error(f"{place.name(field)}: there is no memory '{name}' before it", help)
