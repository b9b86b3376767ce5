"""The op table: one declaration for each op, from which everything else follows.

    op("Relu", "x -> y", since=14,
       doc="max(x, 0), elementwise.",
       infer=same_as("x"), nest=elementwise(lambda x: maximum(x, 0)), sample=tensors(1))

From a declaration come the verifier, constructor, printer, parser, constant folder,
interpreter, support matrix, docs and the property test "every level and back end equals the
reference". The vocabulary is ONNX's in the version `since`; the front end raises older models to
it. Ops of our own have domain `nncc` and carry a numpy `reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nncc.diagnostics import VerifyError, nearest
from nncc.ir.graph import Attrs, AttrValue, Graph, Node
from nncc.ir.nests import Nest
from nncc.ir.types import TensorType

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

AttrKind = Literal["int", "float", "bool", "string", "ints", "floats", "strings", "dtype", "tensor"]


@dataclass(frozen=True, slots=True)
class Operand:
    """A formal input or output: `x`, optional `x?`, or variadic `x*` (only the last)."""

    name: str
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True, slots=True)
class AttrDecl:
    """A typed attribute; `default` None means that it may be absent (or must be given)."""

    kind: AttrKind
    default: AttrValue | None = None
    required: bool = False
    doc: str = ""


@dataclass(frozen=True)
class Site:
    """An op at a node: what inference, lowering and decomposition see.

    Args:
        node: the node.
        inputs: types of the node's inputs, None where an optional one is absent.
        constants: value of each input that is known at compile time (by position), else None.
        outputs: types of the outputs (empty during inference).
    """

    node: Node
    inputs: tuple[TensorType | None, ...]
    constants: tuple[np.ndarray | None, ...] = ()
    outputs: tuple[TensorType, ...] = ()

    def attr(self, name: str) -> Any:
        """The attribute's value, or its declared default."""
        return attr(self.node, name)


@dataclass(frozen=True)
class Op:
    """An op's declaration; see the module's docstring.

    Args:
        inputs, outputs: formal operands.
        since: the ONNX opset version whose semantics these are; for domain `nncc`, 1.
        infer: types of the outputs; raises `VerifyError` with a sentence if the node is wrong.
            Shape operands are read from `Site.constants`.
        nest: the op as a loop nest, with parameters in operand order (absent optional ones are
            left out) named by the formal operands (`x0, x1, …` for a variadic `x`).
        decompose: the op as nodes over other ops (`Graph` with the site's inputs and outputs),
            used by `legalize` where the target has no other way.
        reference: numpy function (inputs..., **attrs) -> tuple of arrays; None: onnx.reference.
        traits: `elementwise` (one output element from the input elements at the same broadcast
            position), `view` (elements are renumbered, none computed), `commutative`, …
        sample: hypothesis strategy of small random instances, as `Sample`.
        deviation: where the reference is deliberately not onnx.reference, and why.
        regions: number of bodies the op takes.
    """

    name: str
    doc: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    since: int
    infer: Callable[[Site], Sequence[TensorType]]
    attrs: Mapping[str, AttrDecl] = field(default_factory=dict)
    domain: Literal["ai.onnx", "nncc"] = "ai.onnx"
    nest: Callable[[Site], Nest] | None = None
    decompose: Callable[[Site], Graph] | None = None
    reference: Callable[..., tuple[np.ndarray, ...]] | None = None
    traits: frozenset[str] = frozenset()
    sample: Callable[[], SearchStrategy[Sample]] | None = None
    deviation: str = ""
    regions: int = 0


@dataclass(frozen=True)
class Sample:
    """A random instance of an op: arrays for its inputs (None: absent) and attributes."""

    inputs: tuple[np.ndarray | None, ...]
    attrs: Attrs = field(default_factory=dict)


TABLE: dict[str, Op] = {}


def op(
    name: str,
    signature: str,
    *,
    doc: str,
    infer: Callable[[Site], Sequence[TensorType]],
    since: int = 1,
    attrs: Mapping[str, AttrDecl] = MappingProxyType({}),
    traits: set[str] | frozenset[str] = frozenset(),
    **rest: Any,
) -> Op:
    """Declares an op and enters it into the table.

    `signature` is like `x w b? -> y`: operands by name, `?` optional, `*` variadic.
    """
    left, right = signature.split("->")
    declared = Op(
        name, doc, _operands(left), _operands(right), since, infer,
        attrs=MappingProxyType(dict(attrs)), traits=frozenset(traits), **rest,
    )  # fmt: skip
    if name in TABLE:
        raise ValueError(f"op {name} is declared twice")
    TABLE[name] = declared
    return declared


def _operands(text: str) -> tuple[Operand, ...]:
    return tuple(
        Operand(w.rstrip("?*"), optional=w.endswith("?"), variadic=w.endswith("*"))
        for w in text.split()
    )


def get(node: Node) -> Op:
    """The declaration of a node's op. Raises VerifyError with the nearest names."""
    if declared := TABLE.get(node.op):
        return declared
    raise VerifyError(f"there is no op '{node.op}'", node.location, nearest(node.op, TABLE, "ops"))


def attr(node: Node, name: str) -> Any:
    """A node's attribute, or its declared default. Raises KeyError if the op has no such one."""
    declared = get(node).attrs[name]
    return node.attrs.get(name, declared.default)
