"""The items of a text as classes: symbols, graphs, definitions, nests, functions, the module.

Like `syntax.py`, one class a rule of the grammar; names are tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lark import Token

from nncc.ir.text.syntax import (
    AttributeText,
    Data,
    Expression,
    LayoutText,
    Range,
    Subscript,
    Type,
)


@dataclass(slots=True)
class SymbolText:
    """`const name: type = data`."""

    kind: Token
    name: Token
    type: Type
    data: Data


# -- graphs --------------------------------------------------------------------------------


@dataclass(slots=True)
class ValueText:
    """`name: type @ layout`."""

    name: Token
    type: Type | None
    layout: LayoutText | None


@dataclass(slots=True)
class NodeText:
    """`outputs = Op(inputs) {attributes} at "…" regions`."""

    outputs: tuple[ValueText, ...]
    op: Token
    inputs: tuple[Token, ...]
    attributes: tuple[AttributeText, ...]
    source: str
    regions: tuple[GraphText, ...]


@dataclass(slots=True)
class UpdateText:
    """`update state = value`."""

    state: Token
    value: Token


@dataclass(slots=True)
class PlacementText:
    """`layout symbol @ (…)`."""

    name: Token
    layout: LayoutText


@dataclass(slots=True)
class GraphText:
    """A graph or a region."""

    name: Token
    inputs: tuple[ValueText, ...]
    outputs: tuple[ValueText, ...]
    entries: tuple[NodeText | UpdateText | PlacementText, ...]


# -- definitions and nests -----------------------------------------------------------------


@dataclass(slots=True)
class ParamText:
    """A tensor of a nest, or of a definition, where it has its role from its place."""

    role: str
    name: Token
    type: Type
    layout: LayoutText | None = None


@dataclass(slots=True)
class OptionText:
    """An attribute of a definition."""

    name: Token
    type: Token
    default: Token | None


@dataclass(slots=True)
class CombineText:
    """A declared combine."""

    name: Token
    dtypes: tuple[Token, ...]
    values: tuple[Expression, ...]
    identity: tuple[Expression, ...]


@dataclass(slots=True)
class Assignment:
    """`targets combine= values`."""

    targets: tuple[Subscript, ...]
    combine: Token | None
    values: tuple[Expression, ...]
    source: str


@dataclass(slots=True)
class StatementText:
    """`label: for dims where constraints { assignment }`."""

    label: Token | None
    dims: tuple[Range, ...]
    where: tuple[Expression, ...]
    assignment: Assignment


@dataclass(slots=True)
class ScanText:
    """`scan dim { steps }`."""

    dim: Range
    body: tuple[StatementText | ScanText, ...]


@dataclass(slots=True)
class DefinitionText:
    """`def name(inputs; options) -> (outputs) { "doc" combines locals body }`."""

    name: Token
    inputs: tuple[ParamText, ...]
    options: tuple[OptionText, ...]
    outputs: tuple[ParamText, ...]
    source: str
    doc: str
    combines: tuple[CombineText, ...]
    locals: tuple[ParamText, ...]
    body: tuple[StatementText | ScanText, ...]


@dataclass(slots=True)
class BandText:
    """`for dim by step { body }`."""

    kind: Token
    dim: Token
    step: Expression | None
    body: tuple[Any, ...]


@dataclass(slots=True)
class HomeText:
    """`local tensors in space { body }`."""

    tensors: tuple[Token, ...]
    space: Token
    body: tuple[Any, ...]


@dataclass(slots=True)
class LeafText:
    """`statement with operation(dims) prefetch(distances)`."""

    statement: Token
    operation: Token | None
    dims: tuple[tuple[Token, Token], ...]
    prefetch: tuple[tuple[Token, Token], ...]


@dataclass(slots=True)
class ScheduleText:
    """`schedule { trees }`."""

    trees: tuple[BandText | HomeText | LeafText, ...]


@dataclass(slots=True)
class NestText:
    """A nest."""

    name: Token
    params: tuple[ParamText, ...]
    sizes: tuple[Token, ...]
    source: str
    combines: tuple[CombineText, ...]
    body: tuple[StatementText | ScanText, ...]
    schedule: ScheduleText | None


# -- loops functions -----------------------------------------------------------------------


@dataclass(slots=True)
class BufferText:
    """A buffer; `access` is `in`, `out` or `local`."""

    access: str
    name: Token
    type: Type
    space: Token | None
    alignment: Token | None


@dataclass(slots=True)
class LoopText:
    """`for variable in lo..hi step step { body }`."""

    kind: Token
    range: Range
    step: Token | None
    body: tuple[Any, ...]


@dataclass(slots=True)
class BranchText:
    """`if condition { then } else { otherwise }`."""

    condition: Expression
    then: tuple[Any, ...]
    otherwise: tuple[Any, ...]


@dataclass(slots=True)
class RepeatText:
    """`while condition { body }`."""

    condition: Expression
    body: tuple[Any, ...]


@dataclass(slots=True)
class BindText:
    """`let name: type = value`; `keyword` is `let`, `declare`, or "" for an assignment."""

    keyword: str
    name: Token
    type: Token | None
    value: Expression


@dataclass(slots=True)
class StoreText:
    """`buffer[indices] = value`."""

    target: Subscript
    value: Expression


@dataclass(slots=True)
class AllocText:
    """`alloc buffer { body }`."""

    buffer: BufferText
    body: tuple[Any, ...]


@dataclass(slots=True)
class InvokeText:
    """`call callee(views; sizes) at "…"`."""

    callee: Token
    views: tuple[tuple[Token, Expression | None], ...]
    sizes: tuple[Expression, ...]
    source: str


@dataclass(slots=True)
class PrefetchText:
    """`prefetch buffer[indices]`."""

    target: Subscript


@dataclass(slots=True)
class PerformText:
    """`perform operation for dims { target combine= operands }`."""

    operation: Token
    dims: tuple[Range, ...]
    target: Subscript
    combine: Token | None
    operands: tuple[Expression, ...]


@dataclass(slots=True)
class FunctionText:
    """A loops function."""

    name: Token
    buffers: tuple[BufferText, ...]
    sizes: tuple[Token, ...]
    source: str
    body: tuple[Any, ...]


@dataclass(slots=True)
class SizesText:
    """`size N, M`."""

    names: tuple[Token, ...]


@dataclass(slots=True)
class ModuleText:
    """The whole text."""

    version: Token
    items: tuple[Any, ...]
