"""Schedules proved: moves do what the operations that they were made from do.

    prove_block(Work(ops, keeps), chunk, model, wiring)

Operations are followed one after the other, moves cycle by cycle (see `dataflow`), both with
numbers for values: every operation has to start as often, with the same operands; registers
that are read later have to hold the same; what must keep its order in memory has to. Nothing of
what the scheduler keeps about cycles, ports and registers is used. That instructions are legal
(buses, ports, templates) is `nncc.isa.tta.verify`'s to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from nncc.backends.tta.code import COPY, GUARD, LITERAL, Access, Kind, Op, Register
from nncc.backends.tta.dataflow import Dataflow, Event, Key, Numbers, Wiring
from nncc.backends.tta.model import Model
from nncc.backends.tta.schedule import Chunk
from nncc.isa.tta.program import Instruction

Started = tuple[str, str, tuple[int, ...]]  # an operation, its memory or "", its operands


class WrongScheduleError(Exception):
    """Moves that do something else than the operations: a bug of the scheduler."""


@dataclass(frozen=True)
class Work:
    """The operations of a block (with the start of a loop, if it ends so), or of a round of a loop.

    Args:
        keeps: for each whether code behind the block reads its result.
        free: by kind, registers that hold nothing across the block.
    """

    ops: Sequence[Op]
    keeps: Sequence[bool]
    free: Mapping[Kind, set[int]] = field(default_factory=dict)


def prove_block(work: Work, chunk: Chunk, model: Model, wiring: Wiring) -> None:
    """Raises WrongScheduleError if a block's instructions do not do its operations."""
    _prove(work, 1, chunk.instructions, model, wiring)


def prove_loop(
    work: Work, trips: int, chunks: Sequence[Chunk], model: Model, wiring: Wiring
) -> None:
    """Raises WrongScheduleError if prologue, kernel and epilogue are not the rounds of a loop.

    The kernel is followed for one round and for two.
    """
    if len(chunks) == 1:
        _prove(work, trips, chunks[0].instructions, model, wiring)
        return
    prologue, kernel, epilogue = (c.instructions for c in chunks)
    rounds = _rounds(prologue, len(kernel), trips, model, wiring)
    for times in (1, 2):
        instructions = [*prologue, *kernel * times, *epilogue]
        _prove(work, trips - rounds + times, instructions, model, wiring)


def _rounds(
    prologue: list[Instruction], length: int, trips: int, model: Model, wiring: Wiring
) -> int:
    """How often the hardware loop at the end of the prologue runs its `length` instructions."""
    numbers = Numbers()
    flow = _followed(prologue, numbers, wiring)
    assert model.loop is not None
    started = [e for e in flow.events if e.operation == model.loop.operation]
    if len(started) != 1 or started[0].cycle != len(prologue) - 1 - model.slots:
        raise WrongScheduleError("the loop does not start before its first instruction")
    names = [
        o.name for o in model.machine.operations[model.loop.operation].operands if not o.is_result
    ]
    given = dict(zip(names, started[0].inputs, strict=True))
    iterations = given.pop("iterations")
    if any(x != numbers.literal(length) for x in given.values()):
        raise WrongScheduleError("the loop has another length than its instructions")
    for rounds in range(1, trips + 1):
        if numbers.literal(rounds) == iterations:
            return rounds
    raise WrongScheduleError("the loop runs more often than it has rounds")


def _followed(
    instructions: Sequence[Instruction], numbers: Numbers, wiring: Wiring,
    regions: Mapping[Hashable, Hashable] | None = None,
) -> Dataflow:  # fmt: skip
    flow = Dataflow(wiring, numbers, regions=regions)
    for instruction in instructions:
        flow.step([(instruction, None)])
    if flow.clashes:
        raise WrongScheduleError("two results reach a port in one cycle")
    return flow


def _prove(
    work: Work, rounds: int, instructions: Sequence[Instruction], model: Model, wiring: Wiring
) -> None:
    numbers = Numbers()
    wanted = _Wanted(work, rounds, numbers, model)
    flow = _followed(instructions, numbers, wiring, wanted.touched)
    control = {model.jump.operation} | ({model.loop.operation} if model.loop else set())
    control -= {op.operation for op in work.ops}
    events = [e for e in flow.events if e.operation not in control]
    found = Counter(_started(e) for e in events)
    for started, times in (wanted.started - found).items():
        raise WrongScheduleError(f"{started[0]} does not start with its operands ({times} times)")
    for started, times in (found - wanted.started).items():
        raise WrongScheduleError(f"{started[0]} starts with other operands ({times} times)")
    _prove_memory(wanted, events)
    _prove_registers(work, wanted, flow, numbers, model)


def _prove_memory(wanted: _Wanted, events: Sequence[Event]) -> None:
    """Accesses that depend on each other keep their order."""
    times: Counter[Started] = Counter()
    cycle: dict[tuple[Started, int], int] = {}
    for e in events:
        times[_started(e)] += 1
        cycle[_started(e), times[_started(e)]] = e.cycle
    for accesses in wanted.regions.values():
        # the last store so far, and the last load behind it
        stored, loaded = -1, -1
        for started, number, is_store in accesses:
            now = cycle[started, number]
            if now <= stored or (is_store and now < loaded):
                raise WrongScheduleError(f"{started[0]} overtakes an access of the same memory")
            if is_store:
                stored, loaded = now, -1
            else:
                loaded = max(loaded, now)


def _prove_registers(
    work: Work, wanted: _Wanted, flow: Dataflow, numbers: Numbers, model: Model
) -> None:
    """Registers that are read later hold what they should."""
    for op, keeps in zip(work.ops, work.keeps, strict=True):
        if keeps and op.result is not None:
            key = _key(op.result, model)
            if flow.value(key) != wanted.values[key]:
                raise WrongScheduleError(f"{op.result} is not the result of {op.operation}")
    dead = {_key(op.result, model) for op in work.ops if op.result is not None}
    dead |= {("reg", model.files[k].name, n) for k, numbers_ in work.free.items() for n in numbers_}
    files = {file.name for file in model.files.values()}
    for key, value in flow.values.items():
        lives = key[0] == "reg" and key[1] in files and key not in dead
        if lives and value != numbers.before(key):
            raise WrongScheduleError(f"register {key[1]}.{key[2]} is lost")
    for key, value in wanted.guards.items():
        if flow.value(key) != value:
            raise WrongScheduleError("the guard of a jump is another value")


def _started(e: Event) -> Started:
    return (e.operation, e.space, e.inputs)


def _key(r: Register, model: Model) -> Key:
    return ("reg", model.files[r.kind].name, r.index)


class _Wanted:
    """What operations do, one after the other.

    Attributes:
        started: how often operations start with which operands.
        values: registers at the end; `guards`: those that guard jumps.
        regions: for each region that is stored to, its accesses in their order: which, for the
            how manieth time, and whether it stores.
        touched: the regions of these accesses, as `Dataflow` takes them.
    """

    def __init__(self, work: Work, rounds: int, numbers: Numbers, model: Model) -> None:
        self.numbers, self.model = numbers, model
        self.started: Counter[Started] = Counter()
        self.values: dict[Key, int] = {}
        self.guards: dict[Key, int] = {}
        self.touched: dict[Hashable, Hashable] = {}
        self.stores: Counter[tuple[str, str]] = Counter()
        self.regions: dict[tuple[str, str], list[tuple[Started, int, bool]]] = {
            (op.memory.space, op.memory.region): []
            for op in work.ops if op.memory is not None and self._stores(op)
        }  # fmt: skip
        for _ in range(rounds):
            for op in work.ops:
                self._run(op)

    def _stores(self, op: Op) -> bool:
        return self.model.machine.operations[op.operation].kind == "store"

    def _run(self, op: Op) -> None:
        if op.operation == GUARD:
            word, file, number = op.inputs
            self.guards["reg", str(file), int(number)] = self._number(word)  # type: ignore[arg-type]
            return
        inputs = tuple(self._number(x) for x in op.inputs)
        if op.operation in (COPY, LITERAL):
            (result,) = inputs
        else:
            space = "" if op.memory is None else op.memory.space
            started = (op.operation, space, inputs)
            self.started[started] += 1
            if op.memory is None:
                result = self.numbers.of(op.operation, *inputs)
            else:
                result = self._access(op, op.memory, started)
        if op.result is not None:
            self.values[_key(op.result, self.model)] = result

    def _access(self, op: Op, access: Access, started: Started) -> int:
        """The number of what a load finds."""
        made = (op.operation, access.space, *started[2])
        region = (access.space, access.region)
        if region not in self.regions:
            return self.numbers.of("load", made, None)
        self.touched[made] = region
        stores, before = self._stores(op), self.stores[region]
        self.regions[region].append((started, self.started[started], stores))
        self.stores[region] += stores
        return self.numbers.of("load", made, before)

    def _number(self, x: Register | int) -> int:
        if isinstance(x, int):
            return self.numbers.literal(x)
        key = _key(x, self.model)
        found = self.values.get(key)
        return self.numbers.before(key) if found is None else found


__all__ = ["Work", "WrongScheduleError", "prove_block", "prove_loop"]
