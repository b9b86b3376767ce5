"""Operations that are done once: common subexpressions, code that loops repeat, dead code."""

from __future__ import annotations

from collections import Counter

from nncc.backends.tta.code import COPY, LITERAL, Branch, Item, Loop, Op, Operand, Register, walk
from nncc.backends.tta.lower import BARRIER
from nncc.backends.tta.model import Model
from nncc.backends.tta.words import Words


def optimize(items: list[Item], model: Model, words: Words) -> list[Item]:
    """The same code with less of it."""
    items = _with_literals(items, model, words)
    definitions = Counter(op.result for op in walk(items) if op.result is not None)
    _Shared(definitions).block(items, {})
    _forward_copies(items, definitions)
    while _remove_dead(items):
        pass
    room = {k: model.files[k].size for k in model.files}
    limits = {"scalar": room["scalar"] // 2, "vector": room["vector"] // 2}
    return _hoisted(items, definitions, limits)


# -- numbers -------------------------------------------------------------------------------


def _with_literals(items: list[Item], model: Model, words: Words) -> list[Item]:
    """Numbers that do not fit the slot of a bus come from registers.

    One that is near the last one (runs of addresses are) is computed from it.
    """
    found: list[Item] = []
    near: tuple[int, Register] | None = None
    for item in items:
        if isinstance(item, Op) and item.operation not in (LITERAL, BARRIER):
            inputs: list[Operand] = []
            for k, x in enumerate(item.inputs):
                if isinstance(x, int) and not model.is_short(x, item, k):
                    register, near = _number(x, near, words, found, model, item.source)
                    x = register
                inputs.append(x)
            item.inputs = tuple(inputs)
        elif isinstance(item, Loop):
            item.body = _with_literals(item.body, model, words)
        elif isinstance(item, Branch):
            item.then = _with_literals(item.then, model, words)
            item.otherwise = _with_literals(item.otherwise, model, words)
        found.append(item)
    return found


def _number(
    x: int, near: tuple[int, Register] | None, words: Words, items: list[Item], model: Model,
    source: str,
) -> tuple[Register, tuple[int, Register]]:  # fmt: skip
    """A register with the number; and the one to compute the next from."""
    words.items, words.source = items, source
    if near is not None:
        if near[0] == x:
            return near[1], near
        register = words.apply("add", near[1], x - near[0])
        last = items[-1]
        assert isinstance(last, Op) and isinstance(register, Register)
        if all(model.is_short(y, last, k) for k, y in enumerate(last.inputs) if isinstance(y, int)):
            return register, (x, register)
        items.pop()
    register = Register("scalar")
    items.append(Op(LITERAL, (x,), register, None, source))
    return register, (x, register)


# -- common subexpressions -----------------------------------------------------------------


class _Shared:
    """Replaces operations by earlier ones with the same inputs, and copies by what they copy.

    Only registers that are written once take part.
    """

    def __init__(self, definitions: Counter[Register]) -> None:
        self.definitions = definitions
        self.instead: dict[Register, Operand] = {}

    def of(self, x: Operand) -> Operand:
        return self.instead.get(x, x) if isinstance(x, Register) else x

    def fixed(self, x: Operand) -> bool:
        return isinstance(x, int) or self.definitions[x] == 1

    def block(self, items: list[Item], known: dict[object, Register]) -> None:
        known = dict(known)
        kept: list[Item] = []
        for item in items:
            if isinstance(item, Op):
                item.inputs = tuple(self.of(x) for x in item.inputs)
                if self._shared(item, known):
                    self.definitions[item.result] -= 1  # type: ignore[index]
                    continue
            elif isinstance(item, Loop):
                trips = self.of(item.trips)
                item.trips = trips
                self.block(item.body, known)
            else:
                item.condition = self.of(item.condition)
                self.block(item.then, known)
                self.block(item.otherwise, known)
            kept.append(item)
        items[:] = kept

    def _shared(self, op: Op, known: dict[object, Register]) -> bool:
        result = op.result
        if result is None or self.definitions[result] != 1:
            return False
        if op.operation == BARRIER or not all(self.fixed(x) for x in op.inputs):
            return False
        if op.memory is not None and not op.memory.literal:
            return False  # the Loops say how often tensors are loaded
        if op.operation == COPY:
            source = op.inputs[0]
            if isinstance(source, Register):
                self.instead[result] = source
                return True
            return False
        key = (op.operation, op.inputs, op.memory)
        if key in known:
            self.instead[result] = known[key]
            return True
        known[key] = result
        return False


# -- copies of what stays ------------------------------------------------------------------


def _forward_copies(items: list[Item], definitions: Counter[Register]) -> None:
    """After `t = x` with x written once, t's readers read x until t is written again.

    A copy that nobody reads then is dropped.
    """
    copied: dict[Register, Register] = {}
    pending: dict[Register, int] = {}  # copies that nobody has read: their places
    drop: set[int] = set()
    for n, item in enumerate(items):
        if isinstance(item, Op):
            inputs = tuple(copied.get(x, x) if isinstance(x, Register) else x for x in item.inputs)
            item.inputs = inputs
            for x in item.registers:
                pending.pop(x, None)
            if item.result is None:
                continue
            if item.result in pending:
                drop.add(pending.pop(item.result))
            copied.pop(item.result, None)
            if item.operation == COPY:
                source = item.inputs[0]
                if isinstance(source, Register) and definitions[source] == 1:
                    copied[item.result] = source
                    pending[item.result] = n
            continue
        pending.clear()
        if isinstance(item, Loop):
            inside = {op.result for op in walk(item.body)}
            _forward_copies(item.body, definitions)
        else:
            inside = {op.result for op in (*walk(item.then), *walk(item.otherwise))}
            _forward_copies(item.then, definitions)
            _forward_copies(item.otherwise, definitions)
        for changed in inside:
            if changed is not None:
                copied.pop(changed, None)
    for n in sorted(drop, reverse=True):
        definitions[items[n].result] -= 1  # type: ignore[union-attr, index]
        del items[n]


# -- dead code -----------------------------------------------------------------------------


def _remove_dead(items: list[Item]) -> bool:
    """Drops operations whose results nobody reads; whether there were any."""
    used: Counter[Register] = Counter()

    def count(block: list[Item]) -> None:
        for item in block:
            if isinstance(item, Op):
                # a register that only steps itself is not used by that
                used.update(x for x in item.registers if x is not item.result)
            elif isinstance(item, Loop):
                if isinstance(item.trips, Register):
                    used[item.trips] += 1
                count(item.body)
            else:
                if isinstance(item.condition, Register):
                    used[item.condition] += 1
                count(item.then)
                count(item.otherwise)

    def clean(block: list[Item]) -> bool:
        kept: list[Item] = []
        changed = False
        for item in block:
            if isinstance(item, Op):
                if item.result is not None and not used[item.result]:
                    changed = True
                    continue
            elif isinstance(item, Loop):
                changed |= clean(item.body)
                if not item.body:
                    changed = True
                    continue
            else:
                changed |= clean(item.then) | clean(item.otherwise)
                if not item.then and not item.otherwise:
                    changed = True
                    continue
            kept.append(item)
        block[:] = kept
        return changed

    count(items)
    return clean(items)


# -- loops ---------------------------------------------------------------------------------


def _hoisted(
    items: list[Item], definitions: Counter[Register], limits: dict[str, int]
) -> list[Item]:
    """What does not change in a loop stands before it, as far as there are registers for it."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, Branch):
            item.then = _hoisted(item.then, definitions, limits)
            item.otherwise = _hoisted(item.otherwise, definitions, limits)
        elif isinstance(item, Loop):
            item.body = _hoisted(item.body, definitions, limits)
            inside = {op.result for op in walk(item.body)}
            room = dict(limits)
            read = {x for op in walk(item.body) for x in op.registers}
            for x in read - inside:
                room[x.kind] -= 1
            kept: list[Item] = []
            always = isinstance(item.trips, int)
            numbers = [x for x in item.body if isinstance(x, Op) and x.operation == LITERAL]
            room["scalar"] -= len(numbers)  # these first: they take more than a move
            for inner in item.body:
                if inner in numbers and _fixed(inner, inside, definitions, always):
                    inside.discard(inner.result)
                    found.append(inner)
                    continue
                if isinstance(inner, Op) and _fixed(inner, inside, definitions, always):
                    assert inner.result is not None
                    if room[inner.result.kind] > 0:
                        room[inner.result.kind] -= 1
                        inside.discard(inner.result)
                        found.append(inner)
                        continue
                kept.append(inner)
            item.body = kept
        found.append(item)
    return found


def _fixed(
    op: Op, inside: set[Register | None], definitions: Counter[Register], always: bool
) -> bool:
    if op.result is None or definitions[op.result] != 1 or op.operation == BARRIER:
        return False
    if op.memory is not None and not (op.memory.literal and always):
        return False
    return not any(x in inside for x in op.registers)
