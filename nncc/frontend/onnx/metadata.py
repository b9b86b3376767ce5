"""What a module says and ONNX has no words for, kept as JSON in the model's metadata ("nncc").

    kinds    initializer → "param", "const" or "state", where it is not what the importer assumes
    states   state → {output, fill}: the output that is its next value; `fill`, for states with
             named sizes, is the initializer (of rank 0) that fills it at first
    aliases  output → value: Identity nodes that stand only because ONNX wants outputs to have
             names of their own
    operands constants that became attributes in this opset: what raising the attribute again would
             call the constant → its name
    sizes    the named sizes in order, where the inputs do not say it

Other programs ignore it: to them a state is one more input, with its first value as default where
its sizes are fixed, and one more output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import onnx

from nncc.frontend.onnx.source import Source
from nncc.ir.graph import Module, Symbol

KEY = "nncc"
SymbolKind = Literal["const", "param", "state"]


@dataclass(frozen=True)
class Notes:
    """The metadata; see the module's docstring."""

    kinds: Mapping[str, SymbolKind] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    operands: Mapping[str, str] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()

    def write(self, model: onnx.ModelProto) -> None:
        """Puts the notes into the model, if they say anything."""
        found = {k: v for k, v in vars(self).items() if v}
        if found:
            model.metadata_props.add(key=KEY, value=json.dumps(found, sort_keys=True))


def read(source: Source) -> Notes:
    """The notes of a model. Raises FrontendError if they are not what `write` writes."""
    text = next((p.value for p in source.model.metadata_props if p.key == KEY), "{}")
    try:
        found: dict[str, Any] = json.loads(text)
        notes = Notes(**{**found, "sizes": tuple(found.get("sizes", ()))})
        wrong = set(notes.kinds.values()) - {"const", "param", "state"}
        outputs = [*(s["output"] for s in notes.states.values()), *notes.aliases.values()]
        outputs += notes.operands.values()
        if wrong or not all(isinstance(n, str) for n in (*outputs, *notes.sizes)):
            raise ValueError(f"{wrong or outputs}")
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise source.error(f"its metadata '{KEY}' is not what nncc writes: {e}") from e
    return notes


def restore(module: Module, notes: Notes, source: Source) -> Module:
    """The imported module with its states, and without the nodes that only ONNX needed."""
    if not (notes.states or notes.aliases or notes.sizes):
        return module
    graph = module.graph
    makers = {name: s["output"] for name, s in notes.states.items()}
    for name, output in makers.items():
        known = name in module.symbols or name in graph.inputs
        if not known or output not in graph.outputs:
            raise source.error(f"its metadata names a state '{name}' that the graph does not have")
    for output, value in notes.aliases.items():
        node = graph.producer.get(output)
        if node is None or node.op != "Identity" or node.inputs != (value,):
            raise source.error(f"its metadata names an alias '{output}' that does not exist")

    def resolved(name: str) -> str:
        return notes.aliases.get(name, name)

    symbols = dict(module.symbols)
    filled = {name: s["fill"] for name, s in notes.states.items() if "fill" in s}
    for name, fill in filled.items():
        symbols[name] = Symbol("state", symbols.pop(fill).data, graph.types[name])
    graph = replace(
        graph,
        inputs=tuple(i for i in graph.inputs if i not in filled),
        outputs=tuple(resolved(o) for o in graph.outputs if o not in makers.values()),
        nodes=tuple(n for n in graph.nodes if not notes.aliases.keys() & set(n.outputs)),
        types={k: v for k, v in graph.types.items() if k not in filled and k not in notes.aliases},
        updates=tuple((name, resolved(output)) for name, output in makers.items()),
    )
    return replace(module, graph=graph, symbols=symbols, sizes=notes.sizes or module.sizes)
