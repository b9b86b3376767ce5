"""Machine files and the machines in them.

    load("cpu")                       the CPU of this computer, in the widest variant that it has
    load("cpu-avx2")                  the same, held to a variant
    load("machines/mine.toml")        a file of one's own
    load("cpu", features={"avx2", "fma"})     for another computer

A machine file is TOML; `nncc/machines/cpu.toml` and `example_npu.toml` are examples. Fields and
their meaning are those of `nncc.machines.machine`; besides, a storage may `detect` its size on
the host, an operation may stand for several numbers of `lanes`, and a file may have variants.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from nncc.diagnostics import Location, TargetError, nearest
from nncc.ir.types import DTYPES
from nncc.machines import description, host
from nncc.machines.fields import Field, Where, read
from nncc.machines.machine import Machine, Operation, Storage
from nncc.machines.systolic.tables import (
    systolic_array,
    with_counts,
    with_energies,
    with_sizes,
)
from nncc.machines.tta import tables
from nncc.machines.tta.model import Architecture

_FOLDER = Path(__file__).parent

_MACHINE = {
    "format": Field(int, minimum=1),
    "name": Field(str),
    "doc": Field(str, ""),
    "backend": Field(str),
    "pipeline": Field(str),
    "frequency_hz": Field(float, minimum=1),
    "vector_bytes": Field(int, 0, minimum=1),
    "vector_registers": Field(int, 0, minimum=1),
    "storage": Field("tables"),
    "spatial": Field("tables", []),
    "link": Field("tables", []),
    "operation": Field("tables", []),
    "variant": Field("tables", []),
    "supports": Field("tables", []),
    "architecture": Field(dict, {}),
    "array": Field(dict, {}),
}
_SUPPORTS = {"op": Field(str), "dtypes": Field(list, allowed=tuple(DTYPES))}
_VARIANT = {
    "name": Field(str),
    "vector_bytes": Field(int, minimum=1),
    "vector_registers": Field(int, minimum=1),
    "needs": Field(list, ()),
    "drops": Field(list, ()),
}
FORMAT = 1


def load(name_or_path: str | Path, features: Iterable[str] | None = None) -> Machine:
    """The machine of that name, or in that file (a path that ends in `.toml` or `.adf`).

    An architecture file of OpenASIP (`.adf`) gives what `tta_minimal` has with another
    architecture: no energies, memories without banks.

    Args:
        features: what the machine has, in LLVM's names; None: what this computer states.

    Raises TargetError if there is none, or if its file or variant does not fit.
    """
    path, variant = _find(str(name_or_path))
    if path.suffix == ".adf":
        return _load_adf(path, _stamp(path))
    chosen = None if features is None else frozenset(features)
    return _load(path, _stamp(path), variant, chosen)


@cache
def _load(path: Path, stamp: int, variant: str, features: frozenset[str] | None) -> Machine:
    where = Where(str(path))
    values = read(_read_file(path, stamp), _MACHINE, where)
    if values["format"] != FORMAT:
        raise where.error(f"format is {values['format']}; this nncc reads format {FORMAT}")
    if features is None:  # a machine without variants is not the host
        features = host.features() if values["variant"] else frozenset()
    machine = _machine(values, variant, features, where)
    return replace(machine, file=(path.suffix, path.read_text(encoding="utf-8")))


def list_machines() -> tuple[str, ...]:
    """The names that `load` takes, each family followed by its variants."""
    return tuple(
        name
        for path in sorted(_FOLDER.glob("*.toml"))
        for name in (path.stem, *(f"{path.stem}-{v}" for v in _variants(path)))
    )


def _variants(path: Path) -> tuple[str, ...]:
    return tuple(v["name"] for v in _read_file(path, _stamp(path)).get("variant", ()))


def _find(name: str) -> tuple[Path, str]:
    """The file of a machine and the variant that the name asks for ("": the best)."""
    if name.endswith((".toml", ".adf")):
        if not Path(name).is_file():
            raise TargetError(f"there is no machine file {name}", Location(file=name))
        return Path(name), ""
    if name not in list_machines():
        help = nearest(name, list_machines(), "targets")
        raise TargetError(f"unknown target '{name}'", help=help)
    family, _, variant = name.partition("-")
    return _FOLDER / f"{family}.toml", variant


def _stamp(path: Path) -> int:
    """Changes with the file: what was read of it is kept for as long as it stays the same."""
    return path.stat().st_mtime_ns


@cache
def _read_file(path: Path, stamp: int) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise TargetError(f"cannot read the machine file: {error}", Location(str(path))) from error


def _machine(
    values: dict[str, Any], variant_name: str, features: frozenset[str], where: Where
) -> Machine:
    variant = ""
    if values["variant"]:
        chosen = _variant(values["variant"], variant_name, features, where)
        features = frozenset(f for f in features if not f.startswith(chosen["drops"]))
        values |= {k: chosen[k] for k in ("vector_bytes", "vector_registers")}
        variant = chosen["name"]
    array = None
    if values["array"]:
        array = systolic_array(values["array"], where)
        values["storage"] = with_sizes(values["storage"], array, values["frequency_hz"], where)
        values["spatial"] = with_counts(values["spatial"], array, where)
        values |= {"vector_bytes": array.rows, "vector_registers": 1}
    for name in ("vector_bytes", "vector_registers"):
        if not values[name]:
            raise where.error(f"{name} is missing: the machine has no variants that state it")
    registers = values["vector_bytes"] * values["vector_registers"]
    storage = description.storages(values["storage"], registers, where)
    moves = values["architecture"]
    operations = (
        description.operations(values["operation"], features, where, moved=bool(moves))
        if array is None
        else with_energies(systolic_operations(), values["operation"], where)
    )
    architecture = None
    if moves:
        known = base_operations() | operations
        architecture = tables.architecture(moves, known, where)
        for m in architecture.memories:
            for s in storage:
                if s.name == m.name and s.bytes != m.size:
                    what = f"{s.bytes}; architecture.space {m.name} has {m.size}"
                    raise where.error(f"storage {s.name}.bytes: {what}")
        operations = used_operations(architecture, known)
    return Machine(
        name=values["name"],
        backend=values["backend"],
        pipeline=values["pipeline"],
        storage=storage,
        vector_bytes=values["vector_bytes"],
        vector_registers=values["vector_registers"],
        frequency_hz=values["frequency_hz"],
        operations=operations,
        features=features,
        variant=variant,
        doc=values["doc"],
        spatial=description.spatials(values["spatial"], storage, where),
        links=description.links(values["link"], storage, where),
        supports=_supports(values["supports"], where),
        architecture=architecture,
        array=array,
    )


@cache
def _load_adf(path: Path, stamp: int) -> Machine:
    from nncc.machines.tta.adf import read_adf  # the parser of XML: only when needed

    where = Where(str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise where.error(f"cannot read the machine file: {error}") from error
    known = base_operations()
    found = read_adf(text, known, where)
    pattern = load("tta_minimal")
    registers = sum(f.size for f in found.files if f.width == 8 * pattern.vector_bytes)
    outer = [Storage(m.name, m.size, managed=True) for m in found.memories]
    inner = Storage(
        "registers",
        max(1, registers) * pattern.vector_bytes,
        managed=True,
        above=outer[0].name if outer else "",
    )
    return replace(
        pattern,
        name=path.stem,
        doc=f"a transport-triggered machine of {len(found.buses)} buses, read from {path.name}",
        storage=(*outer, inner),
        vector_registers=max(1, registers),
        operations=used_operations(found, known),
        architecture=found,
        file=(path.suffix, text),
    )


@cache
def base_operations() -> dict[str, Operation]:
    """The operations that every machine with an architecture may have in its units."""
    path = _FOLDER / "tta" / "operations.toml"
    read_tables = _read_file(path, _stamp(path))["operation"]
    return description.operations(read_tables, frozenset(), Where(str(path)), moved=True)


@cache
def systolic_operations() -> dict[str, Operation]:
    """The operations of every machine with an array."""
    path = _FOLDER / "systolic" / "operations.toml"
    read_tables = _read_file(path, _stamp(path))["operation"]
    return description.operations(read_tables, frozenset(), Where(str(path)), sized=True)


def used_operations(a: Architecture, known: dict[str, Operation]) -> dict[str, Operation]:
    """The operations of an architecture's units; a file's own before the base operations."""
    used = {o.operation for unit in a.unit.values() for o in unit.operations}
    own = [n for n in known if n not in base_operations()]
    return {n: known[n] for n in (*own, *known) if n in used}


def _supports(tables: list[dict[str, Any]], where: Where) -> dict[str, tuple[str, ...]]:
    entries = [
        read(t, _SUPPORTS, Where(where.file, f"supports[{i}]")) for i, t in enumerate(tables)
    ]
    return {e["op"]: e["dtypes"] for e in entries}


def _variant(
    tables: list[dict[str, Any]], name: str, features: frozenset[str], where: Where
) -> dict[str, Any]:
    variants = [read(t, _VARIANT, Where(where.file, f"variant[{i}]")) for i, t in enumerate(tables)]
    if not name:
        fitting = [v for v in variants if features.issuperset(v["needs"])]
        if not fitting:
            reasons = "; ".join(_lacking(v, features) for v in variants)
            raise where.error(f"no variant fits: {reasons}")
        return fitting[0]
    chosen = next(v for v in variants if v["name"] == name)
    if not features.issuperset(chosen["needs"]):
        raise where.error(_lacking(chosen, features), "choose a variant that this computer has")
    return chosen


def _lacking(variant: dict[str, Any], features: frozenset[str]) -> str:
    missing = ", ".join(f for f in variant["needs"] if f not in features)
    return f"variant {variant['name']} needs {missing}"
