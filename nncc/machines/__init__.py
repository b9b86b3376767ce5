"""Machines as data: `load("cpu")` or `load("path/to/machine.toml")` gives a `Machine`."""

from nncc.machines.loader import list_machines, load

__all__ = ["list_machines", "load"]
