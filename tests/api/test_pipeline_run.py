from __future__ import annotations

import io
from pathlib import Path

import pytest

import nncc
from nncc.diagnostics import PassError
from nncc.driver import lower
from nncc.ir.graph import Module
from nncc.machines import load
from nncc.passes.observers import PrintAfter, Progress, Snapshots, TimePasses, VerifyEach
from nncc.passes.pipeline import CompilerBug, level, remaining, run
from nncc.passes.text import parse

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def module(small_model: Path) -> Module:
    found = nncc.load(small_model)
    assert isinstance(found, Module)
    return found


def test_observers_see_every_pass(module: Module) -> None:
    timer, snapshots, printed = TimePasses(), Snapshots(), []
    steps = parse("fold, everything{count=2}, cse")
    result = run(
        module,
        load("cpu"),
        steps,
        [timer, VerifyEach(), snapshots, PrintAfter({"cse"}, printed.append)],
    )
    assert [t.step for t in timer.timings] == ["fold", "everything{count=2}", "cse"]
    assert all(t.seconds >= 0 and t.isl_calls == 0 for t in timer.timings)
    assert [n for n, _ in snapshots.modules] == ["fold", "everything", "cse"]
    assert snapshots.modules[-1][1] is result
    assert len(printed) == 1 and printed[0].startswith("# after cse\nnncc 1")
    assert timer.table().splitlines()[-1].endswith("total")


def test_a_crash_is_a_bug_with_its_module(module: Module) -> None:
    with pytest.raises(CompilerBug) as raised:
        run(module, load("cpu"), parse("fold, crash"))
    bug = raised.value
    assert bug.exit_status == 70 and "pass 'crash' failed: KeyError" in bug.message
    assert bug.module is not None and bug.step is not None and bug.step.name == "crash"
    assert isinstance(bug.__cause__, KeyError)


def test_a_closed_pipe_is_no_bug_of_a_pass(module: Module) -> None:
    def write(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(module, load("cpu"), parse("fold"), [PrintAfter({"fold"}, write)])


def test_verify_each_blames_the_pass(module: Module) -> None:
    with pytest.raises(CompilerBug, match="pass 'scramble' gave a wrong module") as raised:
        run(module, load("cpu"), parse("scramble"), [VerifyEach()])
    assert raised.value.module is module


def test_an_error_of_a_pass_is_the_users(module: Module) -> None:
    with pytest.raises(PassError, match="must not be negative"):
        run(module, load("cpu"), parse("everything{count=-1}"))


def test_print_after_an_unknown_pass(module: Module) -> None:
    with pytest.raises(PassError, match="cannot print after 'cze'") as raised:
        run(module, load("cpu"), parse("fold, cse"), [PrintAfter({"cze"}, print)])
    assert "cse" in raised.value.help


def test_progress_shows_the_pass_and_takes_it_away(module: Module) -> None:
    stream = io.StringIO()
    run(module, load("cpu"), parse("fold, cse"), [Progress(stream, patience=-1.0)])
    assert "[2/2] cse" in stream.getvalue() and stream.getvalue().endswith("\r\x1b[K")


STAGES = {
    "fuse": ("graph", "fold fuse layout lower tensorize emit plan"),
    "layout": ("graph", "layout lower tensorize emit plan"),
    "lower": ("graph", "lower tensorize emit plan"),
    "emit": ("nests", "tensorize emit plan"),
    "plan": ("loops", "plan"),
    "": ("loops", ""),
}


def test_what_is_left_to_do(small_model: Path) -> None:
    steps = parse("fold, fuse, layout, lower, tensorize, emit, plan")
    compilation = lower(small_model)
    for name, (reached, left) in STAGES.items():
        module = compilation.before(name)
        assert level(module) == reached
        assert " ".join(s.name for s in remaining(steps, module)) == left
