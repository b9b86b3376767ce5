"""Programs as text and bits, on random machines."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.diagnostics import FrontendError, NnccError, TargetError, VerifyError
from nncc.isa.tta import assemble, decode, disassemble, encode, listing
from nncc.isa.tta.encoding import encoding_of
from nncc.machines import load
from tests.tta.random_machines import random_machine, random_program

SEEDS = st.integers(0, 2**32 - 1)


def made(seed):
    r = random.Random(seed)
    machine = random_machine(r)
    return r, machine, random_program(r, machine)


def check_round_trips(seed):
    _, machine, program = made(seed)
    bits = encode(program, machine)
    assert decode(bits, machine) == program
    text = disassemble(program, machine)
    assert assemble(text, machine) == program
    assert encode(assemble(text, machine), machine) == bits
    assert disassemble(decode(bits, machine), machine) == text
    encoding = encoding_of(machine.architecture)
    for instruction in program.instructions:
        assert encoding.pack(instruction) < 1 << encoding.width
    for name in program.labels:
        assert f"{name}:" in listing(program, machine)


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_text_and_bits_are_equal_both_ways(seed):
    check_round_trips(seed)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(SEEDS)
def test_text_and_bits_of_many_programs(seed):
    check_round_trips(seed)


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_damaged_binaries_are_refused(seed):
    r, machine, program = made(seed)
    bits = encode(program, machine)
    with pytest.raises(TargetError, match=r"truncated|damaged|magic"):
        decode(bits[: r.randrange(len(bits))], machine)
    damaged = bytearray(bits)
    damaged[r.randrange(len(bits))] ^= 1 << r.randrange(8)
    with pytest.raises(TargetError):
        decode(bytes(damaged), machine)
    # with a checksum that fits, what decodes is a program whose bits are these
    content = bytes(damaged[:-32])
    forged = content + hashlib.sha256(content).digest()
    try:
        found = decode(forged, machine)
        assert encode(found, machine) == forged
    except NnccError:
        pass


def test_binaries_are_bound_to_the_machine():
    tta, minimal = load("tta"), load("tta_minimal")
    program = assemble("CODE ; 1 -> r.0 ;", tta)
    with pytest.raises(TargetError, match="made for another machine than 'tta_minimal'"):
        decode(encode(program, tta), minimal)
    with pytest.raises(TargetError, match="the magic is missing"):
        decode(b"ELF", tta)


# -- assembly ------------------------------------------------------------------------------


def test_openasips_forms_are_read():
    machine = load("tta_minimal")
    program = assemble(
        """
        # a comment
        CODE ;
        :procedure main; :global main;
        main:
          5 -> alu.in2 ;                     # ports
          main+1 -> alu.add.1 ;              # operands of an operation
          alu.add.3 -> RF.rd1 ;
        """.replace("RF.rd1", "RF.1")
        + """
          ?bool.0 RF.rd.1 -> RF.wr.2 ;
          !bool.1 data=16 -> lsu.in1t.ld32 ;
          . . . ; ... ;
          0b101 -> RF.0 ; -1 -> RF.3 ;
        DATA data 16 ;
        data: DA 4 2:0xA8 0x11 ; DA 2 -13 ; DA 3 "ab" ; next: DA 4 next ;
        """,
        machine,
    )
    texts = [[str(m) for m in i.moves] for i in program.instructions]
    assert texts == [
        ["5 -> alu.in2"],
        ["1 -> alu.in1t.add"],
        ["alu.out1 -> RF.wr.1"],
        ["?bool.0 RF.rd.1 -> RF.wr.2"],
        ["!bool.1 16 -> lsu.in1t.ld32"],
        [],
        [],
        ["5 -> RF.wr.0"],
        ["4294967295 -> RF.wr.3"],
    ]
    assert program.labels == {"main": 0}
    (data,) = program.data
    assert data.content == bytes([0xA8, 0, 0x11, 0, 0xF3, 0xFF, *b"ab\0", 25, 0, 0, 0])


def test_long_immediates_and_sources():
    machine = load("tta")
    text = """CODE ;
      :source "conv1" ;
      ..., ..., ..., ..., [imm.2=-70000], [imm.2] ;
      imm.2 -> r.0 ;
    """
    program = assemble(text, machine)
    first, second = program.instructions
    assert first.template == "long" and first.immediates[0].value == -70000
    assert first.source == second.source == "conv1"
    assert "imm.r0.2 -> r.w0.0" in listing(program, machine)


@pytest.mark.parametrize(
    "text, place, message",
    [
        ("CODE ; 3 -> foo.x ;", (1, 13), "there is no unit or register file 'foo'"),
        ("CODE ;\n 3 -> alu.in2\n 4", (3, 2), "expected ',' or ';' or '['; found '4'"),
        ("CODE ; RF.0 -> alu.in1t.ad ;", (1, 16), "alu has no operation 'ad'"),
        ("CODE ; RF.0 -> alu.add.4 ;", (1, 16), "operation add has operands 1..3"),
        ("CODE ; RF.0 -> alu.in3 ;", (1, 16), "alu has no port 'in3'"),
        ("CODE ; RF.x -> alu.in2 ;", (1, 8), "the last part is a register's number"),
        ("CODE ; lab -> RF.0 ;", (1, 8), "there is no label 'lab'"),
        ("CODE ; l: ... ; l: ... ;", (1, 17), "there are two labels 'l'"),
        ("CODE ; l: ... ; l=1 -> RF.0 ;", (1, 19), "label 'l' is 0, not 1"),
        ("CODE ; $ ;", (1, 8), "'$' fits nothing here"),
        ("CODE ; 5000000000 -> RF.0 ;", (1, 8), "5000000000 does not fit"),
        ("CODE ; ..., 1 -> RF.0 ;", (1, 13), "the machine has 1 buses"),
        ("CODE ; :sauce 'x' ;", (1, 9), "there is no directive :sauce"),
        ("CODE 4 ; ... ;", (1, 6), "code continues at 0, not at 4"),
        ("CODE ; [RF.0=1] ;", (1, 9), "'RF.0' is no register of an immediate unit"),
        ("DATA date ;", (1, 6), "there is no memory date"),
        ("CODE ; ... ; DATA data ; DA 1 0x100 ;", (1, 31), "256 does not fit 1 bytes"),
        ("CODE ; ... ; DATA data ; DA 1 'ab' ;", (1, 29), "2 bytes of values for 1"),
        ("CODE ; 1 -> RF.0", (1, 17), "the text ends"),
        ("CODE ; ... ; DATA data ; DA -4 1 ;", (1, 29), "-4 bytes do not fit data of 16777216"),
        ("CODE ; ... ; DATA data ; DA 99999999999 1 ;", (1, 29), "99999999999 bytes do not fit"),
        ("CODE ; ... ; DATA data ; DA 4 0:1 ;", (1, 33), "a value of 0 bytes does not fit 4"),
        ("CODE ; ... ; DATA data ; DA 4 99999999999:1 ;", (1, 43), "does not fit 4"),
        ("CODE ; ... ; DATA data ; DA 0 1 ;", (1, 31), "a value of 0 bytes does not fit 0"),
        ("CODE ; \u0663 -> RF.0 ;", (1, 8), "fits nothing here"),
        ("CODE ; RF.\u0663 -> RF.0 ;", (1, 10), "fits nothing here"),
    ],
)
def test_errors_point_into_the_text(text, place, message):
    with pytest.raises(FrontendError) as error:
        assemble(text, load("tta_minimal"), file="x.tceasm")
    assert message in error.value.message
    location = error.value.location
    assert (location.file, location.line, location.column) == ("x.tceasm", *place)
    assert "^" in error.value.render()


@pytest.mark.parametrize(
    "text, message",
    [
        ("r.1 -> r.2, r.3 -> r.2", "register r.2 is written twice"),
        ("1 -> alu0.in2, 2 -> alu0.in2", "port alu0.in2 is written twice"),
        ("r.1 -> r.2, 1 -> r.3, 2 -> r.4", "no port of r is free"),
        ("vr.0 -> r.1", "vr.0 does not reach bus s0"),
        ("r.40 -> r.1", "r has registers 0..31"),
        ("r.1 -> alu0.in1t", "alu0.in1t must name the operation that it starts"),
        ("r.1 -> alu0.out1", "alu0.out1 cannot be written"),
        ("alu0.in2 -> r.1", "alu0.in2 cannot be read"),
        ("?b.3 r.1 -> r.2", "bus s0 has no guard ?b.3"),
        ("r.1 -> imm.0", "imm has no port that can be written"),
        ("r.w0.1 -> r.2", "r has no port w0 that can be read"),
    ],
)
def test_illegal_instructions_are_refused(text, message):
    with pytest.raises(VerifyError, match=message.replace("?", r"\?")) as error:
        assemble(f"CODE ; {text} ;", load("tta"))
    assert "instruction 0" in error.value.message


def test_guards_that_exclude_each_other_may_share_a_port():
    text = "CODE ; ?b.0 r.1 -> alu0.in2, !b.0 r.2 -> alu0.in2 ;"
    assert len(assemble(text, load("tta")).instructions[0].moves) == 2
