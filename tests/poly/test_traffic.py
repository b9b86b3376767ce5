"""The data-reuse model against an address trace that shares no code with it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.diagnostics import PassError
from nncc.ir.expr import apply
from nncc.ir.index import var
from nncc.ir.nests import Band, Dim, Leaf, Nest
from nncc.passes.reuse import predict
from tests.poly.address_trace import trace
from tests.poly.nest_builder import band, conv, fused, load, local, matmul, param, statement


def tree(loops, statement="acc"):
    node = Leaf(statement)
    for dim, step in reversed(loops):
        node = Band(dim, step, "serial", (node,))
    return (node,)


def predicted(nest, loops, cut, sizes=None):
    return {t.tensor: (t.loads, t.stores) for t in predict(nest, loops, cut, sizes=sizes)}


def check(nest, loops, cut, sizes=None):
    assert all(t.exact for t in predict(nest, loops, cut, sizes=sizes))
    counted = trace(replace(nest, schedule=tree(loops)), cut, sizes)
    # what no instance touches is not in a trace
    nothing = {t: (0, 0) for t in (p.name for p in nest.params) if t not in counted}
    assert predicted(nest, loops, cut, sizes) == counted | nothing


@st.composite
def loop_orders(draw, nest):
    """Loops over some dimensions in any order, some of them split twice, and a cut."""
    loops = []
    for d in nest.statements[0].dims:
        steps = draw(st.lists(st.integers(1, d.hi + 1), max_size=2))
        loops += [(d.name, step) for step in sorted(steps, reverse=True)]
    # steps of one dimension stay in falling order
    order = draw(st.permutations([d for d, _ in loops]))
    queues = {d: [x for x in loops if x[0] == d] for d, _ in loops}
    loops = tuple(queues[d].pop(0) for d in order)
    return loops, draw(st.integers(0, len(loops)))


@st.composite
def convolutions(draw):
    """Halos, strides beyond the filter (gaps), dilations, borders, remainders."""
    nest = conv(
        m=draw(st.integers(1, 3)),
        c=draw(st.integers(1, 3)),
        e=draw(st.integers(1, 6)),
        f=draw(st.integers(1, 4)),
        r=draw(st.integers(1, 3)),
        s=draw(st.integers(1, 3)),
        stride=draw(st.integers(1, 4)),
        dilation=draw(st.integers(1, 3)),
        pad=draw(st.integers(0, 2)),
    )
    return nest, *draw(loop_orders(nest))


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_convolutions(case):
    check(*case)


@st.composite
def subscripts(draw, names):
    size = draw(st.integers(-2, 2))
    for name in draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
        size = size + draw(st.integers(1, 3)) * var(name)
    if draw(st.booleans()):
        return size
    return draw(st.sampled_from([size // 2, size // 3, size % 3, -size]))


@st.composite
def random_nests(draw):
    """Several accesses of several tensors, whose subscripts may share loops or divide them."""
    names = "ijkl"[: draw(st.integers(2, 4))]
    over = tuple(
        Dim(n, lo := draw(st.integers(0, 2)), lo + draw(st.integers(0, 9)) % 6) for n in names
    )
    params, value = [], None
    for k in range(draw(st.integers(1, 2))):
        rank = draw(st.integers(1, 3))
        params.append(param(f"x{k}", [draw(st.integers(1, 7)) for _ in range(rank)]))
        for _ in range(draw(st.integers(1, 2))):
            indices = [draw(subscripts(names)) for _ in range(rank)]
            read = load(f"x{k}", *indices, other=0)
            value = read if value is None else apply("add", value, read)
    kept = draw(st.lists(st.sampled_from(names), unique=True))
    extents = {d.name: d.hi for d in over}
    params.append(param("y", [extents[n] for n in kept], "out"))
    combine = "=" if len(kept) == len(names) and draw(st.booleans()) else "sum"
    target = ("y", *(var(n) for n in kept))
    nest = Nest("random", (), tuple(params), (statement("acc", over, target, combine, value),))
    return nest, *draw(loop_orders(nest))


@settings(max_examples=250, deadline=None)
@given(random_nests())
def test_random_nests(case):
    check(*case)


def with_sizes(nest):
    """The nest with named sizes for extents, and their numbers."""
    (s,) = nest.statements
    sizes = {f"N{d.name}": d.hi for d in s.dims if d.hi > 0}
    own = {d.name: var(f"N{d.name}") if d.hi > 0 else 0 for d in s.dims}
    y = nest.param("y")
    shape = [own[str(i)] for i in s.targets[0].indices]
    params = (*(p for p in nest.params if p is not y), param("y", shape, "out"))
    body = (replace(s, dims=tuple(Dim(d.name, d.lo, own[d.name]) for d in s.dims)),)
    return replace(nest, sizes=tuple(sizes), params=params, body=body), sizes


@settings(max_examples=60, deadline=None)
@given(st.one_of(random_nests(), convolutions()))
def test_named_sizes(case):
    nest, loops, cut = case
    nest, sizes = with_sizes(nest)
    check(nest, loops, cut, sizes)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(st.one_of(random_nests(), convolutions()))
def test_many_nests(case):
    check(*case)


@pytest.mark.parametrize("steps", [(1, 3), (2, 2), (3, 8), (1, 1)])
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_fused_statements_share_their_tile(steps, cut):
    n, m = steps
    inner = local("init", band("c", "acc", by=2), "out")
    nest = fused(n=5, schedule=(band("n", band("m", inner, by=m), by=n),))
    counts = trace(nest, cut)
    assert predicted(nest, (("n", n), ("m", m), ("c", 2)), cut) == counts
    assert counts["t"] == (0, 0)


def test_statements_share_their_tile_of_a_named_size():
    inner = local("init", band("c", "acc", by=2), "out")
    nest = fused(m=3, schedule=(band("n", band("m", inner, by=2), by=2),))
    for n in (1, 4, 5):
        counts = trace(nest, 2, {"N": n})
        assert predicted(nest, (("n", 2), ("m", 2), ("c", 2)), 2, {"N": n}) == counts


def test_empty_loops_move_nothing():
    nest = matmul(m=4, n=3, k=0)
    assert predicted(nest, (("m", 1), ("n", 2)), 2) == dict.fromkeys("yab", (0, 0))


def test_partial_sums_leave_and_come_back():
    # k outside of m: each y[m] is in the level once for each k
    nest = matmul(m=4, n=1, k=3)
    assert predicted(nest, (("k", 1), ("m", 1)), 2)["y"] == (8, 12)
    # k inside: y[m] stays until its sum is complete
    assert predicted(nest, (("m", 1), ("k", 1)), 2)["y"] == (0, 4)


def test_sliding_window_loads_new_rows_only():
    nest = conv(m=1, c=1, e=6, f=1, r=3, s=1, pad=0)
    assert predicted(nest, (("e", 1),), 1)["x"] == (8, 0)
    # a stride larger than the filter leaves gaps that nothing reads
    nest = conv(m=1, c=1, e=3, f=1, r=2, s=1, stride=5, pad=0)
    assert predicted(nest, (("e", 1),), 1)["x"] == (6, 0)


def test_bytes_count_the_dtype():
    (y, a, b) = predict(matmul(4, 4, 4), (), 0)
    assert (y.bytes, a.bytes, b.load_bytes, b.store_bytes) == (64, 64, 64, 0)


def test_sizes_need_numbers():
    nest = fused()
    with pytest.raises(PassError, match=r"n in 0\.\.N is not a number"):
        predict(nest, (("n", 1),))
    loads = {t.tensor: t.loads for t in predict(nest, (("n", 1),), sizes={"N": 7})}
    assert loads["x"] == 21
    with pytest.raises(PassError, match="cannot loop over z by 1"):
        predict(nest, (("z", 1),), sizes={"N": 7})
