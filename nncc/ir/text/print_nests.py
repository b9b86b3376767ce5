"""Nests and definitions as text; `read_nests.py` reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nncc.diagnostics import Location
from nncc.ir.nests import (
    ASSIGN,
    Attribute,
    Band,
    Combine,
    Definition,
    Dim,
    Item,
    Local,
    Nest,
    Param,
    Scan,
    Schedule,
    Statement,
)
from nncc.ir.text.names import quote, string
from nncc.ir.text.print_expr import (
    print_expr,
    print_layout,
    print_range,
    print_size,
    print_sizes,
    print_type,
    subscripts,
)

INDENT = "  "
WIDTH = 100  # longer heads and statements are broken


def print_nest(nest: Nest) -> str:
    """A nest with its schedule."""
    params = [f"{p.role} {_param(p)}" for p in nest.params]
    tail = f"{print_named_sizes(nest.sizes)}){at(nest.location)} {{"
    head = signature(f"nest {quote(nest.name)}", params, tail)
    lines = [head, *_combines(nest.combines), *_items(nest.body, INDENT, frozenset())]
    if nest.schedule is not None:
        lines += [f"{INDENT}schedule {{", *_trees(nest.schedule, INDENT * 2), f"{INDENT}}}"]
    return "\n".join([*lines, "}"])


def signature(head: str, params: list[str], tail: str) -> str:
    """`head(params` and `tail`, on one line if it fits, else with a line for each parameter."""
    line = f"{head}({', '.join(params)}{tail}"
    if len(line) <= WIDTH or not params:
        return line
    separator = ",\n" + INDENT * 2
    return f"{head}(\n{INDENT * 2}{separator.join(params)}{tail}"


def print_definition(d: Definition) -> str:
    """A definition as people write it."""
    inputs = ", ".join(_param(p) for p in d.params if p.role == "in")
    outputs = ", ".join(_param(p) for p in d.params if p.role == "out")
    options = "; " + ", ".join(_attribute(a) for a in d.attributes) if d.attributes else ""
    lines = [f"def {quote(d.name)}({inputs}{options}) -> ({outputs}){at(d.location)} {{"]
    if d.doc:
        lines.append(INDENT + string(d.doc))
    lines += _combines(d.combines)
    lines += [f"{INDENT}local {_param(p)}" for p in d.params if p.role == "local"]
    weak = frozenset(a.name for a in d.attributes if a.type != "int")
    lines += _items(d.body, INDENT, weak)
    return "\n".join([*lines, "}"])


def at(location: Location) -> str:
    """` at "conv1"`: the node of the user's model that something comes from."""
    return f" at {string(location.node)}" if location.node else ""


def print_named_sizes(sizes: Iterable[str]) -> str:
    """`; N, M`, or nothing."""
    text = ", ".join(quote(s) for s in sizes)
    return f"; {text}" if text else ""


def _param(p: Param) -> str:
    return f"{quote(p.name)}: {print_type(p.type)}{print_layout(p.layout)}"


def _attribute(a: Attribute) -> str:
    text = f"{quote(a.name)}: {a.type}"
    if a.default is None:
        return text
    default = str(a.default).lower() if isinstance(a.default, bool) else repr(a.default)
    return f"{text} = {default}"


def _combines(combines: Iterable[Combine]) -> list[str]:
    return [INDENT + print_combine(c) for c in combines]


def print_combine(c: Combine) -> str:
    """`combine name(f32, i64) = (…) identity (…)`."""
    dtypes = ", ".join(str(e.dtype) for e in c.identity)
    values = ", ".join(print_expr(v, known=True) for v in c.values)
    identity = ", ".join(print_expr(e, known=True) for e in c.identity)
    return f"combine {quote(c.name)}({dtypes}) = ({values}) identity ({identity})"


def _items(items: Iterable[Item], indent: str, weak: frozenset[str]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Scan):
            yield f"{indent}scan {_dim(item.dim)} {{"
            yield from _items(item.body, indent + INDENT, weak)
            yield indent + "}"
        else:
            line = indent + print_statement(item, weak)
            if len(line) <= WIDTH or not _domain(item):
                yield line
                continue
            yield f"{indent}{_label(item)}{_domain(item)}{{"
            yield f"{indent}{INDENT}{_assignment(item, weak)}"
            yield indent + "}"


def print_statement(s: Statement, attributes: frozenset[str] = frozenset()) -> str:
    """A statement on one line. `attributes` as for `print_expr`."""
    label, domain, assignment = _label(s), _domain(s), _assignment(s, attributes)
    return f"{label}{domain}{{ {assignment} }}" if domain else f"{label}{assignment}"


def _label(s: Statement) -> str:
    return f"{quote(s.name)}: " if s.name else ""


def _domain(s: Statement) -> str:
    domain = print_domain(s.dims)
    if s.where:
        domain += f"where {', '.join(f'{print_size(c)} >= 0' for c in s.where)} "
    return domain


def print_domain(dims: Iterable[Dim]) -> str:
    """`for n in 0..N, m in 0..8 `, nothing if there are no dims."""
    text = ", ".join(_dim(d) for d in dims)
    return f"for {text} " if text else ""


def _assignment(s: Statement, attributes: frozenset[str]) -> str:
    combine = "=" if s.combine == ASSIGN else f"{quote(s.combine)}="
    targets = ", ".join(f"{quote(t.tensor)}[{subscripts(t.indices)}]" for t in s.targets)
    values = ", ".join(print_expr(v, known=True, attributes=attributes) for v in s.values)
    return f"{targets} {combine} {values}{at(s.location)}"


def _dim(d: Dim) -> str:
    return f"{quote(d.name)} in {print_range(d.lo, d.hi)}"


def print_schedule(trees: Iterable[Schedule]) -> str:
    """The inside of a `schedule { … }`."""
    return "\n".join(_trees(trees, ""))


def _trees(trees: Iterable[Schedule], indent: str) -> Iterator[str]:
    for t in trees:
        if isinstance(t, Band):
            word = "for" if t.kind == "serial" else t.kind
            step = "" if t.step == 1 else f" by {print_size(t.step)}"
            yield f"{indent}{word} {quote(t.dim)}{step} {{"
        elif isinstance(t, Local):
            yield f"{indent}local {', '.join(map(quote, t.tensors))} in {quote(t.space)} {{"
        else:
            dims = ", ".join(f"{quote(a)}: {quote(b)}" for a, b in t.dims)
            operation = f" with {quote(t.operation)}({dims})" if t.operation else ""
            ahead = ", ".join(f"{quote(a)}: {b}" for a, b in t.prefetch)
            prefetch = f" prefetch({ahead})" if ahead else ""
            yield f"{indent}{quote(t.statement)}{operation}{prefetch}"
            continue
        yield from _trees(t.body, indent + INDENT)
        yield indent + "}"


__all__ = [
    "INDENT",
    "at",
    "print_combine",
    "print_definition",
    "print_domain",
    "print_named_sizes",
    "print_nest",
    "print_schedule",
    "print_sizes",
    "print_statement",
]
