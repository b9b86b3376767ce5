"""`python -m benchmarks networks|kernels|compile [options]`: every figure that the README quotes.

Run it when nothing else runs. Comparisons take turns in one run, each measurement in a process of
its own (peers keep threads spinning), pinned to one CPU; figures are medians, and ratios count
more than times.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import compiling, kernels, networks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    nets = commands.add_parser("networks", help="latency of networks beside onnxruntime")
    nets.add_argument("models", nargs="*", help="names of examples/networks or .onnx files")
    nets.add_argument("--seconds", type=float, default=2.0, help="of measuring, per round")
    nets.add_argument("--rounds", type=int, default=3)
    nets.add_argument("--int8", action="store_true", help="also nncc's int8 program")
    kern = commands.add_parser("kernels", help="GFLOP/s and percent of peak of single layers")
    kern.add_argument("--only", default="", help="substring of the layer's name")
    comp = commands.add_parser("compile", help="time per pass from file to code")
    comp.add_argument("model", type=Path)
    args = parser.parse_args()
    if args.command == "networks":
        return networks.run(args.models, args.seconds, args.rounds, args.int8)
    if args.command == "kernels":
        return kernels.run(args.only)
    return compiling.run(args.model)


if __name__ == "__main__":
    sys.exit(main())
