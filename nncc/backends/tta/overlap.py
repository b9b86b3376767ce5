"""Chunks that run at the same time as far as they can: the end of one with the begin of the next.

    joined(first, second)     one chunk; as many cycles of both as possible are one instruction
    rotated(body)             rounds of a loop that begin before the one before has ended

Where the second chunk may begin is found by trial: it may if every move carries what it carries
when the chunks follow each other, every operation starts with the same operands, all that is left
behind is the same, accesses of memory that depend on each other keep their order, and no bus, port
or register is needed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nncc.backends.tta.code import Access
from nncc.backends.tta.dataflow import Dataflow, Numbers, Wiring
from nncc.backends.tta.model import Model, Place, ports_match
from nncc.backends.tta.schedule import Chunk
from nncc.isa.tta.program import Instruction, Literal, Move, PortRef, RegisterRef

MOST = 40  # cycles that chunks may share


def joined(first: Chunk, second: Chunk, model: Model, wiring: Wiring) -> Chunk:
    """Both chunks as one. The second must have no label."""
    shared = overlap(first, second, model, wiring, min(first.trail, second.lead))
    at = len(first.instructions) - shared
    found = first.instructions[:at]
    for one, two in zip(first.instructions[at:], second.instructions, strict=False):
        both = merged(one, two, model)
        assert both is not None
        found.append(both)
    found += second.instructions[shared:]
    lead = first.lead if first.lead < len(first.instructions) else at + second.lead
    whole = second.trail == len(second.instructions)
    trail = second.trail + (first.trail - shared if whole else 0)
    accesses = dict(first.accesses)
    accesses |= {(i + at, unit): x for (i, unit), x in second.accesses.items()}
    targets = [*first.targets, *((i + at, place, x) for i, place, x in second.targets)]
    return Chunk(found, first.label, targets, lead, trail, accesses)


@dataclass
class Rotation:
    """A loop whose rounds overlap: `head`, `body` all but once, and `tail`."""

    head: Chunk
    body: Chunk
    tail: Chunk


def rotated(body: Chunk, model: Model, wiring: Wiring) -> Rotation | None:
    """The body of a loop so that rounds overlap; None if they cannot."""
    length = len(body.instructions)
    shared = overlap(body, body, model, wiring, min(body.trail, body.lead, length // 2))
    if not shared:
        return None
    at = length - shared
    both = [
        merged(one, two, model)
        for one, two in zip(body.instructions[at:], body.instructions[:shared], strict=True)
    ]
    middle = body.instructions[shared:at] + [x for x in both if x is not None]
    head, tail = body.instructions[:shared], body.instructions[shared:]
    return Rotation(
        Chunk(head, body.label, [], shared, shared, _part(body, 0, shared)),
        Chunk(middle, "", [], 0, 0, {}),
        Chunk(tail, "", [], 0, min(body.trail, len(tail)), _part(body, shared, length)),
    )


def _part(chunk: Chunk, begin: int, end: int) -> dict[tuple[int, str], Access]:
    return {(i - begin, u): x for (i, u), x in chunk.accesses.items() if begin <= i < end}


def overlap(first: Chunk, second: Chunk, model: Model, wiring: Wiring, most: int) -> int:
    """The most cycles, up to `most`, that the second chunk may begin before the first ends."""
    most = min(most, MOST, len(first.instructions), len(second.instructions))
    if most <= 0 or first.instructions[-1].source != second.instructions[0].source:
        return 0
    trial = _Trial(first, second, model, wiring, most)
    return next((n for n in range(most, 0, -1) if trial.fits(n)), 0)


class _Trial:
    def __init__(
        self, first: Chunk, second: Chunk, model: Model, wiring: Wiring, most: int
    ) -> None:
        self.first, self.second, self.model = first, second, model
        self.begin = max(0, len(first.instructions) - most - wiring.longest)
        self.head = second.instructions[:most]
        self.numbers = Numbers()
        self.flow = Dataflow(wiring, self.numbers, wiring.longest)
        self.length = len(first.instructions) - self.begin
        self.states = [self.flow.copy()]  # before each instruction of the first chunk
        for i in range(self.begin, len(first.instructions)):
            self.flow.step([(first.instructions[i], (1, i))])
            self.states.append(self.flow.copy())
        for i, x in enumerate(self.head):
            self.flow.step([(x, (2, i))])
        self.late = self._touched(first, range(self.begin, len(first.instructions)))
        self.early = self._touched(second, range(len(self.head)))
        self.wanted = {(e.name, e.unit): e.inputs for e in self.flow.events}

    def fits(self, shared: int) -> bool:
        """Whether both chunks may have `shared` cycles in common."""
        first, second = self.first.instructions, self.second.instructions
        at = len(first) - shared
        for i in range(shared):
            if merged(first[at + i], second[i], self.model) is None:
                return False
        if not self._in_order(at, shared):
            return False
        flow = self.states[self.length - shared].copy()
        for i in range(shared):
            flow.step([(first[at + i], (1, at + i)), (second[i], (2, i))])
        for i in range(shared, len(self.head)):
            flow.step([(second[i], (2, i))])
        if flow.clashes or {(e.name, e.unit): e.inputs for e in flow.events} != self.wanted:
            return False
        # also to where nothing looks: what is read there may never have been written
        if any(self.flow.carried[which] != value for which, value in flow.carried.items()):
            return False
        # what stands at a port that starts operations is never looked at again
        keys = (flow.values.keys() | self.flow.values.keys()) - self.flow.wiring.triggers
        return flow.ahead() == self.flow.ahead() and all(
            flow.value(k) == self.flow.value(k) for k in keys
        )

    def _in_order(self, at: int, shared: int) -> bool:
        """Whether accesses of memory that depend on each other keep their order."""
        late = [(i - at, s, x) for i, s, x in self.late if i >= at]
        return all(
            i < j or (i == j and other and not stores) or not (stores or other) or not _meet(x, y)
            for i, stores, x in late
            for j, other, y in self.early
            if j < shared
        )

    def _touched(self, chunk: Chunk, cycles: range) -> list[tuple[int, bool, Access | None]]:
        """The accesses of a chunk in some cycles, and whether they are stores."""
        found = []
        for i in cycles:
            for move in chunk.instructions[i].moves:
                to = move.destination
                if isinstance(to, PortRef) and to.operation:
                    kind = self.model.machine.operations[to.operation].kind
                    if kind in ("load", "store"):
                        access = chunk.accesses.get((i, to.unit))
                        found.append((i, kind == "store", access))
        return found


def _meet(x: Access | None, y: Access | None) -> bool:
    if x is None or y is None:
        return True
    return (x.space, x.region) == (y.space, y.region) and not (x.constant or y.constant)


def merged(one: Instruction, two: Instruction, model: Model) -> Instruction | None:
    """Two instructions as one, moves of the second on other buses if need be; None if they need
    something twice."""
    if one.template and two.template:
        return None
    if not two.moves and not two.template:
        return one
    if not one.moves and not one.template:
        return replace(two, source=one.source or two.source)
    template = one.template or two.template
    busy = model.slots_of(template) if template else 0
    for m in one.moves:
        if busy & model.bit[m.bus]:
            return None
        busy |= model.bit[m.bus]
    ports = {(p.unit, p.port) for m in one.moves if isinstance(p := m.destination, PortRef)}
    moves = list(one.moves)
    for m in two.moves:
        to = m.destination
        if m.guard is not None or (isinstance(to, PortRef) and (to.unit, to.port) in ports):
            return None
        free = model.reach(*_places(m)) & ~busy
        wanted = model.bit[m.bus]
        bit = wanted if free & wanted else free & -free
        if not bit:
            return None
        busy |= bit
        moves.append(_on_bus(m, model.buses[bit.bit_length() - 1], model))
    if any(m.guard is not None for m in one.moves) or not _files_fit(moves, model):
        return None
    return Instruction(
        tuple(sorted(moves, key=lambda m: model.bit[m.bus])),
        (*one.immediates, *two.immediates), template, one.source or two.source,
    )  # fmt: skip


def _on_bus(m: Move, bus: str, model: Model) -> Move:
    """A move on another bus, which may spell a number in another way."""
    if bus == m.bus or not isinstance(m.source, Literal):
        return replace(m, bus=bus)
    spelled = model.spelled(m.source.value, bus)
    assert spelled is not None, "a bus that carries it"
    return replace(m, bus=bus, source=Literal(spelled))


def _places(m: Move) -> tuple[Place, Place]:
    source, to = m.source, m.destination
    if isinstance(source, Literal):
        start: Place = ("imm", source.value)
    elif isinstance(source, PortRef):
        start = ("port", source.unit, source.port)
    else:
        start = ("reg", source.file, source.index)
    if isinstance(to, PortRef):
        return start, ("port", to.unit, to.port, to.operation)
    return start, ("reg", to.file, to.index)


def _files_fit(moves: list[Move], model: Model) -> bool:
    """Whether register files have ports for all moves."""
    reads: dict[str, list[tuple[int, str]]] = {}
    writes: dict[str, list[tuple[int, str]]] = {}
    for m in moves:
        if isinstance(m.source, RegisterRef):
            reads.setdefault(m.source.file, []).append((m.source.index, m.bus))
        if isinstance(m.destination, RegisterRef):
            writes.setdefault(m.destination.file, []).append((m.destination.index, m.bus))
    for file, wanted in reads.items():
        if len({n for n, _ in wanted}) > model.most_reads[file]:
            return False
        if not ports_match(model.readers[file], tuple(wanted), True):
            return False
    for file, wanted in writes.items():
        if len({n for n, _ in wanted}) < len(wanted) or len(wanted) > model.most_writes[file]:
            return False
        if not ports_match(model.writers[file], tuple(wanted), False):
            return False
    return True
