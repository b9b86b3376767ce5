"""Straight pieces of a program as LLVM code: values within a block, the state between blocks.

A block begins at a position in a `Context`, what is known there besides: the hardware loops that
are active and the results that are on their way. It ends where another block begins, after the
delay slots of a jump, at the end of a loop's round, or before what it cannot do: what depends on
numbers that are not known (the length of a loop, say), or surely is a fault.

Within a block registers and ports are LLVM values: the state's registers are read when they are
first needed and written when it ends; it adds to cycles and counters once. What only running it
can tell is checked: that values were written, that addresses are legal, that the limit of cycles
is far enough. Where a check fails, the block has changed nothing (stores are taken back), and the
plain code of `code.py` runs the same instructions one by one, up to the fault if there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.runtime.tta.decoded import DecodedInstruction, DecodedMove, Key, Trigger
from nncc.runtime.tta.translate.block_operations import Accesses, BlockOperations
from nncc.runtime.tta.translate.context import LONGEST, Coming, Context, Loops, Stop
from nncc.runtime.tta.translate.layout import FINISHED
from nncc.runtime.tta.translate.values import Val, literal, resized

if TYPE_CHECKING:
    from nncc.runtime.tta.translate.unit import Unit


@dataclass(frozen=True, slots=True)
class _Jump:
    """A jump whose delay slots run; `condition` is its guard's value, "" without guard."""

    target: Val
    condition: str
    end: int  # the last delay slot


@dataclass(frozen=True, slots=True)
class _Pushed:
    """A loop that starts after its delay slots."""

    first: int
    last: int
    iterations: Val
    end: int


class Block(BlockOperations):
    """Writes a block.

    Args:
        stop: a position before which it ends; -1 for none.

    Attributes:
        following: the contexts in which it may go on.
        safe: the last position before which it could end.
    """

    def __init__(self, unit: Unit, context: Context, label: str, stop: int = -1) -> None:
        super().__init__(unit, context, label)
        self.stop = stop
        self.safe = context.position
        self.loops = context.loops
        self.jump: _Jump | None = None
        self.pushed: _Pushed | None = None
        self.halts = False
        self.counts: list[tuple[int, str]] = []  # (counter's place, i1) at the end
        self.following: list[Context] = []

    def write(self) -> None:
        """Writes the block into the open region. Raises Stop at what it cannot hold."""
        self.w.label(self.label)
        self.head = self.w.place()
        if self.context.length >= 0:
            key = self.unit.loops.port
            self.values[key] = literal(self.context.length, self.layout.width[key])
        for key, k in self.context.coming:
            value = self._load(key, self.layout.rings[key].slot(k))
            self.coming[k, key] = value, ""
        while self.step():
            pass
        self._end()
        self._head()
        self._take_back()

    # -- instructions ----------------------------------------------------------------------
    def step(self) -> bool:
        """Writes an instruction; False if the block ends before it or after it."""
        i = self.position
        self._arrive()
        delayed = self.jump is not None or self.pushed is not None
        if not delayed:
            self.safe = i
            if self.length and (i in self.unit.leaders or self.length >= LONGEST):
                return False
            if i == self.stop:
                return False
        if i >= len(self.unit.decoded):
            raise Stop
        self._instruction(self.unit.decoded[i])
        self.length += 1
        self.position = i + 1
        waiting = self.jump or self.pushed
        if waiting is not None:
            return i != waiting.end
        return not self.halts and not (self.loops and self.loops[-1][1] == i)

    def _instruction(self, d: DecodedInstruction) -> None:
        if d.problem:
            raise Stop
        conditions = [self._condition(m) for m in d.moves]
        values = [self._read(m) for m in d.moves]
        later: list[tuple[Key, Val, str]] = []
        for m, value, condition in zip(d.moves, values, conditions, strict=True):
            if m.destination in self.unit.registers:
                later.append((m.destination, value, condition))
            else:
                self._set(m.destination, value, condition)
        triggered = [
            (m.trigger, c, value)
            for m, c, value in zip(d.moves, conditions, values, strict=True)
            if m.trigger is not None
        ]
        accesses: Accesses = {}
        stores = []
        for t, condition, _ in triggered:
            if t.operation.kind in ("compute", "load"):
                self._start(t, condition, accesses)
            elif t.operation.kind == "store":
                stores.append((t, condition))
        self._store(stores, accesses)
        for t, condition, value in triggered:
            if t.operation.kind not in ("compute", "load", "store"):
                self._control(t, condition, value, d.moves)
        for key, number in d.immediates:
            later.append((key, literal(number, self.layout.width[key]), ""))
        for key, value, condition in later:
            self._set(key, value, condition)
        for space, found in accesses.items():
            self._lock(space, found)
        for m, condition in zip(d.moves, conditions, strict=True):
            if condition:
                self.counts.append((self.layout.moves[self.position, m.bus], condition))

    def _condition(self, m: DecodedMove) -> str:
        """Whether a guarded move happens, as i1; "" without guard."""
        if m.guard is None:
            return ""
        guard = self.value(m.guard)
        bit = guard.text if guard.bits == 1 else resized(self.w, guard, 1).text
        return self.w.define(f"xor i1 {bit}, true") if m.inverted else bit

    def _read(self, m: DecodedMove) -> Val:
        """What a move carries, cut to what reaches the destination."""
        if m.source is None:
            return literal(m.literal, m.bits)
        value = self.value(m.source)
        return resized(self.w, value, min(value.bits, m.bits))

    # -- control ---------------------------------------------------------------------------
    def _control(
        self, t: Trigger, condition: str, moved: Val, moves: tuple[DecodedMove, ...]
    ) -> None:
        kind = t.operation.kind
        if self.jump is not None or self.pushed is not None or (condition and kind != "jump"):
            raise Stop
        if self.loops and kind != "loop":
            raise Stop
        # where it happens, the port that starts it holds what was moved there
        place = t.inputs[0] if condition else None
        operands = [
            resized(self.w, moved if key == place else self.value(key), 32) for key in t.inputs
        ]
        if kind == "halt":
            self.halts = True
            return
        control = self.layout.architecture.control
        end = self.position + control.delay_slots
        if kind == "loop":
            self._push(operands[0], operands[1], end)
            return
        target, count = operands[0], len(self.unit.decoded)
        if target.number is None:
            if condition:
                raise Stop
            self._fail_if(self.w.define(f"icmp uge i32 {target.text}, {count}"))
        elif target.number >= count:
            raise Stop
        self.jump = _Jump(target, condition, end)
        if kind == "call":
            port = (control.name, control.return_port)
            if any(m.destination == port for m in moves):
                raise Stop
            self._set(port, literal(end + 1, self.layout.width[port]), "")

    def _push(self, iterations: Val, length: Val, end: int) -> None:
        if not length.number or iterations.number == 0:
            raise Stop
        first, last = end + 1, end + length.number
        if last >= len(self.unit.decoded) or (self.loops and last > self.loops[-1][1]):
            raise Stop
        if len(self.loops) == self.layout.architecture.control.loop_depth:
            raise Stop
        if iterations.number is None:
            self._fail_if(self.w.define(f"icmp eq i32 {iterations.text}, 0"))
        self.pushed = _Pushed(first, last, iterations, end)

    # -- the end ---------------------------------------------------------------------------
    def _end(self) -> None:
        if not self.length:
            raise Stop
        self._arrive()
        self._write_back()
        self.flags = self.w.place()
        coming = self._keep_coming()
        self._count()
        if self.halts:
            self._store_state("i32", "1", self.layout.finished)
            self.unit.leave(Context(self.position, (), coming), FINISHED)
        elif self.jump is not None:
            self._jump(self.jump, coming)
        elif self.pushed is not None:
            self._start_loop(self.pushed, coming)
        elif self.loops and self.loops[-1][1] == self.position - 1:
            self._loop_end(self.loops, coming)
        else:
            self._go_on(self.position, self.loops, coming)

    def _keep_coming(self) -> Coming:
        found = []
        for (due, key), (value, _) in self.coming.items():
            k = due - self.length
            found.append((key, k))
            self._keep(value, self.layout.rings[key].slot(k))
        return tuple(sorted(found, key=self.layout.coming_order))

    def _count(self) -> None:
        for offset, condition in self.counts:
            self._add(offset, self.w.define(f"zext i1 {condition} to i64"))
        for offset, extra in self.stalls:
            self._add(offset, extra)
            self._add(self.layout.stalls, extra)
        self._add(self.layout.time, str(self.length))
        counter = self.unit.counter(self.context.position, self.length)
        self._increase(counter, "1")

    def _go_on(self, position: int, loops: Loops, coming: Coming) -> None:
        self.w.line(f"br label %{self._label(position, loops, coming)}")

    def _label(self, position: int, loops: Loops, coming: Coming) -> str:
        length = -1
        if self.unit.loops.wanted(position):
            value = self.values.get(self.unit.loops.port)
            length = -1 if value is None or value.number is None else value.number
        context = Context(position, loops, coming, length)
        self.following.append(context)
        return self.unit.label(context)

    def _jump(self, jump: _Jump, coming: Coming) -> None:
        if jump.target.number is None:
            self.unit.leave_to(jump.target.text, coming)
            return
        if not jump.condition:
            self._go_on(jump.target.number, (), coming)
            return
        stay = self._label(self.position, (), coming)
        taken = self._label(jump.target.number, (), coming)
        self.w.line(f"br i1 {jump.condition}, label %{taken}, label %{stay}")

    def _start_loop(self, pushed: _Pushed, coming: Coming) -> None:
        depth = len(self.loops)
        place = self.layout.loops + 16 * depth
        values = (str(pushed.first), str(pushed.last), pushed.iterations.text, "1")
        for k, value in enumerate(values):
            self._store_state("i32", value, place + 4 * k)
        for k in range(depth):
            self._store_state("i32", "0", self.layout.loops + 16 * k + 12)
        self._store_state("i32", str(depth + 1), self.layout.loop_count)
        self._store_state("i32", str(pushed.last), self.layout.loop_end)
        outer = tuple((first, last, False) for first, last, _ in self.loops)
        self._go_on(self.position, (*outer, (pushed.first, pushed.last, True)), coming)

    def _loop_end(self, loops: Loops, coming: Coming) -> None:
        """After the last instruction of the innermost loop: another round, or what follows."""
        *outer, (first, last, is_plain) = loops
        place = self.layout.loops + 16 * len(outer) + 8
        w = self.w
        left = w.define(f"load i32, ptr {self.at(place)}")
        again, done = w.fresh("again"), w.fresh("done")
        more = w.define(f"icmp ugt i32 {left}, 1")
        # pointers are defined before the branch, for both sides
        for offset in (self.layout.buffered, self.layout.loop_count, self.layout.loop_end):
            self.at(offset)
        w.line(f"br i1 {more}, label %{again}, label %{done}, !prof !1")
        w.label(again)
        self._store_state("i32", w.define(f"sub i32 {left}, 1"), place)
        length = last - first + 1
        if is_plain and length <= self.layout.architecture.control.loop_buffer:
            self._add(self.layout.buffered, str(length))
        self._go_on(first, loops, coming)
        w.label(done)
        around = outer[-1][1] if outer else -1
        self._store_state("i32", str(len(outer)), self.layout.loop_count)
        self._store_state("i32", str(around), self.layout.loop_end)
        if around == last:
            self._loop_end(tuple(outer), coming)
        else:
            self._go_on(last + 1, tuple(outer), coming)

    def _head(self) -> None:
        """The limit of cycles, at the block's beginning."""
        w, layout = self.w, self.layout
        before = w.switch(self.head)
        now = w.define(f"load i64, ptr {w.define(f'getelementptr i8, ptr %s, i64 {layout.time}')}")
        if self.unit.can_stall:
            pointer = w.define(f"getelementptr i8, ptr %s, i64 {layout.stalls}")
            now = w.define(f"add i64 {now}, {w.define(f'load i64, ptr {pointer}')}")
        last = w.define(f"add i64 {now}, {self.length - 1 + self.most_stalls}")
        over = w.define(f"icmp uge i64 {last}, %limit")
        good = w.fresh("within")
        w.line(f"br i1 {over}, label %{self.label}.slow, label %{good}, !prof !0")
        w.label(good)
        self.checks = w.place()
        w.switch(before)
