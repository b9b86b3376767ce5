"""Results of operations that are placed: how long they stand at ports, when registers get them."""

from __future__ import annotations

from functools import partial

from nncc.backends.tta.dependences import Block
from nncc.backends.tta.model import Model, Site
from nncc.backends.tta.reservations import FAR, Name, Reservations, Source, Target, Transport


class Results(Reservations):
    """Where operations and their results are.

    Attributes:
        start: the cycles of operations; `site`: their units; `templates`: of long immediates
            (template, unit, register, number); `arrival`: when their results appear.
        register: the registers of operations that have a choice.
    """

    def __init__(self, block: Block, model: Model, ii: int = 0) -> None:
        super().__init__(model, ii)
        self.block = block
        self.start: dict[int, int] = {}
        self.site: dict[int, Site] = {}
        self.arrival: dict[int, int] = {}
        self.templates: dict[int, tuple[str, str, int, int]] = {}
        self.register: dict[int, int] = {}
        # by output port, those that are still needed
        self._results: dict[tuple[str, str], tuple[int, ...]] = {}
        self._kept: dict[int, int] = {}  # the last cycle in which such a register is needed
        self._until: dict[int, int] = {}  # the last cycle in which a result stands at its port

    def _from_register(self, name: Name, d: int, time: int, c: int, target: Target) -> bool:
        """Moves a result from its register, which is written if it is not yet."""
        result = self.block.ops[d].result
        assert result is not None
        if d not in self.written and not self._settle(d, time - 1):
            return False
        number = result.index
        if time <= self.written[d]:
            return False
        if self.block.rooms[d]:
            number = self.register[d]
            room = (result.kind, number)
            if not self._longer(room, self.written[d] + 1, self._kept[d], time):
                return False
            if time > self._kept[d]:
                self._set(self._kept, d, time)
        elif self._may_read(result, d, time):
            self._read(result, d, time)
        else:
            return False
        register = ("reg", self.model.files[result.kind].name, number)
        return self._move(name, c, register, target)

    def _bypass(
        self, name: Name, d: int, time: int, c: int, target: Target, first: Source | None
    ) -> bool:
        if d not in self.arrival or time < self.arrival[d] or not self._lasts(d, time):
            return False
        return self._move(name, c, self._port_of(d), target, first)

    def _port_of(self, d: int) -> Source:
        if d in self.templates:
            _, unit, number, _ = self.templates[d]
            return ("reg", unit, number)
        site = self.site[d]
        return ("port", site.unit, site.output)

    def _key_of(self, d: int) -> tuple[str, str]:
        if d in self.templates:
            _, unit, number, _ = self.templates[d]
            return unit, f"#{number}"
        return self.site[d].unit, self.site[d].output

    def _lasts(self, d: int, time: int) -> bool:
        """Lets the result of d stand at its port until `time`."""
        last = self._until[d]
        if not self._longer(self._key_of(d), self.arrival[d], last, time):
            return False
        if time > last:
            self._set(self._until, d, time)
        return True

    def _result(self, i: int, key: tuple[str, str], arrival: int) -> bool:
        """The result of i appears at a port; what stood there is written to its register before."""
        self._set(self.arrival, i, arrival)
        if not self._occupy(key, arrival, arrival):
            return False
        self._set(self._until, i, arrival)
        if self.ii:
            return True
        held = [e for e in self._results.get(key, ()) if self._pending(e)]
        self._set(self._results, key, (*held, i))
        for e in held:
            if self.arrival[e] < arrival and not self._settle(e, arrival - 1):
                return False
        later = arrival + 1 + self._room(key, arrival + 1)
        return later > FAR or not self._pending(i) or self._settle(i, later - 1)

    def _pending(self, e: int) -> bool:
        if e in self.written:
            return False
        return self.block.keeps[e] or any(u not in self.start for u, _ in self.block.users[e])

    def _settle(self, e: int, limit: int) -> bool:
        """Writes the result of e to its register at cycle `limit` or before."""
        return any(
            self._attempt(partial(self._write, e, w)) for w in range(self.arrival[e], limit + 1)
        )

    def finish(self) -> None:
        """Writes what code behind the block reads, and drops writes that nothing needs."""
        for i, keeps in enumerate(self.block.keeps):
            if keeps and i not in self.written and i in self.arrival:
                done = self._settle(i, self.arrival[i] + (self.ii - 1 if self.ii else 1 << 16))
                assert done, "a result has no cycle in which its register can be written"
        used = set()
        for (kind, *rest), m in self.moves.items():
            if kind == "in" and m.source[0] == "reg":
                i, k = rest
                need = self.block.needs[i][k]
                if need is None or need.producer not in self.written or m.first is not None:
                    continue
                if m.source != self._maybe_port(need.producer):
                    used.add(need.producer)
        for i in list(self.written):
            if ("out", i) not in self.moves or i in used:
                continue
            if not self.block.keeps[i]:
                del self.moves["out", i]
            elif self.ii:
                m = self.moves["out", i]
                self.moves["out", i] = Transport(m.cycle, m.bus, m.source, m.target, once="after")

    def _maybe_port(self, d: int) -> Source | None:
        return self._port_of(d) if d in self.arrival else None

    def _write(self, d: int, w: int) -> bool:
        """Moves the result of d to its register in cycle w."""
        result = self.block.ops[d].result
        assert result is not None
        number = result.index
        if not self._lasts(d, w):
            return False
        if self.block.rooms[d]:
            number = max(self.block.rooms[d], key=lambda n: self._room((result.kind, n), w + 1))
            if not self._occupy((result.kind, number), w + 1, w + 1):
                return False
            self._set(self.register, d, number)
            self._set(self._kept, d, w + 1)
            self._set(self.written, d, w)
        elif self._may_write(result, d, w):
            self._wrote(result, d, w)
        else:
            return False
        target = ("reg", self.model.files[result.kind].name, number)
        return self._move(("out", d), w, self._port_of(d), target)
