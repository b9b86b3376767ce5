"""Nests as isl text: the domains of statements and the elements that they read and write.

For `acc: for n in 0..N, c in 0..3 { t[n] sum= x[n, idx[c] in 0..9] }`

    domain   [N] -> { acc[n, c] : N >= 1 and 0 <= n < N and 0 <= c < 3 }
    read     [N] -> { acc[n, c] -> x[n, o1] : exists (e0 : o1 = e0 and 0 <= e0 < 9) and … }
    write    [N] -> { acc[n, c] -> t[n] : … }

Texts are built with the nest's own names (for people), or with canonical ones (`S0`, `T0`, `i0`,
`p0`), so that nests that differ in names only give equal texts: the key of every cache here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from nncc.ir.expr import loads
from nncc.ir.index import Atom, Element, Index, Monomial, Size, atom, elements, variables
from nncc.ir.nests import ASSIGN, Dim, Nest, Statement, sizes_of, walk_statements
from nncc.passes.poly.door import call, isl

# fmt: off
_RESERVED = frozenset({
    "and", "or", "not", "implies", "exists", "all", "mod", "floor", "ceil", "floord", "ceild",
    "min", "max", "div", "rat", "true", "false", "infty", "infinity", "nan",
})
# fmt: on


@dataclass(frozen=True)
class Reference:
    """One access of a statement: `implicit` is a reduction's reading of what it folds into."""

    statement: str
    tensor: str
    indices: tuple[Size, ...]
    kind: Literal["read", "write", "implicit"]
    guarded: bool = False


def references(statement: Statement) -> Iterator[Reference]:
    """Everything that an instance reads and writes, subscripts and bounds included."""
    for target in statement.targets:
        yield Reference(statement.name, target.tensor, target.indices, "write")
        if statement.combine != ASSIGN:
            yield Reference(statement.name, target.tensor, target.indices, "implicit")
    for value in statement.values:
        for e in loads(value):
            guarded = e.other is not None
            yield Reference(statement.name, e.tensor, e.indices, "read", guarded)
    for element in dict.fromkeys(_elements(statement)):
        yield Reference(statement.name, element.tensor, element.indices, "read")


def _elements(statement: Statement) -> Iterator[Element]:
    """Elements of integer tensors in bounds, constraints and subscripts."""
    for size in sizes_of(statement):
        yield from elements(size)


class Names:
    """isl identifiers for everything in a nest that has a name."""

    def __init__(self, nest: Nest, canonical: bool = False) -> None:
        statements = list(walk_statements(nest.body))
        self.dims = {s.name: (*scans, *s.dims) for s, scans in statements}
        self._canonical = canonical
        self.sizes = self._table(nest.sizes, "p")
        self.tensors = self._table((p.name for p in nest.params), "T")
        self.statements = self._table((s.name for s, _ in statements), "S")

    def _table(self, names: Iterable[str], letter: str) -> dict[str, str]:
        if self._canonical:
            return {name: f"{letter}{i}" for i, name in enumerate(names)}
        table: dict[str, str] = {}
        for name in names:
            text = re.sub(r"\W", "_", name)
            if text in _RESERVED or not re.match(r"[A-Za-z_]", text):
                text = f"_{text}"
            while text in table.values():
                text += "_"
            table[name] = text
        return table

    def variables(self, statement: str) -> dict[str, str]:
        """Dimensions of a statement; a size of the same name is shadowed."""
        return self._table((d.name for d in self.dims[statement]), "i")


@dataclass
class Translator:
    """Sizes to isl text; what is not affine becomes a parameter or a bounded unknown."""

    names: Names
    parameters: dict[Monomial | Atom, str] = field(default_factory=dict)

    def header(self) -> str:
        return f"[{', '.join((*self.names.sizes.values(), *self.parameters.values()))}]"

    def context(self) -> list[str]:
        """Named sizes and their products are at least 1."""
        products = (
            name
            for key, name in self.parameters.items()
            if isinstance(key, tuple) and all(isinstance(a, str) for a in key)
        )
        return [f"{name} >= 1" for name in (*self.names.sizes.values(), *products)]


@dataclass
class Clause:
    """Constraints over the dimensions of one statement, under construction."""

    translator: Translator
    variables: Mapping[str, str]
    constraints: list[str] = field(default_factory=list)
    unknowns: dict[Monomial | Atom, str] = field(default_factory=dict)

    def text(self, size: Size) -> str:
        """`size` as an isl expression; may add unknowns and their constraints."""
        if isinstance(size, int):
            return str(size)
        terms = [f"{c}" if not m else f"{c}*{self._monomial(m)}" for m, c in size.terms]
        return f"({' + '.join(terms)})"

    def add(self, constraint: str) -> None:
        self.constraints.append(constraint)

    def condition(self) -> str:
        text = " and ".join(self.constraints) or "true"
        return f"exists ({', '.join(self.unknowns.values())} : {text})" if self.unknowns else text

    def _monomial(self, m: Monomial) -> str:
        if len(m) == 1:
            return self._atom(m[0])
        return self._stand_in(m, variables(Index(((m, 1),))))

    def _stand_in(self, key: Monomial | Atom, used: frozenset[str]) -> str:
        """A parameter for what depends on sizes only, else an unknown of this clause."""
        if used & self.variables.keys():
            return self.unknowns.setdefault(key, f"e{len(self.unknowns)}")
        known = self.translator.parameters
        return known.setdefault(key, f"q{len(known)}")

    def _atom(self, a: Atom) -> str:
        if isinstance(a, str):
            return self.variables.get(a) or self.translator.names.sizes[a]
        if isinstance(a, Element):
            return self._element(a)
        if a.fn in ("min", "max"):
            return f"{a.fn}({self.text(a.a)}, {self.text(a.b)})"
        if not isinstance(a.b, int):
            return self._stand_in(a, variables(atom(a)))
        if a.fn == "//":
            return f"floor({self.text(a.a)}/{a.b})"
        return f"({self.text(a.a)} mod {a.b})"

    def _element(self, a: Element) -> str:
        if a in self.unknowns:
            return self.unknowns[a]
        name = self.unknowns.setdefault(a, f"e{len(self.unknowns)}")
        self.add(f"{self.text(a.lo)} <= {name} < {self.text(a.hi)}")
        return name


@dataclass
class Relations:
    """The isl texts of a nest: bodies first, complete once every text has been asked for."""

    nest: Nest
    names: Names
    translator: Translator

    @staticmethod
    def of(nest: Nest, canonical: bool = False) -> Relations:
        names = Names(nest, canonical)
        return Relations(nest, names, Translator(names))

    def complete(self, body: str) -> str:
        """A text with its parameters; they are complete when all bodies have been built."""
        context = " and ".join(self.translator.context())
        body = body.replace(" : ", f" : {context} and ", 1) if context else body
        return f"{self.translator.header()} -> {{ {body} }}"

    def clause(self, statement: Statement) -> tuple[str, Clause]:
        """The tuple `S[i, j]` of a statement and the constraints of its domain."""
        table = self.names.variables(statement.name)
        clause = Clause(self.translator, table)
        for d in self.names.dims[statement.name]:
            _bound(clause, d)
        for size in statement.where:
            clause.add(f"{clause.text(size)} >= 0")
        return f"{self.names.statements[statement.name]}[{', '.join(table.values())}]", clause

    def domain(self, statement: Statement) -> str:
        space, clause = self.clause(statement)
        return f"{space} : {clause.condition()}"

    def access(
        self, statement: Statement, reference: Reference, *, inside: bool = False
    ) -> tuple[str, bool]:
        """The relation from instances to elements, and whether it is exact.

        `inside`: only elements of the tensor, as for every guarded load.
        """
        space, clause = self.clause(statement)
        outputs = [f"o{k}" for k in range(len(reference.indices))]
        shape = self.nest.param(reference.tensor).type.shape
        for name, index, extent in zip(outputs, reference.indices, shape, strict=True):
            clause.add(f"{name} = {clause.text(index)}")
            if reference.guarded or inside:
                clause.add(f"0 <= {name} < {clause.text(extent)}")
        tensor = self.names.tensors[reference.tensor]
        text = f"{space} -> {tensor}[{', '.join(outputs)}] : {clause.condition()}"
        return text, not clause.unknowns

    def time(self, statement: Statement, time: tuple[Size, ...]) -> str:
        space, clause = self.clause(statement)
        entries = ", ".join(clause.text(t) for t in time)
        return f"{space} -> [{entries}] : {clause.condition()}"


def _bound(clause: Clause, d: Dim) -> None:
    name = clause.variables[d.name]
    clause.add(f"{clause.text(d.lo)} <= {name} < {clause.text(d.hi)}")


def domain(nest: Nest, statement: str) -> isl.Set:
    """The instances of a statement, the dimensions of scans around it first.

    Raises KeyError if the nest has no such statement.
    """
    by_name = {s.name: s for s in nest.statements}
    relations = Relations.of(nest)
    body = relations.domain(by_name[statement])
    return call(isl.Set, relations.complete(body))
