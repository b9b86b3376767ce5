"""From a scheduled nest to Loops code: see `tree` for the algorithm."""
