"""Operations of one block placed in cycles, with the moves that carry their operands and results.

A `Placement` holds what is taken in each cycle: buses, ports of units and register files, what
stands at ports and in registers and for how long. `place` tries an operation at a cycle: all moves
to and from operations that have their places are made, or none. A value goes from the port where
it appears directly to where it is used (bypassing) if it still stands there, otherwise through its
register, which is written only then, or because code behind the block reads it.

With an initiation interval `ii` the block is the body of a loop whose rounds start every `ii`
cycles: what is taken in cycle c is taken in c + k*ii for all k.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial

from nncc.backends.tta.code import COPY, GUARD, LITERAL, Op
from nncc.backends.tta.dependences import Block
from nncc.backends.tta.model import NO_UNIT, Model, Site
from nncc.backends.tta.reservations import Name, Reservations, Source, Target, Transport

WINDOW = 24  # cycles that an operand may be moved before its operation starts


class Placement(Reservations):
    """Where operations of a block are, and everything that is taken by that."""

    def __init__(self, block: Block, model: Model, ii: int = 0, share: bool = True) -> None:
        super().__init__(model, ii)
        self.block = block
        self.start: dict[int, int] = {}
        self.site: dict[int, Site] = {}
        self.arrival: dict[int, int] = {}
        self.templates: dict[int, tuple[str, str, int, int]] = {}  # by operation
        self.scarce: set[int] = set()  # operations for all of whose operands buses are kept
        self._held: dict[tuple[int, int], Name] = {}
        self._results: dict[tuple[str, str], tuple[tuple[int, int, int], ...]] = {}
        self._ports: dict[tuple[str, str], tuple[tuple[int, int, object], ...]] = {}
        self._lasting = self._lasting_values() if ii and share else defaultdict(set)

    def _lasting_values(self) -> dict[tuple[str, str], set[object]]:
        """For each operand port the values that may stand there through a whole loop.

        Of units that can do the same, one stays free for everything else.
        """
        counts: dict[frozenset[tuple[str, str]], Counter[object]] = {}
        for i, op in enumerate(self.block.ops):
            if op.operation in NO_UNIT:
                continue
            sites = self.model.sites_of(op)
            for k in range(len(op.inputs)):
                if k != sites[0].trigger:
                    ports = frozenset((s.unit, s.ports[k]) for s in sites)
                    value = self._value(i, k) if self._is_fixed(i, k) else ("changes",)
                    counts.setdefault(ports, Counter())[value] += 1
        found: dict[tuple[str, str], set[object]] = defaultdict(set)
        for ports, values in counts.items():
            room = len(ports) if len(values) <= len(ports) else len(ports) - 1
            for other, more in counts.items():  # ports that other operations use too
                if other is not ports and other & ports and set(more) != set(values):
                    room = 0
            best = [v for v, _ in values.most_common() if v != ("changes",)]
            if ("changes",) in values:
                room = min(room, len(ports) - 1)
            for port in ports:
                found[port] |= set(best[:room])
        return found

    def place(self, i: int, t: int) -> bool:
        """Puts operation i at cycle t if possible, on the unit that takes the fewest moves."""
        if self._all_taken(t):
            return False
        op = self.block.ops[i]
        if op.operation == COPY:
            return self._attempt(partial(self._copy, i, t))
        if op.operation == GUARD:
            return self._attempt(partial(self._guard, i, t))
        if op.operation == LITERAL:
            return any(
                self._attempt(partial(self._literal, i, t, n))
                for n in range(self._registers_of_literals())
            )
        sites = sorted(self.model.sites_of(op), key=lambda s: self._cost(op, s, t))
        return any(self._attempt(partial(self._operation, i, t, s)) for s in sites)

    def _cost(self, op: Op, site: Site, t: int) -> int:
        """Fewer for a unit whose operands stand there already, and for one used less."""
        cost = 0
        for k, x in enumerate(op.inputs):
            if k != site.trigger and isinstance(x, int):
                held = self._ports.get((site.unit, site.ports[k]), ())
                values = {v for _, _, v in held}
                cost += 0 if values == {("i", x)} else 4 if not values else 8
        return cost

    def _registers_of_literals(self) -> int:
        sizes = [u.size for u in self.model.a.immediates]
        return max(1, sizes[0] - 1) if sizes else 0

    def _copy(self, i: int, t: int) -> bool:
        op = self.block.ops[i]
        assert op.result is not None
        self._set(self.start, i, t)
        file = self.model.files[op.result.kind].name
        target = ("reg", file, op.result.index)
        if not self._may_write(op.result, i, t):
            return False
        if self._open(i, 0):
            return False
        if not self._route(i, 0, t, target):
            return False
        self._wrote(op.result, i, t)
        return self._serve_users(i)

    def _guard(self, i: int, t: int) -> bool:
        """The lowest bit of a word goes to the register that guards a jump."""
        self._set(self.start, i, t)
        _, file, number = self.block.ops[i].inputs
        return self._route(i, 0, t, ("reg", file, number))

    def _literal(self, i: int, t: int, number: int) -> bool:
        op = self.block.ops[i]
        value = op.inputs[0]
        assert isinstance(value, int)
        found = self.model.template(value)
        if found is None:
            return False
        name, unit, spelled = found
        s = self.slot(t)
        if ("template", s) in self._taken:
            return False
        slots = [b for b in self.model.a.template[name].slots if b in self.model.a.bus]
        if any(("bus", s, b) in self._taken for b in slots):
            return False
        self._set(self._taken, ("template", s), i)
        for b in slots:
            self._set(self._taken, ("bus", s, b), i)
        self._set(self.templates, i, (name, unit, number, spelled))
        self._set(self.start, i, t)
        return self._result(i, (unit, f"#{number}"), t + 1) and self._serve_users(i)

    def _operation(self, i: int, t: int, site: Site) -> bool:
        trigger = ("trigger", self.slot(t), site.unit, site.ports[site.trigger])
        if trigger in self._taken:
            return False
        self._set(self._taken, trigger, i)
        self._set(self.start, i, t)
        self._set(self.site, i, site)
        if self.ii and not self._appears(i, t, site):  # it may be an operand of the next round
            return False
        order = [site.trigger, *(k for k in range(len(site.ports)) if k != site.trigger)]
        for k in order:
            if self._open(i, k):
                if (k == site.trigger or i in self.scarce) and not self._hold(i, k, t):
                    return False
            elif not self._feed(i, k):
                return False
        if not self.ii and not self._appears(i, t, site):
            return False
        return self._serve_users(i)

    def _hold(self, i: int, k: int, t: int) -> bool:
        """Keeps a bus free for an operand whose producer has no place yet."""
        site = self.site[i]
        need = self.block.needs[i][k]
        assert need is not None
        target = ("port", site.unit, site.ports[k], "")
        source = ("reg", self.model.files[need.register.kind].name, need.register.index)
        s = self.slot(t)
        for bus in self._buses(source, target):
            if ("bus", s, bus) not in self._taken:
                self._set(self._taken, ("bus", s, bus), ("held", i, k))
                self._set(self._held, (i, k), ("bus", s, bus))
                return True
        return False

    def _appears(self, i: int, t: int, site: Site) -> bool:
        return not site.output or self._result(i, (site.unit, site.output), t + site.latency)

    def _open(self, i: int, k: int) -> bool:
        """Whether an operand's producer has no place yet."""
        need = self.block.needs[i][k]
        return need is not None and need.producer >= 0 and need.producer not in self.start

    def _serve_users(self, i: int) -> bool:
        """Routes the result to users that have their place already (in loops)."""
        for u, k in self.block.users[i]:
            waits = u in self.start and ("in", u, k) not in self.moves
            if waits and (self.block.ops[u].operation == COPY or not self._feed(u, k)):
                return False
        if self.ii and self.block.keeps[i] and i not in self.written and i in self.arrival:
            return any(
                self._attempt(partial(self._write, i, w))
                for w in range(self.arrival[i], self.arrival[i] + self.ii)
            )
        return True

    def _feed(self, i: int, k: int) -> bool:
        """Moves input k of operation i to its port, at its start or, if it may wait, before."""
        if (i, k) in self._held:
            self._drop(self._taken, self._held[i, k])
            self._drop(self._held, (i, k))
        site, t = self.site[i], self.start[i]
        name = site.operation if k == site.trigger else ""
        target = ("port", site.unit, site.ports[k], name)
        if k == site.trigger:
            return self._route(i, k, t, target)
        value = self._value(i, k)
        key = (site.unit, site.ports[k])
        held = self._ports.get(key, ())
        lasting = self.ii and self._is_fixed(i, k) and value in self._lasting[key]
        if lasting and all(v == value for _, _, v in held):
            self._set(self._ports, key, ((0, -1, value),))  # forever
            self._set(self.moves, ("in", i, k), Transport(-1, "", ("shared",), target))
            if ("ahead", *key) not in self.moves:
                ahead = Transport(0, "", self._from_before(i, k), target, once="before")
                self._set(self.moves, ("ahead", *key), ahead)
            return True
        if any(last < begin for begin, last, _ in held):
            return False  # held forever by another value
        for n, (begin, last, v) in enumerate(held):
            if v == value and begin <= t:
                longer = (begin, max(last, t), v)
                others = (*held[:n], *held[n + 1 :])
                if self._disjoint(longer, others):
                    self._set(self._ports, key, (*others, longer))
                    self._set(self.moves, ("in", i, k), Transport(-1, "", ("shared",), target))
                    return True
        earliest = t - min(WINDOW, self.ii - 1) if self.ii else max(0, t - WINDOW)
        for c in range(t, earliest - 1, -1):
            if not self._disjoint((c, t, value), held):
                continue
            if self._attempt(partial(self._route, i, k, c, target)):
                self._set(self._ports, key, (*held, (c, t, value)))
                return True
        return False

    def _value(self, i: int, k: int) -> object:
        x = self.block.ops[i].inputs[k]
        if isinstance(x, int):
            return ("i", x)
        need = self.block.needs[i][k]
        assert need is not None
        if need.producer < 0:
            return ("r", need.register.kind, need.register.index)
        return ("v", need.producer, need.distance)

    def _is_fixed(self, i: int, k: int) -> bool:
        """Whether an input is the same in every round."""
        need = self.block.needs[i][k]
        return need is None or need.producer < 0

    def _from_before(self, i: int, k: int) -> Source:
        x = self.block.ops[i].inputs[k]
        if isinstance(x, int):
            return ("imm", x)
        return ("reg", self.model.files[x.kind].name, x.index)

    def _route(self, i: int, k: int, c: int, target: Target) -> bool:
        """Moves input k of operation i to a place in cycle c."""
        x = self.block.ops[i].inputs[k]
        name = ("in", i, k)
        if isinstance(x, int):
            return self._move(name, c, ("imm", x), target)
        need = self.block.needs[i][k]
        assert need is not None
        register = ("reg", self.model.files[x.kind].name, x.index)
        if need.producer < 0:
            if not self._may_read(x, -1, c):
                return False
            self._read(x, -1, c)
            return self._move(name, c, register, target)
        d = need.producer
        time = c + need.distance * self.ii
        first = register if need.distance else None
        if first is not None:
            if not self._may_read(x, -1, c):
                return False
            self._read(x, -1, c)
        if d in self.arrival and self._attempt(
            partial(self._bypass, name, d, time, c, target, first)
        ):
            return True
        if d not in self.written:
            if d not in self.arrival:
                return False
            for w in range(self.arrival[d], time):
                if self._attempt(partial(self._write, d, w)):
                    break
            else:
                return False
        if time <= self.written[d] or not self._may_read(x, d, time):
            return False
        self._read(x, d, time)
        return self._move(name, c, register, target)

    def _bypass(
        self, name: Name, d: int, time: int, c: int, target: Target, first: Source | None
    ) -> bool:
        if time < self.arrival[d] or not self._lasts(d, time):
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
        key = self._key_of(d)
        held = self._results[key]
        mine = next(r for r in held if r[2] == d)
        if time <= mine[1]:
            return True
        longer = (mine[0], time, d)
        others = tuple(r for r in held if r[2] != d)
        if (self.ii and time - mine[0] >= self.ii) or not self._disjoint(longer, others):
            return False
        self._set(self._results, key, (*others, longer))
        return True

    def _result(self, i: int, key: tuple[str, str], arrival: int) -> bool:
        """The result of i appears at a port; what stood there is written to its register before."""
        self._set(self.arrival, i, arrival)
        held = self._results.get(key, ())
        mine = (arrival, arrival, i)
        if not self._disjoint(mine, held):
            return False
        self._set(self._results, key, (*held, mine))
        if self.ii:
            return True
        for begin, _, e in held:
            if begin < arrival and self._pending(e) and not self._settle(e, arrival - 1):
                return False
        later = [begin for begin, _, _ in held if begin > arrival]
        return not later or not self._pending(i) or self._settle(i, min(later) - 1)

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
        if not self._may_write(result, d, w) or not self._lasts(d, w):
            return False
        target = ("reg", self.model.files[result.kind].name, result.index)
        if not self._move(("out", d), w, self._port_of(d), target):
            return False
        self._wrote(result, d, w)
        return True
