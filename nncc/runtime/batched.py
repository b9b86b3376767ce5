"""A model that was compiled for fixed sizes, behind a signature with named ones.

    Batched(signature, executable, FixedSizes({"N": 4}, split="N"))

A call with the compiled sizes is one call. With another number of samples it is several: the
samples are cut into pieces, the last one is filled up with copies of its last sample, and what
these give is dropped. That is right where every sample's outputs follow from that sample alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nncc.diagnostics import NnccError
from nncc.ir.index import variables
from nncc.ir.program import Signature
from nncc.ir.types import TensorType
from nncc.runtime.executable import Array, Call, Executable
from nncc.runtime.statistics import total


@dataclass(frozen=True)
class FixedSizes:
    """What a model was compiled for.

    Args:
        sizes: the number for each named size.
        split: the size whose samples are independent of each other; "" where there is none.
        reason: why there is none.
    """

    sizes: Mapping[str, int]
    split: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return ", ".join(f"{n} = {v}" for n, v in self.sizes.items())


class Batched(Executable):
    """See the module's docstring. `inner` has the same inputs and outputs with fixed shapes."""

    def __init__(self, signature: Signature, inner: Executable, fixed: FixedSizes) -> None:
        super().__init__(signature, inner.report)
        self.inner, self.fixed = inner, fixed

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        for name, value in sizes.items():
            compiled = self.fixed.sizes[name]
            if value != compiled and name != self.fixed.split:
                reason = f": {self.fixed.reason}" if self.fixed.reason else ""
                raise NnccError(
                    f"{name} is {value}, and the model was compiled for {self.fixed}; samples "
                    f"cannot be run in pieces{reason}",
                    help=f"compile it with --size {name}={value}",
                )

    def _execute(self, call: Call, inputs: list[Array], outputs: list[Array]) -> None:
        names = [n for n, _ in self.inner.signature.inputs]
        step = self.fixed.sizes.get(self.fixed.split, 1)
        samples = call.sizes.get(self.fixed.split, 1)
        runs = []
        with self._lock:
            self.inner.trace = self.trace
            for start in range(0, samples, step):
                pieces = [
                    _piece(x, self._axis(t), start, step)
                    for x, (_, t) in zip(inputs, self.signature.inputs, strict=True)
                ]
                made = self.inner.run(dict(zip(names, pieces, strict=True)))
                for out, (name, t) in zip(outputs, self.signature.outputs, strict=True):
                    _place(out, made[name], self._axis(t), start)
                if self.inner.statistics is not None:
                    runs.append(self.inner.statistics)
            fillers = -samples % step
            self.statistics = replace(total(runs), fillers=fillers) if runs else None

    def _axis(self, t: TensorType) -> int | None:
        """The axis along which a tensor has the samples."""
        split = self.fixed.split
        return next((k for k, e in enumerate(t.shape) if split in variables(e)), None)


def _piece(x: Array, axis: int | None, start: int, count: int) -> Array:
    """`count` samples from `start` on, the last one several times if there are too few."""
    if axis is None or x.shape[axis] == count:
        return x
    found = np.minimum(np.arange(start, start + count), x.shape[axis] - 1)
    return np.asarray(np.take(x, found, axis))


def _place(out: Array, piece: Array, axis: int | None, start: int) -> None:
    """Writes a piece to its place, without what is beyond the end."""
    if axis is None:
        out[...] = piece
        return
    whole = (slice(None),) * axis
    count = min(piece.shape[axis], out.shape[axis] - start)
    out[(*whole, slice(start, start + count))] = piece[(*whole, slice(0, count))]
