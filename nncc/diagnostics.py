"""Source locations and the errors that users see.

Every error names what is wrong, where, and what to do:

    error: net.nn:3:12: expected a tensor type, found ')'
        3 | graph main(x: ) -> (y: f32[1]) {
          |               ^
      help: a type is a dtype and a shape, for example f32[N,3,224,224]

The command line prints `NnccError.render()`; a Python user sees the same text as the
exception's message.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Location:
    """Where something comes from: a place in a text file, a node of a model, or both.

    `line` and `column` count from 1; 0 means unknown. `node` is the name of the node in
    the user's model.
    """

    file: str = ""
    line: int = 0
    column: int = 0
    node: str = ""

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}"
        if self.node:
            place += f"{': ' if place else ''}node '{self.node}'"
        return place


NOWHERE = Location()
LONGEST_LINE = 160  # longer source lines are shown in part


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: a message, its place, and what the user can do about it."""

    message: str
    location: Location = NOWHERE
    help: str = ""
    source_line: str = ""  # the line of text that `location` points into, if there is one

    def render(self) -> str:
        where = str(self.location)
        lines = [f"{where}: {self.message}" if where else self.message]
        if self.source_line:
            number = str(self.location.line)
            source, column = _part(self.source_line, max(self.location.column - 1, 0))
            lines.append(f"    {number} | {source}")
            indent = "".join(c if c == "\t" else " " for c in source)
            lines.append(f"    {' ' * len(number)} | {indent[:column].ljust(column)}^")
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


def _part(line: str, column: int) -> tuple[str, int]:
    """What to show of a line, and where `column` is in that: of a long line what is around it."""
    if len(line) <= LONGEST_LINE:
        return line, column
    start = max(min(column - LONGEST_LINE // 2, len(line) - LONGEST_LINE), 0)
    end = start + LONGEST_LINE
    head, tail = "…" if start else "", "…" if end < len(line) else ""
    return f"{head}{line[start:end]}{tail}", column - start + len(head)


@dataclass(eq=False)
class NnccError(Exception):
    """The base of all errors that nncc raises on purpose.

    `exit_status` is what the command line returns: 1 a check or comparison failed,
    2 the user's input, 70 a bug in nncc.
    """

    message: str
    location: Location = NOWHERE
    help: str = ""
    source_line: str = ""
    exit_status: int = field(default=2, init=False)

    def render(self) -> str:
        return Diagnostic(self.message, self.location, self.help, self.source_line).render()

    def __str__(self) -> str:
        return self.render()


class FrontendError(NnccError):
    """A file cannot be read as what it should be: wrong syntax, broken or unsafe model."""


class VerifyError(NnccError):
    """A module breaks an invariant of its level (see `nncc.ops.verify`)."""


class PassError(NnccError):
    """A pass cannot do what its options ask on this module, or a pipeline text is wrong."""


class TargetError(NnccError):
    """An unknown or wrong target, or an artifact that does not fit this machine."""


class SimError(NnccError):
    """A simulated program did something that its machine forbids."""


@dataclass(eq=False)
class CheckError(NnccError):
    """A comparison failed: two levels or targets disagree."""

    def __post_init__(self) -> None:
        self.exit_status = 1


@dataclass(eq=False)
class UnsupportedError(NnccError):
    """Everything in a model that cannot be compiled, reported at once."""

    diagnostics: tuple[Diagnostic, ...] = ()

    def render(self) -> str:
        return "\n".join([super().render(), *(d.render() for d in self.diagnostics)])


def nearest(name: str, known: Iterable[str], what: str = "known names") -> str:
    """Help text for an unknown name: the nearest known ones, else all of them.

    >>> nearest("tlie", ["tile", "fold"], "passes")
    "did you mean 'tile'?"
    """
    known = sorted(known)
    if close := difflib.get_close_matches(name, known, n=3, cutoff=0.6):
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    return f"{what}: {', '.join(known)}"
