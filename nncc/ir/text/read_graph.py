"""Graphs: from syntax to the IR. Checks that every name is known before it is used.

Types are those that the text states; `nncc.frontend.dsl` infers the missing ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lark import Token

from nncc.diagnostics import Location, nearest
from nncc.ir.graph import AttrValue, Graph, Node, Symbol
from nncc.ir.nests import Layout
from nncc.ir.text import syntax as s
from nncc.ir.text import syntax_items as si
from nncc.ir.text.data import DataReader
from nncc.ir.text.names import read_number
from nncc.ir.text.scope import Scope
from nncc.ir.types import DTYPES, TensorType


@dataclass
class Places:
    """Where the main graph's values and updates, and the symbols, stand in the text."""

    values: dict[str, Token] = field(default_factory=dict)
    updates: dict[str, Token] = field(default_factory=dict)


class GraphReader:
    """Reads one graph; regions have readers of their own.

    Args:
        scope: knows the named sizes.
        symbols: what can be read besides the graph's own values.
        places: learns where things stand.
    """

    def __init__(
        self, scope: Scope, symbols: Mapping[str, Symbol], data: DataReader, places: Places
    ) -> None:
        self.scope, self.symbols, self.data, self.places = scope, symbols, data, places
        self.known: set[str] = set(symbols)
        self.own: set[str] = set()
        self.types: dict[str, TensorType] = {}
        self.layouts: dict[str, Layout] = {}
        self.later: frozenset[str] = frozenset()

    def read(self, text: si.GraphText) -> Graph:
        """The graph. Raises Problem."""
        for v in text.inputs:
            if v.type is None:
                raise s.Problem(v.name, f"the input '{v.name}' needs a type")
            self._define(v)
        self.later = frozenset(
            str(o.name) for n in text.entries if isinstance(n, si.NodeText) for o in n.outputs
        )
        nodes: list[Node] = []
        updates: list[tuple[str, str]] = []
        for entry in text.entries:
            if isinstance(entry, si.NodeText):
                nodes.append(self._node(entry))
            elif isinstance(entry, si.UpdateText):
                updates.append(self._update(entry, dict(updates)))
            else:
                self._placement(entry)
        outputs = tuple(self._output(v) for v in text.outputs)
        return Graph(
            str(text.name), tuple(str(v.name) for v in text.inputs), outputs, tuple(nodes),
            self.types, tuple(updates), self.layouts,
        )  # fmt: skip

    def _define(self, v: si.ValueText) -> str:
        name = str(v.name)
        if _is_absent(v.name):
            if v.type is not None:
                raise s.Problem(v.name, "_ is what is left out: it has no type", _QUOTED)
            return ""
        if name in self.known:
            what = "value" if name in self.own else "symbol"
            is_state = name in self.symbols and self.symbols[name].kind == "state"
            help = f"a state is set by  update {v.name} = value" if is_state else ""
            raise s.Problem(v.name, f"there is already a {what} '{name}'", help)
        self.known.add(name)
        self.own.add(name)
        self.places.values[name] = v.name
        if v.type is not None:
            t = self.types[name] = self.scope.type(v.type)
            if v.layout is not None and (layout := self.scope.layout(v.layout, t)):
                self.layouts[name] = layout
        return name

    def _use(self, at: Token) -> str:
        name = str(at)
        if name in self.known and not _is_absent(at):
            return name
        if _is_absent(at):
            raise s.Problem(at, "_ is what is left out: it is no value", _QUOTED)
        if name in self.later:
            raise s.Problem(at, f"'{name}' is used before it is computed")
        help = nearest(name, self.known, "known values") if self.known else ""
        raise s.Problem(at, f"there is no value '{name}'", help)

    def _node(self, n: si.NodeText) -> Node:
        known = self.known
        inputs = tuple(
            "" if _is_absent(i) else str(i) if i in known else self._use(i) for i in n.inputs
        )
        attrs = self._attrs(n.attributes) if n.attributes else {}
        regions = tuple(GraphReader(self.scope, {}, self.data, Places()).read(r) for r in n.regions)
        outputs = tuple(self._define(v) for v in n.outputs)
        location = Location(self.data.file, n.op.line or 0, n.op.column or 0, n.source)
        return Node(str(n.op), inputs, outputs, attrs, regions, location)

    def _attrs(self, attributes: tuple[s.AttributeText, ...]) -> dict[str, AttrValue]:
        attrs: dict[str, AttrValue] = {}
        for a in attributes:
            if a.name in attrs:
                raise s.Problem(a.name, f"the attribute '{a.name}' is given twice")
            attrs[str(a.name)] = self._attribute(a.value)
        return attrs

    def _attribute(self, value: Token | tuple[Token, ...] | s.TensorText) -> AttrValue:
        if isinstance(value, s.TensorText):
            t = self.scope.type(value.type)
            return self.data.tensor(value.data, t, "")
        if isinstance(value, tuple):
            return tuple(str(v) for v in value)
        if value.type == "NUMBER":
            return read_number(value)
        if value.type == "STRING":
            return str(value)
        if value.type == "DTYPE":
            if value not in DTYPES:
                raise s.Problem(value, f"{value} is a vector, not a dtype of tensors")
            return DTYPES[value]
        numbers = [read_number(x) for x in re.findall(r"[^\s,\[\]]+", value)]
        if any(isinstance(x, bool) for x in numbers):
            raise s.Problem(value, "a list is of numbers or of strings")
        if any(isinstance(x, float) for x in numbers):
            return tuple(float(x) for x in numbers)
        return tuple(int(x) for x in numbers)

    def _update(self, u: si.UpdateText, before: Mapping[str, str]) -> tuple[str, str]:
        states = [name for name, symbol in self.symbols.items() if symbol.kind == "state"]
        if u.state not in states:
            help = nearest(u.state, states, "states") if states else ""
            raise s.Problem(u.state, f"there is no state '{u.state}'", help)
        if u.state in before:
            raise s.Problem(u.state, f"'{u.state}' is updated twice")
        self.places.updates[str(u.state)] = u.value
        return str(u.state), self._use(u.value)

    def _placement(self, p: si.PlacementText) -> None:
        if p.name not in self.symbols:
            raise s.Problem(
                p.name,
                f"there is no symbol '{p.name}'",
                "the layout of a value stands behind its type",
            )
        if layout := self.scope.layout(p.layout, self.symbols[str(p.name)].type):
            self.layouts[str(p.name)] = layout

    def _output(self, v: si.ValueText) -> str:
        name = self._use(v.name)
        if v.layout is not None:
            raise s.Problem(v.name, f"the layout of '{name}' stands where it is computed")
        if v.type is None:
            return name
        stated = self.scope.type(v.type)
        known = self.symbols[name].type if name in self.symbols else self.types.get(name)
        if known is not None and known != stated:
            raise s.Problem(v.name, f"the output '{name}' is {stated} here, but it is {known}")
        if name in self.own:
            self.types.setdefault(name, stated)
        return name


_QUOTED = "a value that is called so stands in back quotes: `_`"


def _is_absent(name: Token) -> bool:
    """Whether it is the bare `_`: no value. (A value may be called `_` in quotes.)"""
    return name == "_" and name.end_pos == (name.start_pos or 0) + 1
