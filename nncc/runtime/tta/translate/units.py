"""What happens at a trigger, as one LLVM function for each unit and operation.

    define internal i32 @start.lsu.ld32(ptr %s)      1 after a fault, whose message is in the state

A store has two functions: `start` checks its operands and its address, `store` changes the memory
when every load of the cycle has read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nncc.backends.cpu.text import Writer, symbol
from nncc.machines.machine import ADDRESS
from nncc.machines.tta.model import AddressSpace
from nncc.runtime.tta.decoded import Key, Trigger, alignment, spelled, unwritten
from nncc.runtime.tta.translate.layout import FAULT, Layout
from nncc.runtime.tta.translate.meaning import InMemory, Meaning

# What `!prof` names at a branch: the first way is rarely taken, or nearly always.
WEIGHTS = """!0 = !{!"branch_weights", i32 1, i32 10000}
!1 = !{!"branch_weights", i32 10000, i32 1}"""

# What a fault's message says besides: the number stands in the state.
Messages = dict[str, int]


class Function:
    """A function over the state that is being written.

    Args:
        messages: fault messages and their numbers, shared by a program; `{}` in a message is
            the number in the state.
    """

    def __init__(self, layout: Layout, w: Writer, messages: Messages) -> None:
        self.layout, self.w, self.messages = layout, w, messages

    def at(self, offset: int) -> str:
        """A pointer into the state."""
        return self.w.define(f"getelementptr i8, ptr %s, i64 {offset}")

    def load(self, kind: str, offset: int) -> str:
        """A field of the state."""
        return self.w.define(f"load {kind}, ptr {self.at(offset)}")

    def store(self, kind: str, value: str, offset: int) -> None:
        """Sets a field of the state."""
        self.w.line(f"store {kind} {value}, ptr {self.at(offset)}")

    def add(self, offset: int, count: str = "1") -> None:
        """Adds to a counter of 8 bytes."""
        pointer = self.at(offset)
        old = self.w.define(f"load i64, ptr {pointer}")
        new = self.w.define(f"add i64 {old}, {count}")
        self.w.line(f"store i64 {new}, ptr {pointer}")

    def fail_if(self, condition: str, message: str, value: str = "0") -> None:
        """Ends the function with a fault where `condition` (i1) holds."""
        bad, good = self.w.fresh("bad"), self.w.fresh("good")
        self.w.line(f"br i1 {condition}, label %{bad}, label %{good}, !prof !0")
        self.w.label(bad)
        number = self.messages.setdefault(message, len(self.messages))
        self.store("i32", str(number), self.layout.fault_message)
        self.store("i64", value, self.layout.fault_value)
        self.w.line(f"ret i32 {FAULT}")
        self.w.label(good)

    def check_valid(self, key: Key) -> None:
        """A fault if a place was never written."""
        bad = self.w.define(f"icmp eq i8 {self.load('i8', self.layout.valid[key])}, 0")
        self.fail_if(bad, unwritten(key))

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is written meanwhile runs only where `condition` (i1) holds; "" is always."""
        if not condition:
            yield
            return
        then, after = self.w.fresh("then"), self.w.fresh("after")
        self.w.line(f"br i1 {condition}, label %{then}, label %{after}")
        self.w.label(then)
        yield
        self.w.line(f"br label %{after}")
        self.w.label(after)


class TriggerFunction(Function):
    """The functions of one trigger."""

    def __init__(self, t: Trigger, layout: Layout, w: Writer, messages: Messages) -> None:
        super().__init__(layout, w, messages)
        self.trigger = t

    def start(self) -> str:
        """`@start.…`: everything but a change of memory."""
        t = self.trigger
        for key in t.inputs:
            self.check_valid(key)
        if t.space is None:
            self._finish(self._operands())
        else:
            pointer, flags = self._access(t.space, checked=True)
            memory = t.operation.memory
            assert memory is not None
            if t.operation.kind == "load":
                self._check_written(flags, memory.bits // 8, t.space)
                self._finish({memory.name: pointer})
        return self._define(start_name(t))

    def write(self) -> str:
        """`@store.…`: a store's change of memory."""
        t = self.trigger
        assert t.space is not None and t.operation.memory is not None
        pointer, flags = self._access(t.space, checked=False)
        type_text, value = Meaning(t.operation, self.w, InMemory(self.w, self._operands())).value()
        size = t.operation.memory.bits // 8
        self.w.line(f"store {type_text} {value}, ptr {pointer}, align 1")
        self.w.line(f"store <{size} x i8> splat (i8 1), ptr {flags}, align 1")
        return self._define(store_name(t))

    def _define(self, name: str) -> str:
        self.w.line("ret i32 0")
        return f"define internal i32 {name}(ptr %s) #0 {{\nentry:\n{self.w.text()}\n}}"

    def _operands(self) -> dict[str, str]:
        """Pointers to the operand ports, by the names of the operands."""
        taken = [o.name for o in self.trigger.operation.operands if not o.is_result]
        return {
            name: self.at(self.layout.value[key])
            for name, key in zip(taken, self.trigger.inputs, strict=True)
            if name != ADDRESS
        }

    # -- results ---------------------------------------------------------------------------
    def _finish(self, operands: dict[str, str]) -> None:
        t = self.trigger
        assert t.output is not None
        type_text, value = Meaning(t.operation, self.w, InMemory(self.w, operands)).value()
        ring = self.layout.rings.get(t.output)
        if ring is None:
            pointer, flag = self.at(self.layout.value[t.output]), self.layout.valid[t.output]
            flag_pointer = self.at(flag)
        else:
            time = self.load("i64", self.layout.time)
            due = self.w.define(f"add i64 {time}, {t.latency}")
            place = self.w.define(f"and i64 {due}, {ring.length - 1}")
            base = self.at(ring.flags)
            flag_pointer = self.w.define(f"getelementptr i8, ptr {base}, i64 {place}")
            taken = self.w.define(f"load i8, ptr {flag_pointer}")
            full = self.w.define(f"icmp ne i8 {taken}, 0")
            self.fail_if(full, f"two results reach {spelled(t.output)} in one cycle")
            offset = self.w.define(f"mul i64 {place}, {ring.stride}")
            pointer = self.w.define(f"getelementptr i8, ptr {self.at(ring.values)}, i64 {offset}")
        result = t.operation.operands[-1]
        kept, size = self.layout.bytes(t.output), result.bits // 8
        if size < kept:  # zeros above the result
            rest = self.w.define(f"getelementptr i8, ptr {pointer}, i64 {size}")
            zeros = f"<{kept - size} x i8> zeroinitializer"
            self.w.line(f"store {zeros}, ptr {rest}, align 1")
        self.w.line(f"store {type_text} {value}, ptr {pointer}, align {min(8, size & -size)}")
        self.w.line(f"store i8 1, ptr {flag_pointer}")

    # -- memory ----------------------------------------------------------------------------
    def _access(self, space: AddressSpace, *, checked: bool) -> tuple[str, str]:
        """Pointers to the content and the flags at the address."""
        memory = self.trigger.operation.memory
        assert memory is not None
        size = memory.bits // 8
        address = self.address(self.trigger)
        start = self.w.define(f"sub i64 {address}, {space.min_address}")
        if checked:
            outside = self.w.define(f"icmp ugt i64 {start}, {max(space.size - size, -1)}")
            if size > space.size:
                outside = "true"
            self.fail_if(outside, f"address {{}} is outside of memory {space.name}", address)
            if alignment(size) > 1:
                low = self.w.define(f"and i64 {address}, {alignment(size) - 1}")
                odd = self.w.define(f"icmp ne i64 {low}, 0")
                message = f"address {{}} is not aligned to {alignment(size)} bytes"
                self.fail_if(odd, message, address)
        content, flags = self.layout.memories[space.name]
        return (
            self.w.define(f"getelementptr i8, ptr {self.load('ptr', content)}, i64 {start}"),
            self.w.define(f"getelementptr i8, ptr {self.load('ptr', flags)}, i64 {start}"),
        )

    def address(self, t: Trigger) -> str:
        """The address of an access, as i64."""
        narrow = self.load("i32", self.layout.value[t.inputs[0]])
        return self.w.define(f"zext i32 {narrow} to i64")

    def _check_written(self, flags: str, size: int, space: AddressSpace) -> None:
        found = self.w.define(f"load <{size} x i8>, ptr {flags}, align 1")
        missing = self.w.define(f"icmp eq <{size} x i8> {found}, zeroinitializer")
        any_missing = self.w.call(
            "i1", f"llvm.vector.reduce.or.v{size}i1", (f"<{size} x i1>", missing)
        )
        address = self.address(self.trigger)
        message = f"byte {{}} of {space.name} is read and was never written"
        self.fail_if(any_missing, message, address)


class BankFunction(Function):
    """How long the accesses of an instruction to one memory take, as a function of the state.

    `@banks.…(i64 %at0, i1 %on0, i64 %at1, …)`, of the accesses' addresses and whether they happen,
    gives the cycles beyond one. Each access is cut into pieces within one row of all banks; the
    busiest bank is the first one of some piece.
    """

    def __init__(
        self, accesses: tuple[Trigger, ...], layout: Layout, w: Writer, messages: Messages
    ) -> None:
        super().__init__(layout, w, messages)
        self.accesses = accesses

    def text(self) -> str:
        """The function's definition."""
        space = self.accesses[0].space
        assert space is not None
        pieces = [
            piece
            for k, t in enumerate(self.accesses)
            for piece in self._pieces(t, f"%at{k}", f"%on{k}", space)
        ]
        most = "1"
        for on, _, first, _ in pieces:
            rows = "0"
            covering: list[tuple[str, str]] = []
            for other_on, row, low, high in pieces:
                covers = self._all(
                    on,
                    other_on,
                    self.w.define(f"icmp ule i64 {low}, {first}"),
                    self.w.define(f"icmp uge i64 {high}, {first}"),
                )
                fresh = covers
                for earlier, earlier_row in covering:
                    same = self.w.define(f"icmp eq i64 {row}, {earlier_row}")
                    counted = self.w.define(f"and i1 {same}, {earlier}")
                    fresh = self.w.define(
                        f"and i1 {fresh}, {self.w.define(f'xor i1 {counted}, true')}"
                    )
                covering.append((covers, row))
                one = self.w.define(f"zext i1 {fresh} to i64")
                rows = self.w.define(f"add i64 {rows}, {one}")
            more = self.w.define(f"icmp ugt i64 {rows}, {most}")
            most = self.w.define(f"select i1 {more}, i64 {rows}, i64 {most}")
        self.w.line(f"ret i64 {self.w.define(f'sub i64 {most}, 1')}")
        parameters = ", ".join(f"i64 %at{k}, i1 %on{k}" for k in range(len(self.accesses)))
        name = banks_name(self.accesses)
        return f"define internal i64 {name}({parameters}) #0 {{\nentry:\n{self.w.text()}\n}}"

    def _pieces(
        self, t: Trigger, address: str, on: str, space: AddressSpace
    ) -> list[tuple[str, str, str, str]]:
        """(whether it exists, row, first bank, last bank) of each piece of an access."""
        memory = t.operation.memory
        assert memory is not None
        size = memory.bits // 8
        row_bytes = space.banks * space.bank_bytes
        last_byte = self.w.define(f"add i64 {address}, {size - 1}")
        first = self.w.define(f"udiv i64 {address}, {space.bank_bytes}")
        last = self.w.define(f"udiv i64 {last_byte}, {space.bank_bytes}")
        row = self.w.define(f"udiv i64 {first}, {space.banks}")
        last_row = self.w.define(f"udiv i64 {last}, {space.banks}")
        found = []
        for k in range(pieces_of(size, row_bytes)):
            this = self.w.define(f"add i64 {row}, {k}")
            exists = self.w.define(f"icmp ule i64 {this}, {last_row}")
            begins = self.w.define(f"mul i64 {this}, {space.banks}")
            low = self._bigger("ugt", first, begins)
            ends = self.w.define(f"add i64 {begins}, {space.banks - 1}")
            high = self._bigger("ult", last, ends)
            found.append(
                (
                    self.w.define(f"and i1 {exists}, {on}"),
                    this,
                    self.w.define(f"sub i64 {low}, {begins}"),
                    self.w.define(f"sub i64 {high}, {begins}"),
                )
            )
        return found

    def _bigger(self, predicate: str, a: str, b: str) -> str:
        chosen = self.w.define(f"icmp {predicate} i64 {a}, {b}")
        return self.w.define(f"select i1 {chosen}, i64 {a}, i64 {b}")

    def _all(self, *conditions: str) -> str:
        found = conditions[0]
        for c in conditions[1:]:
            found = self.w.define(f"and i1 {found}, {c}")
        return found


def pieces_of(size: int, row_bytes: int) -> int:
    """In how many rows of all banks an aligned access of `size` bytes may lie."""
    if size & (size - 1) == 0:
        return max(1, size // row_bytes)
    return (size - 1) // row_bytes + 2


def may_lock(accesses: tuple[Trigger, ...]) -> bool:
    """Whether accesses of one instruction to one memory can take more than a cycle."""
    space = accesses[0].space
    if space is None or not space.banks:
        return False
    sizes = [t.operation.memory.bits // 8 for t in accesses if t.operation.memory is not None]
    return len(sizes) > 1 or pieces_of(sizes[0], space.banks * space.bank_bytes) > 1


def most_extra(accesses: tuple[Trigger, ...]) -> int:
    """The most cycles beyond one that accesses of one instruction to one memory can take."""
    space = accesses[0].space
    assert space is not None
    row = space.banks * space.bank_bytes
    sizes = [t.operation.memory.bits // 8 for t in accesses if t.operation.memory is not None]
    return sum(pieces_of(size, row) for size in sizes) - 1


def start_name(t: Trigger) -> str:
    """The name of a trigger's function."""
    return symbol(f"start.{t.unit}.{t.operation.name}")


def store_name(t: Trigger) -> str:
    """The name of the function that changes the memory."""
    return symbol(f"store.{t.unit}.{t.operation.name}")


def banks_name(accesses: tuple[Trigger, ...]) -> str:
    """The name of the function that counts locked cycles."""
    return symbol("banks." + ".".join(f"{t.unit}.{t.operation.name}" for t in accesses))
