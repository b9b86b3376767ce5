"""What a simulated run did: cycles, stalls, traffic and energy, in all and by layer.

    run.statistics.cycles                      12345
    run.statistics.layers[0].name              "conv1"
    str(run.statistics)                        a table for people
    run.statistics.as_json()                   the same for scripts

A layer is what a node of the graph became; instructions that belong to none are the layer "".
The sums over layers are the totals: every cycle, byte and picojoule belongs to one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes that went out of and into a memory, and the energy of that in pJ (0: not known)."""

    read_bytes: int = 0
    written_bytes: int = 0
    energy_pj: float = 0.0

    def __add__(self, other: MemoryUse) -> MemoryUse:
        return MemoryUse(
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
            self.energy_pj + other.energy_pj,
        )


@dataclass(frozen=True)
class Layer:
    """What a node of the graph cost.

    Args:
        cycles: in which this layer was what the machine waited for or worked at.
        active: cycles in which the main compute unit worked for it.
        macs: multiply-accumulates that the layer needs (not those that the array did on padding).
        stalls: cycles by cause.
        memories: by the names of the machine's storage; `compute_pj`: of operations.
    """

    name: str
    cycles: int = 0
    active: int = 0
    macs: int = 0
    stalls: Mapping[str, int] = field(default_factory=dict)
    memories: Mapping[str, MemoryUse] = field(default_factory=dict)
    compute_pj: float = 0.0

    @property
    def energy_pj(self) -> float:
        return self.compute_pj + sum(m.energy_pj for m in self.memories.values())


@dataclass(frozen=True)
class Statistics:
    """What a run on a simulator did.

    Args:
        machine: its name; `frequency_hz`: its clock.
        peak_macs: multiply-accumulates a cycle at the most, for `utilization`.
        layers: in the order in which they began.
        units: cycles in which each unit (a bus, a function unit, an engine) worked.
    """

    machine: str
    frequency_hz: float
    cycles: int
    peak_macs: int
    layers: tuple[Layer, ...]
    units: Mapping[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.cycles / self.frequency_hz

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def utilization(self) -> float:
        """Needed multiply-accumulates as a part of what the machine could have done."""
        return self.macs / (self.cycles * self.peak_macs) if self.cycles else 0.0

    @property
    def stalls(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for layer in self.layers:
            for cause, cycles in layer.stalls.items():
                total[cause] = total.get(cause, 0) + cycles
        return total

    @property
    def memories(self) -> dict[str, MemoryUse]:
        total: dict[str, MemoryUse] = {}
        for layer in self.layers:
            for name, use in layer.memories.items():
                total[name] = total.get(name, MemoryUse()) + use
        return total

    @property
    def energy_pj(self) -> float:
        return sum(layer.energy_pj for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """Everything as numbers, texts, lists and tables."""
        return {
            "machine": self.machine,
            "frequency_hz": self.frequency_hz,
            "cycles": self.cycles,
            "seconds": self.seconds,
            "macs": self.macs,
            "utilization": self.utilization,
            "energy_pj": self.energy_pj,
            "stalls": self.stalls,
            "units": dict(self.units),
            "memories": {name: _use(m) for name, m in self.memories.items()},
            "layers": [
                {
                    "name": layer.name,
                    "cycles": layer.cycles,
                    "active": layer.active,
                    "macs": layer.macs,
                    "stalls": dict(layer.stalls),
                    "memories": {name: _use(m) for name, m in layer.memories.items()},
                    "energy_pj": layer.energy_pj,
                }
                for layer in self.layers
            ],
        }

    def __str__(self) -> str:
        lines = [
            f"{self.machine}: {self.cycles} cycles, {1e3 * self.seconds:.4g} ms, "
            f"{self.macs} MACs, utilization {100 * self.utilization:.1f} %, "
            f"{1e-6 * self.energy_pj:.4g} µJ"
        ]
        if self.stalls:
            lines.append("stalls: " + ", ".join(f"{c} {n}" for c, n in self.stalls.items()))
        for name, use in self.memories.items():
            lines.append(
                f"{name}: {use.read_bytes} bytes read, {use.written_bytes} written, "
                f"{1e-6 * use.energy_pj:.4g} µJ"
            )
        head = ("layer", "cycles", "active", "MACs", "of peak", "µJ")
        lines.append("{:24} {:>10} {:>7} {:>12} {:>8} {:>9}".format(*head))
        lines += [self._row(layer) for layer in self.layers]
        return "\n".join(lines)

    def _row(self, layer: Layer) -> str:
        busy = layer.active / layer.cycles if layer.cycles else 0.0
        most = layer.cycles * self.peak_macs
        used = layer.macs / most if most else 0.0
        return (
            f"{layer.name or '-':24} {layer.cycles:10} {100 * busy:6.1f}% {layer.macs:12} "
            f"{100 * used:7.1f}% {1e-6 * layer.energy_pj:9.4g}"
        )


def total(runs: Sequence[Statistics]) -> Statistics:
    """Several runs of one machine, one after the other; layers of one name become one.

    Raises ValueError if there is none.
    """
    if not runs:
        raise ValueError("there is no run to sum up")
    layers: dict[str, Layer] = {}
    units: dict[str, int] = {}
    for run in runs:
        for layer in run.layers:
            layers[layer.name] = _sum(layers[layer.name], layer) if layer.name in layers else layer
        units = _added(units, run.units)
    cycles = sum(run.cycles for run in runs)
    return replace(runs[0], cycles=cycles, layers=tuple(layers.values()), units=units)


def _sum(a: Layer, b: Layer) -> Layer:
    memories = {**a.memories}
    for name, use in b.memories.items():
        memories[name] = memories.get(name, MemoryUse()) + use
    return Layer(
        a.name, a.cycles + b.cycles, a.active + b.active, a.macs + b.macs,
        _added(a.stalls, b.stalls), memories, a.compute_pj + b.compute_pj,
    )  # fmt: skip


def _added(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in (*a, *(n for n in b if n not in a))}


def _use(use: MemoryUse) -> dict[str, Any]:
    return {
        "read_bytes": use.read_bytes,
        "written_bytes": use.written_bytes,
        "energy_pj": use.energy_pj,
    }
