"""Special functions that numpy lacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Any) -> Any:
    """The error function, elementwise, computed in float64 and rounded to x's dtype."""
    return np.asarray(_erf(np.asarray(x, np.float64)), np.float64).astype(np.asarray(x).dtype)
