"""Quantization: a float graph becomes an integer program, calibrated by data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from nncc.diagnostics import PassError, nearest
from nncc.ir.graph import Module, Node
from nncc.machines.machine import Machine
from nncc.passes.base import Pass
from nncc.passes.quantization import rules
from nncc.passes.quantization.calibration import batches, ranges, run_graph
from nncc.passes.quantization.conversion import CONVERSIONS, converted, is_float, signal_to_noise
from nncc.passes.quantization.integers import IntegerGraph, NoIntegerForm
from nncc.passes.quantization.scales import check_finite

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What quantization did.

    Args:
        integer: names of the nodes that are done in integers.
        floats: names of the nodes that stayed in floats, with the reason.
        sqnr: for each float output, 10*log10(sum y² / sum (y - y')²) in dB on the calibration
            data, y from the float graph and y' from the integer graph.
        synthetic: there were no data; inputs were random.
    """

    integer: tuple[str, ...]
    floats: tuple[tuple[str, str], ...]
    sqnr: Mapping[str, float]
    synthetic: bool

    def __str__(self) -> str:
        source = "random inputs: accuracy is not assured" if self.synthetic else "given data"
        lines = [
            f"{len(self.integer)} nodes in integers, {len(self.floats)} in floats, by {source}"
        ]
        lines += [f"  float: {name}: {reason}" for name, reason in self.floats]
        lines += [f"  {name}: SQNR {value:.1f} dB" for name, value in self.sqnr.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Quantize(Pass):
    """Replaces float ops by integer ops, with ranges of activations from calibration data.

        y = Conv(x, w, b)              xq = QuantizeLinear(x, sx, zx)
        r = Relu(y)             →      acc = IntConv(xq, w.q, b.q) {pad_value=zx}
                                       rq = Requantize(acc, m, s) {z=…, lo=…, hi=…}
                                       r = DequantizeLinear(rq, sr, zr)

    Activations are int8 with a zero point, weights int8 in -127..127 by output channel, biases
    int32. Clamps are part of the rescaling before them, other functions of one value become
    tables. What has no integer form stays in floats and is reported. Accumulators are shown to
    fit into 32 bits. Runs best after `fold`, which merges normalizations into weights.

    Args:
        bits: of weights and activations; 8.
        calibrator: `minmax`, or `percentile`, which leaves out the rarest values.
        percentile: percent of the values that the range must hold.
        floats: names of nodes that stay in floats.
        calib: calibration arrays by input name, axis 0 = samples; None: random inputs, with a
            warning; a model that comes quantized is then left as it is.
        on_report: is given the Report.
    """

    name: ClassVar[str] = "quantize"
    bits: int = 8
    calibrator: Literal["minmax", "percentile"] = "minmax"
    percentile: float = 99.99
    floats: tuple[str, ...] = ()
    calib: Mapping[str, np.ndarray] | None = field(default=None, compare=False, repr=False)
    on_report: Callable[[Report], None] | None = field(default=None, compare=False, repr=False)

    def run(self, module: Module, target: Machine | None = None) -> Module:
        if self.bits != 8:
            raise PassError(f"bits={self.bits} is not supported", help="bits=8 is")
        if not 50 < self.percentile <= 100:
            raise PassError(f"percentile={self.percentile} is not in 50..100")
        _refuse_unknown(module, self.floats)
        if self.calib is None and not any(is_float(n, module) for n in module.graph.nodes):
            return module  # an integer program already: there is nothing to calibrate
        if self.calib is None and any(n.op in CONVERSIONS for n in module.graph.nodes):
            return module  # it came quantized: what it has in floats is meant to be in floats
        _refuse_bad_weights(module)
        data = batches(module, self.calib)
        found, expected = ranges(module, data, self.calibrator, self.percentile)
        graph = IntegerGraph(module, found, frozenset(self.floats))
        result, integer, floats = converted(
            module, graph, lambda n: _try(n, graph) if is_float(n, module) else None
        )
        given = [run_graph(result, batch) for batch in data]
        sqnr = {
            o: signal_to_noise([e[o] for e in expected], [g[o] for g in given])
            for o in module.graph.outputs
            if o in expected[0] and expected[0][o].dtype.kind == "f"
        }
        report = Report(integer, floats, sqnr, self.calib is None)
        log.info("%s", report)
        if self.on_report is not None:
            self.on_report(report)
        return result


def _refuse_unknown(module: Module, floats: tuple[str, ...]) -> None:
    names = [n.name for n in module.graph.nodes]
    for name in floats:
        if name not in names:
            raise PassError(
                f"'{name}' is to stay in floats, but there is no such node",
                help=nearest(name, names, "nodes"),
            )


def _refuse_bad_weights(module: Module) -> None:
    for name, symbol in module.symbols.items():
        if symbol.type.dtype.is_float:
            check_finite(name, symbol.data.array)


def _try(node: Node, graph: IntegerGraph) -> str:
    """Does the node in integers; the reason if that is not possible."""
    if node.name in graph.excluded:
        return "it was asked for"
    others = [t for o in node.outputs if o and (t := graph.type(o).dtype).name != "f32"]
    if others:
        return f"it computes in {others[0]}" if others[0].is_float else f"it gives {others[0]}"
    try:
        rules.apply(node, graph)
    except NoIntegerForm as e:
        return str(e)
    return ""
