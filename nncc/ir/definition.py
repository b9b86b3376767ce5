"""User-defined ops: from a `Definition` in index notation to a `Nest` for given input types.

    def rowsum(x: f32[N,C]; scale: float = 1.0) -> (y: f32[N]) { y[n] = scale * sum(c)(x[n,c]) }

    instantiate(rowsum, (f32[B,3],), {})   →
    nest rowsum(in x: f32[B,3], out y: f32[B], local y_sum: f32[B]; B) {
      y_sum_init: for n in 0..B { y_sum[n] = 0.0 }
      y_sum: for n in 0..B, c in 0..3 { y_sum[n] sum= x[n,c] }
      y: for n in 0..B { y[n] = 1.0 * y_sum[n] }
    }

The rules of what may be left out:
 - A dim that is a subscript of the target by itself runs over that extent of the target.
 - A dim that is reduced over runs over the extent of the tensors that it subscripts by itself;
   those with a border (`x[…] else v`) count only if there is no other. They must agree.
 - A reduction inside an expression gets a tensor of its own, over the dims that its body uses.
 - A tensor that is first written by a combine (`y[n] max= …`) starts at the combine's identity:
   all of it, whatever `where` or the subscripts leave out, and before the scans around.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nncc.diagnostics import VerifyError, nearest
from nncc.ir.definition_body import BodyBuilder, Ranges
from nncc.ir.graph import Attrs
from nncc.ir.index import Size, substitute, var, variables
from nncc.ir.nests import Definition, Nest, Param
from nncc.ir.types import TensorType


def output_types(
    definition: Definition, inputs: Sequence[TensorType], attrs: Attrs
) -> tuple[TensorType, ...]:
    """The types of the outputs. Raises VerifyError if the inputs or attributes do not fit."""
    sizes = _bind(definition, inputs, attrs)[0]
    return tuple(_type(definition, p, sizes) for p in definition.params if p.role == "out")


def instantiate(definition: Definition, inputs: Sequence[TensorType], attrs: Attrs) -> Nest:
    """The nest that the definition is for these input types and attributes.

    Its parameters are the definition's, in order, and then locals. Raises VerifyError if the
    inputs or attributes do not fit, or the range of a dim does not follow.
    """
    sizes, numbers = _bind(definition, inputs, attrs)
    outer = list(dict.fromkeys(v for t in inputs for e in t.shape for v in sorted(variables(e))))
    params = {p.name: replace(p, type=_type(definition, p, sizes)) for p in definition.params}
    builder = BodyBuilder(definition, params, frozenset(outer), sizes, numbers)
    try:
        body = builder.items(definition.body, Ranges())
    except ZeroDivisionError as error:
        message = f"{definition.name}: an index divides by zero: {error}"
        raise VerifyError(message, definition.location) from None
    return Nest(
        definition.name,
        tuple(outer),
        (*params.values(), *builder.locals),
        body,
        definition.combines,
        location=definition.location,
    )


def check_definition(definition: Definition) -> None:
    """Raises VerifyError if no nest can be made of the definition, whatever the inputs."""
    inputs = [p.type for p in definition.params if p.role == "in"]
    required = {
        a.name: {"float": 1.0, "bool": True}.get(a.type, 1)
        for a in definition.attributes
        if a.default is None
    }
    instantiate(definition, inputs, required)


# -- what the call says --------------------------------------------------------------------


def _bind(
    d: Definition, inputs: Sequence[TensorType], attrs: Attrs
) -> tuple[dict[str, Size], dict[str, float | bool]]:
    """The value of every size and int attribute, and that of the other attributes."""
    sizes: dict[str, Size] = {}
    numbers: dict[str, float | bool] = {}
    known = {a.name: a for a in d.attributes}
    for name in attrs:
        if name not in known:
            raise VerifyError(
                f"{d.name} has no attribute '{name}'",
                help=nearest(name, known, "attributes") if known else "",
            )
    for a in d.attributes:
        value = attrs.get(a.name, a.default)
        if value is None:
            raise VerifyError(f"{d.name} needs the attribute '{a.name}'")
        if a.type == "bool" and isinstance(value, bool):
            numbers[a.name] = value
        elif a.type == "int" and type(value) is int:
            sizes[a.name] = value
        elif a.type == "float" and isinstance(value, int | float) and not isinstance(value, bool):
            numbers[a.name] = float(value)
        else:
            raise VerifyError(f"{d.name}: attribute '{a.name}' is {value!r}, not of type {a.type}")
    _bind_sizes(d, inputs, sizes)
    return sizes, numbers


def _bind_sizes(d: Definition, inputs: Sequence[TensorType], sizes: dict[str, Size]) -> None:
    params = [p for p in d.params if p.role == "in"]
    if len(params) != len(inputs):
        raise VerifyError(f"{d.name} takes {len(params)} inputs, not {len(inputs)}")
    for p, t in zip(params, inputs, strict=True):
        if p.type.dtype is not t.dtype or p.type.rank != t.rank:
            raise VerifyError(f"{d.name}: {p.name} is {t}, it must be {p.type}")
        for declared, extent in zip(p.type.shape, t.shape, strict=True):
            (name,) = variables(declared) if declared == _plain(declared) else ("",)
            if name and name not in sizes:
                sizes[name] = extent
    for p, t in zip(params, inputs, strict=True):
        for declared, extent in zip(p.type.shape, t.shape, strict=True):
            if unbound := sorted(variables(declared) - sizes.keys()):
                raise VerifyError(
                    f"{d.name}: the size {unbound[0]} does not follow from the inputs' shapes",
                    d.location,
                    f"an input has to have {unbound[0]} by itself as an extent",
                )
            if (value := substitute(declared, sizes)) != extent:
                raise VerifyError(
                    f"{d.name}: {p.name} is {t}, but it must be {p.type}, where "
                    f"{declared} is {value}"
                )


def _plain(size: Size) -> Size | None:
    """`size` if it is just a variable."""
    names = variables(size)
    return size if len(names) == 1 and size == var(next(iter(names))) else None


def _type(d: Definition, p: Param, sizes: Mapping[str, Size]) -> TensorType:
    try:
        shape = tuple(substitute(e, sizes) for e in p.type.shape)
    except ZeroDivisionError as error:
        raise VerifyError(f"{d.name}: the shape of {p.name} divides by zero: {error}") from None
    for declared, extent in zip(p.type.shape, shape, strict=True):
        if isinstance(extent, int) and extent < 0:
            raise VerifyError(f"{d.name}: {p.name} would have the extent {declared} = {extent}")
    return TensorType(p.type.dtype, shape)
