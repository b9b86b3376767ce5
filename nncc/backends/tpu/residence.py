"""Which tensors are in the unified buffer when, where not all of them fit.

    plan = residence(calls, sizes, room, …)
    plan.rows[k]["x"]       the first row of x in call number k
    plan.moves[k]           what goes to the host and comes from there before call number k

A tensor that is not there when a call needs it comes from the host; for its room, those leave whose
next use is far and whose rows are few to move. What the host has already is not written again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Used:
    """The tensors of a call.

    Args:
        node: of the model; `reads`, `writes`: tensors by name.
    """

    node: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """All rows of a tensor, which start at `row`, to (`write`) or from (`read`) the host."""

    direction: Literal["write", "read"]
    tensor: str
    row: int


@dataclass(frozen=True)
class Residence:
    """Where tensors are.

    Args:
        moves: before each call, and after the last one.
        rows: where each call finds its tensors.
        large: calls whose tensors do not fit all at once: these find none there, and leave the
            host what they write.
    """

    moves: tuple[tuple[Move, ...], ...]
    rows: tuple[Mapping[str, int], ...]
    large: frozenset[int] = frozenset()


def residence(
    calls: Sequence[Used], sizes: Mapping[str, int], room: int, given: frozenset[str],
    wanted: frozenset[str],
) -> Residence:  # fmt: skip
    """Plans the rows of all tensors.

    Args:
        sizes: rows of each tensor; `room`: rows that there are.
        given: tensors that the host has from the start; `wanted`: those that it gets.
    """
    planner = _Planner(calls, sizes, room, given, wanted)
    for k in range(len(calls)):
        planner.call(k)
    planner.finish()
    moves = tuple(tuple(m) for m in planner.moves)
    return Residence(moves, tuple(planner.rows), frozenset(planner.large))


@dataclass
class _Planner:
    calls: Sequence[Used]
    sizes: Mapping[str, int]
    room: int
    given: frozenset[str]
    wanted: frozenset[str]
    there: dict[str, int] = field(default_factory=dict)  # first rows
    moves: list[list[Move]] = field(default_factory=list)
    rows: list[Mapping[str, int]] = field(default_factory=list)
    large: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.copied = set(self.given)  # the host has them as they are
        self.moves = [[] for _ in range(len(self.calls) + 1)]
        self.uses: dict[str, list[int]] = {}
        for k, call in enumerate(self.calls):
            for name in call.reads:
                self.uses.setdefault(name, []).append(k)

    def call(self, k: int) -> None:
        used = self.calls[k]
        names = tuple(dict.fromkeys((*used.reads, *used.writes)))
        needed = sum(self.sizes[n] for n in names)
        if needed > self.room:
            self.clear(k)
            self.large.add(k)
            self.rows.append({})
            self.copied |= set(used.writes)
            return
        missing = [n for n in names if n not in self.there]
        for name in sorted(missing, key=lambda n: -self.sizes[n]):
            at = self.window(name, k, frozenset(names))
            if at is None:  # those that stay are in the way of each other: all anew
                self.clear(k)
                self.pack(names, k)
                break
            self.take(name, at, k)
        self.rows.append(dict(self.there))
        self.copied -= set(used.writes)
        for name in list(self.there):
            if self.next_use(name, k) is None and name not in self.wanted - self.copied:
                del self.there[name]

    def next_use(self, name: str, k: int) -> int | None:
        """The next call after number k that reads a tensor."""
        return next((j for j in self.uses.get(name, ()) if j > k), None)

    def window(self, name: str, k: int, stay: frozenset[str]) -> int | None:
        """Where a tensor goes: the rows that cost least to empty. None: there are none."""
        size = self.sizes[name]
        ends = [(row, row + self.sizes[n]) for n, row in self.there.items()]
        starts = sorted({0, *(e for _, e in ends), *(s - size for s, _ in ends)})
        best: tuple[float, int] | None = None
        for start in starts:
            if start < 0 or start + size > self.room:
                continue
            out = self.within(start, start + size)
            if not stay.isdisjoint(out):
                continue
            cost = sum(self.cost(n, k) for n in out)
            if best is None or cost < best[0]:
                best = cost, start
        return None if best is None else best[1]

    def within(self, start: int, stop: int) -> list[str]:
        return [n for n, row in self.there.items() if row < stop and start < row + self.sizes[n]]

    def cost(self, name: str, k: int) -> float:
        """Rows to move if a tensor leaves now; a little less for one that is needed late."""
        following = self.next_use(name, k - 1)
        back = 0.0 if following is None else 1.0 + 1.0 / (1 + following - k)
        return self.sizes[name] * ((name not in self.copied) + back)

    def take(self, name: str, row: int, k: int) -> None:
        """Empties the rows for a tensor, and brings it if the call reads it."""
        for other in self.within(row, row + self.sizes[name]):
            self.leave(other, k)
        self.there[name] = row
        if name in self.calls[k].reads:
            self.moves[k].append(Move("read", name, row))

    def leave(self, name: str, k: int) -> None:
        row = self.there.pop(name)
        if name not in self.copied:
            self.moves[k].append(Move("write", name, row))
            self.copied.add(name)

    def clear(self, k: int) -> None:
        """Everything to the host, also what this call has just got."""
        self.moves[k] = [m for m in self.moves[k] if m.direction == "write"]
        for name in list(self.there):
            if name in self.calls[k].writes and name not in self.calls[k].reads:
                del self.there[name]  # it has no value yet
            else:
                self.leave(name, k)

    def pack(self, names: Sequence[str], k: int) -> None:
        row = 0
        for name in names:
            self.take(name, row, k)
            row += self.sizes[name]

    def finish(self) -> None:
        """What the host wants and has not got."""
        end = len(self.calls)
        for name in sorted(self.wanted - self.copied, key=lambda n: self.there.get(n, 0)):
            self.moves[end].append(Move("write", name, self.there[name]))
