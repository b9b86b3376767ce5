"""Values and state of a block: what it reads, checks, writes back, and takes back.

The base of `nncc.runtime.tta.translate.block.Block`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.backends.cpu.text import Region
from nncc.runtime.tta.decoded import Key
from nncc.runtime.tta.translate.context import Context
from nncc.runtime.tta.translate.values import Val, resized, type_of

if TYPE_CHECKING:
    from nncc.runtime.tta.translate.unit import Unit


class BlockValues:
    """A block that is being written, with the values of registers and ports up to there.

    Attributes:
        length: instructions; `needed`: places that must have been written before it, `written`:
            those that it writes in any case, `maybe`: those that it may write, with the condition.
    """

    def __init__(self, unit: Unit, context: Context, label: str) -> None:
        self.unit, self.layout, self.w = unit, unit.layout, unit.w
        self.context, self.label = context, label
        self.length = 0
        self.values: dict[Key, Val] = {}
        self.needed: set[Key] = set()
        self.written: set[Key] = set()
        self.maybe: dict[Key, str] = {}
        self.undo: list[tuple[Region, list[str]]] = []  # of each store: region before, taking back
        self.undone = 0  # how many of the stores may have to be taken back
        self.pointers: dict[int, str] = {}

    # -- values ----------------------------------------------------------------------------
    def at(self, offset: int) -> str:
        """A pointer into the state."""
        if offset not in self.pointers:
            self.pointers[offset] = self.w.define(f"getelementptr i8, ptr %s, i64 {offset}")
        return self.pointers[offset]

    def _load(self, key: Key, offset: int) -> Val:
        bits = self.layout.width[key]
        kept = _kept_bits(bits)
        found = self.w.define(f"load {type_of(kept)}, ptr {self.at(offset)}")
        return resized(self.w, Val(found, kept), bits)

    def _peek(self, key: Key) -> Val:
        """What a place holds, whether or not it was ever written."""
        if key not in self.values:
            self.values[key] = self._load(key, self.layout.value[key])
        return self.values[key]

    def value(self, key: Key) -> Val:
        """What a place holds; it must have been written."""
        if key not in self.written:
            self.needed.add(key)
        return self._peek(key)

    def _set(self, key: Key, value: Val, condition: str) -> None:
        value = resized(self.w, value, self.layout.width[key])
        if not condition:
            self.values[key] = value
            self.written.add(key)
            self.maybe.pop(key, None)
            return
        kind, old = value.type, self._peek(key).text
        chosen = f"select i1 {condition}, {kind} {value.text}, {kind} {old}"
        self.values[key] = Val(self.w.define(chosen), value.bits)
        if key not in self.written:
            before = self.maybe.get(key)
            self.maybe[key] = self.w.define(f"or i1 {before}, {condition}") if before else condition

    # -- checks ----------------------------------------------------------------------------
    def _fail_if(self, condition: str) -> None:
        """Leaves for the plain code where `condition` (i1) holds."""
        good = self.w.fresh("good")
        self.w.line(f"br i1 {condition}, label %{self._escape()}, label %{good}, !prof !0")
        self.w.label(good)

    def _escape(self) -> str:
        self.undone = len(self.undo)
        return f"{self.label}.undo{self.undone}" if self.undo else f"{self.label}.slow"

    def _take_back(self) -> None:
        """What the block has stored is what it was, in the reverse order."""
        for k in range(self.undone, 0, -1):
            before, lines = self.undo[k - 1]
            keep, restore = lines[:2], lines[2:]
            before.extend(keep)
            self.w.label(f"{self.label}.undo{k}")
            for line in restore:
                self.w.line(line)
            following = f"{self.label}.undo{k - 1}" if k > 1 else f"{self.label}.slow"
            self.w.line(f"br label %{following}")

    # -- the state -------------------------------------------------------------------------
    def _store_state(self, kind: str, value: str, offset: int) -> None:
        self.w.line(f"store {kind} {value}, ptr {self.at(offset)}")

    def _write_back(self) -> None:
        for key in self.values:
            if key in self.written or key in self.maybe:
                self._keep(self.values[key], self.layout.value[key])

    def _keep(self, value: Val, offset: int) -> None:
        kept = resized(self.w, value, _kept_bits(value.bits))
        self._store_state(kept.type, kept.text, offset)

    def _add(self, offset: int, count: str) -> None:
        self._increase(self.at(offset), count)

    def _increase(self, pointer: str, count: str) -> None:
        old = self.w.define(f"load i64, ptr {pointer}")
        self.w.line(f"store i64 {self.w.define(f'add i64 {old}, {count}')}, ptr {pointer}")

    # -- what the unit fills in ------------------------------------------------------------
    def fail_unless(self, condition: str) -> None:
        """Leaves for the plain code, before anything happens, unless `condition` holds."""
        good = self.w.fresh("good")
        self.w.line(f"br i1 {condition}, label %{good}, label %{self.label}.slow, !prof !1")
        self.w.label(good)

    def mark_written(self, known: frozenset[Key]) -> None:
        """Sets the flags of what the block has written, but for those `known` to be set."""
        for key in self.values:
            if key in known:
                continue
            offset = self.layout.valid[key]
            if key in self.written:
                self._store_flag("1", offset)
            elif key in self.maybe:
                pointer = self.w.define(f"getelementptr i8, ptr %s, i64 {offset}")
                old = self.w.define(f"load i8, ptr {pointer}")
                set_now = self.w.define(f"zext i1 {self.maybe[key]} to i8")
                self._store_flag(self.w.define(f"or i8 {old}, {set_now}"), offset)

    def _store_flag(self, value: str, offset: int) -> None:
        pointer = self.w.define(f"getelementptr i8, ptr %s, i64 {offset}")
        self.w.line(f"store i8 {value}, ptr {pointer}")


def _kept_bits(bits: int) -> int:
    """In how many bits of the state a value is loaded and stored."""
    return bits if bits > 64 else next(n for n in (8, 16, 32, 64) if n >= bits)
