"""Programs that do what their machine forbids: both simulators stop, and say the same."""

from dataclasses import replace

import pytest

from nncc.diagnostics import SimError
from nncc.isa.tta import assemble
from nncc.isa.tta.program import Instruction, Move, Program, RegisterRef
from nncc.machines import load
from nncc.runtime.tta.interpreter import Interpreter
from nncc.runtime.tta.translated import Translated

SIMULATORS = [Interpreter, Translated]

# (machine, text, the cycle and instruction of the fault, message)
FAULTS = [
    ("tta", "1 -> r.0 ; r.1 -> r.2", 1, 1, "r.1 is read and was never written"),
    ("tta", "alu0.out1 -> r.2", 0, 0, "alu0.out1 is read and was never written"),
    ("tta", "1 -> alu0.in1t.add", 0, 0, "alu0.in2 is read and was never written"),
    ("tta", "1 -> alu0.in2, 1 -> alu1.in2 ; 2 -> alu0.in1t.add ; alu0.out1 -> r.0 ; ...",
     4, 4, "the program runs past its last instruction"),
    ("tta", "?b.0 1 -> r.0", 0, 0, "guard b.0 was never written"),
    ("tta", "1 -> mul.in2 ; 1 -> mul.in1t.mul ; mul.out1 -> r.0", 2, 2, "mul.out1 is read"),
    ("tta", "16 -> lsu.in1t.ld32", 0, 0, "byte 16 of dmem is read and was never written"),
    ("tta", "16 -> lsu.in1t.st8, 1 -> lsu.in2 ; 16 -> lsu.in1t.ld32", 1, 1, "byte 17 of dmem"),
    ("tta", "18 -> lsu.in1t.ld32", 0, 0, "address 18 is not aligned to 4 bytes"),
    ("tta", "-4 -> lsu.in1t.ld32", 0, 0, "address 4294967292 is outside of memory dmem"),
    ("tta", "1 -> lsu.in2 ; -1 -> lsu.in1t.st8", 1, 1, "address 4294967295 is outside of memory"),
    ("tta", "1 -> vbc.at.broadcast32 ; ..., ..., ..., ..., ..., ..., vbc.out1 -> vlsu.in2 ; "
     "0 -> vlsu.in1t.st8x32, 4 -> lsu.in1t.st32, 1 -> lsu.in2",
     2, 2, "two stores to one byte of dmem in one cycle"),
    ("tta", "9 -> cu.pc.jump", 0, 0, "a jump to 9, outside of the program"),
    ("tta", "0 -> cu.pc.jump ; 0 -> cu.pc.jump", 1, 1, "a jump in the delay slots of another"),
    ("tta", "0 -> cu.in2 ; 3 -> cu.pc.hwloop", 1, 1, "a loop without iterations or instructions"),
    ("tta", "9 -> cu.in2 ; 3 -> cu.pc.hwloop", 1, 1, "a loop to 12, outside of the program"),
    ("tta", "1 -> cu.in2 ; 3 -> cu.pc.hwloop ; ...; ...; 0 -> cu.pc.jump",
     4, 4, "a jump inside of a loop"),
    ("tta", "4 -> cu.in2 ; 2 -> cu.pc.hwloop ; ... ; ... ; 2 -> cu.pc.hwloop ; ... ; ... ; ... ; "
     "... ; ... ; ...", 4, 4, "a loop reaches beyond the loop around it"),
    ("tta_minimal", "0 -> lsu.in2 ; 20000000 -> lsu.in1t.st32", 1, 1, "outside of memory data"),
]  # fmt: skip


def raised(simulator, program, machine) -> SimError:
    with pytest.raises(SimError) as error:
        simulator(program, machine).run(1000)
    return error.value


@pytest.mark.parametrize("name, text, cycle, place, message", FAULTS)
def test_faults_name_cycle_instruction_and_source(name, text, cycle, place, message):
    machine = load(name)
    program = assemble(f'CODE ; :source "conv1" ; {text} ;', machine)
    errors = [raised(s, program, machine) for s in SIMULATORS]
    assert errors[0].render() == errors[1].render()
    assert message in errors[0].message
    assert errors[0].message.startswith(f"cycle {cycle}, instruction {place}")
    assert errors[0].location.node == ("" if place >= len(program.instructions) else "conv1")


def test_two_results_at_a_port():
    """A multiplication of latency 2, and a product of latency 1 started one cycle later."""
    minimal = load("tta_minimal")
    alu = minimal.architecture.unit["alu"]
    slow = tuple(
        replace(o, operands=(*o.operands[:-1], replace(o.operands[-1], start=1)))
        if o.operation == "mul"
        else o
        for o in alu.operations
    )
    units = tuple(
        replace(u, operations=slow) if u.name == "alu" else u for u in minimal.architecture.units
    )
    machine = replace(minimal, architecture=replace(minimal.architecture, units=units))
    text = "CODE ; 3 -> alu.in2 ; 4 -> alu.in1t.mul ; 5 -> alu.in1t.add ; ... ;"
    program = assemble(text, machine)
    errors = [raised(s, program, machine) for s in SIMULATORS]
    assert errors[0].render() == errors[1].render()
    assert "cycle 2, instruction 2" in errors[0].message
    assert "two results reach alu.out1 in one cycle" in errors[0].message


PAST = """CODE ; 4 -> lsu.in2 ; 0 -> bool.0 ; ?bool.0 0 -> gcu.pc.jump ; ... ; ... ;
  ?bool.0 8 -> lsu.in1t.st32 ;"""  # what follows the jump is no place in the program


@pytest.mark.parametrize("text", ["", PAST])
def test_running_past_the_end(text):
    machine = load("tta_minimal")
    program = assemble(text, machine) if text else Program(())
    errors = [raised(s, program, machine) for s in SIMULATORS]
    assert errors[0].render() == errors[1].render()
    assert "the program runs past its last instruction" in errors[0].message


def test_illegal_instructions_stop_when_they_are_reached():
    machine = load("tta_minimal")
    move = Move("B1", RegisterRef("RF", 0, "rd"), RegisterRef("RF", 1, "wr"))
    program = Program((Instruction(), Instruction((move, move))))
    errors = [raised(s, program, machine) for s in SIMULATORS]
    assert errors[0].render() == errors[1].render()
    assert "cycle 1, instruction 1" in errors[0].message
    assert "moves are not one a bus" in errors[0].message


def test_the_limit_of_cycles():
    machine = load("tta_minimal")
    program = assemble("CODE ; l: l -> gcu.pc.jump ; ... ; ... ; ... ;", machine)
    errors = [raised(s, program, machine) for s in SIMULATORS]
    assert errors[0].render() == errors[1].render()
    assert "cycle 1000, instruction 0" in errors[0].message
    assert "the limit of 1000 cycles is reached" in errors[0].message


@pytest.mark.parametrize("address, stalls", [(0, 1), (28, 1), (32, 0), (160, 0), (512, 1)])
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_banks_lock_the_machine(simulator, address, stalls):
    """32 bytes at 128 are row 1 of the banks 0 to 7; another row of one of these has to wait."""
    machine = load("tta")
    text = f"""CODE ;
      7 -> lsu.in2, 3 -> vbc.at.broadcast32 ;
      ..., ..., ..., ..., ..., ..., vbc.out1 -> vlsu.in2 ;
      {address} -> lsu.in1t.st32, 128 -> vlsu.in1t.st8x32 ;
      0 -> cu.pc.halt ;
    """
    counts = simulator(assemble(text, machine), machine).run(100)
    assert (counts.cycles, counts.instructions) == (4 + stalls, 4)
    assert sum(counts.stalls.values()) == counts.sources[""].stalls == stalls


def test_memories_from_outside():
    machine = load("tta_minimal")
    program = assemble("CODE ; ... ;", machine)
    for simulator in SIMULATORS:
        s = simulator(program, machine)
        s.write("data", 100, b"abc")
        assert s.read("data", 99, 5) == b"\0abc\0"
        with pytest.raises(SimError, match="4 bytes at 16777213 are not inside of memory data"):
            s.write("data", 16777213, bytes(4))
