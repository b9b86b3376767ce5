"""Calling a compiled model.

    net.run({"image": images})                   {"logits": array}
    net.run_into({"image": images}, {"logits": out})
    net.reset()                                  state back to its first value
    net.save("out/digits")                       an artifact, for `nncc.load`
    net.report                                   what the compiler tells about the model
    net.statistics                               of the last run, where a simulator took part

What is common to all kinds of compiled models is here: checks of arguments, and sizes, which
follow from the inputs' shapes. `native`, `simulated`, `batched` and `chain` are the kinds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nncc.diagnostics import NnccError, TargetError, nearest
from nncc.ir.index import evaluate
from nncc.ir.program import Signature
from nncc.ir.types import TensorType
from nncc.runtime.sizes import Shape, SizeSolver
from nncc.runtime.statistics import Statistics
from nncc.runtime.trace import Trace

Array = np.ndarray[Any, Any]

_KEPT_SHAPES = 64  # sets of input shapes whose sizes are remembered


@dataclass(frozen=True)
class Call:
    """What follows from the shapes of the inputs."""

    sizes: dict[str, int]
    output_shapes: tuple[Shape, ...]


class Executable:
    """A compiled model that can be called. Made by `nncc.compile` and by loading an artifact.

    Attributes:
        signature: names and types of inputs and outputs; `report`: facts about the compilation.
        writer: writes the model as an artifact into a folder; None if it came from one.
        statistics: of the last run; None where no simulator took part.
        trace: what the next runs add their events to, on simulators; None: nothing.
    """

    writer: Callable[[Path], None] | None = None
    statistics: Statistics | None = None
    trace: Trace | None = None

    def __init__(self, signature: Signature, report: Mapping[str, Any]) -> None:
        self.signature = signature
        self.report = dict(report)
        self._solve = SizeSolver(signature)
        self._calls: dict[tuple[Shape, ...], Call] = {}
        self._lock = threading.Lock()

    # -- calling ---------------------------------------------------------------------------
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, in new arrays.

        Args:
            inputs: an array (or what numpy makes one of) for each input, of its dtype. Arrays
                that are not C-contiguous are copied.

        Raises NnccError if an input is missing, unknown, no array, or has the wrong dtype or shape,
        or if an index in it (or computed from it) is out of range; state is then reset.
        """
        arrays = self._checked_inputs(inputs)
        call = self._call_of(arrays)
        arrays = [a if a.flags.c_contiguous else np.array(a, order="C") for a in arrays]
        outputs = {
            name: np.empty(shape, t.dtype.numpy)
            for (name, t), shape in zip(self.signature.outputs, call.output_shapes, strict=True)
        }
        self._execute(call, arrays, list(outputs.values()))
        return outputs

    def run_into(self, inputs: Mapping[str, Any], outputs: Mapping[str, Array]) -> None:
        """As `run`, with the results written to given arrays.

        Args:
            outputs: for each output a writable C-contiguous array of its dtype and shape, which
                shares no memory with an input or another output.

        Raises NnccError if something does not fit.
        """
        arrays = self._checked_inputs(inputs)
        call = self._call_of(arrays)
        arrays = [a if a.flags.c_contiguous else np.array(a, order="C") for a in arrays]
        _require_mapping("output", outputs)
        _same_names("output", [n for n, _ in self.signature.outputs], outputs)
        given = [
            _checked_output(name, t, shape, outputs[name])
            for (name, t), shape in zip(self.signature.outputs, call.output_shapes, strict=True)
        ]
        for k, (name, _) in enumerate(self.signature.outputs):
            if any(np.may_share_memory(given[k], other) for other in arrays + given[:k]):
                raise NnccError(f"output '{name}' shares memory with another argument")
        self._execute(call, arrays, given)

    def reset(self) -> None:
        """Lets the next call start from the first value of every state."""

    def save(self, folder: str | Path) -> None:
        """Writes the model as an artifact, which `nncc.load` reads.

        Raises TargetError if the folder cannot be written, or if the model came from an artifact.
        """
        if self.writer is None:
            raise TargetError("this model came from an artifact", help="copy the artifact's folder")
        self.writer(Path(folder))

    # -- checks ----------------------------------------------------------------------------
    def _checked_inputs(self, inputs: Mapping[str, Any]) -> list[Array]:
        _require_mapping("input", inputs)
        if len(inputs) != len(self.signature.inputs):
            _same_names("input", [n for n, _ in self.signature.inputs], inputs)
        arrays: list[Array] = []
        for name, t in self.signature.inputs:
            if name not in inputs:
                _same_names("input", [n for n, _ in self.signature.inputs], inputs)
            array = inputs[name]
            if not isinstance(array, np.ndarray):
                array = _array_of(name, array)
            if array.dtype != t.dtype.numpy:
                raise NnccError(
                    f"input '{name}' has dtype {array.dtype}, not {t.dtype.numpy}",
                    help=f"convert it: x.astype('{t.dtype.numpy}')",
                )
            arrays.append(array)
        return arrays

    def _call_of(self, arrays: list[Array]) -> Call:
        shapes = tuple(a.shape for a in arrays)
        if (known := self._calls.get(shapes)) is not None:
            return known
        names = [n for n, _ in self.signature.inputs]
        sizes = self._solve(dict(zip(names, shapes, strict=True)))
        self._check_sizes(sizes)
        for name, t in self.signature.outputs:
            if any(not isinstance(e, int) and evaluate(e, sizes) < 1 for e in t.shape):
                raise too_small(sizes, f"output '{name}'")
        outputs = (t.shape for _, t in self.signature.outputs)
        call = self._prepared(
            sizes, tuple(tuple(evaluate(e, sizes) for e in shape) for shape in outputs)
        )
        if len(self._calls) >= _KEPT_SHAPES:
            self._calls.clear()
        self._calls[shapes] = call
        return call

    # -- what each kind does in its way ----------------------------------------------------
    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raises NnccError for sizes that cannot be run."""

    def _prepared(self, sizes: dict[str, int], shapes: tuple[Shape, ...]) -> Call:
        """What follows from sizes and the shapes of the outputs."""
        return Call(sizes, shapes)

    def _execute(self, call: Call, inputs: list[Array], outputs: list[Array]) -> None:
        """Fills the outputs; all arrays are as the signature says and C-contiguous."""
        raise NotImplementedError


def too_small(sizes: Mapping[str, int], what: str) -> NnccError:
    """The error for sizes with which some tensor would have no elements."""
    given = ", ".join(f"{n} = {v}" for n, v in sizes.items())
    return NnccError(f"the inputs are too small: with {given}, {what} would be empty")


def check_threads(threads: int) -> None:
    """Raises TargetError unless `threads` is what compiled models can use."""
    if threads != 1:
        raise TargetError(
            f"threads={threads}: compiled models run in one thread so far",
            help="leave threads at 1, or run several processes",
        )


def _require_mapping(what: str, given: object) -> None:
    if type(given) is not dict and not isinstance(given, Mapping):
        raise NnccError(
            f"{what}s are given as arrays by name, not as {type(given).__name__}",
            help=f"pass a dict: {{'name': array}} with each {what}",
        )


def _array_of(name: str, given: Any) -> Array:
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        raise NnccError(f"input '{name}' is no array: {error}") from error


def _same_names(what: str, names: list[str], given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in names:
            raise NnccError(f"there is no {what} '{name}'", help=nearest(name, names, f"{what}s"))
    for name in names:
        if name not in given:
            raise NnccError(f"{what} '{name}' is missing")


def _checked_output(name: str, t: TensorType, shape: Shape, array: Any) -> Array:
    if not isinstance(array, np.ndarray):
        raise NnccError(f"output '{name}' is no array but of type {type(array).__name__}")
    if array.dtype != t.dtype.numpy or array.shape != shape:
        raise NnccError(
            f"output '{name}' is {array.dtype}{list(array.shape)}, not {t.dtype.numpy}{list(shape)}"
        )
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise NnccError(f"output '{name}' is not a writable C-contiguous array")
    return array
