"""A unit of translation: the blocks that follow one another from some context on, one function.

    unit = Unit(decoded, layout, leaders, LoopLengths(decoded), features)
    text = unit.text(root, attributes)

    define i32 @unit(ptr %s, i64 %limit)

runs blocks from the state's position on until one is not of this unit, and returns why it stopped:
LEFT (another unit may go on), SLOW (the plain code has to), FINISHED, or MISS: the state is none in
which a block of the unit begins; nothing happened. `@counts` has how often each of `blocks` ran.

Every block knows places that were written for sure before it: those that all blocks of the unit
that lead to it have written or checked. Entering the unit there takes them to be written, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from nncc.backends.cpu.text import Writer, symbol
from nncc.machines.machine import Operation
from nncc.runtime.tta.decoded import DecodedInstruction, Key, Trigger, registers_of
from nncc.runtime.tta.translate.block import Block
from nncc.runtime.tta.translate.coming import collect, mask_of, mask_type, spread
from nncc.runtime.tta.translate.context import Coming, Context, LoopLengths, Stop
from nncc.runtime.tta.translate.layout import LEFT, MISS, SLOW, Layout
from nncc.runtime.tta.translate.meaning import computed
from nncc.runtime.tta.translate.units import WEIGHTS, BankFunction, Function, banks_name
from nncc.runtime.tta.translate.values import Val

BUDGET = 256  # instructions after which a unit takes no further blocks


@dataclass(frozen=True)
class Made:
    """What a unit holds.

    Args:
        blocks: (position, instructions) of each, in the order of `@counts`.
        contexts: in which it can be entered; `plain`: in which only the plain code can go on.
        frontier: those that follow and are not in it.
    """

    blocks: tuple[tuple[int, int], ...]
    contexts: tuple[Context, ...]
    plain: tuple[Context, ...]
    frontier: tuple[Context, ...]


class Unit:
    """Writes a unit.

    Args:
        leaders: positions at which blocks begin, as far as the program shows them.
        known: contexts that other units have.
    """

    def __init__(
        self,
        decoded: tuple[DecodedInstruction, ...],
        layout: Layout,
        leaders: frozenset[int],
        loops: LoopLengths,
        features: frozenset[str],
        known: Iterable[Context] = (),
    ) -> None:
        self.decoded, self.layout, self.leaders, self.loops = decoded, layout, leaders, loops
        self.known = frozenset(known)
        self.declarations: set[str] = set()
        self.features = features
        self.w = Writer(self.declarations, features)
        self.registers = frozenset(registers_of(layout.architecture))
        self.can_stall = any(s.banks for s in layout.architecture.memories)
        self.helpers: dict[str, str] = {}
        self.operations: dict[str, int] = {}  # functions of operations: bits of the result
        self.labels: dict[Context, str] = {}
        self.blocks: dict[Context, Block] = {}
        self.counted: list[tuple[int, int]] = []
        self.plain: list[Context] = []
        self.given: dict[Context, frozenset[Key]] = {}
        self.mask = mask_type(layout)

    def text(self, root: Context, attributes: str) -> tuple[str, Made]:
        """The LLVM module from `root` on, and what it holds."""
        w = self.w
        entry = w.place()
        self.label(root)
        spent = 0
        while (context := self._next()) is not None and spent < BUDGET:
            spent += self._block(context)
        self._flags(root)
        frontier = tuple(c for c in self.labels if c not in self.blocks and c not in self.plain)
        for context in frontier:
            w.label(self.labels[context])
            self.leave(context, LEFT)
        for context in self.plain:
            w.label(self.labels[context])
            self.leave(context, SLOW)
        for context, block in self.blocks.items():
            w.label(f"{block.label}.slow")
            self.leave(context, SLOW)
        w.switch(entry)
        self._entry()
        made = Made(tuple(self.counted), tuple(self.blocks), tuple(self.plain), frontier)
        return self._module(attributes), made

    def _module(self, attributes: str) -> str:
        body = f"define i32 @unit(ptr %s, i64 %limit) #0 {{\nentry:\n{self.w.text()}\n}}"
        counts = f"@counts = dso_local global [{max(1, len(self.counted))} x i64] zeroinitializer"
        helpers = self.helpers.values()
        parts = [counts, *helpers, body, *sorted(self.declarations), attributes, WEIGHTS, ""]
        return "\n\n".join(parts)

    # -- blocks ----------------------------------------------------------------------------
    def label(self, context: Context) -> str:
        """The label of the block of a context."""
        return self.labels.setdefault(context, f"b{len(self.labels)}")

    def _next(self) -> Context | None:
        open_ones = (
            c
            for c in reversed(self.labels)
            if c not in self.blocks and c not in self.plain and c not in self.known
        )
        return next(open_ones, None)

    def _block(self, context: Context) -> int:
        """Writes a block; how many instructions it has."""
        stop = -1
        while stop != context.position:
            region = self.w.place()
            before = self.w.switch(region)
            block = Block(self, context, self.labels[context], stop)
            try:
                block.write()
            except Stop:
                region.clear()
                stop = block.safe
                continue
            finally:
                self.w.switch(before)
            self.blocks[context] = block
            return block.length
        self.plain.append(context)
        return 0

    def counter(self, position: int, length: int) -> str:
        """A pointer to the counter of the block that is being written."""
        self.counted.append((position, length))
        return f"getelementptr (i64, ptr @counts, i64 {len(self.counted) - 1})"

    def banks(self, accesses: tuple[Trigger, ...]) -> str:
        """The function that counts locked cycles."""
        name = banks_name(accesses)
        if name not in self.helpers:
            w = Writer(self.declarations, self.features)
            self.helpers[name] = BankFunction(accesses, self.layout, w, {}).text()
        return name

    def operation(self, o: Operation, widths: Mapping[str, int]) -> tuple[str, int]:
        """The function of an operation on values of some widths, and the width of its result."""
        name = symbol(".".join([f"do.{o.name}", *map(str, widths.values())]))
        if name not in self.operations:
            w = Writer(self.declarations, self.features)
            operands = {n: Val(f"%a{k}", bits) for k, (n, bits) in enumerate(widths.items())}
            result = computed(o, w, operands)
            given = ", ".join(f"{v.type} {v.text}" for v in operands.values())
            w.line(f"ret {result.type} {result.text}")
            self.helpers[name] = (
                f"define internal {result.type} {name}({given}) #0 {{\nentry:\n{w.text()}\n}}"
            )
            self.operations[name] = result.bits
        return name, self.operations[name]

    # -- places that were written ----------------------------------------------------------
    def _flags(self, root: Context) -> None:
        """Fills in the checks and changes of flags."""
        self.given = given = self._given(root)
        for context, block in self.blocks.items():
            before = self.w.switch(block.checks)
            if missing := block.needed - given[context]:
                block.fail_unless(self.written(missing))
            self.w.switch(block.flags)
            block.mark_written(given[context] | block.needed)
            self.w.switch(before)

    def _given(self, root: Context) -> dict[Context, frozenset[Key]]:
        """What each block finds written: the largest solution that its predecessors allow."""
        universe = frozenset(k for b in self.blocks.values() for k in b.needed | b.written)
        given = dict.fromkeys(self.blocks, universe)
        if root in given:
            given[root] = frozenset(self.blocks[root].needed)
        changed = True
        while changed:
            changed = False
            for context, block in self.blocks.items():
                after = given[context] | block.needed | block.written
                for following in block.following:
                    if following in given and not given[following] <= after:
                        given[following] &= after
                        changed = True
        return given

    # -- ways in and out -------------------------------------------------------------------
    def leave(self, context: Context, status: int) -> None:
        """Ends the function in a context."""
        self._spread(context.coming)
        self.w.line(f"store i32 {context.position}, ptr {self._at(self.layout.position)}")
        self.w.line(f"ret i32 {status}")

    def leave_to(self, position: str, coming: Coming) -> None:
        """Ends the function at a position that is not known."""
        self._spread(coming)
        self.w.line(f"store i32 {position}, ptr {self._at(self.layout.position)}")
        self.w.line(f"ret i32 {LEFT}")

    def _at(self, offset: int) -> str:
        return self.w.define(f"getelementptr i8, ptr %s, i64 {offset}")

    def _load(self, kind: str, offset: int) -> str:
        return self.w.define(f"load {kind}, ptr {self._at(offset)}")

    def _spread(self, coming: Coming) -> None:
        if coming:
            number = mask_of(self.layout, coming)
            self.w.line(f"call void {self._spreader()}(ptr %s, {self.mask} {number})")

    def _entry(self) -> None:
        w, layout = self.w, self.layout
        mask = ""
        if layout.rings:
            mask = w.define(f"call {self.mask} {self._collector()}(ptr %s)")
        idle = w.define(f"icmp eq i64 {self._load('i64', layout.jump_time)}, -2")
        time, until = (self._load("i64", x) for x in (layout.time, layout.slots_until))
        outside = w.define(f"icmp sgt i64 {time}, {until}")
        w.line(f"br i1 {w.define(f'and i1 {idle}, {outside}')}, label %look, label %miss")
        w.label("look")
        position = self._load("i32", layout.position)
        places: dict[int, list[Context]] = {}
        for context in self.blocks:
            places.setdefault(context.position, []).append(context)
        cases = " ".join(f"i32 {p}, label %at{p}" for p in places)
        w.line(f"switch i32 {position}, label %miss [ {cases} ]")
        for place, contexts in places.items():
            w.label(f"at{place}")
            for context in contexts:
                other = w.fresh("other")
                fits = self._fits(context, mask)
                w.line(f"br i1 {fits}, label %{self.labels[context]}, label %{other}")
                w.label(other)
            w.line("br label %miss")
        w.label("miss")
        if layout.rings:
            w.line(f"call void {self._spreader()}(ptr %s, {self.mask} {mask})")
        w.line(f"ret i32 {MISS}")

    def _fits(self, context: Context, mask: str) -> str:
        """Whether the state is that of a context, and what its block takes for written is so."""
        w, layout = self.w, self.layout
        conditions = []
        if mask:
            number = mask_of(layout, context.coming)
            conditions.append(w.define(f"icmp eq {self.mask} {mask}, {number}"))
        count = self._load("i32", layout.loop_count)
        conditions.append(w.define(f"icmp eq i32 {count}, {len(context.loops)}"))
        for k, (first, last, is_plain) in enumerate(context.loops):
            for part, value in ((0, first), (1, last), (3, int(is_plain))):
                found = self._load("i32", layout.loops + 16 * k + 4 * part)
                conditions.append(w.define(f"icmp eq i32 {found}, {value}"))
        if context.length >= 0:
            port = self.loops.port
            kind = f"i{8 * layout.bytes(port)}"
            found = self._load(kind, layout.value[port])
            conditions.append(w.define(f"icmp eq {kind} {found}, {context.length}"))
        if given := self.given[context]:
            conditions.append(self.written(given))
        return _all(w, conditions)

    def written(self, keys: Iterable[Key]) -> str:
        """Whether all of some places were written, as i1."""
        w = self.w
        flags = sorted(self.layout.valid[k] for k in keys)
        if len(flags) <= 3:
            found = [self._load("i8", x) for x in flags]
            return _all(w, [w.define(f"icmp ne i8 {x}, 0") for x in found])
        first, count = flags[0], flags[-1] - flags[0] + 1
        kind = f"<{count} x i8>"
        wanted = set(flags)
        mask = ", ".join(f"i8 {int(first + k in wanted)}" for k in range(count))
        found_flags = self.w.define(f"load {kind}, ptr {self._at(first)}, align 1")
        taken = w.define(f"and {kind} {found_flags}, <{mask}>")
        same = w.define(f"icmp eq {kind} {taken}, <{mask}>")
        bits = w.define(f"bitcast <{count} x i1> {same} to i{count}")
        return w.define(f"icmp eq i{count} {bits}, -1")

    def _spreader(self) -> str:
        return self._helper("@spread", spread)

    def _collector(self) -> str:
        return self._helper("@collect", collect)

    def _helper(self, name: str, make: Callable[[Function], str]) -> str:
        if name not in self.helpers:
            w = Writer(self.declarations, self.features)
            self.helpers[name] = make(Function(self.layout, w, {}))
        return name


def _all(w: Writer, conditions: list[str]) -> str:
    found = conditions[0]
    for condition in conditions[1:]:
        found = w.define(f"and i1 {found}, {condition}")
    return found


def leaders_of(decoded: tuple[DecodedInstruction, ...], slots: int) -> frozenset[int]:
    """Where blocks begin: targets of jumps, what follows jumps and loops' beginnings.

    Args:
        slots: delay slots. Targets that come from registers are not known.
    """
    found = {0}
    for i, d in enumerate(decoded):
        for m in d.moves:
            if m.trigger is None or m.trigger.operation.kind not in ("jump", "call", "loop"):
                continue
            found.add(i + 1 + slots)
            if m.trigger.operation.kind != "loop" and m.source is None:
                found.add(m.literal)
    return frozenset(found)
