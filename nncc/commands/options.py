"""Options that several commands have, and what they mean to the driver."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nncc.commands.failure import is_terminal

if TYPE_CHECKING:
    from nncc.driver import Compilation
    from nncc.passes.observers import TimePasses
    from nncc.passes.pipeline import Observer


def add_model(parser: argparse.ArgumentParser, what: str = "an .onnx or .nn file") -> None:
    parser.add_argument("model", metavar="MODEL", help=what)


def add_compilation(parser: argparse.ArgumentParser) -> None:
    """What decides how a model is compiled."""
    group = parser.add_argument_group("compilation")
    group.add_argument(
        "--target",
        default="cpu",
        metavar="NAME|FILE",
        help="a target of `nncc targets`, or its file",
    )
    group.add_argument(
        "-p", "--pipeline", metavar="TEXT", help="passes to run, instead of the target's"
    )
    group.add_argument(
        "--calib", metavar="NPZ|DIR", help="data to quantize by: arrays by input name"
    )
    group.add_argument("--precision", choices=["int8"], help="quantize to this precision")
    group.add_argument("--threads", type=int, default=1, metavar="N")
    group.add_argument(
        "--no-host", action="store_true", help="refuse what the target leaves to the host"
    )


def add_observers(parser: argparse.ArgumentParser) -> None:
    """What is done around passes."""
    group = parser.add_argument_group("passes")
    group.add_argument(
        "--print-after", metavar="PASS,…", help="print the module after these passes, or `all`"
    )
    group.add_argument("--time-passes", action="store_true", help="print what each pass takes")
    group.add_argument("--verify-each", action="store_true", help="verify after each pass")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@dataclass
class Observers:
    """The observers that the options ask for. Use it as a context around the work."""

    args: argparse.Namespace
    all: list[Observer] = field(default_factory=list)
    timer: TimePasses | None = None

    def __post_init__(self) -> None:
        from nncc.passes.observers import PrintAfter, Progress, TimePasses, VerifyEach

        if is_terminal(sys.stderr):
            self.all.append(Progress(sys.stderr))
        if self.args.time_passes:
            self.timer = TimePasses()
            self.all.append(self.timer)
        if self.args.verify_each:
            self.all.append(VerifyEach())
        if self.args.print_after:
            names = {n.strip() for n in self.args.print_after.split(",")}
            self.all.append(PrintAfter(names, print))

    def finish(self) -> None:
        """Prints what was measured, to stderr."""
        if self.timer:
            print(self.timer.table(), file=sys.stderr)


def lowered(args: argparse.Namespace, observers: list[Observer]) -> Compilation:
    """The model after its pipeline, as the options of `add_compilation` say."""
    from nncc.driver import lower

    return lower(
        args.model, args.target, pipeline=args.pipeline, calib=args.calib,
        precision=args.precision, host=not args.no_host, observers=observers,
    )  # fmt: skip
