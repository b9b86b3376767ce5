"""Random modules of every level: well-formed in names and types, meaningless otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from nncc.diagnostics import Location
from nncc.ir import loops as lo
from nncc.ir.expr import Apply, Const, Expr, Load, Name, Reduce, Value, apply, broadcast
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import Element, Size, atom, floordiv, maximum, minimum, modulo, var
from nncc.ir.nests import (
    Access,
    Attribute,
    Band,
    Combine,
    Definition,
    Dim,
    Layout,
    Leaf,
    Local,
    Nest,
    Param,
    Scan,
    Statement,
)
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.tensor import Tensor
from nncc.ir.types import DTYPES, DType, TensorType, boolean

PLAIN = st.from_regex(r"[a-z][a-z0-9_]{0,3}(\.[a-z0-9]{1,2})?", fullmatch=True)
ODD = st.one_of(
    st.sampled_from(["for", "in", "x:0", "a b", "/conv1/Relu", "1", "f32", "i8x4", "_", "`", '"q"',
                     "\\", "\\n", "é", "inf", "value", "a.b", "at", "line\nfeed", "schedule"]),
    st.text(min_size=1, max_size=4),
)  # fmt: skip
NAMES = st.one_of(PLAIN, PLAIN, ODD)
DTYPE = st.sampled_from(list(DTYPES.values()))
SOURCES = st.one_of(st.just(""), st.just(""), st.text(max_size=5))


def distinct(names: st.SearchStrategy[str] = NAMES, **size: int) -> st.SearchStrategy[list[str]]:
    return st.lists(names, unique=True, **size)


def located(draw: st.DrawFn) -> Location:
    return Location(node=draw(SOURCES))


# -- integer expressions -------------------------------------------------------------------


@st.composite
def sizes(
    draw: st.DrawFn, names: tuple[str, ...], tensors: dict[str, TensorType] | None = None,
    depth: int = 2,
) -> Size:  # fmt: skip
    """Integer expressions over `names` and elements of the integer tensors."""
    kind = draw(st.integers(0, 9 if depth else 2))
    if kind <= 1 and names:
        return var(draw(st.sampled_from(names)))
    if kind <= 2:
        return draw(st.integers(-3, 40))
    below = sizes(names, tensors, depth - 1)
    integers = [n for n, t in (tensors or {}).items() if t.dtype.is_integer]
    if kind == 9 and integers:
        name = draw(st.sampled_from(integers))
        indices = tuple(draw(below) for _ in tensors[name].shape)
        return atom(Element(name, indices, draw(below), draw(below)))
    a, b = draw(below), draw(below)
    if kind in (6, 7):
        divisor = draw(st.integers(1, 17)) if draw(st.booleans()) or isinstance(b, int) else b
        return (floordiv if kind == 6 else modulo)(a, divisor)
    if kind == 8:
        return draw(st.sampled_from([minimum, maximum]))(a, b)
    return {3: a + b, 4: a - b, 5: a * b}.get(kind, a)


@st.composite
def types(draw: st.DrawFn, names: tuple[str, ...] = (), dtype: DType | None = None) -> TensorType:
    shape = draw(st.lists(
        st.one_of(st.integers(0, 300), sizes(names, depth=1)) if names else st.integers(0, 300),
        max_size=4,
    ))  # fmt: skip
    shape = [s if not isinstance(s, int) else abs(s) for s in shape]
    return TensorType(dtype or draw(DTYPE), tuple(shape))


@st.composite
def layouts(draw: st.DrawFn, rank: int, names: tuple[str, ...]) -> Layout:
    logical = (*names, *(f"d{k}" for k in range(rank)))
    count = draw(st.integers(0, 3))
    fill = draw(st.one_of(st.none(), st.integers(-9, 9), st.floats(width=32, allow_nan=False)))
    return Layout(
        tuple(draw(sizes(logical)) for _ in range(count)),
        tuple(draw(sizes(names)) for _ in range(count)),
        fill,
    )


# -- scalar expressions --------------------------------------------------------------------


@dataclass
class Env:
    """What expressions can use. `loops`: lanes and machine operations; `open`: reductions."""

    variables: tuple[str, ...] = ()
    tensors: dict[str, TensorType] = field(default_factory=dict)
    values: dict[str, tuple[DType, int]] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    loops: bool = False
    open: bool = False


@st.composite
def constants(draw: st.DrawFn, dtype: DType, lanes: int = 1) -> Const:
    if dtype is boolean:
        return Const(draw(st.booleans()), dtype, lanes)
    if dtype.is_integer:
        return Const(draw(st.integers(*dtype.limits)), dtype, lanes)
    return Const(draw(st.floats(width=64 if dtype.bits == 64 else 32)), dtype, lanes)


SAME = [f for f in FUNCTIONS.values() if f.rule == "same"]
COMPARE = [f for f in FUNCTIONS.values() if f.rule == "compare"]


@st.composite
def exprs(
    draw: st.DrawFn, env: Env, dtype: DType | None = None, lanes: int = 1, depth: int = 3
) -> Expr:
    """A well-typed expression."""
    dtype = dtype or draw(DTYPE)
    leaf = st.one_of(_leaves(env, dtype, lanes), constants(dtype, lanes))
    if depth == 0:
        return draw(leaf)
    below = exprs(env, dtype, lanes, depth - 1)
    kind = draw(st.integers(0, 10))
    if kind <= 3:
        f = draw(st.sampled_from([f for f in SAME if f.takes(dtype)]))
        return apply(f.name, *(draw(below) for _ in range(f.arity)))
    if kind == 4 and dtype is boolean:
        inner = draw(DTYPE)
        f = draw(st.sampled_from([f for f in COMPARE if f.takes(inner)]))
        operands = exprs(env, inner, lanes, depth - 1)
        return apply(f.name, *(draw(operands) for _ in range(f.arity)))
    if kind == 5:
        condition = draw(exprs(env, boolean, lanes, depth - 1))
        return apply("select", condition, draw(below), draw(below))
    if kind == 6:
        return Apply("cast", (draw(exprs(env, None, lanes, depth - 1)),), dtype, lanes)
    if kind == 7 and env.loops and lanes > 1:
        return broadcast(draw(exprs(env, dtype, 1, depth - 1)), lanes)
    if kind == 8 and env.loops and lanes == 1:
        fn = draw(st.sampled_from(["reduce_add", "reduce_max", "reduce_min"]))
        return Apply(fn, (draw(exprs(env, dtype, 4, depth - 1)),), dtype)
    if kind == 9 and env.loops:
        rest = draw(st.lists(exprs(env, None, draw(st.sampled_from([1, 4])), 1), max_size=2))
        first = [draw(below)] if draw(st.booleans()) else []
        return Apply(draw(st.sampled_from(["fma16", "dot:4"])), (*first, *rest), dtype, lanes)
    if kind == 10 and env.open:
        dims = tuple(
            (d, None, None) if draw(st.booleans()) else (d, 0, draw(sizes(env.variables)))
            for d in draw(distinct(min_size=1, max_size=2))
        )
        body = draw(below)
        return Reduce(draw(st.sampled_from(["sum", "prod", "min", "max"])), dims, body, dtype)
    return draw(leaf)


@st.composite
def _leaves(draw: st.DrawFn, env: Env, dtype: DType, lanes: int) -> Expr:
    named = [n for n, kind in env.values.items() if kind == (dtype, lanes)]
    tensors = [n for n, t in env.tensors.items() if t.dtype is dtype and (lanes == 1 or t.rank)]
    kind = draw(st.integers(0, 4))
    if kind == 0 and named:
        return Name(draw(st.sampled_from(named)), dtype, lanes)
    if kind == 1:
        return Value(draw(sizes(env.variables, env.tensors)), dtype, lanes)
    if kind == 2 and env.attributes and dtype.is_float:
        return Name(draw(st.sampled_from(env.attributes)), dtype)
    if not tensors:
        return draw(constants(dtype, lanes))
    name = draw(st.sampled_from(tensors))
    index = sizes(env.variables, env.tensors)
    indices = tuple(draw(index) for _ in env.tensors[name].shape)
    other = draw(st.one_of(st.none(), constants(dtype, lanes)))
    count = draw(st.one_of(st.none(), index)) if lanes > 1 else None
    return Load(name, indices, dtype, other, lanes, count)


# -- nests ---------------------------------------------------------------------------------


@st.composite
def statements(draw: st.DrawFn, env: Env, outer: tuple[str, ...], name: str,
               combines: tuple[Combine, ...] = ()) -> Statement:  # fmt: skip
    fresh = draw(distinct(NAMES.filter(lambda n: n not in outer), max_size=3))
    dims: list[Dim] = []
    known = outer
    for d in fresh:
        bound = sizes(known, env.tensors)
        dims.append(Dim(d, draw(bound), draw(bound)))
        known = (*known, d)
    inner = replace(env, variables=known)
    index = sizes(known, env.tensors)
    where = tuple(draw(st.lists(index, max_size=2)))
    combine = draw(st.sampled_from(["=", "sum", "prod", "min", "max", *combines]))
    if isinstance(combine, Combine):
        kinds = [e.dtype for e in combine.identity]
    else:
        kinds = [env.tensors[draw(st.sampled_from(list(env.tensors)))].dtype]
    targets, values = [], []
    for dtype in kinds:
        tensor = draw(st.sampled_from([n for n, t in env.tensors.items() if t.dtype is dtype]))
        indices = tuple(draw(index) for _ in env.tensors[tensor].shape)
        targets.append(Access(tensor, indices))
        values.append(draw(exprs(inner, dtype, depth=2)))
    return Statement(
        name, tuple(dims), tuple(targets), getattr(combine, "name", combine), tuple(values), where,
        located(draw),
    )  # fmt: skip


@st.composite
def combines(draw: st.DrawFn, tensors: dict[str, TensorType]) -> tuple[Combine, ...]:
    made = []
    names = NAMES.filter(lambda n: n not in ("sum", "prod", "min", "max"))
    for name in draw(distinct(names, max_size=1)):
        dtypes = [t.dtype for t in draw(st.lists(st.sampled_from(list(tensors.values())),
                                                 min_size=1, max_size=2))]  # fmt: skip
        env = Env(values={f"{x}{k}": (d, 1) for x in "ab" for k, d in enumerate(dtypes)})
        identity = tuple(draw(constants(d)) for d in dtypes)
        made.append(Combine(name, identity, tuple(draw(exprs(env, d, depth=2)) for d in dtypes)))
    return tuple(made)


@st.composite
def schedules(draw: st.DrawFn, nest: Nest, depth: int = 3) -> tuple:
    statements = [s.name for s in nest.statements]
    dims = sorted({d.name for s in nest.statements for d in s.dims})
    tensors = [p.name for p in nest.params]
    trees = []
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.integers(0, 2)) if depth else 0
        if kind == 0 and statements:
            operation = draw(st.one_of(st.just(""), NAMES))
            pairs = [(draw(NAMES), d) for d in dims] if operation else []
            ahead = [draw(st.sampled_from(tensors))] if draw(st.booleans()) else []
            prefetch = tuple((t, draw(st.integers(0, 1 << 20))) for t in ahead)
            statement = draw(st.sampled_from(statements))
            trees.append(Leaf(statement, operation, tuple(pairs), prefetch))
        elif kind == 1 and dims:
            word = draw(st.sampled_from(["serial", "parallel", "unroll", "vector"]))
            step = draw(st.one_of(st.just(1), sizes(nest.sizes)))
            body = draw(schedules(nest, depth - 1))
            trees.append(Band(draw(st.sampled_from(dims)), step, word, body))
        elif kind == 2 and nest.locals:
            names = tuple(p.name for p in nest.locals)
            trees.append(Local(names, draw(NAMES), draw(schedules(nest, depth - 1))))
    return tuple(trees)


@st.composite
def nests(draw: st.DrawFn, name: str | None = None) -> Nest:
    """Nests with borders, constraints, scans, tuple combines, layouts and schedules."""
    named = tuple(draw(distinct(max_size=2)))
    params = tuple(
        Param(
            n, t := draw(types(named)), draw(st.sampled_from(["in", "out", "local"])),
            draw(st.one_of(st.none(), layouts(t.rank, named))),
        )
        for n in draw(distinct(min_size=1, max_size=3))
    )  # fmt: skip
    env = Env(tensors={p.name: p.type for p in params})
    declared = draw(combines(env.tensors))
    labels = draw(distinct(min_size=0, max_size=3))
    body: tuple = ()
    for label in labels:
        if draw(st.integers(0, 4)):
            body += (draw(statements(env, named, label, declared)),)
        else:
            scan = draw(NAMES.filter(lambda n: n not in named))
            dim = Dim(scan, draw(sizes(named, env.tensors)), draw(sizes(named, env.tensors)))
            inner = draw(statements(env, (*named, scan), label, declared))
            body += (Scan(dim, (inner,)),)
    nest = Nest(name or draw(NAMES), named, params, body, declared, location=located(draw))
    schedule = draw(st.one_of(st.none(), schedules(nest)))
    return replace(nest, schedule=schedule)


@st.composite
def definitions(draw: st.DrawFn, name: str | None = None) -> Definition:
    """Definitions with attributes, implicit dims and reductions inside expressions."""
    words = draw(distinct(min_size=5, max_size=7))
    size, integer, number, *tensors = words
    attributes = (
        Attribute(integer, "int", draw(st.one_of(st.none(), st.integers(-9, 9)))),
        Attribute(number, "float", draw(st.one_of(st.none(), st.floats(allow_nan=False)))),
    )
    roles = ["in", *(["in"] * (len(tensors) - 2)), "out"]
    params = tuple(
        Param(n, draw(types((size, integer))) if k else TensorType(draw(DTYPE), (var(size),)), r)
        for k, (n, r) in enumerate(zip(tensors, roles, strict=True))
    )
    env = Env(tensors={p.name: p.type for p in params}, attributes=(number,), open=True)
    outer = (size, integer)
    implicit = tuple(draw(distinct(NAMES.filter(lambda n: n not in words), max_size=2)))
    declared = draw(combines(env.tensors))
    body = tuple(
        _unlabelled(draw(statements(replace(env, variables=(*outer, *implicit)),
                                    (*outer, *implicit), label, declared)), draw)
        for label in draw(distinct(max_size=2))
    )  # fmt: skip
    return Definition(
        name or draw(NAMES), params, attributes, body, declared, draw(st.text(max_size=5)),
        located(draw),
    )  # fmt: skip


def _unlabelled(s: Statement, draw: st.DrawFn) -> Statement:
    return replace(s, name="") if draw(st.booleans()) else s


# -- loops ---------------------------------------------------------------------------------


@st.composite
def buffers(draw: st.DrawFn, name: str, named: tuple[str, ...], access: str | None = None):
    t = draw(types(named))
    return lo.Buffer(
        name, t.dtype, t.shape, access or draw(st.sampled_from(["in", "out", "local"])),
        draw(st.one_of(st.just("host"), st.just("stack"), NAMES)),
        draw(st.sampled_from([1, 16, 64, 128])),
    )  # fmt: skip


@st.composite
def blocks(draw: st.DrawFn, env: Env, depth: int) -> tuple[lo.Stmt, ...]:
    env = replace(env, values=dict(env.values))
    return tuple(draw(stmts(env, depth)) for _ in range(draw(st.integers(0, 2))))


@st.composite
def stmts(draw: st.DrawFn, env: Env, depth: int) -> lo.Stmt:
    """One statement; a Let or Declare enters its name into `env`."""
    kind = draw(st.integers(0, 10 if depth else 5))
    index = sizes(env.variables, env.tensors)
    tensors = list(env.tensors)
    if kind == 1 and env.values:
        name = draw(st.sampled_from(list(env.values)))
        return lo.Assign(name, draw(exprs(env, *env.values[name], depth=2)))
    if kind in (2, 3) and tensors:
        name = draw(st.sampled_from(tensors))
        indices = tuple(draw(index) for _ in env.tensors[name].shape)
        if kind == 2:
            return lo.Prefetch(name, indices)
        lanes = draw(st.sampled_from([1, 8])) if indices else 1
        value = draw(exprs(env, env.tensors[name].dtype, lanes, 2))
        count = draw(st.one_of(st.none(), index)) if indices else None
        return lo.Store(name, indices, value, count)
    if kind == 4 and tensors:
        views = tuple(
            lo.View(n, draw(st.one_of(st.just(0), index)))
            for n in draw(st.lists(st.sampled_from(tensors), max_size=2))
        )
        return lo.Call(draw(NAMES), views, tuple(draw(st.lists(index, max_size=2))), draw(SOURCES))
    if kind == 6:
        name = draw(NAMES.filter(lambda n: n not in env.variables))
        body = draw(blocks(replace(env, variables=(*env.variables, name)), depth - 1))
        word = draw(st.sampled_from(["serial", "parallel", "unroll"]))
        return lo.For(name, draw(index), draw(index), body, draw(st.integers(1, 9)), word)
    if kind == 7:
        inside = blocks(env, depth - 1)
        return lo.If(draw(exprs(env, boolean, depth=2)), draw(inside), draw(inside))
    if kind == 8:
        return lo.While(draw(exprs(env, boolean, depth=2)), draw(blocks(env, depth - 1)))
    if kind == 10 and tensors:
        return draw(performs(env))
    if kind == 9:
        name = draw(NAMES.filter(lambda n: n not in env.tensors))
        buffer = draw(buffers(name, env.variables, "local"))
        known = {**env.tensors, name: TensorType(buffer.dtype, buffer.shape)}
        return lo.Alloc(buffer, draw(blocks(replace(env, tensors=known), depth - 1)))
    name = draw(NAMES.filter(lambda n: n not in env.values))
    value = draw(exprs(env, None, draw(st.sampled_from([1, 8])), 2))
    env.values[name] = (value.dtype, value.lanes)
    return draw(st.sampled_from([lo.Let, lo.Declare]))(name, value)


@st.composite
def performs(draw: st.DrawFn, env: Env) -> lo.Perform:
    """An operation on memory; what it means is not known here."""
    dims: list[Dim] = []
    inner = env
    for name in draw(distinct(NAMES.filter(lambda n: n not in env.variables), max_size=2)):
        index = sizes(inner.variables, env.tensors)
        dims.append(Dim(name, draw(index), draw(index)))
        inner = replace(inner, variables=(*inner.variables, name))
    tensor = draw(st.sampled_from(list(env.tensors)))
    index = sizes(inner.variables, env.tensors)
    target = Access(tensor, tuple(draw(index) for _ in env.tensors[tensor].shape))
    combine = draw(st.sampled_from(["=", "sum", "max"]))
    operands = st.lists(exprs(inner, None, 1, 2), min_size=1, max_size=2)
    return lo.Perform(draw(NAMES), tuple(dims), target, combine, tuple(draw(operands)))


@st.composite
def functions(draw: st.DrawFn, name: str | None = None) -> lo.Function:
    """Loops functions with every kind of statement."""
    named = tuple(draw(distinct(max_size=2)))
    arguments = tuple(draw(buffers(n, named)) for n in draw(distinct(max_size=3)))
    tensors = {b.name: TensorType(b.dtype, b.shape) for b in arguments}
    body = draw(blocks(Env(named, tensors, loops=True), 3))
    return lo.Function(name or draw(NAMES), arguments, named, body, located(draw))


# -- graphs --------------------------------------------------------------------------------


@st.composite
def tensors(draw: st.DrawFn, dtype: DType | None = None) -> Tensor:
    shape = draw(st.sampled_from([(), (1,), (0,), (2, 3), (16,), (17,), (3, 0), (2, 3, 5)]))
    dtype = dtype or draw(DTYPE)
    size = dtype.numpy.itemsize * int(np.prod(shape))
    if dtype is boolean:
        bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        return Tensor(np.array(bits, bool).reshape(shape))
    data = draw(st.binary(min_size=size, max_size=size))  # every pattern of bits, also odd NaNs
    return Tensor(np.frombuffer(data, dtype.numpy).reshape(shape))


ATTRIBUTES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    DTYPE,
    tensors(),
    st.lists(st.integers(-9, 9), max_size=3).map(tuple),
    st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
    st.lists(st.text(max_size=3), max_size=3).map(tuple),
)


@st.composite
def graphs(
    draw: st.DrawFn, named: tuple[str, ...] = (), held: dict[str, Symbol] | None = None,
    depth: int = 1,
) -> Graph:  # fmt: skip
    """Graphs of arbitrary ops; names and types are consistent, ops mean nothing."""
    held = held or {}
    symbols = {n: s.type for n, s in held.items()}
    settable = [n for n, s in held.items() if s.kind == "state"]
    inputs = draw(distinct(NAMES.filter(lambda n: n not in symbols and n != ""), max_size=2))
    known = {**symbols, **{i: draw(types(named)) for i in inputs}}
    values = {i: known[i] for i in inputs}
    nodes = []
    unused = NAMES.filter(lambda n: n not in known)
    for _ in range(draw(st.integers(0, 3))):
        readable = st.sampled_from(["", *known])
        fresh = draw(distinct(unused, min_size=1, max_size=2))
        regions = draw(st.lists(graphs(named, depth=depth - 1), max_size=2)) if depth else []
        nodes.append(
            Node(
                draw(st.sampled_from(["Conv", "Relu", "my op"])),
                tuple(draw(st.lists(readable, max_size=3))),
                (*fresh, "") if draw(st.booleans()) else tuple(fresh),
                draw(st.dictionaries(NAMES, ATTRIBUTES, max_size=2)),
                tuple(regions),
                located(draw),
            )
        )
        values |= {f: draw(types(named)) for f in fresh}
        known |= values
    outputs = (
        st.lists(st.sampled_from(list(known)), max_size=2, unique=True) if known else st.just([])
    )
    states = draw(distinct(st.sampled_from(settable), max_size=2)) if settable else []
    updates = tuple((s, draw(st.sampled_from(list(known)))) for s in states)
    placed = draw(distinct(st.sampled_from(list(known)), max_size=2)) if known else []
    placement = {n: draw(layouts(known[n].rank, named)) for n in placed}
    return Graph(
        draw(NAMES), tuple(inputs), tuple(draw(outputs)), tuple(nodes), values, updates, placement
    )


@st.composite
def symbols(draw: st.DrawFn, named: tuple[str, ...]) -> Symbol:
    kind = draw(st.sampled_from(["const", "param", "state"]))
    if kind == "state" and named and draw(st.booleans()):
        declared = TensorType(draw(DTYPE), (var(named[0]), 3))
        scalar = draw(constants(declared.dtype))
        return Symbol(kind, Tensor(np.array(scalar.value, declared.dtype.numpy)), declared)
    return Symbol(kind, draw(tensors()))


@st.composite
def modules(draw: st.DrawFn) -> Module:
    """Modules with all levels at once."""
    named = tuple(draw(distinct(max_size=2)))
    names = draw(distinct(max_size=3))
    held = {n: draw(symbols(named)) for n in names}
    graph = draw(graphs(named, held))
    some = lambda make: {n: draw(make(n)) for n in draw(distinct(max_size=1))}  # noqa: E731
    return Module(graph, named, held, some(definitions), some(nests), some(functions))
