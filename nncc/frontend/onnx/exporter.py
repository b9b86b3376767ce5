"""From a module to an ONNX model: the opposite of `importer`.

    Module(graph, symbols)   →   ModelProto in the oldest opset from 17 on that expresses it

Groups are inlined, nodes are lowered to the versions of the opset, integer ops become
quantize-dequantize pairs (`qdq`). Everything that has no form in ONNX is reported at once.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from nncc.diagnostics import Diagnostic, FrontendError, Location, UnsupportedError
from nncc.frontend.onnx import attributes, qdq
from nncc.frontend.onnx.importer import kind_of
from nncc.frontend.onnx.inlining import inline_groups
from nncc.frontend.onnx.metadata import Notes, SymbolKind
from nncc.frontend.onnx.tensors import ELEM_TYPES, proto_of
from nncc.frontend.onnx.versions import Draft, NotExpressible, convert
from nncc.ir.graph import Module, Node
from nncc.ir.index import variables
from nncc.ir.types import TensorType
from nncc.ops.builder import GraphBuilder
from nncc.ops.table import TABLE

OLDEST_OPSET = 17
MAX_BYTES = (1 << 31) - (1 << 20)  # protobuf's limit for one message, less some for the nodes
IR_VERSION = 8  # that of opset 17; newer opsets may ask for more


def write(module: Module, path: Path, opset: int | None) -> None:
    """Writes the model beside `path` and renames it, so that no half file is ever seen."""
    data = export_model(module, opset).SerializeToString()
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as e:
        raise FrontendError(f"cannot be written: {e.strerror}", Location(str(path))) from e
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def export_model(module: Module, opset: int | None = None) -> onnx.ModelProto:
    """The model of a module's main graph. Raises UnsupportedError, FrontendError."""
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise FrontendError(f"opset {opset} cannot be written; {OLDEST_OPSET} to {newest} can")
    module = replace(module, graph=inline_groups(module.graph))
    versions = range(OLDEST_OPSET, newest + 1) if opset is None else (opset,)
    problems: list[Diagnostic] = []
    for version in versions:
        exporter = _Exporter(module, version)
        exporter.nodes()
        if not exporter.problems:
            return exporter.model()
        if not problems or len(exporter.problems) < len(problems):
            problems = exporter.problems
    count = f"{len(problems)} node{'s' if len(problems) > 1 else ''}"
    where = "ONNX" if opset is None else f"opset {opset}"
    raise UnsupportedError(f"{count} cannot be written in {where}", diagnostics=tuple(problems))


class _Exporter:
    """One attempt to write a module in one opset; also the scope of version steps."""

    def __init__(self, module: Module, opset: int) -> None:
        self.module, self.opset = module, opset
        self.problems: list[Diagnostic] = []
        self.protos: list[onnx.NodeProto] = []
        self.builder = GraphBuilder(module.symbols)
        self.builder.types.update(module.graph.types)
        self.aliases: dict[str, str] = {}
        self.names: set[str] = set()
        self.operands: dict[str, str] = {}

    # -- nodes -------------------------------------------------------------------------------
    def nodes(self) -> None:
        """Writes every node, or notes why it cannot be."""
        for node in self.module.graph.nodes:
            try:
                for draft in self._drafts(node):
                    self._add(draft, node.location.node)
            except NotExpressible as e:
                self.problems.append(Diagnostic(f"{node.op}: {e}", Location(node=node.name)))

    def _drafts(self, node: Node) -> list[Draft]:
        if node.op in self.module.definitions:
            raise NotExpressible("an op defined in index notation has no form in ONNX")
        declared = TABLE[node.op]
        if declared.domain == "nncc":
            drafts = qdq.lower(node, self.module, self)
        else:
            attrs = {k: attributes.untyped(v) for k, v in node.attrs.items()}
            drafts = [Draft(node.op, node.inputs, node.outputs, attrs, declared.since)]
        return [c for d in drafts for c in convert(d, self._version, self)]

    def _version(self, op: str) -> int:
        try:
            return int(onnx.defs.get_schema(op, self.opset, "").since_version)
        except onnx.defs.SchemaError as e:
            raise NotExpressible(f"opset {self.opset} has no {op}") from e

    def _add(self, draft: Draft, name: str) -> None:
        schema = onnx.defs.get_schema(draft.op, self.opset, "")
        unknown = [a for a in draft.attrs if a not in schema.attributes]
        if unknown:
            raise NotExpressible(f"{draft.op} has no attribute {unknown[0]} in opset {self.opset}")
        if len(draft.inputs) > schema.max_input:
            raise NotExpressible(f"{draft.op} has fewer operands in opset {self.opset}")
        self._check_dtypes(draft, schema)
        self.protos.append(
            onnx.NodeProto(
                op_type=draft.op,
                name=self._node_name(name, draft.op),
                input=draft.inputs,
                output=draft.outputs,
                attribute=[
                    attributes.to_proto(k, v, schema.attributes[k].type)
                    for k, v in draft.attrs.items()
                ],
            )
        )

    def _node_name(self, name: str, op: str) -> str:
        """Names must be unique where they are given; a source node may have become several."""
        if not name:
            return ""
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}/{op}" if count == 2 else f"{name}/{op}_{count - 1}"
        self.names.add(unique)
        return unique

    def _check_dtypes(self, draft: Draft, schema: onnx.defs.OpSchema) -> None:
        constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
        for k, name in enumerate(draft.inputs):
            if not name or not self._has_type(name):
                continue
            formal = schema.inputs[min(k, len(schema.inputs) - 1)]
            allowed = constraints.get(formal.type_str, [formal.type_str])
            elem = ELEM_TYPES[self.type(name).dtype]
            spelled = onnx.helper.tensor_dtype_to_string(elem).split(".")[1].lower()
            if f"tensor({spelled})" not in allowed:
                raise NotExpressible(
                    f"{draft.op} does not take {self.type(name).dtype} in opset {self.opset}"
                )

    def _has_type(self, name: str) -> bool:
        return name in self.builder.types or name in self.builder.symbols

    # -- the model ---------------------------------------------------------------------------
    def model(self) -> onnx.ModelProto:
        """The model, when all nodes are written."""
        graph = self.module.graph
        updates = [(state, self._state_output(state, value)) for state, value in graph.updates]
        outputs = [self._output(name, k) for k, name in enumerate(graph.outputs)]
        states = {name: s for name, s in self.module.symbols.items() if s.kind == "state"}
        notes_of_states: dict[str, dict[str, str]] = {}
        inputs = [self._value(name) for name in graph.inputs]
        fills: dict[str, str] = {}
        for name, output in updates:
            inputs.append(self._value(name))
            notes_of_states[name] = {"output": output}
            if states[name].declared is not None:
                fills[name] = notes_of_states[name]["fill"] = self.fresh(f"{name}.fill")
        proto = onnx.GraphProto(
            name=graph.name,
            node=self.protos,
            input=inputs,
            output=[*outputs, *(self._value(state, name=o) for state, o in updates)],
            initializer=self._initializers(fills),
        )
        ir_version = max(IR_VERSION, _ir_version(self.opset))
        model = onnx.ModelProto(
            ir_version=ir_version,
            producer_name="nncc",
            opset_import=[helper.make_opsetid("", self.opset)],
            graph=proto,
        )
        Notes(self._kinds(), notes_of_states, self.aliases, self.operands, self._sizes()).write(
            model
        )
        return model

    def _initializers(self, fills: dict[str, str]) -> list[onnx.TensorProto]:
        """All symbols but those that became attributes, or that integer ops were lowered with."""
        written = {i for p in self.protos for i in p.input}
        gone = {i for n in self.module.graph.nodes for i in n.inputs} - written
        symbols = self.builder.symbols
        kept = {n: s for n, s in symbols.items() if n not in gone or s.kind == "state"}
        size = sum(s.data.array.nbytes for s in kept.values())
        if size > MAX_BYTES:
            raise UnsupportedError(f"the weights are {size / 1e9:.1f} GB; a model file holds 2 GB")
        return [proto_of(s.data, fills.get(n, n)) for n, s in kept.items()]

    def _kinds(self) -> dict[str, SymbolKind]:
        """The kinds that the importer would not guess."""
        return {
            name: s.kind
            for name, s in self.module.symbols.items()
            if s.declared is None and kind_of(s.type) != s.kind
        }

    def _sizes(self) -> tuple[str, ...]:
        """The sizes, if reading the inputs would not find them, or in another order."""
        found = dict.fromkeys(
            v
            for name in (*self.module.graph.inputs, *(s for s, _ in self.module.graph.updates))
            for extent in self.module.type_of(name).shape
            for v in variables(extent)
        )
        return () if tuple(found) == self.module.sizes else self.module.sizes

    def _output(self, name: str, position: int) -> onnx.ValueInfoProto:
        """ONNX wants an output to be made by a node, and to be named once."""
        graph = self.module.graph
        if name in graph.producer and name not in graph.outputs[:position]:
            return self._value(name)
        return self._value(name, name=self._alias(name, f"{name}.out"))

    def _state_output(self, state: str, value: str) -> str:
        graph = self.module.graph
        taken = [v for _, v in graph.updates].count(value) > 1 or value in graph.outputs
        if value in graph.producer and not taken:
            return value
        return self._alias(value, f"{state}.next")

    def _alias(self, value: str, hint: str) -> str:
        name = self.fresh(hint)
        self.protos.append(helper.make_node("Identity", [value], [name]))
        self.aliases[name] = value
        return name

    def _value(self, value: str, name: str = "") -> onnx.ValueInfoProto:
        type = self.type(value)
        shape = [s if isinstance(s, int) else str(s) for s in type.shape]
        return helper.make_tensor_value_info(name or value, ELEM_TYPES[type.dtype], shape)

    # -- the scope of version steps ----------------------------------------------------------
    def type(self, name: str) -> TensorType:
        if not self._has_type(name):
            raise NotExpressible(f"the type of '{name}' is not known")
        return self.builder.type(name)

    def constant(self, name: str) -> np.ndarray | None:
        return self.builder.value(name)

    def add_constant(self, array: np.ndarray, hint: str) -> str:
        return self.builder.constant(array, hint)

    def absorb(self, name: str, hint: str) -> None:
        self.operands[hint] = name

    def fresh(self, hint: str) -> str:
        return self.builder.fresh(hint)


def _ir_version(opset: int) -> int:
    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)], True))
