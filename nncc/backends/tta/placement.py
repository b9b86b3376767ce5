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

from collections import Counter
from functools import partial

from nncc.backends.tta.code import COPY, GUARD, LITERAL, Op
from nncc.backends.tta.dependences import Block
from nncc.backends.tta.model import NO_UNIT, Model, Site
from nncc.backends.tta.reservations import Source, Target, Transport
from nncc.backends.tta.results import Results

LONG = 4  # cycles after which, in loops, a result rather goes to its register than wait at its port
WINDOW = 24  # cycles that an operand may be moved before its operation starts


class Placement(Results):
    """Where operations of a block are, and everything that is taken by that."""

    def __init__(self, block: Block, model: Model, ii: int = 0, share: bool = True) -> None:
        super().__init__(block, model, ii)
        self.scarce: set[int] = set()  # operations for all of whose operands buses are kept
        self._held: dict[tuple[int, int], tuple[int, int]] = {}
        # at operand ports, by value: the cycles from which and until when it stands there
        self._ports: dict[tuple[str, str], dict[object, tuple[tuple[int, int], ...]]] = {}
        self._lasting = self._lasting_values() if ii and share else {}

    def _lasting_values(self) -> dict[tuple[str, str], object]:
        """For operand ports, the value that stands there through a whole loop.

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
        found: dict[tuple[str, str], object] = {}
        for ports, values in counts.items():
            room = len(ports) if len(values) <= len(ports) else len(ports) - 1
            for other, more in counts.items():  # ports that other operations use too
                if other is not ports and other & ports and set(more) != set(values):
                    room = 0
            best = [v for v, _ in values.most_common() if v != ("changes",)]
            if ("changes",) in values:
                room = min(room, len(ports) - 1)
            found |= zip(sorted(ports), best[:room], strict=False)
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
                port = (site.unit, site.ports[k])
                if port in self._lasting:
                    continue
                values = self._ports.get(port, {})
                cost += 4 if not values else 0 if values.keys() == {("i", x)} else 8
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
        if not self.take(t, self.model.slots_of(name)):
            return False
        self._set(self._taken, ("template", s), i)
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
                if not self._hold(i, k, t):
                    return False
            elif not self._feed(i, k):
                return False
        if not self.ii and not self._appears(i, t, site):
            return False
        return self._serve_users(i)

    def _hold(self, i: int, k: int, t: int) -> bool:
        """Keeps the port free for an operand whose producer has no place yet, and, if it cannot
        be moved before or is scarce, a bus."""
        site = self.site[i]
        need = self.block.needs[i][k]
        assert need is not None
        port = (site.unit, site.ports[k])
        bit = 0
        if k == site.trigger or i in self.scarce:
            source = ("reg", self.model.files[need.register.kind].name, need.register.index)
            reached = self.model.reach(source, ("port", *port, ""))
            free = reached & ~self._busy.get(self.slot(t), 0)
            bit = free & -free
            if not bit:
                return False
            self.take(t, bit)
        if k != site.trigger and not self._occupy(port, t, t):
            return False
        self._set(self._held, (i, k), (t, bit))
        return True

    def _release(self, i: int, k: int) -> None:
        """Gives back what `_hold` kept free."""
        site = self.site[i]
        t, bit = self._held[i, k]
        self.give(t, bit)
        if k != site.trigger:
            port = (site.unit, site.ports[k])
            self._set(self._standing, port, self._standing[port] & ~self._span(t, t))
        self._drop(self._held, (i, k))

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
            self._release(i, k)
        site, t = self.site[i], self.start[i]
        name = site.operation if k == site.trigger else ""
        target = ("port", site.unit, site.ports[k], name)
        if k == site.trigger:
            return self._route(i, k, t, target)
        value = self._value(i, k)
        port = (site.unit, site.ports[k])
        shared = Transport(-1, "", ("shared",), target)
        if port in self._lasting:
            if self._lasting[port] != value:
                return False
            self._set(self.moves, ("in", i, k), shared)
            if ("ahead", *port) not in self.moves:
                ahead = Transport(0, "", self._from_before(i, k), target, once="before")
                self._set(self.moves, ("ahead", *port), ahead)
            return True
        held = self._ports.get(port, {})
        spans = held.get(value, ())
        for n, (begin, last) in enumerate(spans):
            if begin <= t and self._longer(port, begin, last, t):
                span = (begin, max(last, t))
                self._set(self._ports, port, held | {value: (*spans[:n], span, *spans[n + 1 :])})
                self._set(self.moves, ("in", i, k), shared)
                return True
        earliest = t - min(WINDOW, self.ii - 1) if self.ii else max(0, t - WINDOW)
        for c in range(t, earliest - 1, -1):
            if not self.is_empty(port, c, t):
                return False
            if self._attempt(partial(self._route, i, k, c, target)):
                self._occupy(port, c, t)
                self._set(self._ports, port, held | {value: (*spans, (c, t))})
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
        if d not in self.arrival and d not in self.written:
            return False
        bypass = partial(self._bypass, name, d, time, c, target, first)
        kept = partial(self._from_register, name, d, time, c, target)
        stands = self.ii and d in self.arrival and time - self._until[d] > LONG
        return any(map(self._attempt, (kept, bypass) if stands else (bypass, kept)))
