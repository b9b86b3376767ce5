"""Show a model at one of its levels, all of it or what belongs to one node.

A model is compiled as far as needed: the graph as `fuse` and `layout` leave it, nests as `lower`
makes them, nests with schedules, loops, LLVM IR, assembly, or the memory plan. A folder that
`nncc compile` made shows what it was made of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nncc.commands.options import (
    Observers,
    add_compilation,
    add_model,
    add_observers,
    lowered,
    refuse_for_compiled,
)

LEVELS = {
    "graph": "the graph with its groups",
    "nests": "loop nests, without schedules",
    "schedule": "loop nests with their schedules",
    "loops": "imperative loops over buffers",
    "llvm": "LLVM IR",
    "asm": "assembly",
    "listing": "instructions with their addresses, for simulated targets",
    "memory": "where every tensor lives, and how long",
    "traffic": "bytes read and written of each memory by layer, as predicted",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "an .onnx or .nn file, or a compiled model's folder")
    parser.add_argument("node", nargs="?", metavar="NODE", help="a node, nest or function")
    levels = parser.add_argument_group("levels").add_mutually_exclusive_group()
    for name, what in LEVELS.items():
        levels.add_argument(f"--{name}", dest="level", action="store_const", const=name, help=what)
    parser.set_defaults(level="graph")
    add_compilation(parser)
    add_observers(parser)


def run(args: argparse.Namespace) -> int:
    from nncc.listing import show, show_artifact

    if Path(args.model).is_dir():
        refuse_for_compiled(args)
        print(show_artifact(Path(args.model), args.level, args.node or "").rstrip())
        return 0
    observers = Observers(args)
    compilation = lowered(args, observers.all)
    observers.finish()
    print(show(compilation, args.level, args.node or "", Path(args.model).stem).rstrip())
    return 0
