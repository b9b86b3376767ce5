"""Options that several commands have, and what they mean to the driver."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from nncc.commands.failure import is_terminal
from nncc.diagnostics import Location, NnccError

if TYPE_CHECKING:
    from nncc.compilation import Compilation
    from nncc.passes.observers import Progress, TimePasses
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
    group.add_argument(
        "--no-host", action="store_true", help="refuse what the target leaves to the host"
    )
    group.add_argument(
        "--size", action="append", metavar="N=4",
        help="a number in the place of a named size; may be given several times",
    )  # fmt: skip


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="how many a call uses; 1 so far"
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
    progress: Progress | None = None

    def __post_init__(self) -> None:
        from nncc.passes.observers import PrintAfter, Progress, TimePasses, VerifyEach

        if is_terminal(sys.stderr):
            self.progress = Progress(sys.stderr)
            self.all.append(self.progress)
        if self.args.time_passes:
            self.timer = TimePasses()
            self.all.append(self.timer)
        if self.args.verify_each:
            self.all.append(VerifyEach())
        if self.args.print_after:
            names = {n.strip() for n in self.args.print_after.split(",")}
            # what a script reads from stdout is one JSON object
            stream = sys.stderr if getattr(self.args, "json", False) else sys.stdout
            self.all.append(PrintAfter(names, partial(print, file=stream)))

    def finish(self) -> None:
        """Prints what was measured, to stderr."""
        if self.timer:
            print(self.timer.table(), file=sys.stderr)


def refuse_for_compiled(args: argparse.Namespace) -> None:
    """Raises NnccError if an option asks for something that was decided when compiling."""
    parser = argparse.ArgumentParser()
    add_compilation(parser)
    add_observers(parser)
    for name, default in vars(parser.parse_args([])).items():
        if getattr(args, name) != default:
            raise NnccError(
                f"--{name.replace('_', '-')} is for models, and this is a compiled one",
                Location(args.model),
                help="compile the model again with it",
            )


def lowered(
    args: argparse.Namespace, observers: list[Observer], *, whole: bool = False
) -> Compilation:
    """The model after its pipeline, as the options of `add_compilation` say; see `driver.lower`."""
    from nncc.driver import lower

    return lower(
        args.model, args.target, pipeline=args.pipeline, calib=args.calib,
        precision=args.precision, host=not args.no_host, sizes=sizes(args.size or ()),
        observers=observers, whole=whole,
    )  # fmt: skip


def sizes(texts: Sequence[str]) -> dict[str, int]:
    """The numbers that `--size` gives. Raises NnccError for what is not `name=number`."""
    found: dict[str, int] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value.isdecimal() or int(value) < 1:
            raise NnccError(f"--size {text} is not understood", help="it is written --size N=4")
        if name in found:
            raise NnccError(f"--size {name} is given twice")
        found[name] = int(value)
    return found
