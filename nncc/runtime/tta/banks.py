"""Cycles that a memory of several banks needs for the accesses of one instruction.

    extra_cycles([(0, 4), (128, 4)], space)        1: two rows of bank 0

A bank gives one row in a cycle; accesses to the same row share it. The instruction waits for the
bank with the most rows.
"""

from __future__ import annotations

from collections.abc import Iterable

from nncc.machines.tta.model import AddressSpace


def extra_cycles(accesses: Iterable[tuple[int, int]], space: AddressSpace) -> int:
    """How many cycles beyond one the accesses (address, bytes) of an instruction take."""
    if not space.banks:
        return 0
    rows: dict[int, set[int]] = {}
    for address, size in accesses:
        first, last = address // space.bank_bytes, (address + size - 1) // space.bank_bytes
        for chunk in range(first, last + 1):
            rows.setdefault(chunk % space.banks, set()).add(chunk // space.banks)
    return max((len(r) for r in rows.values()), default=1) - 1
