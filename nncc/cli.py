"""The command line: `nncc COMMAND …`; each command is a module of `nncc.commands`.

Exit status: 0 all is well, 1 a check or comparison failed, 2 the user's input is wrong, 70 a bug
in nncc (a reproducer is written), 130 interrupted. Errors go to stderr as one text; tracebacks
are shown with `--debug` only.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from nncc import __version__
from nncc.commands import COMMANDS, Command, failure, find
from nncc.diagnostics import NnccError, nearest

INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """argparse, with errors in the form of all others."""

    def error(self, message: str) -> NoReturn:
        raise NnccError(message, help=f"{self.prog} --help lists the options")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _show_warning
    try:
        name = _command(argv)
        command = find(name)
        # intermixed: `show MODEL --loops NODE` has an option between its operands
        args = _parser(name, command).parse_intermixed_args(argv[argv.index(name) + 1 :])
        status = command.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # whoever reads has read enough; Python must not complain when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return failure.report(error, argv)
    return status


def _show_warning(message: Warning | str, *rest: object, **named: object) -> None:
    """Warnings in the form of errors, without the place in nncc's own code."""
    failure.complain(str(message), "warning")


def _command(argv: Sequence[str]) -> str:
    """The name of the command; `--help` and `--version` before it are answered here."""
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {_summary(name)}" for name in COMMANDS)
    parser = _Parser(
        prog="nncc",
        usage="nncc [--help] [--version] COMMAND …",
        description=f"A compiler for neural networks.\n\ncommands:\n{listing}",
        epilog="`nncc COMMAND --help` describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nncc {__version__}")
    name = next((a for a in argv if not a.startswith("-")), "")
    parser.parse_args(argv[: argv.index(name)] if name else argv)
    if not name:
        parser.error("the following arguments are required: COMMAND")
    if name not in COMMANDS:
        raise NnccError(f"there is no command '{name}'", help=nearest(name, COMMANDS, "commands"))
    return name


def _summary(name: str) -> str:
    return (find(name).__doc__ or "").partition("\n")[0]


def _parser(name: str, command: Command) -> _Parser:
    parser = _Parser(
        prog=f"nncc {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
