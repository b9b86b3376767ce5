"""What a machine is: storage, fan-out, operations, links and costs, as data read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from nncc.ir.nests import ASSIGN, Nest, Param
from nncc.ir.types import DType, u32
from nncc.machines.systolic.model import SystolicArray
from nncc.machines.tta.model import Architecture

# What an operation does besides computing; the operands of each kind: see `Operation`.
Kind = Literal["compute", "load", "store", "jump", "call", "loop", "halt"]
KINDS: tuple[Kind, ...] = ("compute", "load", "store", "jump", "call", "loop", "halt")

HOST = "cpu"  # the back end, and the preset, of the machine that drives the others
OLD = ".old"  # the operand `y.old` is what the result `y` of a reduction folds into
ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Storage:
    """A memory. Bandwidth in bytes a cycle, energy in pJ a byte; 0 where not stated.

    A `managed` memory holds what the program puts there; a cached one holds what was used
    last in lines of `line_bytes`.

    Args:
        above: the memory that it is filled from; "" for the outermost one.
        holds: the roles of operands that it may hold (`in`, `out`, `local`); empty: all.
        instances: how many there are of it, all below one instance of `above`.
    """

    name: str
    bytes: int
    line_bytes: int = 64
    banks: int = 1
    managed: bool = False
    read_bytes_per_cycle: float = 0.0
    write_bytes_per_cycle: float = 0.0
    read_pj_per_byte: float = 0.0
    write_pj_per_byte: float = 0.0
    above: str = ""
    holds: tuple[str, ...] = ()
    instances: int = 1


@dataclass(frozen=True, slots=True)
class Spatial:
    """`count` copies of what hangs below the storage `below`, working at the same time.

    With `multicast` one read of `below` serves every copy that needs the same element; with
    `reduce` partial results are added on their way back.
    """

    name: str
    count: int
    below: str
    multicast: bool = False
    reduce: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A way for data from one memory to another; costs as in `Storage`, latency in cycles."""

    name: str
    source: str
    target: str
    bytes_per_cycle: float
    latency: int = 1
    pj_per_byte: float = 0.0


@dataclass(frozen=True, slots=True)
class Operand:
    """A value that an operation takes or gives: `lanes` elements, element 0 in the lowest bits.

    Args:
        name: the nest's name of it, or `address`, or `y.old` for what a reduction folds into.
        is_result: given by the operation, not taken.
    """

    name: str
    dtype: DType
    lanes: int = 1
    is_result: bool = False

    @property
    def bits(self) -> int:
        return self.dtype.bits * self.lanes


@dataclass(frozen=True)
class Operation:
    """An operation of a machine: its meaning as a nest, and how it is spelled.

    The nest's first parameter is what it gives (role `out`); the others are inputs. Its one
    statement is a reduction that folds into the first parameter, or (on machines with an
    architecture) an assignment to it. Parameter types give the operands' lanes: `f32[16]` is a
    vector, `f32[]` a scalar that is broadcast, `i8[16,4]` sixteen groups of four neighbours. In
    Loops a reduction is `Apply(name, (accumulator, inputs...))`.

    Kinds: `compute` has the nest's operands alone. A `load` gets an address besides, and the
    nest's input is what stands there in memory; a `store` gets an address, and the nest's output
    is what goes there. `jump` and `call` get the address of an instruction, `loop` a number of
    iterations and a number of instructions; `halt` ends the program and ignores its operand.

    A spelling has one instruction a line. `{y}`, `{a}`, … are the operands by the names of the
    nest's parameters: an operand of rank 0 comes broadcast to the lanes of the accumulator, any
    other as a vector of all its elements in row-major order. `{result}` is the value to define;
    `{t0}`, `{t1}`, … are fresh names for values in between.

    Args:
        spelling: the back end's template; "" where the program has no text for it but its name.
        declares: what the back end must declare once for it (for the CPU: LLVM intrinsics).
        latency: cycles until the result can be used; `per_cycle`: how many start in a cycle.
        energy: pJ for one execution (for one point of the statement if the nest has named sizes,
            which are those of a run); 0 where not known.
        needs: features of the machine without which it does not exist; of `a|b` it needs one.
        places: pairs (operand, memory) on machines whose operations work on memories; operands
            that are not there (of rank 0) stand in the instruction.
    """

    name: str
    semantics: Nest
    spelling: str = ""
    latency: int = 1
    per_cycle: float = 1.0
    energy: float = 0.0
    needs: tuple[str, ...] = ()
    declares: tuple[str, ...] = ()
    kind: Kind = "compute"
    places: tuple[tuple[str, str], ...] = ()

    @property
    def is_reduction(self) -> bool:
        """Whether the result folds into an old value, which is an operand then."""
        return self.semantics.statements[0].combine != ASSIGN

    @property
    def memory(self) -> Operand | None:
        """What a load reads or a store writes: elements one after the other from the address."""
        if self.kind == "load":
            return _operand(self.semantics.params[1])
        return _operand(self.semantics.params[0]) if self.kind == "store" else None

    @property
    def operands(self) -> tuple[Operand, ...]:
        """What it takes, in the order of the text, and then what it gives.

        A reduction takes the old value first, a load or store the address.
        """
        result, *inputs = self.semantics.params
        taken = [_operand(p) for p in inputs]
        address = Operand(ADDRESS, u32)
        given = _operand(result, is_result=True)
        if self.kind == "load":
            return address, given
        if self.kind == "store":
            return address, *taken
        if self.kind != "compute":
            return tuple(taken)
        if self.is_reduction:
            taken.insert(0, Operand(result.name + OLD, given.dtype, given.lanes))
        return *taken, given


def _operand(param: Param, is_result: bool = False) -> Operand:
    return Operand(param.name, param.type.dtype, prod(param.type.static_shape), is_result)


@dataclass(frozen=True)
class Machine:
    """A target.

    Args:
        storage: memories from the outermost to the innermost (registers last).
        vector_bytes: width of a vector register; `vector_registers`: how many there are.
        operations: what `tensorize` may select, in order of preference.
        pipeline: preset of passes, as text.
        backend: the package of `nncc.backends` that emits its programs.
        features: what this instance of the machine has (for the CPU: detected).
        variant: which member of a family this is (for the CPU: `avx512`, `avx2`, …).
        supports: op → dtypes of its operands and results with which the machine computes it; `*`
            stands for every op that is not named. Empty: whatever is a loop nest. What is not
            supported, `legalize` decomposes, places on the host or refuses.
        spatial: fan-out of the storage tree; `links`: ways for data beside the tree.
        architecture: buses, units and registers of a transport-triggered machine.
        array: of a machine with a systolic array.
        file: suffix and text of the file that it was read from.
    """

    name: str
    backend: str
    pipeline: str
    storage: tuple[Storage, ...]
    vector_bytes: int
    vector_registers: int
    frequency_hz: float
    operations: Mapping[str, Operation] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    variant: str = ""
    doc: str = ""
    spatial: tuple[Spatial, ...] = ()
    links: tuple[Link, ...] = ()
    supports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    architecture: Architecture | None = None
    array: SystolicArray | None = None
    file: tuple[str, str] = field(default=("", ""), compare=False, repr=False)

    @property
    def is_host(self) -> bool:
        """Whether it is a CPU that computes whatever is a loop nest, for others too."""
        return self.backend == HOST and not self.supports

    @property
    def device(self) -> str:
        """What groups of nodes that it computes are marked with."""
        return HOST if self.is_host else self.name

    def memory(self, name: str) -> Storage:
        """Raises KeyError if the machine has none of that name."""
        for s in self.storage:
            if s.name == name:
                return s
        raise KeyError(name)
