"""Loops functions to LLVM IR text.

    emit_llvm({"relu": function}, machine, exported=("relu",))

    define void @relu(ptr noalias %x, ptr noalias %y, i64 %N) #0 {
      …
    loop.3:
      %i.4 = phi i64 [ 0, %entry ], [ %6, %loop.3 ]

Structured statements become basic blocks in SSA form directly: a register that a loop's body
assigns is a phi at the loop's top. Loops are written with their test at the end. No LLVM
optimization is expected to run on the result: what is not wanted in the machine code is not in
the text. Parallel loops are written as serial ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nncc.backends.cpu.checks import Checks, Failures, callers
from nncc.backends.cpu.expressions import Expressions
from nncc.backends.cpu.sizes import Sizes
from nncc.backends.cpu.text import Region, Writer, symbol, value_type
from nncc.diagnostics import TargetError
from nncc.ir.bounds import bounds, nonnegative
from nncc.ir.index import Size, ceildiv, variables
from nncc.ir.loops import (
    Alloc,
    Assign,
    Call,
    Declare,
    For,
    Function,
    If,
    Let,
    Prefetch,
    Stmt,
    Store,
    While,
    walk_statements,
)  # fmt: skip
from nncc.ir.types import DType
from nncc.machines.machine import Machine

# What a function may keep on the stack: threads of a host program may have small ones.
STACK_BYTES = 256 << 10


def emit_llvm(
    functions: Mapping[str, Function],
    machine: Machine,
    *,
    exported: Iterable[str] = (),
    failures: Failures | None = None,
) -> str:
    """The LLVM IR of `functions`, all internal but the `exported` ones.

    A function's LLVM arguments are its buffers, as pointers, and then its sizes, as i64.
    What may fail in them is added to `failures`.
    Raises TargetError for what the CPU cannot hold.
    """
    declarations: set[str] = set()
    exported = frozenset(exported)
    failures = Failures() if failures is None else failures
    places = callers(functions)
    texts: dict[str, str] = {}

    def emit(name: str) -> None:
        if name in texts or name not in functions:
            return
        for s in walk_statements(functions[name].body):
            if isinstance(s, Call):
                emit(s.callee)  # a caller has to know whether a call may fail
        emitter = FunctionEmitter(
            functions[name], machine, declarations, failures=failures, place=places[name]
        )
        texts[name] = emitter.text(exported=name in exported)

    for name in functions:
        emit(name)
    ordered = [texts[name] for name in functions]
    return "\n\n".join([*ordered, *sorted(declarations), attributes(machine)]) + "\n"


def attributes(machine: Machine) -> str:
    """The attribute group of every function."""
    words = ["nounwind", "noinline", '"no-builtins"']
    if machine.vector_bytes >= 64:
        # some CPUs' tuning would split vectors of 64 bytes
        words += ['"prefer-vector-width"="512"', '"min-legal-vector-width"="512"']
    return f"attributes #0 = {{ {' '.join(words)} }}"


class FunctionEmitter:
    """Writes one function."""

    def __init__(
        self,
        function: Function,
        machine: Machine,
        declarations: set[str],
        *,
        failures: Failures,
        place: str,
    ) -> None:
        self.function = function
        self.w = Writer(declarations, machine.features)
        self.checks = Checks(self.w, failures, place)
        self.sizes = Sizes(self.w, self.checks)
        self.expressions = Expressions(self.w, self.sizes, machine.operations)
        self.values = self.expressions.values
        self.types: dict[str, tuple[DType, int]] = {}
        self.block = "entry"
        self.allocations: Region = []
        self.stack_bytes = 0

    def text(self, exported: bool) -> str:
        """`define … { … }`."""
        f = self.function
        self.allocations = self.checks.entry = self.w.place()
        self.sizes.open_scope()
        arguments = []
        for buffer in f.buffers:
            name = "%" + self.w.fresh(buffer.name)
            self.sizes.add_buffer(buffer, name)
            only_read = " readonly" if buffer.access == "in" else ""
            arguments.append(f"ptr noalias{only_read} {name}")
        for size in f.sizes:
            name = "%" + self.w.fresh(size)
            self.sizes.bind(size, name, nonnegative=True)
            arguments.append(f"i64 {name}")
        self._body(f.body)
        result = self.checks.finish(f.name)
        linkage = "" if exported else "internal "
        header = f"define {linkage}{result} {symbol(f.name)}({', '.join(arguments)}) #0 {{"
        return "\n".join([header, "entry:", self.w.text(), "}"])

    # -- statements ------------------------------------------------------------------------
    def _body(self, body: tuple[Stmt, ...]) -> None:
        """Statements of a block; names that they bind end with it."""
        outer = dict(self.values)
        for s in body:
            STATEMENTS[type(s)](self, s)
        for name in self.values.keys() - outer.keys():
            del self.values[name]

    def _let(self, s: Let | Declare) -> None:
        self.types[s.name] = (s.value.dtype, s.value.lanes)
        self.values[s.name] = self.expressions.value(s.value)

    def _assign(self, s: Assign) -> None:
        self.values[s.name] = self.expressions.value(s.value)

    def _alloc(self, s: Alloc) -> None:
        count = self.sizes.resolve(s.buffer.bytes)
        if s.buffer.space != "stack":
            raise self._error(f"the CPU has no memory '{s.buffer.space}' to allocate", s)
        if not isinstance(count, int):
            raise self._error(f"its size {count} is not known when compiling", s)
        self.stack_bytes += count
        if self.stack_bytes > STACK_BYTES:
            raise self._error(f"more than {STACK_BYTES} bytes of stack would be needed", s)
        pointer = "%" + self.w.fresh(s.buffer.name)
        self.allocations.append(f"  {pointer} = alloca [{count} x i8], align {s.buffer.alignment}")
        self.sizes.add_buffer(s.buffer, pointer)
        self._body(s.body)

    def _error(self, message: str, s: Alloc) -> TargetError:
        return TargetError(
            f"function '{self.function.name}': buffer '{s.buffer.name}': {message}",
            self.function.location,
        )

    def _store(self, s: Store) -> None:
        self.expressions.store(s)

    def _prefetch(self, s: Prefetch) -> None:
        pointer = self.sizes.address(s.buffer, s.indices)
        # a read (0) of data (1), into the second-level cache (2)
        self.w.call(
            "void", "llvm.prefetch.p0", ("ptr", pointer), ("i32", "0"), ("i32", "2"), ("i32", "1")
        )

    def _call(self, s: Call) -> None:
        pointers = [f"ptr {self.sizes.at(v.buffer, v.offset)}" for v in s.arguments]
        numbers = [f"i64 {self.sizes.value(n)}" for n in s.sizes]
        self.checks.call(s.callee, f"{symbol(s.callee)}({', '.join(pointers + numbers)})")

    # -- control flow ----------------------------------------------------------------------
    def _for(self, s: For) -> None:
        lo, hi = self.sizes.resolve(s.lo), self.sizes.resolve(s.hi)
        trips = ceildiv(hi - lo, s.step)
        if isinstance(lo, int) and isinstance(trips, int) and (s.kind == "unroll" or trips <= 1):
            for k in range(trips):
                self.sizes.literals[s.variable] = lo + k * s.step
                self._body(s.body)
                self.sizes.literals.pop(s.variable)
            return
        self._loop(s, lo, hi)

    def _loop(self, s: For, lo: Size, hi: Size) -> None:
        carried = self._assigned(s.body)
        start, end = self.sizes.value(lo), self.sizes.value(hi)
        runs = self._certain(hi - lo - 1)
        body, done = self.w.fresh("loop"), self.w.fresh("done")
        before, initial = self.block, {n: self.values[n] for n in carried}
        if runs:
            self.w.line(f"br label %{body}")
        else:
            enters = self.w.define(f"icmp slt i64 {start}, {end}")
            self.w.line(f"br i1 {enters}, label %{body}, label %{done}")

        self._start(body)
        phis = self.w.place()
        counter = "%" + self.w.fresh(s.variable)
        self._enter(carried)
        lowest, highest = bounds(lo, self._known()), bounds(hi - 1, self._known())
        self.sizes.bind(s.variable, counter, nonnegative=nonnegative(lowest[0]))
        self.expressions.ranges[s.variable] = (lowest[0], highest[1])
        inside = {n: self.values[n] for n in carried}
        self._body(s.body)
        self.sizes.close_scope()
        self.expressions.ranges.pop(s.variable)
        following = self.w.define(f"add nsw i64 {counter}, {s.step}")
        again = self.w.define(f"icmp slt i64 {following}, {end}")
        self.w.line(f"br i1 {again}, label %{body}, label %{done}")
        phis.append(_phi(counter, "i64", (start, before), (following, self.block)))
        for name in carried:
            incoming = (initial[name], before), (self.values[name], self.block)
            phis.append(_phi(inside[name], self._type(name), *incoming))

        latch, results = self.block, {n: self.values[n] for n in carried}
        self._start(done)
        if not runs:
            for name in carried:
                self._join(name, (initial[name], before), (results[name], latch))

    def _while(self, s: While) -> None:
        carried = self._assigned(s.body)
        test, body, done = (self.w.fresh(n) for n in ("while", "do", "done"))
        before, initial = self.block, {n: self.values[n] for n in carried}
        self.w.line(f"br label %{test}")
        self._start(test)
        phis = self.w.place()
        self._enter(carried)
        inside = {n: self.values[n] for n in carried}
        holds = self.expressions.value(s.condition)
        self.w.line(f"br i1 {holds}, label %{body}, label %{done}")
        self._start(body)
        self._body(s.body)
        self.sizes.close_scope()
        self.w.line(f"br label %{test}")
        for name in carried:
            incoming = (initial[name], before), (self.values[name], self.block)
            phis.append(_phi(inside[name], self._type(name), *incoming))
            self.values[name] = inside[name]
        self._start(done)

    def _if(self, s: If) -> None:
        carried = self._assigned(s.then + s.otherwise)
        holds = self.expressions.value(s.condition)
        then, otherwise, done = (self.w.fresh(n) for n in ("then", "else", "done"))
        before = {n: self.values[n] for n in carried}
        self.w.line(f"br i1 {holds}, label %{then}, label %{otherwise}")
        ends: list[tuple[str, dict[str, str]]] = []
        for label, body in ((then, s.then), (otherwise, s.otherwise)):
            self.values.update(before)
            self._start(label)
            self.sizes.open_scope()
            self._body(body)
            self.sizes.close_scope()
            self.w.line(f"br label %{done}")
            ends.append((self.block, {n: self.values[n] for n in carried}))
        self._start(done)
        for name in carried:
            self._join(name, *((results[name], block) for block, results in ends))

    # -- helpers ---------------------------------------------------------------------------
    def _start(self, label: str) -> None:
        self.w.label(label)
        self.block = label

    def _enter(self, carried: list[str]) -> None:
        """Opens the scope of a loop's body, in which the carried registers have new names."""
        for name in carried:
            self.values[name] = "%" + self.w.fresh(name)
        self.sizes.open_scope()

    def _join(self, name: str, *incoming: tuple[str, str]) -> None:
        result = "%" + self.w.fresh(name)
        self.w.line(_phi(result, self._type(name), *incoming).strip())
        self.values[name] = result

    def _type(self, name: str) -> str:
        return value_type(*self.types[name])

    def _assigned(self, body: tuple[Stmt, ...]) -> list[str]:
        """The registers declared outside of `body` that it assigns, in order of the text."""
        inner = {s.name for s in walk_statements(body) if isinstance(s, Declare)}
        names = (s.name for s in walk_statements(body) if isinstance(s, Assign))
        return [n for n in dict.fromkeys(names) if n in self.values and n not in inner]

    def _known(self) -> dict[str, tuple[Size, Size]]:
        literals: dict[str, tuple[Size, Size]] = {v: (k, k) for v, k in self.sizes.literals.items()}
        return literals | self.expressions.ranges

    def _certain(self, size: Size) -> bool:
        """Whether `size` >= 0 follows from the ranges of the variables in it."""
        low, _ = bounds(size, self._known())
        return variables(low) <= set(self.function.sizes) and nonnegative(low)


def _phi(name: str, llvm_type: str, *incoming: tuple[str, str]) -> str:
    pairs = ", ".join(f"[ {value}, %{block} ]" for value, block in incoming)
    return f"  {name} = phi {llvm_type} {pairs}"


STATEMENTS: dict[type, Callable[[FunctionEmitter, Any], None]] = {
    For: FunctionEmitter._for,
    While: FunctionEmitter._while,
    If: FunctionEmitter._if,
    Let: FunctionEmitter._let,
    Declare: FunctionEmitter._let,
    Assign: FunctionEmitter._assign,
    Store: FunctionEmitter._store,
    Alloc: FunctionEmitter._alloc,
    Call: FunctionEmitter._call,
    Prefetch: FunctionEmitter._prefetch,
}
