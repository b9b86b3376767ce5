"""What compiled code checks while it runs: numbers that it reads from tensors and uses as indices.

A number outside of the range that the program declares for it is replaced by the lowest one, so
that nothing outside of a buffer is touched, and the function returns a status that tells of it:

    %status = alloca i64                                          at the function's entry
    %ok = icmp ult i64 %distance, 8                               where the number is read
    %index = select i1 %ok, i64 %read, i64 0
    %where = select i1 %ok, ptr %status.unused, ptr %status
    store i32 16, ptr %where

Only functions in which something can fail return a status, an i32; others return nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nncc.backends.cpu.text import Region, Writer
from nncc.ir.loops import Call, Function, walk_statements
from nncc.runtime.native import FIRST_FAILURE


@dataclass
class Failures:
    """What can go wrong in the functions of one program.

    Attributes:
        texts: what each status says.
        functions: those that return a status.
    """

    texts: dict[int, str] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)

    def number(self, text: str) -> int:
        """The status that says `text`."""
        for number, known in self.texts.items():
            if known == text:
                return number
        number = FIRST_FAILURE + len(self.texts)
        self.texts[number] = text
        return number


def callers(functions: Mapping[str, Function]) -> dict[str, str]:
    """How users know each function: by the nodes that call it, else by its name."""
    sources: dict[str, dict[str, None]] = {}
    for f in functions.values():
        for s in walk_statements(f.body):
            if isinstance(s, Call) and s.source:
                sources.setdefault(s.callee, {})[s.source] = None
    nodes = {name: list(found) for name, found in sources.items()}
    return {
        name: f"function '{name}'"
        if name not in nodes
        else "node " + " or ".join(f"'{n}'" for n in nodes[name])
        for name in functions
    }


class Checks:
    """The checks of one function, which users know as `place`."""

    def __init__(self, writer: Writer, failures: Failures, place: str) -> None:
        self.writer = writer
        self.failures = failures
        self.place = place
        self.entry: Region = []  # where memory is allocated
        self.status = self.unused = ""  # pointers; "" as long as nothing is checked

    def index(self, read: str, lo: str, hi: str, what: str) -> str:
        """The i64 `read` if it is in lo..hi, else `lo`, and the function fails: `what`."""
        w = self.writer
        if _is_literal(lo) and _is_literal(hi):
            distance = w.define(f"sub i64 {read}, {lo}") if lo != "0" else read
            ok = w.define(f"icmp ult i64 {distance}, {int(hi) - int(lo)}")
        else:
            above = w.define(f"icmp sge i64 {read}, {lo}")
            below = w.define(f"icmp slt i64 {read}, {hi}")
            ok = w.define(f"and i1 {above}, {below}")
        self._allocate()
        where = w.define(f"select i1 {ok}, ptr {self.unused}, ptr {self.status}")
        w.line(f"store i32 {self.failures.number(f'{self.place}: {what}')}, ptr {where}, align 4")
        return w.define(f"select i1 {ok}, i64 {read}, i64 {lo}")

    def call(self, callee: str, arguments: str) -> None:
        """Calls a function; its status becomes that of this one, unless this one has one."""
        w = self.writer
        if callee not in self.failures.functions:
            w.line(f"call void {arguments}")
            return
        self._allocate()
        status = w.define(f"call i32 {arguments}")
        before = w.define(f"load i32, ptr {self.status}, align 4")
        first = w.define(f"icmp eq i32 {before}, 0")
        kept = w.define(f"select i1 {first}, i32 {status}, i32 {before}")
        w.line(f"store i32 {kept}, ptr {self.status}, align 4")

    def finish(self, name: str) -> str:
        """Ends the function of this name; the type of what it returns."""
        w = self.writer
        if not self.status:
            w.line("ret void")
            return "void"
        self.failures.functions.add(name)
        w.line(f"ret i32 {w.define(f'load i32, ptr {self.status}, align 4')}")
        return "i32"

    def _allocate(self) -> None:
        if self.status:
            return
        self.status = "%" + self.writer.fresh("status")
        self.unused = f"%{self.writer.fresh('status.unused')}"
        self.entry += [
            f"  {self.status} = alloca i64, align 8",
            f"  {self.unused} = getelementptr i8, ptr {self.status}, i64 4",
            f"  store i32 0, ptr {self.status}, align 4",
        ]


def _is_literal(operand: str) -> bool:
    return not operand.startswith("%")
