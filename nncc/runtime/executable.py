"""Calling a compiled model.

    net.run({"image": images})                   {"logits": array}
    net.run_into({"image": images}, {"logits": out})
    net.reset()                                  state back to its first value
    net.save("out/digits")                       an artifact, for `nncc.load`
    net.report                                   what the compiler tells about the model

One call of `run` is one call of native code. Sizes follow from the inputs' shapes; memory for
intermediate tensors grows when they ask for more.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nncc.diagnostics import NnccError, TargetError, nearest
from nncc.ir.index import Size, evaluate, variables
from nncc.ir.program import ALIGNMENT, Signature
from nncc.ir.types import TensorType
from nncc.machines import host
from nncc.runtime.sizes import Shape, SizeSolver

Array = np.ndarray[Any, Any]

_RUN = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 6)
_RESET = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3)
_KEPT_SHAPES = 64  # sets of input shapes whose sizes are remembered


@dataclass(frozen=True)
class NativeCode:
    """Linked code of a model, as the C header describes it.

    Args:
        run, reset: addresses of the two functions; `keep` holds what keeps them valid.
        weights: uint8, at an address that is a multiple of 64.
        largest_size: what any named size may be at most.
        failures: text for each status that `run` may return.
    """

    run: int
    reset: int
    keep: object
    weights: Array
    state_bytes: Size
    arena_bytes: Size
    largest_size: int
    failures: Mapping[int, str]


@dataclass(frozen=True)
class _Call:
    """What follows from the shapes of the inputs."""

    sizes: dict[str, int]
    numbers: Array  # the sizes as the code reads them
    output_shapes: tuple[Shape, ...]
    state_bytes: int
    arena_bytes: int


class _Tensors:
    """The structs `nncc_tensor` of inputs or outputs, with addresses of arrays seen before."""

    def __init__(self, count: int) -> None:
        self.structs = np.zeros((max(count, 1), 2), np.int64)
        self.address = self.structs.ctypes.data
        self._seen: list[weakref.ref[Array] | None] = [None] * count

    def set(self, k: int, array: Array) -> None:
        seen = self._seen[k]
        if seen is not None and seen() is array and self.structs[k, 1] == array.nbytes:
            return
        self.structs[k] = array.ctypes.data, array.nbytes
        self._seen[k] = weakref.ref(array)


class Executable:
    """A compiled model that can be called. Made by `nncc.compile` and by loading an artifact.

    Attributes:
        signature: names and types of inputs and outputs; `report`: facts about the compilation.
        writer: writes the model as an artifact into a folder; None if it came from one.
    """

    writer: Callable[[Path], None] | None = None

    def __init__(self, signature: Signature, code: NativeCode, report: Mapping[str, Any]) -> None:
        self.signature = signature
        self.report = dict(report)
        self._code = code
        self._run, self._reset = _RUN(code.run), _RESET(code.reset)
        self._solve = SizeSolver(signature)
        self._inputs = _Tensors(len(signature.inputs))
        self._outputs = _Tensors(len(signature.outputs))
        self._weights = code.weights.ctypes.data
        self._calls: dict[tuple[Shape, ...], _Call] = {}
        self._arena = _aligned(0)
        self._state: Array | None = None
        self._state_sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    # -- calling ---------------------------------------------------------------------------
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name, in new arrays.

        Args:
            inputs: an array (or what numpy makes one of) for each input, of its dtype. Arrays
                that are not C-contiguous are copied.

        Raises NnccError if an input is missing, unknown, or has the wrong dtype or shape.
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
        with self._lock:
            self._state = None

    def save(self, folder: str | Path) -> None:
        """Writes the model as an artifact, which `nncc.load` reads.

        Raises TargetError if the folder cannot be written, or if the model came from an artifact.
        """
        if self.writer is None:
            raise TargetError("this model came from an artifact", help="copy the artifact's folder")
        self.writer(Path(folder))

    # -- checks ----------------------------------------------------------------------------
    def _checked_inputs(self, inputs: Mapping[str, Any]) -> list[Array]:
        if len(inputs) != len(self.signature.inputs):
            _same_names("input", [n for n, _ in self.signature.inputs], inputs)
        arrays: list[Array] = []
        for name, t in self.signature.inputs:
            if name not in inputs:
                _same_names("input", [n for n, _ in self.signature.inputs], inputs)
            array = inputs[name]
            if not isinstance(array, np.ndarray):
                array = np.asarray(array)
            if array.dtype != t.dtype.numpy:
                raise NnccError(
                    f"input '{name}' has dtype {array.dtype}, not {t.dtype.numpy}",
                    help=f"convert it: x.astype('{t.dtype.numpy}')",
                )
            arrays.append(array)
        return arrays

    def _call_of(self, arrays: list[Array]) -> _Call:
        shapes = tuple(a.shape for a in arrays)
        if (known := self._calls.get(shapes)) is not None:
            return known
        names = [n for n, _ in self.signature.inputs]
        sizes = self._solve(dict(zip(names, shapes, strict=True)))
        for name, value in sizes.items():
            if value > self._code.largest_size:
                raise NnccError(
                    f"{name} = {value} is too large; {self._code.largest_size} is the most"
                )
        call = _Call(
            sizes,
            np.array([sizes[s] for s in self.signature.sizes] or [0], np.int64),
            tuple(tuple(evaluate(e, sizes) for e in t.shape) for _, t in self.signature.outputs),
            evaluate(self._code.state_bytes, sizes),
            evaluate(self._code.arena_bytes, sizes),
        )
        _check_memory(call, [evaluate(t.bytes, sizes) for _, t in self.signature.outputs])
        if len(self._calls) >= _KEPT_SHAPES:
            self._calls.clear()
        self._calls[shapes] = call
        return call

    # -- execution -------------------------------------------------------------------------
    def _execute(self, call: _Call, inputs: list[Array], outputs: list[Array]) -> None:
        with self._lock:
            if self._arena.size < call.arena_bytes:
                self._arena = _aligned(call.arena_bytes)
            state = self._state_for(call)
            for k, array in enumerate(inputs):
                self._inputs.set(k, array)
            for k, array in enumerate(outputs):
                self._outputs.set(k, array)
            status = self._run(
                self._weights, state.ctypes.data, self._arena.ctypes.data,
                self._inputs.address, self._outputs.address, call.numbers.ctypes.data,
            )  # fmt: skip
        if status:
            raise AssertionError(f"the compiled code refuses: {self._code.failures[status]}")

    def _state_for(self, call: _Call) -> Array:
        """The state that the last call left, or the first one."""
        size = self._code.state_bytes
        relevant = {n: call.sizes[n] for n in sorted(variables(size))}
        if self._state is None:
            self._state, self._state_sizes = _aligned(call.state_bytes), relevant
            numbers = call.numbers.ctypes.data
            self._reset(self._weights, self._state.ctypes.data, numbers)
        elif relevant != self._state_sizes:
            kept = ", ".join(f"{n} = {v}" for n, v in self._state_sizes.items())
            raise NnccError(
                f"the model's state is that of calls with {kept}",
                help="call reset() to start anew with other sizes",
            )
        return self._state


def check_threads(threads: int) -> None:
    """Raises TargetError unless `threads` is what compiled models can use."""
    if threads != 1:
        raise TargetError(
            f"threads={threads}: compiled models run in one thread so far",
            help="leave threads at 1, or run several processes",
        )


def _aligned(size: int) -> Array:
    """A uint8 array of `size` bytes at an address that is a multiple of ALIGNMENT."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def _same_names(what: str, names: list[str], given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in names:
            raise NnccError(f"there is no {what} '{name}'", help=nearest(name, names, f"{what}s"))
    for name in names:
        if name not in given:
            raise NnccError(f"{what} '{name}' is missing")


def _checked_output(name: str, t: TensorType, shape: Shape, array: Array) -> Array:
    if array.dtype != t.dtype.numpy or array.shape != shape:
        raise NnccError(
            f"output '{name}' is {array.dtype}{list(array.shape)}, not {t.dtype.numpy}{list(shape)}"
        )
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise NnccError(f"output '{name}' is not a writable C-contiguous array")
    return array


def _check_memory(call: _Call, output_bytes: list[int]) -> None:
    """Refuses a call that asks for more memory than the computer has, before any is taken."""
    needed = call.arena_bytes + call.state_bytes + sum(output_bytes)
    available = host.size_of("memory")
    if available is not None and needed > available:
        sizes = ", ".join(f"{n} = {v}" for n, v in call.sizes.items())
        raise NnccError(
            f"a call with {sizes or 'this model'} needs {needed / 2**30:.1f} GiB of memory; "
            f"this computer has {available / 2**30:.1f}"
        )
