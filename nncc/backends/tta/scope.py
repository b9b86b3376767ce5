"""What stands around the statement that is being lowered: names, buffers and open loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nncc.backends.tta.code import Item, Operand, Register
from nncc.backends.tta.memory import Place
from nncc.ir.bounds import Range, simplify
from nncc.ir.index import Size, substitute


@dataclass(frozen=True, slots=True)
class Wide:
    """A 64-bit integer: two words. `is_word`: the upper one only extends the sign of the lower."""

    low: Operand
    high: Operand
    is_word: bool = False


Held = int | Register | Wide | Place
Limits = tuple[int, int]


@dataclass(eq=False)
class Pointer:
    """A register that holds a sum of loop variables plus `constant`."""

    register: Register
    constant: int


@dataclass(eq=False)
class Open:
    """A loop whose body is being written; `before` is the block around it."""

    variable: str
    lo: Size
    step: int
    before: list[Item]
    pointers: dict[Size, Pointer] = field(default_factory=dict)
    steps: list[Item] = field(default_factory=list)


class Scope:
    """The names of a function at a place in it; all parts of the lowering share one.

    Attributes:
        loops: those around the place, outermost first.
        known: what sizes and variables of unrolled loops stand for; `ranges`: of the others.
        places: the buffers of the function; `values`: what names stand for (a vector may stand
            for a place in memory); `limits`: of scalars that do not change; `variables`:
            registers that assignments change.
    """

    def __init__(self) -> None:
        self.variables: set[Register] = set()
        self._fresh = 0
        self.open({})

    def open(self, sizes: Mapping[str, int]) -> None:
        """Begins a function with these sizes."""
        self.loops: list[Open] = []
        self.known: dict[str, Size] = dict(sizes)
        self.ranges: dict[str, Range] = {}
        self.places: dict[str, Place] = {}
        self.values: dict[str, Held] = {}
        self.limits: dict[str, Limits] = {}

    def fresh(self, name: str) -> str:
        """A name that nothing else has."""
        self._fresh += 1
        return f"{name}.{self._fresh}"

    def resolved(self, size: Size) -> Size:
        """`size` with what is known put in."""
        if isinstance(size, int):
            return size
        return simplify(substitute(size, self.known), self.ranges)

    def is_pointer(self, x: Register) -> bool:
        """Whether an open loop steps the register."""
        return any(x is p.register for loop in self.loops for p in loop.pointers.values())

    def is_multiple(self, offset: Size, step: int) -> bool:
        """Whether an offset is certainly a multiple of `step`, a power of two."""
        if isinstance(offset, int):
            return offset % step == 0
        loops = {loop.variable: loop for loop in self.loops}
        for m, c in offset.terms:
            if c % step == 0:
                continue
            loop = loops.get(m[0]) if len(m) == 1 and isinstance(m[0], str) else None
            # lo + k * step_of_loop
            if loop is None or not isinstance(loop.lo, int):
                return False
            if c * loop.lo % step or c * loop.step % step:
                return False
        return True
