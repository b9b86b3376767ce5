"""The commands of `nncc`, one module each.

A command's module has a docstring whose first line is its summary, `add_arguments(parser)`, and
`run(args) -> exit status`. Importing one loads little else of nncc; `run` does.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Protocol, cast

COMMANDS = ("compile", "run", "opt", "show", "doctor", "passes", "ops", "targets")


class Command(Protocol):
    """What a command's module has."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Does the work; returns the exit status."""


def find(name: str) -> Command:
    """The command `name`, one of COMMANDS."""
    return cast(Command, import_module(f"nncc.commands.{name}"))
