"""Index notation in Python: how the ops say what they compute, as a `Nest`.

A matrix product reads

    nest = Notation(site)
    a, b, y = nest.tensors("a", "b", "y")
    n, m, k = nest.dims("n m k")
    nest.reduce("sum", y[n, m], a[n, k] * b[k, m], over={k: a.shape[1]})
    return nest.build()

and gives

    y_init: for n in 0..N, m in 0..M { y[n,m] = 0.0 }
    y:      for n in 0..N, m in 0..M, k in 0..K { y[n,m] sum= a[n,k] * b[k,m] }

`tensor[indices]` and the functions below give `Scalar`s: expressions with Python's operators,
in which numbers take the dtype of the other operand. Indices are `Size` expressions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nncc.ir.expr import Apply, Const, Expr, Load, Value, apply, loads
from nncc.ir.expr import cast as cast_expr
from nncc.ir.index import Element, Index, Size, atom, elements, var, variables
from nncc.ir.nests import ASSIGN, Access, Dim, Nest, Param, Statement, builtin_identity, sizes_of
from nncc.ir.types import DType, TensorType
from nncc.ops.table import Site, bind, get, operand_position

Number = bool | int | float


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar expression with operators. `+ - * / // % << >> & | ^`, comparisons by name."""

    expr: Expr

    @property
    def dtype(self) -> DType:
        return self.expr.dtype

    def __add__(self, other: Scalar | Number) -> Scalar:
        return call("add", self, other)

    def __radd__(self, other: Number) -> Scalar:
        return call("add", other, self)

    def __sub__(self, other: Scalar | Number) -> Scalar:
        return call("sub", self, other)

    def __rsub__(self, other: Number) -> Scalar:
        return call("sub", other, self)

    def __mul__(self, other: Scalar | Number) -> Scalar:
        return call("mul", self, other)

    def __rmul__(self, other: Number) -> Scalar:
        return call("mul", other, self)

    def __truediv__(self, other: Scalar | Number) -> Scalar:
        return call("div", self, other)

    def __rtruediv__(self, other: Number) -> Scalar:
        return call("div", other, self)

    def __lshift__(self, other: Scalar | Number) -> Scalar:
        return call("shl", self, other)

    def __rlshift__(self, other: Number) -> Scalar:
        return call("shl", other, self)

    def __rshift__(self, other: Scalar | Number) -> Scalar:
        return call("shr", self, other)

    def __neg__(self) -> Scalar:
        return call("neg", self)


def const(value: Number, dtype: DType) -> Scalar:
    """`value` as a literal of `dtype`: floats are rounded to it."""
    return Scalar(Const(value, dtype))


def size_value(size: Size, dtype: DType) -> Scalar:
    """An integer expression over dims and named sizes, as a number of `dtype`."""
    return const(size, dtype) if isinstance(size, int) else Scalar(Value(size, dtype))


def call(fn: str, *args: Scalar | Number) -> Scalar:
    """A scalar function; numbers among `args` take the dtype of the scalars."""
    dtype = next(a.dtype for a in reversed(args) if isinstance(a, Scalar))
    lifted = [a if isinstance(a, Scalar) else const(a, dtype) for a in args]
    return Scalar(apply(fn, *(a.expr for a in lifted)))


def cast(dtype: DType, x: Scalar) -> Scalar:
    """`x` as `dtype`; to bool: whether it is not zero."""
    if dtype.kind == "bool" and x.dtype.kind != "bool":
        return call("ne", x, 0)
    return Scalar(cast_expr(dtype, x.expr))


def maximum(a: Scalar | Number, b: Scalar | Number) -> Scalar:
    """The larger one."""
    return call("max", a, b)


def minimum(a: Scalar | Number, b: Scalar | Number) -> Scalar:
    """The smaller one."""
    return call("min", a, b)


def select(condition: Scalar, a: Scalar | Number, b: Scalar | Number) -> Scalar:
    """`a` where the condition holds, else `b`; at least one of them is a scalar."""
    dtype = next(v.dtype for v in (a, b) if isinstance(v, Scalar))
    x, y = (v if isinstance(v, Scalar) else const(v, dtype) for v in (a, b))
    return Scalar(Apply("select", (condition.expr, x.expr, y.expr), dtype))


@dataclass(frozen=True, slots=True)
class Handle:
    """A tensor of the nest: `x[n, c]` is its element."""

    name: str
    type: TensorType

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __getitem__(self, indices: Size | tuple[Size, ...]) -> Scalar:
        return self.at(indices if isinstance(indices, tuple) else (indices,))

    def at(self, indices: Sequence[Size], other: Number | None = None) -> Scalar:
        """The element at `indices`; `other` where they lie outside of the tensor."""
        assert len(indices) == self.type.rank, f"{self.name}[{indices}] of {self.type}"
        outside = None if other is None else const(other, self.dtype).expr
        return Scalar(Load(self.name, tuple(indices), self.dtype, outside))

    def element(self, indices: Sequence[Size], lo: Size, hi: Size) -> Index:
        """An element of an integer tensor as a subscript; its value is in lo..hi."""
        return atom(Element(self.name, tuple(indices), lo, hi))


class Notation:
    """Collects the statements of one op's nest. See the module's docstring."""

    def __init__(self, site: Site) -> None:
        self.site = site
        names = bind(site.node)
        inputs = [t for t in site.inputs if t is not None]
        types = dict(zip(names, [*inputs, *site.outputs], strict=True))
        self._outputs = tuple(list(names)[len(inputs) :])
        self._handles = {name: Handle(name, type) for name, type in types.items()}
        self._locals: dict[str, Handle] = {}
        self._statements: list[Statement] = []
        self._sizes = tuple(
            dict.fromkeys(
                v for t in types.values() for extent in t.shape for v in sorted(variables(extent))
            )
        )

    def tensors(self, *names: str) -> tuple[Handle, ...]:
        """Operands by formal name."""
        return tuple(self._handles[n] for n in names)

    def tensor(self, name: str) -> Handle:
        return self._handles[name]

    def optional(self, name: str) -> Handle | None:
        """An operand that may be absent."""
        return self._handles.get(name)

    def operand(self, name: str, indices: Sequence[Size]) -> Scalar:
        """An element of an operand that is broadcast against `indices` from the right.

        An operand of one element that is known at compile time becomes a literal.
        """
        handle = self._handles[name]
        literal = self._literal(name)
        if literal is not None:
            return const(literal, handle.dtype)
        return handle.at(broadcast_indices(handle.shape, indices))

    def _literal(self, name: str) -> Number | None:
        position = operand_position(get(self.site.node), name)
        known = self.site.constants
        value = known[position] if position < len(known) else None
        if value is None or value.size != 1 or value.dtype == object:
            return None
        return value.item()  # type: ignore[no-any-return]

    def local(self, name: str, dtype: DType, shape: Sequence[Size]) -> Handle:
        """A new local tensor."""
        handle = Handle(name, TensorType(dtype, tuple(shape)))
        self._locals[name] = handle
        return handle

    def dims(self, names: str) -> tuple[Index, ...]:
        """Loop variables; a name that is also a named size gets a `_` appended."""
        return tuple(self.dim(n) for n in names.split())

    def dim(self, name: str) -> Index:
        return var(f"{name}_" if name in self._sizes else name)

    def assign(
        self,
        target: Scalar,
        value: Scalar,
        over: Mapping[Index, Size] | None = None,
        name: str = "",
    ) -> None:
        """`target = value` for all elements of the target.

        A dim that is an index of the target by itself has the range of that axis; `over`
        gives the extents of others.
        """
        self._add(name or _load(target).tensor, target, ASSIGN, value, over or {})

    def reduce(
        self,
        combine: str,
        target: Scalar,
        value: Scalar,
        over: Mapping[Index, Size],
        start: Scalar | None = None,
    ) -> None:
        """`target = start; target combine= value`, folded over the dims of `over`.

        `start` defaults to the combine's neutral element. The two statements have the names
        `t_init` and `t`, after the target.
        """
        tensor = _load(target).tensor
        first = start or const(builtin_identity(combine, target.dtype), target.dtype)
        used = frozenset[str]().union(*(variables(i) for i in _load(target).indices))
        kept = {d: extent for d, extent in over.items() if str(d) in used}
        self._add(f"{tensor}_init", target, ASSIGN, first, kept)
        self._add(tensor, target, combine, value, over)

    def accumulate(
        self,
        target: Scalar,
        value: Scalar,
        over: Mapping[Index, Size],
        start: Scalar | None = None,
    ) -> Scalar:
        """The sum of `value` in the target's accumulator format, and where it is found.

        If the format is the target's own, the target holds the sum; otherwise a local `t` of
        the same shape does, and the caller still has to assign the target. `value` and `start`
        have the accumulator's dtype.
        """
        if value.dtype is target.dtype:
            self.reduce("sum", target, value, over, start)
            return target
        load = _load(target)
        t = self.local("t", value.dtype, self._type(load.tensor).shape)
        self.reduce("sum", t.at(load.indices), value, over, start)
        return t.at(load.indices)

    def _type(self, tensor: str) -> TensorType:
        return (self._handles.get(tensor) or self._locals[tensor]).type

    def _add(
        self, name: str, target: Scalar, combine: str, value: Scalar, over: Mapping[Index, Size]
    ) -> None:
        load = _load(target)
        assert value.dtype is target.dtype, f"{name}: {value.dtype} is assigned to {target.dtype}"
        ranges: dict[str, Size] = {str(d): extent for d, extent in over.items()}
        order: dict[str, Size] = {}
        for index, extent in zip(load.indices, self._type(load.tensor).shape, strict=True):
            if isinstance(index, Index) and str(index) in variables(index):
                order[str(index)] = ranges.get(str(index), extent)
            else:
                used = variables(index)
                order |= {d: e for d, e in ranges.items() if d in used}
        order |= ranges
        self._statements.append(
            Statement(
                name,
                tuple(Dim(d, 0, extent) for d, extent in order.items()),
                (Access(load.tensor, load.indices),),
                combine,
                (value.expr,),
                location=self.site.node.location,
            )
        )

    def build(self) -> Nest:
        """The nest; inputs that no statement reads have no parameter."""
        read = {t for s in self._statements for t in _tensors_read(s)}
        params = [
            Param(h.name, h.type, "out" if h.name in self._outputs else "in")
            for h in self._handles.values()
            if h.name in self._outputs or h.name in read
        ]
        params += [Param(h.name, h.type, "local") for h in self._locals.values()]
        node = self.site.node
        used = {v for p in params for extent in p.type.shape for v in variables(extent)}
        used |= {v for s in self._statements for v in _sizes_used(s)}
        sizes = tuple(s for s in self._sizes if s in used)
        return Nest(
            node.op.lower(), sizes, tuple(params), tuple(self._statements), location=node.location
        )


def broadcast_indices(shape: Sequence[Size], indices: Sequence[Size]) -> tuple[Size, ...]:
    """The element of a tensor of `shape` that is broadcast to `indices`, aligned right."""
    aligned = indices[len(indices) - len(shape) :]
    return tuple(0 if extent == 1 else i for extent, i in zip(shape, aligned, strict=True))


AXIS_NAMES = {1: "i", 2: "i j", 3: "i j k", 4: "n c h w", 5: "n c d h w"}


def axis_names(rank: int) -> str:
    """Conventional dim names for the axes of a tensor, for `Notation.dims`."""
    return AXIS_NAMES.get(rank, " ".join(f"i{k}" for k in range(rank)))


def _load(target: Scalar) -> Load:
    assert isinstance(target.expr, Load)
    return target.expr


def _tensors_read(s: Statement) -> set[str]:
    sizes = list(sizes_of(s))
    return {x.tensor for v in s.values for x in loads(v)} | {
        e.tensor for size in sizes for e in elements(size)
    }


def _sizes_used(s: Statement) -> frozenset[str]:
    dims = {d.name for d in s.dims}
    return frozenset[str]().union(*(variables(size) for size in sizes_of(s))) - dims
