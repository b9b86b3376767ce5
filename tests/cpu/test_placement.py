"""Offsets of buffers: nothing that is alive overlaps, for any sizes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.ir.index import Size, evaluate, var
from nncc.ir.nests import Layout
from nncc.ir.packing import _digits, pack, unpack
from nncc.passes.placement import Interval, aligned, place

N, H = var("N"), var("H")

sizes = st.one_of(
    st.integers(1, 5000),
    st.integers(1, 5000).map(lambda c: c * N),
    st.tuples(st.integers(1, 300), st.integers(0, 300)).map(lambda c: c[0] * N * H + c[1]),
    st.integers(1, 100).map(lambda c: c * ((H + 1) // 2) * N),
    st.integers(2, 100).map(lambda c: c * N + c * H - c),
)


@st.composite
def intervals(draw: st.DrawFn) -> list[Interval]:
    found = []
    for k in range(draw(st.integers(1, 12))):
        first = draw(st.integers(0, 8))
        found.append(Interval(f"t{k}", draw(sizes), first, first + draw(st.integers(0, 4))))
    return found


@settings(max_examples=150, deadline=None)
@given(intervals(), st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=5))
def test_live_buffers_never_overlap(chosen: list[Interval], points: list[tuple[int, int]]) -> None:
    offsets, total = place(chosen)
    for n, h in [*points, (1, 1), (1, 10_000), (10_000, 1)]:
        values = {"N": n, "H": h}
        at = {i.name: evaluate(offsets[i.name], values) for i in chosen}
        for i in chosen:
            assert at[i.name] % 64 == 0 and at[i.name] >= 0
            assert at[i.name] + evaluate(i.bytes, values) <= evaluate(total, values)
        for a, b in combinations(chosen, 2):
            if a.first <= b.last and b.first <= a.last:
                apart = at[a.name] + evaluate(a.bytes, values) <= at[b.name]
                assert apart or at[b.name] + evaluate(b.bytes, values) <= at[a.name]


def test_a_chain_needs_two_buffers() -> None:
    chain = [Interval(f"t{k}", 4096 * N, k, k + 1) for k in range(10)]
    assert place(chain)[1] == 8192 * N


@given(sizes, st.integers(1, 99), st.integers(1, 99))
def test_aligned(size: Size, n: int, h: int) -> None:
    values = {"N": n, "H": h}
    rounded = evaluate(aligned(size), values)
    assert rounded % 64 == 0 and rounded >= evaluate(size, values)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.data(),
)
def test_packing_by_digits_equals_packing_by_index(shape: list[int], data: st.DataObject) -> None:
    dims: list[Size] = []
    extents: list[Size] = []
    for k, n in enumerate(shape):
        block = data.draw(st.sampled_from([0, 2, 4]))
        d = var(f"d{k}")
        parts = [(d, n)] if not block else [(d // block, -(-n // block)), (d % block, block)]
        dims += [p for p, _ in parts]
        extents += [e for _, e in parts]
    order = data.draw(st.permutations(range(len(dims))))
    layout = Layout(tuple(dims[j] for j in order), tuple(extents[j] for j in order), 7)
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 100
    packed = pack(array, layout)
    assert packed.shape == layout.extents
    assert np.sum(packed == 7) == packed.size - array.size
    np.testing.assert_array_equal(unpack(packed, layout, tuple(shape)), array)


def test_layouts_of_blocks_are_packed_by_digits() -> None:
    d0, d1 = var("d0"), var("d1")
    layout = Layout((d0 // 16, d1, d0 % 16), (2, 5, 16))
    assert _digits((20, 5), layout, (2, 5, 16)) == ((0, 2), (1,))
    diagonal = Layout((d0 + d1, d1), (24, 5), 0)
    assert _digits((20, 5), diagonal, (24, 5)) is None
    array = np.arange(100).reshape(20, 5)
    np.testing.assert_array_equal(unpack(pack(array, diagonal), diagonal, (20, 5)), array)
