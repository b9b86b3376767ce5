"""The polyhedral view of a nest: the only door to isl.

    check_schedule(nest)            raises PassError with the dependence that a schedule breaks
    dependences(nest)               flow, anti and output dependences as isl relations
    domain(nest, "acc")             the instances of a statement as an isl set
    schedule_map(nest, tree)        when each instance runs, as an isl map
    footprint(nest, "acc", "x", tile)   how many elements of a tensor a tile touches
    calls()                         how many isl calls this process has made

Accesses and bounds that are not affine are over-approximated: an `Element` may have any value in
its declared bounds, a product of a dimension and a size any value at all. Named sizes are isl
parameters of at least 1. Everything here is for answers; code is never generated from isl.
Importing this package loads islpy (about 50 ms): import it where it is used.
"""

from nncc.passes.poly.dependences import Dependence, dependences
from nncc.passes.poly.door import calls, reset_calls
from nncc.passes.poly.footprints import footprint
from nncc.passes.poly.legality import check_schedule
from nncc.passes.poly.relations import domain
from nncc.passes.poly.schedules import schedule_map

__all__ = [
    "Dependence",
    "calls",
    "check_schedule",
    "dependences",
    "domain",
    "footprint",
    "reset_calls",
    "schedule_map",
]
