"""From the tables of a machine file to a systolic array and the sizes of its memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nncc.diagnostics import nearest
from nncc.machines.fields import Field, Where, read
from nncc.machines.systolic.model import (
    HOST,
    MEMORIES,
    UNIFIED_BUFFER,
    WEIGHT_FIFO,
    WEIGHT_MEMORY,
    SystolicArray,
)

if TYPE_CHECKING:  # the record of machines has an array
    from nncc.machines.machine import Operation

Table = dict[str, Any]

_ARRAY = {
    "rows": Field(int, minimum=1),
    "columns": Field(int, minimum=1),
    "unified_bytes": Field(int, minimum=1),
    "accumulator_rows": Field(int, minimum=1),
    "fifo_tiles": Field(int, minimum=1),
    "weight_bytes": Field(int, minimum=1),
    "host_bytes": Field(int, minimum=1),
    "weight_bytes_per_second": Field(int, minimum=1),
    "host_bytes_per_second": Field(int, minimum=1),
    "weight_latency": Field(int, 0, minimum=0),
    "host_latency": Field(int, 0, minimum=0),
    "activation_latency": Field(int, 1, minimum=0),
    "issue_stages": Field(int, 4, minimum=0),
    "queue_depth": Field(int, 16, minimum=1),
}

# What a file may state of an operation: what it does is what `operations.toml` says.
_OPERATION = {"name": Field(str), "energy": Field(float, minimum=0)}

# What of a memory follows from the array, so that a file must not state it again.
_DERIVED = ("bytes", "managed", "line_bytes", "read_bytes_per_cycle", "write_bytes_per_cycle")


def systolic_array(table: Table, where: Where) -> SystolicArray:
    """The array of a machine file. Raises TargetError."""
    place = Where(where.file, "array")
    array = SystolicArray(**read(table, _ARRAY, place))
    if problem := array.problem():
        raise place.error(place.name(problem))
    return array


def with_sizes(
    tables: list[Table], array: SystolicArray, frequency: float, where: Where
) -> list[Table]:
    """The tables of the memories with what follows from the array. Raises TargetError."""
    names = [t.get("name") for t in tables]
    if missing := [m for m in MEMORIES if m not in names]:
        raise where.error(
            f"storage has no {', '.join(missing)}",
            f"a machine with an array has the memories {', '.join(MEMORIES)}",
        )
    found = []
    for i, table in enumerate(tables):
        place = Where(where.file, f"storage[{i}]")
        if table.get("name") not in MEMORIES:
            what = f"a machine with an array has the memories {', '.join(MEMORIES)} alone"
            raise place.error(f"{place.name('name')}: '{table.get('name')}' is none of its", what)
        if stated := [name for name in _DERIVED if name in table]:
            raise place.error(f"{place.name(stated[0])} follows from the array: leave it out")
        found.append(table | sizes_of(table["name"], array, frequency))
    return found


def with_energies(
    operations: Mapping[str, Operation], tables: list[Table], where: Where
) -> dict[str, Operation]:
    """The operations of an array with the energies that a file states. Raises TargetError."""
    found = dict(operations)
    for i, table in enumerate(tables):
        place = Where(where.file, f"operation[{i}]")
        if stated := [name for name in table if name not in _OPERATION]:
            what = f"{place.name(stated[0])} is the same for all machines with an array"
            raise place.error(f"{what}: leave it out")
        values = read(table, _OPERATION, place)
        if (name := values["name"]) not in operations:
            help = nearest(name, operations, "operations of an array")
            raise place.error(f"{place.name('name')}: there is no operation '{name}'", help)
        found[name] = replace(found[name], energy=values["energy"])
    return found


def with_counts(tables: list[Table], array: SystolicArray, where: Where) -> list[Table]:
    """The tables of the fan-out with what follows from the array. Raises TargetError."""
    counts = counts_of(array)
    found: list[Table] = []
    for i, table in enumerate(tables):
        place = Where(where.file, f"spatial[{i}]")
        if table.get("name") not in counts:
            what = f"the fan-out of an array is {' and '.join(counts)}"
            raise place.error(f"{place.name('name')}: '{table.get('name')}' is none of its", what)
        if "count" in table:
            raise place.error(f"{place.name('count')} follows from the array: leave it out")
        if table["name"] in [t["name"] for t in found]:
            raise place.error(f"{place.name('name')}: '{table['name']}' is there twice")
        found.append(table | {"count": counts[table["name"]]})
    return found


def counts_of(array: SystolicArray) -> dict[str, int]:
    """How many cells an array has along each of its sides, by the name of the fan-out."""
    return {"rows": array.rows, "columns": array.columns}


def sizes_of(memory: str, array: SystolicArray, frequency: float) -> Table:
    """What a memory's record has to say because of the array."""
    read_cycle, write_cycle = {
        HOST: (array.host_bytes_per_second / frequency,) * 2,
        WEIGHT_MEMORY: (array.weight_bytes_per_second / frequency, 0.0),
        WEIGHT_FIFO: (float(array.columns), array.weight_bytes_per_second / frequency),
        UNIFIED_BUFFER: (float(array.rows),) * 2,
    }.get(memory, (4.0 * array.columns,) * 2)
    return {
        "bytes": array.bytes_of(memory),
        "managed": True,
        "line_bytes": array.rows if memory == UNIFIED_BUFFER else 1,
        "read_bytes_per_cycle": read_cycle,
        "write_bytes_per_cycle": write_cycle,
    }
