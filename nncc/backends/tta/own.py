"""Accesses that no tensor asks for: literal vectors, vectors kept in memory, spilled registers.

What tensors ask for follows from the Loops; this is what the code generator added.
"""

from __future__ import annotations

from collections.abc import Mapping

from nncc.backends.tta.code import Branch, Item, Loop, Op
from nncc.machines.machine import Machine

Own = dict[str, dict[str, tuple[int, int]]]  # source → memory → bytes read and written


def own_traffic(items: list[Item], tensors: frozenset[str], machine: Machine) -> Own:
    """The bytes of one run, by source. Of a branch, the longer side counts.

    Args:
        tensors: the names of their regions.
    """
    found: Own = {}
    _count(items, 1, tensors, machine, found)
    return found


def _count(
    items: list[Item], times: int, tensors: frozenset[str], machine: Machine, found: Own
) -> None:
    for item in items:
        if isinstance(item, Op):
            if item.memory is None or item.memory.region in tensors:
                continue
            record = machine.operations[item.operation]
            assert record.memory is not None
            size = times * record.memory.bits // 8
            read, written = (size, 0) if record.kind == "load" else (0, size)
            own = found.setdefault(item.source, {})
            old = own.get(item.memory.space, (0, 0))
            own[item.memory.space] = old[0] + read, old[1] + written
        elif isinstance(item, Loop):
            trips = item.trips if isinstance(item.trips, int) else 1
            _count(item.body, times * trips, tensors, machine, found)
        else:
            assert isinstance(item, Branch)
            sides: list[Own] = [{}, {}]
            for body, side in zip((item.then, item.otherwise), sides, strict=True):
                _count(body, times, tensors, machine, side)
            _add(max(sides, key=_total), found)


def _total(own: Mapping[str, Mapping[str, tuple[int, int]]]) -> int:
    return sum(sum(pair) for by in own.values() for pair in by.values())


def _add(more: Mapping[str, Mapping[str, tuple[int, int]]], found: Own) -> None:
    for source, memories in more.items():
        own = found.setdefault(source, {})
        for memory, (read, written) in memories.items():
            old = own.get(memory, (0, 0))
            own[memory] = old[0] + read, old[1] + written
