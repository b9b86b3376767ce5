"""Where tensors live: regions of the machine's memories, and the views of `main` as regions.

Constants go where they are read from: a memory that programs only read, if the machine has one with
a load operation that fits the access, else the data memory. Everything else is in data memory.
Intermediate tensors that are not alive at the same time share their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from nncc.diagnostics import TargetError
from nncc.ir.index import evaluate
from nncc.ir.loops import View
from nncc.ir.program import ARENA, STATE, WEIGHTS, Program
from nncc.ir.types import DType
from nncc.machines.machine import Machine, Operation
from nncc.machines.tta.model import Architecture


@dataclass(eq=False)
class Region:
    """Bytes that nothing else overlaps while they are used.

    Args:
        content: of constants; None for what the program writes, or its caller.
        is_tensor: of the Loops; False for what the code generator made for itself.
        addresses: by memory; a constant may be in two of them.
    """

    name: str
    size: int
    content: bytes | None = None
    is_tensor: bool = True
    addresses: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A buffer of a function: an array in a region, `start` bytes behind its begin."""

    region: Region
    start: int
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MemoryOperation:
    """A load or store of a machine, as it is when nothing but bits is moved.

    Args:
        bits: how many; `dtype`, `lanes`: what a scalar load extends to a word, a store cuts.
    """

    operation: Operation
    space: str

    @cached_property  # asked for each access of a program
    def bits(self) -> int:
        assert self.operation.memory is not None
        return self.operation.memory.bits


class Memory:
    """The memories of a machine while a program for it is made."""

    def __init__(self, machine: Machine, architecture: Architecture) -> None:
        self.machine, self.architecture = machine, architecture
        self.operations: list[MemoryOperation] = []
        for unit in architecture.units:
            for name in unit.operation:
                record = machine.operations[name]
                if record.memory is not None:
                    self.operations.append(MemoryOperation(record, unit.address_space))
        stores = {o.space for o in self.operations if o.operation.kind == "store"}
        sizes = {s.name: s.size for s in architecture.memories}
        if not stores:
            raise TargetError(f"machine '{machine.name}' can store nothing")
        scalar = [o.space for o in self.operations if o.operation.kind == "store" and o.bits == 32]
        self.data = max(scalar or stores, key=lambda s: sizes[s])
        self.parameters = [s for s in sizes if s not in stores]
        self.ends = {s.name: s.min_address for s in architecture.memories}
        self.regions: list[Region] = []
        self.cleared = (0, 0)  # what is zero at first: lanes that pad a layout are read
        self.alignment = max(64, max(o.bits for o in self.operations) // 8)

    # -- operations ------------------------------------------------------------------------
    def loads(self, region: Region) -> list[MemoryOperation]:
        """The loads that can read a region, the best ones first."""
        spaces = [*self.parameters, self.data] if region.content is not None else [self.data]
        found = [o for o in self.operations if o.operation.kind == "load" and o.space in spaces]
        return sorted(found, key=lambda o: spaces.index(o.space))

    def stores(self) -> list[MemoryOperation]:
        return [o for o in self.operations if o.operation.kind == "store" and o.space == self.data]

    # -- regions ---------------------------------------------------------------------------
    def region(
        self, name: str, size: int, content: bytes | None = None, *, is_tensor: bool = True
    ) -> Region:
        """A new region; it takes space when its address is asked for."""
        found = Region(name, size, content, is_tensor)
        self.regions.append(found)
        return found

    def address(self, region: Region, space: str) -> int:
        """Where a region begins in a memory."""
        if space not in region.addresses:
            start = -(-self.ends[space] // self.alignment) * self.alignment
            region.addresses[space] = start
            # a vector of which only the first lanes are used may reach beyond the end
            self.ends[space] = start + -(-region.size // self.alignment) * self.alignment
        return region.addresses[space]

    def overlay(self, regions: list[tuple[Region, int, int]]) -> None:
        """Places regions in data memory that are alive from one step to another, both included."""
        base = -(-self.ends[self.data] // self.alignment) * self.alignment
        placed: list[tuple[int, int, int, int]] = []
        end = base
        for region, first, last in sorted(regions, key=lambda r: (-r[0].size, r[1], r[0].name)):
            size = -(-region.size // self.alignment) * self.alignment
            others = sorted(p for p in placed if p[2] <= last and first <= p[3])
            start = base
            for low, high, _, _ in others:
                if start + size <= low:
                    break
                start = max(start, high)
            placed.append((start, start + size, first, last))
            region.addresses[self.data] = start
            end = max(end, start + size)
        self.ends[self.data] = end
        self.cleared = (base, end)

    def check(self) -> None:
        """Raises TargetError if a memory is too small."""
        for space in self.architecture.memories:
            needed, size = self.ends[space.name] - space.min_address, space.size
            if needed > size:
                raise TargetError(
                    f"the program needs {needed} bytes of memory '{space.name}'; "
                    f"machine '{self.machine.name}' has {size}"
                )


class Blocks:
    """The tensors of a program as regions, and what views of its blocks stand for."""

    def __init__(self, program: Program, memory: Memory, sizes: Mapping[str, int]) -> None:
        self.program, self.memory, self.sizes = program, memory, sizes
        self.arguments: dict[str, Region] = {}
        self.placed: list[tuple[str, int, int, int, int, Region]] = []
        for name, t in program.signature.inputs:
            self.arguments[name] = memory.region(name, evaluate(t.bytes, sizes))
        main = program.functions["main"]
        outputs = [b for b in main.buffers if b.name not in (WEIGHTS, STATE, ARENA)]
        for buffer in outputs[len(program.signature.inputs) :]:
            self.arguments[buffer.name] = memory.region(buffer.name, evaluate(buffer.bytes, sizes))
        for region in self.arguments.values():
            memory.address(region, memory.data)
        self.outputs = [self.arguments[b.name] for b in outputs[len(program.signature.inputs) :]]
        block = program.weights_block()
        overlaid: list[tuple[Region, int, int]] = []
        self.states: list[Region] = []
        for p in program.memory.placements:
            start, size = evaluate(p.offset, sizes), evaluate(p.bytes, sizes)
            content = block[start : start + size].tobytes() if p.space == "weights" else None
            region = memory.region(p.tensor, size, content)
            if p.space == "state":
                memory.address(region, memory.data)
                self.states.append(region)
            elif p.space == "arena":
                overlaid.append((region, p.first, p.last))
            self.placed.append((p.space, start, size, p.first, p.last, region))
        memory.overlay(overlaid)
        self.last = max((p.last for p in program.memory.placements), default=0)

    def find(self, view: View, step: int) -> tuple[Region, int]:
        """The region of a view in call number `step` of `main`, and the byte in it."""
        if view.buffer in self.arguments:
            return self.arguments[view.buffer], evaluate(view.offset, self.sizes)
        space = {WEIGHTS: "weights", STATE: "state", ARENA: "arena"}[view.buffer]
        offset = evaluate(view.offset, self.sizes)
        for kind, start, size, first, last, region in self.placed:
            if kind != space or not start <= offset < max(start + size, start + 1):
                continue
            if kind != "arena" or first <= step <= last:
                return region, offset - start
        raise AssertionError(f"no tensor at {view} in call {step}")
