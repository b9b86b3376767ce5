"""Programs as text and bits, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gemm import product
from nncc.diagnostics import FrontendError, TargetError, VerifyError
from nncc.ir.types import i8
from nncc.isa.tpu import assemble, decode, disassemble, encode, instruction_text, listing
from nncc.isa.tpu.encoding import encode_instruction
from nncc.isa.tpu.instructions import (
    INSTRUCTIONS,
    Halt,
    MatrixMultiply,
    ReadHostMemory,
    ReadWeights,
    Register,
    SetConfiguration,
    Sync,
    Unit,
    fields_of,
)
from nncc.isa.tpu.program import Data, HostBuffer, Origin, Program
from nncc.machines import load
from nncc.machines.systolic.sizes import resized
from nncc.runtime.tpu import simulate
from tests.tpu.random_programs import program_of_seed

TPU = load("tpu")


@st.composite
def instructions(draw):
    """Any instruction that an encoding can hold, whether a machine could run it or not."""
    kind = draw(st.sampled_from(INSTRUCTIONS))
    if kind is SetConfiguration:
        return SetConfiguration(
            draw(st.sampled_from(list(Register))), draw(st.integers(0, (1 << 24) - 1))
        )
    if kind is Sync:
        return Sync(draw(st.sampled_from(list(Unit))), draw(st.sampled_from(list(Unit))))
    values = {}
    for f in fields_of(kind):
        bounds = f.metadata
        number = st.integers(bounds["low"], bounds["high"]) if bounds else st.booleans()
        values[f.name] = draw(number)
    if kind is MatrixMultiply and values["height"] > 1:
        values["width"] = min(values["width"], 0xFFFF)
    return kind(**values)


@settings(max_examples=500, deadline=None)
@given(instructions())
def test_every_instruction(i):
    from nncc.isa.container import Reader
    from nncc.isa.tpu.encoding import decode_instruction

    bits = encode_instruction(i)
    reader = Reader(bits)
    assert decode_instruction(reader) == i
    reader.end()
    if isinstance(i, MatrixMultiply):
        assert len(bits) == 12


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 40), st.booleans())
def test_programs(seed, with_origins):
    program, machine, _, _ = program_of_seed(seed, length=25)
    if not with_origins:
        program = Program(program.instructions, (), program.data, program.buffers, {"a b": 3})
    assert assemble(disassemble(program), machine) == program
    bits = encode(program, machine)
    assert decode(bits, machine) == program
    assert encode(decode(bits, machine), machine) == bits


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 40), st.data())
def test_damaged_binaries_are_refused(seed, data):
    program, machine, _, _ = program_of_seed(seed % 5, length=10)
    bits = encode(program, machine)
    if data.draw(st.booleans(), "truncate"):
        wrong = bits[: data.draw(st.integers(0, len(bits) - 1), "length")]
    else:
        k = data.draw(st.integers(0, len(bits) - 1), "byte")
        wrong = bits[:k] + bytes([bits[k] ^ (1 << data.draw(st.integers(0, 7), "bit"))])
        wrong += bits[k + 1 :]
    with pytest.raises(TargetError):
        decode(wrong, machine)


def test_binaries_belong_to_a_machine():
    small = resized(TPU, rows=8, columns=8)
    program = Program((Halt(),))
    bits = encode(program, small)
    assert decode(bits, small) == program
    with pytest.raises(TargetError, match="made for another machine than 'tpu'"):
        decode(bits, TPU)
    with pytest.raises(TargetError, match="format 2; this nncc reads format 1"):
        decode(bits[:8] + b"\2" + bits[9:], small)
    with pytest.raises(TargetError, match="the magic is missing"):
        decode(b"something else", small)


def test_wrong_content_under_a_right_checksum_is_refused():
    from nncc.isa.container import pack
    from nncc.isa.tpu.binary import MAGIC, VERSION, machine_hash

    for content, message in [
        (b"", "it ends too early"),
        (b"\1\0\0\0\xee", "instruction 0: there is no opcode 238"),
        (b"\1\0\0\0\5\x77", "instruction 0: there is no function 119 of activate"),
        (b"\1\0\0\0\4\xff\xff", "no flags 0xffff"),
        (b"\0" * 20 + b"\1", "bytes follow the last field"),
    ]:
        bits = pack(MAGIC, VERSION, machine_hash(TPU), content)
        with pytest.raises(TargetError, match=message):
            decode(bits, TPU)


def test_a_matrix_multiply_has_the_published_fields():
    i = MatrixMultiply(0x123456, 0x789A, width=0x1BCDEF01, accumulate=True)
    assert encode_instruction(i).hex(" ") == "04 01 00 56 34 12 9a 78 01 ef cd 1b"
    i = MatrixMultiply(1, 2, height=3, width=4, next_tile=True, unsigned=True)
    assert encode_instruction(i).hex(" ") == "04 0e 00 01 00 00 02 00 04 00 03 00"


@pytest.mark.parametrize(
    "text, place, message",
    [
        ("nop x=1", 7, "nop has no field 'x'"),
        ("nopp", 3, "there is no instruction 'nopp'"),
        ("matrix_multiply row=0", 3, "matrix_multiply needs accumulator"),
        ("read_weights tile=-1", 16, "tile is -1, not in 0..4294967295"),
        ("read_weights tile=matrix", 21, "tile is a number, not 'matrix'"),
        ("sync waiting=matric on=weights", 16, "did you mean 'matrix'"),
        ("set_configuration register=in_3 value=1", 30, "'in_2' or 'in_1'"),
        ("matrix_multiply row=0 accumulator", 25, "accumulator needs a value"),
        ("matrix_multiply row=0 accumulator=0 accumulate=1", 50, "is a flag and has no value"),
        ("fill_rows row=1 row=2", 19, "row is there twice"),
        ("matrix_multiply row=0 accumulator=0 height=2 width=70000", 48, "width is above 65535"),
        (".data unified 3", 9, "did you mean 'unified_buffer'"),
        ('.buffer in "x" i9[3] 0', 18, "'i9' is no dtype"),
        ('.buffer inn "x" i8[3] 0', 11, "'inn' is no role"),
        ("hex 00", 3, "bytes stand below .data"),
        ("nop =", 7, "found '='"),
        ("fill_rows row=", 17, "the line ends"),
        ("?", 3, "'\\?' fits nothing here"),
        ('.macs "\\q" 3', 9, "an escape that JSON does not know"),
    ],
)
def test_errors_in_assembly(text, place, message):
    with pytest.raises(FrontendError, match=message) as error:
        assemble(f"# a comment\n  {text}\n  halt\n", TPU, file="a.tpu")
    location = error.value.location
    assert (location.file, location.line, location.column) == ("a.tpu", 2, place)
    assert f"2 |   {text}" in str(error.value)


def test_assembly_is_free_in_space_and_order():
    text = """

    read_weights tile=0x10   # hexadecimal
    matrix_multiply next_tile width=4 accumulator=1 row=0

    halt"""
    program = assemble(text, TPU)
    wanted = (ReadWeights(16), MatrixMultiply(0, 1, width=4, next_tile=True), Halt())
    assert program == Program(wanted)
    assert assemble("halt\r\n", TPU) == Program((Halt(),))


@pytest.mark.parametrize(
    "program, message",
    [
        (Program(()), "the last instruction and no other must be Halt"),
        (Program((Halt(), Halt())), "the last instruction and no other must be Halt"),
        (Program((ReadWeights(1 << 17), Halt())), "tile 131072 is out of range: there are 0..13"),
        (
            Program((ReadHostMemory(0, 98303, 2), Halt()), (Origin("conv1"),) * 2),
            "node 'conv1': instruction 0: row 98304 is out of range",
        ),
        (
            Program((MatrixMultiply(0, 4096), Halt())),
            "accumulator 4096 is out of range: there are 0..4095",
        ),
        (Program((ReadHostMemory(0, 0, 1, 257), Halt())), "lanes 0..256 of 256"),
        (Program((Halt(),), (Origin(),) * 2), "2 origins for 1 instructions"),
        (Program((Halt(),), (), (Data("fifo", 0, b""),)), "not in fifo"),
        (
            Program((Halt(),), (), (Data("unified_buffer", 98303, bytes(257)),)),
            "98303..98304 is not in 0..98303",
        ),
        (
            Program((Halt(),), (), (Data("weight_memory", 0, bytes(65537)),
                                    Data("weight_memory", 1, bytes(2)))),
            "constants at 1 of weight_memory overlaps constants at 0",
        ),
        (
            Program((Halt(),), (), (), (HostBuffer("x", "in", 0, i8, (4, 4)),
                                        HostBuffer("y", "out", 15, i8, (1,)))),
            "buffer 'y' of host overlaps buffer 'x'",
        ),
    ],
)  # fmt: skip
def test_programs_that_cannot_run(program, message):
    with pytest.raises(VerifyError, match=message):
        encode(program, TPU)


def test_listing():
    machine = resized(TPU, rows=4, columns=4)
    x, w = np.ones((3, 4), np.int8), np.ones((4, 4), np.int8)
    program = product(machine, x, w)
    outcome = simulate(program, machine, {})
    lines = listing(program, outcome.cycles()).splitlines()
    assert lines[0] == '.buffer out "y" i8[1,3,4] 0  # 12 bytes'
    assert "-- product" in lines
    (multiply,) = [line for line in lines if "matrix_multiply" in line]
    address, cycles, *rest = multiply.split()
    assert (address, cycles) == ("5", "9..18")
    assert rest[-2:] == ["#", "acc[0,0]"]
    assert "..".join(cycles.split("..")) not in listing(program)


def test_instruction_text_leaves_defaults_out():
    assert instruction_text(MatrixMultiply(3, 0, width=64, next_tile=True)) == (
        "matrix_multiply row=3 accumulator=0 width=64 next_tile"
    )
