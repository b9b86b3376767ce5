"""What a machine is: storage, operations and costs, as data read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nncc.ir.nests import Nest


@dataclass(frozen=True, slots=True)
class Storage:
    """A memory. Bandwidth in bytes a cycle, energy in pJ a byte; 0 where not stated.

    A `managed` memory holds what the program puts there; a cached one holds what was used
    last in lines of `line_bytes`.
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


@dataclass(frozen=True)
class Operation:
    """A compute operation: its meaning as a nest, and how it is spelled.

    The nest's first parameter is the accumulator that it folds into (role `out`); the others are
    inputs. Parameter types give the operands' lanes: `f32[16]` is a vector, `f32[]` a scalar that
    is broadcast, `i8[16,4]` sixteen groups of four neighbours. In Loops it is
    `Apply(name, (accumulator, inputs...))`.

    Args:
        spelling: the back end's template; `{y}`, `{a}`, … stand for the operands by name.
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

    def memory(self, name: str) -> Storage:
        """Raises KeyError if the machine has none of that name."""
        for s in self.storage:
            if s.name == name:
                return s
        raise KeyError(name)
