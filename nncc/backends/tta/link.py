"""Code with registers as a program: blocks, what is between them, addresses of jumps."""

from __future__ import annotations

from dataclasses import replace

from nncc.backends.tta.allocate import Allocation
from nncc.backends.tta.code import GUARD, Branch, Item, Loop, Op, Register
from nncc.backends.tta.lower import BARRIER
from nncc.backends.tta.model import Model
from nncc.backends.tta.pipeline import pipelined
from nncc.backends.tta.schedule import Chunk, Jump, straight
from nncc.isa.tta.program import Data, Instruction, Literal, Program


def link(allocation: Allocation, model: Model, data: tuple[Data, ...]) -> Program:
    """The program that runs all of the code and halts."""
    linker = _Linker(allocation, model)
    chunks = linker.items(allocation.items)
    number = next(
        b for b in model.a.buses
        if b.name in model.into[model.halt.unit, model.halt.ports[0]] and model.fits(0, (b.name,))
    )  # fmt: skip
    chunks.append(_halt(model, number.name))
    return _joined(chunks, data)


class _Linker:
    def __init__(self, allocation: Allocation, model: Model) -> None:
        self.allocation, self.model = allocation, model
        self.fresh = 0
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
                else:
                    self.ops.append(item)
            elif isinstance(item, Branch):
                found += self.branch(item)
            elif item.in_hardware:
                found += self.hardware(item)
            else:
                found += self.flush()
                found += self.counted(item)
        return found + self.flush()

    def flush(self, *, at: int = -1, jump: Jump | None = None, loop: Op | None = None,
              source: str = "") -> list[Chunk]:  # fmt: skip
        """The operations that wait, as a chunk. `at`: the position of what ends the block."""
        ops, self.ops = self.ops, []
        if not ops and jump is None and loop is None:
            return []
        positions = [p for op in ops if (p := self.allocation.position.get(id(op)))]
        end = max([2 * p[0] + 1 for p in positions] + [2 * at], default=0)
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
        return [straight(ops, keeps, self.model, jump=jump, loop=loop, source=source)]

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
        found = self.overlapping(item)
        if found is not None:
            return self.flush() + found
        waiting, self.ops = self.ops, []
        body = self.items(item.body)
        count = sum(len(c.instructions) for c in body)
        self.ops = waiting
        loop = self.model.loop
        assert loop is not None
        record = self.model.machine.operations[loop.operation]
        inputs = tuple(
            item.trips if o.name == "iterations" else count
            for o in record.operands if not o.is_result
        )  # fmt: skip
        at = self.allocation.position[id(item)][0]
        return self.flush(at=at, loop=Op(loop.operation, inputs), source=item.source) + body

    def overlapping(self, item: Loop) -> list[Chunk] | None:
        """A loop with overlapping rounds; None if it is none."""
        ops = [op for op in item.body if isinstance(op, Op)]
        if len(ops) < len(item.body) or not isinstance(item.trips, int):
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
        return pipelined(ops, keeps, item.trips, self.model, item.source)


def _halt(model: Model, bus: str) -> Chunk:
    from nncc.isa.tta.program import Move, PortRef

    port = PortRef(model.halt.unit, model.halt.ports[0], model.halt.operation)
    return Chunk([Instruction((Move(bus, Literal(0), port),))])


def _joined(chunks: list[Chunk], data: tuple[Data, ...]) -> Program:
    """All chunks in one program, labels as numbers."""
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
        found += instructions
    return Program(tuple(found), data, labels)
