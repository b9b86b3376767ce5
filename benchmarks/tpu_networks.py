"""Whole networks on the simulated array: cycles, how busy it is, bytes and energy.

The networks of examples/networks, with their random weights, quantized by one random input. Every
run is compared with the interpreter of the quantized graph, bit for bit.
"""

from __future__ import annotations

import numpy as np

from benchmarks.networks import EXAMPLES, feeds_of
from nncc.diagnostics import NnccError
from nncc.driver import build, lower
from nncc.machines import load
from nncc.ops import reference
from nncc.runtime.statistics import Statistics

NETWORKS = ("squeezenet1_1", "mobilenet_v2", "resnet18", "resnet50", "vgg16")
MEMORIES = ("weight_memory", "unified_buffer", "accumulators", "host")
STALLS = ("weight stall", "weight shift", "raw stall", "input stall")


def run(models: list[str], target: str, layers: bool) -> int:
    """Prints one line a network; the exit status.

    Args:
        models: names of examples/networks; none: those of NETWORKS.
        target: a machine with an array.
        layers: also the tables of single layers.
    """
    memories = "".join(f"{name.replace('_', ' ') + ' MB':>19}" for name in MEMORIES)
    print(f"{'network':15}{'GMACs':>7}{'cycles':>10}{'ms':>8}{'of peak':>9}{'busy':>7}{'stalls':>8}"
          f"{memories}{'mJ':>8}  exact   on the host")  # fmt: skip
    wrong = 0
    for name in models or NETWORKS:
        path = EXAMPLES / f"{name}.nn"
        compilation = lower(path, load(target), calib=feeds_of(path, seed=1))
        nodes = compilation.host_nodes
        share = sum(n.macs_share for n in nodes)
        try:
            net = build(compilation)
        except NnccError as error:
            print(f"{name:15}  {error.message}", flush=True)
            wrong += 1
            continue
        feeds = feeds_of(path)
        outputs, statistics = net.run(feeds), net.statistics
        assert statistics is not None, "a simulator counts"
        expected = reference.interpret(compilation.module, feeds).outputs
        exact = all(np.array_equal(outputs[n], expected[n]) for n in expected)
        wrong += not exact
        print(f"{name:15}{_line(statistics)}  {'yes' if exact else 'NO':7} {len(nodes)} nodes, "
              f"{share:.1%} of the MACs", flush=True)  # fmt: skip
        if layers:
            print(f"{statistics}\n", flush=True)
    return int(wrong > 0)


def _line(s: Statistics) -> str:
    active = sum(layer.active for layer in s.layers) / s.cycles
    stalls = sum(s.stalls.get(cause, 0) for cause in STALLS) / s.cycles
    used = (s.memories[m] for m in MEMORIES)
    moved = "".join(f"{1e-6 * (m.read_bytes + m.written_bytes):19.2f}" for m in used)
    return (
        f"{1e-9 * s.macs:7.2f}{s.cycles:10}{1e3 * s.seconds:8.3f}{100 * s.utilization:8.1f}%"
        f"{100 * active:6.1f}%{100 * stalls:7.1f}%{moved}{1e-9 * s.energy_pj:8.2f}"
    )
