"""Random programs that run for a while before they do wrong.

Instructions are drawn one after the other and tried on a copy of the simulated machine; one that
makes a fault at once is drawn again. Jumps and loops come back to instructions in other states,
so that most programs end with some fault, all the same.
"""

import copy
import random
from collections import deque
from dataclasses import replace

from nncc.diagnostics import SimError
from nncc.isa.tta.encoding import encoding_of
from nncc.isa.tta.program import Instruction, Literal, Move, PortRef, Program
from nncc.isa.tta.verify import literal_range
from nncc.machines.machine import Machine
from nncc.runtime.tta.counters import Tally
from nncc.runtime.tta.decoded import decode_program
from nncc.runtime.tta.interpreter import Interpreter
from tests.tta.random_machines import random_data, random_instruction


def _clone(s: Interpreter) -> Interpreter:
    other = copy.copy(s)
    other.values, other.coming = dict(s.values), dict(s.coming)
    other.loops = [copy.copy(x) for x in s.loops]
    other.seen = deque(s.seen, maxlen=s.seen.maxlen)
    other.memory = {n: (bytearray(d), bytearray(w)) for n, (d, w) in s.memory.items()}
    other.tally = Tally(len(s.tally.executed) + 1)
    return other


def forced(r: random.Random, machine: Machine, place: PortRef, value: int) -> Instruction | None:
    """An instruction that moves a literal to a port, if some bus can."""
    a = machine.architecture
    fitting = [
        Move(name, Literal(value), place)
        for name, slot in encoding_of(a).moves.items()
        if place in slot.destinations and value in literal_range(a.bus[name])
    ]
    return Instruction((r.choice(fitting),)) if fitting else None


def a_loop(r: random.Random, machine: Machine) -> list[Instruction]:
    """The instructions that start a loop, if the machine has any and can."""
    if "hwloop" not in machine.operations:
        return []
    first = forced(r, machine, PortRef("cu", "n"), r.randint(1, 4))
    second = forced(r, machine, PortRef("cu", "pc", "hwloop"), r.randint(1, 6))
    return [first, second] if first and second else []


def _controls(i: Instruction, machine: Machine) -> bool:
    """Whether an instruction starts an operation of the control unit."""
    unit = machine.architecture.control.name
    places = (m.destination for m in i.moves)
    return any(isinstance(p, PortRef) and p.unit == unit and p.operation for p in places)


def long_program(r: random.Random, machine: Machine) -> Program:
    """A program of up to 40 instructions."""
    length = r.randint(2, 40)
    filler = random_instruction(r, machine, length)
    program = Program((replace(filler, moves=()),), random_data(r, machine))
    simulator = Interpreter(program, machine)
    found: list[Instruction] = []
    wanted: list[Instruction] = []
    while len(found) < length:
        if not wanted and r.random() < 0.15:
            wanted = a_loop(r, machine)
        next_one = wanted.pop(0) if wanted else None
        for attempt in range(14):
            instruction = next_one or random_instruction(r, machine, length)
            if attempt == 13 and r.random() < 0.8:
                instruction = Instruction()
            elif next_one is None and _controls(instruction, machine) and r.random() < 0.8:
                continue  # jumps to anywhere soon end in a fault
            next_one = None
            trial = _clone(simulator)
            decoded = (
                *simulator.decoded[: len(found)],
                *decode_program(Program((instruction,)), machine),
            )
            # targets in what does not exist yet are inside of the program, too
            trial.decoded = decoded + decoded[:1] * (length - len(decoded))
            trial.position = len(found)
            trial.tally.executed = [0] * length
            trial.program = replace(program, instructions=(*found, instruction))
            try:
                trial.step()
            except SimError:
                continue
            simulator = trial
            simulator.finished = simulator.finished and r.random() < 0.1
            break
        found.append(instruction)
        if simulator.finished:
            break
    if not simulator.finished and r.random() < 0.7:  # and again from the beginning
        back = forced(r, machine, PortRef("cu", "pc", "jump"), 0)
        if back is not None:
            slots = (Instruction(),) * machine.architecture.control.delay_slots
            found += (back, *slots)
    return replace(program, instructions=tuple(found))
