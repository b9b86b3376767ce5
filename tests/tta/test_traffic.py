"""Bytes that loads and stores move as predicted from the Loops equal those that are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nncc.backends.tta.compiler import compile_program
from nncc.compilation import Compilation
from nncc.diagnostics import NnccError
from nncc.driver import lower
from nncc.ir.graph import Module
from nncc.ir.types import i8
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.passes.plan import program
from nncc.passes.reuse import fetched, operands, schedule_loops
from nncc.passes.reuse.traffic import dim_ranges
from nncc.runtime.executable import Executable
from nncc.traffic import counted, predicted, predicted_program, table
from tests.levels.float_networks import Case
from tests.levels.integer_networks import integer_networks
from tests.nests.random_networks import Network

QUIET = settings(
    deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
MACHINES = {name: load(name) for name in ("tta", "tta_minimal")}


@pytest.fixture(scope="module")
def seen() -> Iterator[Counter[str]]:
    counter: Counter[str] = Counter()
    yield counter
    print(dict(counter))


def parts(compilation: Compilation, machine: Machine) -> list[Compilation]:
    return [s for s in compilation.segments or (compilation,) if s.machine is machine]


def run(part: Compilation, machine: Machine) -> Executable:
    """The segment's code after a run on random inputs."""
    p = program(part.module)
    net = compile_program(p, machine)
    rng = np.random.default_rng(0)
    net.run({
        name: rng.integers(*t.dtype.limits, t.static_shape, t.dtype.numpy, endpoint=True)
        for name, t in p.signature.inputs
    })  # fmt: skip
    return net


def check(compilation: Compilation, machine: Machine, seen: Counter[str]) -> None:
    """Every layer: what tensors ask for is as predicted, the rest is what the code added."""
    for part in parts(compilation, machine):
        expected = predicted_program(program(part.module), machine)
        net = run(part, machine)
        assert net.statistics is not None
        added = net.report["own_bytes"]
        for layer, memories in counted(net.statistics).items():
            for memory in expected.get(layer, ()):
                own = added.get(layer, {}).get(memory, (0, 0))
                total = tuple(a + b for a, b in zip(expected[layer][memory], own, strict=True))
                assert total == memories[memory], (layer, memory, own)
                seen["exact without additions" if not any(own) else "with additions"] += 1


@st.composite
def layers(draw: st.DrawFn) -> Module:
    """One layer of those that networks are made of."""
    net = Network(draw(st.integers(0, 99)))
    n = draw(st.integers(1, 2))
    c = draw(st.sampled_from([3, 4, 16, 20, 32, 33, 64]))
    h, w = draw(st.integers(3, 9)), draw(st.integers(3, 9))
    x = net.input("x", n, c, h, w, dtype=i8)
    kernel, stride = draw(st.sampled_from([1, 2, 3])), draw(st.integers(1, 2))
    window = {"pads": (kernel // 2,) * 4, "strides": (stride, stride)}
    kind = draw(st.sampled_from(["conv", "conv", "grouped", "depthwise", "max", "add", "linear"]))
    if kind == "max":
        y = net.add("MaxPool", x, kernel_shape=(kernel, kernel), **window)
    elif kind == "add":
        y = net.add("IntAdd", x, x, za=3, zb=-4, ma=9000, mb=20000, s=15, z=1)
    elif kind == "linear":
        filters = draw(st.integers(1, 70))
        flat = net.add("Flatten", x)
        k = net.random.integers(-127, 128, (c * h * w, filters)).astype(np.int8)
        y = scaled(net, net.add("IntMatMul", flat, net.constant(k)), filters)
    else:
        group = {"conv": 1, "grouped": 4 if c % 4 == 0 else 1, "depthwise": c}[kind]
        filters = c if kind == "depthwise" else group * draw(st.integers(1, 40 // group))
        k = net.random.integers(-127, 128, (filters, c // group, kernel, kernel)).astype(np.int8)
        zero = draw(st.sampled_from([0, -128]))
        extra = {"group": group, "zx": zero, "pad_value": zero}
        y = scaled(net, net.add("IntConv", x, net.constant(k), **window, **extra), filters)
    return Module(net.builder.graph("main", (y,)), (), net.builder.symbols)


def scaled(net: Network, x: str, filters: int) -> str:
    m, s = (net.constant(np.full(filters, v, np.int32)) for v in (1 << 30, 40))
    return net.add("Requantize", x, m, s)


@settings(QUIET, max_examples=14)
@given(module=layers())
@pytest.mark.parametrize("name", MACHINES)
def test_random_layers(name: str, module: Module, seen: Counter[str]) -> None:
    check(lower(module, MACHINES[name]), MACHINES[name], seen)


def check_network(case: Case, machine: Machine, seen: Counter[str]) -> None:
    n = next((x.shape[0] for x in case.inputs.values()), 1)
    sizes = dict.fromkeys(case.module.sizes, n)
    check(lower(case.module, machine, calib=case.calib, sizes=sizes), machine, seen)


@settings(QUIET, max_examples=6)
@given(case=integer_networks())
def test_random_networks(case: Case, seen: Counter[str]) -> None:
    check_network(case, MACHINES["tta"], seen)


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
@settings(QUIET, max_examples=250)
@given(case=integer_networks())
def test_many_networks(name: str, case: Case, seen: Counter[str]) -> None:
    check_network(case, MACHINES[name], seen)


@pytest.mark.parametrize("kernel, stride, pad", [(3, 1, 1), (3, 2, 1), (3, 1, 0)])
@pytest.mark.parametrize("channels, filters, size", [(32, 32, 5), (32, 64, 4)])
def test_the_model_of_nests_agrees(
    kernel: int, stride: int, pad: int, channels: int, filters: int, size: int
) -> None:
    """`fetched` knows from nest and schedule alone what a convolution reads: activations of every
    tap inside of the image, and as many vectors of weights."""
    net = Network(1)
    x = net.input("x", 1, channels, size, size, dtype=i8)
    shape = (filters, channels, kernel, kernel)
    w = net.constant(net.random.integers(-127, 128, shape).astype(np.int8))
    y = net.add("IntConv", x, w, pads=(pad,) * 4, strides=(stride, stride), zx=0)
    y = scaled(net, y, filters)
    machine = MACHINES["tta"]
    module = Module(net.builder.graph("main", (y,)), (), net.builder.symbols)
    (part,) = parts(lower(module, machine), machine)
    (nest,) = (n for n in part.scheduled.nests.values() if len(n.statements) == 3)
    acc = next(s for s in nest.statements if s.combine == "sum")
    tensors = {o.tensor: o for o in operands(acc, nest)}
    loops, ranges = schedule_loops(nest, acc.name), dim_ranges(nest, acc, {})
    inside = tensors["x"].axes
    moved = {t: fetched(tensors[t], loops, ranges, inside).load_bytes for t in ("x", "w")}
    net_code = run(part, machine)
    assert net_code.statistics is not None
    layer = max(net_code.statistics.layers, key=lambda layer: layer.macs)
    added = net_code.report["own_bytes"].get(layer.name, {})
    reads = {m: u.read_bytes - added.get(m, (0, 0))[0] for m, u in layer.memories.items()}
    parameters = 2 * 4 * filters  # multiplier and shift, which stay in registers
    assert reads["dmem"] == moved["x"]
    assert reads["pmem"] == moved["w"] + parameters


def test_additions_are_told() -> None:
    """The numbers of an addition are a vector that is loaded once: no tensor, but told."""
    net = Network(0)
    x = net.input("x", 1, 4, 4, 32, dtype=i8)
    y = net.add("IntAdd", x, x, za=1, zb=2, ma=9000, mb=9000, s=15)
    module = Module(net.builder.graph("main", (y,)), (), net.builder.symbols)
    machine = MACHINES["tta"]
    (part,) = parts(lower(module, machine), machine)
    added = run(part, machine).report["own_bytes"]
    assert list(added.values()) == [{"pmem": [32, 0]}]


def test_table_of_all_segments() -> None:
    net = Network(0)
    x = net.input("x", 1, 32, 4, 4, dtype=i8)
    y = net.add("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2))
    module = Module(net.builder.graph("main", (y,)), (), net.builder.symbols)
    compilation = lower(module, MACHINES["tta"])
    text = table(compilation)
    for layer, memories in predicted(compilation).items():
        read, written = memories["dmem"]
        assert any(
            line.split() == [layer, "dmem", str(read), str(written)] for line in text.splitlines()
        )


def test_caches_are_the_schedules_matter() -> None:
    net = Network(0)
    x = net.input("x", 1, 32, 4, 4, dtype=i8)
    y = net.add("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2))
    module = Module(net.builder.graph("main", (y,)), (), net.builder.symbols)
    compilation = lower(module, "cpu")
    with pytest.raises(NnccError, match="nothing is predicted for 'cpu'"):
        predicted(compilation)
    assert "l1: " in table(compilation)
