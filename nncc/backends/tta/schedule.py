"""Blocks of operations as instructions: list scheduling, and how blocks end.

    chunk = straight(ops, keeps, model, end)

Operations are placed in the order of the longest way from them to the block's end, each as early
as its operands and everything that is taken allow.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from nncc.backends.tta.code import COPY, GUARD, LITERAL, Access, Op
from nncc.backends.tta.dependences import Block
from nncc.backends.tta.model import Model
from nncc.backends.tta.placement import Placement
from nncc.backends.tta.reservations import Transport
from nncc.diagnostics import TargetError
from nncc.isa.tta.program import (
    Instruction,
    Literal,
    LongImmediate,
    Move,
    PortRef,
    RegisterRef,
)
from nncc.machines.tta.model import Guard

FARTHEST = 20_000  # cycles that an operation may wait


@dataclass
class Jump:
    """How a block ends: a jump to `label`, always or if the guard register is 1 (0: `inverted`)."""

    label: str
    guard: Guard | None = None


@dataclass
class Chunk:
    """Instructions one after the other.

    Args:
        targets: labels that numbers in them stand for, as (instruction, place of the move, or -1
            for its long immediate).
        lead, trail: how many instructions at the begin and at the end may run at the same time as
            others: nothing in them jumps or starts a loop, or is run more than once.
        accesses: what (instruction, unit) loads or stores.
    """

    instructions: list[Instruction]
    label: str = ""
    targets: list[tuple[int, int, str]] = field(default_factory=list)
    lead: int = 0
    trail: int = 0
    accesses: dict[tuple[int, str], Access] = field(default_factory=dict)


def latency(op: Op, model: Model) -> int:
    """Cycles from the start of an operation until its result can be moved."""
    if op.operation in (COPY, LITERAL):
        return 1
    if op.operation == GUARD:
        return 0
    return min(s.latency for s in model.sites_of(op))


def place_all(block: Block, model: Model) -> Placement:
    """All operations of a straight block in cycles."""
    count = len(block.ops)
    placement = Placement(block, model)
    after: list[list[tuple[int, int | None]]] = [[] for _ in range(count)]
    waiting = [0] * count
    for i, row in enumerate(block.needs):
        for need in row:
            if need is not None and need.producer >= 0:
                after[need.producer].append((i, latency(block.ops[need.producer], model)))
                waiting[i] += 1
    for i, j, gap, _ in block.order:
        after[i].append((j, gap))
        waiting[j] += 1
    height = [0] * count
    for i in reversed(range(count)):
        own = 1 + latency(block.ops[i], model) // 4
        height[i] = max([own, *(height[j] + (gap or 0) for j, gap in after[i])])
    ready = [(-height[i], i) for i in range(count) if not waiting[i]]
    heapq.heapify(ready)
    earliest = [0] * count
    while ready:
        _, i = heapq.heappop(ready)
        t = earliest[i]
        while not placement.place(i, t):
            t = _later(t, earliest[i], block.ops[i], model)
        placement._log.clear()
        for j, gap in after[i]:
            if gap is not None:
                earliest[j] = max(earliest[j], t + gap)
            waiting[j] -= 1
            if not waiting[j]:
                heapq.heappush(ready, (-height[j], j))
    return placement


def _later(t: int, first: int, what: object, model: Model) -> int:
    """The next cycle to try. Raises TargetError if there were enough since `first`."""
    if t >= first + FARTHEST:
        raise TargetError(
            f"machine '{model.machine.name}' cannot move the operands of {what} to their ports",
            help="give its buses more connections, or longer immediates",
        )
    return t + 1


def straight(
    ops: list[Op],
    keeps: list[bool],
    model: Model,
    *,
    jump: Jump | None = None,
    loop: Op | None = None,
    source: str = "",
) -> Chunk:
    """The instructions of a block that ends with a jump, with the start of a hardware loop, or with
    what follows it."""
    ops, keeps = list(ops), list(keeps)
    if loop is not None:
        ops.append(loop)
        keeps.append(False)
    block = Block(ops, keeps, model, is_loop=False)
    if loop is None:
        placement = place_all(block, model)
        placement.finish()
    else:
        inner = Block(ops[:-1], keeps[:-1], model, is_loop=False)
        # the loop's operands may be computed here: their registers are written at the end
        for need in block.needs[-1]:
            if need is not None and need.producer >= 0:
                inner.keeps[need.producer] = True
        placement = place_all(inner, model)
        placement.finish()
        placement.block = block
    length = 1 + max(
        [m.cycle for m in placement.moves.values()]
        + [placement.start[i] for i in placement.templates],
        default=-1,
    )
    chunk = Chunk([])
    if loop is not None:
        t = max(0, length - 1 - model.slots)
        while not placement.place(len(ops) - 1, t):
            t = _later(t, length, loop, model)
        length = t + 1 + model.slots
    extra: list[tuple[int, Move]] = []
    literal: tuple[int, LongImmediate, str] | None = None
    if jump is not None:
        t = max(0, length - 1 - model.slots)
        for i, op in enumerate(ops):
            if op.operation == GUARD:
                t = max(t, placement.start[i] + max(1, model.a.control.guard_latency))
        while (found := _jump(placement, t, jump, model)) is None:
            t = _later(t, length, f"a jump to {jump.label}", model)
        move, literal = found
        extra.append((t, move))
        length = max(length, t + 1 + model.slots)
    chunk.instructions = instructions(
        placement.moves.values(), placement.templates.items(), placement.start, length, model,
        block, source, extra, literal,
    )  # fmt: skip
    if jump is not None:
        if literal is not None:
            chunk.targets.append((literal[0], -1, jump.label))
        else:
            place = chunk.instructions[t].moves.index(extra[0][1])
            chunk.targets.append((t, place, jump.label))
    chunk.accesses = {
        (t, placement.site[i].unit): access
        for i, t in placement.start.items()
        if (access := block.ops[i].memory) is not None
    }
    chunk.lead = chunk.trail = length
    if loop is not None:
        chunk.lead, chunk.trail = placement.start[len(ops) - 1], 0
    elif jump is not None:
        chunk.lead, chunk.trail = literal[0] if literal else t, 0
    return chunk


def _jump(
    placement: Placement, t: int, jump: Jump, model: Model
) -> tuple[Move, tuple[int, LongImmediate, str] | None] | None:
    """A jump in cycle t, its target as a short or long immediate."""
    port = PortRef(model.jump.unit, model.jump.ports[0], model.jump.operation)
    into = model.into[port.unit, port.port]
    most = 1 << 20
    space = model.a.space.get(model.a.control.address_space)
    if space is not None:
        most = space.size
    buses = [
        b for b in model.buses
        if b in into and (jump.guard is None or jump.guard in model.a.bus[b].guards)
    ]  # fmt: skip
    for b in buses:
        reaches = model.ranges[b] and model.ranges[b][-1] >= most - 1
        if reaches and placement.take(t, model.bit[b]):
            return Move(b, Literal(0), port, jump.guard), None
    found = model.template(most - 1)
    if found is None or t == 0:
        return None
    name, unit, _ = found
    slots = [s for s in model.a.template[name].slots if s in model.bit]
    if ("template", t - 1) in placement._taken or not all(
        placement.is_free(t - 1, s) for s in slots
    ):
        return None
    number = model.a.immediate[unit].size - 1
    key = (unit, f"#{number}")
    if not placement.is_empty(key, t, t):
        return None
    readers = {b for reached in model.readers[unit] for b in reached}
    for b in buses:
        free = b in readers and placement.is_free(t, b)
        if free and placement._file_port("read", t, ("reg", unit, number), b):
            source = RegisterRef(unit, number)
            return Move(b, source, port, jump.guard), (
                t - 1,
                LongImmediate(unit, number, 0),
                name,
            )
    return None


def instructions(
    transports: Iterable[Transport],
    templates: Iterable[tuple[int, tuple[str, str, int, int]]],
    start: dict[int, int],
    length: int,
    model: Model,
    block: Block,
    source: str,
    extra: Iterable[tuple[int, Move]] = (),
    literal: tuple[int, LongImmediate, str] | None = None,
) -> list[Instruction]:
    """Moves by cycle as instructions."""
    rows: list[list[Move]] = [[] for _ in range(length)]
    long: dict[int, tuple[str, LongImmediate]] = {}
    for m in transports:
        if m.bus:
            rows[m.cycle].append(move_of(m, model))
    for t, move in extra:
        rows[t].append(move)
    for i, (name, unit, number, value) in templates:
        long[start[i]] = (name, LongImmediate(unit, number, value))
    if literal is not None:
        long[literal[0]] = (literal[2], literal[1])
    return as_instructions(rows, long, model, source)


def as_instructions(
    rows: list[list[Move]], long: dict[int, tuple[str, LongImmediate]], model: Model, source: str
) -> list[Instruction]:
    """Moves and long immediates by cycle as instructions."""
    return [
        Instruction(
            tuple(sorted(row, key=lambda m: model.bit[m.bus])),
            (long[t][1],) if t in long else (),
            long[t][0] if t in long else "",
            source,
        )
        for t, row in enumerate(rows)
    ]


def move_of(m: Transport, model: Model, *, first: bool = False) -> Move:
    """A transport as a move of the instruction set."""
    place = m.first if first and m.first is not None else m.source
    if place[0] == "imm":
        value = model.spelled(place[1], m.bus)
        assert value is not None
        source: Literal | PortRef | RegisterRef = Literal(value)
    elif place[0] == "port":
        source = PortRef(place[1], place[2])
    else:
        source = RegisterRef(place[1], place[2])
    t = m.target
    target = PortRef(t[1], t[2], t[3]) if t[0] == "port" else RegisterRef(t[1], t[2])
    return Move(m.bus, source, target)
