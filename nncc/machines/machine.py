"""What a machine is: storage, fan-out, operations, links and costs, as data read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nncc.ir.nests import Nest


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


@dataclass(frozen=True)
class Operation:
    """A compute operation: its meaning as a nest, and how it is spelled.

    The nest's first parameter is the accumulator that it folds into (role `out`); the others are
    inputs. Parameter types give the operands' lanes: `f32[16]` is a vector, `f32[]` a scalar that
    is broadcast, `i8[16,4]` sixteen groups of four neighbours. In Loops it is
    `Apply(name, (accumulator, inputs...))`.

    A spelling has one instruction a line. `{y}`, `{a}`, … are the operands by the names of the
    nest's parameters: an operand of rank 0 comes broadcast to the lanes of the accumulator, any
    other as a vector of all its elements in row-major order. `{result}` is the value to define;
    `{t0}`, `{t1}`, … are fresh names for values in between.

    Args:
        spelling: the back end's template.
        declares: what the back end must declare once for it (for the CPU: LLVM intrinsics).
        latency: cycles until the result can be used; `per_cycle`: how many start in a cycle.
        energy: pJ for one execution; 0 where not known.
        needs: features of the machine without which it does not exist.
    """

    name: str
    semantics: Nest
    spelling: str
    latency: int = 1
    per_cycle: float = 1.0
    energy: float = 0.0
    needs: tuple[str, ...] = ()
    declares: tuple[str, ...] = ()


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

    def memory(self, name: str) -> Storage:
        """Raises KeyError if the machine has none of that name."""
        for s in self.storage:
            if s.name == name:
                return s
        raise KeyError(name)
