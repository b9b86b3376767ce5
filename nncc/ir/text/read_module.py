"""Modules: the items of a text put together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from lark import Token

from nncc.ir.graph import Module, Symbol
from nncc.ir.nests import Combine
from nncc.ir.text import syntax as s
from nncc.ir.text import syntax_items as si
from nncc.ir.text.data import DataReader
from nncc.ir.text.print_graph import FORMAT_VERSION
from nncc.ir.text.read_graph import GraphReader, Places
from nncc.ir.text.read_loops import read_function
from nncc.ir.text.read_nests import read_combines, read_definition, read_nest
from nncc.ir.text.scope import Scope, unique


class _Named(Protocol):
    name: Token


N = TypeVar("N", bound=_Named)


def read_module(
    text: si.ModuleText, file: str, folder: Path | None, places: Places | None = None
) -> Module:
    """The module. Raises Problem. `places` learns where symbols, values and updates stand."""
    places = Places() if places is None else places
    if text.version != str(FORMAT_VERSION):
        raise s.Problem(
            text.version, f"this is format {text.version}; this nncc reads {FORMAT_VERSION}"
        )
    sizes = [n for i in text.items if isinstance(i, si.SizesText) for n in i.names]
    unique(sizes, "size")
    scope = Scope(set(map(str, sizes)), hint="declare it:  size {}")
    data = DataReader(file, folder)
    symbols: dict[str, Symbol] = {}
    for t in _named(text.items, si.SymbolText, "symbol"):
        symbols[str(t.name)] = _symbol(t, scope, data)
        places.values[str(t.name)] = t.name
    combines: dict[str, Combine] = {}
    for c in text.items:
        if isinstance(c, si.CombineText):
            combines[str(c.name)] = read_combines((c,), combines)[0]
    definitions = {
        str(t.name): read_definition(t, file, combines)
        for t in _named(text.items, si.DefinitionText, "definition")
    }
    nests = {str(t.name): read_nest(t, file) for t in _named(text.items, si.NestText, "nest")}
    functions = {
        str(t.name): read_function(t, file) for t in _named(text.items, si.FunctionText, "function")
    }
    main = _main(text.items)
    unique((v.name for v in main.outputs), "output")
    graph = GraphReader(scope, symbols, data, places).read(main)
    return Module(graph, tuple(map(str, sizes)), symbols, definitions, nests, functions)


def _named(items: Iterable[object], kind: type[N], what: str) -> list[N]:
    """The items of a kind; their names differ."""
    found = [i for i in items if isinstance(i, kind)]
    unique((i.name for i in found), what)
    return found


def _main(items: Iterable[object]) -> si.GraphText:
    graphs = [i for i in items if isinstance(i, si.GraphText)]
    if not graphs:
        at = Token("$END", "")
        raise s.Problem(at, "the text has no graph", "write  graph main(…) -> (…) { … }")
    if len(graphs) > 1:
        raise s.Problem(graphs[1].name, f"there is already a graph '{graphs[0].name}'")
    return graphs[0]


def _symbol(text: si.SymbolText, scope: Scope, data: DataReader) -> Symbol:
    t = scope.type(text.type)
    if t.is_static:
        return Symbol(text.kind.value, data.tensor(text.data, t, str(text.name)))
    if text.kind != "state":
        raise s.Problem(text.type.at, f"the shape of a {text.kind} has no named sizes, this is {t}")
    if text.data.kind not in ("number", "bytes"):
        raise s.Problem(
            text.data.at, f"a state of type {t} starts with one number for all elements"
        )
    scalar = type(t)(t.dtype, ())
    return Symbol("state", data.tensor(text.data, scalar, str(text.name)), t)
