"""The host's memory as a program sees it: its buffers, what was written, in which order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncc.diagnostics import CheckError
from nncc.isa.tpu.instructions import Unit
from nncc.isa.tpu.program import HostBuffer, Program
from nncc.runtime.tpu.rows import Array, Violation


class HostMemory:
    """Bytes of the buffers of a program.

    Units may use the same buffer one after the other if they are synchronized; a buffer is
    ordered as a whole.
    """

    def __init__(self, program: Program, inputs: Mapping[str, Array]) -> None:
        self.buffers = program.buffers
        self.content = {b.name: np.zeros(b.bytes, np.int8) for b in self.buffers}
        self.written = {b.name: np.zeros(b.bytes, np.bool_) for b in self.buffers}
        self.last_read = dict.fromkeys(self.content, 0)
        self.last_write = dict.fromkeys(self.content, 0)
        for b in self.buffers:
            if b.role == "in":
                self.content[b.name][:] = _bytes_of(b, inputs)
                self.written[b.name][:] = True
        known = {b.name for b in self.buffers if b.role == "in"}
        if extra := inputs.keys() - known:
            raise CheckError(f"the program has no input {', '.join(sorted(extra))}")

    def read(self, address: int, count: int, number: int, known: int) -> Array:
        """Bytes for the host_read unit, which knows `known` writes to be complete."""
        b, start = self._find(address, count)
        if self.last_write[b.name] > known:
            raise Violation(
                f"host buffer '{b.name}' is read before what {Unit.HOST_WRITE} wrote is surely "
                f"there: {Unit.HOST_READ} has not waited for {Unit.HOST_WRITE}"
            )
        missing = ~self.written[b.name][start : start + count]
        if missing.any():
            byte = start + int(np.argmax(missing))
            raise Violation(f"byte {byte} of host buffer '{b.name}' has never been written")
        self.last_read[b.name] = number
        return self.content[b.name][start : start + count]

    def write(self, address: int, values: Array, number: int, known: int) -> None:
        """Bytes from the host_write unit, which knows `known` reads to be complete."""
        b, start = self._find(address, len(values))
        if b.role == "in":
            raise Violation(f"host buffer '{b.name}' is an input and cannot be written")
        if self.last_read[b.name] > known:
            raise Violation(
                f"host buffer '{b.name}' is written while {Unit.HOST_READ} may still read it: "
                f"{Unit.HOST_WRITE} has not waited for {Unit.HOST_READ}"
            )
        self.content[b.name][start : start + len(values)] = values
        self.written[b.name][start : start + len(values)] = True
        self.last_write[b.name] = number

    def _find(self, address: int, count: int) -> tuple[HostBuffer, int]:
        for b in self.buffers:
            if b.address <= address and address + count <= b.address + b.bytes:
                return b, address - b.address
        end = address + count - 1
        raise Violation(f"host bytes {address}..{end} are out of range: no buffer holds them")

    def outputs(self) -> dict[str, Array]:
        """The output buffers as arrays. Raises Violation if a byte was never written."""
        found = {}
        for b in self.buffers:
            if b.role != "out":
                continue
            missing = ~self.written[b.name]
            if missing.any():
                byte = int(np.argmax(missing))
                raise Violation(f"byte {byte} of output '{b.name}' has never been written")
            found[b.name] = self.content[b.name].view(b.dtype.numpy).reshape(b.shape)
        return found


def _bytes_of(b: HostBuffer, inputs: Mapping[str, Array]) -> Array:
    if b.name not in inputs:
        raise CheckError(f"input '{b.name}' is missing")
    given = np.ascontiguousarray(inputs[b.name])
    if given.shape != b.shape or given.dtype != b.dtype.numpy:
        shape = ",".join(map(str, given.shape))
        wanted = ",".join(map(str, b.shape))
        raise CheckError(
            f"input '{b.name}' is {given.dtype}[{shape}], not {b.dtype.numpy}[{wanted}]"
        )
    return given.reshape(-1).view(np.int8)
