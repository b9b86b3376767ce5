"""Models that come quantized, for machines that compute with integers only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from nncc.ir.graph import Module, Node
from nncc.ir.interpreter.graph import interpret
from nncc.ir.types import f32
from nncc.machines.machine import Machine
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE
from nncc.passes.base import Pass
from nncc.passes.quantization import rules
from nncc.passes.quantization.calibration import Arrays, batches, synthetic
from nncc.passes.quantization.conversion import CONVERSIONS, converted, is_float, signal_to_noise
from nncc.passes.quantization.integers import NoIntegerForm
from nncc.passes.quantization.stated import OFFSET, StatedGraph, with_constants

log = logging.getLogger(__name__)

# They give elements of their operands, which no trait says.
CHOOSING = ("Concat", "MaxPool")


@dataclass(frozen=True)
class Difference:
    """How far an output of the integer program is from the model's.

    Args:
        largest: absolute difference; `reach`: the largest absolute value of the model's output.
        differ: how many of `count` elements are not equal.
        sqnr: in dB, see `signal_to_noise`.
    """

    largest: float
    reach: float
    differ: int
    count: int
    sqnr: float

    def __str__(self) -> str:
        return (
            f"largest deviation {self.largest:.6g} of {self.reach:.6g}, {self.differ} of "
            f"{self.count} elements differ, SQNR {self.sqnr:.1f} dB"
        )


@dataclass(frozen=True)
class Report:
    """What the pass did.

    Args:
        integer: names of the nodes that are done in the project's integer arithmetic.
        floats: names of the nodes that stayed as they were, with the reason.
        weights: names of the integer nodes whose constants are not those of the model, with what
            changed.
        differences: by output; what was compared are `samples` samples, random if `synthetic`.
    """

    integer: tuple[str, ...]
    floats: tuple[tuple[str, str], ...]
    weights: tuple[tuple[str, str], ...]
    differences: Mapping[str, Difference]
    samples: int
    synthetic: bool

    def __str__(self) -> str:
        source = "random" if self.synthetic else "given"
        lines = [
            f"came quantized: {len(self.integer)} nodes in integers, {len(self.floats)} in floats; "
            f"on {self.samples} {source} sample{'s' if self.samples > 1 else ''}"
        ]
        lines += [f"  float: {name}: {reason}" for name, reason in self.floats]
        lines += [f"  new weights: {name}: {reason}" for name, reason in self.weights]
        lines += [f"  {name}: {found}" for name, found in self.differences.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Integerize(Pass):
    """Turns the quantized groups of a model from another tool into integer ops.

        xf = DequantizeLinear(x, sx, zx)       acc = IntConv(x, w, b) {pad_value=zx}
        c = Conv(xf, wf, bf)             →     y = Requantize(acc, m, s) {z=zy}
        y = QuantizeLinear(c, sy, zy)

    The model states scales and zero points; weights stay the integers that they are. Those that
    are not in -127..127, in scales for which sums fit into 32 bits and multipliers into 31, are
    changed, which is reported. The model's own rounding (float32 scales, half to even) becomes
    that of integer programs (a multiplier and a shift, half up), and the difference at the outputs
    is measured and reported. Unsigned values become signed ones, less 128. What the model computes
    between floats that it does not quantize stays as it is. A model that quantizes nothing is left
    alone.

    Args:
        samples: how many the differences are measured on, where there are no data.
        calib: arrays by input name, axis 0 = samples, to measure the differences on; None: random
            ones.
        on_report: is given the Report.
    """

    name: ClassVar[str] = "integerize"
    samples: int = 2
    calib: Mapping[str, np.ndarray] | None = field(default=None, compare=False, repr=False)
    on_report: Callable[[Report], None] | None = field(default=None, compare=False, repr=False)

    def run(self, module: Module, target: Machine | None = None) -> Module:
        if not any(n.op in CONVERSIONS for n in module.graph.nodes):
            return module
        plain, stated = with_constants(module)
        graph = StatedGraph(plain, stated)
        done: list[Node] = []
        result, integer, floats = converted(plain, graph, lambda n: _attempt(n, graph, done))
        if not done:
            return module
        given = self.calib is not None
        data = batches(module, self.calib) if given else [_random(graph, self.samples)]
        count = sum(len(next(iter(batch.values()), ())) for batch in data)
        weights = tuple((n, reason) for n, reason in graph.new_weights.items() if n in integer)
        differences = _differences(module, result, data)
        report = Report(integer, floats, weights, differences, count, not given)
        log.info("%s", report)
        if self.on_report is not None:
            self.on_report(report)
        return result


def _attempt(node: Node, graph: StatedGraph, done: list[Node]) -> str | None:
    """Does a node in integers; see `conversion.Attempt`. Those that compute are put into `done`."""
    module = graph.module
    try:
        if node.op == "QuantizeLinear":
            graph.quantize(node)
        elif node.op == "DequantizeLinear":
            graph.dequantize(node)
        elif not is_float(node, module):
            if node.op == "Gather" and graph.look_up(node):
                done.append(node)
                return ""
            if not _moves_bytes(node, module):
                return None
            for name in filter(graph.is_varying, node.inputs):
                graph.code(name)
            rules.apply(node, graph)
            done.append(node)
        elif others := [t for o in node.outputs if o and (t := graph.type(o).dtype) is not f32]:
            return f"it gives {others[0]}"
        else:
            rules.apply(node, graph)
            done.append(node)
    except NoIntegerForm as e:
        return str(e)
    return ""


def _moves_bytes(node: Node, module: Module) -> bool:
    """Whether a node only chooses among 8-bit values, whatever numbers they stand for."""
    declared = TABLE.get(node.op)
    chooses = declared is not None and ("view" in declared.traits or node.op in CHOOSING)
    names = (*node.outputs, *(i for i in node.inputs if i not in module.symbols))
    return chooses and all(module.type_of(n).dtype in OFFSET for n in names if n)


def _random(graph: StatedGraph, samples: int) -> Arrays:
    """Samples for the graph's module; inputs that it quantizes fill the range of their scale."""
    rng = np.random.default_rng(1)
    found = dict(synthetic(graph.module, samples))
    for name in found:
        for user in graph.module.graph.users.get(name, ()):
            scale = graph.stated_by(user) if user.op == "QuantizeLinear" else None
            if scale is not None:
                found[name] = rng.choice(scale.values, found[name].shape)
    return found


def _differences(module: Module, result: Module, data: Sequence[Arrays]) -> dict[str, Difference]:
    """By output that is not of integers that count or index something."""
    outputs = [o for o in module.graph.outputs if module.type_of(o).dtype in (f32, *OFFSET)]
    expected = [_outputs(module, batch, outputs) for batch in data]
    given = [_outputs(result, batch, outputs) for batch in data]
    found = {}
    for o in outputs:
        ours, theirs = [g[o] for g in given], [e[o] for e in expected]
        apart = [np.abs(a.astype(np.float64) - b) for a, b in zip(ours, theirs, strict=True)]
        found[o] = Difference(
            max(float(a.max(initial=0.0)) for a in apart),
            max(float(np.abs(b.astype(np.float64)).max(initial=0.0)) for b in theirs),
            sum(int(np.count_nonzero(a)) for a in apart),
            sum(a.size for a in apart),
            signal_to_noise(theirs, ours),
        )
    return found


def _outputs(module: Module, batch: Arrays, names: Sequence[str]) -> dict[str, np.ndarray]:
    with np.errstate(all="ignore"):
        made = interpret(module, batch, evaluate).outputs
    return {n: made[n] for n in names}
