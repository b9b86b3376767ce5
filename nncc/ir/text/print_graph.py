"""Graphs, symbols and whole modules as text; `read_graph.py` and `read_module.py` read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from nncc.ir.graph import AttrValue, Graph, Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.text.names import number, quote, string
from nncc.ir.text.print_expr import print_layout, print_type
from nncc.ir.text.print_loops import print_function
from nncc.ir.text.print_nests import INDENT, at, print_definition, print_nest
from nncc.ir.types import DType

FORMAT_VERSION = 1
INLINE_ELEMENTS = 16

Store = Callable[[str, Tensor], str]  # (key, large tensor) → the text that refers to its data


def print_module(module: Module, *, data_file: str | None = None) -> str:
    """A module as text.

    Args:
        data_file: name of the safetensors file that holds the tensors of more than 16 elements
            (`write_module` writes it). None: the text holds only their sha256, which is enough
            to compare modules, not to run them.
    """
    return print_with(module, _by_digest if data_file is None else in_file(data_file))


def print_with(module: Module, store: Store) -> str:
    """`print_module` where `store` decides how large data is referred to."""
    parts = [f"nncc {FORMAT_VERSION}"]
    if module.sizes:
        parts.append("size " + ", ".join(quote(s) for s in module.sizes))
    if module.symbols:
        parts.append("\n".join(_symbol(n, s, store) for n, s in module.symbols.items()))
    parts += [print_definition(d) for d in module.definitions.values()]
    parts.append("\n".join(_Graphs(store).lines("graph ", module.graph, "")))
    parts += [print_nest(n) for n in module.nests.values()]
    parts += [print_function(f) for f in module.functions.values()]
    return "\n\n".join(parts) + "\n"


def print_graph(graph: Graph) -> str:
    """A graph, or a region, by itself."""
    return "\n".join(_Graphs(_by_digest).lines("graph ", graph, ""))


def in_file(name: str) -> Store:
    """References to a data file."""
    return lambda key, tensor: f'file({string(name)}, sha256="{tensor.digest}")'


def _by_digest(key: str, tensor: Tensor) -> str:
    return f'sha256("{tensor.digest}")'


def _symbol(name: str, symbol: Symbol, store: Store) -> str:
    data = _data(name, symbol.data, store)
    return f"{symbol.kind} {quote(name)}: {print_type(symbol.type)} = {data}"


def _data(key: str, tensor: Tensor, store: Store) -> str:
    if not is_inline(tensor):
        return store(key, tensor)
    if _has_unusual_nan(tensor):
        return f'bytes("{tensor.array.tobytes().hex()}")'
    values = [number(v, tensor.type.dtype) for v in tensor.array.reshape(-1)]
    return f"[{', '.join(values)}]" if tensor.type.rank else values[0]


def is_inline(tensor: Tensor) -> bool:
    """Whether a tensor's elements stand in the text itself."""
    return int(tensor.type.elements) <= INLINE_ELEMENTS  # type: ignore[arg-type]


def _has_unusual_nan(tensor: Tensor) -> bool:
    """Whether there is a NaN that `nan` would not read back as, bit for bit."""
    if not tensor.type.dtype.is_float:
        return False
    array = tensor.array
    usual = np.array(float("nan"), array.dtype).tobytes()
    return any(x.tobytes() != usual for x in array[np.isnan(array)])


class _Graphs:
    def __init__(self, store: Store) -> None:
        self.store = store

    def lines(self, head: str, g: Graph, indent: str) -> Iterator[str]:
        inner = indent + INDENT
        types = g.types
        inputs = ", ".join(self.value(g, v) for v in g.inputs)
        outputs = ", ".join(
            f"{quote(v)}: {print_type(types[v])}" if v in types else quote(v) for v in g.outputs
        )
        yield f"{indent}{head}{quote(g.name)}({inputs}) -> ({outputs}) {{"
        for name, layout in g.layouts.items():
            if name not in types:
                yield f"{inner}layout {quote(name)}{print_layout(layout)}"
        for n in g.nodes:
            yield from self.node(g, n, inner)
        for state, value in g.updates:
            yield f"{inner}update {quote(state)} = {quote(value)}"
        yield indent + "}"

    def value(self, g: Graph, name: str) -> str:
        if not name:
            return "_"
        if name not in g.types:
            return quote(name)
        return f"{quote(name)}: {print_type(g.types[name])}{print_layout(g.layouts.get(name))}"

    def node(self, g: Graph, n: Node, indent: str) -> Iterator[str]:
        outputs = ", ".join(self.value(g, o) for o in n.outputs)
        inputs = ", ".join(quote(i) if i else "_" for i in n.inputs)
        text = f"{indent}{outputs} = " if outputs else indent
        text += f"{quote(n.op)}({inputs})"
        if n.attrs:
            items = (f"{quote(k)}={self.attribute(v)}" for k, v in n.attrs.items())
            text += f" {{{', '.join(items)}}}"
        text += at(n.location)
        if not n.regions:
            yield text
            return
        for region in n.regions:
            first, *rest = self.lines("graph ", region, indent)
            yield text + " " + first.lstrip()
            yield from rest[:-1]
            text = rest[-1]
        yield text

    def attribute(self, v: AttrValue) -> str:
        if isinstance(v, tuple):
            if v and isinstance(v[0], str):
                return f"[{', '.join(string(str(x)) for x in v)}]"
            if any(isinstance(x, float) for x in v):
                return f"[{','.join(repr(float(x)) for x in v)}]"
            return f"[{','.join(str(x) for x in v)}]"
        if isinstance(v, bool):
            return "true" if v else "false"
        if isinstance(v, str):
            return string(v)
        if isinstance(v, float):
            return repr(float(v))
        if isinstance(v, Tensor):
            key = "" if is_inline(v) else v.digest
            return f"{print_type(v.type)} {_data(key, v, self.store)}"
        assert isinstance(v, int | DType), f"{v!r} is not the value of an attribute"
        return str(v)
