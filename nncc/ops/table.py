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
    """A typed attribute; `default` None means that it may be absent (or must be given).

    `fill`, for `ints` with one entry for each axis (strides, pads): what every entry is where
    the attribute is absent.
    """

    kind: AttrKind
    default: AttrValue | None = None
    required: bool = False
    doc: str = ""
    fill: int | None = None


@dataclass(frozen=True)
class Site:
    """An op at a node: what inference, lowering and decomposition see.

    Args:
        node: the node.
        inputs: types of the node's inputs, None where an optional one is absent.
        constants: value of each input that is known at compile time (by position), else None.
            Values computed from shapes are object arrays of `Size`.
        outputs: types of the outputs (empty during inference).
        nests: the module's nests, for the op `Call`.
    """

    node: Node
    inputs: tuple[TensorType | None, ...]
    constants: tuple[np.ndarray | None, ...] = ()
    outputs: tuple[TensorType, ...] = ()
    nests: Mapping[str, Nest] = field(default_factory=dict)

    def attr(self, name: str) -> Any:
        """The attribute's value, or its declared default."""
        return attr(self.node, name)

    def per_axis(self, name: str, count: int) -> tuple[int, ...]:
        """An `ints` attribute with one entry for each of `count` axes.

        Raises VerifyError if it has another number of entries.
        """
        declared = get(self.node).attrs[name]
        given: tuple[int, ...] | None = self.node.attrs.get(name)  # type: ignore[assignment]
        if given is None:
            assert declared.fill is not None, f"{self.node.op}.{name} has no fill"
            return (declared.fill,) * count
        if len(given) != count:
            raise self.error(f"{name} has {len(given)} entries, {count} are needed")
        return given

    def input(self, name: str) -> TensorType:
        """The type of the formal input `name`, which must be given."""
        found = self.optional(name)
        assert found is not None, f"{self.node.op}: operand {name} is absent"
        return found

    def optional(self, name: str) -> TensorType | None:
        """The type of the formal input `name`; None where it is absent."""
        position = self._position(name)
        return self.inputs[position] if position < len(self.inputs) else None

    def constant(self, name: str) -> np.ndarray | None:
        """The compile-time value of the formal input `name`; None if unknown or absent."""
        position = self._position(name)
        return self.constants[position] if position < len(self.constants) else None

    def known(self, name: str) -> np.ndarray:
        """The value of `name`, which inference needs. Raises VerifyError if it is not known."""
        value = self.constant(name)
        if value is None:
            raise self.error(
                f"operand {name} must be known at compile time",
                "make it a constant, or compute it from shapes only",
            )
        return value

    def _position(self, name: str) -> int:
        return [o.name for o in get(self.node).inputs].index(name)

    def error(self, message: str, help: str = "") -> VerifyError:
        """An error to raise at this node, with the node's name and op."""
        return node_error(self.node, message, help)


@dataclass(frozen=True)
class Op:
    """An op's declaration; see the module's docstring.

    Args:
        inputs, outputs: formal operands.
        since: the ONNX opset version whose semantics these are; for domain `nncc`, 1.
        infer: types of the outputs; raises `VerifyError` with a sentence if the node is wrong.
            Shape operands are read from `Site.constants`.
        nest: the op as a loop nest, with parameters in operand order named by the formal
            operands (`x0, x1, …` for a variadic `x`). Operands that are absent or that the
            nest does not read (shapes, constants that stand in it as literals) have no
            parameter: match parameters with values by name, with `bind`.
        decompose: the op as nodes over other ops (`Graph` with the site's inputs and outputs),
            used by `legalize` where the target has no other way.
        no_nest: the reason, where an op has neither `nest` nor `decompose`.
        reference: numpy function (inputs..., **attrs) -> tuple of arrays; None: onnx.reference.
        shape_rule: the op on small integer tensors that are known up to named sizes: function
            of the site, whose `constants` are all known, giving an object array of `Size` for
            the output, or None. So shapes that a model computes are known at compile time.
        traits: see `TRAITS`.
        accumulator: for ops that sum integers: the largest magnitude that a sum can reach, from the
            site and a function that gives an input's array where it is known (of any size). The
            verifier refuses what may leave int32.
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
    no_nest: str = ""
    decompose: Callable[[Site], Graph] | None = None
    reference: Callable[..., tuple[np.ndarray, ...]] | None = None
    shape_rule: Callable[[Site], np.ndarray | None] | None = None
    traits: frozenset[str] = frozenset()
    accumulator: Callable[[Site, Callable[[str], np.ndarray | None]], int] | None = None
    sample: Callable[[], SearchStrategy[Sample]] | None = None
    deviation: str = ""
    regions: int = 0


@dataclass(frozen=True)
class Sample:
    """A random instance of an op: arrays for its inputs (None: absent) and attributes."""

    inputs: tuple[np.ndarray | None, ...]
    attrs: Attrs = field(default_factory=dict)
    outputs: int = 1


TABLE: dict[str, Op] = {}

# Tensors up to this size are looked into during inference; shapes and axes are far smaller.
KNOWN_ELEMENTS = 4096

TRAITS = {
    "elementwise": "one output element from the input elements at the same broadcast position",
    "view": "elements are renumbered, none is computed",
    "alias": "a view that keeps the row-major order: the output can be the input's buffer",
    "of_shape": "the value follows from the shapes of the inputs alone",
    "commutative": "the operands may be exchanged",
    "contraction": "a sum of products of two operands",
    "reduction": "many input elements make one output element",
    "requantizes": "gives integers of a stated scale from wider ones: part of an epilogue",
}


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
    if unknown := set(traits) - TRAITS.keys():
        raise ValueError(f"op {name} has unknown traits {sorted(unknown)}")
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


def canonical_attrs(name: str, attrs: Attrs) -> dict[str, AttrValue]:
    """`attrs` of an op without those at their default, so that equal nodes compare equal.

    >>> canonical_attrs("Conv", {"group": 1, "pads": (0, 0, 0, 0), "strides": (2, 2)})
    {'strides': (2, 2)}
    """
    declared = TABLE[name].attrs

    def is_default(key: str, value: AttrValue) -> bool:
        if key not in declared:
            return False
        d = declared[key]
        if d.fill is not None and isinstance(value, tuple):
            return all(v == d.fill for v in value)
        return d.default is not None and value == d.default

    return {k: v for k, v in attrs.items() if not is_default(k, v)}


def bind(node: Node) -> dict[str, str]:
    """The node's values by the names that the op's nest gives them, inputs before outputs.

    >>> bind(Node("Concat", ("a", "b"), ("c",)))
    {'x0': 'a', 'x1': 'b', 'y': 'c'}
    """
    declared = get(node)
    pairs = [*_named(declared.inputs, node.inputs), *_named(declared.outputs, node.outputs)]
    return {formal: actual for formal, actual in pairs if actual}


def shape_value(site: Site, types: Sequence[TensorType]) -> np.ndarray | None:
    """The value of a node's output by the op's `shape_rule`, as an object or integer array.

    None if the op has no such rule, an input that it needs is not known, or the output, whose type
    is the first of `types`, has too many elements to be a shape.
    """
    declared = TABLE.get(site.node.op)
    if declared is None or declared.shape_rule is None:
        return None
    elements = types[0].elements
    if not isinstance(elements, int) or not 0 <= elements <= KNOWN_ELEMENTS:
        return None
    known = all(
        v is not None or not i for i, v in zip(site.node.inputs, site.constants, strict=True)
    )
    if not known and "of_shape" not in declared.traits:
        return None
    value = declared.shape_rule(site)
    # numpy gives an element of rank 0 as a bare object
    return None if value is None else np.asarray(value, object)


def operand_position(declared: Op, name: str) -> int:
    """Where the input that `bind` calls `name` stands among a node's inputs."""
    for position, operand in enumerate(declared.inputs):
        if operand.name == name:
            return position
        if operand.variadic and name.startswith(operand.name):
            return position + int(name[len(operand.name) :])
    raise KeyError(name)


def _named(formals: tuple[Operand, ...], names: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for position, operand in enumerate(formals):
        if operand.variadic:
            rest = names[position:]
            pairs += [(f"{operand.name}{k}", v) for k, v in enumerate(rest)]
        elif position < len(names):
            pairs.append((operand.name, names[position]))
    return pairs


def node_error(node: Node, message: str, help: str = "") -> VerifyError:
    """An error at a node, in the form that all messages about nodes have."""
    subject = node.op if node.location.node else f"node '{node.name}' ({node.op})"
    return VerifyError(f"{subject}: {message}", node.location, help)
