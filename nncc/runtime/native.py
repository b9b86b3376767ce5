"""Native code of a model in this process: one call of `run` is one call of it.

Sizes follow from the inputs' shapes; memory for intermediate tensors grows when they ask for more.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.diagnostics import NnccError
from nncc.ir.index import Size, evaluate, variables
from nncc.ir.program import ALIGNMENT, Signature
from nncc.machines import host
from nncc.runtime.executable import Array, Call, Executable, too_small
from nncc.runtime.sizes import Shape

_RUN = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 6)
_RESET = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3)
FIRST_FAILURE = 16  # statuses from here on say that the call failed while it ran


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
class _NativeCall(Call):
    """Besides: the sizes as the code reads them, and what memory the code wants."""

    numbers: Array
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


class Native(Executable):
    """A model whose code is linked into this process."""

    def __init__(self, signature: Signature, code: NativeCode, report: Mapping[str, Any]) -> None:
        super().__init__(signature, report)
        self._code = code
        self._run, self._reset = _RUN(code.run), _RESET(code.reset)
        self._inputs = _Tensors(len(signature.inputs))
        self._outputs = _Tensors(len(signature.outputs))
        self._weights = code.weights.ctypes.data
        self._arena = _aligned(0)
        self._state: Array | None = None
        self._state_sizes: dict[str, int] = {}

    def reset(self) -> None:
        with self._lock:
            self._state = None

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        for name, value in sizes.items():
            if value > self._code.largest_size:
                raise NnccError(
                    f"{name} = {value} is too large; {self._code.largest_size} is the most"
                )

    def _prepared(self, sizes: dict[str, int], shapes: tuple[Shape, ...]) -> _NativeCall:
        call = _NativeCall(
            sizes,
            shapes,
            np.array([sizes[s] for s in self.signature.sizes] or [0], np.int64),
            evaluate(self._code.state_bytes, sizes),
            evaluate(self._code.arena_bytes, sizes),
        )
        _check_memory(call, [evaluate(t.bytes, sizes) for _, t in self.signature.outputs])
        return call

    def _execute(self, call: Call, inputs: list[Array], outputs: list[Array]) -> None:
        assert isinstance(call, _NativeCall)
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
            if status >= FIRST_FAILURE:
                self._state = None  # what the call left holds no meaning
        if status >= FIRST_FAILURE:
            help = "the model's state is its first value again" if call.state_bytes else ""
            raise NnccError(self._code.failures[status], help=help)
        if status == 4:
            raise too_small(call.sizes, "a tensor inside of the model")
        if status:
            raise AssertionError(f"the compiled code refuses: {self._code.failures[status]}")

    def _state_for(self, call: _NativeCall) -> Array:
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


def _aligned(size: int) -> Array:
    """A uint8 array of `size` bytes at an address that is a multiple of ALIGNMENT."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def _check_memory(call: _NativeCall, output_bytes: list[int]) -> None:
    """Refuses a call that asks for more memory than the computer has, before any is taken."""
    needed = call.arena_bytes + call.state_bytes + sum(output_bytes)
    available = host.size_of("memory")
    if available is not None and needed > available:
        sizes = ", ".join(f"{n} = {v}" for n, v in call.sizes.items())
        raise NnccError(
            f"a call with {sizes or 'this model'} needs {needed / 2**30:.1f} GiB of memory; "
            f"this computer has {available / 2**30:.1f}"
        )
