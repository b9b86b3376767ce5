"""List the passes, or describe one with its options."""

from __future__ import annotations

import argparse
import inspect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="PASS")


def run(args: argparse.Namespace) -> int:
    from nncc import passes

    if args.name:
        print(describe(args.name))
        return 0
    width = max(map(len, passes.names()))
    for name in passes.names():
        paragraph = (inspect.getdoc(passes.find(name)) or "").partition("\n\n")[0]
        print(f"{name:{width}}  {' '.join(paragraph.split())}")
    return 0


def describe(name: str) -> str:
    """What a pass does, its options, what they take and their defaults."""
    import dataclasses

    from nncc import passes
    from nncc.passes.options import options, rest, spell

    cls = passes.find(name)
    lines = [name, "", inspect.getdoc(cls) or ""]
    declared = [o for o in options(cls).values() if o.has_text]
    if declared:
        lines += ["", "Options:"]
    for option in declared:
        needed = option.default is dataclasses.MISSING
        default = "required" if needed else f"default {spell(option.default)}"
        lines.append(f"    {option.name}: {option.takes} ({default})")
    if others := rest(cls):
        lines.append(f"    any other name: an integer (see {others})")
    return "\n".join(lines)
