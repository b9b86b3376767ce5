"""Named sizes at run time: found from the shapes of inputs, and kept in manifests.

solve = SizeSolver(signature)
solve({"image": (7, 1, 28, 28)})        {"N": 7}, or an NnccError that names the input
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nncc.diagnostics import NnccError, TargetError
from nncc.ir.index import COMBINE, Element, Size, atom, evaluate, product, var, variables
from nncc.ir.program import Signature

Shape = tuple[int, ...]


class SizeSolver:
    """Finds the named sizes from the shapes of the inputs.

    Raises TargetError if some size follows from no input: a size must occur in an extent that is
    linear in it once those found before are known.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._steps: list[tuple[str, str, int, Size]] = []  # size, input, axis, extent
        known: set[str] = set()
        extents = [
            (name, axis, extent)
            for name, t in signature.inputs
            for axis, extent in enumerate(t.shape)
        ]
        # plain names first: `N` says more about N than `2*N` does
        extents.sort(key=lambda e: str(e[2]) not in signature.sizes)
        progress = True
        while progress:
            progress = False
            for name, axis, extent in extents:
                unknown = variables(extent) - known
                if len(unknown) == 1 and _is_linear(extent, size := next(iter(unknown))):
                    self._steps.append((size, name, axis, extent))
                    known.add(size)
                    progress = True
        if missing := sorted(set(signature.sizes) - known):
            raise TargetError(f"size {missing[0]} does not follow from the shape of any input")

    def __call__(self, shapes: Mapping[str, Shape]) -> dict[str, int]:
        """The value of each named size. Raises NnccError that names an input which does not fit."""
        values: dict[str, int] = {}
        for name, t in self.signature.inputs:
            if len(shapes[name]) != t.rank:
                raise NnccError(
                    f"input '{name}' has {len(shapes[name])} dimensions, not {t.rank}: {t} is asked"
                )
        for size, name, axis, extent in self._steps:
            base = evaluate(extent, {**values, size: 0})
            slope = evaluate(extent, {**values, size: 1}) - base
            given = shapes[name][axis]
            value, rest = divmod(given - base, slope)
            if rest or value < 1:
                raise NnccError(f"dimension {axis} of input '{name}' is {given}, no {extent}")
            values[size] = value
        for name, t in self.signature.inputs:
            expected = tuple(evaluate(e, values) for e in t.shape)
            if expected != shapes[name]:
                raise NnccError(self._misfit(name, shapes[name], expected, values))
        return values

    def _misfit(self, name: str, given: Shape, expected: Shape, values: Mapping[str, int]) -> str:
        text = f"input '{name}' has shape {list(given)}, not {list(expected)}"
        t = dict(self.signature.inputs)[name]
        named = sorted(frozenset[str]().union(*(variables(e) for e in t.shape)))
        reasons = [f"{s} is {values[s]} by input '{n}'" for s, n, _, _ in self._steps if s in named]
        return f"{text} ({'; '.join(reasons)})" if reasons else text


def _is_linear(extent: Size, name: str) -> bool:
    return (
        not isinstance(extent, int)
        and all(
            monomial == (name,) or name not in variables(product(atom(a) for a in monomial))
            for monomial, _ in extent.terms
        )
        and extent.coefficient(name) != 0
    )


# -- in manifests ------------------------------------------------------------------------------
def to_json(size: Size) -> Any:
    """A size as JSON: a number, or a list of [factor, [atoms]]."""
    if isinstance(size, int):
        return size
    terms: list[Any] = []
    for monomial, factor in size.terms:
        atoms: list[Any] = []
        for a in monomial:
            assert not isinstance(a, Element), "sizes of a signature read no tensors"
            atoms.append(a if isinstance(a, str) else [a.fn, to_json(a.a), to_json(a.b)])
        terms.append([factor, atoms])
    return terms


def from_json(data: Any) -> Size:
    """The size that `to_json` wrote. Raises ValueError for anything else."""
    try:
        return _from_json(data)
    except (IndexError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{data!r} is no size") from error


def _from_json(data: Any) -> Size:
    if isinstance(data, bool) or not isinstance(data, int | list):
        raise ValueError(f"{data!r} is no size")
    if isinstance(data, int):
        return data
    total: Size = 0
    for factor, atoms in data:
        term: Size = int(factor)
        for a in atoms:
            if isinstance(a, str):
                term = term * var(a)
            elif a[0] in COMBINE:
                term = term * COMBINE[a[0]](_from_json(a[1]), _from_json(a[2]))
            else:
                raise ValueError(f"{a!r} is no part of a size")
        total = total + term
    return total
