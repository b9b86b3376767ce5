"""From a checked ONNX model to a module.

    images, weights, nodes of any opset from 7 on
    →  Module(graph over the op table, named sizes, symbols `param` and `const`)

What nncc cannot compile is collected over the whole model and raised as one UnsupportedError;
what is wrong with the model is raised at once, with file and node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

import numpy as np
import onnx
from onnx import FunctionProto, NodeProto

from nncc.diagnostics import Diagnostic, Location, UnsupportedError, VerifyError, nearest
from nncc.frontend.onnx import attributes, functions, metadata, padding, qlinear
from nncc.frontend.onnx.schemas import Schema, fault, schema_of, without_absent_end
from nncc.frontend.onnx.signature import Sizes, check_size, input_type
from nncc.frontend.onnx.source import Source, opset_of
from nncc.frontend.onnx.tensors import DTYPES, ELEM_TYPES, elem_type_name, tensor_of
from nncc.frontend.onnx.versions import Draft, NotExpressible, convert
from nncc.ir.graph import Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE, canonical_attrs, node_error

# Integer tensors up to this size are shapes, axes and the like; larger ones are weights.
CONST_ELEMENTS = 64


def kind_of(type: TensorType) -> metadata.SymbolKind:
    """Whether an initializer is a `param` (a weight) or a `const` (a shape, an axis, a bound)."""
    few = type.elements <= CONST_ELEMENTS  # type: ignore[operator]
    if type.rank == 0 or (not type.dtype.is_float and few):
        return "const"
    return "param"


def import_model(source: Source) -> Module:
    """The module that a model says. Raises FrontendError or UnsupportedError."""
    return _Importer(source).run()


class _Importer:
    """The state of one import; also the scope in which version steps work."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.graph = source.model.graph
        self.opset = opset_of(source.model)
        self.builder = GraphBuilder()
        self.notes = metadata.read(source)
        self.sizes = Sizes()
        self.functions = {(f.domain, f.name): f for f in source.model.functions}
        self.unsupported: list[Diagnostic] = []
        self.unknown: set[str] = set()  # values that only unsupported nodes could give
        self.location = Location(source.file)

    def run(self) -> Module:
        self._initializers()
        self._inputs()
        self._reserve_names()
        for node in self._in_order(self.graph.node):
            self._node(node, self.opset, 0)
        self._outputs_exist()
        if self.unsupported:
            count = len(self.unsupported)
            raise UnsupportedError(
                f"{count} {'thing' if count == 1 else 'things'} in it cannot be compiled",
                Location(self.source.file),
                diagnostics=tuple(self.unsupported),
            )
        self._check_outputs()
        outputs = tuple(o.name for o in self.graph.output)
        module = Module(
            replace(self.builder.graph("main", outputs), name=self.graph.name or "main"),
            self.sizes.names,
            self.builder.symbols,
        )
        return metadata.restore(module, self.notes, self.source)

    # -- what the model holds ----------------------------------------------------------------
    def _initializers(self) -> None:
        if self.graph.sparse_initializer:
            self._refuse(Location(self.source.file), "sparse initializers are not supported")
        for proto in self.graph.initializer:
            name = proto.name
            if not name:
                raise self.source.error("an initializer has no name")
            if name in self.builder.symbols:
                raise self.source.error(f"two initializers are named '{name}'")
            if proto.data_type not in DTYPES:
                self._refuse(
                    Location(self.source.file),
                    f"initializer '{name}': dtype {elem_type_name(proto.data_type)} "
                    "is not supported",
                )
                self.unknown.add(name)
                continue
            tensor = tensor_of(proto, self.source)
            kind = self.notes.kinds.get(name) or kind_of(tensor.type)
            self.builder.symbols[name] = Symbol(kind, tensor)

    def _inputs(self) -> None:
        """Inputs with an initializer are constants: before IR version 4 all of them had to be
        inputs too, and later a default value says what the model is meant to use."""
        for value in self.graph.input:
            if value.name in self.builder.symbols:
                continue
            if value.name in self.builder.types:
                raise self.source.error(f"two inputs are named '{value.name}'")
            try:
                type = input_type(value, self.source, self.sizes)
            except NotExpressible as e:
                self._refuse(Location(self.source.file), f"input '{value.name}': {e}")
                self.unknown.add(value.name)
                continue
            self.builder.input(value.name, type)

    def _reserve_names(self) -> None:
        """Names of the model's values, so that new ones do not take them."""
        for node in self.graph.node:
            self.builder.reserve(*node.output)

    def _in_order(self, nodes: Iterable[NodeProto]) -> list[NodeProto]:
        """The nodes so that each follows what it reads, in the model's order where that allows."""
        nodes = list(nodes)
        known = {*self.builder.symbols, *self.builder.types, *self.unknown, ""}
        maker: dict[str, int] = {}
        for k, node in enumerate(nodes):
            for name in node.output:
                if name and (name in maker or name in known):
                    raise self.source.error(f"value '{name}' is made twice", node_name(node))
                maker[name] = k
        missing = [(n, i) for n in nodes for i in n.input if i not in known and i not in maker]
        if missing:
            node, name = missing[0]
            raise self.source.error(
                f"{node.op_type} reads '{name}', which nothing makes",
                node_name(node),
                nearest(name, [*known - {""}, *maker]) if known or maker else "",
            )
        if all(maker.get(i, -1) < k for k, n in enumerate(nodes) for i in n.input if i):
            return nodes
        sorter = TopologicalSorter(
            {k: [maker[i] for i in n.input if i in maker] for k, n in enumerate(nodes)}
        )
        try:
            return [nodes[k] for k in sorter.static_order()]
        except CycleError as e:
            circle = " → ".join(node_name(nodes[k]) for k in reversed(e.args[1]))
            raise self.source.error(f"the nodes depend on each other in a circle: {circle}") from e

    # -- nodes -------------------------------------------------------------------------------
    def _node(self, node: NodeProto, opset: int, depth: int) -> None:
        """Adds what a node means, or says why it cannot be done."""
        self.location = Location(self.source.file, node=node_name(node))
        body = self.functions.get((node.domain, node.op_type))
        if body is not None:
            self._expand(node, body, depth)
            return
        if self._quantized(node, opset, depth):
            return
        if node.domain not in ("", "ai.onnx"):
            self._cannot(node, opset, f"domain {node.domain} is not supported")
        elif node.op_type == "Constant":
            self._constant(node, opset)
        elif any(i in self.unknown for i in node.input):
            self._after_unknown(node, opset)
        else:
            self._known_node(node, opset, depth)

    def _quantized(self, node: NodeProto, opset: int, depth: int) -> bool:
        """Adds what an op of quantized tensors stands for; False if it is none."""
        try:
            nodes = qlinear.expansion(node, self.builder.fresh)
        except NotExpressible as e:
            self._cannot(node, opset, str(e))
            return True
        for inner in nodes or ():
            self._node(inner, max(opset, qlinear.OPSET), depth + 1)
        return nodes is not None

    def _known_node(self, node: NodeProto, opset: int, depth: int) -> None:
        if node.op_type in TABLE or node.op_type in qlinear.SUMS:
            try:
                for draft in self._drafts(node, opset):
                    self._add(draft, node)
            except NotExpressible as e:
                self._cannot(node, opset, str(e))
            except VerifyError as e:
                self._refuse(self.location, e.message, e.help)
                self.unknown.update(filter(None, node.output))
            return
        types = [self._type_proto(i) for i in node.input]
        body = functions.definition(node, opset, types)
        if body is None or depth >= functions.MAX_DEPTH:
            self._cannot(node, opset, "there is no such op in nncc")
            return
        self._checked(node, opset)
        self._expand(node, body, depth)

    def _drafts(self, node: NodeProto, opset: int) -> list[Draft]:
        """The node in the versions of the op table."""
        schema = self._checked(node, opset)
        attrs = {a.name: attributes.python_value(a, self.source) for a in node.attribute}
        draft = Draft(node.op_type, tuple(node.input), tuple(node.output), attrs, schema.version)
        draft = padding.resolve(draft, self)
        if draft.op in qlinear.SUMS:
            return qlinear.integer_sums(draft, self)
        return convert(draft, lambda op: TABLE[op].since, self)

    def _checked(self, node: NodeProto, opset: int) -> Schema:
        """The schema of a node that fits it. Raises FrontendError, NotExpressible."""
        schema = schema_of(node.op_type, opset)
        if wrong := fault(node, schema):
            raise self.source.error(wrong, node_name(node))
        return schema

    def _add(self, draft: Draft, node: NodeProto) -> None:
        """A draft of the table's version becomes a node. Raises NotExpressible, VerifyError."""
        declared = TABLE[draft.op]
        attrs = {}
        for name, value in draft.attrs.items():
            if name in declared.attrs:
                attrs[name] = attributes.typed(value, declared.attrs[name])
            elif not _is_schema_default(draft, name, value):
                raise NotExpressible(f"attribute {name}={value} is not supported")
        inputs, outputs = without_absent_end(draft.inputs), without_absent_end(draft.outputs)
        if len(outputs) > len(declared.outputs) and not declared.outputs[-1].variadic:
            raise NotExpressible(f"its output number {len(outputs)} is used")
        if len(inputs) > len(declared.inputs) and not declared.inputs[-1].variadic:
            raise NotExpressible(f"its operand number {len(declared.inputs) + 1} is used")
        made = Node(draft.op, inputs, outputs, canonical_attrs(draft.op, attrs), (), self.location)
        self.builder.add(made)
        for name in filter(None, outputs):
            type = self.builder.types[name]
            least = 1 if self.builder.value(name) is None else 0  # a shape may be empty
            if any(isinstance(e, int) and e < least for e in type.shape):
                raise node_error(made, f"'{name}' would be {type}: an extent must be at least 1")
            check_size(type, f"value '{name}'", self.source, node_name(node))

    def _expand(self, node: NodeProto, body: FunctionProto, depth: int) -> None:
        if depth >= functions.MAX_DEPTH:
            raise self.source.error(
                f"function {node.op_type} is defined by itself, or through too many functions",
                node_name(node),
            )
        opset = next((o.version for o in body.opset_import if o.domain in ("", "ai.onnx")), 0)
        for inner in functions.instantiate(body, node, self.builder.fresh):
            self._node(inner, opset or self.opset, depth + 1)

    def _constant(self, node: NodeProto, opset: int) -> None:
        """A Constant node is a `const` symbol of its output's name."""
        try:
            kinds = self._checked(node, opset).kinds
            if len(node.attribute) != 1 or node.attribute[0].name not in kinds:
                raise self.source.error("a Constant has one attribute, its value", node_name(node))
            attribute = node.attribute[0]
            value = attributes.python_value(attribute, self.source)
            tensor = value if isinstance(value, Tensor) else _tensor(attribute.name, value)
        except NotExpressible as e:
            self._cannot(node, opset, str(e))
            return
        self.builder.symbols[node.output[0]] = Symbol("const", tensor)

    # -- what cannot be done -----------------------------------------------------------------
    def _after_unknown(self, node: NodeProto, opset: int) -> None:
        """Types are not known here any more; say at least whether the op itself would do."""
        known = node.op_type in TABLE or node.op_type in qlinear.SUMS
        if not known and functions.definition(node, opset, []) is None:
            self._cannot(node, opset, "there is no such op in nncc")
        self.unknown.update(filter(None, node.output))

    def _cannot(self, node: NodeProto, opset: int, reason: str) -> None:
        dtypes = [str(self.builder.type(i).dtype) for i in node.input if self._has_type(i)]
        op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        what = f"{op} (opset {opset}{', ' if dtypes else ''}{', '.join(dict.fromkeys(dtypes))})"
        self._refuse(self.location, f"{what}: {reason}")
        self.unknown.update(filter(None, node.output))

    def _refuse(self, location: Location, message: str, help: str = "") -> None:
        self.unsupported.append(Diagnostic(message, location, help))

    def _has_type(self, name: str) -> bool:
        return name in self.builder.types or name in self.builder.symbols

    # -- the end -----------------------------------------------------------------------------
    def _outputs_exist(self) -> None:
        if not self.graph.output:
            raise self.source.error("the graph has no outputs")
        for value in self.graph.output:
            if not self._has_type(value.name) and value.name not in self.unknown:
                raise self.source.error(f"output '{value.name}' is made by no node")

    def _check_outputs(self) -> None:
        """What the model says of its outputs must not contradict what its nodes give."""
        for value in self.graph.output:
            said = value.type.tensor_type
            found = self.builder.type(value.name)
            if said.elem_type and DTYPES.get(said.elem_type) is not found.dtype:
                raise self.source.error(
                    f"output '{value.name}' is declared {elem_type_name(said.elem_type)}, "
                    f"its node gives {found.dtype}"
                )
            if not said.HasField("shape"):
                continue
            extents = [d.dim_value if d.HasField("dim_value") else None for d in said.shape.dim]
            fits = len(extents) == found.rank and all(
                e is None or e < 0 or e == f or not isinstance(f, int)
                for e, f in zip(extents, found.shape, strict=True)
            )
            if not fits:
                shape = ",".join("?" if e is None else str(e) for e in extents)
                raise self.source.error(
                    f"output '{value.name}' is declared [{shape}], its node gives {found}"
                )

    def _type_proto(self, name: str) -> onnx.TypeProto:
        if not name:
            return onnx.TypeProto()
        type = self.builder.type(name)
        shape = [s if isinstance(s, int) else str(s) for s in type.shape]
        return onnx.helper.make_tensor_type_proto(ELEM_TYPES[type.dtype], shape)

    # -- the scope of version steps ----------------------------------------------------------
    def type(self, name: str) -> TensorType:
        return self.builder.type(name)

    def constant(self, name: str) -> np.ndarray | None:
        return self.builder.value(name)

    def add_constant(self, array: np.ndarray, hint: str) -> str:
        wish = self.notes.operands.get(hint, hint)
        known = self.builder.symbols.get(wish)
        if known is not None and wish != hint and np.array_equal(known.data.array, array):
            return wish
        name = self.builder.constant(array, wish)
        if wish != hint and wish in self.notes.kinds:
            symbol = self.builder.symbols[name]
            self.builder.symbols[name] = replace(symbol, kind=self.notes.kinds[wish])
        return name

    def absorb(self, name: str, hint: str) -> None:
        """Nothing: the constant keeps its name for other readers."""

    def fresh(self, hint: str) -> str:
        return self.builder.fresh(hint)


def node_name(node: NodeProto) -> str:
    """What users call a node."""
    return node.name or next((o for o in node.output if o), node.op_type)


def _is_schema_default(draft: Draft, name: str, value: object) -> bool:
    """Whether an attribute that the table lacks says only what is so anyway."""
    # the attribute may be newer than the version that the table works in
    attribute = onnx.defs.get_schema(draft.op).attributes.get(name)
    if attribute is None or not attribute.default_value.name:
        return False
    default = onnx.helper.get_attribute_value(attribute.default_value)
    if isinstance(default, bytes):
        default = default.decode()
    return bool(default == value)


def _tensor(name: str, value: object) -> Tensor:
    dtypes = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}
    if name not in dtypes:
        raise NotExpressible(f"a constant given as {name} is not supported")
    return Tensor(np.array(value, dtypes[name]))
