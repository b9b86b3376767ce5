"""The front end of the nncc language: what people write → a verified module.

    load_nn("net.nn")

`nncc.ir.text` reads the text; this infers the types that it leaves out, checks those that it
states, and checks every node against the op table or the definition that it names. A file that
the compiler printed is read in the same way, at whatever level it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lark import Token

import nncc.ops  # noqa: F401  (fills the table)
from nncc.diagnostics import NOWHERE, FrontendError, Location, VerifyError, nearest
from nncc.ir.definition import check_definition, instantiate, output_types
from nncc.ir.graph import AttrValue, Graph, Module, Node
from nncc.ir.text.parser import read
from nncc.ir.text.read_graph import Places
from nncc.ir.text.read_module import read_module
from nncc.ir.types import TensorType
from nncc.ir.verify_graph import verify_graph
from nncc.ir.verify_loops import verify_functions
from nncc.ir.verify_nests import verify_nest
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE, Operand, canonical_attrs
from nncc.ops.verify import verify_layouts, verify_node, verify_operands


def load_nn(path: str | Path) -> Module:
    """The module in a `.nn` file. Its data files are beside it or below.

    Raises FrontendError for whatever is wrong with the text, with its place there.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise FrontendError(f"cannot read it: {error.strerror}", Location(str(path))) from None
    except UnicodeDecodeError as error:
        raise FrontendError(
            f"this is not a text in UTF-8: byte {error.start} is {error.object[error.start]:#x}",
            Location(str(path)),
            "save the text as UTF-8",
        ) from None
    return read_nn(text, file=str(path), folder=path.parent)


def read_nn(text: str, *, file: str = "<text>", folder: str | Path | None = None) -> Module:
    """The module that `text` describes, complete and verified. Raises FrontendError.

    Args:
        file: the text's name, for errors and locations.
        folder: where the text's data files are.
    """
    places = Places()
    where = None if folder is None else Path(folder)
    module = read(text, "module", file, lambda t: read_module(t, file, where, places))
    with _reported(text, Location(file)):
        for name, definition in module.definitions.items():
            with _reported(text, definition.location):
                if name in TABLE:
                    raise VerifyError(f"there is already an op '{name}': choose another name")
                check_definition(definition)
        builder = GraphBuilder(module.symbols, module.nests)
        reader = _Reader(module, text, places)
        module = replace(module, graph=reader.complete(module.graph, builder))
        reader.check_extents(module)
        reader.check_updates(module)
        verify_graph(module)
        for nest in module.nests.values():
            with _reported(text, nest.location):
                verify_nest(nest)
        verify_layouts(module)
        if module.functions:
            verify_functions(module.functions)
    return module


@contextmanager
def _reported(text: str, place: Location) -> Iterator[None]:
    """Errors of verifiers as those of the text; without a place of their own, at `place`."""
    try:
        yield
        return
    except VerifyError as e:
        error = e
    except RecursionError:
        error = VerifyError("this is nested too deeply", help="make several statements of it")
    at = error.location if error.location.line else place
    lines = text.split("\n")
    source = lines[at.line - 1] if 0 < at.line <= len(lines) else ""
    raise FrontendError(error.message, Location(place.file, at.line, at.column), error.help, source)


class _Reader:
    """Infers and checks the types of a graph and its regions."""

    def __init__(self, module: Module, text: str, places: Places) -> None:
        self.module, self.text, self.places = module, text, places
        self._verified: set[object] = set()

    def complete(self, graph: Graph, builder: GraphBuilder) -> Graph:
        """`graph` with the types of all values. Raises FrontendError at the first wrong node."""
        types = dict(graph.types)
        for name in graph.inputs:
            if name not in builder.types:
                builder.input(name, types[name])
        nodes = []
        for node in graph.nodes:
            with _reported(self.text, node.location):
                nodes.append(self._node(node, types, builder))
        return replace(graph, nodes=tuple(nodes), types=types)

    def check_extents(self, module: Module) -> None:
        """Inputs and symbols have no empty dimension."""
        for name in (*module.graph.inputs, *module.symbols):
            if any(isinstance(e, int) and e < 1 for e in module.type_of(name).shape):
                message = f"'{name}' is {module.type_of(name)}: an extent must be at least 1"
                raise VerifyError(message, _location(self.places.values[name]))

    def check_updates(self, module: Module) -> None:
        """States are set to values of their types."""
        for state, value in module.graph.updates:
            old, new = module.symbols[state].type, module.type_of(value)
            if old != new:
                message = f"the state '{state}' is {old}, but '{value}' is {new}"
                raise VerifyError(message, _location(self.places.updates[state]))

    def _node(self, node: Node, types: dict[str, TensorType], builder: GraphBuilder) -> Node:
        stated = tuple(types[o] for o in node.outputs if o in types)
        if node.op in self.module.definitions:
            found = self._defined(node, builder)
            builder.add(node, found)
        elif node.op in TABLE:
            node = self._with_regions(replace(node, attrs=_attrs(node)), builder)
            verify_node(node)
            if self.module.nests and len(stated) == len(node.outputs):
                # the output of a call may have more axes than its nest's parameter
                site = replace(builder.site(node), outputs=stated)
                builder.add(node, tuple(TABLE[node.op].infer(site)))
            else:
                builder.add(node)
        else:
            known = [*TABLE, *self.module.definitions]
            raise VerifyError(
                f"there is no op '{node.op}'", NOWHERE, nearest(node.op, known, "ops")
            )
        for name in filter(None, node.outputs):
            found_type = builder.types[name]
            if types.setdefault(name, found_type) != found_type:
                raise VerifyError(
                    f"'{name}' is {types[name]} in the text, but {node.op} makes {found_type}",
                    self._place(name),
                )
        return node

    def _place(self, name: str) -> Location:
        """Where a value of the main graph stands; those of regions are not kept."""
        found = self.places.values.get(name)
        return NOWHERE if found is None else _location(found)

    def _with_regions(self, node: Node, builder: GraphBuilder) -> Node:
        regions = []
        for region in node.regions:
            inner = GraphBuilder(nests=self.module.nests)
            for formal, actual in zip(region.inputs, node.inputs, strict=False):
                inner.input(formal, region.types[formal], builder.value(actual) if actual else None)
            regions.append(self.complete(region, inner))
        return replace(node, regions=tuple(regions)) if regions else node

    def _defined(self, node: Node, builder: GraphBuilder) -> tuple[TensorType, ...]:
        """The output types of a node whose op is a definition, and a check of its nest."""
        definition = self.module.definitions[node.op]
        params = definition.params
        formals = [
            tuple(Operand(p.name) for p in params if p.role == role) for role in ("in", "out")
        ]
        verify_operands(node, *formals)
        inputs = tuple(builder.type(i) for i in node.inputs)
        key = (node.op, inputs, tuple(sorted(node.attrs.items(), key=str)))
        found = output_types(definition, inputs, node.attrs)
        if key not in self._verified:
            nest = instantiate(definition, inputs, node.attrs)
            verify_nest(nest)
            self._verified.add(key)
        return found


def _location(at: Token) -> Location:
    return Location("", at.line or 0, at.column or 0)


def _attrs(node: Node) -> dict[str, AttrValue]:
    """A node's attributes without those at their default, and with floats where the op has them."""
    declared = TABLE[node.op].attrs
    attrs = dict(node.attrs)
    for name, value in node.attrs.items():
        kind = declared[name].kind if name in declared else ""
        if kind == "float" and type(value) is int:
            attrs[name] = float(value)
        elif kind == "floats" and isinstance(value, tuple):
            attrs[name] = tuple(float(v) for v in value)
        elif kind == "bool" and type(value) is int and value in (0, 1):
            attrs[name] = bool(value)
    return canonical_attrs(node.op, attrs)
