"""Blocks of translated code: what ends them, what they take back, and what is kept of them."""

import pytest

from nncc.diagnostics import SimError
from nncc.isa.tta import assemble
from nncc.machines import load
from nncc.runtime.tta.interpreter import Interpreter
from nncc.runtime.tta.translate import blocks
from nncc.runtime.tta.translated import Translated

LIMIT = 20_000

# (machine, text): what runs to its end in blocks
RUNS = {
    "loops that share their last instruction": ("tta", """
        5 -> cu.in2, 1 -> alu0.in2 ; 2 -> cu.pc.hwloop, 5 -> alu0.in1t.add ; ... ; ... ;
        1 -> cu.in2 ; 3 -> cu.pc.hwloop ; ... ; ... ; alu0.out1 -> alu0.in1t.add ;
        alu0.out1 -> r.0, 0 -> cu.pc.halt ;"""),
    "results on their way around a loop": ("tta", """
        2 -> mul.in2 ; 1 -> cu.in2, 3 -> mul.in1t.mul ; 9 -> cu.pc.hwloop ; ... ; ... ;
        mul.out1 -> mul.in1t.mul ; mul.out1 -> r.0 ; mul.out1 -> r.1 ; 0 -> cu.pc.halt ;"""),
    "loops that share the operand of their length": ("tta", """
        1 -> cu.in2, 1 -> alu0.in2 ; 9 -> cu.pc.hwloop, 5 -> alu0.in1t.add ; ... ; ... ;
        alu0.out1 -> alu0.in1t.add ; 4 -> cu.pc.hwloop ; ... ; ... ;
        alu0.out1 -> alu0.in1t.add ; alu0.out1 -> r.0, 0 -> cu.pc.halt ;"""),
    "accesses that meet in a bank": ("tta", """
        7 -> lsu.in2, 3 -> vbc.at.broadcast32, 2 -> cu.in2 ; 9 -> cu.pc.hwloop, 128 -> alu0.in2 ;
        256 -> alu0.in1t.add ; ..., ..., ..., ..., ..., ..., vbc.out1 -> vlsu.in2 ;
        alu0.out1 -> lsu.in1t.st32, 128 -> vlsu.in1t.st8x32 ;
        alu0.out1 -> alu0.in1t.add ; 0 -> cu.pc.halt ;"""),
    "a call and the way back": ("tta_minimal", """
        f -> gcu.pc.call ; ... ; ... ; ... ; gcu.ra -> RF.0 ; 0 -> gcu.pc.halt ;
        f: gcu.ra -> gcu.pc.jump ; ... ; ... ; 7 -> RF.1 ;"""),
    "a guarded jump and guarded moves": ("tta_minimal", """
        0 -> RF.0 ; 1 -> alu.in2 ; 0 -> RF.1 ;
        again: RF.0 -> alu.in1t.add ; alu.out1 -> RF.0 ; 40 -> alu.in2 ;
        alu.out1 -> alu.in1t.gt ; alu.out1 -> bool.0 ; !bool.0 again -> gcu.pc.jump ;
        ?bool.0 RF.0 -> RF.1 ; 1 -> alu.in2 ; ... ; RF.1 -> RF.2 ; 0 -> gcu.pc.halt ;"""),
}  # fmt: skip

# (machine, text, message): what ends in a fault within a block that has stored already
FAULTS = {
    "a store beyond the memory, in a loop": ("tta_minimal", """
        16776960 -> RF.0 ; 4 -> alu.in2 ;
        again: RF.0 -> lsu.in2 ; RF.0 -> lsu.in1t.st32 ; again -> gcu.pc.jump ;
        RF.0 -> lsu.in1t.ld32 ; RF.0 -> alu.in1t.add ; alu.out1 -> RF.0 ;""",
        "address 16777216 is outside of memory data"),
    "what was stored decides what is loaded": ("tta_minimal", """
        0 -> lsu.in2 ; 0 -> lsu.in1t.st32 ; 4 -> lsu.in1t.st32 ; 4 -> alu.in2 ; 0 -> RF.0 ;
        again: 0 -> lsu.in1t.ld32 ; ... ; ... ; lsu.out1 -> alu.in1t.add ;
        alu.out1 -> lsu.in2 ; 0 -> lsu.in1t.st32 ; alu.out1 -> lsu.in1t.ld8 ;
        again -> gcu.pc.jump ; ... ; ... ; ... ;""",
        "byte 8 of data is read and was never written"),
    "a misaligned load after a store": ("tta_minimal", """
        1 -> lsu.in2 ; 0 -> lsu.in1t.st32 ; 8 -> lsu.in2 ; 4 -> lsu.in1t.st32 ;
        2 -> lsu.in1t.ld32 ;""", "address 2 is not aligned to 4 bytes"),
    "a register that only one way writes": ("tta_minimal", """
        0 -> bool.0 ; ?bool.0 1 -> RF.3 ; RF.3 -> RF.4 ; 0 -> gcu.pc.halt ;""",
        "RF.3 is read and was never written"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("NNCC_CACHE", "0")


def both(name, text):
    machine = load(name)
    program = assemble(f'CODE ; :source "conv1" ; {text}', machine)
    return Interpreter(program, machine), Translated(program, machine)


@pytest.mark.parametrize("what", RUNS)
def test_runs_are_equal_and_in_blocks(what):
    plain, fast = both(*RUNS[what])
    for _ in range(2):  # with translated code, too
        fast.reset()
        assert plain.run(LIMIT) == fast.run(LIMIT)
        assert plain.snapshot() == fast.snapshot()
        assert fast.blocks.executed().sum() == fast.counters().instructions
    assert not fast.pieces  # no plain code was needed
    if "bank" in what:
        assert plain.counters().stalls["dmem"] > 0


@pytest.mark.parametrize("what", FAULTS)
def test_faults_leave_the_state_before_the_cycle(what):
    name, text, message = FAULTS[what]
    plain, fast = both(name, text)
    with pytest.raises(SimError, match=message) as expected:
        plain.run(LIMIT)
    for _ in range(2):
        fast.reset()
        with pytest.raises(SimError) as error:
            fast.run(LIMIT)
        assert error.value.render() == expected.value.render()
        assert error.value.location.node == "conv1"
        assert fast.snapshot().memory == plain.snapshot().memory
        assert fast.snapshot().time == plain.time
        assert fast.blocks.executed().sum() > 0 or "way" in what or "misaligned" in what


def test_jumps_to_what_was_computed():
    text = """
        0 -> RF.0 ; 1 -> alu.in2 ; target -> RF.1 ;
        again: RF.0 -> alu.in1t.add ; alu.out1 -> RF.0 ; RF.1 -> gcu.pc.jump ; ... ; ... ; ... ;
        target: 1000 -> alu.in2 ; alu.out1 -> alu.in1t.gt ; alu.out1 -> bool.0 ;
        !bool.0 again -> gcu.pc.jump ; 1 -> alu.in2 ; ... ; ... ; 0 -> gcu.pc.halt ;"""
    plain, fast = both("tta_minimal", text)
    assert plain.run(LIMIT) == fast.run(LIMIT)
    assert plain.snapshot() == fast.snapshot()
    assert fast.blocks.executed().sum() > 0.9 * plain.time


def test_translated_code_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("NNCC_CACHE", str(tmp_path))
    name, text = RUNS["a guarded jump and guarded moves"]
    plain, first = both(name, text)
    expected = plain.run(LIMIT)
    assert first.run(LIMIT) == expected
    (file,) = [f for f in tmp_path.iterdir() if f.stat().st_size]
    made = []
    compiled = blocks.object_code
    monkeypatch.setattr(
        blocks, "object_code", lambda text, *rest: made.append(text) or compiled(text, *rest)
    )
    _, second = both(name, text)
    assert second.run(LIMIT) == expected and not made
    file.write_bytes(file.read_bytes()[:-9])  # a damaged file is as good as none
    _, third = both(name, text)
    assert third.run(LIMIT) == expected and len(made) == 1
    # another program of the same machine has code of its own
    _, other = both(name, text.replace("40 ->", "20 ->"))
    assert other.run(LIMIT).cycles < expected.cycles and len(made) == 2
    # and so have other versions of this package, of LLVM, and another host
    changes = {"_SOURCES": "other", "code_version": lambda: "LLVM 1", "host_triple": lambda: "x"}
    for k, (part, value) in enumerate(changes.items()):
        monkeypatch.setattr(blocks, part, value)
        _, changed = both(name, text)
        assert changed.run(LIMIT) == expected and len(made) == 3 + k


def test_code_depends_on_what_operations_mean(monkeypatch, tmp_path):
    monkeypatch.setenv("NNCC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mine.toml"
    text = (load.__globals__["_FOLDER"] / "tta_minimal.toml").read_text()
    text = text.replace('"add", "sub"', '"add", "twice", "sub"')
    found = []
    for factor in (2, 3):
        head = "nest twice(out y: i32[], in a: i32[], in b: i32[])"
        meaning = f"{head} {{ s: {{ y[] = a[] * {factor} }} }}"
        path.write_text(
            text + f'\n[[operation]]\nname = "twice"\nenergy = 1.0\nsemantics = "{meaning}"\n'
        )
        machine = load(path)
        program = assemble(
            "CODE ; 0 -> alu.in2 ; 7 -> alu.in1t.twice ; alu.out1 -> RF.0 ; 0 -> gcu.pc.halt ;",
            machine,
        )
        simulator = Translated(program, machine)
        simulator.run(LIMIT)
        found.append(simulator.snapshot().values["RF", 0])
    assert found == [14, 21]
