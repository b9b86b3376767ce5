"""Run passes on a model and write the result as .nn (any level) or .onnx (the graph).

Without -o the text goes to stdout; without -p the model is only converted. A .nn file may be at
any level: the pipeline goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nncc.commands.options import Observers, add_compilation, add_model, add_observers, lowered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="an .onnx or .nn file to write")
    parser.add_argument(
        "--opset", type=int, metavar="N", help="of an .onnx file; default: the oldest that will do"
    )
    add_compilation(parser)
    add_observers(parser)
    parser.set_defaults(pipeline="")


def run(args: argparse.Namespace) -> int:
    from nncc.diagnostics import NnccError
    from nncc.driver import save
    from nncc.ir.text import print_module

    if args.opset and Path(args.output or "").suffix != ".onnx":
        raise NnccError("--opset is for an .onnx file", help="name one with -o")
    observers = Observers(args)
    compilation = lowered(args, observers.all)
    observers.finish()
    if args.output:
        save(compilation.module, args.output, opset=args.opset)
    else:
        print(print_module(compilation.module), end="")
    return 0
