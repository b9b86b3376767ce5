"""Where floats become integers a level may round the other way; the reference then follows it.

    followed = follow(module, inputs, state, found, reduction)
    followed.run.values["t"]          what the graph means after the choices that `found` made

The order of float sums is free, so a float close to the middle between two integers may become the
one at one level and the other at another; neither is wrong. Such an element is *explained* if the
integer is what the op gives for the reference's operand moved by no more than the tolerance, and
is at most one step away. The reference takes the explained elements over and goes on from them:
what follows is compared bit for bit again. Operands that are the same at every level (inputs,
constants, dequantized integers) explain nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np

from nncc.ir.graph import Module, Node
from nncc.ir.interpreter.graph import Run, interpret
from nncc.ops.reference import evaluate
from nncc.ops.table import get
from nncc.tolerance import allowance

Arrays = Mapping[str, np.ndarray]

MOST_ALTERNATIVES = 27  # of one element, where several operands are not shown, being fused


@dataclass(frozen=True)
class Followed:
    """A run of the reference, and how many elements it took over from a level."""

    run: Run
    elements: int


def follow(
    module: Module, inputs: Arrays, state: Arrays, found: Arrays, reduction: int
) -> Followed:
    """Runs the graph, taking over those integers of `found` that rounding explains.

    Args:
        found: values of a level by name; `reduction`: as for `nncc.tolerance.compare`.
    """
    follower = _Follower(module, found, reduction)
    run = interpret(module, inputs, follower.evaluate, state=state, keep=True)
    return Followed(run, follower.elements)


class _Follower:
    def __init__(self, module: Module, found: Arrays, reduction: int) -> None:
        self.found, self.reduction = found, reduction
        self.exact = {"", *module.graph.inputs, *module.symbols}  # the same at every level
        self.alternatives: dict[str, list[np.ndarray]] = {}  # of values that are not shown
        self.elements = 0

    def evaluate(self, node: Node, inputs: Sequence[np.ndarray | None]) -> Sequence[np.ndarray]:
        """The outputs of a node; explained elements are the level's."""
        outputs = evaluate(node, inputs)
        if len(outputs) > 1:
            return outputs
        (name,), (result,) = node.outputs, outputs
        choices = [
            [x, *self.alternatives.get(n, ())] for n, x in zip(node.inputs, inputs, strict=True)
        ]
        traits = get(node).traits
        rounds = self.rounds(node, inputs, result)
        if rounds:
            x = inputs[0]
            assert x is not None
            margin = allowance(x, self.reduction).astype(x.dtype)
            choices[0] += [x - margin, x + margin]
        elif not traits & {"elementwise", "view"}:
            choices = [[x] for x in inputs]
        # a dequantized integer is one product; rearranging changes no element
        same = node.op == "DequantizeLinear" or "view" in traits
        if result.dtype.kind in "iub" or (same and self.exact.issuperset(node.inputs)):
            self.exact.add(name)
        others = [evaluate(node, x)[0] for x in islice(product(*choices), 1, MOST_ALTERNATIVES)]
        if rounds:
            others = [_one_step(x, result) for x in others]
        if name not in self.found:
            self.alternatives[name] = others
            return outputs
        return (self.taken_over(self.found[name], result, others),)

    def rounds(self, node: Node, inputs: Sequence[np.ndarray | None], result: np.ndarray) -> bool:
        """Whether the node makes an integer of each element of a float that may differ."""
        x = inputs[0] if inputs else None
        return (
            x is not None
            and x.dtype.kind == "f"
            and result.dtype.kind in "iub"
            and x.shape == result.shape
            and node.inputs[0] not in self.exact
        )

    def taken_over(
        self, found: np.ndarray, result: np.ndarray, others: Sequence[np.ndarray]
    ) -> np.ndarray:
        """`result` with those elements of `found` that one of the alternatives has."""
        explained = np.zeros(result.shape, bool)
        for other in others:
            explained |= (found == other) & (found != result)
        self.elements += int(np.count_nonzero(explained))
        return np.where(explained, found, result) if explained.any() else result


def _one_step(x: np.ndarray, result: np.ndarray) -> np.ndarray:
    """`x` where it is beside `result`, else `result`."""
    distance = np.abs(x.astype(np.int64) - result.astype(np.int64))
    return np.where(distance <= 1, x, result)
