"""Which positions of a tensor a tile touches, as bit masks.

Dimensions of a tensor whose subscripts share no loop are independent: the elements that a tile
touches are the product of one set of positions for each of them. `Axis` is one such factor: bit
`p` of `mask(ranges)` says that position `p` is touched. Subscripts that share loops, as in
`x[i, i + j]`, and those in which several accesses differ, as in a five-point stencil, form one
axis together, with positions counted row-major. Strides, dilations, gaps, borders, divisions
and remainders are all exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from nncc.ir.index import Size, affine, evaluate, variables

if TYPE_CHECKING:
    from nncc.passes.reuse.traffic import Sums

Range = tuple[int, int]  # lo..hi, hi excluded


@dataclass(frozen=True)
class Hull:
    """A tile with sides t touches positions in an interval of length
    `1 + spread + sum of factors[d] * (t[d] - 1)`."""

    factors: Mapping[str, int]
    spread: int


@dataclass(frozen=True, eq=False)
class Axis:
    """One factor of a tensor's touched elements.

    Args:
        dims: the loop dimensions that its subscripts use.
        subscripts: for each access one subscript a tensor dimension of this axis; none: every
            position counts as touched.
        extents: of those tensor dimensions.
        masks, sums, largest: what has been computed of it.
    """

    dims: tuple[str, ...]
    subscripts: tuple[tuple[Size, ...], ...]
    extents: tuple[int, ...]
    masks: dict[tuple[Range, ...], int] = field(default_factory=dict)
    sums: dict[object, Sums] = field(default_factory=dict)
    largest: dict[object, int] = field(default_factory=dict)

    @cached_property
    def hull(self) -> Hull | None:
        """The hull of the positions; None where subscripts are not all affine alike."""
        if len(self.extents) > 1:
            return None
        forms = [affine(subscript[0], self.dims) for subscript in self.subscripts]
        factors = forms[0][0] if forms and forms[0] else {}
        offsets = []
        for form in forms:
            if form is None or form[0] != factors or not isinstance(form[1], int):
                return None
            offsets.append(form[1])
        spread = max(offsets) - min(offsets) if offsets else 0
        return Hull({d: abs(f) for d, f in factors.items()}, spread)

    def mask(self, ranges: tuple[Range, ...]) -> int:
        """The positions touched when each of `dims` runs over its range."""
        found = self.masks.get(ranges)
        if found is None:
            named = dict(zip(self.dims, ranges, strict=True))
            found = 0 if self.subscripts else (1 << math.prod(self.extents)) - 1
            for subscript in self.subscripts:
                found |= _mask(subscript, self.extents, named)
            self.masks[ranges] = found
        return found


def _mask(subscript: Sequence[Size], extents: Sequence[int], ranges: Mapping[str, Range]) -> int:
    if len(subscript) == 1 and (form := affine(subscript[0], ranges)) is not None:
        factors, offset = form
        assert isinstance(offset, int)
        return _affine_mask(factors, offset, extents[0], ranges)
    return _general_mask(subscript, extents, ranges)


def _affine_mask(
    factors: Mapping[str, int], offset: int, extent: int, ranges: Mapping[str, Range]
) -> int:
    """Sums of multiples of the dimensions: one shifted copy of the mask for each step of a dim.

    The lowest position may lie before the tensor: masks are built relative to it.
    """
    mask, lowest = 1, offset
    for dim, factor in factors.items():
        lo, hi = ranges[dim]
        lowest += min(factor * lo, factor * (hi - 1))
        mask = _comb(mask, abs(factor), hi - lo)
    mask = mask >> -lowest if lowest < 0 else mask << lowest
    return mask & ((1 << extent) - 1)


def _comb(mask: int, step: int, count: int) -> int:
    """`count` copies of `mask`, each `step` bits above the last (or-ed by doubling)."""
    done = 1
    while done < count:
        more = min(done, count - done)
        mask |= mask << (step * more)
        done += more
    return mask


def _general_mask(
    subscript: Sequence[Size], extents: Sequence[int], ranges: Mapping[str, Range]
) -> int:
    import numpy as np

    used = sorted(frozenset[str]().union(*(variables(s) for s in subscript)) & ranges.keys())
    grid = np.meshgrid(*(np.arange(*ranges[d]) for d in used), indexing="ij", sparse=True)
    values = dict(zip(used, grid, strict=True))
    flat: object = 0
    inside: object = True
    for size, extent in zip(subscript, extents, strict=True):
        position = np.asarray(evaluate(size, values))  # type: ignore[arg-type]
        inside = inside & (position >= 0) & (position < extent)  # type: ignore[operator]
        flat = flat * extent + position  # type: ignore[operator]
    flat, inside = np.broadcast_arrays(flat, inside)  # type: ignore[arg-type]
    touched = np.zeros(int(np.prod(extents)), dtype=bool)
    touched[flat[inside]] = True
    return int.from_bytes(np.packbits(touched, bitorder="little").tobytes(), "little")
