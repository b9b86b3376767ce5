"""What a simulator says about a program that did what its machine forbids."""

from __future__ import annotations

from nncc.diagnostics import Location, SimError


def fault(message: str, *, cycle: int, position: int, text: str = "", node: str = "") -> SimError:
    """The error, with its place.

    Args:
        position: of the instruction in the program; `text`: the instruction, if it is in there.
        node: of the user's model that the instruction works for.
    """
    what = f" ({text})" if text else ""
    place = f"cycle {cycle}, instruction {position}{what}"
    return SimError(f"{place}: {message}", Location(node=node))
