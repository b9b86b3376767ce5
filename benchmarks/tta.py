"""Layers on the BrainTTA-like machine: how busy its multiply-accumulate unit is, why not more.

For each layer, of the contraction alone:

- cycles, and the share of them in which the multiply-accumulate unit starts an operation (busy);
- the same in the steady state: in the instructions that run at least half as often as the one that
  runs most, which are those of the pixels inside of the image (at 1x1: of all pixels). The rest
  are borders, begins and ends of loops;
- the share of the machine's peak in multiply-accumulates that the layer needs, with those on
  padding, which the code leaves out, and without those that only fill a vector;
- cycles in which the banks of a memory met;
- what the steady state takes most of: a unit, or a kind of buses, and its share of what there is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nncc.backends.tta.compiler import compile_code
from nncc.driver import Compilation, lower
from nncc.ir.graph import Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, i8
from nncc.isa.tta.program import Instruction, PortRef
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine
from nncc.ops.builder import GraphBuilder
from nncc.ops.integer import quantize_multiplier
from nncc.passes.plan import program as program_of
from nncc.runtime.statistics import Layer
from nncc.runtime.tta.model import main_unit, statistics
from nncc.runtime.tta.translated import Translated

# (name, channels, filters, kernel, size, stride, groups)
LAYERS = (
    ("1x1", 32, 32, 1, 28, 1, 1),
    ("1x1", 64, 64, 1, 28, 1, 1),
    ("1x1", 128, 128, 1, 14, 1, 1),
    ("1x1", 256, 64, 1, 14, 1, 1),
    ("1x1/2", 64, 128, 1, 28, 2, 1),
    ("3x3", 32, 32, 3, 28, 1, 1),
    ("3x3", 64, 64, 3, 14, 1, 1),
    ("3x3", 128, 128, 3, 14, 1, 1),
    ("3x3/2", 32, 64, 3, 28, 2, 1),
    ("5x5", 32, 32, 5, 14, 1, 1),
    ("3x3", 24, 32, 3, 14, 1, 1),
    ("depthwise 3x3", 32, 32, 3, 28, 1, 32),
    ("depthwise 3x3", 64, 64, 3, 14, 1, 64),
)

DIGITS = Path(__file__).parent.parent / "examples" / "digits"


def layer(
    channels: int, filters: int, kernel: int, size: int, stride: int = 1, groups: int = 1
) -> Module:
    """One convolution with its rescaling on a square image, with borders."""
    rng = np.random.default_rng(0)
    builder = GraphBuilder()

    def constant(name: str, data: np.ndarray) -> str:
        builder.symbols[name] = Symbol("const", Tensor(data))
        return name

    builder.input("x", TensorType(i8, (1, channels, size, size)))
    shape = (filters, channels // groups, kernel, kernel)
    w = constant("w", rng.integers(-127, 127, shape, np.int8, endpoint=True))
    b = constant("b", rng.integers(-1000, 1000, filters, np.int32))
    attributes = {"pads": (kernel // 2,) * 4, "strides": (stride,) * 2, "group": groups, "zx": 0}
    builder.add(Node("IntConv", ("x", w, b), ("sum",), attributes))
    m, s = quantize_multiplier(40 / (75 * 75 * np.sqrt(np.prod(shape[1:]))))
    rows = [constant(n, np.full(filters, v, np.int32)) for n, v in (("m", m), ("s", s))]
    builder.add(Node("Requantize", ("sum", *rows), ("y",), {"z": 3}))
    return Module(builder.graph("layer", ("y",)), symbols=builder.symbols)


@dataclass(frozen=True)
class Use:
    """What the instructions of a source node did.

    Args:
        layer: the counts; `peak`: multiply-accumulates of the machine a cycle.
        steady: the share of the steady state in which the main unit starts something, 0 to 1.
        fullest: what the steady state takes most of, and its share.
    """

    layer: Layer
    peak: int
    steady: float
    fullest: str


def uses(compilation: Compilation) -> list[Use]:
    """What each layer of a model does on zeros, without what the host does. Raises NnccError."""
    found: list[Use] = []
    for segment in compilation.segments or (compilation,):
        machine = segment.machine
        if machine.architecture is None:
            continue
        program = program_of(segment.module)
        code = compile_code(program, machine)
        simulator = Translated(code.program, machine)
        for (_, t), address in zip(program.signature.inputs, code.places.inputs, strict=True):
            simulator.write(code.places.space, address, bytes(t.dtype.bits // 8 * _count(t.shape)))
        counts = statistics(simulator.run(), machine)
        groups: dict[str, list[tuple[Instruction, int]]] = defaultdict(list)
        for x, times in zip(code.program.instructions, simulator.executed(), strict=True):
            groups[x.source].append((x, times))
        for one in counts.layers:
            steady, fullest = _steady(groups[one.name], machine)
            found.append(Use(one, counts.peak_macs, steady, fullest))
    return found


def _count(shape: Sequence[object]) -> int:
    return int(np.prod([int(str(e)) for e in shape]))


def _steady(code: Sequence[tuple[Instruction, int]], machine: Machine) -> tuple[float, str]:
    a = architecture_of(machine)
    most = max(times for _, times in code)
    width = {b.name: b.width for b in a.buses}
    buses = Counter(width.values())
    taken: Counter[str] = Counter()
    cycles = 0
    for x, times in code:
        if 2 * times < most:
            continue
        cycles += times
        slots = [m.bus for m in x.moves]
        slots += a.template[x.template].slots if x.template else ()
        for bus in slots:
            if bus in width:
                taken[f"{width[bus]}-bit buses"] += times
        for m in x.moves:
            if isinstance(m.destination, PortRef) and m.destination.operation:
                taken[m.destination.unit] += times
    room = {f"{w}-bit buses": n for w, n in buses.items()}
    shares = {name: n / (cycles * room.get(name, 1)) for name, n in taken.items()}
    steady = shares.get(main_unit(machine), 0.0)
    name = max(shares, key=lambda n: shares[n])
    return steady, f"{name} {shares[name]:.0%}"


def run(target: str = "tta") -> int:
    """Prints the tables: single layers, and the layers of the digits network."""
    titles = f"{'busy':>7} {'steady':>7} {'of peak':>8} {'stalls':>7}  fullest"
    print(f"{'layer':26} {'cycles':>9} {titles}")
    for name, channels, filters, kernel, size, stride, groups in LAYERS:
        module = layer(channels, filters, kernel, size, stride, groups)
        compilation = lower(module, target)
        use = max(uses(compilation), key=lambda u: u.layer.active)
        macs = channels // groups * filters * kernel**2 * (size // stride) ** 2
        share = macs / (use.layer.cycles * use.peak)
        _print(f"{name} {channels}->{filters} {size}x{size}", use, f"{share:.1%}")
    print("\nthe digits network, one image")
    calibration = np.load(DIGITS / "digits.npz")["calib_images"].astype(np.float32)[:, None] / 255
    compilation = lower(str(DIGITS / "digits.onnx"), target, calib={"image": calibration})
    for use in uses(compilation):
        _print(use.layer.name or "(begin and end)", use, "")
    return 0


def _print(label: str, use: Use, share: str) -> None:
    x = use.layer
    print(
        f"{label:26} {x.cycles:9} {x.active / x.cycles:7.1%} {use.steady:7.1%} "
        f"{share:>8} {sum(x.stalls.values()):7}  {use.fullest}"
    )
