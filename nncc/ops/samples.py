"""Random small instances of ops, for the property tests.

Hypothesis chooses shapes and attributes (it shrinks them well); the data follow from a drawn
seed. Every function here gives what `op(sample=…)` takes: a function without arguments that
gives a strategy, so that hypothesis is imported by tests only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nncc.ir.types import DTYPES
from nncc.ops.table import Sample

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Strategy = Callable[[], "SearchStrategy[Sample]"]
Shape = Sequence[int]


class Draw:
    """What a sample function draws from: small numbers, choices, shapes, arrays."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        from hypothesis import strategies as st

        self._draw, self._st = draw, st
        self._rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    def whole(self, lo: int, hi: int) -> int:
        """lo..hi, both included."""
        return int(self._draw(self._st.integers(lo, hi)))

    def flag(self) -> bool:
        return bool(self._draw(self._st.booleans()))

    def choice(self, *options: Any) -> Any:
        return self._draw(self._st.sampled_from(options))

    def subset(self, options: Sequence[Any]) -> list[Any]:
        """Some of `options`, in their order; at least one."""
        kept = self._draw(self._st.lists(self._st.booleans(), min_size=1, max_size=len(options)))
        return [o for o, k in zip(options, kept, strict=False) if k] or [options[0]]

    def order(self, options: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self._draw(self._st.permutations(options)))

    def shape(self, rank: int | None = None, lo: int = 1, hi: int = 5) -> tuple[int, ...]:
        rank = self.whole(1, 4) if rank is None else rank
        return tuple(self.whole(lo, hi) for _ in range(rank))

    def broadcastable(self, shape: Shape) -> tuple[int, ...]:
        """A shape that broadcasts to `shape`: leading axes gone, others perhaps 1."""
        kept = shape[self.whole(0, len(shape)) :]
        return tuple(1 if self.flag() else extent for extent in kept)

    def floats(self, shape: Shape, dtype: str = "f32", lo: float = -3, hi: float = 3) -> np.ndarray:
        """Floats of lo..hi; a quarter of them are small integers, so that ties occur."""
        values = self._rng.uniform(lo, hi, tuple(shape))
        whole = np.clip(np.rint(values), lo, hi)
        mixed = np.where(self._rng.random(tuple(shape)) < 0.25, whole, values)
        return np.asarray(mixed, DTYPES[dtype].numpy)

    def ints(self, shape: Shape, dtype: str = "i64", lo: int = -9, hi: int = 9) -> np.ndarray:
        """Integers of lo..hi, both included, as far as the dtype reaches."""
        least, most = DTYPES[dtype].limits
        values = self._rng.integers(max(lo, least), min(hi, most), tuple(shape), endpoint=True)
        return np.asarray(values, DTYPES[dtype].numpy)

    def bools(self, shape: Shape) -> np.ndarray:
        return np.asarray(self._rng.random(tuple(shape)) < 0.5)

    def array(self, shape: Shape, dtype: str) -> np.ndarray:
        """Random data of any dtype."""
        if dtype == "bool":
            return self.bools(shape)
        return self.floats(shape, dtype) if DTYPES[dtype].is_float else self.ints(shape, dtype)


def sample(make: Callable[[Draw], Sample]) -> Strategy:
    """A strategy from a function that draws one instance."""

    def strategy() -> SearchStrategy[Sample]:
        from hypothesis import strategies as st

        @st.composite
        def composed(draw: Callable[[Any], Any]) -> Sample:
            return make(Draw(draw))

        return composed()

    return strategy


def i64(*values: int) -> np.ndarray:
    """A shape or axes operand."""
    return np.array(values, np.int64)
