"""A compiled model on a simulator: inputs put into its memory, outputs taken from there, counts.

model = SimulatedModel(program, machine, places)
statistics = model(sizes, inputs, outputs, trace)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.diagnostics import TargetError
from nncc.isa.tta.program import Program
from nncc.isa.tta.verify import architecture_of
from nncc.machines.machine import Machine, Operation
from nncc.runtime.executable import Array
from nncc.runtime.statistics import Layer, MemoryUse, OperationUse, Statistics
from nncc.runtime.trace import Trace
from nncc.runtime.tta.counters import Counters
from nncc.runtime.tta.interpreter import Interpreter
from nncc.runtime.tta.trace import Watch
from nncc.runtime.tta.translated import Translated


@dataclass(frozen=True)
class Places:
    """Where a caller's arrays are: bytes of memory `space`; and how much of it is used."""

    space: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    end: int

    def as_json(self) -> dict[str, Any]:
        return {
            "space": self.space, "inputs": list(self.inputs), "outputs": list(self.outputs),
            "end": self.end,
        }  # fmt: skip

    @staticmethod
    def from_json(data: Any) -> Places:
        """Raises TargetError for what `as_json` did not write."""
        try:
            inputs, outputs = (tuple(map(int, data[k])) for k in ("inputs", "outputs"))
            return Places(str(data["space"]), inputs, outputs, int(data["end"]))
        except (KeyError, TypeError, ValueError) as error:
            raise TargetError(f"the manifest's places are wrong: {error!r}") from error


class SimulatedModel:
    """Runs a program from its beginning for every call.

    Args:
        interpreted: by the plain interpreter, which is the definition, instead of machine code.
    """

    def __init__(
        self, program: Program, machine: Machine, places: Places, *, interpreted: bool = False
    ) -> None:
        self.program, self.machine, self.places = program, machine, places
        self.interpreted = interpreted
        self.counters: Counters | None = None  # of the last call
        self._translated: Translated | None = None

    def __call__(
        self,
        sizes: Mapping[str, int],
        inputs: list[Array],
        outputs: list[Array],
        trace: Trace | None = None,
    ) -> Statistics:
        """Runs the model; `sizes` are those that it was compiled for."""
        simulator = Interpreter(self.program, self.machine) if self.interpreted else self._fresh()
        self._load(simulator, inputs)
        self.counters = simulator.run()
        for array, address in zip(outputs, self.places.outputs, strict=True):
            found = simulator.read(self.places.space, address, array.nbytes)
            array[...] = np.frombuffer(found, array.dtype).reshape(array.shape)
        if trace is not None:
            self._trace(trace, inputs, self.counters.cycles)
        return statistics(self.counters, self.machine)

    def _trace(self, trace: Trace, inputs: list[Array], cycles: int) -> None:
        """Adds a run to a trace: by the interpreter, for as long as the trace takes it."""
        line = trace.machine(self.machine.name, self.machine.frequency_hz)
        watch = Watch(line, self.program)
        simulator = Interpreter(self.program, self.machine, watch.observe)
        self._load(simulator, inputs)
        while not watch.full and not simulator.finished:
            simulator.step()
        watch.finish(cycles)

    def _load(self, simulator: Interpreter | Translated, inputs: list[Array]) -> None:
        for array, address in zip(inputs, self.places.inputs, strict=True):
            simulator.write(self.places.space, address, array.tobytes())

    def _fresh(self) -> Translated:
        """The simulator in its first state; code that it has translated stays."""
        if self._translated is None:
            self._translated = Translated(self.program, self.machine)
        else:
            self._translated.reset({self.places.space: self.places.end})
        return self._translated


# -- statistics ------------------------------------------------------------------------------


def statistics(counts: Counters, machine: Machine) -> Statistics:
    """What a run cost by layer: the multiply-accumulates are those of the machine's operations."""
    a = architecture_of(machine)
    products = {n: _products(o) for n, o in machine.operations.items()}
    main = _main_unit(machine, products)
    layers = []
    for name, share in counts.sources.items():
        memories = {
            m.name: MemoryUse(
                share.bytes_read[m.name],
                share.bytes_written[m.name],
                share.bytes_read[m.name] * m.read_energy
                + share.bytes_written[m.name] * m.write_energy,
            )
            for m in a.memories
        }
        layers.append(
            Layer(
                name,
                share.cycles,
                share.triggers[main],
                sum(n * products[op] for op, n in share.operations.items()),
                {"bank conflicts": share.stalls} if share.stalls else {},
                memories,
                {name: energy for name, energy in share.energy.items() if energy},
                {
                    name: OperationUse(n, n * machine.operations[name].energy)
                    for name, n in share.operations.items()
                },
            )
        )
    units = {
        u.name: sum(n for (unit, _), n in counts.triggers.items() if unit == u.name)
        for u in a.units
    }
    units |= {b.name: counts.moves.get(b.name, 0) for b in a.buses}
    most = max(
        [products[o.operation] for u in a.units if u.name == main for o in u.operations] + [1]
    )
    return Statistics(machine.name, machine.frequency_hz, counts.cycles, most, tuple(layers), units)


def _products(o: Operation) -> int:
    """Products that an operation adds up: the points of a reduction of 8-bit products."""
    s = o.semantics.statements[0]
    if not o.is_reduction or any(p.type.dtype.bits > 8 for p in o.semantics.params[1:]):
        return 0
    total = 1
    for d in s.dims:
        assert isinstance(d.extent, int)
        total *= d.extent
    return total


def main_unit(machine: Machine) -> str:
    """The unit whose operations are a layer's `active` cycles."""
    return _main_unit(machine, {n: _products(o) for n, o in machine.operations.items()})


def _main_unit(machine: Machine, products: Mapping[str, int]) -> str:
    """The unit that multiplies most at once; of scalar machines the one that multiplies."""
    a = architecture_of(machine)
    best = max(
        (u for u in a.units),
        key=lambda u: max((products[o.operation] for o in u.operations), default=0),
    )
    if max((products[o.operation] for o in best.operations), default=0):
        return best.name
    scalar = (u.name for u in a.units if "mul" in u.operation)
    return next(scalar, a.units[0].name)
