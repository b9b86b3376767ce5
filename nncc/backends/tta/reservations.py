"""What moves take in each cycle: buses, ports of register files, registers.

With an initiation interval `ii` the block is the body of a loop whose rounds start every `ii`
cycles: what is taken in cycle c is taken in c + k*ii for all k. Whatever is taken can be given
back: changes stand in a log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nncc.backends.tta.code import Register
from nncc.backends.tta.model import Model, ports_match

FAR = 1 << 30  # cycles: longer than any block

Source = tuple[Any, ...]  # ("port", unit, port) | ("reg", file, number) | ("imm", value)
Target = tuple[Any, ...]  # ("port", unit, port, operation) | ("reg", file, number)
Name = tuple[Any, ...]  # ("in", operation, operand) | ("out", operation) | ("ahead", unit, port)
Place = tuple[str, str] | tuple[str, int]  # a port of a unit, or a register by kind and number


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
        self._busy: dict[int, int] = {}  # buses that are taken, as bits
        self._standing: dict[Place, int] = {}  # cycles in which they hold something

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
        return self._busy.get(self.slot(t)) == self.model.all_buses

    def _span(self, a: int, b: int) -> int:
        """The cycles a..b (at most `ii` of them) as bits: of a round, or of the block."""
        bits = (1 << b - a + 1) - 1
        if not self.ii:
            return bits << a
        bits <<= a % self.ii
        return (bits | bits >> self.ii) & (1 << self.ii) - 1

    def _occupy(self, port: Place, a: int, b: int) -> bool:
        """Takes a port for what stands there in the cycles a..b, if nothing else does then."""
        if self.ii and b - a >= self.ii:
            return False
        bits = self._span(a, b)
        taken = self._standing.get(port, 0)
        if taken & bits:
            return False
        self._set(self._standing, port, taken | bits)
        return True

    def is_empty(self, port: Place, a: int, b: int) -> bool:
        """Whether nothing stands at a port in the cycles a..b."""
        return not self._standing.get(port, 0) & self._span(a, b)

    def _room(self, place: Place, a: int) -> int:
        """The number of cycles from cycle a on in which nothing stands at a place."""
        taken = self._standing.get(place, 0)
        if self.ii:
            a %= self.ii
            taken = taken >> a | taken << self.ii - a
            return (taken & -taken).bit_length() - 1 if taken else self.ii
        taken >>= a
        return (taken & -taken).bit_length() - 1 if taken else FAR

    def _longer(self, port: Place, begin: int, last: int, time: int) -> bool:
        """Lets what stands at a port in the cycles begin..last stand there until `time`."""
        return time <= last or (
            not (self.ii and time - begin >= self.ii) and self._occupy(port, last + 1, time)
        )

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
    def is_free(self, t: int, bus: str) -> bool:
        """Whether a bus carries nothing in cycle t."""
        return not self._busy.get(self.slot(t), 0) & self.model.bit[bus]

    def take(self, t: int, buses: int) -> bool:
        """Takes all of a set of buses in cycle t, if they are free."""
        s = self.slot(t)
        busy = self._busy.get(s, 0)
        if busy & buses:
            return False
        self._set(self._busy, s, busy | buses)
        return True

    def give(self, t: int, buses: int) -> None:
        """Gives back what was taken."""
        s = self.slot(t)
        self._set(self._busy, s, self._busy.get(s, 0) & ~buses)

    def _move(
        self, name: Name, c: int, source: Source, target: Target, first: Source | None = None
    ) -> bool:
        """Takes a bus, and ports of register files, for a move."""
        m = self.model
        s = self.slot(c)
        reached = m.reach(source, target)
        if first is not None:
            reached &= m.reach(first, target)
        free = reached & ~self._busy.get(s, 0)
        while free:
            bit = free & -free
            free ^= bit
            bus = m.buses[bit.bit_length() - 1]
            mark = len(self._log)
            if (
                self._file_port("read", s, source, bus)
                and (first is None or self._file_port("read", s, first, bus))
                and self._file_port("write", s, target, bus)
            ):
                self._set(self._busy, s, self._busy.get(s, 0) | bit)
                self._set(self.moves, name, Transport(c, bus, source, target, first))
                return True
            self._undo(mark)
        return False

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
