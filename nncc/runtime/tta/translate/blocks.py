"""The blocks of a program that have been translated, and running them.

    blocks = Blocks(program, machine, decoded, layout)
    status = blocks.run(address, limit)             native code, until it cannot go on
    blocks.translate(context)                       a unit from a context on

A unit is translated when a run comes to where it begins; its code is kept between runs.
"""

from __future__ import annotations

import ctypes
import functools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nncc.backends.cpu.cache import cached, key
from nncc.backends.cpu.emit import attributes
from nncc.backends.cpu.jit import Library
from nncc.backends.cpu.target import code_version, host_features, host_triple, object_code
from nncc.isa.tta.binary import machine_hash
from nncc.isa.tta.program import Program
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.runtime.tta.decoded import DecodedInstruction
from nncc.runtime.tta.translate.context import Context, LoopLengths
from nncc.runtime.tta.translate.layout import LEFT, MISS, Layout
from nncc.runtime.tta.translate.unit import Made, Unit, leaders_of

ROWS = 4  # how many units may have blocks that begin at the same instruction
PATIENCE = 8  # times that a run comes to a position before a unit may begin at any
LEVEL = 0  # of code generation: the state between blocks is in memory, in any case

# The sources of the package, so that code that another version wrote is not taken. They are read
# here, with the modules, not when they are needed: somebody may change them in between.
_PACKAGE = Path(__file__).parents[3]
_SOURCES = key(*(f.read_text("utf-8") for f in sorted(_PACKAGE.rglob("*.py"))))

_RUN = f"""
define i32 @run(ptr %s, i64 %limit, ptr %table, i64 %count) {{
entry:
  %place = getelementptr i8, ptr %s, i64 POSITION
  br label %begin
begin:
  %narrow = load i32, ptr %place
  %position = zext i32 %narrow to i64
  %inside = icmp ult i64 %position, %count
  br i1 %inside, label %look, label %miss
look:
  %k = phi i64 [ 0, %begin ], [ %next, %more ]
  %row = mul i64 %k, %count
  %index = add i64 %row, %position
  %slot = getelementptr ptr, ptr %table, i64 %index
  %unit = load ptr, ptr %slot
  %none = icmp eq ptr %unit, null
  br i1 %none, label %miss, label %call
call:
  %status = call i32 %unit(ptr %s, i64 %limit)
  switch i32 %status, label %done [ i32 {LEFT}, label %begin i32 {MISS}, label %more ]
more:
  %next = add i64 %k, 1
  %again = icmp ult i64 %next, {ROWS}
  br i1 %again, label %look, label %miss
done:
  ret i32 %status
miss:
  ret i32 {MISS}
}}
"""


class Blocks:
    """See the module's docstring.

    Attributes:
        known: contexts in which a unit can be entered; `plain`: in which none can begin.
        roots: positions at which a unit may begin.
    """

    def __init__(
        self,
        program: Program,
        machine: Machine,
        decoded: tuple[DecodedInstruction, ...],
        layout: Layout,
    ) -> None:
        self.program, self.machine = program, machine
        self.decoded, self.layout = decoded, layout
        slots = layout.architecture.control.delay_slots
        self.leaders = leaders_of(decoded, slots)
        self.loops = LoopLengths(decoded)
        self.roots = set(self.leaders)
        self.missed: Counter[int] = Counter()  # how often a run came to other positions
        self.known: set[Context] = set()
        self.plain: set[Context] = set()
        self.counts: list[tuple[Any, Any]] = []  # by unit: positions and ends; counts
        self.libraries: list[Library] = []
        self.table = np.zeros((ROWS, len(decoded)), np.uint64)
        self._run, self._driver = _driver(layout.position)
        # guards that see registers late would need those registers' past
        self.possible = not (layout.seen and layout.architecture.control.guard_delay)

    def run(self, address: int, limit: int) -> int:
        """Runs blocks on the state at an address until none can go on; why that is."""
        return int(self._run(address, limit, self.table.ctypes.data, len(self.decoded)))

    def clear(self) -> None:
        """Forgets how often the blocks ran."""
        for _, counts in self.counts:
            counts[:] = 0

    def executed(self) -> np.ndarray[Any, Any]:
        """How often each instruction ran as part of a block."""
        changes = np.zeros(len(self.decoded) + 1, np.int64)
        for places, counts in self.counts:
            np.add.at(changes, places[:, 0], counts)
            np.subtract.at(changes, places[:, 1], counts)
        return np.cumsum(changes)[:-1]

    def can_begin(self, context: Context) -> bool:
        """Whether a unit from this context on is worth a try."""
        if context.position >= len(self.decoded):
            return False
        if context.position not in self.roots:
            self.missed[context.position] += 1
            if self.missed[context.position] < PATIENCE:
                return False
            self.roots.add(context.position)
        return (
            context not in self.known
            and context not in self.plain
            and not self.table[-1, context.position]
        )

    def translate(self, root: Context) -> None:
        """Makes a unit from `root` on."""
        code, made = self._code(root)
        names = ["unit", "counts"]
        library = Library(code, names)
        self.libraries.append(library)
        for context in made.contexts:
            column = self.table[:, context.position]
            if library["unit"] not in column and not column[-1]:
                column[np.argmin(column)] = library["unit"]
        places = np.array([(p, p + n) for p, n in made.blocks], np.int64).reshape(-1, 2)
        array = (ctypes.c_int64 * len(made.blocks)).from_address(library["counts"])
        self.counts.append((places, np.ctypeslib.as_array(array)))
        self.known.update(made.contexts)
        self.plain.update(made.plain)
        self.roots.update(c.position for c in made.frontier)

    def _code(self, root: Context) -> tuple[bytes, Made]:
        host = load("cpu", host_features())
        known = sorted(self.known, key=repr)

        def make() -> bytes:
            unit = Unit(self.decoded, self.layout, self.leaders, self.loops, host.features, known)
            text, made = unit.text(root, attributes(host))
            return json.dumps(_as_json(made)).encode() + b"\n" + object_code(text, host, LEVEL)

        found = cached(key("tta", self._digest, repr((root, known))), make)
        head, _, code = found.partition(b"\n")
        return code, _made(json.loads(head))

    @functools.cached_property
    def _digest(self) -> str:
        """What all units depend on: the translator, the host, the machine and the program."""
        moves = [(i.moves, i.immediates, i.template) for i in self.program.instructions]
        host = f"{host_triple()} {sorted(host_features())} {code_version()} {LEVEL}"
        return key(_SOURCES, host, machine_hash(self.machine).hex(), repr(moves))


def _as_json(made: Made) -> list[Any]:
    groups = (made.contexts, made.plain, made.frontier)
    return [made.blocks, *([(c.position, c.loops, c.coming, c.length) for c in g] for g in groups)]


def _made(data: Any) -> Made:
    def contexts(found: Iterable[Any]) -> tuple[Context, ...]:
        return tuple(
            Context(
                p,
                tuple((first, last, plain) for first, last, plain in loops),
                tuple(((unit, port), k) for (unit, port), k in coming),
                length,
            )
            for p, loops, coming, length in found
        )

    blocks, *groups = data
    return Made(tuple((p, n) for p, n in blocks), *(contexts(g) for g in groups))


@functools.cache
def _driver(position: int) -> tuple[Any, Library]:
    """The function that runs units one after the other, and what keeps its code."""
    host = load("cpu", host_features())
    text = _RUN.replace("POSITION", str(position))
    library = Library(object_code(text, host), ["run"])
    kinds = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    return ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(library["run"]), library
