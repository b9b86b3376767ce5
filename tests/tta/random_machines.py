"""Random machines and random programs for them."""

import random
from dataclasses import replace
from functools import cache

from nncc.isa.tta import allocate_ports
from nncc.isa.tta.encoding import encoding_of
from nncc.isa.tta.program import (
    Data,
    Instruction,
    Literal,
    LongImmediate,
    Move,
    PortRef,
    Program,
)
from nncc.isa.tta.verify import instruction_problems, literal_range, long_range
from nncc.machines.fields import Where
from nncc.machines.loader import base_operations
from nncc.machines.machine import Machine, Operation
from nncc.machines.semantics import parse_semantics
from nncc.machines.tta.check import problems
from nncc.machines.tta.model import (
    AddressSpace,
    Architecture,
    Bus,
    ControlUnit,
    FunctionUnit,
    Guard,
    ImmediatePiece,
    ImmediateSlot,
    ImmediateUnit,
    InstructionTemplate,
    OperandBinding,
    OperationBinding,
    Port,
    RegisterFile,
    ShortImmediate,
    Socket,
)

VECTOR = {
    "dot4x4": """nest dot4x4(out y: i32[4], in a: i8[4], in b: i8[4,4]) {
      s: for m in 0..4, k in 0..4 { y[m] sum= (cast(i32, a[k]) + 128) * cast(i32, b[m,k]) } }""",
    "max4": """nest max4(out y: i32[4], in a: i32[4], in b: i32[4]) {
      s: for m in 0..4 { y[m] = max(a[m], b[3 - m]) } }""",
    "bits4": """nest bits4(out y: u32[], in a: i32[4], in b: i32[4]) {
      s: for m in 0..4 { y[] sum= cast(u32, a[m] >= b[m]) << value(u32, m) } }""",
    "scale4": """nest scale4(out y: i8[4], in a: i32[4], in b: i32[4]) {
      s: for m in 0..4 { y[m] = cast(i8, min(max((cast(i64, a[m]) * cast(i64, b[m])
        + (i64(1) << 30)) >> 31, -128), 127)) } }""",
}
MEMORY = {
    "ld32x4": ("load", """nest ld32x4(out y: i32[4], in memory: i32[4]) {
      s: for m in 0..4 { y[m] = memory[m] } }"""),
    "st32x4": ("store", """nest st32x4(out memory: i32[4], in a: i32[4]) {
      s: for m in 0..4 { memory[m] = a[m] } }"""),
    "st8x3": ("store", """nest st8x3(out memory: i8[3], in a: i32[4]) {
      s: for m in 0..3 { memory[m] = cast(i8, a[m]) } }"""),
}  # fmt: skip


@cache
def operations() -> dict[str, Operation]:
    where = Where("test")
    own = [Operation(n, parse_semantics(t, where, kind="compute")) for n, t in VECTOR.items()]
    own += [
        Operation(n, parse_semantics(t, where, kind=kind), kind=kind)
        for n, (kind, t) in MEMORY.items()
    ]
    return base_operations() | {o.name: o for o in own}


class _Maker:
    def __init__(self, r: random.Random) -> None:
        self.r = r
        self.sockets: list[Socket] = []
        self.buses = self._buses()

    def _buses(self) -> tuple[Bus, ...]:
        r = self.r
        names = [f"b{k}" for k in range(r.randint(1, 4))]
        every = [Guard("bool", k, i) for k in (0, 1) for i in (False, True)]
        every.append(Guard("rf", 0))
        found = []
        for name in names:
            width = r.choice((32, 32, 64, 128))
            size = r.choice((0, 4, 8, 32, min(width, 33)))
            immediate = ShortImmediate(size, r.choice(("zero", "sign"))) if size else None
            guards = tuple(g for g in every if r.random() < 0.5)
            found.append(Bus(name, width, guards, immediate, r.choice((0.0, 0.25))))
        found[0] = replace(found[0], immediate=ShortImmediate(32, "zero"))
        return tuple(found)

    def port(self, unit: str, name: str, width: int, direction: str, triggers=False) -> Port:
        some = [b.name for b in self.buses if self.r.random() < 0.7]
        buses = tuple(some) if self.r.random() < 0.5 else tuple(b.name for b in self.buses)
        sockets = []
        for one in ("input", "output") if direction == "both" else (direction,):
            sockets.append(f"{unit}_{name}_{one}")
            self.sockets.append(Socket(sockets[-1], one, buses or (self.buses[0].name,)))
        return Port(name, width, tuple(sockets), triggers, triggers)

    def unit(self, name, names, ports, bind, space="") -> FunctionUnit:
        made = tuple(self.port(name, *p) for p in ports)
        bindings = []
        for op in names:
            latency = self.r.choice((1, 1, 2, 3, 4))
            operands = tuple(
                OperandBinding(o.name, bind[o.name], latency - 1 if o.is_result else 0)
                for o in operations()[op].operands
            )
            bindings.append(OperationBinding(op, operands))
        return FunctionUnit(name, made, tuple(bindings), space)

    def machine(self) -> Machine:
        r = self.r
        scalar = (("t", 32, "input", True), ("o", 32, "input"), ("y", 32, "output"))
        bind = {"a": "t", "b": "o", "y": "y"}
        access = bind | {"address": "t", "a": "o"}
        wide = (("t", 32, "input", True), ("o", 128, "input"), ("y", 128, "output"))
        vector = (
            ("t", 128, "input", True), ("o", 128, "input"), ("c", 128, "input"),
            ("y", 128, "output"), ("z", 40, "output"),
        )  # fmt: skip
        vbind = {"a": "o", "b": "t", "y.old": "c", "y": "y"}
        units = [
            self.unit("alu", ("add", "xor", "gt", "shl", "mul"), scalar, bind),
            self.unit("lsu", ("ld32", "ldu8", "ld8", "st32", "st8"), scalar, access, "mem"),
        ]
        if r.random() < 0.7:
            units.append(self.unit("vec", ("dot4x4", "max4", "bits4", "scale4"), vector, vbind))
        if r.random() < 0.7:
            names = ("ld32x4", "st32x4", "st8x3")
            units.append(
                self.unit("vlsu", names, wide, access, r.choice(("mem", "mem", "mem", "par")))
            )
        files = (
            self.file("rf", r.randint(1, 4), 32),
            self.file("bool", 2, 1),
            self.file("vr", r.randint(1, 3), 128),
        )
        immediates, slots, templates = self.immediates()
        depth = r.choice((0, 1, 2, 3))
        control_names = ["jump", "call", "halt"] + (["hwloop"] if depth else [])
        cbind = {"target": "pc", "status": "pc", "iterations": "n", "instructions": "pc"}
        control = ControlUnit(
            "cu",
            (
                self.port("cu", "pc", 32, "input", True),
                self.port("cu", "n", 32, "input"),
                self.port("cu", "ra", 32, "both"),
            ),
            tuple(
                OperationBinding(
                    n,
                    tuple(OperandBinding(o.name, cbind[o.name]) for o in operations()[n].operands),
                )
                for n in control_names
            ),
            delay_slots=r.randint(0, 3),
            guard_latency=r.choice((1, 1, 1, 2, 3)),
            return_port="ra",
            loop_depth=depth,
            loop_buffer=r.choice((0, 2, 8)),
            address_space="imem",
        )
        a = Architecture(
            buses=self.buses,
            sockets=tuple(self.sockets),
            units=tuple(units),
            files=files,
            control=control,
            spaces=(
                AddressSpace("mem", 8, r.choice((0, 16)), 79, r.choice((0, 1, 1, 2, 4)), 4),
                AddressSpace("par", 8, 0, 63, r.choice((0, 4)), r.choice((2, 8))),
                AddressSpace("imem", 8, 0, 1023),
            ),
            immediates=immediates,
            immediate_slots=slots,
            templates=templates,
        )
        assert list(problems(a, operations())) == []
        used = {o.operation for u in a.unit.values() for o in u.operations}
        return Machine(
            "random", "tta", "", (), 16, 4, 1e6,
            operations={n: o for n, o in operations().items() if n in used}, architecture=a,
        )  # fmt: skip

    def file(self, name: str, size: int, width: int) -> RegisterFile:
        reads, writes = self.r.randint(1, 3), self.r.randint(1, 2)
        ports = [self.port(name, f"r{k}", width, "output") for k in range(reads)]
        ports += [self.port(name, f"w{k}", width, "input") for k in range(writes)]
        return RegisterFile(
            name, size, width, tuple(ports), self.r.randint(1, reads), self.r.randint(1, writes)
        )

    def immediates(self):
        r = self.r
        if r.random() < 0.3:
            return (), (), ()
        extension = r.choice(("zero", "sign"))
        unit = ImmediateUnit("imm", r.randint(1, 3), 32, (self.port("imm", "r", 32, "output"),),
                             extension)  # fmt: skip
        slot = ImmediateSlot("wide", r.randint(1, 32))
        templates = [InstructionTemplate("outside", (ImmediatePiece("wide", slot.width, "imm"),))]
        first = ImmediatePiece(self.buses[0].name, r.randint(1, 16), "imm")
        last = ImmediatePiece(self.buses[-1].name, r.randint(1, 16), "imm")
        pieces = (first,) if len(self.buses) == 1 else (first, last)
        templates.append(InstructionTemplate("inside", pieces))
        return (unit,), (slot,), tuple(templates)


def random_machine(r: random.Random) -> Machine:
    return _Maker(r).machine()


def random_instruction(r: random.Random, machine: Machine, length: int) -> Instruction:
    """A legal instruction with random moves; literals are small or whatever fits."""
    a = machine.architecture
    encoding = encoding_of(a)
    immediates: tuple[LongImmediate, ...] = ()
    template = ""
    taken: frozenset[str] = frozenset()
    if a.templates and r.random() < 0.2:
        chosen = r.choice(a.templates)
        template, taken = chosen.name, chosen.slots
        immediates = tuple(
            LongImmediate(u, r.randrange(a.immediate[u].size), r.choice(long_range(a, template, u)))
            for u in chosen.units
        )
    found = Instruction((), immediates, template, r.choice(("", "conv1", 'a "b"\n')))
    for name, slot in encoding.moves.items():
        if name in taken or not slot.destinations or r.random() < 0.3:
            continue
        bus = a.bus[name]
        literals = literal_range(bus)
        if literals and (not slot.sources or r.random() < 0.5):
            pick = r.choice((r.choice(literals), r.randrange(80) & ~3, r.randrange(length + 1)))
            source = Literal(pick if pick in literals else 1)
        elif slot.sources:
            source = r.choice(slot.sources)
        else:
            continue
        guard = r.choice(bus.guards) if bus.guards and r.random() < 0.3 else None
        owners = sorted({owner_of(d) for d in slot.destinations})
        owner = r.choice(owners)
        place = r.choice([d for d in slot.destinations if owner_of(d) == owner])
        trial = replace(found, moves=(*found.moves, Move(name, source, place, guard)))
        control = [m for m in trial.moves if getattr(m.destination, "unit", "") == "cu"]
        if not next(instruction_problems(trial, a), "") and len(control) < 3:
            found = trial
    return found


def owner_of(place) -> str:
    return place.unit if isinstance(place, PortRef) else place.file


def random_data(r: random.Random, machine: Machine) -> tuple[Data, ...]:
    found = []
    for memory in machine.architecture.memories:
        size = memory.size if r.random() < 0.8 else r.randint(1, memory.size)
        found.append(Data(memory.name, memory.min_address, r.randbytes(size)))
    return tuple(found)


def random_program(r: random.Random, machine: Machine) -> Program:
    """A legal program; what it does is likely to be a fault."""
    length = r.randint(1, 8)
    instructions = tuple(random_instruction(r, machine, length) for _ in range(length))
    labels = {f"l{k}": r.randint(0, length) for k in range(r.randint(0, 3))}
    program = Program(instructions, random_data(r, machine), labels)
    assert allocate_ports(program, machine) == program
    return program
