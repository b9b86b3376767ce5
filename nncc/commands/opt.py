"""Run passes on a model and write the result as .nn (any level) or .onnx (the graph).

Without -o the text goes to stdout; without -p the model is only converted. A .nn file may be at
any level: the pipeline goes on from there. A quantized model is written to .onnx as QDQ, which
rounds in floats: how far it is from the integer program is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.commands.options import Observers, add_compilation, add_model, add_observers, lowered

if TYPE_CHECKING:
    from nncc.ir.graph import Module

SAMPLES = 64  # of the calibration data, on which a QDQ model is compared


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
    compilation = lowered(args, observers.all, whole=True)
    observers.finish()
    if args.output:
        save(compilation.module, args.output, opset=args.opset)
        for note in compilation.notes.values():
            print(note)
        quantized = compilation.notes.keys() & {"quantize", "integerize"}
        if quantized and Path(args.output).suffix == ".onnx":
            print(_deviation(compilation.module, args.calib))
    else:
        print(print_module(compilation.module), end="")
    return 0


def _deviation(module: Module, calib: str | None) -> str:
    """What the QDQ model differs by from the integer program, on some of the calibration data."""
    from nncc.arrays import load_arrays
    from nncc.check import random_inputs
    from nncc.frontend.onnx.deviation import deviation

    if calib is None:
        return f"written as QDQ; on random inputs:\n{deviation(module, random_inputs(module))}"
    data = load_arrays(calib, module.graph.inputs)
    inputs = {name: data[name][:SAMPLES] for name in module.graph.inputs}
    count = len(next(iter(inputs.values())))
    return f"written as QDQ; on {count} samples:\n{deviation(module, inputs)}"
