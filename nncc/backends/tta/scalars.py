"""Scalar expressions of Loops as words: registers of 32 bits, pairs of them for 64-bit integers.

An integer of fewer bits is held extended to the word, so that the same number stands in it; a
bool is 0 or 1. Arithmetic in fewer bits is done in words and cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from nncc.backends.tta.addresses import Addresses, flat
from nncc.backends.tta.code import Access, Branch, Item, Op, Operand, Register
from nncc.backends.tta.memory import Memory, MemoryOperation, Place
from nncc.backends.tta.select import Found, Patterns
from nncc.backends.tta.words import word
from nncc.diagnostics import TargetError
from nncc.ir.bounds import bounds
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Value
from nncc.ir.index import Size
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import DType, boolean
from nncc.machines.machine import ADDRESS, Operation

_WORDS = {"and": "and", "or": "or", "xor": "xor", "add": "add", "sub": "sub", "mul": "mul"}
_ORDERED = ("lt", "le", "gt", "ge")


@dataclass(frozen=True, slots=True)
class Wide:
    """A 64-bit integer: two words. `is_word`: the upper one only extends the sign of the lower."""

    low: Operand
    high: Operand
    is_word: bool = False


Held = int | Register | Wide | Place


class Scalars(Addresses):
    """Scalar expressions.

    Attributes:
        places: the buffers of the function; `values`: what names stand for (a vector may stand
            for a place in memory); `variables`: registers that assignments change.
    """

    places: dict[str, Place]
    values: dict[str, Held]
    variables: set[Register]
    patterns: Patterns
    memory: Memory

    def dtype_of(self, tensor: str) -> DType:
        return self.places[tensor].dtype

    def word(self, e: Expr) -> Operand:
        """A scalar of at most 32 bits (of 64: its lower word)."""
        found = self.scalar(e)
        return found.low if isinstance(found, Wide) else found

    def wide(self, e: Expr) -> Wide:
        """A 64-bit scalar."""
        found = self.scalar(e)
        return found if isinstance(found, Wide) else Wide(found, self.apply("shr", found, 31), True)

    def scalar(self, e: Expr) -> Operand | Wide:
        """The value of a scalar expression."""
        if e.dtype.kind == "float":
            raise TargetError(
                f"machine '{self.machine.name}' computes with integers only, not with {e.dtype}",
                help="quantize the model",
            )
        if isinstance(e, Const):
            return self._number(int(e.value), e.dtype)
        if isinstance(e, Name):
            found = self.values[e.name]
            assert not isinstance(found, Place)
            return found
        if isinstance(e, Value):
            x = self.size(e.size)
            if e.dtype.bits == 64:
                return self._extended(x)
            return self.held(x, e.dtype)
        if isinstance(e, Load):
            return self.load(e)
        assert isinstance(e, Apply), "reductions are statements by now"
        return self.function(e)

    def _number(self, value: int, dtype: DType) -> Operand | Wide:
        if dtype.bits == 64:
            is_word = -(1 << 31) <= value < 1 << 31
            return Wide(word(value), word(value >> 32), is_word and dtype.kind == "int")
        return word(value)

    def _extended(self, x: Operand) -> Wide:
        return Wide(x, self.apply("shr", x, 31), True)

    # -- functions -------------------------------------------------------------------------
    def is_operation(self, fn: str) -> bool:
        """Whether Loops name an operation of the machine; the names of functions come first."""
        return fn in self.machine.operations and fn not in FUNCTIONS

    def function(self, e: Apply) -> Operand | Wide:
        """A function of scalars (of a vector, for those that fold its lanes)."""
        if e.fn.startswith("reduce_"):
            return self.folded(e)
        if e.fn == "broadcast":
            return self.scalar(e.args[0])
        if self.is_operation(e.fn):
            record = self.machine.operations[e.fn]
            inputs = tuple(self.operand(a) for a in e.args)
            return self.emit(record.name, inputs)
        if e.dtype.bits <= 32 and e.dtype is not boolean:
            for found in self.patterns.matches(e, self.base):
                return self.found(found)
        if e.fn == "cast":
            return self._cast(e)
        if e.fn == "select":
            return self._select(e)
        if any(a.dtype.bits == 64 for a in e.args):
            return self._wide_function(e)
        args = [self.word(a) for a in e.args]
        return self._word_function(e.fn, e.args[0].dtype, args)

    def operand(self, e: Expr) -> Operand:
        """What stands at a port for an expression."""
        return self.word(e)

    def folded(self, e: Apply) -> Operand | Wide:
        raise NotImplementedError

    def found(self, m: Found) -> Operand:
        """The operation of a match, its operands computed."""
        inputs: list[Operand] = []
        for o in m.operation.operands:
            if o.is_result:
                continue
            if (o.name, -1) in m.bound:
                inputs.append(self.operand(m.bound[o.name, -1]))
                continue
            numbers = [m.bound.get((o.name, k)) for k in range(o.lanes)]
            content = b"".join(
                (int(n.value) if isinstance(n, Const) else 0).to_bytes(
                    o.dtype.bits // 8, "little", signed=o.dtype.kind == "int"
                )
                for n in numbers
            )
            inputs.append(self.packed(content))
        result = next(o for o in m.operation.operands if o.is_result)
        kind = "vector" if result.bits > 32 else "scalar"
        return self.emit(m.operation.name, tuple(inputs), kind)

    def packed(self, content: bytes) -> Operand:
        """Bytes as a number."""
        assert len(content) <= 4
        return word(int.from_bytes(content, "little"))

    def _cast(self, e: Apply) -> Operand | Wide:
        x, to = e.args[0], e.dtype
        if to is boolean:
            if x.dtype.bits == 64:
                w = self.wide(x)
                return self.apply("ne", self.apply("or", w.low, w.high), 0)
            return self.word(x) if x.dtype is boolean else self.apply("ne", self.word(x), 0)
        if to.bits == 64:
            if x.dtype.bits == 64:
                found = self.wide(x)
                return Wide(found.low, found.high, found.is_word and to.kind == "int")
            low = self.word(x)
            if x.dtype.kind == "uint" and x.dtype.bits == 32:
                return Wide(low, 0)
            return self._extended(low)
        low = self.word(x)
        if x.dtype is boolean:
            return low
        if x.dtype.bits < to.bits or (x.dtype.bits == to.bits == 32):
            lossless = x.dtype.kind == "uint" or to.kind == "int" or to.bits == 32
            return low if lossless else self.held(low, to)
        return low if x.dtype is to else self.held(low, to)

    def _select(self, e: Apply) -> Operand | Wide:
        condition = self.word(e.args[0])
        if e.dtype.bits == 64:
            return self._choose(condition, self.wide(e.args[1]), self.wide(e.args[2]))
        return self.select(condition, self.word(e.args[1]), self.word(e.args[2]))

    def _word_function(self, fn: str, dtype: DType, args: list[Operand]) -> Operand:
        unsigned = dtype.kind == "uint" and dtype.bits == 32
        if fn in _ORDERED or fn in ("min", "max"):
            return self.apply(fn + "u" if unsigned else fn, *args)
        if fn in ("eq", "ne"):
            return self.apply(fn, *args)
        if fn in ("and", "or", "xor"):
            return self.apply(fn, *args)
        if fn == "not":
            return self.held(self.apply("xor", args[0], 1 if dtype is boolean else -1), dtype)
        if dtype is boolean:
            if fn in ("add", "mul"):
                return self.apply("or" if fn == "add" else "and", *args)
            return args[0]  # abs
        if fn == "abs" and dtype.kind == "uint":
            return args[0]
        if fn in ("add", "sub", "mul", "shl", "neg", "abs"):
            return self.held(self.apply(fn, *args), dtype)
        if fn == "shr":
            return self.apply("shru" if unsigned else "shr", *args)
        if fn in ("floordiv", "mod", "div") and isinstance(args[1], int) and args[1] > 0:
            return self._divided(fn, dtype, args[0], args[1])
        raise self._lacks(fn, dtype)

    def _divided(self, fn: str, dtype: DType, x: Operand, d: int) -> Operand:
        if dtype.kind == "uint" and dtype.bits == 32:
            if d & (d - 1):
                raise self._lacks(fn, dtype)
            if fn == "mod":
                return self.apply("and", x, d - 1)
            return self.apply("shru", x, d.bit_length() - 1)
        if fn == "div":  # towards zero
            sign = self.apply("shr", x, 31)
            size = self.apply("sub", self.apply("xor", x, sign), sign)
            # of -2^31 the size is 2^31, which is no word: one less is divided, and looked at
            least = self.apply("and", self.apply("shru", size, 31), 1)
            found = self.quotient(self.apply("sub", size, least), d, negative=False)
            if (1 << 31) % d == 0:
                found = self.apply("add", found, least)
            return self.apply("sub", self.apply("xor", found, sign), sign)
        found = self.quotient(x, d, negative=dtype.kind == "int")
        if fn == "floordiv":
            return found
        return self.apply("sub", x, self.apply("mul", found, d))

    def _lacks(self, fn: str, dtype: DType) -> TargetError:
        return TargetError(f"machine '{self.machine.name}' cannot compute {fn} of {dtype}")

    # -- 64 bits ---------------------------------------------------------------------------
    def _wide_function(self, e: Apply) -> Operand | Wide:
        fn, dtype = e.fn, e.args[0].dtype
        unsigned = dtype.kind == "uint"
        a = self.wide(e.args[0])
        if fn == "neg":
            return self._difference(Wide(0, 0, True), a)
        if fn == "not":
            return Wide(self.apply("xor", a.low, -1), self.apply("xor", a.high, -1), a.is_word)
        if fn == "abs":
            if unsigned:
                return a
            negative = self.apply("shru", a.high, 31)
            return self._choose(negative, self._difference(Wide(0, 0, True), a), a)
        b = self.wide(e.args[1])
        do = self.apply
        if fn == "add":
            low = do("add", a.low, b.low)
            return Wide(low, do("add", do("add", a.high, b.high), do("gtu", a.low, low)))
        if fn == "sub":
            return self._difference(a, b)
        if fn == "mul":
            low = do("mul", a.low, b.low)
            if a.is_word and b.is_word:
                return Wide(low, do("mulhi", a.low, b.low))
            cross = do("add", do("mul", a.low, b.high), do("mul", a.high, b.low))
            return Wide(low, do("add", do("mulhiu", a.low, b.low), cross))
        if fn in ("and", "or", "xor"):
            return Wide(do(fn, a.low, b.low), do(fn, a.high, b.high), a.is_word and b.is_word)
        if fn == "shl":
            return self._left(a, b.low)
        if fn == "shr":
            return self._right(a, b.low, unsigned)
        if fn in ("eq", "ne"):
            different = do("or", do("xor", a.low, b.low), do("xor", a.high, b.high))
            return do(fn, different, 0)
        if fn in ("lt", "ge"):
            return do("xor", self._less(a, b, unsigned), 1 if fn == "ge" else 0)
        if fn in ("gt", "le"):
            return do("xor", self._less(b, a, unsigned), 1 if fn == "le" else 0)
        if fn == "min":
            return self._choose(self._less(a, b, unsigned), a, b)
        if fn == "max":
            return self._choose(self._less(a, b, unsigned), b, a)
        raise self._lacks(fn, dtype)

    def _difference(self, a: Wide, b: Wide) -> Wide:
        high = self.apply("sub", a.high, b.high)
        borrow = self.apply("gtu", b.low, a.low)
        return Wide(self.apply("sub", a.low, b.low), self.apply("sub", high, borrow))

    def _less(self, a: Wide, b: Wide, unsigned: bool) -> Operand:
        if a.is_word and b.is_word:
            return self.apply("lt", a.low, b.low)
        high = self.apply("ltu" if unsigned else "lt", a.high, b.high)
        low = self.apply("and", self.apply("eq", a.high, b.high), self.apply("ltu", a.low, b.low))
        return self.apply("or", high, low)

    def _choose(self, condition: Operand, a: Wide, b: Wide) -> Wide:
        low = self.select(condition, a.low, b.low)
        return Wide(low, self.select(condition, a.high, b.high), a.is_word and b.is_word)

    def _left(self, a: Wide, n: Operand) -> Wide:
        do = self.apply
        if isinstance(n, int):
            if n == 0:
                return a
            if n >= 32:
                return Wide(0, do("shl", a.low, n - 32))
            return Wide(
                do("shl", a.low, n), do("or", do("shl", a.high, n), do("shru", a.low, 32 - n))
            )
        many = do("gt", n, 31)
        low = do("shl", a.low, n)
        carried = do("shru", do("shru", a.low, 1), do("xor", n, 31))
        high = do("or", do("shl", a.high, n), carried)
        return Wide(self.select(many, 0, low), self.select(many, low, high))

    def _right(self, a: Wide, n: Operand, unsigned: bool) -> Wide:
        do = self.apply
        shift = "shru" if unsigned else "shr"
        sign = 0 if unsigned else do("shr", a.high, 31)
        if isinstance(n, int):
            if n == 0:
                return a
            if n >= 32:
                return Wide(do(shift, a.high, n - 32), sign, not unsigned)
            low = do("or", do("shru", a.low, n), do("shl", a.high, 32 - n))
            return Wide(low, do(shift, a.high, n))
        many = do("gt", n, 31)
        high = do(shift, a.high, n)
        carried = do("shl", do("shl", a.high, 1), do("xor", n, 31))
        low = do("or", do("shru", a.low, n), carried)
        return Wide(self.select(many, high, low), self.select(many, sign, high))

    # -- memory ----------------------------------------------------------------------------
    def load(self, e: Load) -> Operand | Wide:
        """A scalar load, with the value that stands for what is outside of the buffer."""
        if e.other is None:
            return self._plain_load(e)
        inside = self._inside(e)
        if inside == 1:
            return self._plain_load(e)
        other = self.scalar(e.other)
        if inside == 0:
            return other
        results = [Register("scalar") for _ in range(2 if isinstance(other, Wide) else 1)]
        outer: list[Item] = self.items
        then: list[Item] = []
        self._set(results, other)
        self.items = then
        self._set(results, self._plain_load(e))
        self.items = outer
        self.items.append(Branch(inside, then, [], self.source))
        return Wide(results[0], results[1]) if isinstance(other, Wide) else results[0]

    def _set(self, registers: list[Register], value: Operand | Wide) -> None:
        parts = [value.low, value.high] if isinstance(value, Wide) else [value]
        for register, part in zip(registers, parts, strict=True):
            self.copy(part, register)

    def _inside(self, e: Load) -> Operand:
        """Whether every index is within its extent: 1, 0, or a word."""
        found: Operand = 1
        for index, extent in zip(e.indices, self.places[e.tensor].shape, strict=True):
            index = self.resolved(index)
            low, high = bounds(index, self.ranges)
            x = None
            if not (isinstance(low, int) and low >= 0):
                x = self.size(index)
                found = self.apply("and", found, self.apply("ge", x, 0))
            if not (isinstance(high, int) and high < extent):
                x = self.size(index) if x is None else x
                found = self.apply("and", found, self.apply("lt", x, extent))
        return found

    def _plain_load(self, e: Load) -> Operand | Wide:
        place = self.places[e.tensor]
        where = flat(e.indices, place.shape)
        if e.dtype.bits == 64:
            low = self.load_word(place, where * 8, 32, e.dtype)
            return Wide(low, self.load_word(place, where * 8 + 4, 32, e.dtype))
        bits = max(8, e.dtype.bits)
        return self.load_word(place, where * (bits // 8), bits, e.dtype)

    def load_word(self, place: Place, offset: Size, bits: int, dtype: DType) -> Operand:
        """A word from a number of bits in memory, extended as `dtype` says."""
        signed = dtype.kind == "int"
        usable = [
            o for o in self.memory.loads(place.region)
            if o.bits == bits and _is_scalar(o.operation)
        ]  # fmt: skip
        usable.sort(key=lambda o: bits < 32 and _is_signed(o.operation) != signed)
        if not usable:
            raise TargetError(
                f"machine '{self.machine.name}' has no operation that loads {bits} bits"
            )
        wanted = usable[0]
        found = self.access(wanted, place, offset)
        if bits < 32 and _is_signed(wanted.operation) != signed and dtype is not boolean:
            return self.held(found, dtype)
        return found

    def access(self, o: MemoryOperation, place: Place, offset: Size) -> Register:
        """A load at a byte of a place."""
        address = self.address_of(place, offset, o.space)
        kind = "vector" if o.operation.operands[-1].bits > 32 else "scalar"
        return self.emit(o.operation.name, (address,), kind, self.touched(place, o.space))

    def touched(self, place: Place, space: str) -> Access:
        region = place.region
        return Access(space, region.name, constant=region.content is not None)

    def address_of(self, place: Place, offset: Size, space: str) -> Operand:
        start = self.memory.address(place.region, space) + place.start
        return self.size(self.resolved(offset) + start)

    def store_word(self, place: Place, offset: Size, bits: int, value: Operand) -> None:
        for o in self.memory.stores():
            if o.bits == bits and _is_scalar(o.operation):
                self.put(o, place, offset, value)
                return
        raise TargetError(f"machine '{self.machine.name}' has no operation that stores {bits} bits")

    def put(self, o: MemoryOperation, place: Place, offset: Size, value: Operand) -> None:
        address = self.address_of(place, offset, o.space)
        inputs = tuple(
            address if x.name == ADDRESS else value for x in o.operation.operands if not x.is_result
        )
        access = self.touched(place, o.space)
        self.items.append(Op(o.operation.name, inputs, None, access, self.source))

    def store_scalar(self, place: Place, where: Size, value: Expr) -> None:
        """place[where] = value"""
        if value.dtype.bits == 64:
            found = self.wide(value)
            self.store_word(place, where * 8, 32, found.low)
            self.store_word(place, where * 8 + 4, 32, found.high)
            return
        bits = max(8, value.dtype.bits)
        self.store_word(place, where * (bits // 8), bits, self.word(value))


def _is_scalar(o: Operation) -> bool:
    assert o.memory is not None
    return o.memory.lanes == 1 and all(x.lanes == 1 for x in o.operands)


def _is_signed(o: Operation) -> bool:
    assert o.memory is not None
    return o.memory.dtype.kind == "int"
