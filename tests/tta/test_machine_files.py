"""Transport-triggered machines in files: what is read, and what is said about wrong ones."""

from pathlib import Path

import pytest

from nncc.cli import main
from nncc.diagnostics import TargetError
from nncc.isa.tta import assemble
from nncc.isa.tta.encoding import encoding_of
from nncc.machines import list_machines, load
from nncc.machines.tta.model import ShortImmediate
from nncc.runtime.tta.interpreter import Interpreter

FOLDER = Path(load.__code__.co_filename).parent
ADF = Path(__file__).parent / "data" / "small.adf"


def test_the_machines_are_listed_and_described(capsys):
    assert {"tta", "tta_minimal"} <= set(list_machines())
    assert main(["targets", "tta"]) == 0
    text = capsys.readouterr().out
    assert "6 of 32 bits, 3 of 1024 bits; an instruction has 192 bits" in text
    assert "2 delay slots, guard latency 1, 2 nested loops, buffer of 128" in text
    assert main(["targets", "tta_minimal", "--json"]) == 0
    assert '"delay_slots": 3' in capsys.readouterr().out


def test_what_the_minimal_machine_has():
    a = load("tta_minimal").architecture
    (bus,) = a.buses
    assert (bus.width, bus.immediate) == (32, ShortImmediate(32, "zero"))
    assert [str(g) for g in bus.guards] == ["?bool.0", "!bool.0", "?bool.1", "!bool.1"]
    assert (a.control.delay_slots, a.control.guard_latency) == (3, 1)
    load32 = a.unit["lsu"].operation["ld32"]
    assert load32.operands[-1].start == 2 and load32.port("address") == "in1t"
    assert {b.operands[-1].start for b in a.unit["alu"].operations} == {0}


def test_peaks_of_the_wide_machine_are_the_published_ones():
    machine = load("tta")
    macs = {"dot4x32": 128, "ternary16x32": 512, "binary32x32": 1024}
    published = {"dot4x32": 77, "ternary16x32": 307, "binary32x32": 614}  # GOPS
    for name, count in macs.items():
        (statement,) = machine.operations[name].semantics.statements
        points = 1
        for d in statement.dims:
            points *= d.hi
        assert points == count
        assert 2 * count * machine.frequency_hz / 1e9 == pytest.approx(published[name], rel=0.01)


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("tta", "count = 3\nwidth = 1024", "count = 3\nwidht = 1024",
         "bus[1].widht is not a field"),
        ("tta", 'reaches = ["s"], width = 32 }', 'reaches = ["t"], width = 32 }',
         "there is no bus 't'"),
        ("tta", '"add", "sub", "and"', '"add", "sbu", "and"', "there is no operation 'sbu'"),
        ("tta", 'extension = "sign"', 'extension = "signed"', "it must be one of 'zero', 'sign'"),
        ("tta", '"?b.1", "!b.1"]', '"?b.1", "!b.7"]', "there is no register b.7"),
        ("tta", '"?b.1", "!b.1"]', '"?b.1", "b.1"]', "a guard is '?file.0' or '!file.0'"),
        ("tta", "delay_slots = 2", "delay_slots = -1", "must be an integer of at least 0"),
        ("tta", "guard_latency = 1", "guard_latency = 0", "must be an integer of at least 1"),
        ("tta", "delay_slots = 2", "", "architecture.control.delay_slots is missing"),
        ("tta", "loop_depth = 2", "", "cu.loop_depth: it has a loop operation"),
        ("tta", 'space = "pmem"', 'space = "qmem"', "plsu.address_space: there is no qmem"),
        ("tta", 'space = "pmem"', "", "plsu.address_space must name a memory"),
        ("tta", "banks = 32\nbank_bytes", "banks = 33\nbank_bytes", "are powers of two"),
        ("tta", 'slot = "s5", width', 'slot = "s4", width', "template long.slot: s4 is used twice"),
        ("tta", "width = 16, unit", "width = 30, unit",
         "template long.width: 46 bits for imm of 32"),
        ("tta", 'ports = { at = { reaches = ["s"], width = 32, triggers = true }',
         'ports = { at = { reaches = ["s"], width = 32 }', "0 ports trigger; one must"),
        ("tta", 'bind = { a = "at", y = "out1" }', 'bind = { a = "at" }',
         "operand 'y' of broadcast32 is bound to no port"),
        ("tta_minimal", "size = 32\nwidth = 32", "size = 0\nwidth = 32", "file[0].size is 0"),
        ("tta_minimal", "size = 32\nwidth = 32", "size = 100000000000\nwidth = 32",
         "RF.size: 100000000000; it is 1 to 65536 registers"),
        ("tta_minimal", 'name = "B1"\nwidth = 32', 'name = "B1"\nwidth = 100000000000',
         "bus B1.width: 100000000000; it is 1 to 65536 bits"),
        ("tta_minimal", "ld16 = 3", "ld16 = 100000000000",
         "lsu.ld16.bind.y.start: 100000000000 cycles of latency; at most 1024"),
        ("tta_minimal", "guard_latency = 1", "guard_latency = 100000000000",
         "gcu.guard_latency: 100000000000; at most 1024"),
        ("tta_minimal", "bytes = 16_777_216", "bytes = 4096",
         "storage data.bytes: 4096; architecture.space data has 16777216"),
        ("tta", "loop_depth = 2", "loop_depth = 65", "cu.loop_depth: 65; at most 64"),
        ("tta_minimal", "max_address = 16_777_215", "max_address = 5_000_000_000",
         "is no range in 0..4294967295"),
        ("tta_minimal", "latency = { ld32 = 3", "latency = { ld32 = 2", "memory data takes 3"),
        ("tta_minimal", 'b = "in2"', 'b = "in1t"', "two operands at port in1t"),
        ("tta_minimal", "[[storage]]", '[[operation]]\nname = "x"\nkind = "lode"\nsemantics = ""\n'
         "[[storage]]", "operation[0].kind is 'lode'"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_by_field(tmp_path, name, old, new, message):
    text = (FOLDER / f"{name}.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(TargetError) as error:
        load(path)
    assert message in error.value.render()
    assert error.value.location.file == str(path)


# -- OpenASIP's files ----------------------------------------------------------------------


def test_an_architecture_file_is_read():
    machine = load(ADF)
    a = machine.architecture
    assert [b.immediate for b in a.buses] == [ShortImmediate(8, "sign"), None]
    assert a.template["long"].width("iu") == 32 and list(a.template) == ["long"]
    assert a.unit["alu"].operation["add"].operands[-1].start == 1
    assert a.control.return_port == "ra" and a.file["flag"].max_reads == 1
    assert list(machine.operations) == ["add", "st32", "jump"]
    assert encoding_of(a).width > 0 and machine.memory("data").bytes == 256
    program = assemble(
        """CODE ;
          -1 -> alu.o, [iu.1=100000] [iu.1] ;
          iu.1 -> alu.t.add ;
          64 -> lsu.t.st32 ;
        end: end -> gcu.pc.jump ;
          ... ;
        """.replace("64 -> lsu.t.st32", "64 -> lsu.t.st32, alu.r -> lsu.o"),
        machine,
    )
    simulator = Interpreter(program, machine)
    with pytest.raises(Exception, match=r"cycle 2.*alu.r is read and was never written"):
        simulator.run(100)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('version="1.8"', 'version="1.3"', "<adf version='1.3'>; this nncc reads versions"),
        ("<little-endian/>", "<big-endian/>", "machines are little-endian here"),
        ("<little-endian/>", "<bridge name='x'/>", "<bridge> is not supported"),
        ("<name>ADD</name>", "<name>ADDD</name>", "nncc does not know operation 'addd'"),
        ('<bind name="2">o</bind><bind name="3">r</bind>', '<bind name="2">o</bind>',
         "operand 3 is bound to no port"),
        ("<delay-slots>1", "<delay-slots>one", "<delay-slots> is 'one'; it must be an integer"),
        ("<guard-latency>1", "<guard-latency>0", "guards see no move of their own cycle"),
        ("<bus>B2</bus>", "<bus>B3</bus>", "there is no bus B3"),
        ("<type>normal</type><size>1</size>", "<type>reserved</type><size>1</size>",
         "<type> is 'reserved'"),
        ("<cycles>1</cycles>", "<cycles>2</cycles>", "a port is used for one cycle"),
        ("<reads name=\"2\"><start-cycle>0", "<reads name=\"2\"><start-cycle>1",
         "operands are read with the trigger"),
        ("<extension>sign", "<extension>maybe", "it must be one of 'zero', 'sign'"),
        ("</adf>", "", "not XML"),
        ("<segment>seg1</segment>", "<segment>seg2</segment>", "bus B1 has no segment 'seg2'"),
        ('<writes name="3"><start-cycle>1', '<writes name="4"><start-cycle>1',
         "<writes name='4'>; it has <reads name='1'>, <reads name='2'>, <writes name='3'>"),
        ('<writes name="3"><start-cycle>1', '<reads name="3"><start-cycle>1', "not XML"),
        ('<writes name="3"><start-cycle>1</start-cycle><cycles>1</cycles></writes>', "",
         "operation add: <writes name='3'> is missing"),
        ('<bind name="1">t</bind>', '<bind name="1">t</bind><bind name="1">o</bind>',
         "operation add: an operand is bound twice"),
        ("<delay-slots>1</delay-slots>", "<delay-slots>1</delay-slots>" * 2,
         "<delay-slots> is there 2 times"),
        ("<start-cycle>1<", "<start-cycle>99999999999<", "100000000000 cycles of latency; at most"),
        ("<max-address>1023<", "<max-address>99999999999<", "is no range in 0..4294967295"),
    ],
)  # fmt: skip
def test_wrong_architecture_files_are_refused(tmp_path, old, new, message):
    text = ADF.read_text()
    assert old in text
    path = tmp_path / "mine.adf"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(TargetError) as error:
        load(path)
    assert message in error.value.render()
