"""How fast the simulator of transport-triggered machines is: cycles a second of CPU time.

For each layer, on each machine: simulated cycles of a run, seconds that its code took to be
translated, and millions of cycles a second when it is; both without the cache of translated code.
"""

from __future__ import annotations

import os
import time

import numpy as np

import nncc
from benchmarks.tta import layer
from nncc.runtime.executable import Executable
from nncc.runtime.tta.model import SimulatedModel
from nncc.runtime.tta.translated import Translated

MACHINES = ("tta", "tta_minimal")
LAYERS = (("1x1", 128, 128, 1, 8), ("3x3", 64, 64, 3, 16), ("3x3", 16, 32, 3, 14))
SECONDS = 0.5  # of measuring, for each layer


def run() -> int:
    """Prints the table."""
    os.environ["NNCC_CACHE"] = "0"
    print(f"{'machine':12} {'layer':22} {'cycles':>10} {'translated':>11} {'M cycles/s':>11}")
    for machine in MACHINES:
        for name, channels, filters, kernel, size in LAYERS:
            net = nncc.compile(layer(channels, filters, kernel, size), machine)
            x = np.ones((1, channels, size, size), np.int8)
            started = time.process_time()
            net.run({"x": x})
            translated = time.process_time() - started
            cycles, seconds = measured(model_of(net), x)
            label = f"{name} {channels}->{filters} {size}x{size}"
            print(
                f"{machine:12} {label:22} {cycles:10} {translated:9.2f} s "
                f"{cycles / seconds / 1e6:11.0f}"
            )
    return 0


def model_of(net: Executable) -> SimulatedModel:
    """The simulated part of a model that the host does no part of."""
    inner = getattr(net, "inner", net)
    (part,) = getattr(inner, "parts", (inner,))
    model = getattr(getattr(part, "inner", part), "_simulate", None)
    assert isinstance(model, SimulatedModel)
    return model


def measured(model: SimulatedModel, x: np.ndarray) -> tuple[int, float]:
    """Cycles of a run, and the CPU seconds that it takes when its code is translated."""
    simulator = Translated(model.program, model.machine)
    places = model.places
    cycles, runs, seconds = 0, 0, 0.0
    while seconds < SECONDS:
        simulator.reset({places.space: places.end})
        simulator.write(places.space, places.inputs[0], x.tobytes())
        started = time.process_time()
        simulator.advance(10**12)
        if runs:
            seconds += time.process_time() - started
        else:
            cycles = simulator.counters().cycles  # the first run translated
        runs += 1
    return cycles, seconds / (runs - 1)
