"""Which loops run in hardware; counters for the others."""

from __future__ import annotations

from nncc.backends.tta.code import COPY, LITERAL, Branch, Item, Loop, Op, Register, walk
from nncc.backends.tta.model import Model
from nncc.backends.tta.words import Words

LONGEST = 600  # operations in the body of a hardware loop


def with_counters(items: list[Item], model: Model, words: Words) -> list[Item]:
    """Decides for every loop, and gives those without hardware the code that counts."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, Branch):
            item.then = with_counters(item.then, model, words)
            item.otherwise = with_counters(item.otherwise, model, words)
        elif isinstance(item, Loop):
            item.body = with_counters(item.body, model, words)
            depth = model.a.control.loop_depth if model.loop else 0
            short = sum(1 for _ in walk(item.body)) <= LONGEST
            item.in_hardware = short and _height(item) <= depth
            if not item.in_hardware:
                first = Op(COPY, (item.trips,), item.counter, None, item.source)
                if isinstance(item.trips, int) and not model.is_short(item.trips, first, 0):
                    first.inputs = (_literal(item.trips, found, item.source),)
                found.append(first)
                outer, words.items = words.items, item.body
                words.source = item.source
                left = words.apply("add", item.counter, -1)
                last = item.body[-1]
                assert isinstance(last, Op) and isinstance(left, Register)
                last.result = item.counter
                again = words.apply("gt", item.counter, 0)
                assert isinstance(again, Register)
                item.again = again
                words.items = outer
            elif isinstance(item.trips, int) and not _short_trips(item.trips, model):
                item.trips = _literal(item.trips, found, item.source)
        found.append(item)
    return found


def _literal(value: int, items: list[Item], source: str) -> Register:
    """A register with a number that is too long for the slot of a bus."""
    register = Register("scalar")
    items.append(Op(LITERAL, (value,), register, None, source))
    return register


def _short_trips(trips: int, model: Model) -> bool:
    assert model.loop is not None
    return model.fits(trips, model.into[model.loop.unit, model.loop.ports[0]])


def _height(loop: Loop) -> int:
    """How many hardware loops are nested; more than any machine has if something jumps."""
    most = 0
    for item in loop.body:
        if isinstance(item, Branch) or (isinstance(item, Loop) and not item.in_hardware):
            return 1 << 20
        if isinstance(item, Loop):
            most = max(most, _height(item))
    return most + 1
