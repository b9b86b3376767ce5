"""Loops whose rounds overlap: modulo scheduling, prologue, kernel and epilogue.

A round starts every `ii` cycles. Round i's move of cycle c happens in cycle i*ii + c; the kernel is
the `ii` instructions in which a round of every age takes part, and runs in a hardware loop. The
prologue has all of the first round, so that only there values come from before the loop.

Operations are placed from the last to the first, as late as those that use them allow: what they
make is used where it appears, and needs no register.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from nncc.backends.tta.code import COPY, LITERAL, Access, Kind, Op
from nncc.backends.tta.dependences import Block
from nncc.backends.tta.model import Model
from nncc.backends.tta.placement import Placement
from nncc.backends.tta.reservations import Transport
from nncc.backends.tta.schedule import Chunk, as_instructions, latency, move_of
from nncc.backends.tta.starts import start_loop
from nncc.isa.tta.program import LongImmediate, Move

MOST_OPS = 700  # in a body: longer ones are scheduled as they are
TRIES = 6  # initiation intervals
SMALL = 60  # operations up to which more is tried
LONGEST = 1500  # instructions of a loop that is written out


def pipelined(
    ops: list[Op], keeps: list[bool], free: Mapping[Kind, set[int]], trips: int, model: Model,
    source: str,
) -> list[Chunk] | None:  # fmt: skip
    """The instructions of a loop, or None if its rounds cannot overlap.

    `keeps` and `free` as in `Block`.
    """
    if model.loop is None or trips < 2 or not 0 < len(ops) <= MOST_OPS:
        return None
    if any(op.operation == COPY for op in ops):
        return None
    block = Block(ops, keeps, model, is_loop=True, free=free)
    order = _order(block)
    least, scarce = _least(ops, model)
    for ii in range(least, least + TRIES):
        for share in (True, False) if len(ops) <= SMALL else (True,):
            placement = _placed(block, model, order, ii, scarce, share=share)
            if placement is not None:
                found = _Emission(placement, trips, model, source).chunks()
                if found is not None:
                    return found
    return None


def _least(ops: list[Op], model: Model) -> tuple[int, set[int]]:
    """The initiation interval that the units allow at best, and the operations that decide it."""
    load: dict[tuple[str, ...], list[int]] = {}
    for i, op in enumerate(ops):
        if op.operation != LITERAL:
            units = tuple(sorted({s.unit for s in model.sites_of(op)}))
            load.setdefault(units, []).append(i)
    needed = {units: -(-len(found) // len(units)) for units, found in load.items()}
    most = max(needed.values(), default=1)
    # of equals the one whose results come first: the others bring its operands
    quick = {u: min(latency(ops[i], model) for i in load[u]) for u in needed if needed[u] == most}
    scarce = min(quick, key=lambda u: (len(u), quick[u]), default=())
    return most, set(load.get(scarce, ()))


def _order(block: Block) -> list[int]:
    """Operations so that each comes after those that use its result, as far as there is such an
    order: in a circle, uses in the next round come later."""
    count = len(block.ops)
    after: list[set[int]] = [set() for _ in range(count)]  # what has to come first
    carried: list[set[int]] = [set() for _ in range(count)]
    for u, row in enumerate(block.needs):
        for need in row:
            if need is not None and need.producer >= 0 and need.producer != u:
                (carried if need.distance else after)[need.producer].add(u)
    for i, j, gap, distance in block.order:
        if gap is not None and not distance and i != j:
            after[i].add(j)
    reach = _components(after, carried)
    for d in range(count):
        after[d] |= {u for u in carried[d] if reach[u] != reach[d]}
    depth = [0] * count  # how far from the end
    done: list[int] = []
    state = [0] * count

    def visit(i: int) -> None:
        stack = [(i, iter(sorted(after[i])))]
        state[i] = 1
        while stack:
            node, rest = stack[-1]
            for j in rest:
                if not state[j]:
                    state[j] = 1
                    stack.append((j, iter(sorted(after[j]))))
                    break
            else:
                depth[node] = 1 + max([depth[j] for j in after[node]], default=0)
                done.append(node)
                stack.pop()

    for i in reversed(range(count)):
        if not state[i]:
            visit(i)
    return done


def _components(one: list[set[int]], two: list[set[int]]) -> list[int]:
    """The number of the circle that each operation is in (Kosaraju)."""
    count = len(one)
    forward = [one[i] | two[i] for i in range(count)]
    backward: list[set[int]] = [set() for _ in range(count)]
    for i, targets in enumerate(forward):
        for j in targets:
            backward[j].add(i)
    order: list[int] = []
    seen = [False] * count
    for root in range(count):
        if seen[root]:
            continue
        seen[root] = True
        stack: list[tuple[int, Iterator[int]]] = [(root, iter(forward[root]))]
        while stack:
            node, rest = stack[-1]
            for j in rest:
                if not seen[j]:
                    seen[j] = True
                    stack.append((j, iter(forward[j])))
                    break
            else:
                order.append(node)
                stack.pop()
    found = [-1] * count
    for root in reversed(order):
        if found[root] >= 0:
            continue
        todo = [root]
        found[root] = root
        while todo:
            for j in backward[todo.pop()]:
                if found[j] < 0:
                    found[j] = root
                    todo.append(j)
    return found


_BASE = 1 << 16  # a multiple of nothing in particular; cycles are moved to 0 at the end


def _placed(
    block: Block, model: Model, order: list[int], ii: int, scarce: set[int], *, share: bool
) -> Placement | None:
    """All operations in cycles, or None."""
    placement = Placement(block, model, ii, share)
    placement.scarce = scarce
    before: list[list[tuple[int, int, int]]] = [[] for _ in block.ops]
    behind: list[list[tuple[int, int, int]]] = [[] for _ in block.ops]
    for u, row in enumerate(block.needs):
        for need in row:
            if need is not None and need.producer >= 0:
                d = need.producer
                gap = latency(block.ops[d], model)
                behind[d].append((u, gap, need.distance))
                before[u].append((d, gap, need.distance))
    for i, j, order_gap, distance in block.order:
        if order_gap is not None:
            behind[i].append((j, order_gap, distance))
            before[j].append((i, order_gap, distance))
    start = placement.start
    waiting = [0] * len(block.ops)
    first = {i: n for n, i in enumerate(order)}
    users: list[list[int]] = [[] for _ in block.ops]
    for i, rows in enumerate(behind):
        for j, _, _ in rows:
            if first[j] < first[i]:
                waiting[i] += 1
                users[j].append(i)
    late: dict[int, int] = {}  # when an operation has to start at the latest, as far as is known

    chained: set[int] = set()  # those that make what one that is scarce and has its place takes

    def urgency(i: int) -> tuple[bool, bool, int, int]:
        """Less is placed first: what is scarce, chain after chain, then what is needed late."""
        return i not in scarce, i not in chained, -late.get(i, _BASE), first[i]

    queue = [(urgency(i), i) for i in order if not waiting[i]]
    heapq.heapify(queue)
    while queue:
        key, i = heapq.heappop(queue)
        if (now := urgency(i)) != key:
            heapq.heappush(queue, (now, i))
            continue
        early = max(
            (start[d] + gap - n * ii for d, gap, n in before[i] if d in start and d != i),
            default=None,
        )
        latest = late.get(i, _BASE if early is None else early + ii - 1)
        lowest = latest - ii - 12 if early is None else max(early, latest - ii - 12)
        for t in range(latest, lowest - 1, -1):
            if placement.place(i, t):
                break
        else:
            return None
        placement._log.clear()
        for d, gap, n in before[i]:
            if d != i and d not in start:
                if i in scarce:
                    chained.add(d)
                late[d] = min(late.get(d, _BASE * 2), t + n * ii - gap)
        for j in users[i]:
            waiting[j] -= 1
            if not waiting[j]:
                heapq.heappush(queue, (urgency(j), j))
    placement.finish()
    return placement


class _Emission:
    """The instructions of a loop whose operations are placed."""

    def __init__(self, placement: Placement, trips: int, model: Model, source: str) -> None:
        self.p, self.trips, self.model, self.source = placement, trips, model, source
        self.ii = placement.ii
        moves = [m for m in placement.moves.values() if m.bus]
        cycles = [m.cycle for m in moves] + [placement.start[i] for i in placement.templates]
        self.low = min(cycles)
        self.span = max(cycles) - self.low + 1  # cycles of a round
        self.moves = moves
        self.ahead = [m for m in placement.moves.values() if m.once == "before"]
        self.rows: list[list[Move]] = []
        self.long: dict[int, tuple[str, LongImmediate]] = {}
        self.accesses: dict[tuple[int, str], Access] = {}

    def chunks(self) -> list[Chunk] | None:
        end = (self.trips - 1) * self.ii + self.span
        is_flat = self.trips <= -(-self.span // self.ii) + 1
        if end > LONGEST if is_flat else self.ii + 2 * self.span > 2 * LONGEST:
            return None
        lead = self._preamble()
        if lead is None:
            return None
        if is_flat:
            self._extend(range(end), self.trips)
            chunk = self._chunk()
            chunk.lead = chunk.trail = len(chunk.instructions)
            return [chunk]
        lead = max(lead, self.model.slots + 1 - self.span)
        self.rows += [[] for _ in range(lead - len(self.rows))]
        preamble = self.rows
        for shift in range(self.ii):  # where in a round the kernel begins: where it can be started
            begin = self.span + shift
            rounds = (self.trips * self.ii - begin) // self.ii
            if rounds < 1:
                return None
            self.rows, self.long = [list(row) for row in preamble], {}
            self._extend(range(begin), self.trips)
            at = lead + begin - 1 - self.model.slots
            if start_loop(self.rows, self.long, at, rounds, self.ii, self.model):
                prologue = self._chunk()
                prologue.lead = at
                self._extend(range(begin, begin + self.ii), 1 << 40)
                kernel = self._chunk()
                self._extend(range(begin + rounds * self.ii, end), self.trips)
                epilogue = self._chunk()
                epilogue.trail = len(epilogue.instructions)
                return [prologue, kernel, epilogue]
        return None

    def _extend(self, cycles: range, trips: int) -> None:
        """Adds instructions: what happens in some cycles of the loop as a whole."""
        for cycle, (row, long) in zip(cycles, self._cycles(cycles, trips), strict=True):
            if long is not None:
                self.long[len(self.rows)] = long
            for i, op in enumerate(self.p.block.ops):
                if op.memory is not None and (cycle - self.p.start[i] + self.low) % self.ii == 0:
                    self.accesses[len(self.rows), self.p.site[i].unit] = op.memory
            self.rows.append(row)

    def _cycles(
        self, cycles: range, trips: int
    ) -> list[tuple[list[Move], tuple[str, LongImmediate] | None]]:
        """What happens in each cycle of the loop as a whole."""
        by_phase: list[list[Transport]] = [[] for _ in range(self.ii)]
        for m in self.moves:
            by_phase[(m.cycle - self.low) % self.ii].append(m)
        long: dict[int, list[tuple[int, tuple[str, LongImmediate]]]] = {}
        for i, (name, unit, number, value) in self.p.templates.items():
            c = self.p.start[i] - self.low
            long.setdefault(c % self.ii, []).append((c, (name, LongImmediate(unit, number, value))))
        found = []
        for cycle in cycles:
            row: list[Move] = []
            for m in by_phase[cycle % self.ii]:
                i = (cycle - (m.cycle - self.low)) // self.ii
                if 0 <= i < trips and (m.once != "after" or i == self.trips - 1):
                    row.append(move_of(m, self.model, first=i == 0))
            immediate = None
            for c, x in long.get(cycle % self.ii, ()):
                if 0 <= (cycle - c) // self.ii < trips:
                    immediate = x
            found.append((row, immediate))
        return found

    def _preamble(self) -> int | None:
        """What stands at ports through the whole loop is moved there before it."""
        free = Placement(self.p.block, self.model)
        for k, m in enumerate(self.ahead):
            for c in range(64):
                if free._move(("in", -1, k), c, m.source, m.target):
                    break
            else:
                return None
        length = 1 + max((m.cycle for m in free.moves.values()), default=-1)
        self.rows = [[] for _ in range(length)]
        for m in free.moves.values():
            self.rows[m.cycle].append(move_of(m, self.model))
        return length

    def _chunk(self) -> Chunk:
        instructions = as_instructions(self.rows, self.long, self.model, self.source)
        chunk = Chunk(instructions, accesses=self.accesses)
        self.rows, self.long, self.accesses = [], {}, {}
        return chunk
