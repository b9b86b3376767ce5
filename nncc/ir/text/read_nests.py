"""Nests, their schedules and definitions: from syntax to the IR, with names and types checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lark import Token

from nncc.diagnostics import Location, nearest
from nncc.ir.expr import Expr
from nncc.ir.index import Size, variables
from nncc.ir.nests import (
    ASSIGN,
    BUILTIN_COMBINES,
    Access,
    Attribute,
    Band,
    Combine,
    Definition,
    Dim,
    Item,
    Leaf,
    Local,
    Nest,
    Param,
    Scan,
    Schedule,
    Statement,
    walk_statements,
)
from nncc.ir.text import syntax as s
from nncc.ir.text import syntax_items as si
from nncc.ir.text.names import read_number
from nncc.ir.text.scalars import position, whole
from nncc.ir.text.scope import SIZES_HINT, Scope, numeric, unique
from nncc.ir.types import DType


def place(file: str, at: Token, source: str = "") -> Location:
    """The location of a token; `source` is the node's name in the user's model."""
    return Location(file, at.line or 0, at.column or 0, source)


def read_nest(text: si.NestText, file: str) -> Nest:
    """A nest. Raises Problem."""
    unique(text.sizes, "size")
    unique((p.name for p in text.params), "tensor")
    scope = Scope(set(map(str, text.sizes)), hint=SIZES_HINT)
    params = tuple(_param(p, p.role, scope) for p in text.params)
    scope.tensors = {p.name: p.type for p in params}
    combines = read_combines(text.combines, {})
    scope.combines = {c.name: len(c.identity) for c in combines}
    body = tuple(_item(i, scope, file) for i in text.body)
    _check_labels(text.body)
    nest = Nest(
        str(text.name), tuple(map(str, text.sizes)), params, body, combines,
        location=place(file, text.name, text.source),
    )  # fmt: skip
    if text.schedule is None:
        return nest
    schedule = _schedule(text.schedule.trees, _ScheduleNames(nest), scope)
    return Nest(
        nest.name, nest.sizes, params, body, combines, schedule, nest.location
    )  # fmt: skip


def _param(p: si.ParamText, role: str, scope: Scope) -> Param:
    t = scope.type(p.type)
    return Param(str(p.name), t, str(role), scope.layout(p.layout, t))  # type: ignore[arg-type]


def _check_labels(body: Iterable[si.StatementText | si.ScanText]) -> None:
    """Statements of a nest have names, each once."""
    labels: list[Token] = []

    def collect(items: Iterable[si.StatementText | si.ScanText]) -> None:
        for item in items:
            if isinstance(item, si.ScanText):
                collect(item.body)
            elif item.label is None:
                raise s.Problem(
                    item.assignment.targets[0].at,
                    "a statement of a nest needs a name",
                    "write one before it, as in  init: t[i] = 0.0",
                )
            else:
                labels.append(item.label)

    collect(body)
    unique(labels, "statement")


# -- combines ------------------------------------------------------------------------------


def read_combines(
    texts: Iterable[si.CombineText], known: Mapping[str, Combine]
) -> tuple[Combine, ...]:
    """Declared combines. Raises Problem for a name that is taken."""
    texts = tuple(texts)
    unique((t.name for t in texts), "combine", {**BUILTIN_COMBINES, **known})
    return tuple(_combine(t) for t in texts)


def _combine(t: si.CombineText) -> Combine:
    dtypes = [numeric(d, lanes=False)[0] for d in t.dtypes]
    for part, what in ((t.values, "results"), (t.identity, "identities")):
        if len(part) != len(dtypes):
            raise s.Problem(
                t.name,
                f"'{t.name}' combines {len(dtypes)} components: so many {what} are needed, "
                f"not {len(part)}",
            )
    scope = Scope(values={f"{x}{k}": (d, 1) for x in "ab" for k, d in enumerate(dtypes)})
    values = _components(scope, t.values, dtypes)
    return Combine(str(t.name), _components(Scope(), t.identity, dtypes), values)


def _components(
    scope: Scope, parts: tuple[s.Expression, ...], dtypes: list[DType]
) -> tuple[Expr, ...]:
    return tuple(
        whole(scope, e, (d, 1), f"component {k}")
        for k, (e, d) in enumerate(zip(parts, dtypes, strict=True))
    )


# -- statements ----------------------------------------------------------------------------


def _item(text: si.StatementText | si.ScanText, scope: Scope, file: str) -> Item:
    if isinstance(text, si.StatementText):
        return _statement(text, scope, file)
    dim, inner = read_dims((text.dim,), scope)
    return Scan(dim[0], tuple(_item(i, inner, file) for i in text.body))


def read_dims(texts: Iterable[s.Range], scope: Scope) -> tuple[tuple[Dim, ...], Scope]:
    """Dimensions, each of which may use those before it, and the scope that knows them."""
    inner = scope.inner()
    dims: list[Dim] = []
    for d in texts:
        if d.at in inner.sizes:
            raise s.Problem(d.at, f"'{d.at}' is already a size or dim here")
        dims.append(Dim(str(d.at), inner.size(d.lo), inner.size(d.hi)))
        inner.sizes.add(str(d.at))
    return tuple(dims), inner


def _statement(text: si.StatementText, scope: Scope, file: str) -> Statement:
    dims, scope = read_dims(text.dims, scope)
    where = tuple(c for e in text.where for c in constraint(e, scope))
    a = text.assignment
    combine = ASSIGN if a.combine is None else str(a.combine)
    if a.combine is not None and combine not in (known := {**BUILTIN_COMBINES, **scope.combines}):
        raise s.Problem(
            a.combine, f"there is no combine '{combine}'", nearest(combine, known, "combines")
        )
    components = scope.combines.get(combine, 1)
    if not len(a.targets) == len(a.values) == components:
        raise s.Problem(
            a.combine or a.targets[0].at,
            f"{len(a.targets)} targets and {len(a.values)} values, where "
            f"'{combine}{'' if a.combine is None else '='}' takes {components} of each",
        )
    targets, values = [], []
    for target, value in zip(a.targets, a.values, strict=True):
        t = scope.tensor(target)
        if target.lanes is not None:
            raise s.Problem(target.lanes, "lanes are only written in functions")
        targets.append(Access(str(target.at), scope.sizes_of(target.indices)))
        values.append(whole(scope, value, (t.dtype, 1), f"what goes to '{target.at}'"))
    at = text.label or a.targets[0].at
    return Statement(
        str(text.label or ""), dims, tuple(targets), combine, tuple(values), where,
        place(file, at, a.source),
    )  # fmt: skip


def constraint(e: s.Expression, scope: Scope) -> tuple[Size, ...]:
    """`a >= b` and the like as sizes that are not negative."""
    if not isinstance(e, s.Infix) or e.at not in _CONSTRAINTS:
        raise s.Problem(
            position(e), "a constraint compares two sizes", "as in  where i + j >= 1, i < N"
        )
    a, b = scope.size(e.a), scope.size(e.b)
    return tuple(sign * (a - b) + offset for sign, offset in _CONSTRAINTS[e.at])


_CONSTRAINTS = {
    ">=": ((1, 0),),
    ">": ((1, -1),),
    "<=": ((-1, 0),),
    "<": ((-1, -1),),
    "==": ((1, 0), (-1, 0)),
}

# -- schedules -----------------------------------------------------------------------------


class _ScheduleNames:
    """What a schedule can speak of."""

    def __init__(self, nest: Nest) -> None:
        self.statements = {s.name for s in nest.statements}
        self.locals = {p.name for p in nest.locals}
        self.tensors = {p.name for p in nest.params}
        self.dims = {d.name for s, scans in walk_statements(nest.body) for d in (*s.dims, *scans)}

    @staticmethod
    def check(name: Token, known: set[str], what: str) -> str:
        if name not in known:
            raise s.Problem(
                name, f"the nest has no {what} '{name}'", nearest(name, known, what + "s")
            )
        return str(name)


def _schedule(
    trees: Iterable[si.BandText | si.HomeText | si.LeafText], names: _ScheduleNames, scope: Scope
) -> tuple[Schedule, ...]:
    return tuple(_tree(t, names, scope) for t in trees)


def _tree(
    t: si.BandText | si.HomeText | si.LeafText, names: _ScheduleNames, scope: Scope
) -> Schedule:
    if isinstance(t, si.BandText):
        dim = names.check(t.dim, names.dims, "dim")
        step = 1 if t.step is None else scope.size(t.step)
        kind = "serial" if t.kind == "for" else str(t.kind)
        return Band(dim, step, kind, _schedule(t.body, names, scope))  # type: ignore[arg-type]
    if isinstance(t, si.HomeText):
        tensors = tuple(names.check(x, names.locals, "local tensor") for x in t.tensors)
        return Local(tensors, str(t.space), _schedule(t.body, names, scope))
    statement = names.check(t.statement, names.statements, "statement")
    pairs = tuple((str(a), names.check(b, names.dims, "dim")) for a, b in t.dims)
    prefetch = tuple((names.check(a, names.tensors, "tensor"), int(b)) for a, b in t.prefetch)
    return Leaf(statement, str(t.operation or ""), pairs, prefetch)


# -- definitions ---------------------------------------------------------------------------


def read_definition(
    text: si.DefinitionText, file: str, shared: Mapping[str, Combine]
) -> Definition:
    """A definition; of the module's combines in `shared` it keeps those it uses.

    Raises Problem.
    """
    tensors = [p.name for p in (*text.inputs, *text.outputs, *text.locals)]
    unique(tensors, "tensor")
    unique((o.name for o in text.options), "attribute", dict.fromkeys(map(str, tensors)))
    attributes = tuple(_attribute(o) for o in text.options)
    scope = Scope(
        sizes={a.name for a in attributes if a.type == "int"},
        attributes=frozenset(a.name for a in attributes if a.type != "int"),
        open=True,
    )
    params = tuple(_param(p, "in", scope) for p in text.inputs)
    scope.sizes |= {v for p in params for extent in p.type.shape for v in variables(extent)}
    closed = scope.inner()
    closed.open = False  # sizes of outputs and locals must follow from the inputs'
    params += tuple(_param(p, "out", closed) for p in text.outputs)
    params += tuple(_param(p, "local", closed) for p in text.locals)
    scope.tensors = {p.name: p.type for p in params}
    own = read_combines(text.combines, shared)
    combines = {**shared, **{c.name: c for c in own}}
    scope.combines = {c.name: len(c.identity) for c in combines.values()}
    body = tuple(_item(i, scope, file) for i in text.body)
    used = _combines_used(text.body)
    kept = own + tuple(c for name, c in shared.items() if name in used)
    return Definition(
        str(text.name), params, attributes, body, kept, str(text.doc),
        place(file, text.name, text.source),
    )  # fmt: skip


def _attribute(o: si.OptionText) -> Attribute:
    if o.type not in _ATTRIBUTE_TYPES:
        raise s.Problem(o.type, f"an attribute is int, float or bool, not '{o.type}'")
    if o.default is None:
        return Attribute(str(o.name), str(o.type))  # type: ignore[arg-type]
    default = read_number(o.default)
    if o.type == "float" and type(default) is int:
        default = float(default)
    if type(default) is not _ATTRIBUTE_TYPES[o.type]:
        raise s.Problem(o.default, f"{o.default} is not a value of type {o.type}")
    return Attribute(str(o.name), str(o.type), default)  # type: ignore[arg-type]


_ATTRIBUTE_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool}


def _combines_used(items: Iterable[si.StatementText | si.ScanText]) -> set[str]:
    used: set[str] = set()
    for item in items:
        if isinstance(item, si.ScanText):
            used |= _combines_used(item.body)
            continue
        used.add(str(item.assignment.combine))
        for e in item.assignment.values:
            used |= {str(part.at) for part, _ in s.walk(e) if isinstance(part, s.Reduction)}
    return used
