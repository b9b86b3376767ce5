"""Machines with other sizes than those of a file.

tiny = resized(load("tpu"), rows=4, columns=3, unified_bytes=4 * 64, accumulator_rows=16)
"""

from __future__ import annotations

from dataclasses import asdict, replace

from nncc.diagnostics import TargetError
from nncc.machines.machine import Machine
from nncc.machines.systolic.model import SystolicArray
from nncc.machines.systolic.tables import counts_of, sizes_of


def array_of(machine: Machine) -> SystolicArray:
    """The array of a machine that has one. Raises TargetError."""
    if machine.array is None:
        raise TargetError(f"machine '{machine.name}' has no systolic array")
    return machine.array


def resized(machine: Machine, **changes: int) -> Machine:
    """The machine with other fields of its array, its memories and fan-out accordingly.

    Raises TargetError if no program could address them.
    """
    array = replace(array_of(machine), **changes)
    if problem := array.problem():
        raise TargetError(f"array.{problem}")
    storage = tuple(
        replace(s, **sizes_of(s.name, array, machine.frequency_hz)) for s in machine.storage
    )
    spatial = tuple(replace(s, count=counts_of(array)[s.name]) for s in machine.spatial)
    suffix, text = machine.file
    text = _with_array(text, array)
    return replace(
        machine, array=array, storage=storage, spatial=spatial, vector_bytes=array.rows,
        file=(suffix if text else "", text),
    )  # fmt: skip


def _with_array(text: str, array: SystolicArray) -> str:
    """A machine file with other values in its table of the array; "" if that is not found."""
    before, head, after = text.partition("\n[array]\n")
    _, bracket, rest = after.partition("\n[")
    if not head or not bracket:
        return ""
    values = "".join(f"{name} = {value}\n" for name, value in asdict(array).items())
    return f"{before}{head}{values}{bracket}{rest}"
