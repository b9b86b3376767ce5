"""Every back end has what `nncc.backends.interface.BackEnd` says, with the same parameters."""

from __future__ import annotations

import inspect

import pytest

from nncc.backends.interface import BackEnd
from nncc.compilation import back_end
from nncc.diagnostics import TargetError
from nncc.machines import list_machines, load
from nncc.machines.machine import Machine

FUNCTIONS = ("compile_program", "write_artifact", "load_artifact", "levels")


def back_ends() -> list[str]:
    found = {}
    for name in list_machines():
        try:
            machine = load(name)
            back_end(machine)
        except TargetError:  # not on this computer, or a machine to look at only
            continue
        found.setdefault(machine.backend, name)
    return sorted(found.values())


def same(compiler: object) -> None:
    assert isinstance(compiler.STATIC_SIZES, bool)
    for name in FUNCTIONS:
        wanted = inspect.signature(getattr(BackEnd, name)).parameters
        given = inspect.signature(getattr(compiler, name)).parameters
        assert [p for p in wanted if p != "self"] == list(given), name
        assert [p.kind for n, p in wanted.items() if n != "self"] == [
            p.kind for p in given.values()
        ], name


@pytest.mark.parametrize("name", back_ends())
def test_back_ends(name: str) -> None:
    same(back_end(load(name)))


def test_the_toy(toy: Machine) -> None:
    same(back_end(toy))
