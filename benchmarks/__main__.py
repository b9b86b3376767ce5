"""`python -m benchmarks networks|kernels|compile|digits|tpu|…`: nncc beside others.

Comparisons take turns in one run, pinned to one CPU; ratios count more than times.
"""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """Runs one benchmark; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    nets = commands.add_parser("networks", help="latency of networks")
    nets.add_argument("models", nargs="*", help="names of examples/networks, or .onnx files")
    nets.add_argument("--seconds", type=float, default=2.0, help="of measuring, in each process")
    nets.add_argument("--rounds", type=int, default=3, help="processes for each peer")
    nets.add_argument("--int8", action="store_true", help="also the quantized models")
    kern = commands.add_parser("kernels", help="GFLOP/s of single layers, and share of the peak")
    kern.add_argument("--only", default="", help="part of the label of the layers to measure")
    kern.add_argument("--seconds", type=float, default=0.3, help="of measuring, for each layer")
    kern.add_argument(
        "--target", default="cpu", help="another, such as cpu-avx2: without onnxruntime"
    )
    comp = commands.add_parser("compile", help="time and isl calls of each pass")
    comp.add_argument("model", nargs="?", default="resnet50", help="an example's name, or a file")
    digits = commands.add_parser("digits", help="accuracy and time of digit classifiers")
    digits.add_argument("--seconds", type=float, default=0.5, help="of measuring, for each time")
    commands.add_parser("tpu", help="its simulator beside SCALE-Sim and the paper")
    arrays = commands.add_parser("tpu-networks", help="whole networks on the simulated array")
    arrays.add_argument("models", nargs="*", help="names of examples/networks")
    arrays.add_argument("--target", default="tpu", help="another machine with an array")
    arrays.add_argument("--layers", action="store_true", help="also what each layer takes")
    tta = commands.add_parser("tta", help="how busy the machine's main unit is, by layer")
    tta.add_argument("--target", default="tta", help="another machine")
    commands.add_parser("simulators", help="simulated cycles a second of TTA machines")
    args = parser.parse_args()
    # each is loaded when it is asked for: none pays for the others
    if args.command == "networks":
        from benchmarks import networks

        return networks.run(args.models, args.seconds, args.rounds, args.int8)
    if args.command == "kernels":
        from benchmarks import kernels

        return kernels.run(args.only, args.seconds, args.target)
    if args.command == "compile":
        from benchmarks import compiling

        return compiling.run(args.model)
    if args.command == "simulators":
        from benchmarks import simulators

        return simulators.run()
    if args.command == "tpu":
        from benchmarks import tpu

        return tpu.run()
    if args.command == "tpu-networks":
        from benchmarks import tpu_networks

        return tpu_networks.run(args.models, args.target, args.layers)
    if args.command == "tta":
        from benchmarks import tta

        return tta.run(args.target)
    from benchmarks import digits as digits_benchmark

    return digits_benchmark.run(args.seconds)


if __name__ == "__main__":
    sys.exit(main())
