"""The simulator of machines with a systolic array.

outcome = simulate(program, machine, {"image": array})
outcome.outputs["logits"]; print(outcome.statistics)
"""

from nncc.runtime.tpu.outcome import Outcome
from nncc.runtime.tpu.simulator import simulate

__all__ = ["Outcome", "simulate"]
