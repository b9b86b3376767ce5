"""A node on its way between versions, and what a conversion step may ask of its surroundings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from nncc.ir.types import TensorType


class NotExpressible(Exception):
    """A node cannot be written in another version; the argument is the reason."""


@dataclass
class Draft:
    """An ONNX node under conversion.

    Args:
        inputs, outputs: value names, "" where absent; trailing absent ones may be left out.
        attrs: as Python values: int, float, str, tuples of them, Tensor.
        version: of the op's schema (its `since_version`).
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    version: int = 0

    def input(self, position: int) -> str:
        """The name at `position`, "" if absent."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def output(self, position: int) -> str:
        return self.outputs[position] if position < len(self.outputs) else ""

    def changed(self, **fields: Any) -> Draft:
        return replace(self, **fields)

    def without(self, *names: str) -> dict[str, Any]:
        """The attributes except `names`."""
        return {k: v for k, v in self.attrs.items() if k not in names}


class Scope(Protocol):
    """What surrounds a draft: the model that is imported, or the one that is written."""

    def type(self, name: str) -> TensorType:
        """The type of a value. Raises NotExpressible if it is not known yet."""

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a small tensor that is known at compile time."""

    def add_constant(self, array: np.ndarray, hint: str) -> str:
        """A new constant; returns its name, made from `hint`."""

    def absorb(self, name: str, hint: str) -> None:
        """Constant `name` became an attribute; raising it again would call it `hint`."""

    def fresh(self, hint: str) -> str:
        """A name for a new value, made from `hint`."""
