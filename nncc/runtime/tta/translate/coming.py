"""Functions that move results on their way between rings, where the plain code has them by the
cycle in which they arrive, and slots, where blocks have them by how many cycles that is from now.

    slots(layout)                      (port, cycles from now) in the order of the mask's bits
    collect(f), spread(f)              @collect(ptr %s) gives the mask; @spread(ptr %s, mask)
"""

from __future__ import annotations

from nncc.runtime.tta.decoded import Key
from nncc.runtime.tta.translate.control import kept_type
from nncc.runtime.tta.translate.layout import Layout
from nncc.runtime.tta.translate.units import Function


def slots(layout: Layout) -> tuple[tuple[Key, int], ...]:
    """All places where a result may wait between blocks."""
    return tuple((key, k) for key, ring in layout.rings.items() for k in range(1, ring.latency))


def mask_type(layout: Layout) -> str:
    """LLVM's type of a set of slots."""
    return f"i{max(1, len(slots(layout)))}"


def mask_of(layout: Layout, coming: tuple[tuple[Key, int], ...]) -> int:
    """A set of slots as a number."""
    order = slots(layout)
    return sum(1 << order.index(place) for place in coming)


def collect(f: Function) -> str:
    """`@collect(ptr %s)`: results go from rings to slots; the set of those that there are."""
    w, layout, kind = f.w, f.layout, mask_type(f.layout)
    found = w.define(f"alloca {kind}")
    w.line(f"store {kind} 0, ptr {found}")
    count = sum(ring.length for ring in layout.rings.values())
    flags = f.load(f"<{count} x i8>", layout.ring_flags)
    some = w.define(f"icmp ne <{count} x i8> {flags}, zeroinitializer")
    bits = w.define(f"bitcast <{count} x i1> {some} to i{count}")
    w.line(f"br i1 {w.define(f'icmp eq i{count} {bits}, 0')}, label %end, label %look")
    w.label("look")
    for bit, (key, k) in enumerate(slots(layout)):
        flag, value = _place(f, key, k)
        full = w.define(f"icmp ne i8 {w.define(f'load i8, ptr {flag}')}, 0")
        with f.when(full):
            _copy(f, key, value, f.at(layout.rings[key].slot(k)))
            w.line(f"store i8 0, ptr {flag}")
            old = w.define(f"load {kind}, ptr {found}")
            w.line(f"store {kind} {w.define(f'or {kind} {old}, {1 << bit}')}, ptr {found}")
    w.line("br label %end")
    w.label("end")
    w.line(f"ret {kind} {w.define(f'load {kind}, ptr {found}')}")
    return f"define internal {kind} @collect(ptr %s) #0 {{\nentry:\n{w.text()}\n}}"


def spread(f: Function) -> str:
    """`@spread(ptr %s, mask)`: results go from slots to rings."""
    w, layout, kind = f.w, f.layout, mask_type(f.layout)
    w.line(f"br i1 {w.define(f'icmp eq {kind} %mask, 0')}, label %end, label %look")
    w.label("look")
    for bit, (key, k) in enumerate(slots(layout)):
        chosen = w.define(f"and {kind} %mask, {1 << bit}")
        with f.when(w.define(f"icmp ne {kind} {chosen}, 0")):
            flag, value = _place(f, key, k)
            _copy(f, key, f.at(layout.rings[key].slot(k)), value)
            w.line(f"store i8 1, ptr {flag}")
    w.line("br label %end")
    w.label("end")
    w.line("ret void")
    return f"define internal void @spread(ptr %s, {kind} %mask) #0 {{\nentry:\n{w.text()}\n}}"


def _place(f: Function, key: Key, k: int) -> tuple[str, str]:
    """Pointers to the flag and the value of the ring's place for `k` cycles from now."""
    ring = f.layout.rings[key]
    due = f.w.define(f"add i64 {f.load('i64', f.layout.time)}, {k}")
    place = f.w.define(f"and i64 {due}, {ring.length - 1}")
    flag = f.w.define(f"getelementptr i8, ptr {f.at(ring.flags)}, i64 {place}")
    offset = f.w.define(f"mul i64 {place}, {ring.stride}")
    return flag, f.w.define(f"getelementptr i8, ptr {f.at(ring.values)}, i64 {offset}")


def _copy(f: Function, key: Key, source: str, target: str) -> None:
    kind = kept_type(f.layout, key)
    value = f.w.define(f"load {kind}, ptr {source}, align 8")
    f.w.line(f"store {kind} {value}, ptr {target}, align 8")
