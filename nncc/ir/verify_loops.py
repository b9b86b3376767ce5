"""Invariants of the Loops level, checked for one function and for the calls between several.

    Names      Every name, size, loop variable and buffer is bound where it is used. No name is
               bound again while it is visible. Loop variables and sizes occur in `Size`
               expressions only, values and registers in expressions only.
    Types      Operands of scalar functions have the dtypes and lanes that the function's rule
               asks; a load or store has its buffer's dtype and rank, and a count only if it has
               several lanes; a condition is a scalar bool; a machine operation has its record's
               operands; one on memory stays within its record's box.
    Registers  `Assign` sets a visible `Declare`d register to a value of the same type. A body of
               a parallel loop assigns no register from outside of it.
    Loops      Steps are positive. An unrolled loop has literal bounds, given the unrolled loops
               around it.
    Buffers    An `in` buffer is never written, by stores or as an `out` argument of a call.
               Accesses stay inside of their buffers, all bytes that a callee takes too, for all
               sizes >= 1, as far as `nncc.ir.inside` can prove it; what cannot be proved is wrong.
    Calls      The callee exists; numbers of buffers and sizes agree; there is no recursion.

The first violation raises VerifyError with the function's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from nncc.diagnostics import VerifyError
from nncc.ir.expr import (
    LANE_FUNCTIONS,
    Apply,
    Const,
    Expr,
    Load,
    Name,
    Value,
    apply,
)  # fmt: skip
from nncc.ir.index import Size, elements, product, substitute, variables
from nncc.ir.inside import doubtful
from nncc.ir.loops import (
    Alloc,
    Assign,
    Buffer,
    Call,
    Declare,
    For,
    Function,
    If,
    Let,
    Perform,
    Prefetch,
    Stmt,
    Store,
    While,
    walk_statements,
)  # fmt: skip
from nncc.ir.nests import Nest
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import DType, boolean
from nncc.ir.verify_perform import perform_problem

Type = tuple[DType, int]  # dtype and lanes


def verify_functions(
    functions: Mapping[str, Function], operations: Mapping[str, Nest] | None = None
) -> None:
    """Verifies every function. `operations` are the semantics of the machine's operations by
    name; None: operations are not checked. Raises VerifyError."""
    for name, f in functions.items():
        if name != f.name:
            raise VerifyError(f"function '{f.name}' is stored under the name '{name}'")
        _Verifier(f, functions, operations).run()
    _no_recursion(functions)


def _no_recursion(functions: Mapping[str, Function]) -> None:
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise VerifyError(f"function '{name}' calls itself: {' -> '.join((*path, name))}")
        if name in finished:
            return
        for s in walk_statements(functions[name].body):
            if isinstance(s, Call):
                visit(s.callee, (*path, name))
        finished.add(name)

    for name in functions:
        visit(name, ())


@dataclass
class _Verifier:
    function: Function
    functions: Mapping[str, Function]
    operations: Mapping[str, Nest] | None
    integers: set[str] = field(default_factory=set)
    literals: dict[str, int] = field(default_factory=dict)
    values: dict[str, Type] = field(default_factory=dict)
    registers: set[str] = field(default_factory=set)
    fixed: set[str] = field(default_factory=set)  # registers from outside of a parallel loop
    buffers: dict[str, Buffer] = field(default_factory=dict)

    def run(self) -> None:
        f = self.function
        for size in f.sizes:
            self.bind(size)
            self.integers.add(size)
        for b in f.buffers:
            self.bind(b.name)
            for extent in b.shape:
                self.size(extent, f"the shape of '{b.name}'")
            self.buffers[b.name] = b
        self.body(f.body)
        for doubt in doubtful(f, self.functions):
            self.fail(doubt)

    def fail(self, message: str) -> NoReturn:
        raise VerifyError(f"function '{self.function.name}': {message}", self.function.location)

    def bind(self, name: str) -> None:
        if name in self.integers or name in self.values or name in self.buffers:
            self.fail(f"'{name}' is bound again while it is visible")

    # -- statements ------------------------------------------------------------------------
    def body(self, body: tuple[Stmt, ...]) -> None:
        values, registers = dict(self.values), set(self.registers)
        for s in body:
            self.statement(s)
        self.values, self.registers = values, registers

    def statement(self, s: Stmt) -> None:
        if isinstance(s, For):
            self.loop(s)
        elif isinstance(s, If | While):
            if self.type(s.condition) != (boolean, 1):
                self.fail("a condition is a scalar bool")
            self.body(s.then if isinstance(s, If) else s.body)
            self.body(s.otherwise if isinstance(s, If) else ())
        elif isinstance(s, Let | Declare):
            self.bind(s.name)
            self.values[s.name] = self.type(s.value)
            if isinstance(s, Declare):
                self.registers.add(s.name)
        elif isinstance(s, Assign):
            self.assign(s)
        elif isinstance(s, Store):
            self.store(s)
        elif isinstance(s, Alloc):
            self.alloc(s)
        elif isinstance(s, Call):
            self.call(s)
        elif isinstance(s, Perform):
            self.perform(s)
        else:
            assert isinstance(s, Prefetch)
            self.access(s.buffer, s.indices)

    def loop(self, s: For) -> None:
        self.bind(s.variable)
        for bound in (s.lo, s.hi):
            self.size(bound, f"a bound of loop '{s.variable}'")
        if s.step < 1:
            self.fail(f"loop '{s.variable}' has step {s.step}")
        with self.visible(s.variable):
            if s.kind == "unroll":
                lo, hi = substitute(s.lo, self.literals), substitute(s.hi, self.literals)
                if not isinstance(lo, int) or not isinstance(hi, int):
                    self.fail(f"unrolled loop '{s.variable}' goes over {lo}..{hi}, not literals")
                # later iterations have the same types; bounds inside may use the variable
                self.literals[s.variable] = lo
            outside = set(self.fixed)
            if s.kind == "parallel":
                self.fixed |= self.registers
            self.body(s.body)
            self.fixed = outside
            self.literals.pop(s.variable, None)

    @contextmanager
    def visible(self, variable: str) -> Iterator[None]:
        self.integers.add(variable)
        yield
        self.integers.discard(variable)

    def assign(self, s: Assign) -> None:
        if s.name not in self.registers:
            self.fail(f"'{s.name}' is assigned but is no register here")
        if s.name in self.fixed:
            self.fail(f"a parallel loop assigns register '{s.name}' from outside of it")
        if self.type(s.value) != self.values[s.name]:
            self.fail(f"register '{s.name}' is assigned a value of another type")

    def store(self, s: Store) -> None:
        buffer = self.access(s.buffer, s.indices)
        if buffer.access == "in":
            self.fail(f"'{s.buffer}' is written, but is an 'in' buffer")
        dtype, lanes = self.type(s.value)
        if dtype is not buffer.dtype:
            self.fail(f"a value of type {dtype} is stored in '{s.buffer}' of {buffer.dtype}")
        self.vector(lanes, s.indices, s.count, s.buffer)

    def alloc(self, s: Alloc) -> None:
        self.bind(s.buffer.name)
        for extent in s.buffer.shape:
            self.size(extent, f"the shape of '{s.buffer.name}'")
        self.buffers[s.buffer.name] = s.buffer
        self.body(s.body)
        del self.buffers[s.buffer.name]

    def call(self, s: Call) -> None:
        callee = self.functions.get(s.callee)
        if callee is None:
            self.fail(f"there is no function '{s.callee}' to call")
        if len(s.arguments) != len(callee.buffers) or len(s.sizes) != len(callee.sizes):
            self.fail(
                f"'{s.callee}' takes {len(callee.buffers)} buffers and {len(callee.sizes)} sizes, "
                f"not {len(s.arguments)} and {len(s.sizes)}"
            )
        for size in s.sizes:
            self.size(size, f"a size passed to '{s.callee}'")
        for view, buffer in zip(s.arguments, callee.buffers, strict=True):
            self.size(view.offset, f"the offset of an argument of '{s.callee}'")
            given = self.buffers.get(view.buffer)
            if given is None:
                self.fail(f"there is no buffer '{view.buffer}'")
            elif given.access == "in" and buffer.access != "in":
                self.fail(f"'{s.callee}' writes '{view.buffer}', which is an 'in' buffer")

    def perform(self, s: Perform) -> None:
        what = f"operation '{s.operation}'"
        for d in s.dims:
            self.bind(d.name)
            for bound in (d.lo, d.hi):
                self.size(bound, f"a bound of '{d.name}' of {what}")
        box = {d.name for d in s.dims}
        self.integers |= box
        buffer = self.access(s.target.tensor, s.target.indices)
        if buffer.access == "in":
            self.fail(f"'{s.target.tensor}' is written, but is an 'in' buffer")
        types = [self.type(e) for e in s.operands]
        self.integers -= box
        if self.operations is None:
            return
        semantics = self.operations.get(s.operation)
        if semantics is None:
            self.fail(f"there is no machine {what}")
        if problem := perform_problem(s, semantics, buffer.dtype, types):
            self.fail(f"{what}: {problem}")

    # -- expressions -----------------------------------------------------------------------
    def size(self, size: Size, what: str) -> None:
        for name in sorted(variables(size)):
            if name not in self.integers:
                self.fail(f"'{name}' in {what} is no size or loop variable here")
        for e in elements(size):
            if not self.access(e.tensor, e.indices).dtype.is_integer:
                self.fail(f"'{e.tensor}' in {what} is no integer buffer")

    def access(self, name: str, indices: tuple[Size, ...]) -> Buffer:
        buffer = self.buffers.get(name)
        if buffer is None:
            self.fail(f"there is no buffer '{name}'")
        if len(indices) != len(buffer.shape):
            self.fail(f"'{name}' has {len(buffer.shape)} dimensions, not {len(indices)}")
        for i in indices:
            self.size(i, f"a subscript of '{name}'")
        return buffer

    def vector(self, lanes: int, indices: tuple[Size, ...], count: Size | None, name: str) -> None:
        if lanes < 1:
            self.fail(f"an access of '{name}' has {lanes} lanes")
        if lanes > 1 and not indices:
            self.fail(f"'{name}' has no dimension for a vector")
        if count is not None:
            if lanes == 1:
                self.fail(f"an access of '{name}' has a count, but one lane")
            self.size(count, f"the count of an access of '{name}'")

    def type(self, e: Expr) -> Type:
        """The type that `e` states, once it is shown to be right."""
        if isinstance(e, Value):
            self.size(e.size, "a value")
        elif isinstance(e, Name):
            if self.values.get(e.name) != (e.dtype, e.lanes):
                self.fail(f"'{e.name}' is no value of type {e.dtype}x{e.lanes} here")
        elif isinstance(e, Load):
            self.load(e)
        elif isinstance(e, Apply):
            self.application(e)
        elif not isinstance(e, Const):
            self.fail(f"{type(e).__name__} does not belong in Loops")
        return e.dtype, e.lanes

    def load(self, e: Load) -> None:
        buffer = self.access(e.tensor, e.indices)
        if e.dtype is not buffer.dtype:
            self.fail(f"'{e.tensor}' of {buffer.dtype} is loaded as {e.dtype}")
        self.vector(e.lanes, e.indices, e.count, e.tensor)
        last = buffer.shape[-1] if buffer.shape else 1
        if e.other is not None and isinstance(last, int) and e.lanes > last:
            self.fail(f"a vector that may be outside of '{e.tensor}' spans several rows")
        if e.other is not None and self.type(e.other) != (e.dtype, e.lanes):
            self.fail(f"the value outside of '{e.tensor}' has another type")

    def application(self, e: Apply) -> None:
        operands = [self.type(a) for a in e.args]
        if e.fn in LANE_FUNCTIONS:
            self.lane_function(e)
        elif e.fn in FUNCTIONS:
            self.scalar_function(e)
        elif self.operations is not None:
            self.operation(e, operands)

    def lane_function(self, e: Apply) -> None:
        if len(e.args) != 1 or e.args[0].dtype is not e.dtype:
            self.fail(f"{e.fn} has one operand, of the result's type")
        narrow = e.args[0].lanes if e.fn == "broadcast" else e.lanes
        if narrow != 1:
            self.fail(f"{e.fn} from {e.args[0].lanes} to {e.lanes} lanes")

    def scalar_function(self, e: Apply) -> None:
        if FUNCTIONS[e.fn].rule == "cast":
            if len(e.args) != 1 or e.args[0].lanes != e.lanes:
                self.fail("a cast has one operand, of the result's lanes")
            return
        try:
            expected = apply(e.fn, *e.args)
        except ValueError as error:
            self.fail(str(error))
        if (expected.dtype, expected.lanes) != (e.dtype, e.lanes):
            self.fail(f"{e.fn} gives {expected.dtype}x{expected.lanes}, not {e.dtype}x{e.lanes}")

    def operation(self, e: Apply, operands: list[Type]) -> None:
        assert self.operations is not None
        semantics = self.operations.get(e.fn)
        if semantics is None:
            self.fail(f"there is no function or machine operation '{e.fn}'")
        expected = [(p.type.dtype, product(p.type.shape)) for p in semantics.params]
        if operands != expected or (e.dtype, e.lanes) != expected[0]:
            self.fail(f"the operands of '{e.fn}' are not those of its record")
