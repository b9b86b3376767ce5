"""Instructions as LLVM code: a function for each piece of a program.

    define i32 @piece(ptr %s, i64 %limit)

It runs instructions of the piece from the state's position on, one block each, and returns why it
stopped: the limit of cycles (0), the end of the program (1), a fault whose message stands in the
state (2), a position outside of the piece (3), or a move from a place that was never written (4).
The order of things within a cycle is the interpreter's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from nncc.backends.cpu.text import Writer
from nncc.runtime.tta.decoded import DecodedInstruction, DecodedMove, Trigger, mask
from nncc.runtime.tta.translate.control import ControlFunction, arrive, kept_type, loop_end
from nncc.runtime.tta.translate.layout import FAULT, FINISHED, LEFT, LIMIT, UNWRITTEN, Layout
from nncc.runtime.tta.translate.units import (
    WEIGHTS,
    BankFunction,
    Function,
    Messages,
    TriggerFunction,
    banks_name,
    may_lock,
    start_name,
    store_name,
)

_ENDS = (
    ("finished", FINISHED),
    ("limited", LIMIT),
    ("left", LEFT),
    ("fault", FAULT),
    ("unwritten", UNWRITTEN),
)
_MEMORY_KINDS = ("load", "store")


class Piece:
    """The functions of instructions `first` to `last` (excluded)."""

    def __init__(
        self,
        decoded: tuple[DecodedInstruction, ...],
        first: int,
        last: int,
        layout: Layout,
        messages: Messages,
        features: frozenset[str],
    ) -> None:
        self.decoded, self.first, self.last = decoded, first, last
        self.layout, self.messages, self.features = layout, messages, features
        self.declarations: set[str] = set()
        self.helpers: dict[str, str] = {}

    def text(self, attributes: str) -> str:
        """The LLVM module."""
        w = self._writer()
        w.line("br label %dispatch")
        w.label("dispatch")
        f = Function(self.layout, w, self.messages)
        finished = f.load("i32", self.layout.finished)
        ended = w.define(f"icmp ne i32 {finished}, 0")
        w.line(f"br i1 {ended}, label %finished, label %unfinished")
        w.label("unfinished")
        over = w.define(f"icmp uge i64 {_cycles(f)}, %limit")
        w.line(f"br i1 {over}, label %limited, label %within")
        w.label("within")
        position = f.load("i32", self.layout.position)
        cases = " ".join(f"i32 {i}, label %i{i}" for i in range(self.first, self.last))
        w.line(f"switch i32 {position}, label %left [ {cases} ]")
        for label, status in _ENDS:
            w.label(label)
            w.line(f"ret i32 {status}")
        for i in range(self.first, self.last):
            w.label(f"i{i}")
            InstructionCode(self, i, w).write()
        main = f"define i32 @piece(ptr %s, i64 %limit) #0 {{\nentry:\n{w.text()}\n}}"
        return "\n\n".join(
            [*self.helpers.values(), main, *sorted(self.declarations), attributes, WEIGHTS, ""]
        )

    def _writer(self) -> Writer:
        return Writer(self.declarations, self.features)

    def helper(self, name: str, make: Callable[[Writer], str]) -> str:
        """The name of a function of the module, which is written when it is first asked for."""
        if name not in self.helpers:
            self.helpers[name] = make(self._writer())
        return name

    def start(self, t: Trigger) -> str:
        """The function that starts an operation."""
        return self.helper(
            start_name(t), lambda w: TriggerFunction(t, self.layout, w, self.messages).start()
        )

    def write(self, t: Trigger) -> str:
        """The function that stores."""
        return self.helper(
            store_name(t), lambda w: TriggerFunction(t, self.layout, w, self.messages).write()
        )

    def banks(self, accesses: tuple[Trigger, ...]) -> str:
        """The function that counts locked cycles."""
        return self.helper(
            banks_name(accesses),
            lambda w: BankFunction(accesses, self.layout, w, self.messages).text(),
        )

    def arrive(self) -> str:
        """The function that moves results which are due to their ports."""
        return self.helper("@arrive", lambda w: arrive(Function(self.layout, w, self.messages)))

    def loop_end(self) -> str:
        """`@loop_end(ptr %s, i32 %i)`: what follows instruction %i, the last one of a loop."""
        return self.helper("@loop_end", lambda w: loop_end(Function(self.layout, w, self.messages)))

    def control(self, t: Trigger) -> str:
        """`@start.cu.jump(ptr %s, i32 %i, i1 %taken)`: `%taken`: the return port is written."""
        count = len(self.decoded)
        return self.helper(
            start_name(t), lambda w: ControlFunction(self.layout, w, self.messages).text(t, count)
        )


class InstructionCode(Function):
    """Writes the block of one instruction."""

    def __init__(self, piece: Piece, position: int, w: Writer) -> None:
        super().__init__(piece.layout, w, piece.messages)
        self.piece, self.position = piece, position
        self.instruction = piece.decoded[position]

    def write(self) -> None:
        """All of a cycle."""
        if self.instruction.problem:
            self.fail_if("true", self.instruction.problem)
        self._see_guards()
        moves = self.instruction.moves
        conditions = [""] * len(moves)
        values = [""] * len(moves)
        written = [""] * len(moves)
        for k, m in enumerate(moves):
            conditions[k], seen = self._condition(m)
            values[k] = self._read(m)
            written[k] = self._written(m, conditions[k], seen)
        self._check_written([x for x in written if x])
        for m, condition, value in zip(moves, conditions, values, strict=True):
            with self.when(condition):
                self._write(m, value)
        for key, immediate in self.instruction.immediates:
            self.store("i64", str(immediate), self.layout.value[key])
            self.store("i8", "1", self.layout.valid[key])
        triggered = [
            (m.trigger, c) for m, c in zip(moves, conditions, strict=True) if m.trigger is not None
        ]
        self._start_operations(triggered, moves, conditions)
        self._store_all(triggered)
        self._lock(triggered)
        self.add(self.layout.executed + 8 * self.position)
        for m, condition in zip(moves, conditions, strict=True):
            if m.guard is not None:
                one = self.w.define(f"zext i1 {condition} to i64")
                self.add(self.layout.moves[self.position, m.bus], one)
        self.add(self.layout.time)
        if self.layout.rings:
            self.w.line(f"call void {self.piece.arrive()}(ptr %s)")
        self._continue(triggered)

    # -- moves -----------------------------------------------------------------------------
    def _see_guards(self) -> None:
        """What guards look at moves on by a cycle."""
        latency = self.layout.architecture.control.guard_delay
        for key, place in self.layout.seen.items():
            for k in range(latency, 0, -1):
                self.store("i8", self.load("i8", place + k - 1), place + k)
            value = self.load("i8", self.layout.value[key])
            bit = self.w.define(f"and i8 {value}, 1")
            valid = self.w.define(f"shl i8 {self.load('i8', self.layout.valid[key])}, 1")
            self.store("i8", self.w.define(f"or i8 {bit}, {valid}"), place)

    def _condition(self, m: DecodedMove) -> tuple[str, str]:
        """Whether a guarded move happens and whether that is known, as i1; "" without guard."""
        if m.guard is None:
            return "", ""
        latency = self.layout.architecture.control.guard_delay
        seen = self.load("i8", self.layout.seen[m.guard] + latency)
        known = self.w.define(f"icmp uge i8 {seen}, 2")
        bit = self.w.define(f"trunc i8 {seen} to i1")
        return self.w.define(f"xor i1 {bit}, {'true' if m.inverted else 'false'}"), known

    def _written(self, m: DecodedMove, condition: str, known: str) -> str:
        """Whether everything that a move reads was written, as i1; "" if it reads nothing."""
        if m.source is None:
            return known
        flag = self.load("i8", self.layout.valid[m.source])
        written = self.w.define(f"icmp ne i8 {flag}, 0")
        if not condition:
            return written
        idle = self.w.define(f"xor i1 {condition}, true")
        written = self.w.define(f"or i1 {written}, {idle}")
        return self.w.define(f"and i1 {written}, {known}")

    def _check_written(self, conditions: list[str]) -> None:
        if not conditions:
            return
        every = conditions[0]
        for condition in conditions[1:]:
            every = self.w.define(f"and i1 {every}, {condition}")
        good = self.w.fresh("good")
        self.w.line(f"br i1 {every}, label %{good}, label %unwritten, !prof !1")
        self.w.label(good)

    def _read(self, m: DecodedMove) -> str:
        """The value that a move carries, as its destination keeps it."""
        kept = self.layout.bytes(m.destination)
        if m.source is None:
            value = m.literal & mask(m.bits)
            if kept == 8:
                return str(value)
            parts = ", ".join(f"i8 {b}" for b in value.to_bytes(kept, "little"))
            return f"<{parts}>"
        offset, available = self.layout.value[m.source], self.layout.bytes(m.source)
        if kept == 8:
            value_name = self.load("i64", offset)
            if m.bits < min(64, self.layout.width[m.source]):
                value_name = self.w.define(f"and i64 {value_name}, {mask(m.bits)}")
            return value_name
        taken = min(m.bits // 8, available) if m.bits % 8 == 0 else available
        pointer = self.at(offset)
        if taken == kept:
            return self.w.define(f"load <{kept} x i8>, ptr {pointer}, align 8")
        if m.bits % 8:  # a narrow bus of odd width: through 8 bytes
            narrow = self.w.define(f"and i64 {self.load('i64', offset)}, {mask(m.bits)}")
            part, taken = self.w.define(f"bitcast i64 {narrow} to <8 x i8>"), 8
        else:
            part = self.w.define(f"load <{taken} x i8>, ptr {pointer}, align 1")
        places = ", ".join(f"i32 {k if k < taken else taken}" for k in range(kept))
        return self.w.define(
            f"shufflevector <{taken} x i8> {part}, <{taken} x i8> zeroinitializer, "
            f"<{kept} x i32> <{places}>"
        )

    def _write(self, m: DecodedMove, value: str) -> None:
        kind = kept_type(self.layout, m.destination)
        pointer = self.at(self.layout.value[m.destination])
        self.w.line(f"store {kind} {value}, ptr {pointer}, align 8")
        self.store("i8", "1", self.layout.valid[m.destination])

    # -- operations ------------------------------------------------------------------------
    def _call(self, name: str, arguments: str = "") -> None:
        """Calls a function that may fault."""
        status = self.w.define(f"call i32 {name}(ptr %s{arguments})")
        good = self.w.fresh("good")
        failed = self.w.define(f"icmp ne i32 {status}, 0")
        self.w.line(f"br i1 {failed}, label %fault, label %{good}, !prof !0")
        self.w.label(good)

    def _start_operations(
        self,
        triggered: list[tuple[Trigger, str]],
        moves: tuple[DecodedMove, ...],
        conditions: list[str],
    ) -> None:
        control = []
        for t, condition in triggered:
            if t.operation.kind in ("compute", *_MEMORY_KINDS):
                with self.when(condition):
                    self._call(self.piece.start(t))
            else:
                control.append((t, condition))
        if not control:
            return
        unit = self.layout.architecture.control
        port = (unit.name, unit.return_port)
        written = "false"
        for m, c in zip(moves, conditions, strict=True):
            if m.destination == port:
                written = self.w.define(f"or i1 {written}, {c or 'true'}")
        for t, condition in control:  # several have guards of which one holds
            with self.when(condition):
                self._call(self.piece.control(t), f", i32 {self.position}, i1 {written}")

    def _store_all(self, triggered: list[tuple[Trigger, str]]) -> None:
        stores = [(t, c) for t, c in triggered if t.operation.kind == "store"]
        for (t, c), (u, d) in sorted(
            combinations(stores, 2), key=lambda pair: stores.index(pair[1])
        ):
            if t.space is u.space and t.space is not None:
                self._check_apart(t, c, u, d)
        for t, condition in stores:
            with self.when(condition):
                self.w.line(f"call i32 {self.piece.write(t)}(ptr %s)")

    def _check_apart(self, t: Trigger, c: str, u: Trigger, d: str) -> None:
        (a, a_end), (b, b_end) = self._extent(t), self._extent(u)
        meets = self.w.define(
            f"and i1 {self.w.define(f'icmp ult i64 {a}, {b_end}')}, "
            f"{self.w.define(f'icmp ult i64 {b}, {a_end}')}"
        )
        for condition in (c, d):
            if condition:
                meets = self.w.define(f"and i1 {meets}, {condition}")
        assert t.space is not None
        self.fail_if(meets, f"two stores to one byte of {t.space.name} in one cycle")

    def _extent(self, t: Trigger) -> tuple[str, str]:
        assert t.operation.memory is not None
        narrow = self.load("i32", self.layout.value[t.inputs[0]])
        start = self.w.define(f"zext i32 {narrow} to i64")
        return start, self.w.define(f"add i64 {start}, {t.operation.memory.bits // 8}")

    def _lock(self, triggered: list[tuple[Trigger, str]]) -> None:
        for space in self.layout.spaces:
            own = [(t, c) for t, c in triggered if t.space is not None and t.space.name == space]
            if not own or not may_lock(tuple(t for t, _ in own)):
                continue
            name = self.piece.banks(tuple(t for t, _ in own))
            given = ", ".join(f"i64 {self._extent(t)[0]}, i1 {c or 'true'}" for t, c in own)
            extra = self.w.define(f"call i64 {name}({given})")
            self.add(self.layout.stalls, extra)
            self.add(self.layout.stall(self.position, space), extra)

    # -- what comes next -------------------------------------------------------------------
    def _continue(self, triggered: list[tuple[Trigger, str]]) -> None:
        w, i = self.w, self.position
        if self._jump_may_end_here():
            jump_time = self.load("i64", self.layout.jump_time)
            next_time = w.define(f"add i64 {jump_time}, 1")
            taken = w.define(f"icmp eq i64 {next_time}, {self.load('i64', self.layout.time)}")
            jump, stay = w.fresh("jump"), w.fresh("stay")
            w.line(f"br i1 {taken}, label %{jump}, label %{stay}")
            w.label(jump)
            self.store("i64", "-2", self.layout.jump_time)
            self.store("i32", self.load("i32", self.layout.jump_target), self.layout.position)
            w.line("br label %dispatch")
            w.label(stay)
        if self.layout.architecture.control.loop_depth:
            here = w.define(f"icmp eq i32 {self.load('i32', self.layout.loop_end)}, {i}")
            end, stay = w.fresh("end"), w.fresh("stay")
            w.line(f"br i1 {here}, label %{end}, label %{stay}")
            w.label(end)
            following = w.define(f"call i32 {self.piece.loop_end()}(ptr %s, i32 {i})")
            self.store("i32", following, self.layout.position)
            w.line("br label %dispatch")
            w.label(stay)
        self.store("i32", str(i + 1), self.layout.position)
        halts = any(t.operation.kind == "halt" for t, _ in triggered)
        if halts or i + 1 >= self.piece.last:
            w.line("br label %dispatch")
            return
        over = w.define(f"icmp uge i64 {_cycles(self)}, %limit")
        w.line(f"br i1 {over}, label %limited, label %i{i + 1}, !prof !0")

    def _jump_may_end_here(self) -> bool:
        """Whether the instruction is the last delay slot of a jump or call."""
        start = self.position - self.layout.architecture.control.delay_slots
        return start >= 0 and any(
            m.trigger is not None and m.trigger.operation.kind in ("jump", "call")
            for m in self.piece.decoded[start].moves
        )


def _cycles(f: Function) -> str:
    """Cycles up to now, with stalls."""
    time, stalls = f.load("i64", f.layout.time), f.load("i64", f.layout.stalls)
    return f.w.define(f"add i64 {time}, {stalls}")
