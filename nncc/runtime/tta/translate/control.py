"""Functions over the state that the translated instructions call: results that arrive, the ends of
loops, and the operations of the control unit.
"""

from __future__ import annotations

from nncc.runtime.tta.decoded import Key, Trigger, mask, spelled
from nncc.runtime.tta.translate.layout import Layout
from nncc.runtime.tta.translate.units import Function, start_name


def kept_type(layout: Layout, key: Key) -> str:
    """LLVM's type of a value where it is kept."""
    size = layout.bytes(key)
    return "i64" if size == 8 else f"<{size} x i8>"


def arrive(f: Function) -> str:
    """`@arrive(ptr %s)`: results that are due go to their ports."""
    w, layout = f.w, f.layout
    time = f.load("i64", layout.time)
    for key, ring in layout.rings.items():
        place = w.define(f"and i64 {time}, {ring.length - 1}")
        flag = w.define(f"getelementptr i8, ptr {f.at(ring.flags)}, i64 {place}")
        due = w.define(f"icmp ne i8 {w.define(f'load i8, ptr {flag}')}, 0")
        with f.when(due):
            offset = w.define(f"mul i64 {place}, {ring.stride}")
            base = f.at(ring.values)
            pointer = w.define(f"getelementptr i8, ptr {base}, i64 {offset}")
            kind = kept_type(layout, key)
            value = w.define(f"load {kind}, ptr {pointer}, align 8")
            w.line(f"store {kind} {value}, ptr {f.at(layout.value[key])}, align 8")
            f.store("i8", "1", layout.valid[key])
            w.line(f"store i8 0, ptr {flag}")
    w.line("ret void")
    return f"define internal void @arrive(ptr %s) #0 {{\nentry:\n{w.text()}\n}}"


def loop_end(f: Function) -> str:
    """`@loop_end(ptr %s, i32 %i)`: what follows instruction %i, the last one of a loop."""
    w, layout = f.w, f.layout
    w.line("br label %inner")
    w.label("inner")
    count = f.load("i32", layout.loop_count)
    none = w.define(f"icmp eq i32 {count}, 0")
    w.line(f"br i1 {none}, label %out, label %look")
    w.label("out")
    f.store("i32", "-1", layout.loop_end)
    w.line(f"ret i32 {w.define('add i32 %i, 1')}")
    w.label("look")
    loop = _loop(f, w.define(f"sub i32 {count}, 1"))
    first, last, left, plain = (
        w.define(f"load i32, ptr {w.define(f'getelementptr i32, ptr {loop}, i64 {k}')}")
        for k in range(4)
    )
    here = w.define(f"icmp eq i32 {last}, %i")
    w.line(f"br i1 {here}, label %ends, label %outer")
    w.label("outer")  # the loop around it goes on
    f.store("i32", last, layout.loop_end)
    w.line(f"ret i32 {w.define('add i32 %i, 1')}")
    w.label("ends")
    again = w.define(f"icmp ugt i32 {left}, 1")
    w.line(f"br i1 {again}, label %repeat, label %pop")
    w.label("pop")
    f.store("i32", w.define(f"sub i32 {count}, 1"), layout.loop_count)
    w.line("br label %inner")
    w.label("repeat")
    place = w.define(f"getelementptr i32, ptr {loop}, i64 2")
    w.line(f"store i32 {w.define(f'sub i32 {left}, 1')}, ptr {place}")
    length = w.define(f"sub i32 {w.define(f'add i32 {last}, 1')}, {first}")
    buffer = layout.architecture.control.loop_buffer
    fits = w.define(f"icmp ule i32 {length}, {buffer}")
    is_plain = w.define(f"icmp ne i32 {plain}, 0")
    kept = w.define(f"and i1 {fits}, {is_plain}")
    wide = w.define(f"zext i32 {length} to i64")
    f.add(layout.buffered, w.define(f"select i1 {kept}, i64 {wide}, i64 0"))
    f.store("i32", last, layout.loop_end)
    w.line(f"ret i32 {first}")
    return f"define internal i32 @loop_end(ptr %s, i32 %i) #0 {{\nentry:\n{w.text()}\n}}"


def _loop(f: Function, number: str) -> str:
    """A pointer to an active loop."""
    offset = f.w.define(f"mul i32 {number}, 16")
    return f.w.define(f"getelementptr i8, ptr {f.at(f.layout.loops)}, i32 {offset}")


class ControlFunction(Function):
    """The function of an operation of the control unit."""

    def text(self, t: Trigger, instructions: int) -> str:
        """`@start.cu.jump(ptr %s, i32 %i, i1 %taken)` and the like.

        Args:
            instructions: of the program. `%i` is the one that runs, `%taken` says whether a move
                writes the return port.
        """
        for key in t.inputs:
            self.check_valid(key)
        operands = [self.load("i32", self.layout.value[key]) for key in t.inputs]
        kind = t.operation.kind
        if kind == "halt":
            self.store("i32", "1", self.layout.finished)
        else:
            self._delayed(kind, operands, instructions)
        self.w.line("ret i32 0")
        name = start_name(t)
        header = f"define internal i32 {name}(ptr %s, i32 %i, i1 %taken) #0 {{"
        return "\n".join([header, "entry:", self.w.text(), "}"])

    def _delayed(self, kind: str, operands: list[str], instructions: int) -> None:
        layout, w = self.layout, self.w
        control = layout.architecture.control
        time = self.load("i64", layout.time)
        until = self.load("i64", layout.slots_until)
        inside = w.define(f"icmp sle i64 {time}, {until}")
        self.fail_if(inside, f"a {kind} in the delay slots of another")
        end = w.define(f"add i64 {time}, {control.delay_slots}")
        self.store("i64", end, layout.slots_until)
        after = w.define(f"add i32 %i, {1 + control.delay_slots}")
        count = self.load("i32", layout.loop_count)
        if kind == "loop":
            self._start_loop(operands, after, count, instructions)
            return
        looping = w.define(f"icmp ne i32 {count}, 0")
        self.fail_if(looping, f"a {kind} inside of a loop")
        outside = w.define(f"icmp uge i32 {operands[0]}, {instructions}")
        wide = w.define(f"zext i32 {operands[0]} to i64")
        self.fail_if(outside, f"a {kind} to {{}}, outside of the program", wide)
        self.store("i64", end, layout.jump_time)
        self.store("i32", operands[0], layout.jump_target)
        if kind == "call":
            port = (control.name, control.return_port)
            self.fail_if("%taken", f"{spelled(port)} is written twice")
            wide_after = w.define(f"zext i32 {after} to i64")
            kept = w.define(f"and i64 {wide_after}, {mask(min(64, layout.width[port]))}")
            self.store(kept_type(layout, port), "zeroinitializer", layout.value[port])
            self.store("i64", kept, layout.value[port])
            self.store("i8", "1", layout.valid[port])

    def _start_loop(self, operands: list[str], first: str, count: str, instructions: int) -> None:
        layout, w = self.layout, self.w
        depth = layout.architecture.control.loop_depth
        iterations, length = operands
        empty = w.define(
            f"or i1 {w.define(f'icmp eq i32 {iterations}, 0')}, "
            f"{w.define(f'icmp eq i32 {length}, 0')}"
        )
        self.fail_if(empty, "a loop without iterations or instructions")
        wide_first = w.define(f"zext i32 {first} to i64")
        wide_length = w.define(f"zext i32 {length} to i64")
        end = w.define(f"add i64 {wide_first}, {wide_length}")
        wide_last = w.define(f"sub i64 {end}, 1")
        outside = w.define(f"icmp uge i64 {wide_last}, {instructions}")
        self.fail_if(outside, "a loop to {}, outside of the program", wide_last)
        last = w.define(f"trunc i64 {wide_last} to i32")
        deep = w.define(f"icmp uge i32 {count}, {depth}")
        self.fail_if(deep, f"more than {depth} loops are nested")
        for k in range(depth - 1):  # loops around the new one
            exists = w.define(f"icmp ugt i32 {count}, {k}")
            place = layout.loops + 16 * k
            innermost = w.define(f"icmp eq i32 {count}, {k + 1}")
            beyond = w.define(f"icmp ugt i32 {last}, {self.load('i32', place + 4)}")
            self.fail_if(
                w.define(f"and i1 {innermost}, {beyond}"),
                "a loop reaches beyond the loop around it",
            )
            plain = self.load("i32", place + 12)
            self.store("i32", w.define(f"select i1 {exists}, i32 0, i32 {plain}"), place + 12)
        loop = _loop(self, count)
        for k, value in enumerate((first, last, iterations, "1")):
            pointer = w.define(f"getelementptr i32, ptr {loop}, i64 {k}")
            w.line(f"store i32 {value}, ptr {pointer}")
        self.store("i32", w.define(f"add i32 {count}, 1"), layout.loop_count)
        self.store("i32", last, layout.loop_end)
