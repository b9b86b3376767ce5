"""Code with registers as a program: blocks, what is between them, addresses of jumps."""

from __future__ import annotations

from dataclasses import replace

from nncc.backends.tta.allocate import Allocation
from nncc.backends.tta.code import GUARD, Branch, Item, Kind, Loop, Op, Register
from nncc.backends.tta.dataflow import Wiring
from nncc.backends.tta.lower import BARRIER
from nncc.backends.tta.model import Model
from nncc.backends.tta.overlap import Rotation, joined, rotated
from nncc.backends.tta.pipeline import pipelined
from nncc.backends.tta.proof import Work, prove_block, prove_loop
from nncc.backends.tta.schedule import Chunk, Jump, as_instructions, straight
from nncc.backends.tta.starts import start_loop
from nncc.diagnostics import TargetError
from nncc.isa.tta.program import (
    Data,
    Instruction,
    Literal,
    LongImmediate,
    Move,
    PortRef,
    Program,
)

MOST_ROUNDS = 4  # of loops that are written out
MOST_OPS = 1000  # of such loops, all rounds
SMALL = 60  # operations of loops whose rounds overlap even if the code has to be short


def link(allocation: Allocation, model: Model, data: tuple[Data, ...]) -> Program:
    """The program that runs all of the code and halts.

    Code that does not fit the instruction memory is made again without copies of loop bodies.
    """
    found = _linked(allocation, model, data, short=False)
    space = model.a.space.get(model.a.control.address_space)
    if space is not None and len(found.instructions) > space.size:
        return _linked(allocation, model, data, short=True)
    return found


def _linked(
    allocation: Allocation, model: Model, data: tuple[Data, ...], *, short: bool
) -> Program:
    linker = _Linker(allocation, model, short=short)
    chunks = linker.items(allocation.items)
    number = next(
        b for b in model.a.buses
        if b.name in model.into[model.halt.unit, model.halt.ports[0]] and model.fits(0, (b.name,))
    )  # fmt: skip
    chunks.append(_halt(model, number.name))
    return _joined(chunks, data)


class _Linker:
    """Args:
    short: whether bodies of loops stand once each, which takes more cycles.
    """

    def __init__(self, allocation: Allocation, model: Model, *, short: bool) -> None:
        self.allocation, self.model, self.short = allocation, model, short
        self.wiring = Wiring(model.machine)
        self.fresh = 0
        self.end = 0  # the end of the loops that are written out in `ops`
        self.ops: list[Op] = []

    def label(self, what: str) -> str:
        self.fresh += 1
        return f"{what}{self.fresh}"

    def items(self, items: list[Item]) -> list[Chunk]:
        """The chunks of a list of items, all of its operations flushed."""
        found: list[Chunk] = []
        for item in items:
            if isinstance(item, Op):
                if item.operation == BARRIER:
                    found += self.flush()
                    if found:  # regions of the next call may be where those of this one are
                        found[-1].trail = 0
                else:
                    self.ops.append(item)
            elif isinstance(item, Branch):
                found += self.branch(item)
            elif item.in_hardware:
                found += self.hardware(item)
            else:
                found += self.flush()
                found += self.counted(item)
        return self.joined(found + self.flush())

    def joined(self, chunks: list[Chunk]) -> list[Chunk]:
        """Chunks at which nothing jumps as one, at the same time as far as they can be."""
        found: list[Chunk] = []
        for chunk in chunks:
            if found and not chunk.label:
                found[-1] = joined(found[-1], chunk, self.model, self.wiring)
            else:
                found.append(chunk)
        return found

    def flush(self, *, at: int = -1, jump: Jump | None = None, loop: Op | None = None,
              source: str = "") -> list[Chunk]:  # fmt: skip
        """The operations that wait, as a chunk. `at`: the position of what ends the block."""
        ops, self.ops = self.ops, []
        if not ops and jump is None and loop is None:
            return []
        positions = [p for op in ops if (p := self.allocation.position.get(id(op)))]
        end = max([2 * p[0] + 1 for p in positions] + [2 * at, self.end])
        self.end = 0
        keeps = []
        last = {op.result: i for i, op in enumerate(ops) if op.result is not None}
        for i, op in enumerate(ops):
            r = op.result
            keeps.append(r is not None and last[r] == i and self.allocation.lives[r].end > end)
        # of registers with one number, only the last one is left at the end
        final: dict[tuple[str, int], int] = {}
        for i, op in enumerate(ops):
            if op.result is not None:
                final[op.result.kind, op.result.index] = i
        for i, op in enumerate(ops):
            if op.result is not None and final[op.result.kind, op.result.index] != i:
                keeps[i] = False
        source = next((op.source for op in ops if op.source), source)
        chunk = straight(ops, keeps, self.model, jump=jump, loop=loop, source=source)
        work = Work(ops, keeps) if loop is None else Work([*ops, loop], [*keeps, False])
        prove_block(work, chunk, self.model, self.wiring)
        return [chunk]

    def guard(self, condition: int | Register, *, when: bool) -> Jump:
        """A jump (to be given its label) if the condition is `when`."""
        guards = self.model.guards
        guard = guards.get(when)
        assert guard is not None, "guards of both senses"
        self.ops.append(Op(GUARD, (condition, guard.file, guard.index)))  # type: ignore[arg-type]
        return Jump("", guard)

    def branch(self, item: Branch) -> list[Chunk]:
        at = self.allocation.position[id(item)][0]
        otherwise, done = self.label("else"), self.label("done")
        jump = self.guard(item.condition, when=False)
        jump.label = otherwise if item.otherwise else done
        found = self.flush(at=at, jump=jump, source=item.source)
        found += self.items(item.then)
        if item.otherwise:
            found += self.flush(jump=Jump(done), source=item.source)
            found.append(Chunk([], otherwise))
            found += self.items(item.otherwise)
        found.append(Chunk([], done))
        return found

    def counted(self, item: Loop) -> list[Chunk]:
        top = self.label("loop")
        assert item.again is not None
        found = [Chunk([], top)]
        tail: list[Op] = []
        body = list(item.body)
        while body and isinstance(body[-1], Op) and body[-1].operation != BARRIER:
            last = body.pop()
            assert isinstance(last, Op)
            tail.insert(0, last)
        found += self.items(body)
        self.ops += tail
        jump = self.guard(item.again, when=True)
        jump.label = top
        found += self.flush(at=self.allocation.position[id(item)][1] - 1, jump=jump,
                            source=item.source)  # fmt: skip
        return found

    def hardware(self, item: Loop) -> list[Chunk]:
        if (rounds := self.written_out(item)) is not None:
            self.ops += rounds
            self.end = max(self.end, 2 * self.allocation.position[id(item)][1] - 1)
            return []
        found = self.overlapping(item)
        if found is not None:
            return self.flush() + found
        waiting, self.ops, end, self.end = self.ops, [], self.end, 0
        (round_,) = self.items(item.body)
        self.ops, self.end = waiting, end
        if not self.short and isinstance(item.trips, int) and item.trips > 2:
            turned = rotated(round_, self.model, self.wiring)
            if turned is not None and self.start(turned, item.trips - 1):
                return [*self.flush(), turned.head, turned.body, turned.tail]
        loop = self.model.loop
        assert loop is not None
        record = self.model.machine.operations[loop.operation]
        inputs = tuple(
            item.trips if o.name == "iterations" else len(round_.instructions)
            for o in record.operands if not o.is_result
        )  # fmt: skip
        at = self.allocation.position[id(item)][0]
        start, closed = Op(loop.operation, inputs), replace(round_, lead=0, trail=0)
        if all(
            self.model.is_short(x, start, k) for k, x in enumerate(inputs) if isinstance(x, int)
        ):
            return [*self.flush(at=at, loop=start, source=item.source), closed]
        return [*self.flush(), self.started(start, item, len(round_.instructions)), closed]

    def started(self, start: Op, item: Loop, length: int) -> Chunk:
        """The start of a hardware loop by itself, with numbers that are long immediates."""
        model = self.model
        for at in range(16):
            rows: list[list[Move]] = [[] for _ in range(at + 1 + model.slots)]
            long: dict[int, tuple[str, LongImmediate]] = {}
            if start_loop(rows, long, at, item.trips, length, model):
                chunk = Chunk(as_instructions(rows, long, model, item.source))
                prove_block(Work([start], [False]), chunk, model, self.wiring)
                return chunk
        raise TargetError(f"machine '{model.machine.name}' cannot start a loop of {length}")

    def written_out(self, item: Loop) -> list[Op] | None:
        """All rounds of a loop, if they are best written out in the block around it."""
        ops = [x for x in item.body if isinstance(x, Op) and x.operation != BARRIER]
        if self.short or len(ops) < len(item.body) or not isinstance(item.trips, int):
            return None
        if item.trips > MOST_ROUNDS or item.trips * len(ops) > MOST_OPS:
            return None
        return ops * item.trips

    def start(self, turned: Rotation, trips: int) -> bool:
        """Starts the loop at the end of its head, which gets longer if need be."""
        head, model = turned.head, self.model
        source = head.instructions[0].source
        for more in range(model.slots + 4):
            rows: list[list[Move]] = [[] for _ in range(more)]
            rows += [list(x.moves) for x in head.instructions]
            long = {
                k + more: (x.template, x.immediates[0])
                for k, x in enumerate(head.instructions) if x.immediates
            }  # fmt: skip
            at = len(rows) - 1 - model.slots
            length = len(turned.body.instructions)
            if at >= 0 and start_loop(rows, long, at, trips, length, model):
                head.instructions = as_instructions(rows, long, model, source)
                head.lead, head.trail = at, 0
                head.accesses = {(i + more, u): x for (i, u), x in head.accesses.items()}
                return True
        return False

    def overlapping(self, item: Loop) -> list[Chunk] | None:
        """A loop with overlapping rounds; None if it is none."""
        ops = [op for op in item.body if isinstance(op, Op)]
        if (
            (self.short and len(ops) > SMALL)
            or len(ops) < len(item.body)
            or not isinstance(item.trips, int)
        ):
            return None
        if any(op.operation == BARRIER for op in ops):
            return None
        end = 2 * self.allocation.position[id(item)][1] - 1
        last = {op.result: i for i, op in enumerate(ops) if op.result is not None}
        keeps = [
            op.result is not None
            and last[op.result] == i
            and self.allocation.lives[op.result].end > end
            for i, op in enumerate(ops)
        ]
        begin = 2 * self.allocation.position[id(item)][0]
        free = self.free(begin, end + 1)
        found = pipelined(ops, keeps, free, item.trips, self.model, item.source)
        if found is not None:
            work = Work(ops, keeps, free)
            prove_loop(work, item.trips, found, self.model, self.wiring)
        return found

    def free(self, begin: int, end: int) -> dict[Kind, set[int]]:
        """The registers that hold nothing that is needed before and in, or in and behind a part."""
        found = {kind: set(range(file.size)) for kind, file in self.model.files.items()}
        for r, life in self.allocation.lives.items():
            if life.start <= end and life.end >= begin and not begin < life.start <= life.end < end:
                found[r.kind].discard(r.index)
        return found


def _halt(model: Model, bus: str) -> Chunk:
    port = PortRef(model.halt.unit, model.halt.ports[0], model.halt.operation)
    return Chunk([Instruction((Move(bus, Literal(0), port),))])


def _joined(chunks: list[Chunk], data: tuple[Data, ...]) -> Program:
    """All chunks in one program, labels as numbers; comments name what is loaded or stored."""
    labels: dict[str, int] = {}
    here = 0
    for chunk in chunks:
        if chunk.label:
            labels[chunk.label] = here
        here += len(chunk.instructions)
    found: list[Instruction] = []
    for chunk in chunks:
        instructions = list(chunk.instructions)
        for i, place, label in chunk.targets:
            target = labels[label]
            old = instructions[i]
            if place < 0:
                immediates = tuple(replace(x, value=target) for x in old.immediates)
                instructions[i] = replace(old, immediates=immediates)
            else:
                moves = list(old.moves)
                moves[place] = replace(moves[place], source=Literal(target))
                instructions[i] = replace(old, moves=tuple(moves))
        touched: dict[int, list[str]] = {}
        for (i, _), access in sorted(chunk.accesses.items()):
            if not access.literal:
                touched.setdefault(i, []).append(f"{access.space}: {access.region}")
        for i, tensors in touched.items():
            instructions[i] = replace(instructions[i], comment=", ".join(tensors))
        found += instructions
    return Program(tuple(found), data, labels)
