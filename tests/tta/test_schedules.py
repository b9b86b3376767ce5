"""Schedules of blocks and loops, the proof that they do what their operations do, and overlap."""

import random
from dataclasses import replace

import numpy as np
import pytest

from nncc.backends.tta import pipeline
from nncc.backends.tta.allocate import allocate
from nncc.backends.tta.code import Access, Op, Register
from nncc.backends.tta.dataflow import Wiring
from nncc.backends.tta.link import link
from nncc.backends.tta.lower import BARRIER
from nncc.backends.tta.memory import Memory
from nncc.backends.tta.model import Model
from nncc.backends.tta.overlap import joined, merged, overlap, rotated
from nncc.backends.tta.pipeline import pipelined, start_loop
from nncc.backends.tta.proof import Work, WrongScheduleError, prove_block, prove_loop
from nncc.backends.tta.schedule import Chunk, straight
from nncc.diagnostics import SimError
from nncc.isa.tta.program import (
    Instruction,
    Literal,
    LongImmediate,
    Move,
    PortRef,
    Program,
    RegisterRef,
)
from nncc.isa.tta.verify import allocate_ports, instruction_problems
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.machines.tta.check import problems
from nncc.runtime.tta.interpreter import Interpreter
from tests.tta.networks import convolution
from tests.tta.test_codegen import check, compiled, simulated

MACHINE = load("tta")
MODEL, WIRING = Model(MACHINE), Wiring(MACHINE)


def scalar(n: int) -> Register:
    return Register("scalar", index=n)


def access(region: str) -> Access:
    return Access("dmem", region)


def block() -> tuple[list[Op], list[bool]]:
    """Loads, a chain of operations that do not commute, stores; register 9 is read later."""
    r = [scalar(n) for n in range(10)]
    ops = [
        Op("ld32", (r[0],), r[1], access("x")),
        Op("add", (r[0], 4), r[2]),
        Op("ld32", (r[2],), r[3], access("x")),
        Op("sub", (r[1], r[3]), r[4]),
        Op("mul", (r[4], r[1]), r[5]),
        Op("sub", (r[5], r[2]), r[6]),
        Op("st32", (r[8], r[6]), None, access("y")),
        Op("ld32", (r[8],), r[7], access("y")),
        Op("sub", (r[7], r[4]), r[9]),
        Op("add", (r[8], 4), r[1]),
        Op("st32", (r[1], r[9]), None, access("y")),
    ]
    return ops, [op.result is not None and op.result.index == 9 for op in ops]


def loop() -> tuple[list[Op], list[bool]]:
    """A sum of products of words; the sum is read later."""
    a, b, total, x, y, p = (scalar(n) for n in range(6))
    ops = [
        Op("ld32", (a,), x, access("x")),
        Op("ld32", (b,), y, access("z")),
        Op("mul", (x, y), p),
        Op("sub", (total, p), total),
        Op("add", (a, 4), a),
        Op("add", (b, 4), b),
    ]
    return ops, [op.result is total for op in ops]


FREE = {"scalar": set(range(6, 32)), "vector": set[int]()}


def without(instructions, i, k):
    """A move dropped."""
    moves = instructions[i].moves
    changed = replace(instructions[i], moves=moves[:k] + moves[k + 1 :])
    return [*instructions[:i], changed, *instructions[i + 1 :]]


def mutated(instructions, r: random.Random):
    """A move dropped or in another cycle, or two moves with each other's sources."""
    i = r.choice([i for i, x in enumerate(instructions) if x.moves])
    moves = list(instructions[i].moves)
    k = r.randrange(len(moves))
    kind = r.choice(("drop", "shift", "swap", "register"))
    found = without(instructions, i, k)
    if kind == "shift":
        j = i + r.choice((-2, -1, 1, 2))
        if not 0 <= j < len(found) or moves[k].bus in {m.bus for m in found[j].moves}:
            return None
        more = sorted((*found[j].moves, moves[k]), key=lambda m: MODEL.bit[m.bus])
        found[j] = replace(found[j], moves=tuple(more))
    elif kind != "drop":
        source = r.choice(moves).source if kind == "swap" else RegisterRef("r", r.randrange(10))
        moves[k] = replace(moves[k], source=source)
        found[i] = replace(instructions[i], moves=tuple(moves))
    a = MACHINE.architecture
    legal = not any("no port" not in p for x in found for p in instruction_problems(x, a))
    return found if legal and found != instructions else None


def outcome(instructions) -> bytes | None:
    """What a block leaves in memory, with register 9; None if the machine stops with a fault."""
    first = [
        Instruction((Move("s0", Literal(value), RegisterRef("r", n)),))
        for n, value in ((0, 64), (8, 128), (1, 7), (2, 11), (3, 13), (4, 17), (5, 19), (6, 23))
    ]
    last = (
        Move("s0", Literal(136), PortRef("lsu", "in1t", "st32")),
        Move("s1", RegisterRef("r", 9), PortRef("lsu", "in2")),
    )
    halt = Instruction((Move("s0", Literal(0), PortRef("cu", "pc", "halt")),))
    program = Program((*first, *instructions, Instruction(last), halt))
    try:
        simulator = Interpreter(allocate_ports(program, MACHINE), MACHINE)
        simulator.write("dmem", 64, np.array([1000, 77], np.int32).tobytes())
        simulator.run(1000)
    except SimError:
        return None
    return simulator.read("dmem", 128, 12)


def test_blocks_are_proved_and_every_move_is_needed():
    ops, keeps = block()
    chunk = straight(ops, keeps, MODEL)
    prove_block(Work(ops, keeps), chunk, MODEL, WIRING)
    assert outcome(chunk.instructions) is not None
    for i, x in enumerate(chunk.instructions):
        for k in range(len(x.moves)):
            with pytest.raises(WrongScheduleError):
                less = Chunk(without(chunk.instructions, i, k))
                prove_block(Work(ops, keeps), less, MODEL, WIRING)


def test_what_is_proved_runs_the_same():
    """Of random changes of a schedule, those that change what it does are found."""
    ops, keeps = block()
    chunk = straight(ops, keeps, MODEL)
    wanted = outcome(chunk.instructions)
    r = random.Random(1)
    wrong = 0
    for _ in range(200):
        found = mutated(chunk.instructions, r)
        if found is None or outcome(found) == wanted:
            continue
        wrong += 1
        with pytest.raises(WrongScheduleError):
            prove_block(Work(ops, keeps), Chunk(found), MODEL, WIRING)
    assert wrong > 50


def test_loops_are_proved_and_every_move_is_needed():
    ops, keeps = loop()
    chunks = pipelined(ops, keeps, FREE, 40, MODEL, "")
    assert chunks is not None and len(chunks) == 3
    work = Work(ops, keeps, FREE)
    prove_loop(work, 40, chunks, MODEL, WIRING)
    numbers = set()  # that stand at ports already
    for n, chunk in enumerate(chunks):
        for i, x in enumerate(chunk.instructions):
            for k, move in enumerate(x.moves):
                if isinstance(move.source, Literal):
                    if (move.source, move.destination) in numbers:
                        continue
                    numbers.add((move.source, move.destination))
                changed = [*chunks[:n], Chunk(without(chunk.instructions, i, k)), *chunks[n + 1 :]]
                with pytest.raises(WrongScheduleError):
                    prove_loop(work, 40, changed, MODEL, WIRING)


@pytest.mark.parametrize(("count", "wrong"), [(1, "ld32"), (3, "sub")])
def test_a_load_of_another_memory_is_another_load(count, wrong):
    """A load on another memory's unit, and two with each other's, are found."""
    r = [scalar(n) for n in range(3)]
    ops = [
        Op("ld32", (64,), r[0], access("x")),
        Op("ld32", (64,), r[1], Access("pmem", "w", constant=True)),
        Op("sub", (r[0], r[1]), r[2]),
    ][:count]
    work = Work(ops, [op is ops[-1] for op in ops])
    chunk = straight(ops, list(work.keeps), MODEL)
    prove_block(work, chunk, MODEL, WIRING)
    other = {"lsu": "plsu", "plsu": "lsu"}

    def moved(place):
        if not isinstance(place, PortRef):
            return place
        return replace(place, unit=other.get(place.unit, place.unit))

    def on_other_units(x: Instruction) -> Instruction:
        moves = (replace(m, source=moved(m.source), destination=moved(m.destination))
                 for m in x.moves)  # fmt: skip
        return replace(x, moves=tuple(moves))

    with pytest.raises(WrongScheduleError, match=f"^{wrong} does not start"):
        changed = Chunk([on_other_units(x) for x in chunk.instructions])
        prove_block(work, changed, MODEL, WIRING)


def test_a_loop_starts_with_its_operands():
    """The start of a hardware loop at the end of a block is proved with it."""
    ops = [Op("add", (scalar(0), 1), scalar(1))]
    start = Op("hwloop", (scalar(1), 7))
    chunk = straight(ops, [False], MODEL, loop=start)
    prove_block(Work([*ops, start], [False, False]), chunk, MODEL, WIRING)
    for wrong in (Op("hwloop", (scalar(1), 8)), Op("hwloop", (scalar(0), 7))):
        with pytest.raises(WrongScheduleError, match="hwloop"):
            prove_block(Work([*ops, wrong], [False, False]), chunk, MODEL, WIRING)


def with_immediates(width: int, registers: int, *, loops: bool = True) -> Machine:
    """The machine with other immediates, and perhaps without hardware loops."""
    a = MACHINE.architecture
    buses = tuple(
        replace(b, immediate=replace(b.immediate, width=width)) if b.immediate else b
        for b in a.buses
    )
    control = a.control if loops else replace(
        a.control, loop_depth=0, loop_buffer=0,
        operations=tuple(o for o in a.control.operations if o.operation != "hwloop"),
    )  # fmt: skip
    units = tuple(replace(u, size=registers) for u in a.immediates)
    made = replace(a, buses=buses, immediates=units, control=control)
    assert list(problems(made, MACHINE.operations)) == []
    return replace(MACHINE, architecture=made)


@pytest.mark.parametrize(("width", "registers"), [(5, 4), (4, 1)])
def test_immediates_may_be_short(width, registers):
    """Lengths and rounds of loops are long immediates where short ones do not reach."""
    check(convolution(8, 32, 3, 9), with_immediates(width, registers))


def test_counted_loops_of_many_rounds():
    """The number of rounds may be too long for the slot of a bus."""
    check(convolution(4, 8, 1, 50), with_immediates(7, 4, loops=False))


def test_a_long_immediate_leaves_one_that_is_read_later():
    """Where the only immediate register is in use, a loop cannot start."""
    model = Model(with_immediates(4, 1))
    unit = model.a.immediates[0].name
    held = (model.template(1000)[0], LongImmediate(unit, 0, 1000))
    read = Move("s0", RegisterRef(unit, 0), RegisterRef("r", 1))

    def starts(before: int, after: int) -> bool:
        """The long immediate is written in cycle `before` and read in cycle `after`, of 12."""
        rows = [[] for _ in range(12)]
        rows[after].append(read)
        return start_loop(rows, {before: held}, 8, 5, 1000, model)

    assert starts(0, 1) and starts(9, 10)
    assert not starts(0, 11)


def test_a_number_is_spelled_for_its_bus():
    """-1 moves from a bus with signed immediates to one with unsigned ones."""
    a = MACHINE.architecture
    buses = tuple(
        replace(b, immediate=replace(b.immediate, width=32, extension="zero"))
        if b.name == "s1" else replace(b, immediate=None) if b.name != "s0" else b
        for b in a.buses
    )  # fmt: skip
    model = Model(replace(MACHINE, architecture=replace(a, buses=buses)))
    one = Instruction((Move("s0", Literal(1), PortRef("alu0", "in2")),))
    two = Instruction((Move("s0", Literal(-1), PortRef("alu1", "in2")),))
    both = merged(one, two, model)
    assert both is not None
    assert [(m.bus, m.source) for m in both.moves] == [
        ("s0", Literal(1)), ("s1", Literal(0xFFFFFFFF))
    ]  # fmt: skip
    assert list(instruction_problems(both, model.a)) == []


def test_calls_do_not_overlap():
    """What stands behind a barrier may be where something else was before."""
    r = [Register("scalar") for _ in range(3)]

    def overtakes(*between: Op) -> bool:
        """Whether a load of another region comes before the store."""
        items = [
            Op("mul", (3, 5), r[0]), Op("mul", (r[0], 7), r[1]),
            Op("st32", (64, r[1]), None, access("x")),
            *between,
            Op("ld32", (128,), r[2], access("y")), Op("st32", (192, r[2]), None, access("z")),
        ]  # fmt: skip
        memory = Memory(MACHINE, MACHINE.architecture)
        program = link(allocate(items, MODEL, memory), MODEL, ())
        started = [
            m.destination.operation for x in program.instructions for m in x.moves
            if isinstance(m.destination, PortRef) and m.destination.operation
        ]  # fmt: skip
        return started.index("ld32") < started.index("st32")

    assert overtakes()
    assert not overtakes(Op(BARRIER, (), None, None))


def test_a_loop_is_started_once(monkeypatch):
    """What is tried first and has no room leaves nothing behind."""
    real, tries = pipeline.start_loop, []

    def once_in_vain(rows, long, at, trips, length, model):
        tries.append(at)
        started = real(rows, long, at, trips, length, model)
        return started and len(tries) > 1

    monkeypatch.setattr(pipeline, "start_loop", once_in_vain)
    ops, keeps = loop()
    chunks = pipelined(ops, keeps, FREE, 40, MODEL, "")
    assert chunks is not None and len(tries) > 1
    starts = [
        m for c in chunks for x in c.instructions for m in x.moves
        if isinstance(m.destination, PortRef) and m.destination.operation == "hwloop"
    ]  # fmt: skip
    assert len(starts) == 1
    prove_loop(Work(ops, keeps, FREE), 40, chunks, MODEL, WIRING)


@pytest.mark.parametrize(("region", "may"), [("y", False), ("z", True)])
def test_chunks_overlap_unless_memory_forbids(region, may):
    """A load may begin before a store of the chunk before it if it reads another region."""
    r = [scalar(n) for n in range(10)]
    first = straight(
        [
            Op("mul", (r[0], r[1]), r[2]),
            Op("mul", (r[2], r[1]), r[2]),
            Op("st32", (r[3], r[2]), None, access("y")),
        ],
        [False] * 3, MODEL,
    )  # fmt: skip
    second = straight([Op("ld32", (r[4],), r[5], access(region))], [True], MODEL)
    shared = overlap(first, second, MODEL, WIRING, 20)
    both = joined(first, second, MODEL, WIRING)
    assert len(both.instructions) == len(first.instructions) + len(second.instructions) - shared
    loads, stores = (
        next(i for i, x in enumerate(both.instructions) for m in x.moves
             if isinstance(m.destination, PortRef) and m.destination.operation == name)
        for name in ("ld32", "st32")
    )  # fmt: skip
    assert (loads < stores) == may


@pytest.mark.parametrize(("register", "may"), [(1, True), (2, False)])
def test_nothing_is_read_before_it_is_written(register, may):
    """Not even by a move to a port where nothing looks at the value."""
    r = [scalar(n) for n in range(3)]
    ops = [Op("mul", (r[0], r[1]), r[2]), Op("mul", (r[2], r[1]), r[2])]
    first = straight(ops, [False, True], MODEL)
    port = PortRef("alu0", "in2")
    moves = (Move("s0", RegisterRef("r", register), port), Move("s0", Literal(1), port))
    second = Chunk([Instruction((m,)) for m in moves], lead=2, trail=2)
    assert (overlap(first, second, MODEL, WIRING, 20) > 0) == may


def test_rounds_overlap_as_far_as_values_allow():
    """Round after round equals the rotated loop, for some numbers of rounds."""
    r = [scalar(n) for n in range(6)]
    ops = [
        Op("ld32", (r[0],), r[1], access("x")),
        Op("add", (r[0], 4), r[0]),
        Op("mul", (r[1], r[2]), r[3]),
        Op("mul", (r[3], r[1]), r[3]),
        Op("st32", (r[4], r[3]), None, access("y")),
    ]
    keeps = [op.result is r[0] for op in ops]
    chunk = straight(ops, keeps, MODEL)
    turned = rotated(chunk, MODEL, WIRING)
    assert turned is not None and len(turned.body.instructions) < len(chunk.instructions)
    work = Work(ops, keeps)
    for rounds in (2, 3, 5):
        parts = turned.head.instructions + turned.body.instructions * (rounds - 1)
        whole = [Chunk(parts + turned.tail.instructions)]
        prove_loop(work, rounds, whole, MODEL, WIRING)


def test_code_that_is_too_long_is_made_without_copies():
    case = convolution(32, 32, 3, 5)
    long, _, _ = compiled(case, MACHINE)
    count = len(long.program.instructions)
    a = MACHINE.architecture
    spaces = tuple(
        replace(s, max_address=count - 2) if s.name == a.control.address_space else s
        for s in a.spaces
    )
    small = replace(MACHINE, architecture=replace(a, spaces=spaces))
    made, _, code = simulated(case, small)
    assert len(code.program.instructions) < count
    wanted, _, _ = simulated(case, MACHINE)
    for name, x in wanted.items():
        np.testing.assert_array_equal(made[name], x)
