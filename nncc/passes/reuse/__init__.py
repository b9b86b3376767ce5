"""The data-reuse model: how much moves between the memories of a machine, for any loop order.

    operands(statement, nest)                what a statement reads and writes
    predict(nest, loops, cut)                loads and stores of each operand of a level
    choose_tiles(nest, machine, inner=…)     loops for every level, and why
    scheduled_traffic(nest, machine)         the same for the schedule that a nest has
    fetched(operand, loops, ranges)          loads and stores of what holds one tile at a time
    accesses(function)                       loads and stores of a processor, from the Loops

A level of memory is attached below the first `cut` loops of an order `((dim, step), …)`. It holds
the elements that the current tile (one iteration of those loops) touches. On advancing to the
next tile only elements that were not there are loaded; an element that was changed leaves once,
when the next tile does not touch it, and comes back if its sum is not complete.
"""

from nncc.passes.reuse.accesses import Accessed, accesses
from nncc.passes.reuse.choice import Choice, LevelChoice, choose_tiles, placed_in, scheduled_traffic
from nncc.passes.reuse.fetches import fetched
from nncc.passes.reuse.operands import Operand, operands
from nncc.passes.reuse.traffic import Loops, Traffic, level_bytes, predict, schedule_loops

__all__ = [
    "Accessed",
    "Choice",
    "LevelChoice",
    "Loops",
    "Operand",
    "Traffic",
    "accesses",
    "choose_tiles",
    "fetched",
    "level_bytes",
    "operands",
    "placed_in",
    "predict",
    "schedule_loops",
    "scheduled_traffic",
]
