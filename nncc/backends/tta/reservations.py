"""What moves take in each cycle: buses, ports of register files, registers.

With an initiation interval `ii` the block is the body of a loop whose rounds start every `ii`
cycles: what is taken in cycle c is taken in c + k*ii for all k. Whatever is taken can be given
back: changes stand in a log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nncc.backends.tta.code import Register
from nncc.backends.tta.model import Model, ports_match

Source = tuple[Any, ...]  # ("port", unit, port) | ("reg", file, number) | ("imm", value)
Target = tuple[Any, ...]  # ("port", unit, port, operation) | ("reg", file, number)
Name = tuple[Any, ...]  # ("in", operation, operand) | ("out", operation) | ("ahead", unit, port)


@dataclass(frozen=True)
class Transport:
    """A move in a cycle of the block.

    Args:
        first: in loops, where the value comes from in the first round (None: from `source`).
        once: in loops, whether it happens only before the first round, or after the last one.
    """

    cycle: int
    bus: str
    source: Source
    target: Target
    first: Source | None = None
    once: str = ""


class Reservations:
    """What is taken. `moves` by their names."""

    def __init__(self, model: Model, ii: int = 0) -> None:
        self.model, self.ii = model, ii
        self.moves: dict[Name, Transport] = {}
        self.written: dict[int, int] = {}  # operation -> cycle in which its register is written
        self._taken: dict[Name, Any] = {}
        self._log: list[tuple[dict[Any, Any], Any, Any]] = []
        self._reads: dict[tuple[str, int], tuple[tuple[int, int], ...]] = {}
        self._writes: dict[tuple[str, int], tuple[tuple[int, int], ...]] = {}
        self.buses = [b.name for b in model.a.buses]

    # -- transactions --------------------------------------------------------------------------
    def _set(self, table: dict[Any, Any], key: object, value: object) -> None:
        self._log.append((table, key, table.get(key)))
        table[key] = value

    def _undo(self, mark: int) -> None:
        while len(self._log) > mark:
            table, key, old = self._log.pop()
            if old is None:
                del table[key]
            else:
                table[key] = old

    def _drop(self, table: dict[Any, Any], key: object) -> None:
        self._log.append((table, key, table[key]))
        del table[key]

    def slot(self, cycle: int) -> int:
        return cycle % self.ii if self.ii else cycle

    def _attempt(self, do: Callable[[], bool]) -> bool:
        mark = len(self._log)
        if do():
            return True
        self._undo(mark)
        return False

    # -- time ----------------------------------------------------------------------------------
    def _all_taken(self, t: int) -> bool:
        s = self.slot(t)
        return all(("bus", s, b) in self._taken for b in self.buses)

    def _disjoint(self, one: Source, others: Source) -> bool:
        return all(self._apart(one[0], one[1], o[0], o[1]) for o in others)

    def _apart(self, a: int, b: int, c: int, d: int) -> bool:
        """Whether the cycles a..b and c..d have none in common, in any round."""
        if not self.ii:
            return b < c or d < a
        if b - a >= self.ii or d - c >= self.ii:
            return False
        return (c - a) % self.ii > b - a and (a - c) % self.ii > d - c

    # -- registers -----------------------------------------------------------------------------
    def _wrote(self, r: Register, d: int, w: int) -> None:
        key = (r.kind, r.index)
        self._set(self._writes, key, (*self._writes.get(key, ()), (d, w)))
        self._set(self.written, d, w)

    def _read(self, r: Register, d: int, time: int) -> None:
        key = (r.kind, r.index)
        self._set(self._reads, key, (*self._reads.get(key, ()), (d, time)))

    def _may_write(self, r: Register, d: int, w: int) -> bool:
        key = (r.kind, r.index)
        for e, c in self._reads.get(key, ()):  # reads of what e wrote
            if not self._keeps_order(e, c, d, w):
                return False
        for e, other in self._writes.get(key, ()):
            if not self._in_order(e, other, d, w):
                return False
        return not self.ii or all(
            self._keeps_order(d, c, e, x)
            for e, x in self._writes.get(key, ())
            for f, c in self._reads.get(key, ())
            if f == d
        )

    def _may_read(self, r: Register, d: int, time: int) -> bool:
        return all(
            self._keeps_order(d, time, e, w) for e, w in self._writes.get((r.kind, r.index), ())
        )

    def _keeps_order(self, e: int, c: int, d: int, w: int) -> bool:
        """Whether d's write in w leaves what e wrote alone until it is read in c."""
        if e < 0:
            return w >= c
        if d > e:
            return w >= c
        return not self.ii or w + self.ii >= c

    def _in_order(self, e: int, x: int, d: int, w: int) -> bool:
        """Whether writes of one register come in the order of the program."""
        if e == d:
            return True
        a, b = (x, w) if e < d else (w, x)
        return a < b and (not self.ii or b < a + self.ii)

    # -- buses ---------------------------------------------------------------------------------
    def _move(
        self, name: Name, c: int, source: Source, target: Target, first: Source | None = None
    ) -> bool:
        """Takes a bus, and ports of register files, for a move."""
        s = self.slot(c)
        for bus in self._buses(source, target):
            if ("bus", s, bus) in self._taken:
                continue
            mark = len(self._log)
            self._set(self._taken, ("bus", s, bus), name)
            if (
                self._file_port("read", s, source, bus)
                and (first is None or self._file_port("read", s, first, bus))
                and self._file_port("write", s, target, bus)
                and (first is None or bus in self._buses(first, target))
            ):
                self._set(self.moves, name, Transport(c, bus, source, target, first))
                return True
            self._undo(mark)
        return False

    def _buses(self, source: Source, target: Target) -> Iterator[str]:
        m = self.model
        if target[0] == "port":
            into: set[str] = set(m.into[target[1], target[2]])
        else:
            into = {b for buses in m.writers[target[1]] for b in buses}
        if source[0] == "imm":
            found = {b for b in into if m.spelled(source[1], b) is not None}
        elif source[0] == "port":
            found = into & set(m.out_of[source[1], source[2]])
        else:
            found = into & {b for buses in m.readers[source[1]] for b in buses}
        return (b for b in self.buses if b in found)

    def _file_port(self, way: str, s: int, place: Source, bus: str) -> bool:
        if place[0] != "reg":
            return True
        _, file, number = place
        m = self.model
        is_read = way == "read"
        ports = m.readers[file] if is_read else m.writers[file]
        most = m.most_reads[file] if is_read else m.most_writes[file]
        key = (way, s, file)
        taken: tuple[tuple[int, str], ...] = self._taken.get(key, ())
        if (number, bus) in taken:
            return True
        wanted = (*taken, (number, bus))
        if is_read:
            if len({n for n, _ in wanted}) > most:
                return False
        elif len(wanted) > most or number in {n for n, _ in taken}:
            return False
        if not ports_match(ports, wanted, is_read):
            return False
        self._set(self._taken, key, wanted)
        return True
