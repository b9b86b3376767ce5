"""What a simulated run did: cycles, stalls, traffic and energy, in all and by layer.

    run.statistics.cycles                      12345
    run.statistics.layers[0].name              "conv1"
    str(run.statistics)                        a table for people
    run.statistics.as_json()                   the same for scripts

A layer is what a node of the graph became; instructions that belong to none are the layer "".
The sums over layers are the totals: every cycle, byte and picojoule belongs to one layer. Of a
memory, unit or operation of which the machine's file states no energy, it is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import add
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


@dataclass(frozen=True, slots=True)
class OperationUse:
    """How often a machine operation was done, and the energy of that in pJ (0: not known).

    Args:
        count: executions; of an operation whose nest has named sizes, points of its statement.
    """

    count: int = 0
    energy_pj: float = 0.0

    def __add__(self, other: OperationUse) -> OperationUse:
        return OperationUse(self.count + other.count, self.energy_pj + other.energy_pj)


@dataclass(frozen=True)
class Layer:
    """What a node of the graph cost.

    Args:
        cycles: in which this layer was what the machine waited for or worked at.
        active: cycles in which the main compute unit worked for it.
        macs: multiply-accumulates that the layer needs (not those that the array did on padding).
        stalls: cycles by cause.
        memories: by the names of the machine's storage.
        units_pj: energy of units by name, with that of their operations, and of what else has an
            energy: buses, register files.
        operations: by name.
    """

    name: str
    cycles: int = 0
    active: int = 0
    macs: int = 0
    stalls: Mapping[str, int] = field(default_factory=dict)
    memories: Mapping[str, MemoryUse] = field(default_factory=dict)
    units_pj: Mapping[str, float] = field(default_factory=dict)
    operations: Mapping[str, OperationUse] = field(default_factory=dict)

    @property
    def compute_pj(self) -> float:
        """The energy of all but the memories."""
        return sum(self.units_pj.values())

    @property
    def energy_pj(self) -> float:
        return self.compute_pj + sum(m.energy_pj for m in self.memories.values())

    def __add__(self, other: Layer) -> Layer:
        """Both, under the name of the first."""
        return Layer(
            self.name, self.cycles + other.cycles, self.active + other.active,
            self.macs + other.macs, _added(self.stalls, other.stalls),
            _added(self.memories, other.memories), _added(self.units_pj, other.units_pj),
            _added(self.operations, other.operations),
        )  # fmt: skip


@dataclass(frozen=True)
class Statistics:
    """What a run on a simulator did.

    Args:
        machine: its name; `frequency_hz`: its clock.
        peak_macs: multiply-accumulates a cycle at the most, for `utilization`.
        layers: in the order in which they began.
        units: cycles in which each unit (a bus, a function unit, an engine) worked.
        calls: how many runs of the program this is.
        fillers: samples that only fill up the last call, where a program takes several samples;
            what they cost is in here.
    """

    machine: str
    frequency_hz: float
    cycles: int
    peak_macs: int
    layers: tuple[Layer, ...]
    units: Mapping[str, int] = field(default_factory=dict)
    calls: int = 1
    fillers: int = 0

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
    def _all(self) -> Layer:
        return reduce(add, self.layers, Layer(""))

    @property
    def stalls(self) -> Mapping[str, int]:
        return self._all.stalls

    @property
    def memories(self) -> Mapping[str, MemoryUse]:
        return self._all.memories

    @property
    def units_pj(self) -> Mapping[str, float]:
        """Energy of everything but the memories, by name."""
        return self._all.units_pj

    @property
    def operations(self) -> Mapping[str, OperationUse]:
        return self._all.operations

    @property
    def energy_pj(self) -> float:
        return sum(layer.energy_pj for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """Everything as numbers, texts, lists and tables; `docs/statistics.md` has the fields."""
        whole = self._all
        energy = whole.units_pj
        return {
            "machine": self.machine,
            "frequency_hz": self.frequency_hz,
            "calls": self.calls,
            "fillers": self.fillers,
            "seconds": self.seconds,
            "peak_macs": self.peak_macs,
            "utilization": self.utilization,
            **_record(whole),
            "cycles": self.cycles,
            "units": {
                name: {"cycles": self.units.get(name, 0), "energy_pj": energy.get(name, 0.0)}
                for name in {**self.units, **energy}
            },
            "layers": [{"name": layer.name, **_record(layer)} for layer in self.layers],
        }

    def __str__(self) -> str:
        lines = [
            f"{self.machine}: {self.cycles} cycles, {1e3 * self.seconds:.4g} ms, "
            f"{self.macs} MACs, utilization {100 * self.utilization:.1f} %, "
            f"{1e-6 * self.energy_pj:.4g} µJ"
        ]
        if self.calls > 1 or self.fillers:
            fillers = f"; {self.fillers} samples only filled up the last one" * bool(self.fillers)
            lines.append(f"calls: {self.calls}{fillers}")
        if self.stalls:
            lines.append("stalls: " + ", ".join(f"{c} {n}" for c, n in self.stalls.items()))
        for name, use in self.memories.items():
            lines.append(
                f"{name}: {use.read_bytes} bytes read, {use.written_bytes} written, "
                f"{_microjoules(use.energy_pj)}"
            )
        lines += self._energies()
        head = ("layer", "cycles", "active", "MACs", "of peak", "µJ")
        lines.append("{:24} {:>10} {:>7} {:>12} {:>8} {:>9}".format(*head))
        lines += [self._row(layer) for layer in self.layers]
        return "\n".join(lines)

    def _energies(self) -> list[str]:
        """Units and operations with an energy, those that take most first."""
        found = {"units": self.units_pj}
        found["operations"] = {name: use.energy_pj for name, use in self.operations.items()}
        return [
            f"energy of {kind}: " + ", ".join(f"{n} {_microjoules(e)}" for n, e in ordered if e)
            for kind, energy in found.items()
            if any(energy.values())
            and (ordered := sorted(energy.items(), key=lambda item: -item[1]))
        ]

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
    for layer in (layer for run in runs for layer in run.layers):
        layers[layer.name] = layers[layer.name] + layer if layer.name in layers else layer
    return replace(
        runs[0],
        cycles=sum(run.cycles for run in runs),
        layers=tuple(layers.values()),
        units=reduce(_added, (run.units for run in runs)),
        calls=sum(run.calls for run in runs),
        fillers=sum(run.fillers for run in runs),
    )


def _added(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The sums by name."""
    return {n: a[n] + b[n] if n in a and n in b else x for n, x in {**a, **b}.items()}


def _microjoules(picojoules: float) -> str:
    return f"{1e-6 * picojoules:.4g} µJ"


def _record(layer: Layer) -> dict[str, Any]:
    """What a layer and all of them have in common, for scripts."""
    return {
        "cycles": layer.cycles,
        "active": layer.active,
        "macs": layer.macs,
        "energy_pj": layer.energy_pj,
        "stalls": dict(layer.stalls),
        "memories": {name: asdict(use) for name, use in layer.memories.items()},
        "units_pj": dict(layer.units_pj),
        "operations": {name: asdict(use) for name, use in layer.operations.items()},
    }
