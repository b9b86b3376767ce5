"""One random network on every kind of target: reference == cpu == systolic array == TTA.

Networks are quantized ones; the machines are random legal ones: arrays of any size with few or
many accumulators, short FIFOs and other latencies; TTAs with fewer buses, registers and units,
slower operations, other delay slots. What a machine leaves to the host is part of its run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from nncc.driver import build, lower
from nncc.ir.graph import Module, Node
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.machines.systolic.sizes import resized
from nncc.ops import reference
from nncc.passes.fold import Fold
from nncc.passes.quantize import Quantize
from tests.levels.float_networks import IMAGE_LAYERS, Case, networks
from tests.levels.integer_networks import integer_networks
from tests.tpu.networks import arrays
from tests.tta.machines import narrowed

PARTS = 3  # of the fast set
SEEDS = 5  # of a part: what follows a first example resembles it
QUIET = list(HealthCheck)
FAST = settings(deadline=None, database=None, suppress_health_check=QUIET, max_examples=8)
SLOW = settings(FAST, max_examples=250)

# Between integers nothing is rounded; a float softmax in the middle may be, to either side.
EXACT = tuple(name for name in IMAGE_LAYERS if name != "softmax")
CASES = st.one_of(networks(layers=EXACT), integer_networks(), integer_networks())

# What must occur in each part of the fast set.
REQUIRED = frozenset({
    "convolution", "convolution with stride", "convolution with padding", "dilated convolution",
    "grouped convolution", "depthwise convolution", "fully connected", "residual sum",
    "max pool", "average pool", "global average pool", "lookup", "concat", "transpose",
    "product of activations", "unsigned values", "several samples",
})  # fmt: skip


def systolic(array: dict[str, int]) -> Machine:
    """A machine with an array of these sizes, and room for any of the networks."""
    return resized(load("tpu"), **{**array, "unified_bytes": array["rows"] << 16})


def program_of(case: Case) -> Module:
    """The integer program of a network."""
    if case.calib is None:
        return case.module
    return Quantize(calib=case.calib)(Fold()(case.module))


def compare(case: Case, targets: list[Machine], counted: Counter[str]) -> Module:
    """Runs the program on the CPU and on the targets, all equal to the reference."""
    module = program_of(case)
    expected = reference.interpret(module, case.inputs).outputs
    samples = next((x.shape[0] for x in case.inputs.values()), 1)
    sizes = dict.fromkeys(module.sizes, samples)
    runs = {"cpu": build(lower(module, "cpu")).run(case.inputs)}
    for machine in targets:
        compilation = lower(module, machine, sizes=sizes)
        runs[machine.name] = build(compilation).run(case.inputs)
        ours = any(s.machine is machine for s in compilation.segments)
        counted[f"networks on {machine.backend}s"] += ours
    for name, outputs in runs.items():
        for output, y in expected.items():
            np.testing.assert_array_equal(outputs[output], y, f"{output} on {name}")
    counted["networks on all targets"] += 1
    return module


# -- what occurs -------------------------------------------------------------------------------
def kinds(module: Module) -> Iterator[str]:
    """What kinds of layers a program has."""
    for node in module.graph.nodes:
        yield from _kinds(node, module)
    dtypes = {t.dtype.name for t in module.graph.types.values()}
    if "u8" in dtypes:
        yield "unsigned values"


def _kinds(node: Node, module: Module) -> Iterator[str]:
    names = {
        "IntAdd": "residual sum", "MaxPool": "max pool", "IntAveragePool": "average pool",
        "IntGlobalAveragePool": "global average pool", "Lookup": "lookup", "Concat": "concat",
        "Transpose": "transpose",
    }  # fmt: skip
    if node.op in names:
        yield names[node.op]
    if node.op == "IntMatMul":
        constant = node.inputs[1] in module.symbols
        yield "fully connected" if constant else "product of activations"
    if node.op == "IntConv":
        yield "convolution"
        if any(s > 1 for s in node.attrs.get("strides", ())):
            yield "convolution with stride"
        if any(node.attrs.get("pads", ())):
            yield "convolution with padding"
        if any(d > 1 for d in node.attrs.get("dilations", ())):
            yield "dilated convolution"
        group, channels = node.attrs.get("group", 1), module.type_of(node.inputs[0]).shape[1]
        if group > 1:
            yield "depthwise convolution" if group == channels else "grouped convolution"


# -- tests -------------------------------------------------------------------------------------
def run_networks(number: int, given_settings: settings, counted: Counter[str]) -> Counter[str]:
    """Networks and machines made from a seed, all compared; gives what kinds of layers occurred."""
    found: Counter[str] = Counter()

    @given_settings
    @seed(number)
    @given(case=CASES, array=arrays(), machine=st.integers(0, 1 << 30))
    def run(case: Case, array: dict[str, int], machine: int) -> None:
        targets = [systolic(array), narrowed(random.Random(machine))]
        found.update(set(kinds(compare(case, targets, counted))))
        found["several samples"] += next(iter(case.inputs.values())).shape[0] > 1

    run()
    return found


@pytest.mark.parametrize("part", range(2, 2 + PARTS))
def test_one_network_on_all_targets(part: int, counted: Counter[str]) -> None:
    found: Counter[str] = Counter()
    for k in range(SEEDS):
        found += run_networks(SEEDS * part + k, FAST, counted)
    assert not (missing := REQUIRED - found.keys()), f"never made: {missing}"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(100, 108))
def test_many_networks_on_all_targets(part: int, counted: Counter[str]) -> None:
    run_networks(part, SLOW, counted)
