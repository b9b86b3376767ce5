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
from nncc.commands import COMMANDS, failure, find
from nncc.diagnostics import NnccError, nearest

INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """argparse, with errors in the form of all others."""

    def error(self, message: str) -> NoReturn:
        raise NnccError(message, help=f"{self.prog} --help lists the options")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(argv).parse_args(argv)
        warnings.showwarning = _show_warning
        status = find(args.command).run(args)
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


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="nncc", description="A compiler for neural networks.")
    parser.add_argument("--version", action="version", version=f"nncc {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    chosen = next((a for a in argv if not a.startswith("-")), "")
    if chosen and chosen not in COMMANDS:
        raise NnccError(
            f"there is no command '{chosen}'", help=nearest(chosen, COMMANDS, "commands")
        )
    for name in COMMANDS:
        command = find(name)
        text = command.__doc__ or ""
        sub = commands.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.add_arguments(sub)
    return parser


if __name__ == "__main__":
    sys.exit(main())
