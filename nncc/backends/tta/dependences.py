"""What the operations of a block need of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nncc.backends.tta.code import Kind, Op, Register
from nncc.backends.tta.model import Model


@dataclass(frozen=True)
class Need:
    """Where an input comes from: operation `producer` of `distance` rounds ago; -1: from before."""

    producer: int
    distance: int
    register: Register


class Block:
    """Operations with physical registers, and what they depend on.

    Args:
        keeps: for each operation whether code behind the block reads its result.
        free: by kind, registers that hold nothing across the block: in a loop, results that are
            used in their round only may be in any of them.

    Attributes:
        rooms: for each operation the registers that its result may be in, if there is a choice.
    """

    def __init__(
        self, ops: list[Op], keeps: list[bool], model: Model, *, is_loop: bool,
        free: Mapping[Kind, set[int]] | None = None,
    ) -> None:  # fmt: skip
        self.ops, self.keeps, self.is_loop = ops, keeps, is_loop
        count = len(ops)
        self.needs: list[list[Need | None]] = []
        self.users: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        # (before, after, cycles between their starts, rounds)
        self.order: list[tuple[int, int, int | None, int]] = []
        place: dict[tuple[str, int], int] = {}  # (kind, number) -> last writer so far
        final: dict[tuple[str, int], int] = {}
        for i, op in enumerate(ops):
            if op.result is not None:
                final[op.result.kind, op.result.index] = i
        readers: dict[tuple[str, int], list[int]] = {}
        for i, op in enumerate(ops):
            row: list[Need | None] = []
            for k, x in enumerate(op.inputs):
                if not isinstance(x, Register):
                    row.append(None)
                    continue
                key = (x.kind, x.index)
                if key in place:
                    need = Need(place[key], 0, x)
                elif is_loop and key in final:
                    need = Need(final[key], 1, x)
                else:
                    need = Need(-1, 0, x)
                if need.producer >= 0:
                    self.users[need.producer].append((i, k))
                readers.setdefault(key, []).append(i)
                row.append(need)
            self.needs.append(row)
            if op.result is not None:
                key = (op.result.kind, op.result.index)
                for reader in readers.pop(key, []):
                    if reader != i:
                        self.order.append((reader, i, None, 0))
                if key in place:
                    self.order.append((place[key], i, None, 0))
                place[key] = i
        self._memory(model)
        self.rooms: list[tuple[int, ...]] = [()] * count
        if is_loop and free is not None:
            self._choices(free)

    def _choices(self, free: Mapping[Kind, set[int]]) -> None:
        fixed: set[tuple[str, int]] = set()
        for row in self.needs:
            for need in row:
                if need is not None and (need.producer < 0 or need.distance):
                    fixed.add((need.register.kind, need.register.index))
        results = [op.result for op in self.ops]
        for result, keeps in zip(results, self.keeps, strict=True):
            if result is not None and keeps:
                fixed.add((result.kind, result.index))
        local = {(r.kind, r.index) for r in results if r is not None} - fixed
        rooms = {
            kind: tuple(sorted(
                {n for n in numbers if (kind, n) not in fixed}
                | {n for k, n in local if k == kind}
            ))
            for kind, numbers in free.items()
        }  # fmt: skip
        for i, r in enumerate(results):
            if r is not None and (r.kind, r.index) in local:
                self.rooms[i] = rooms[r.kind]

    def _memory(self, model: Model) -> None:
        kinds = [
            model.machine.operations[op.operation].kind if op.memory else "" for op in self.ops
        ]
        touching: dict[tuple[str, str], list[int]] = {}
        for i, op in enumerate(self.ops):
            if op.memory is not None and not op.memory.constant:
                touching.setdefault((op.memory.space, op.memory.region), []).append(i)
        for group in touching.values():
            if all(kinds[i] == "load" for i in group):
                continue
            for n, i in enumerate(group):
                for j in group[n + 1 :]:
                    if "store" in (kinds[i], kinds[j]):
                        self.order.append((i, j, int(kinds[i] == "store"), 0))
                if self.is_loop:
                    for j in group[: n + 1]:
                        if "store" in (kinds[i], kinds[j]):
                            self.order.append((i, j, int(kinds[i] == "store"), 1))
